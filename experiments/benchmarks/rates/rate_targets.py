"""At which shapes is the best rate measured? A reference, others that differ in one thing, corners.

Sizes are those on a GPU; on a CPU widths are a quarter, and all else is tiny (`Scale`).
"""

from __future__ import annotations

from dataclasses import dataclass

from spaces.architecture import Architecture
from spaces.parametrization import LoopFactor, Parametrization, ParametrizationName

REFERENCE = "reference"


@dataclass(frozen=True, kw_only=True)
class Target:
    """A shape and how long it is trained."""

    name: str
    arm: str = "dual"
    d_model: int = 128
    num_layers: int = 4
    num_loops: int = 2
    token_factor: int = 1
    """Training tokens over the reference's."""

    @property
    def reference(self) -> str:
        """The target of this arm whose rate is transferred."""
        return REFERENCE if self.arm == "dual" else f"{self.arm}-{REFERENCE}"


TARGETS = {
    each.name: each
    for each in (
        Target(name=REFERENCE),
        Target(name="width-256", d_model=256),
        Target(name="layers-16", num_layers=16),
        Target(name="loops-8", num_loops=8),
        Target(name="tokens-4", token_factor=4),
        Target(name="width-64", d_model=64),
        Target(name="layers-2", num_layers=2),
        Target(name="loops-1", num_loops=1),
        Target(name="standard-reference", arm="standard", num_loops=1),
        Target(name="standard-width-512", arm="standard", num_loops=1, d_model=512),
        Target(name="standard-layers-16", arm="standard", num_loops=1, num_layers=16),
        Target(name="width-512", d_model=512),
        Target(name="tokens-16", token_factor=16),
        Target(name="corner-small", d_model=64, num_layers=2, num_loops=1, token_factor=16),
        Target(name="corner-large", d_model=512, num_layers=16, num_loops=1),
    )
}
"""By name; the reference before what it is transferred to, what costs most last."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What all targets share on one kind of device."""

    width_divisor: int
    head_dim: int
    context_length: int
    batch_sequences: int
    tokens: int
    """Of the reference."""
    eval_sequences: int

    def architecture(self, target: Target, *, vocab_size: int) -> Architecture:
        """The target's model: feed-forwards of three (deep) and four (wide) times the width."""
        width = target.d_model // self.width_divisor
        return Architecture(
            arm=target.arm,
            num_layers=target.num_layers,
            num_loops=target.num_loops,
            d_model=width,
            deep_ffn=3 * width,
            wide_ffn=4 * width if target.arm == "dual" else None,
            head_dim=self.head_dim,
            context_length=self.context_length,
            vocab_size=vocab_size,
        )

    def tokens_of(self, target: Target, tokens: int | None = None) -> int:
        """Training tokens in whole sequences; ``tokens`` instead of the scale's."""
        wanted = target.token_factor * (self.tokens if tokens is None else tokens)
        return max(1, wanted // self.context_length) * self.context_length

    def rules(self) -> dict[str, Parametrization]:
        """Every parametrisation that is measured, by name, with the reference as its base."""
        named: dict[str, tuple[ParametrizationName, LoopFactor]] = {
            "standard": ("standard", "none"),
            "mup": ("mup", "none"),
            "mup-loops": ("mup", "inverse"),
            "complete-p": ("complete-p", "none"),
            "complete-p-loops": ("complete-p", "inverse"),
        }
        width = TARGETS[REFERENCE].d_model // self.width_divisor
        return {
            name: Parametrization(name=rule, loop_factor=loops, base_width=width)
            for name, (rule, loops) in named.items()
        }


ON_GPU = Scale(
    width_divisor=1,
    head_dim=64,
    context_length=512,
    batch_sequences=32,
    tokens=10_000_000,
    eval_sequences=512,
)
ON_CPU = Scale(
    width_divisor=4,
    head_dim=16,
    context_length=64,
    batch_sequences=8,
    tokens=20_000,
    eval_sequences=64,
)
