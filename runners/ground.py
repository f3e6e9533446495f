"""What does an experiment rest on here? Its text, prepared, and the device that trials run on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from search.asked.experiment import Experiment
from search.limits.packs import LARGEST_PACK
from search.propose.cells import Ground
from search.record.homes import explaining_home
from search.record.trial import Precision

if TYPE_CHECKING:
    from runners.text.corpus import Corpus

NVIDIA_FILES = ("/dev/nvidiactl", "/dev/dxg", "/proc/driver/nvidia/version")
"""One of these exists on every Linux machine whose NVIDIA driver is there (dxg: under Windows)."""


def prepare_ground(
    experiment: Experiment, home: Path, *, say: Callable[[str], None] = lambda _: None
) -> tuple[Corpus, Ground]:
    """Read, split and tokenise the text (cached), and settle what proposals rest on.

    ``say`` is told what was left out, guessed or found odd about the text.
    """
    from runners.text.corpus import prepare_corpus

    text = experiment.text
    with explaining_home(home):
        corpus = prepare_corpus(
            text.source,
            tokenizer=text.tokenizer,
            validation_fraction=text.validation_fraction,
            key=text.key,
            cache_dir=home / "cache",
            say=say,
        )
    windows = (corpus.num_val_tokens - 1) // experiment.architecture.context_length
    ground = Ground(
        text_fingerprint=corpus.fingerprint,
        vocab_size=corpus.vocab_size,
        num_validation_sequences=windows,
        num_train_tokens=corpus.num_train_tokens,
        precision=resolve_precision(experiment),
        most_side_by_side=most_side_by_side(experiment),
    )
    return corpus, ground


def resolve_device(experiment: Experiment) -> str:
    """cpu or cuda; auto is cuda where torch, or the cluster that is joined, has one."""
    workers = experiment.workers
    if workers.device != "auto":
        return workers.device
    if sys.platform == "linux" and not any(map(os.path.exists, NVIDIA_FILES)):
        return "cpu"  # without asking torch, whose import takes seconds
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def most_side_by_side(experiment: Experiment) -> int:
    """Most trials that a worker trains at once: as asked for, else more than one on a GPU."""
    asked = experiment.workers.pack
    if asked is not None:
        return asked
    return LARGEST_PACK if resolve_device(experiment) == "cuda" else 1


def resolve_precision(experiment: Experiment) -> Precision:
    """float32 or bfloat16; auto follows the device."""
    if experiment.training.precision != "auto":
        return experiment.training.precision
    return "bfloat16" if resolve_device(experiment) == "cuda" else "float32"
