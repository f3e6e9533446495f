"""Is a batch a function of (data seed, step) alone, and does an epoch see every window once?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from runners.engine.batches import (
    TrainingOrder,
    check_text,
    device_streams,
    epoch_order,
    evaluation_windows,
    gather,
)
from runners.text.corpus import Corpus, load_tokens
from spaces.errors import RequestError

ORDER = TrainingOrder(num_tokens=1_003, context_length=10, data_seed=3)


def test_every_epoch_sees_every_window_once_in_another_order() -> None:
    assert ORDER.num_windows == 100
    epochs = [ORDER.windows(100 * epoch, 100) for epoch in range(3)]
    for windows in epochs:
        assert sorted(windows) == list(range(100))
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[0], replace(ORDER, data_seed=4).windows(0, 100))


@given(first=st.integers(0, 350), count=st.integers(1, 250))
def test_sequences_do_not_depend_on_how_they_are_batched(first: int, count: int) -> None:
    one_by_one = [int(ORDER.windows(n, 1)[0]) for n in range(first, first + count)]
    assert list(ORDER.windows(first, count)) == one_by_one


def test_a_step_takes_its_share_and_the_last_what_is_left() -> None:
    steps = [ORDER.step_windows(step, 16, limit=40) for step in range(3)]
    assert [len(windows) for windows in steps] == [16, 16, 8]
    np.testing.assert_array_equal(np.concatenate(steps), ORDER.windows(0, 40))


def test_golden_order() -> None:
    """A changed order changes every trial: raise RECORD_VERSION and name it in the commit."""
    assert list(epoch_order(8, data_seed=0, epoch=0)) == GOLDEN_ORDER
    assert list(epoch_order(8, data_seed=0, epoch=1)) != GOLDEN_ORDER


GOLDEN_ORDER = [0, 2, 1, 5, 4, 3, 6, 7]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_windows_become_inputs_and_shifted_targets(dtype: type) -> None:
    stream = torch.from_numpy((np.arange(60) % 250).astype(dtype))
    inputs, targets = gather(stream, np.array([2, 0]), context_length=5)
    assert inputs.tolist() == [[10, 11, 12, 13, 14], [0, 1, 2, 3, 4]]
    assert targets.tolist() == [[11, 12, 13, 14, 15], [1, 2, 3, 4, 5]]
    assert inputs.dtype == torch.int64


def test_streams_are_opened_once_and_hold_the_text(sotu_corpus: Corpus) -> None:
    streams = device_streams(sotu_corpus, "cpu")
    assert device_streams(sotu_corpus, "cpu") is streams
    assert len(streams.train) == sotu_corpus.num_train_tokens
    inputs, _ = gather(streams.train, np.array([7]), context_length=100)
    assert bytes(inputs[0].to(torch.uint8).numpy()) == bytes(
        load_tokens(sotu_corpus).train[700:800]
    )


def test_evaluation_is_spread_over_the_whole_stream() -> None:
    windows = evaluation_windows(1_001, context_length=10, eval_sequences=10)
    assert list(windows) == [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]
    everything = evaluation_windows(1_001, context_length=10, eval_sequences=100)
    assert list(everything) == list(range(100))


@pytest.mark.parametrize("eval_sequences", [0, 101])
def test_more_evaluation_than_text_names_what_exists(eval_sequences: int) -> None:
    with pytest.raises(RequestError, match=f"100 sequences of 10 tokens, got {eval_sequences}"):
        evaluation_windows(1_001, context_length=10, eval_sequences=eval_sequences)


def test_a_context_longer_than_the_text(sotu_corpus: Corpus) -> None:
    with pytest.raises(RequestError, match="needs 11 tokens, but the stream has 10"):
        TrainingOrder(num_tokens=10, context_length=10, data_seed=0)
    check_text(sotu_corpus, context_length=128, eval_sequences=64)
    with pytest.raises(RequestError, match="needs 1000001 tokens, but the stream has 694663"):
        check_text(sotu_corpus, context_length=1_000_000, eval_sequences=1)
