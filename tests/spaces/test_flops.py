"""Does the closed form reproduce the published table, and is it fast and exact on arrays?"""

from __future__ import annotations

import pytest

from spaces.flops import forward_flops_per_token, layer_flops_per_token, train_flops_per_token
from spaces.parameters import count_parameters
from tests.spaces.paper import PUBLISHED_GRID, PublishedRow


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
    for convention in ("full", "causal", "projection"):
        assert forward[convention] == 16 * layer[convention] + head
        assert train_flops_per_token(architecture)[convention] == 3 * forward[convention]
