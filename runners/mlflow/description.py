"""What does someone who has never heard of a sweep need to know of it? The text of its run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runners.mlflow.saved_view import flops_in_words

NOTE_TAG = "mlflow.note.content"
"""Where MLflow keeps a run's description."""


def description(name: str, asked: Mapping[str, Any]) -> str:
    """Question, arms and how to read the runs, as Markdown; of an experiment's plain form."""
    budgets = ", ".join(flops_in_words(flops) for flops in asked["budget"]["train_flops"])
    arms = ", ".join(f"`{arm}`" for arm in asked["arms"])
    return f"""**Which architecture reaches the lowest loss for the same training compute?**

Every run below this one trains a small language model of one *arm* (a family of architectures:
{arms}). All models of one *budget* cost the same training FLOPs ({asked["budget"]["convention"]}
convention): {budgets}. A larger model therefore sees fewer tokens.
{asked["trials"]} trials are asked for.

How to read it:

- a run's name is its budget, arm, shape and number;
- `loss_nats` is the validation loss per token, lower is better; compare it inside a budget alone;
- `rank_in_budget` is 1 for the lowest loss; two ranks may be luck: `isoflop best {name}` says
  which results cannot be told apart;
- the artifacts of this run hold the experiment and, once `isoflop fit {name}` and
  `isoflop report {name}` have run, laws with their certificates, figures and the report.
"""
