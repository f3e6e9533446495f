"""What does one trunk for many budgets save, and does it change a loss?

Budgets that double, of one shape: as branches of one trunk, and the same trials each on its own.
FLOPs are those that attempts spent. On a CPU the losses are equal bit for bit; on a GPU they differ
as two runs of one trial do.

    python -m experiments.benchmarks.engine.engine_trunk --text FOLDER [--budgets 8] [--seeds 3]
        [--separate 4] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from experiments.benchmarks.engine.engine_pack import architecture
from runners.machine.device import device_name, find_device
from runners.pools.contract import Assignment, WorkerOptions
from runners.pools.pack import Pack
from runners.text.corpus import Corpus, prepare_corpus
from search.record.trial import Outcome, TrainingRecipe, TrialConfig
from spaces.flops import train_flops_per_token

CONTEXT = 512


@dataclass(frozen=True, kw_only=True)
class Row:
    """One budget, over its seeds."""

    steps: int
    train_flops: float
    """Of one trial, `full`."""
    spent_flops: float
    """By the branch, its trunk left out."""
    losses_nats: list[float]
    """Of the branches, by seed."""
    separate_losses_nats: list[float]
    """Of the same trials alone; empty where they were not trained."""


def trial(corpus: Corpus, *, width: int, steps: int, seed: int, decay: float) -> TrialConfig:
    """One of the trials: four layers, 2,048 tokens a step."""
    on_gpu = torch.cuda.is_available()
    return TrialConfig(
        architecture=architecture("standard", width, max(256, corpus.vocab_size)),
        tokens=steps * 4 * CONTEXT,
        training=TrainingRecipe(
            learning_rate=3e-3,
            batch_sequences=4,
            schedule="wsd",
            warmup_steps=20,
            decay_fraction=decay,
            precision="bfloat16" if on_gpu else "float32",
        ),
        text_fingerprint=corpus.fingerprint,
        init_seed=seed,
        data_seed=seed,
        eval_sequences=64,
        eval_points=1,
    )


def train(
    pack: Pack, configs: Sequence[TrialConfig], folder: Path, *, trunks: Path | None
) -> list[Outcome]:
    """The outcomes of trials that train side by side."""
    for index, config in enumerate(configs):
        pack.add(
            Assignment(
                attempt_id=index,
                config=config,
                checkpoint_dir=folder / config.config_hash,
                weights_path=None,
                trunk_dir=trunks,
            )
        )
    found = {
        report.attempt_id: report.content
        for report in pack.reports()
        if isinstance(report.content, Outcome)
    }
    return [found[index] for index in range(len(configs))]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--budgets", type=int, default=8)
    parser.add_argument("--separate", type=int, default=4, help="budgets that also train alone")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--first-steps", type=int, default=50)
    parser.add_argument("--decay", type=float, default=0.1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    folder = Path(tempfile.mkdtemp())
    corpus = prepare_corpus(options.text, cache_dir=folder / "cache")
    pack = Pack(WorkerOptions(corpus=corpus, device=device, num_threads=1, checkpoint_seconds=1e9))
    print(device_name(find_device(device)), file=sys.stderr)
    rows = []
    for number in range(options.budgets):
        steps = options.first_steps * 2**number
        usual = trial(corpus, width=options.width, steps=steps, seed=0, decay=options.decay)
        configs = [replace(usual, init_seed=s, data_seed=s) for s in range(options.seeds)]
        branches = train(pack, configs, folder / "branch", trunks=folder / "trunks")
        alone: list[Outcome] = []
        if number < options.separate:
            alone = train(pack, configs, folder / "alone", trunks=None)
        per_token = train_flops_per_token(usual.architecture).full
        row = Row(
            steps=steps,
            train_flops=usual.tokens * per_token,
            spent_flops=(usual.tokens - branches[0].resumed_tokens) * per_token,
            losses_nats=[each.loss_nats or float("nan") for each in branches],
            separate_losses_nats=[each.loss_nats or float("nan") for each in alone],
        )
        rows.append(row)
        pairs = zip(row.losses_nats, row.separate_losses_nats, strict=False)
        apart = ", ".join(f"{one - other:+.5f}" for one, other in pairs)
        losses = ", ".join(f"{loss:.4f}" for loss in row.losses_nats)
        print(
            f"{row.train_flops:.2e} FLOPs ({steps} steps), {row.spent_flops:.2e} spent: {losses} "
            f"nats" + (f"; less those alone: {apart}" if apart else ""),
            file=sys.stderr,
            flush=True,
        )
    whole, spent = sum(row.train_flops for row in rows), sum(row.spent_flops for row in rows)
    print(
        f"{len(rows)} budgets: {whole:.3e} FLOPs alone, {spent:.3e} as branches of one trunk, "
        f"{whole / spent:.2f} x fewer",
        file=sys.stderr,
    )
    if options.json:
        print(json.dumps([asdict(row) for row in rows]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
