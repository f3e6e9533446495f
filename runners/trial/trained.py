"""What did a trial train? Its model and the tokenizer of its text, as they lie in the home."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError

from runners.machine.device import find_device
from runners.text.corpus import Corpus, find_prepared
from runners.text.tokenizers import TextTokenizer, load_tokenizer
from search.record.trial_records import TrialRecord
from spaces.errors import RequestError
from spaces.model import LanguageModel


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A model that a trial left, with what it reads."""

    record: TrialRecord
    model: LanguageModel
    """In float32, for evaluation."""
    corpus: Corpus
    """What it was trained on."""
    tokenizer: TextTokenizer


def load_trained(record: TrialRecord, home: Path, *, device: str = "cpu") -> Trained:
    """The model of a trial of a home, on a device (``auto``: a GPU where there is one).

    Raises `RequestError` where it left no weights, or the text that it was trained on is not
    prepared there.
    """
    path = _weights_of(record)
    place = find_device(_automatic() if device == "auto" else device)
    model = LanguageModel(record.proposal.config.architecture)
    try:
        model.load_state_dict(safetensors.torch.load_file(path))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise RequestError(f"{path} holds no weights of {record.config_hash}: {error}") from error
    fingerprint = record.proposal.config.text_fingerprint
    corpus = find_prepared(home / "cache", fingerprint)
    if corpus is None:
        raise RequestError(
            f"run {record.config_hash} was trained on the text {fingerprint[:16]}, which is not in "
            f"{home / 'cache'}; run its sweep again with this --home"
        )
    tokenizer = load_tokenizer(corpus.tokenizer_path)
    model.eval().to(place)
    return Trained(record=record, model=model, corpus=corpus, tokenizer=tokenizer)


def _automatic() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _weights_of(record: TrialRecord) -> Path:
    outcome = record.outcome
    if outcome is None or outcome.loss_nats is None:
        raise RequestError(
            f"run {record.config_hash} has no result ({record.state}); let its sweep end it first"
        )
    if outcome.weights_path is None:
        raise RequestError(
            f"run {record.config_hash} left no weights; sweep with --training.save-weights in a "
            f"new --home"
        )
    path = Path(outcome.weights_path)
    if not path.is_file():
        raise RequestError(f"the weights of run {record.config_hash} are gone from {path}")
    return path
