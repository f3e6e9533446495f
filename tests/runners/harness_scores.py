"""What does the field's harness say of an exported model? Run in a process of its own, offline.

Arguments: a file of JSON with ``folder``, ``remote`` and ``tasks`` (name, kind, rows), and the file
to write: by task, of each item the log-likelihoods and the scores of the harness's rules.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

METRICS = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info")


def main() -> None:
    from lm_eval.models.huggingface import HFLM

    asked = json.loads(Path(sys.argv[1]).read_text())
    lm = HFLM(
        pretrained=asked["folder"],
        trust_remote_code=asked["remote"],
        device="cpu",
        dtype="float32",
        batch_size=8,
        max_length=asked.get("max_length"),
        prefix_token_id=asked.get("prefix_token_id"),
    )
    found = {task["name"]: SCORERS[task["kind"]](lm, task) for task in asked["tasks"]}
    Path(sys.argv[2]).write_text(json.dumps(found))


def choices(lm: Any, task: dict[str, Any]) -> list[dict[str, Any]]:
    """Multiple choice as the harness itself defines, asks and judges it."""
    from datasets import Dataset
    from lm_eval.evaluator import simple_evaluate

    rows, name = task["rows"], task["name"]
    rules = METRICS if task["delimiter"] else METRICS[:3]
    config = {
        "task": name,
        "custom_dataset": lambda **_: {"test": Dataset.from_list(rows)},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{asked}}",
        "doc_to_choice": "{{answers}}",
        "doc_to_target": "{{label}}",
        "target_delimiter": task["delimiter"],
        "num_fewshot": 0,
        "metric_list": [
            {"metric": each, "aggregation": "mean", "higher_is_better": True} for each in rules
        ],
    }
    result = simple_evaluate(lm, tasks=[config], log_samples=True, bootstrap_iters=0)
    samples = sorted(result["samples"][name], key=lambda sample: sample["doc_id"])
    return [
        {rule: sample[rule] for rule in rules}
        | {"log_likelihood": [float(each[0]) for each in sample["filtered_resps"]]}
        for sample in samples
    ]


def pairs(lm: Any, task: dict[str, Any]) -> list[dict[str, Any]]:
    """Bare contexts and continuations."""
    requests = [_instance("loglikelihood", tuple(pair)) for pair in task["rows"]]
    return [
        {"log_likelihood": float(value), "is_greedy": bool(is_greedy)}
        for value, is_greedy in lm.loglikelihood(requests)
    ]


def documents(lm: Any, task: dict[str, Any]) -> list[dict[str, Any]]:
    """Whole texts, in the harness's rolling windows."""
    requests = [_instance("loglikelihood_rolling", (text,)) for text in task["rows"]]
    return [{"log_likelihood": float(value)} for value in lm.loglikelihood_rolling(requests)]


def _instance(kind: str, arguments: tuple[str, ...]) -> Any:
    from lm_eval.api.instance import Instance

    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)


SCORERS = {"choices": choices, "pairs": pairs, "documents": documents}

if __name__ == "__main__":
    main()
