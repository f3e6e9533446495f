"""What does a model lose, and save, where tokens skip the deep path or stop looping?

Every threshold is measured on the validation windows that trials are measured on, and timed; beside
it, random exits with the same histogram: in every layer and sequence as many tokens are in as many
loops, but which ones is drawn. Before anything is believed PyTorch's counter must find, in the pass
that really ran, the FLOPs that the price says.

Shapes in names: S sequences, B of a batch, T tokens, L layers.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from runners.engine.batches import device_streams, evaluation_windows, gather
from runners.engine.validation import TOKENS_AT_ONCE
from runners.probes.early_exit import (
    EVERY_TOKEN,
    NO_TOKEN,
    By,
    Given,
    Rule,
    Threshold,
    early_exit_hidden,
)
from runners.probes.windows import token_nats
from runners.trial.trained import Trained
from spaces.arms.early_exit import early_exit_pass
from spaces.certificate import CounterDisagreementError
from spaces.flops import CONVENTIONS
from spaces.model import LanguageModel
from spaces.parts.gate import deep_share

SCHEMA = {
    "model": pl.String,
    "by": pl.String,
    "threshold": pl.Float64,
    "draw": pl.Int32,
    "sequence": pl.Int32,
    "nats": pl.Float64,
    "loops": pl.Float64,
    **{f"flops_{convention}": pl.Int64 for convention in CONVENTIONS},
    "microseconds_per_token": pl.Float64,
}
"""Columns of the rows, one per sequence and rule. ``by``: gate or router, or ``model`` for the
model as it is; ``draw``: null where the score chose, else the number of the random exit; ``nats``:
mean over the sequence's tokens; ``loops``: mean over its tokens and layers; ``flops_...``: of the
whole forward pass over the sequence; the time is that of the rule, null of random exits."""

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
"""Of a score over all tokens and layers: the thresholds, unless someone says otherwise."""

TIMED_REPEATS = 5

Batch = tuple[Tensor, Tensor]
"""Inputs and targets, each B x T, on the model's device."""


def validation_batches(trained: Trained) -> list[Batch]:
    """The windows that the trial was measured on."""
    config, corpus = trained.record.proposal.config, trained.corpus
    device = trained.model.head.weight.device
    length = config.architecture.context_length
    windows = evaluation_windows(
        corpus.num_val_tokens,
        context_length=length,
        eval_sequences=config.eval_sequences,
    )
    stream = device_streams(corpus, "cpu").validation
    at_once = max(1, TOKENS_AT_ONCE[device.type] // length)
    batches = []
    for start in range(0, len(windows), at_once):
        inputs, targets = gather(stream, windows[start : start + at_once], context_length=length)
        batches.append((inputs.to(device), targets.to(device)))
    return batches


@torch.no_grad()
def usual_thresholds(model: LanguageModel, batches: Sequence[Batch], by: By) -> list[float]:
    """Every token, no token, and between them `QUANTILES` of the score in the model as it is."""
    scores = []
    for inputs_BT, _ in batches:
        _, readings = model.hidden_with_readings(inputs_BT)
        if by == "gate":
            scores.append(deep_share(readings["gates_LBT2"]).flatten().cpu())
        else:
            left_LBTK = 1 - readings["loop_weights_LBTK"].float().cumsum(-1)
            scores.append(left_LBTK[..., :-1].flatten().cpu())
    found = np.quantile(torch.cat(scores).numpy(), QUANTILES)
    between = {float(f"{each:.4g}") for each in found}
    return sorted({EVERY_TOKEN, *between, NO_TOKEN})


def measure_exits(
    model: LanguageModel,
    batches: Sequence[Batch],
    thresholds: Mapping[By, Sequence[float]],
    *,
    name: str,
    draws: int,
    seed: int = 0,
) -> pl.DataFrame:
    """The model, every threshold and its random exits, with the columns of `SCHEMA`.

    Raises `CounterDisagreementError` where what ran is not what was priced.
    """
    rules = [
        Threshold(by=by, threshold=each) for by, chosen in thresholds.items() for each in chosen
    ]
    for rule in rules:
        require_counted(model, batches[0][0][:1], rule)
    times = microseconds_per_token(model, batches[0][0], rules)
    frames = [_frame(model, _as_it_is(model, batches), "model", EVERY_TOKEN, None, times[0])]
    rng = torch.Generator().manual_seed(seed)
    for rule, microseconds in zip(rules, times[1:], strict=True):
        measured = _measured(model, batches, [rule] * len(batches))
        frames.append(_frame(model, measured, rule.by, rule.threshold, None, microseconds))
        for draw in range(draws if _has_choice(measured.loops_LST) else 0):
            random = _measured(model, batches, _random_exits(measured.loops_LST, batches, rng))
            frames.append(_frame(model, random, rule.by, rule.threshold, draw, None))
    return pl.concat(frames).with_columns(model=pl.lit(name)).select(list(SCHEMA))


@dataclass(frozen=True)
class Measured:
    """Of every sequence."""

    nats_S: NDArray[np.float64]
    loops_LST: NDArray[np.int64]


@torch.no_grad()
def sequence_nats(model: LanguageModel, batches: Sequence[Batch]) -> NDArray[np.float64]:
    """Loss of each sequence of the model as it is, mean over its tokens."""
    nats = [token_nats(model, model.hidden(inputs), targets) for inputs, targets in batches]
    found: NDArray[np.float64] = torch.cat(nats).double().mean(1).cpu().numpy()
    return found


def _as_it_is(model: LanguageModel, batches: Sequence[Batch]) -> Measured:
    a, nats_S = model.architecture, sequence_nats(model, batches)
    shape = (a.num_layers, len(nats_S), a.context_length)
    return Measured(nats_S, np.full(shape, a.num_loops))


def _measured(model: LanguageModel, batches: Sequence[Batch], rules: Sequence[Rule]) -> Measured:
    nats, loops = [], []
    for (inputs_BT, targets_BT), rule in zip(batches, rules, strict=True):
        hidden_BTD, loops_LBT = early_exit_hidden(model, inputs_BT, rule)
        nats.append(token_nats(model, hidden_BTD, targets_BT).double().mean(1).cpu())
        loops.append(loops_LBT.cpu())
    return Measured(torch.cat(nats).numpy(), torch.cat(loops, dim=1).numpy())


def _has_choice(loops_LST: NDArray[np.int64]) -> bool:
    """Whether tokens differ, so that a random exit is another one."""
    return bool((loops_LST != loops_LST[..., :1]).any())


def _random_exits(
    loops_LST: NDArray[np.int64], batches: Sequence[Batch], rng: torch.Generator
) -> list[Rule]:
    """For each batch the same loops, dealt out anew."""
    loops = torch.from_numpy(shuffled(loops_LST, rng)).to(batches[0][0].device)
    return [Given(each) for each in torch.split(loops, [len(b[0]) for b in batches], dim=1)]


def shuffled(loops_LST: NDArray[np.int64], rng: torch.Generator) -> NDArray[np.int64]:
    """The same loops, dealt out anew among the tokens of each layer and sequence."""
    order = torch.rand(loops_LST.shape, generator=rng).argsort(-1).numpy()
    return np.take_along_axis(loops_LST, order, axis=-1)


def _frame(
    model: LanguageModel,
    measured: Measured,
    by: str,
    threshold: float,
    draw: int | None,
    microseconds: float | None,
) -> pl.DataFrame:
    work = early_exit_pass(model.architecture, measured.loops_LST)
    columns = {
        "by": by,
        "threshold": threshold,
        "draw": draw,
        "sequence": np.arange(len(measured.nats_S)),
        "nats": measured.nats_S,
        "loops": measured.loops_LST.mean(axis=(0, 2)),
        **{f"flops_{each}": work.flops(each) for each in CONVENTIONS},
        "microseconds_per_token": microseconds,
    }
    return pl.DataFrame(columns, schema={name: SCHEMA[name] for name in columns})


@torch.no_grad()
def require_counted(model: LanguageModel, inputs_1T: Tensor, rule: Rule) -> None:
    """Hold the price of a sequence against PyTorch's counter over the pass that runs, head and all.

    With attention by plain products, which every device counts. Raises `CounterDisagreementError`.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        hidden_BTD, loops_LBT = early_exit_hidden(model, inputs_1T, rule)
        model.head(hidden_BTD)
    priced = int(early_exit_pass(model.architecture, loops_LBT.cpu().numpy()).flops("full")[0])
    if counter.get_total_flops() != priced:
        raise CounterDisagreementError(
            f"a pass with {rule} must cost what was priced, but PyTorch's counter says "
            f"{counter.get_total_flops()} FLOPs and the price {priced} ({model.architecture}); "
            f"correct spaces/arms/early_exit.py"
        )


@torch.no_grad()
def microseconds_per_token(
    model: LanguageModel, inputs_BT: Tensor, rules: Sequence[Rule]
) -> list[float]:
    """Median time of a forward pass, head and all: of the model as it is, then of each rule.

    All take turns, so that a busy machine is slow for each.
    """

    def passing(rule: Rule) -> Callable[[], object]:
        return lambda: model.head(early_exit_hidden(model, inputs_BT, rule)[0])

    passes = [lambda: model.head(model.hidden(inputs_BT)), *map(passing, rules)]
    seconds: list[list[float]] = [[] for _ in passes]
    for _ in range(1 + TIMED_REPEATS):
        for each, run in zip(seconds, passes, strict=True):
            each.append(_seconds(run, inputs_BT.device))
    return [1e6 * statistics.median(each[1:]) / inputs_BT.numel() for each in seconds]


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    started = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
