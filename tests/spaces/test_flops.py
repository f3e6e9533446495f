"""Does the closed form reproduce the published table, and is it fast and exact on arrays?"""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings

from spaces.architecture import Architecture
from spaces.flops import (
    CONVENTIONS,
    deep_share,
    forward_flops_grid,
    forward_flops_per_token,
    layer_flops_per_token,
    train_flops_per_token,
)
from spaces.parameters import count_parameters, parameter_grid
from tests.spaces.paper import PUBLISHED_GRID, PublishedRow
from tests.spaces.strategies import architectures, small


@pytest.mark.parametrize("row", PUBLISHED_GRID, ids=lambda row: f"{row.name}, K {row.num_loops}")
def test_published_row_comes_back_to_the_digit_printed(row: PublishedRow) -> None:
    layer = layer_flops_per_token(row.architecture)
    parameters = count_parameters(row.architecture).total
    found = (
        f"{parameters / 1e6:.1f}",
        f"{layer.projection / 1e6:.2f}",
        f"{layer.causal / 1e6:.1f}",
        f"{layer.full / 1e6:.1f}",
    )
    print(f"{row.name:<20} K={row.num_loops} " + " ".join(f"{figure:>8}" for figure in found))
    assert found == (row.parameters, row.projection, row.causal, row.full)


def test_training_is_three_forward_passes_of_layers_and_head() -> None:
    architecture = PUBLISHED_GRID[7].architecture
    forward, layer = forward_flops_per_token(architecture), layer_flops_per_token(architecture)
    head = 2 * 768 * 50304
    for convention in CONVENTIONS:
        assert forward[convention] == 16 * layer[convention] + head
        assert train_flops_per_token(architecture)[convention] == 3 * forward[convention]


@given(architectures())
@settings(max_examples=100, deadline=None, derandomize=True, database=None)
def test_causal_lies_exactly_between_full_and_projection(architecture: Architecture) -> None:
    flops = forward_flops_per_token(architecture)
    assert 2 * flops.causal == flops.full + flops.projection
    passes = architecture.num_loops * (architecture.arm != "wide")
    passes += architecture.arm in ("dual", "wide") and architecture.wide_attention
    square = 4 * architecture.context_length * architecture.d_model
    assert flops.full - flops.projection == architecture.num_layers * passes * square


def test_alpha_is_the_deep_share_of_the_paths_and_its_ends_are_single_paths() -> None:
    dual = small("dual", num_loops=2)
    projection = {"deep": 2 * (8 * 32**2 + 6 * 32 * 40), "wide": 8 * 32**2 + 6 * 32 * 96}
    expected = projection["deep"] / sum(projection.values())
    assert deep_share(dual, "projection") == pytest.approx(expected, rel=1e-15)
    assert deep_share(dual, "full") > deep_share(dual, "causal") > expected
    assert deep_share(small("loop"), "full") == deep_share(small("standard"), "full") == 1
    assert deep_share(small("wide"), "full") == 0


@given(architectures())
@settings(max_examples=100, deadline=None, derandomize=True, database=None)
def test_grid_equals_the_single_count(architecture: Architecture) -> None:
    a = architecture
    for convention in CONVENTIONS:
        grid = forward_flops_grid(
            arm=a.arm,
            num_layers=np.array([a.num_layers, 2 * a.num_layers]),
            num_loops=a.num_loops,
            d_model=a.d_model,
            deep_ffn=a.deep_ffn or 0,
            wide_ffn=a.wide_ffn or 0,
            context_length=a.context_length,
            vocab_size=a.vocab_size,
            convention=convention,
            gate_mode=a.gate_mode,
            loop_output=a.loop_output,
            wide_attention=a.wide_attention,
        )
        assert grid.dtype == np.int64
        assert grid[0] == forward_flops_per_token(a)[convention]
        head = 2 * a.d_model * a.vocab_size
        assert grid[1] - head == 2 * (grid[0] - head)


def test_fractions_are_refused_where_sizes_are_whole() -> None:
    with pytest.raises(TypeError, match="same_kind"):
        forward_flops_grid(
            arm="standard",
            num_layers=np.array([1.5]),  # type: ignore[arg-type]
            d_model=64,
            deep_ffn=128,
            context_length=64,
            vocab_size=64,
            convention="full",
        )


def test_a_million_counts_take_seconds_at_most() -> None:
    generator = np.random.default_rng(0)
    million = 1_000_000
    shape = {
        "num_layers": generator.integers(1, 64, million),
        "num_loops": generator.integers(1, 8, million),
        "d_model": 64 * generator.integers(1, 64, million),
        "deep_ffn": 8 * generator.integers(1, 4096, million),
        "wide_ffn": 8 * generator.integers(1, 4096, million),
    }
    started = time.process_time()
    flops = forward_flops_grid(
        arm="dual", **shape, context_length=4096, vocab_size=50304, convention="full"
    )
    flops_seconds = time.process_time() - started
    parameters = parameter_grid(arm="dual", **shape, vocab_size=50304)
    seconds = time.process_time() - started
    print(f"a million counts: FLOPs {flops_seconds:.3f} s, with parameters {seconds:.3f} s")
    assert flops.shape == parameters.total.shape == (million,)
    assert (flops > 0).all()
    assert seconds < 20, "a second and a half on an idle core"


def test_planning_imports_no_torch() -> None:
    code = "import sys, spaces.budget, spaces.flops; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
