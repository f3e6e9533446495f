"""What do the cases of text share? Small texts, and what reading them gives and says."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.cli import run
from runners.text.corpus import Corpus, load_tokens, prepare_corpus

DATA = Path(__file__).parent / "data"
"""Small inputs as people have them."""

TOML = """
name = "small"
trials = 2
arms = ["standard"]
[budget]
train_flops = [1e9]
[axes]
num_layers = [1, 2]
d_model = [16, 32]
[architecture]
head_dim = 16
context_length = 32
[training]
batch_tokens = 512
min_steps = 5
eval_sequences = 8
[text]
"""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a source gives."""

    corpus: Corpus
    said: str
    """All that was said, a line each."""
    train: list[bytes]
    validation: list[bytes]

    @property
    def share(self) -> float:
        """Of the bytes that measure."""
        total = self.corpus.num_train_bytes + self.corpus.num_val_bytes
        return self.corpus.num_val_bytes / total


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a command ends with."""

    code: int
    out: str
    err: str


def read(source: Path | None, cache_dir: Path, **rules: Any) -> Reading:
    """Prepare a source in bytes."""
    said: list[str] = []
    corpus = prepare_corpus(source, cache_dir=cache_dir, say=said.append, **rules)
    tokens = load_tokens(corpus)
    return Reading(
        corpus=corpus,
        said="\n".join(said),
        train=_documents(tokens.train),
        validation=_documents(tokens.validation),
    )


def plan(
    source: Path | str, folder: Path, capfd: pytest.CaptureFixture[str], *words: str
) -> Answer:
    """``isoflop plan`` of a small experiment on a source."""
    path = folder / "small.toml"
    path.write_text(f"{TOML}source = {json.dumps(str(source))}\n")
    capfd.readouterr()
    code = run(["plan", str(path), "--home", str(folder / "home"), *words])
    captured = capfd.readouterr()
    return Answer(code=code, out=captured.out, err=captured.err)


def prose(seed: int, num_paragraphs: int = 4) -> str:
    """Paragraphs of random words, the same for the same seed."""
    chance = random.Random(seed)
    words = ["wind", "people", "house", "under", "stone", "evening"]
    words += ["quiet", "bread", "water", "river", "light", "along"]
    return "".join(
        " ".join(chance.choice(words) for _ in range(25)) + ".\n\n" for _ in range(num_paragraphs)
    )


def write_all(folder: Path, names: list[str]) -> Path:
    """A folder of short texts under these names, every one another."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = prose(number)
        path.write_text(json.dumps({"text": text}) if "json" in name else text)
    return folder


def _documents(stream: Any) -> list[bytes]:
    return bytes(stream.astype(np.uint8)).split(b"\0")[:-1]
