"""What does a trained model know? Its scores on a task, each by a rule that is named."""

from __future__ import annotations

from dataclasses import dataclass

PREFIX = "eval"
"""Of the names that scores have among a trial's numbers: ``eval.TASK.RULE``."""

SHARES = ("acc", "acc_norm", "acc_bytes", "acc_pmi", "greedy")
"""Rules whose score is a share of right answers: more is better. Of all others less is."""


def more_is_better(name: str) -> bool:
    """Whether a number of a trial is a share of right answers, by its name."""
    return name.startswith(f"{PREFIX}.") and name.rpartition(".")[2] in SHARES


@dataclass(frozen=True, kw_only=True)
class Score:
    """One number of one task by one rule."""

    rule: str
    """acc, acc_norm, acc_bytes, acc_pmi, greedy, bits_per_byte or answer_bits_per_byte."""
    value: float
    """A share of the items, or bits per byte."""
    standard_error: float | None
    """Over items; None for a single one."""
    chance: float | None = None
    """What guessing scores, or the best fixed answer where all items have the same; None for bits
    per byte."""
    p_chance: float | None = None
    """Probability of this value or a higher one at chance."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All scores of a run on one task."""

    config_hash: str
    """The run."""
    task: str
    """Its name."""
    fingerprint: str
    """SHA-256 (hexadecimal) of what was asked."""
    num_items: int
    num_cut: int
    """Items whose context was longer than the model's, and lost its beginning."""
    headline: str
    """The rule that the task is best read by."""
    scores: tuple[Score, ...]
    wall_seconds: float
    """Of scoring."""
    evaluated_at: float
    """Unix seconds."""
    code_version: str

    def score(self, rule: str) -> Score:
        """The score by a rule that it has."""
        return next(score for score in self.scores if score.rule == rule)

    def numbers(self) -> dict[str, float]:
        """Its scores as numbers of its trial."""
        return {f"{PREFIX}.{self.task}.{score.rule}": score.value for score in self.scores}
