"""How long does a warm worker take from the hand-over of a trial to its first training step?

Real trials of two steps run one after the other in one process, as a worker runs them: a first one
of a new width, then others of that width with another depth, K or feed-forward, then one that
differs in nothing but seed, learning rate and weight decay. Compiled are forms of Triton kernels,
by Triton's own caches, plus what PyTorch's counters say it compiled itself (nothing). Medians of
five.

    python -m experiments.benchmarks.engine.engine_setup [--json] [--profile]
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from experiments.benchmarks.engine.engine_step import HEAD, VOCABULARY
from runners.machine.device import device_name
from runners.text.corpus import Corpus, prepare_corpus
from runners.trial.training import TrainingOptions, run_trial
from search.record.trial import Outcome, TrainingRecipe, TrialConfig
from spaces.architecture import Architecture

CHANGES: dict[str, list[dict[str, Any]]] = {
    "new depth": [{"num_layers": n} for n in (2, 3, 5, 6, 8)],
    "new K": [{"num_loops": k} for k in (1, 3, 4, 5, 6)],
    "new feed-forward": [{"wide_ffn": 8 * n} for n in (100, 130, 160, 200, 256)],
    "nothing new": [{}] * 5,
}


def measure(corpus: Corpus, *, device: str, widths: Sequence[int], batch: int) -> dict[str, Any]:
    """Seconds and compilations by what is new."""
    on_gpu = device == "cuda"
    rows: dict[str, list[tuple[float, int]]] = {}
    for width in widths:
        base = base_architecture(width, on_gpu=on_gpu)
        rows.setdefault("new width", []).append(hand_over(base, corpus, device, batch))
        for name, changes in CHANGES.items():
            for seed, change in enumerate(changes):
                found = hand_over(replace(base, **change), corpus, device, batch, seed=seed)
                if name != "nothing new" or seed > 0:  # the first of these builds the base again
                    rows.setdefault(name, []).append(found)
    return {
        name: {
            "median_seconds": statistics.median(seconds for seconds, _ in found),
            "worst_seconds": max(seconds for seconds, _ in found),
            "trials": len(found),
            "compiled": sum(compiled for _, compiled in found),
        }
        for name, found in rows.items()
    }


def base_architecture(width: int, *, on_gpu: bool) -> Architecture:
    """What the others differ from."""
    return Architecture(
        arm="dual",
        num_layers=4,
        num_loops=2,
        d_model=width,
        deep_ffn=3 * width,
        wide_ffn=4 * width,
        head_dim=HEAD if on_gpu else 16,
        context_length=512 if on_gpu else 64,
        vocab_size=VOCABULARY if on_gpu else 256,
    )


def num_compiled() -> int:
    """What this process has compiled so far; 0 on a CPU."""
    if not torch.cuda.is_available():
        return 0
    from runners.engine.kernels.count import num_compiled as num_kernels

    return num_kernels() + int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def hand_over(
    architecture: Architecture, corpus: Corpus, device: str, batch: int, *, seed: int = 0
) -> tuple[float, int]:
    """Seconds to the first step of one trial, and what was compiled for it."""
    config = TrialConfig(
        architecture=architecture,
        tokens=2 * batch * architecture.context_length,
        training=TrainingRecipe(
            learning_rate=1e-3 * (1 + seed),
            weight_decay=0.1 * seed,
            batch_sequences=batch,
            precision="bfloat16" if device == "cuda" else "float32",
        ),
        text_fingerprint=corpus.fingerprint,
        eval_sequences=batch,
        eval_points=1,
        init_seed=seed,
    )
    before = num_compiled()
    *_, outcome = run_trial(config, corpus, TrainingOptions(device=device))
    assert isinstance(outcome, Outcome)
    assert outcome.status == "complete", outcome.reason
    assert outcome.setup_seconds is not None
    return outcome.setup_seconds, num_compiled() - before


def profile_new_depth(corpus: Corpus, device: str) -> None:
    """Print the functions in which the hand-over of a new depth at a known width spends its time.

    Slower than without the profiler; the shares are what counts.
    """
    base = base_architecture(256 if device == "cuda" else 32, on_gpu=device == "cuda")
    batch = 16 if device == "cuda" else 4
    hand_over(base, corpus, device, batch)
    with cProfile.Profile() as profile:
        hand_over(replace(base, num_layers=6), corpus, device, batch)
    pstats.Stats(profile).sort_stats("cumulative").print_stats(45)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, and with ``--json`` one document instead."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--text", type=Path, help="file or folder; left out: the default corpus")
    parser.add_argument("--profile", action="store_true", help="where a new depth's seconds go")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        print("no GPU: a small size on the CPU, to which no bar applies", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        corpus = prepare_corpus(
            options.text, tokenizer="bytes", validation_fraction=0.01, cache_dir=Path(folder)
        )
        if options.profile:
            profile_new_depth(corpus, device)
            return 0
        rows = measure(
            corpus,
            device=device,
            widths=(256, 192, 384) if device == "cuda" else (32,),
            batch=16 if device == "cuda" else 4,
        )
    if options.json:
        name = device_name(torch.device(device))
        print(json.dumps({"device": name, "torch": str(torch.__version__), "rows": rows}, indent=2))
        return 0
    for name, row in rows.items():
        print(
            f"{name:17} median {row['median_seconds']:6.2f} s  worst {row['worst_seconds']:6.2f} s"
            f"  of {row['trials']:2} trials; kernels compiled: {row['compiled']}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
