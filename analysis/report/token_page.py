"""A text with every token tinted by where it goes, layer by layer: one HTML file.

The page loads nothing, which it forbids the browser itself, and escapes the text.

Shapes in names: L layers, N tokens.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from markupsafe import Markup

from analysis.report.pages import rendered, source_of
from spaces.errors import RequestError

MOST_TOKENS = 20_000
"""Of a page; a longer text is shown up to there."""

DIGITS = 4
"""Of a number in the page."""

MEASURES = {
    "deep_share": ("deep share", "wide", "deep"),
    "expected_loops": ("loops", "few", "many"),
}
"""What tints: its name, and what both ends of the scale mean."""


@dataclass(frozen=True, kw_only=True)
class TokenPage:
    """What a page is about."""

    title: str
    """The model, in a few words."""
    text_name: str
    facts: Sequence[tuple[str, str]]
    """Names and values above the text."""


def token_page(about: TokenPage, probe: pl.DataFrame, pieces: Sequence[str]) -> str:
    """The page of a probe's rows; ``pieces`` is each token's part of the text, in order.

    Raises `RequestError` where the model has nothing that tints.
    """
    measure = next((name for name in MEASURES if not probe[name].is_null().all()), None)
    if measure is None:
        raise RequestError("this model has neither gates nor a router of loops: nothing tints")
    layers = [part for _, part in sorted(probe.partition_by("layer", as_dict=True).items())]
    values_LN = np.stack([part[measure].to_numpy() for part in layers])[:, :MOST_TOKENS]
    first = layers[0][:MOST_TOKENS]
    mean_N = values_LN.mean(axis=0)
    centre = float(values_LN.mean())
    reach = float(np.quantile(np.abs(values_LN - centre), 0.98)) or 1.0
    name, low, high = MEASURES[measure]
    tokens = [
        {"text": piece, "tint": round(_place(float(value), centre, reach), 3)}
        for piece, value in zip(pieces, mean_N, strict=False)
    ]
    data = {
        "layers": [[round(float(value), DIGITS) for value in row] for row in values_LN],
        "mean": [round(float(value), DIGITS) for value in mean_N],
        "tags": first["tag"].to_list(),
        "positions": first["position"].to_list(),
        "centre": centre,
        "reach": reach,
        "name": name,
    }
    return rendered(
        "tokens.html.jinja",
        about=about,
        tokens=tokens,
        num_layers=len(layers),
        measure=name,
        ends=(low, high),
        scale=(centre - reach, centre, centre + reach),
        left_out=max(0, len(layers[0]) - MOST_TOKENS),
        css=source_of("tokens.css"),
        script=source_of("tokens.js"),
        data=Markup(json.dumps(data).replace("<", "\\u003c")),
    )


def _place(value: float, centre: float, reach: float) -> float:
    """From -1 (below the scale) to 1."""
    return max(-1.0, min(1.0, (value - centre) / reach))


def pieces_of(texts: Sequence[str], num_bytes: Sequence[int]) -> list[str]:
    """Each token's part of texts that follow each other; a character belongs to the token in which
    its last byte lies, and a blank line to the last token of a text that another follows.

    ``num_bytes``: of each token, in order; together those of the texts.
    """
    ends = set(itertools.accumulate(len(text.encode()) for text in texts[:-1]))
    raw, pieces, start, end = "".join(texts).encode(), [], 0, 0
    for count in num_bytes:
        end += count
        whole = end
        while whole < len(raw) and whole > start and raw[whole] & 0xC0 == 0x80:
            whole -= 1  # back to where a character begins
        pieces.append(raw[start:whole].decode() + ("\n\n" if count and end in ends else ""))
        start = whole
    return pieces
