"""Does the closed form count what the built model has, part by part?"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from spaces.architecture import Architecture
from spaces.certificate import built_parameters
from spaces.model import LanguageModel
from spaces.parameters import ParameterCounts, count_parameters, parameter_grid
from tests.spaces.strategies import ARMS, architectures, small


@given(architectures())
@settings(max_examples=80, deadline=None, derandomize=True, database=None)
def test_closed_form_equals_the_built_model_by_part(architecture: Architecture) -> None:
    with torch.device("meta"):
        model = LanguageModel(architecture)
    counts = count_parameters(architecture)
    assert counts == built_parameters(model)
    assert counts.total == sum(v for name, v in counts.as_dict().items() if name != "total")


def test_published_facts_about_gates_router_and_step_scales() -> None:
    plain = count_parameters(small("dual", num_loops=1, gate_mode="fixed", loop_output="final"))
    routed = count_parameters(small("dual", num_loops=1, gate_mode="fixed"))
    gated = count_parameters(small("dual", num_loops=1))
    looped = count_parameters(small("dual", num_loops=4))
    layers, width = 2, 32
    assert routed.shared - plain.shared == layers * (width + 2)
    assert gated.shared - routed.shared == layers * (2 * width + 2)
    assert looped.deep - gated.deep == layers * 3
    assert plain.shared == width  # the final norm


def test_standard_arm_counts_as_deep() -> None:
    counts = count_parameters(small("standard"))
    assert counts.deep == 2 * (4 * 32 * 32 + 3 * 32 * 40 + 2 * 32)
    assert counts.wide == 0
    assert counts.shared == 32


@pytest.mark.parametrize("arm", ARMS)
def test_grid_equals_the_single_counts(arm: str) -> None:
    shapes = [(layers, width) for layers in (1, 3) for width in (16, 40, 64)]
    grid = parameter_grid(
        arm=arm,
        num_layers=np.array([layers for layers, _ in shapes]),
        num_loops=2,
        d_model=np.array([width for _, width in shapes]),
        deep_ffn=40,
        wide_ffn=96,
        vocab_size=64,
    )
    for index, (num_layers, d_model) in enumerate(shapes):
        num_loops = 2 if arm in ("dual", "loop") else 1
        one = count_parameters(
            small(arm, num_layers=num_layers, num_loops=num_loops, d_model=d_model)
        )
        row = {name: int(array[index]) for name, array in vars(grid).items()}
        assert ParameterCounts(**row) == one
