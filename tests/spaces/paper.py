"""The published grid of arXiv 2605.30202 as the project's guide prints it."""

from __future__ import annotations

from dataclasses import dataclass

from spaces.architecture import Architecture


@dataclass(frozen=True)
class PublishedRow:
    """One row; parameters in millions, forward FLOPs per token and layer in millions."""

    name: str
    num_loops: int
    deep_ffn: int | None
    wide_ffn: int | None
    parameters: str
    projection: str
    causal: str
    full: str

    @property
    def architecture(self) -> Architecture:
        """The row's model."""
        arm: str = "dual"
        if self.deep_ffn is None or self.wide_ffn is None:
            arm = "wide" if self.deep_ffn is None else "loop"
        return Architecture(
            arm=arm,
            num_layers=16,
            num_loops=self.num_loops,
            d_model=768,
            head_dim=64,
            deep_ffn=self.deep_ffn,
            wide_ffn=self.wide_ffn,
            context_length=4096,
            vocab_size=50304,
        )


PUBLISHED_GRID = (
    PublishedRow("80M pure wide", 1, None, 16384, "719.0", "80.22", "86.5", "92.8"),
    PublishedRow("80M pure loop", 2, 7680, None, "398.2", "80.22", "92.8", "105.4"),
    PublishedRow("80M pure loop", 4, 3328, None, "237.7", "80.22", "105.4", "130.6"),
    PublishedRow("80M dual, alpha 25", 2, 1280, 12032, "643.6", "81.40", "100.3", "119.2"),
    PublishedRow("80M dual, alpha 50", 2, 3328, 7680, "558.7", "80.22", "99.1", "118.0"),
    PublishedRow("80M dual, alpha 75", 2, 5632, 3328, "483.2", "81.40", "100.3", "119.2"),
    PublishedRow("80M dual, alpha 50", 3, 2048, 7680, "511.5", "82.58", "107.7", "132.9"),
    PublishedRow("80M dual, alpha 50", 4, 1280, 7680, "483.2", "82.58", "114.0", "145.5"),
    PublishedRow("80M dual, alpha 75", 4, 2304, 3328, "360.5", "81.40", "112.9", "144.3"),
    PublishedRow("160M pure wide", 1, None, 33792, "1360.7", "160.43", "166.7", "173.0"),
    PublishedRow("160M pure loop", 4, 7680, None, "398.2", "160.44", "185.6", "210.8"),
    PublishedRow("160M dual, alpha 50", 2, 7680, 16384, "1039.9", "160.44", "179.3", "198.2"),
    PublishedRow("160M dual, alpha 25", 4, 1280, 25088, "1124.9", "162.80", "194.3", "225.7"),
    PublishedRow("160M dual, alpha 75", 4, 5632, 7680, "643.6", "162.80", "194.3", "225.7"),
)
