"""Which runs may a law use? Decided by their design, never by their loss.

Outside these bounds a run is not of the kind that the laws describe: a model that saw fewer tokens
than it has parameters lies above any law of the others (by 5.7 % in the pilot, 26 of 113 runs), and
tokens of a fifth epoch are worth less than new ones (Muennighoff et al., arXiv 2305.16264).
"""

from __future__ import annotations

from search.record.trial import TrialConfig
from spaces.parameters import count_parameters

LEAST_TOKENS_PER_PARAMETER = 1.0
MOST_EPOCHS = 4.0


def why_not_for_laws(
    *, params: float | None, tokens: float | None, epochs: float | None
) -> str | None:
    """Why no law uses such a run; None where it may. What is not known excludes nothing."""
    if params and tokens and tokens < LEAST_TOKENS_PER_PARAMETER * params:
        return "fewer tokens than parameters"
    if epochs is not None and epochs > MOST_EPOCHS:
        return f"more than {MOST_EPOCHS:g} epochs of its text"
    return None


def why_no_law_uses(config: TrialConfig, *, num_train_tokens: int | None) -> str | None:
    """The same of a trial before it runs."""
    return why_not_for_laws(
        params=count_parameters(config.architecture).total,
        tokens=config.tokens,
        epochs=config.tokens / num_train_tokens if num_train_tokens else None,
    )
