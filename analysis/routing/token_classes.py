"""Which class is a token of? What it is written as, and the part of speech of its word."""

from __future__ import annotations

import polars as pl

FUNCTION_TAGS = ("ADP", "AUX", "CCONJ", "DET", "PART", "PRON", "SCONJ")
LEXICAL_TAGS = ("ADJ", "ADV", "INTJ", "NOUN", "PROPN", "VERB")
"""Closed and open classes of https://universaldependencies.org/u/pos/."""

ARITHMETIC = r"^[+\-−*×/÷=<>≤≥±^%]+$"
DIGITS = r"^[0-9][0-9.,:]*$"

CLASSES = (
    "arithmetic",
    "digits",
    "punctuation",
    "function words",
    "lexical words",
    "other words",
    "whitespace",
)
"""Every token is of one; the first that fits."""


def token_class() -> pl.Expr:
    """The class of each row of a probe, by ``form`` and ``tag``; rows of no word are whitespace.

    A hyphen is arithmetic only where it is tagged a symbol.
    """
    form, tag = pl.col("form"), pl.col("tag")
    return (
        pl.when(pl.col("word").is_null())
        .then(pl.lit("whitespace"))
        .when(form.str.contains(ARITHMETIC) & (tag == "SYM"))
        .then(pl.lit("arithmetic"))
        .when(form.str.contains(DIGITS))
        .then(pl.lit("digits"))
        .when(tag == "PUNCT")
        .then(pl.lit("punctuation"))
        .when(tag.is_in(FUNCTION_TAGS))
        .then(pl.lit("function words"))
        .when(tag.is_in(LEXICAL_TAGS))
        .then(pl.lit("lexical words"))
        .otherwise(pl.lit("other words"))
    )
