"""How long do 10,000 minimal pairs take to score, beside the forward pass alone?

    python -m experiments.benchmarks.engine.engine_evaluation [--blimp FILE] [--device cuda]

A model of random weights, since speed does not depend on them. *Scoring* is all that `isoflop
evaluate` does between reading the task and having its items: tokens, batches, sums, the table.
*Forward* is the same batches, made before and on the device, through the model and its head.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from runners.machine.device import device_name, find_device
from runners.probes.items import score_task
from runners.probes.likelihood import TOKENS_AT_ONCE, pair_requests
from runners.probes.tasks import Choice, Task, find_tasks
from runners.text.tokenizers import ByteTokenizer, TextTokenizer, load_tokenizer
from spaces.architecture import Architecture
from spaces.model import LanguageModel


@dataclass(frozen=True)
class Options:
    """What is scored, and where."""

    blimp: Path
    """A file of minimal pairs."""
    tokenizer: Path | None = None
    """A tokenizer's JSON; left out: bytes."""
    pairs: int = 10_000
    device: str = "cuda"
    d_model: int = 256
    num_layers: int = 6
    repeats: int = 3


def main() -> None:
    """Print both times, the best of a few."""
    options = tyro.cli(Options)
    device = find_device(options.device)
    tokenizer = load_tokenizer(options.tokenizer)
    (task,) = find_tasks([options.blimp], limit=options.pairs)
    model = LanguageModel(
        Architecture(
            arm="standard",
            num_layers=options.num_layers,
            d_model=options.d_model,
            deep_ffn=options.d_model * 8 // 3,
            context_length=512,
            vocab_size=tokenizer.vocab_size,
        )
    )
    model.to(device).eval()
    scoring = best(options.repeats, device, lambda: score_task(task, model, tokenizer))
    batches = batches_of(task, tokenizer, device)
    forward = best(options.repeats, device, lambda: forward_of(model, batches))
    kind = "bytes" if isinstance(tokenizer, ByteTokenizer) else f"{tokenizer.vocab_size} symbols"
    print(
        f"{device_name(device)}: {len(task.items):,} pairs, {kind}, width {options.d_model}, "
        f"{options.num_layers} layers: scoring {scoring:.2f} s, forward {forward:.2f} s, "
        f"{scoring / forward:.2f} x"
    )


def best(repeats: int, device: torch.device, work: Callable[[], object]) -> float:
    """Seconds of the fastest of some runs, after one that is not counted."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return min(times[1:])


def batches_of(task: Task, tokenizer: TextTokenizer, device: torch.device) -> list[torch.Tensor]:
    """The same different requests in the same batches, padded, on the device."""
    pairs = [
        ("", answer) for item in task.items if isinstance(item, Choice) for answer in item.answers
    ]
    requests = set(pair_requests(pairs, tokenizer, context_length=512))
    waiting = sorted((each.tokens[:-1] for each in requests), key=len, reverse=True)
    batches = []
    while waiting:
        count = max(1, TOKENS_AT_ONCE[device.type] // len(waiting[0]))
        batch, waiting = waiting[:count], waiting[count:]
        padded = [[*tokens, *[0] * (len(batch[0]) - len(tokens))] for tokens in batch]
        batches.append(torch.tensor(padded, device=device))
    return batches


@torch.inference_mode()
def forward_of(model: LanguageModel, batches: list[torch.Tensor]) -> None:
    """Every batch through the model and its head."""
    for tokens_BT in batches:
        model(tokens_BT)


if __name__ == "__main__":
    main()
