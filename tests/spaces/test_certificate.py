"""Do three independent ways of counting agree, exactly, and is what they do not know an error?"""

from __future__ import annotations

import resource
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

import spaces.certificate
from spaces.architecture import Architecture
from spaces.certificate import (
    CounterDisagreementError,
    UnknownOperatorError,
    certify,
    count_with_fvcore,
    count_with_pytorch,
)
from spaces.flops import forward_flops_per_sequence, forward_flops_per_token
from spaces.model import LanguageModel
from tests.spaces.paper import PUBLISHED_GRID
from tests.spaces.strategies import architectures, small


def check_counters(architecture: Architecture) -> None:
    certificate = certify(architecture)
    counters = certificate.counters
    assert counters.fvcore == counters.closed_form == counters.meta
    assert certificate.agree
    assert certificate.forward_flops_per_token == forward_flops_per_token(architecture)
    assert certificate.counted_per_token()["meta"] == certificate.forward_flops_per_token


@given(architectures())
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
def test_three_counters_are_equal_exactly(architecture: Architecture) -> None:
    check_counters(architecture)


@pytest.mark.slow
@given(architectures())
@settings(max_examples=300, deadline=None, derandomize=True, database=None)
def test_three_counters_are_equal_exactly_over_many_architectures(
    architecture: Architecture,
) -> None:
    check_counters(architecture)


@pytest.mark.slow
@pytest.mark.parametrize("row", PUBLISHED_GRID, ids=lambda row: f"{row.name}, K {row.num_loops}")
def test_every_published_architecture_is_certified(row: object) -> None:
    check_counters(row.architecture)  # type: ignore[attr-defined]


def test_seven_billion_parameters_are_certified_in_seconds_without_their_memory() -> None:
    architecture = Architecture(
        arm="dual",
        num_layers=24,
        num_loops=2,
        d_model=4096,
        head_dim=128,
        deep_ffn=4096,
        wide_ffn=11264,
        context_length=4096,
        vocab_size=50304,
    )
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    certificate = certify(architecture)
    grown_bytes = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib)
    print(f"{certificate.parameters.total / 1e9:.2f} B in {certificate.wall_seconds:.1f} s")
    assert 7e9 < certificate.parameters.total < 8.5e9
    assert certificate.wall_seconds < 60
    assert grown_bytes < 1e9


class WithOperator(LanguageModel):
    """A model that runs one operator too many."""

    def __init__(self, architecture: Architecture, operator: str) -> None:
        super().__init__(architecture)
        self.operator = operator

    def hidden(self, tokens_BT: Tensor) -> Tensor:
        x_BTD = super().hidden(tokens_BT)
        if self.operator == "einsum":
            return torch.einsum("btd,btd->btd", x_BTD, x_BTD)
        return x_BTD.cumprod(-1)


@pytest.mark.parametrize("operator", ["cumprod", "einsum"])
def test_fvcore_names_an_unknown_operator(operator: str) -> None:
    with torch.device("meta"):
        model, tokens = WithOperator(small("dual"), operator), torch.zeros(1, 16, dtype=torch.long)
    with pytest.raises(UnknownOperatorError, match=f"aten::{operator}"):
        count_with_fvcore(model, tokens)


def test_pytorchs_counter_names_an_unknown_operator() -> None:
    with torch.device("meta"):
        model, tokens = WithOperator(small("dual"), "cumprod"), torch.zeros(1, 16, dtype=torch.long)
    with pytest.raises(UnknownOperatorError, match="cumprod"):
        count_with_pytorch(model, tokens)


def test_counted_attention_is_the_whole_square() -> None:
    architecture = small("standard", num_layers=1)
    with torch.device("meta"):
        model: nn.Module = LanguageModel(architecture)
        tokens = torch.zeros(1, 16, dtype=torch.long)
    for counted in (count_with_fvcore(model, tokens), count_with_pytorch(model, tokens)):
        assert counted.scores == 4 * 16 * 16 * 32


def test_disagreement_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def off_by_one(architecture: Architecture) -> object:
        right = forward_flops_per_sequence(architecture)
        return replace(right, causal=right.causal + 1)

    monkeypatch.setattr(spaces.certificate, "forward_flops_per_sequence", off_by_one)
    with pytest.raises(CounterDisagreementError, match="three counters must be equal"):
        certify(small("dual"))
