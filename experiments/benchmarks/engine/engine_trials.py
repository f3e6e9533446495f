"""How many trials an hour: our driver over warm workers, and Ray Tune in its two usual ways.

All sides train configurations of one list (dual, width 128 to 256, no shape twice) on the same text
in the same arithmetic and measure the same validation sequences. *Ours* is driver, ledger and Ray
actors, as ``isoflop sweep`` runs them: a first pass meets every width, the warm pass after it has a
new depth, K or feed-forward in every trial. *Tune, fresh* starts a process for each trial and
trains eagerly; *Tune, reused* keeps its actor (``reuse_actors``) and compiles each whole model.
``--workers 1 2`` runs our side on one GPU, then on two; ``--packs 1 8`` with trials one after the
other, then up to eight side by side; ``--seeds 8`` trains each shape with so many seeds.
Interrupted, it prints what it has.

    python -m experiments.benchmarks.engine.engine_trials [--sides ours fresh reused]
        [--workers 1 2] [--packs 1 8] [--seeds 8] [--batch-sequences 8]
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from experiments.benchmarks.engine.plain_loop import train_plainly
from runners.driver import Driver, DriverSettings
from runners.machine.device import device_name
from runners.pools.contract import WorkerOptions
from runners.pools.ray_pool import RayPool
from runners.text.corpus import Corpus, prepare_corpus
from search.asked.experiment import Experiment
from search.propose.listed import ListedProposer
from search.record.ledger import Ledger
from search.record.trial import Outcome, Proposal, TrainingRecipe, TrialConfig
from spaces.architecture import Architecture
from spaces.budget import Budget
from spaces.flops import train_flops_per_token

SIDES = ("ours", "fresh", "reused")
WIDTHS = (256, 128, 192)


@dataclass(frozen=True)
class Shape:
    """What tells one configuration of the list from another."""

    d_model: int
    num_layers: int
    num_loops: int
    wide_multiplier: int


def shapes() -> list[Shape]:
    """All 120 different shapes, the widths in turn; always in the same order."""
    rng = random.Random(0)
    columns = []
    for width in WIDTHS:
        sizes = [*itertools.product(range(2, 7), range(1, 5), (4, 8))]
        rng.shuffle(sizes)
        columns.append([Shape(width, *each) for each in sizes])
    return [shape for row in zip(*columns, strict=True) for shape in row]


def proposals(
    corpus: Corpus,
    listed: Sequence[Shape],
    *,
    flops: float,
    on_gpu: bool,
    rate: float = 3e-3,
    seeds: int = 1,
    batch_sequences: int | None = None,
) -> list[Proposal]:
    """The shapes at one budget, each with so many seeds."""
    usual = (64 if flops > 5e14 else 32) if on_gpu else 8
    budget = Budget(train_flops=flops, convention="full")
    found = []
    for shape in listed:
        d_model = shape.d_model if on_gpu else shape.d_model // 8
        architecture = Architecture(
            arm="dual",
            num_layers=shape.num_layers,
            num_loops=shape.num_loops,
            d_model=d_model,
            deep_ffn=3 * d_model,
            wide_ffn=shape.wide_multiplier * d_model,
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
                batch_sequences=batch_sequences or usual,
                precision="bfloat16" if on_gpu else "float32",
            ),
            text_fingerprint=corpus.fingerprint,
            eval_sequences=32 if on_gpu else 8,
            eval_points=2,
        )
        for seed in range(seeds):
            own = replace(config, init_seed=seed, data_seed=seed)
            found.append(Proposal(config=own, arm="dual", budget=budget, axes={}, purpose="search"))
    return found


class Ours:
    """Driver and ledger over warm Ray actors, which live through all passes."""

    def __init__(
        self, corpus: Corpus, *, on_gpu: bool, workers: int, pack: int, home: Path
    ) -> None:
        self._home = home
        self._ledger = Ledger(home, create=True)
        self._pool = RayPool(
            WorkerOptions(
                corpus=corpus,
                device="cuda" if on_gpu else "cpu",
                num_threads=1,
                checkpoint_seconds=30.0,
                pack=pack,
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
            proposer=ListedProposer(listed),
            pool=self._pool,
            settings=DriverSettings(),
            folder=self._home / "sweeps" / name,
            watch=lambda event: None,
            say=lambda text: print(text, file=sys.stderr),
            should_stop=lambda: False,
        )
        started = time.perf_counter()
        summary = driver.run()
        seconds = time.perf_counter() - started
        assert summary.num_run == len(listed), summary
        outcomes = [record.outcome for record in self._ledger.trials(name) if record.outcome]
        assert all(outcome.status == "complete" for outcome in outcomes), outcomes
        losses = [f"{outcome.loss_nats:.3f}" for outcome in outcomes]
        print(f"  {name}: losses {losses}", file=sys.stderr)
        print(f"  seconds of a trial (median, worst): {parts_of(outcomes)}", file=sys.stderr)
        return seconds

    def close(self) -> None:
        """Let the actors go."""
        self._pool.close()
        self._ledger.close()


def parts_of(outcomes: Sequence[Outcome]) -> str:
    """What the workers' seconds went into, trial by trial."""
    parts = {
        "ready": [outcome.setup_seconds or 0.0 for outcome in outcomes],
        "training": [outcome.wall_seconds or 0.0 for outcome in outcomes],
        "measuring": [outcome.measuring_seconds or 0.0 for outcome in outcomes],
    }
    return ", ".join(
        f"{name} {statistics.median(seconds):.2f} {max(seconds):.2f}"
        for name, seconds in parts.items()
    )


def tune_seconds(
    listed: Sequence[Proposal], corpus: Corpus, *, on_gpu: bool, reused: bool, folder: Path
) -> list[float]:
    """Ray Tune's seconds of every trial but the first, from the end of the one before it.

    This leaves out its own start. Interrupted, Ray Tune ends with the trials done by then.
    """
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the old form says nothing at verbose=0
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
            return {"loss": loss, "ended": time.time(), "done": True}

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            """Nothing to keep."""

    resources = {"cpu": 1, "gpu": 1} if on_gpu else {"cpu": 1}
    tuner = tune.Tuner(
        tune.with_resources(Trial, resources),
        param_space={"index": tune.grid_search(list(range(len(listed))))},
        tune_config=tune.TuneConfig(reuse_actors=reused, max_concurrent_trials=1),
        run_config=tune.RunConfig(storage_path=str(folder), verbose=0),
    )
    results = tuner.fit()
    assert not results.errors, results.errors
    found = [result.metrics for result in results if "ended" in (result.metrics or {})]
    losses = [f"{metrics['loss']:.3f}" for metrics in found]
    print(f"  Ray Tune, {'reused' if reused else 'fresh'}: losses {losses}", file=sys.stderr)
    ends = sorted(metrics["ended"] for metrics in found)
    return [later - earlier for earlier, later in itertools.pairwise(ends)]


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
    parser.add_argument("--trials", nargs="+", type=int, default=[24, 12], help="ours, by budget")
    parser.add_argument("--tune-trials", type=int, default=3, help="Ray Tune's, two at least")
    parser.add_argument("--workers", nargs="+", type=int, default=[1], help="of ours; one per GPU")
    parser.add_argument("--packs", nargs="+", type=int, default=[1], help="trials side by side")
    parser.add_argument("--seeds", type=int, default=1, help="of each shape; ours only")
    parser.add_argument("--batch-sequences", type=int, help="left out: 32, from 5e14 on 64")
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
            validation_fraction=0.05,
            cache_dir=options.cache or home / "cache",
        )

        def note(side: str, flops: float, count: int, seconds: float) -> None:
            row = {"side": side, "train_flops": flops, "trials": count, "seconds": seconds}
            rows.append(row | {"trials_per_hour": 3600 * count / seconds})
            print(line(rows[-1]), file=sys.stderr, flush=True)

        def listed(flops: float, of: Sequence[Shape], **named: Any) -> list[Proposal]:
            batch = options.batch_sequences
            return proposals(corpus, of, flops=flops, on_gpu=on_gpu, batch_sequences=batch, **named)

        sides = itertools.product(options.workers, options.packs) if "ours" in options.sides else ()
        with contextlib.suppress(KeyboardInterrupt):  # what was measured by then is printed
            for workers, pack in sides:
                where = home / f"ours-{workers}-{pack}"
                ours = Ours(corpus, on_gpu=on_gpu, workers=workers, pack=pack, home=where)
                side = f"ours, {workers} worker{'s' * (workers > 1)}, packs of {pack}"
                # every width for every worker, one width after the other, from the list's far end
                last = shapes()[-len(WIDTHS) * workers :]
                first = sorted(last, key=lambda shape: shape.d_model)
                seconds = ours.seconds("first", listed(budgets[0], first, rate=2e-3))
                note(f"{side}, first pass", budgets[0], len(first), seconds)
                for number, flops in enumerate(budgets):
                    count = options.trials[min(number, len(options.trials) - 1)]
                    of = shapes()[: count // options.seeds]
                    trials = listed(flops, of, seeds=options.seeds)
                    seconds = ours.seconds(f"warm-{number}", trials)
                    note(f"{side}, warm", flops, len(trials), seconds)
                ours.close()
            for name in ("fresh", "reused"):
                if name in options.sides:
                    with ray_for_tune(on_gpu=on_gpu):
                        for flops in budgets:
                            each = tune_seconds(
                                listed(flops, shapes()[: options.tune_trials]),
                                corpus,
                                on_gpu=on_gpu,
                                reused=name == "reused",
                                folder=home / name / f"{flops:.0e}",
                            )
                            if each:
                                note(f"Ray Tune, {name}", flops, len(each), sum(each))
    name = device_name(torch.device("cuda" if on_gpu else "cpu"))
    document = {"device": name, "torch": str(torch.__version__), "rows": rows}
    print(json.dumps(document, indent=2) if options.json else "\n".join(map(line, rows)))
    return 0


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    return (
        f"{row['side']:37} {row['train_flops']:.0e} FLOPs: {row['trials_per_hour']:7.0f} trials/h "
        f"({row['trials']} in {row['seconds']:.1f} s)"
    )


if __name__ == "__main__":
    sys.exit(main())
