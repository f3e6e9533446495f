"""Where does every arm start? At the shape nearest to 20 tokens per parameter."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping

from search.record.trial import Proposal
from spaces.arms.contract import find_arm
from spaces.axes import AxisValue
from spaces.parameters import count_parameters

BASELINE_TOKENS_PER_PARAMETER = 20.0
"""The compute-optimal ratio of Hoffmann et al. (arXiv 2203.15556), where a baseline stands."""

_SHAPE = ("num_layers", "d_model")


def baselines(
    arm: str,
    axes: Mapping[str, tuple[AxisValue, ...]],
    resolve: Callable[[dict[str, AxisValue]], Proposal | None],
) -> list[Proposal]:
    """What a cell starts with; empty where no shape fits.

    Axes other than the shape stand in their middle. An arm that spans depths starts with three: the
    nearest one, the least and the greatest, each with its nearest width.
    """
    middle = {name: values[len(values) // 2] for name, values in axes.items()}
    shape = [name for name in _SHAPE if name in axes]
    points = itertools.product(*(axes[name] for name in shape))
    resolved = [resolve(middle | dict(zip(shape, point, strict=True))) for point in points]
    ordered = sorted((each for each in resolved if each is not None), key=_distance_to_ratio)
    chosen = ordered[:1]
    if find_arm(arm).spans_depths:
        for depth in (axes["num_layers"][0], axes["num_layers"][-1]):
            at_depth = [each for each in ordered if each.axes["num_layers"] == depth]
            chosen += [each for each in at_depth[:1] if each not in chosen]
    return chosen


def _distance_to_ratio(proposal: Proposal) -> float:
    """How far a proposal is from the baseline's tokens per parameter, in log units."""
    total = count_parameters(proposal.config.architecture).total
    return abs(math.log(proposal.config.tokens / total / BASELINE_TOKENS_PER_PARAMETER))
