"""How many digits does a number deserve? Those that its noise leaves."""

from __future__ import annotations

import math

MOST_DECIMALS = 4


def decimals_for(noise: float | None) -> int:
    """Decimals that show two digits of a noise, from 1 to 4; 4 where nothing tells the noise."""
    if noise is None or not noise > 0:
        return MOST_DECIMALS
    return min(max(1 - math.floor(math.log10(noise)), 1), MOST_DECIMALS)
