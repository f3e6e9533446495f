"""How does a run become a folder that transformers loads? Whole, or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch

from runners.export.card import model_card
from runners.export.native import has_native_form, native_config, native_weights
from runners.export.sources import MODELING, source_files
from runners.export.tokenizer_files import tokenizer_files
from runners.machine.files import partial_path
from runners.trial.trained import Trained
from spaces.architecture import Architecture
from spaces.errors import RequestError
from spaces.identity import canonical_form


def export_folder(
    trained: Trained,
    folder: Path,
    *,
    laws: Sequence[str] = (),
    scores: Mapping[str, float] | None = None,
) -> list[str]:
    """Write a model with configuration, tokenizer, code and card; the names of the files.

    ``laws``: lines for the card; ``scores``: of tasks, for the card. Raises `RequestError` where
    the folder exists, or an arm of one's own cannot travel.
    """
    if folder.exists():
        raise RequestError(f"an export makes its folder, but {folder} exists; name another")
    record, model = trained.record, trained.model
    architecture = model.architecture
    is_native = has_native_form(architecture)
    config = _config(architecture, separator=trained.tokenizer.separator)
    texts = {
        "config.json": _json(config),
        "generation_config.json": _json(_generation(trained.tokenizer.separator, is_native)),
        "isoflop.json": _json(
            {
                "config_hash": record.config_hash,
                "trial": canonical_form(record.proposal),
                "outcome": canonical_form(record.outcome),
            }
        ),
        "README.md": model_card(
            record, trained.corpus, is_native=is_native, laws=laws, scores=scores or {}
        ),
        **tokenizer_files(trained.tokenizer, context_length=architecture.context_length),
    }
    if is_native:
        weights = native_weights(model)
    else:
        weights = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        texts |= source_files(architecture, identity=record.config_hash)
    partial = partial_path(folder)
    partial.mkdir(parents=True)
    try:
        for name, text in texts.items():
            (partial / name).write_text(text, encoding="utf-8")
        tensors = {name: tensor.detach().clone() for name, tensor in weights.items()}
        path = partial / "model.safetensors"
        safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return sorted([*texts, "model.safetensors"])


def _config(architecture: Architecture, *, separator: int) -> dict[str, Any]:
    """The configuration of either kind of model."""
    common = {
        "vocab_size": architecture.vocab_size,
        "max_position_embeddings": architecture.context_length,
        "tie_word_embeddings": False,
        "dtype": "float32",
        "bos_token_id": separator,
        "eos_token_id": separator,
        "pad_token_id": separator,
    }
    if has_native_form(architecture):
        return native_config(architecture) | common
    return common | {
        "architectures": ["IsoflopForCausalLM"],
        "model_type": "isoflop",
        "auto_map": {
            "AutoConfig": f"{MODELING}.IsoflopConfig",
            "AutoModelForCausalLM": f"{MODELING}.IsoflopForCausalLM",
        },
        "hidden_size": architecture.d_model,
        "num_hidden_layers": architecture.num_layers,
        "num_attention_heads": architecture.d_model // architecture.head_dim,
        "use_cache": False,
        "isoflop_architecture": canonical_form(architecture),
    }


def _generation(separator: int, is_native: bool) -> dict[str, Any]:
    ids = {f"{name}_token_id": separator for name in ("bos", "eos", "pad")}
    return {**ids, "use_cache": is_native}


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2) + "\n"
