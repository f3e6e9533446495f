"""Which numbers can a setting be? Types with their bounds, and what else is read as one of them.

A bound lies where no experiment has gone: what lies beyond is a slip of the keyboard or another
unit. No setting is infinite or not a number, true and false are no numbers, and words are none.
A whole number may be written with an exponent (1e6), a list of one value as that value.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, Strict

Value = TypeVar("Value")

LONGEST_SHOWN = 80
"""Characters of a wrong value that a message repeats."""


def in_short(value: Any) -> str:
    """A value as a message repeats it, however long it is."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        text = "a number of thousands of digits"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def _number(value: Any) -> Any:
    """The value, unless it is one that Python would take for a number though it is none."""
    if isinstance(value, bool | str):
        raise ValueError("takes a number without quotes, not words, true or false")
    return value


def _whole(value: Any) -> Any:
    """The value, unless it is none that a whole number is written as."""
    if isinstance(value, bool | str):
        raise ValueError("takes a whole number without quotes, not words, true or false")
    return value


def _listed(value: Any) -> Any:
    """A value that stands alone as the list of it."""
    return (value,) if isinstance(value, bool | int | float | str) else value


def _without_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("cannot hold the character NUL")
    return value


OneOrMore = Annotated[tuple[Value, ...], BeforeValidator(_listed)]
"""A list; one value that stands alone is a list of it."""

Flag = Annotated[bool, Strict()]
Words = Annotated[str, AfterValidator(_without_nul), Field(max_length=4096)]
"""A name, a path or an address."""

_Whole = Annotated[int, BeforeValidator(_whole)]
_Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]

Count = Annotated[_Whole, Field(ge=1, le=1_000_000)]
"""Trials, workers, attempts, sequences: what is there at least once."""
CountOrNone = Annotated[_Whole, Field(ge=0, le=1_000_000)]
"""What may be left out by 0."""
Seed = Annotated[_Whole, Field(ge=-(2**63), le=2**63 - 1)]
"""64 bits with a sign."""
Depth = Annotated[_Whole, Field(ge=1, le=10_000)]
"""Layers, or uses of a block."""
Width = Annotated[_Whole, Field(ge=1, le=1_000_000)]
"""Channels."""
ContextLength = Annotated[_Whole, Field(ge=1, le=100_000_000)]
"""Tokens of a sequence."""
Tokens = Annotated[_Whole, Field(ge=1, le=10**18)]
"""Tokens of a step or of a training; all text there is has some 1e15."""

Flops = Annotated[_Number, Field(ge=1, le=1e30)]
"""Of a training, or of a token; the largest trainings known have spent some 1e27."""
Bytes = Annotated[_Number, Field(gt=0, le=1e18)]
Hours = Annotated[_Number, Field(gt=0, le=1e9)]
Seconds = Annotated[_Number, Field(gt=0, le=1e9)]
"""Up to thirty years; what waits for longer overflows in the system's own calls."""

Multiplier = Annotated[_Number, Field(ge=1e-6, le=1e6)]
"""Of a width or of a rate."""
Rate = Annotated[_Number, Field(ge=1e-12, lt=1)]
"""Peak learning rate."""
RateLimit = Annotated[_Number, Field(gt=0, le=1e6)]
"""Between what rates may lie."""
Exponent = Annotated[_Number, Field(ge=-4, le=4)]
"""Of a rule that scales with size; measured ones lie between -1 and 1."""
Share = Annotated[_Number, Field(gt=0, lt=1)]
"""Of a whole that has other parts."""
Decay = Annotated[_Number, Field(ge=0, lt=1)]
"""Of a moving average, and a share that may be none."""
ShareOrAll = Annotated[_Number, Field(gt=0, le=1)]
Floor = Annotated[_Number, Field(ge=0, le=1)]
"""Share of a peak."""
Epsilon = Annotated[_Number, Field(ge=1e-30, le=1)]
"""Keeps a division finite in float32, and is no part of what is measured."""
RotaryBase = Annotated[_Number, Field(ge=1, le=1e12)]
Start = Annotated[_Number, Field(ge=-100, le=100)]
"""Before a sigmoid or a softplus, which hardly move beyond."""
WeightDecay = Annotated[_Number, Field(ge=0, le=100)]
Norm = Annotated[_Number, Field(ge=1e-9, le=1e9)]
Penalty = Annotated[_Number, Field(ge=0, le=1000)]
"""Weight in the loss, nats."""
SignedPenalty = Annotated[_Number, Field(ge=-1000, le=1000)]
"""Weight in the loss of what is bounded on both sides: below 0 it is a reward."""
Ratio = Annotated[_Number, Field(ge=1e-9, le=1e12)]
"""Tokens per parameter."""
PerItem = Annotated[_Number, Field(gt=0, le=1e6)]
"""Bytes of one parameter or activation."""

LARGEST_OWN = 1e12
"""Beyond no axis of an arm of your own goes, on either side of 0."""
