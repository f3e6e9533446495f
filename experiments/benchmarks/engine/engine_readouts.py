"""What does logging where tokens go cost a trial? Validation with and without the arm's readouts.

Nothing is read off at a training step, so the cost is that of validation, spread over a trial's
steps: so many measurements of so many sequences, as an experiment asks for by default. Both sides
are timed in turns in one process.

    python -m experiments.benchmarks.engine.engine_readouts [--steps 1000]
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import tyro
from torch import Tensor

from experiments.benchmarks.engine.engine_step import DUAL, recipe_of
from runners.engine.graph import GraphEngine, StepTask
from runners.engine.step import EagerEngine, StepEngine
from runners.machine.device import device_name, find_device
from search.asked.settings import TrainingSettings
from spaces.architecture import Architecture
from spaces.arms.contract import find_arm
from spaces.model import LanguageModel

CPU_DUAL = Architecture(
    arm="dual",
    d_model=64,
    num_layers=2,
    num_loops=2,
    deep_ffn=192,
    wide_ffn=256,
    head_dim=32,
    context_length=128,
    vocab_size=256,
)


@dataclass(frozen=True)
class Options:
    """Of a trial."""

    steps: int = 1_000
    """Optimizer steps; a short trial pays more for each."""
    batch: int = 64
    """Sequences of a step."""
    repeats: int = 20
    """Timings of each side, in turns."""


def main() -> None:
    """Print the share of a trial that readouts take."""
    options = tyro.cli(Options)
    device = find_device("cuda" if torch.cuda.is_available() else "cpu")
    architecture = DUAL if device.type == "cuda" else CPU_DUAL
    asked = TrainingSettings()
    rounds = asked.eval_points + 1
    tokens_BT = torch.randint(
        architecture.vocab_size,
        (options.batch, architecture.context_length + 1),
        generator=torch.Generator().manual_seed(0),
    ).to(device)
    inputs_BT, targets_BT = tokens_BT[:, :-1].contiguous(), tokens_BT[:, 1:].contiguous()
    reading = engine_of(architecture, options.batch, device)
    with without_readouts(architecture):
        plain = engine_of(architecture, options.batch, device)
        validate(plain, inputs_BT, targets_BT)  # captured without them
    step = median(
        lambda: reading.step(inputs_BT, targets_BT, learning_rate=1e-3), device, options.repeats
    )
    times: dict[str, list[float]] = {"with": [], "without": []}
    for _ in range(options.repeats):
        times["with"].append(once(lambda: validate(reading, inputs_BT, targets_BT), device))
        with without_readouts(architecture):
            times["without"].append(once(lambda: validate(plain, inputs_BT, targets_BT), device))
    with_, without = (statistics.median(times[name][2:]) for name in ("with", "without"))
    batches = asked.eval_sequences / options.batch
    training = options.steps * step
    print(
        f"{device_name(device)}: dual {architecture.num_layers} x {architecture.d_model}, batch "
        f"{options.batch}: a step {1e3 * step:.3f} ms; validation of {options.batch} sequences "
        f"{1e3 * with_:.3f} ms with readouts, {1e3 * without:.3f} ms without "
        f"({with_ / without - 1:+.1%})"
    )
    print(
        f"a trial of {options.steps:,} steps with {rounds} validations of "
        f"{asked.eval_sequences} sequences: readouts take "
        f"{rounds * batches * (with_ - without) / training:+.3%} of its training"
    )


def engine_of(architecture: Architecture, batch: int, device: torch.device) -> StepEngine:
    """The engine of a trial: captured on a GPU, eager on a CPU."""
    recipe = recipe_of(batch, device)
    if device.type == "cuda":
        task = StepTask(architecture=architecture, recipe=recipe, device=device)
        return GraphEngine(task, init_seed=0)
    return EagerEngine(LanguageModel(architecture), recipe)


def validate(engine: StepEngine, inputs_BT: Tensor, targets_BT: Tensor) -> None:
    """All sequences, as many at once as the engine likes best."""
    size = engine.validation_sequences or len(inputs_BT)
    for start in range(0, len(inputs_BT), size):
        stop = start + size
        engine.validation_sums(inputs_BT[start:stop], targets_BT[start:stop])


def once(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of one run, the device's part included."""
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def median(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Of some runs, after two that are not counted."""
    return statistics.median([once(work, device) for _ in range(repeats + 2)][2:])


@contextlib.contextmanager
def without_readouts(architecture: Architecture) -> Iterator[None]:
    """The arm as one that reads nothing off itself."""
    arm = find_arm(architecture.arm)
    vars(arm)["read"] = lambda _readings: {}
    try:
        yield
    finally:
        del vars(arm)["read"]


if __name__ == "__main__":
    main()
