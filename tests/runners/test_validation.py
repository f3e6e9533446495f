"""Is the measured loss the plain mean over exactly the named windows?"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import runners.engine.validation
from runners.engine.batches import (
    DeviceStreams,
    WindowIndices,
    device_streams,
    evaluation_windows,
    gather,
)
from runners.engine.validation import Measurement, batch_sums, measure
from runners.text.corpus import Corpus
from spaces.model import LanguageModel
from tests.runners.small import SIZES, small_architecture


def measure_of(model: LanguageModel, streams: DeviceStreams, windows: WindowIndices) -> Measurement:
    """The model's measurement, with the names of its arm's readouts."""
    names = [each.name for each in model.arm.readouts_of(model.architecture)]
    sums_of = partial(batch_sums, model)
    return measure(sums_of, streams, windows, context_length=16, names=names)


@pytest.mark.parametrize("arm", list(SIZES))
def test_loss_and_bits_are_those_of_one_plain_pass(arm: str, sotu_corpus: Corpus) -> None:
    model = LanguageModel(small_architecture(arm), seed=4)
    streams = device_streams(sotu_corpus, "cpu")
    windows = evaluation_windows(sotu_corpus.num_val_tokens, context_length=16, eval_sequences=500)
    found = measure_of(model, streams, windows)
    inputs, targets = gather(streams.validation, windows, context_length=16)
    with torch.no_grad():
        nats = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), reduction="none")
    assert found.loss_nats == pytest.approx(nats.double().mean().item(), rel=1e-6)
    num_bytes = (targets != sotu_corpus.separator).sum().item()
    expected_bits = nats.double().sum().item() / math.log(2) / num_bytes
    assert found.bits_per_byte == pytest.approx(expected_bits, rel=1e-6)
    assert all(len(layers) == 2 for layers in found.readouts.values())
    assert list(found.readouts) == [each.name for each in model.arm.readouts_of(model.architecture)]


def test_the_result_does_not_depend_on_the_size_of_a_pass(
    sotu_corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = LanguageModel(small_architecture("dual"), seed=4)
    streams, windows = device_streams(sotu_corpus, "cpu"), np.arange(21)
    found = []
    for tokens_at_once in (1, 16 * 5, 10**6):
        monkeypatch.setitem(runners.engine.validation.TOKENS_AT_ONCE, "cpu", tokens_at_once)
        found.append(measure_of(model, streams, windows))
    for other in found[1:]:
        assert other.loss_nats == pytest.approx(found[0].loss_nats, rel=1e-6)
        assert other.bits_per_byte == pytest.approx(found[0].bits_per_byte, rel=1e-6)
        for name, layers in found[0].readouts.items():
            assert other.readouts[name] == pytest.approx(layers, rel=1e-6)


def test_gates_are_means_over_the_measured_tokens(sotu_corpus: Corpus) -> None:
    model = LanguageModel(small_architecture("dual", gate_bias_init=0.0), seed=4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("gate.linear.bias"):
                parameter.copy_(torch.tensor([math.log(3.0), 0.0]))
    streams = device_streams(sotu_corpus, "cpu")
    found = measure_of(model, streams, np.arange(3))
    share = 0.75 / (0.75 + 0.5)
    entropy = -share * math.log(share) - (1 - share) * math.log(1 - share)
    assert found.readouts["deep_share"] == pytest.approx((share, share), rel=1e-5)
    assert found.readouts["gate_entropy_nats"] == pytest.approx((entropy, entropy), rel=1e-5)
