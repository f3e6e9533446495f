"""What speaks against the table itself? Units that do not fit, scores that are no loss, notes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from scipy import stats

from analysis.judge.fit_certificate import Reason, Status
from analysis.laws.law import Law
from analysis.points.checked_points import Points, rows_text
from analysis.points.flops_agreement import FlopsAgreement
from spaces.errors import RequestError

NEAR = 1.25
"""FLOPs within a quarter of 6 N D: attention, embeddings and rounding account for that."""

FAR = 2.0
"""Beyond a factor 2 another unit or another count is likelier than anything a model does."""

SPREAD = 4.0
"""Factor between the 5 % and the 95 % quantile of FLOPs over 6 N D that is worth a word."""

MATCH = 1.25
"""A guessed unit must bring the ratio this near to 1."""

FLOP_UNITS = (
    (1.0, ""),
    (1 / 8.64e19, "FLOPs in PF-days (8.64e19)"),
    (1 / 8.64e16, "FLOPs in TF-days (8.64e16)"),
    (1e-6, "FLOPs in MFLOPs (1e6)"),
    (1e-9, "FLOPs in GFLOPs (1e9)"),
    (1e-12, "FLOPs in TFLOPs (1e12)"),
    (1e-15, "FLOPs in PFLOPs (1e15)"),
    (1e-18, "FLOPs in EFLOPs (1e18)"),
    (1e-21, "FLOPs in ZFLOPs (1e21)"),
)
COUNTS = (
    (1.0, ""),
    (1 / 3, "FLOPs of the forward pass only (2 N D, a third)"),
    (1 / 2, "multiplications with additions counted once (3 N D)"),
    (2 / 3, "FLOPs of the backward pass only (4 N D)"),
    (4 / 3, "FLOPs with the forward pass computed again (8 N D)"),
    (2.0, "FLOPs counted twice (12 N D)"),
    (3.0, "FLOPs multiplied by 3 for the backward pass twice (18 N D)"),
)
PARAM_UNITS = ((1.0, ""), (1e3, "thousands"), (1e6, "millions"), (1e9, "billions"))
TOKEN_UNITS = (*PARAM_UNITS, (1e12, "trillions"))

SMALLEST_PARAMS, LARGEST_PARAMS = 1e3, 1e14
SMALLEST_TOKENS, LARGEST_TOKENS = 1e4, 1e17
"""Sizes and tokens that a run can have; others are in another unit."""

UNIT_DEPENDENT = ("n_star", "d_star", "tokens_per_param", "loss", "flops", "params", "tokens")
"""Derived quantities, at FLOPs or at a loss, that are wrong where units are."""

LARGEST_LOSS = 12.5
"""Nats: the loss of guessing among 268,000 tokens."""

TOKENS_DERIVED = "tokens = flops / (6 params)"
"""The convention of tokens that are not a column of the table."""

RISES = 0.5
"""Rank correlation with N D from which values rise; losses of real tables lie under -0.5."""


def require_positive(option: str, values: Sequence[float]) -> None:
    """Raises `RequestError` that names the option whose values are not positive and finite."""
    bad = [value for value in values if not (np.isfinite(value) and value > 0)]
    if bad:
        raise RequestError(
            f"{option} takes positive finite numbers, got {', '.join(f'{v:g}' for v in bad)}"
        )


def table_reasons(points: Points, law: Law) -> list[Reason]:
    """Everything that the table itself says: notes first, then units, then the loss."""
    notes = [
        Reason(code=f.code, status="refused" if f.forbids else "ok", message=f.message)
        for f in points.findings
    ]
    return notes + unit_reasons(points) + _loss_reasons(points, law)


def unit_reasons(points: Points) -> list[Reason]:
    """FLOPs away from 6 N D, and sizes that no model has."""
    if points.own_count:
        return []
    if points.agreement is None:
        return _implausible(points)
    found = points.agreement
    reasons = []
    distance = max(found.ratio, 1.0 / found.ratio)
    if distance > NEAR:
        reasons.append(_ratio_reason(points, found, "refused" if distance > FAR else "warn"))
    elif found.high / found.low > SPREAD and not found.apart:
        reasons.append(_spread_reason(found))
    if found.apart:
        reasons.append(_apart_reason(found))
    return reasons if distance > FAR else reasons + _implausible(points)


def _ratio_reason(points: Points, found: FlopsAgreement, status: Status) -> Reason:
    guesses = guessed_units(points, found)
    guess = f"probably {' or '.join(guesses)}" if guesses else "another unit or another count"
    remedy = (
        "N*, D* and loss at FLOPs are not given; write FLOPs of training, parameters and tokens as "
        "plain numbers"
        if status == "refused"
        else "N*, D* and loss at FLOPs use C = 6 N D and are off by that"
    )
    return Reason(
        code="flops-unlike-6nd",
        status=status,
        parameters=UNIT_DEPENDENT if status == "refused" else (),
        message=(
            f"FLOPs are {found.ratio:.3g} of 6 N D (median of {found.num_rows} rows, 5 to 95 %: "
            f"{found.low:.2g} to {found.high:.2g}): {guess}; {remedy}"
        ),
    )


def _spread_reason(found: FlopsAgreement) -> Reason:
    return Reason(
        code="flops-unlike-6nd",
        status="warn",
        message=(
            f"FLOPs are {found.low:.2g} to {found.high:.2g} of 6 N D (5 to 95 % of "
            f"{found.num_rows} rows, median {found.ratio:.3g}): they do not count the same thing "
            "in every row; N*, D* and loss at FLOPs use C = 6 N D"
        ),
    )


def _apart_reason(found: FlopsAgreement) -> Reason:
    return Reason(
        code="mixed-units",
        status="refused",
        message=(
            f"FLOPs are {found.ratio:.3g} of 6 N D in most rows, but more than ten times away "
            f"from that in {len(found.apart)} of {found.num_rows} (rows {rows_text(found.apart)}): "
            "params, tokens or FLOPs have another unit there; repair these rows, or leave them "
            "out with --keep"
        ),
    )


def guessed_units(points: Points, found: FlopsAgreement) -> list[str]:
    """Units that would explain the ratio, in words, the simplest first; at most three."""
    if found.high > SPREAD * found.low:  # nothing but a column that is missing varies so
        for count, what in ((1.0, "(6 N)"), (1 / 3, "of the forward pass (2 N)")):
            if abs(np.log(found.per_token / count)) < np.log(MATCH):
                return [f"FLOPs per token {what}"]
    guesses = []
    for (flops, unit), (count, counted), (params, of_n), (tokens, of_d) in product(
        FLOP_UNITS, COUNTS, PARAM_UNITS, TOKEN_UNITS
    ):
        off = abs(np.log(found.ratio / (flops * count * params * tokens)))
        if off > np.log(MATCH) or not _plausible(points, params, tokens):
            continue
        sizes = [f"{role} in {of}" for role, of in (("params", of_n), ("tokens", of_d)) if of]
        words = [word for word in (unit, counted, *sizes) if word]
        if words:
            guesses.append((len(words) + (1 if counted and len(words) > 1 else 0), off, words))
    guesses.sort(key=lambda guess: guess[:2])
    best = [guess for guess in guesses if guess[0] == guesses[0][0]]
    return [" and ".join(words) for _, _, words in best[:3]]


def _plausible(points: Points, params: float, tokens: float) -> bool:
    """Whether sizes and tokens, scaled so, are ones that runs have."""
    return _within(points, "params", params, SMALLEST_PARAMS, LARGEST_PARAMS) and _within(
        points, "tokens", tokens, SMALLEST_TOKENS, LARGEST_TOKENS
    )


def _within(points: Points, role: str, scale: float, low: float, high: float) -> bool:
    values = points.columns.get(role)
    return values is None or bool(low <= scale * values.min() and scale * values.max() <= high)


def _implausible(points: Points) -> list[Reason]:
    """Sizes too small for a model, where no FLOPs tell."""
    reasons = []
    for role, low, units in (
        ("params", SMALLEST_PARAMS, PARAM_UNITS),
        ("tokens", SMALLEST_TOKENS, TOKEN_UNITS),
    ):
        values = points.columns.get(role)
        if values is None or values.min() >= low:
            continue
        fits = [word for scale, word in units if word and values.min() * scale >= low]
        guess = f"probably {role} in {fits[0]}" if fits else "another unit"
        if role == "tokens" and TOKENS_DERIVED in points.conventions:
            guess = "they follow from FLOPs, which have another unit, such as PF-days (8.64e19)"
        reasons.append(
            Reason(
                code="implausible-sizes",
                status="refused",
                parameters=UNIT_DEPENDENT,
                message=(
                    f"{role} run from {values.min():.4g} to {values.max():.4g}, and no run has "
                    f"fewer than {low:g}: {guess}; N*, D* and loss at FLOPs are not given; write "
                    f"{role} as plain numbers"
                ),
            )
        )
    return reasons


def _loss_reasons(points: Points, law: Law) -> list[Reason]:
    """Values that rise with size, or that no loss in nats reaches."""
    rise = _rank_with_size(points, law)
    if rise is not None and rise > RISES:
        return [
            Reason(
                code="not-a-loss",
                status="refused",
                message=(
                    f"the values given as loss rise with {_size_words(points, law)} (rank "
                    f"correlation {rise:.2f}), so they are not a loss but an accuracy or another "
                    "score; name the loss with --column loss=COLUMN, or write an error such as "
                    "1 - accuracy"
                ),
            )
        ]
    middle = float(np.median(points.losses))
    if middle <= LARGEST_LOSS:
        return []
    return [
        Reason(
            code="loss-too-large",
            status="warn",
            message=(
                f"half of the losses exceed {middle:.4g}, more than guessing among all tokens "
                f"costs ({LARGEST_LOSS:g} nats): perhaps a perplexity, whose logarithm is the "
                "loss, or a sum over tokens"
            ),
        )
    ]


def _sizes_of(points: Points, law: Law) -> list[str]:
    known = [role for role in law.roles if (points.columns[role] > 0).all()]
    sizes = [role for role in known if role.startswith("params") or role == "tokens"]
    return sizes or [role for role in known if role == "flops"]


def _size_words(points: Points, law: Law) -> str:
    return " and ".join(_sizes_of(points, law))


def _rank_with_size(points: Points, law: Law) -> float | None:
    """Rank correlation of the losses with the product of the sizes that the law reads."""
    roles = _sizes_of(points, law)
    if not roles or points.num_rows < 4 or np.ptp(points.losses) == 0:
        return None
    log_product = np.sum([np.log(points.columns[role]) for role in roles], axis=0)
    if np.ptp(log_product) < 1e-9:
        return None
    return float(stats.spearmanr(log_product, points.losses).statistic)
