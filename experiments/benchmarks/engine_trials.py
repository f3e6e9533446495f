"""How many trials an hour: our driver over warm workers, and Ray Tune in its two usual ways.

All sides train the same configurations (dual, width 128 to 256) on the same text in the same
arithmetic and measure the same validation sequences. *Ours* is driver, ledger and Ray actors, as
``isoflop sweep`` runs them; its first pass over the configurations compiles the widths, its second
(other learning rates, the same shapes in another order) compiles nothing. *Tune, fresh* starts a
process for each trial and trains eagerly; *Tune, reused* keeps its actor (``reuse_actors``) and
compiles each whole model.

    python -m experiments.benchmarks.engine_trials [--sides ours fresh reused] [--workers N]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from experiments.benchmarks.engine_step import PlainStep
from runners.batches import TrainingOrder, device_streams, evaluation_windows, gather
from runners.device import device_name
from runners.driver import Driver
from runners.pool import WorkerOptions
from runners.ray_pool import RayPool
from runners.schedule import learning_rate_at
from runners.text import Corpus, prepare_corpus
from search.experiment import Experiment
from search.ledger import Ledger
from search.trial import Proposal, TrainingRecipe, TrialConfig
from spaces.architecture import Architecture
from spaces.budget import Budget
from spaces.flops import train_flops_per_token

SIDES = ("ours", "fresh", "reused")
SHAPES = [
    # d_model, num_layers, num_loops, wide_multiplier
    (256, 4, 2, 4),
    (128, 6, 2, 8),
    (192, 3, 4, 4),
    (256, 2, 3, 8),
    (192, 5, 1, 8),
    (128, 4, 4, 4),
]


def proposals(
    corpus: Corpus, flops: float, *, on_gpu: bool, count: int, rate: float
) -> list[Proposal]:
    """The first ``count`` shapes at one budget."""
    budget = Budget(train_flops=flops, convention="full")
    found = []
    for width, layers, loops, wide in SHAPES[:count]:
        d_model = width if on_gpu else width // 8
        architecture = Architecture(
            arm="dual",
            num_layers=layers,
            num_loops=loops,
            d_model=d_model,
            deep_ffn=3 * d_model,
            wide_ffn=wide * d_model,
            head_dim=64 if on_gpu else 8,
            context_length=512 if on_gpu else 64,
            vocab_size=max(256, corpus.vocab_size),
        )
        sequence_flops = train_flops_per_token(architecture).full * architecture.context_length
        sequences = max(1, round(flops / sequence_flops))
        config = TrialConfig(
            architecture=architecture,
            tokens=sequences * architecture.context_length,
            training=TrainingRecipe(
                learning_rate=rate,
                batch_sequences=(64 if flops > 5e14 else 32) if on_gpu else 8,
                precision="bfloat16" if on_gpu else "float32",
            ),
            text_fingerprint=corpus.fingerprint,
            eval_sequences=128 if on_gpu else 8,
            eval_points=2,
        )
        found.append(Proposal(config=config, arm="dual", budget=budget, axes={}, purpose="search"))
    return found


class _Listed:
    """Proposes what is on a list, in its order."""

    stopped_by = None

    def __init__(self, experiment: Experiment, proposals: Sequence[Proposal]) -> None:
        self.experiment = experiment
        self._waiting = list(proposals)

    def next(self, _: Sequence[Any]) -> Proposal | None:
        """The next one."""
        return self._waiting.pop(0) if self._waiting else None


class Ours:
    """Driver and ledger over warm Ray actors, which live through all passes."""

    def __init__(self, corpus: Corpus, *, on_gpu: bool, workers: int, home: Path) -> None:
        self._home = home
        self._ledger = Ledger(home, create=True)
        self._pool = RayPool(
            WorkerOptions(
                corpus=corpus,
                device="cuda" if on_gpu else "cpu",
                num_threads=1,
                checkpoint_seconds=30.0,
            ),
            num_workers=workers,
            cpus_each=1,
        )

    def seconds(self, name: str, listed: Sequence[Proposal]) -> float:
        """Wall time of one pass, from the first hand-over to the last accepted result."""
        experiment = Experiment.model_validate(
            {
                "name": name,
                "trials": len(listed),
                "budget": {"train_flops": [listed[0].budget.train_flops]},
                "axes": {"d_model": [128], "num_layers": [2]},
                "architecture": {"head_dim": 64, "context_length": 512},
            }
        )
        self._ledger.record_sweep(
            name,
            experiment_json=experiment.model_dump_json(),
            text_fingerprint=listed[0].config.text_fingerprint,
            code_version="benchmark",
        )
        driver = Driver(
            sweep=name,
            ledger=self._ledger,
            # all that the driver uses of a proposer
            proposer=_Listed(experiment, listed),  # type: ignore[arg-type]
            pool=self._pool,
            folder=self._home / "sweeps" / name,
            watch=lambda event: None,
            say=lambda text: print(text, file=sys.stderr),
            should_stop=lambda: False,
        )
        started = time.perf_counter()
        summary = driver.run()
        seconds = time.perf_counter() - started
        assert summary.num_run == len(listed), summary
        for record in self._ledger.trials(name):
            assert record.state == "complete", record
            outcome = record.outcome
            assert outcome is not None
            print(
                f"  {name}: ready {outcome.setup_seconds:.2f} s, trained "
                f"{outcome.wall_seconds:.2f} s, measured {outcome.measuring_seconds:.2f} s, "
                f"loss {outcome.loss_nats:.3f}",
                file=sys.stderr,
            )
        return seconds

    def close(self) -> None:
        """Let the actors go."""
        self._pool.close()
        self._ledger.close()


def train_plainly(config: TrialConfig, corpus: Corpus, device: str, *, compiled: bool) -> float:
    """A trial as a script would run it; returns its validation loss."""
    a, recipe = config.architecture, config.training
    place = torch.device(device)
    streams = device_streams(corpus, device)
    order = TrainingOrder(
        num_tokens=corpus.num_train_tokens,
        context_length=a.context_length,
        data_seed=config.data_seed,
    )
    plain = PlainStep(a, recipe, place, compiled=compiled)
    for step in range(config.num_steps):
        windows = order.step_windows(step, recipe.batch_sequences, limit=config.num_sequences)
        inputs, targets = gather(streams.train, windows, context_length=a.context_length)
        rate = learning_rate_at(step, recipe, num_steps=config.num_steps)
        plain(inputs, targets, learning_rate=rate)
    windows = evaluation_windows(
        corpus.num_val_tokens, context_length=a.context_length, eval_sequences=config.eval_sequences
    )
    nats = 0.0
    with torch.no_grad():
        plain.working.refresh()
        for start in range(0, len(windows), 32):
            inputs, targets = gather(
                streams.validation, windows[start : start + 32], context_length=a.context_length
            )
            logits = plain.working.model(inputs).flatten(0, 1).float()
            nats += F.cross_entropy(logits, targets.flatten(), reduction="sum").item()
    return nats / (len(windows) * a.context_length)


def tune_seconds(
    listed: Sequence[Proposal], corpus: Corpus, *, on_gpu: bool, reused: bool, folder: Path
) -> float:
    """Wall time of the same list in Ray Tune."""
    from ray import tune

    device = "cuda" if on_gpu else "cpu"

    class Trial(tune.Trainable):  # type: ignore[misc]  # Ray has no types
        def setup(self, config: dict[str, Any]) -> None:
            self._index = config["index"]

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self._index = new_config["index"]
            return True

        def step(self) -> dict[str, Any]:
            config = listed[self._index].config
            loss = train_plainly(config, corpus, device, compiled=reused and on_gpu)
            return {"loss": loss, "done": True}

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            """Nothing to keep."""

    resources = {"cpu": 1, "gpu": 1} if on_gpu else {"cpu": 1}
    tuner = tune.Tuner(
        tune.with_resources(Trial, resources),
        param_space={"index": tune.grid_search(list(range(len(listed))))},
        tune_config=tune.TuneConfig(reuse_actors=reused, max_concurrent_trials=1),
        run_config=tune.RunConfig(storage_path=str(folder), verbose=0),
    )
    started = time.perf_counter()
    results = tuner.fit()
    seconds = time.perf_counter() - started
    assert not results.errors, results.errors
    losses = [f"{result.metrics['loss']:.3f}" for result in results]
    print(f"  Ray Tune, {'reused' if reused else 'fresh'}: losses {losses}", file=sys.stderr)
    return seconds


@contextlib.contextmanager
def ray_for_tune(*, on_gpu: bool) -> Iterator[None]:
    """A local Ray of its own."""
    import ray

    ray.init(
        address="local",
        num_gpus=1 if on_gpu else 0,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)}},
    )
    try:
        yield
    finally:
        ray.shutdown()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sides, print trials an hour."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=SIDES)
    parser.add_argument("--flops", nargs="+", type=float)
    parser.add_argument("--text", type=Path, help="file or folder; left out: the default corpus")
    parser.add_argument("--cache", type=Path, help="where prepared text is kept; left out: nowhere")
    parser.add_argument("--trials", type=int, default=len(SHAPES), help="a budget and pass of ours")
    parser.add_argument("--workers", type=int, default=1, help="actors of our side, one per GPU")
    parser.add_argument("--tune-trials", type=int, default=3, help="trials a budget of Ray Tune")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        print("no GPU: small sizes on the CPU, to which no bar applies", file=sys.stderr)
    budgets = options.flops or ([1e14, 1e15] if on_gpu else [2e9, 1e10])
    tokenizer = "bpe:8192" if on_gpu else "bytes"
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        corpus = prepare_corpus(
            options.text,
            tokenizer=tokenizer,
            validation_fraction=0.01,
            cache_dir=options.cache or home / "cache",
        )

        def note(side: str, flops: float, count: int, seconds: float) -> None:
            row = {"side": side, "train_flops": flops, "trials": count, "seconds": seconds}
            rows.append(row | {"trials_per_hour": 3600 * count / seconds})
            print(line(rows[-1]), file=sys.stderr, flush=True)

        if "ours" in options.sides:
            ours = Ours(corpus, on_gpu=on_gpu, workers=options.workers, home=home / "ours")
            for number, rate in enumerate((3e-3, 2e-3)):
                for flops in budgets:
                    listed = proposals(
                        corpus, flops, on_gpu=on_gpu, count=options.trials, rate=rate
                    )
                    if number:
                        listed = [*reversed(listed)]
                    side = f"ours, {'warm' if number else 'first pass'}"
                    name = f"{'warm' if number else 'first'}-{len(rows)}"
                    seconds = ours.seconds(name, listed)
                    note(side, flops, len(listed), seconds)
            ours.close()
        for side in ("fresh", "reused"):
            if side in options.sides:
                with ray_for_tune(on_gpu=on_gpu):
                    for flops in budgets:
                        count = options.tune_trials
                        listed = proposals(corpus, flops, on_gpu=on_gpu, count=count, rate=3e-3)
                        seconds = tune_seconds(
                            listed,
                            corpus,
                            on_gpu=on_gpu,
                            reused=side == "reused",
                            folder=home / side / f"{flops:.0e}",
                        )
                        note(f"Ray Tune, {side}", flops, count, seconds)
    name = device_name(torch.device("cuda" if on_gpu else "cpu"))
    document = {"device": name, "torch": str(torch.__version__), "rows": rows}
    print(json.dumps(document, indent=2) if options.json else "\n".join(map(line, rows)))
    return 0


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    return (
        f"{row['side']:17} {row['train_flops']:.0e} FLOPs: {row['trials_per_hour']:7.0f} trials/h "
        f"({row['trials']} in {row['seconds']:.1f} s)"
    )


if __name__ == "__main__":
    sys.exit(main())
