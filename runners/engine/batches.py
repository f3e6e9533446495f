"""Which tokens does a step train on, and which does every trial measure on?

A stream is cut into windows of ``context_length + 1`` tokens, one every ``context_length``: inputs
are a window without its last token, targets without its first, so that every token but the very
first is predicted exactly once per epoch. The n-th training sequence is window ``p[n mod W]`` of W,
where p is the permutation of (data seed, epoch). A batch is therefore a function of (data seed,
step) alone: common across arms, and resumable without state.

Shapes in names: B sequences, T tokens, W windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from runners.text.corpus import Corpus, load_tokens
from spaces.errors import RequestError

WindowIndices = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class TrainingOrder:
    """The order of training sequences; a pure function of its three fields."""

    num_tokens: int
    """Tokens of the training stream."""
    context_length: int
    """Tokens per sequence."""
    data_seed: int
    """Chooses the permutations."""

    def __post_init__(self) -> None:
        count_windows(self.num_tokens, self.context_length)

    @property
    def num_windows(self) -> int:
        """Sequences of one epoch."""
        return count_windows(self.num_tokens, self.context_length)

    def windows(self, first_sequence: int, num_sequences: int) -> WindowIndices:
        """Windows of the sequences from ``first_sequence`` on, over as many epochs as they span."""
        sequences = np.arange(first_sequence, first_sequence + num_sequences)
        epochs, positions = np.divmod(sequences, self.num_windows)
        windows = np.empty(num_sequences, dtype=np.int64)
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            chosen = epochs == epoch
            order = epoch_order(self.num_windows, data_seed=self.data_seed, epoch=epoch)
            windows[chosen] = order[positions[chosen]]
        return windows

    def step_windows(self, step: int, batch_sequences: int, *, limit: int) -> WindowIndices:
        """Windows of one step's batch (steps count from 0); never past ``limit`` sequences."""
        first = step * batch_sequences
        return self.windows(first, min(batch_sequences, limit - first))


@lru_cache(maxsize=32)
def epoch_order(num_windows: int, *, data_seed: int, epoch: int) -> WindowIndices:
    """The permutation of one epoch.

    The ranks of raw Philox numbers keyed by (data seed, epoch): numpy promises that stream for
    ever, unlike the shuffles built on it (numpy.org/neps/nep-0019-rng-policy.html).
    """
    key = np.array([data_seed % 2**64, epoch], dtype=np.uint64)
    numbers = np.random.Philox(key=key).random_raw(num_windows)
    return np.argsort(numbers, kind="stable").astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class DeviceStreams:
    """A corpus's streams on the device that trains."""

    train: Tensor
    """The training stream: unsigned integers, on a GPU int32 (it cannot index what is unsigned)."""
    validation: Tensor
    """The validation stream."""
    token_num_bytes: Tensor
    """Bytes of text per id, int32."""


@lru_cache(maxsize=1)
def device_streams(corpus: Corpus, device: str) -> DeviceStreams:
    """The corpus's streams on a device; kept for the next trial of this process.

    On the CPU they stay memory maps, which processes share.
    """
    tokens = load_tokens(corpus)
    train, validation = torch.from_numpy(tokens.train), torch.from_numpy(tokens.validation)
    dtype = train.dtype if device == "cpu" else torch.int32
    return DeviceStreams(
        train=train.to(device, dtype),
        validation=validation.to(device, dtype),
        token_num_bytes=torch.from_numpy(tokens.token_num_bytes).to(device),
    )


def gather(stream: Tensor, windows: WindowIndices, *, context_length: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets (each B x T, int64) of the windows, on the stream's device."""
    starts_B = torch.from_numpy(windows * context_length).to(stream.device, non_blocking=True)
    indices = starts_B.unsqueeze(1) + _offsets(context_length + 1, stream.device)
    tokens = stream[indices].long()
    return tokens[:, :-1], tokens[:, 1:]


@cache
def _offsets(length: int, device: torch.device) -> Tensor:
    return torch.arange(length).to(device)  # waits: every lane of the device reads it


def evaluation_windows(
    num_tokens: int, *, context_length: int, eval_sequences: int
) -> WindowIndices:
    """The validation windows that every trial is measured on, spread evenly over the stream.

    The first ones would be the stream's first document or two. Raises `RequestError` where there
    are fewer than ``eval_sequences``.
    """
    num_windows = count_windows(num_tokens, context_length)
    if not 1 <= eval_sequences <= num_windows:
        raise RequestError(
            f"eval_sequences must lie between 1 and the validation text's {num_windows} sequences "
            f"of {context_length} tokens, got {eval_sequences}; lower it or give more text"
        )
    return np.arange(eval_sequences, dtype=np.int64) * num_windows // eval_sequences


def check_text(corpus: Corpus, *, context_length: int, eval_sequences: int) -> None:
    """Raise `RequestError` where the corpus is too short to train or to measure such sequences."""
    count_windows(corpus.num_train_tokens, context_length)
    evaluation_windows(
        corpus.num_val_tokens, context_length=context_length, eval_sequences=eval_sequences
    )


def count_windows(num_tokens: int, context_length: int) -> int:
    """Windows of a stream; `RequestError` where not even one fits."""
    num_windows = (num_tokens - 1) // context_length
    if num_windows < 1:
        raise RequestError(
            f"a sequence of context_length {context_length} needs {context_length + 1} tokens, but "
            f"the stream has {num_tokens}; shorten the context or give more text"
        )
    return num_windows
