"""What sharing costs: the standard arm with K x depth layers of their own weights."""

from __future__ import annotations

from dataclasses import replace

from spaces.architecture import Architecture, CommonFields
from spaces.arms.dual_path import (
    NUM_LOOPS,
    ONLY_MULTIPLIER,
    PERHAPS_TRAINED,
    derives_everywhere,
    one_path_axes,
)
from spaces.arms.standard import ARM as STANDARD
from spaces.arms.standard import Standard
from spaces.axes import NUM_LAYERS, Point

_LOOPS = replace(NUM_LOOPS, at_least=2, read=lambda architecture: None)


class Unrolled(Standard):
    """A way to search the standard arm: its architectures *are* standard ones."""

    name = "unrolled"
    spans_depths = False
    axes = one_path_axes(ONLY_MULTIPLIER, loops=(_LOOPS,), others=PERHAPS_TRAINED)
    derived = derives_everywhere("deep_ffn")

    @property
    def family(self) -> str:
        """Standard."""
        return STANDARD.name

    def problems(self, architecture: Architecture) -> list[str]:
        """An unrolled architecture is a standard one."""
        return ["an unrolled model is of the standard arm, with K x layers; use arm standard"]

    def shape(
        self, point: Point, common: CommonFields, *, d_model: int, ffn_multiple: int
    ) -> Architecture:
        """The standard architecture with K x depth layers."""
        rest = {name: value for name, value in point.items() if name != NUM_LOOPS.name}
        layers = int(point[NUM_LAYERS.name]) * int(point[NUM_LOOPS.name])
        unrolled = rest | {NUM_LAYERS.name: layers}
        return STANDARD.shape(unrolled, common, d_model=d_model, ffn_multiple=ffn_multiple)


ARM = Unrolled()
