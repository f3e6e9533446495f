"""How does a finished trial become a model again, with the tokenizer of its text?"""

from __future__ import annotations

import json
from pathlib import Path

import safetensors.torch

from runners.text.tokenizers import ByteTokenizer, TextTokenizer, make_tokenizer
from search.record.trial_records import TrialRecord
from spaces.errors import RequestError
from spaces.model import LanguageModel


def load_trained_model(record: TrialRecord) -> LanguageModel:
    """The model of a trial, on the CPU. Raises `RequestError` where its weights are not there."""
    path = record.outcome and record.outcome.weights_path
    if not path or not Path(path).is_file():
        missing = "kept no weights" if not path else f"left its weights at {path}, which is gone"
        raise RequestError(
            f"a probe needs a trained model, but trial {record.config_hash} {missing}; sweep into "
            f"another home with training.save_weights = true"
        )
    model = LanguageModel(record.proposal.config.architecture)
    model.load_state_dict(safetensors.torch.load_file(path))
    return model.eval()


def tokenizer_of(text_fingerprint: str, cache_dir: Path) -> TextTokenizer:
    """The tokenizer of a text that was prepared in this home.

    Raises `RequestError` where it was prepared elsewhere.
    """
    for record in sorted(cache_dir.glob("prepared-*.json")):
        values = json.loads(record.read_text())
        if values["fingerprint"] == text_fingerprint:
            name = values["tokenizer_path"]
            if name is None:
                return ByteTokenizer()
            return make_tokenizer(f"file:{record.parent / name}", iter(()))
    raise RequestError(
        f"a probe needs the tokenizer of text {text_fingerprint[:16]}, but {cache_dir} has none "
        f"prepared; run isoflop plan on the experiment in this home"
    )
