"""Which learning rate does a step have? A pure function of the step.

With N steps counted from 0, W = round(warmup_fraction N), D = round(decay_fraction N), peak p and
floor f = final_lr_fraction p:

- warm-up, both schedules: p (s + 1) / W for s < W, where W may also be given as a number of steps;
- cosine: f + (p - f) (1 + cos(pi (s - W) / (N - 1 - W))) / 2, from p at s = W to f at s = N - 1;
- wsd (warm-up, stable, decay; arXiv 2404.06395): p until s = N - D, then linear to f at s = N - 1.
"""

from __future__ import annotations

import math

from search.record.trial import TrainingRecipe


def warmup_steps(recipe: TrainingRecipe, *, num_steps: int) -> int:
    """W: steps of the linear warm-up."""
    if recipe.warmup_steps is not None:
        return min(recipe.warmup_steps, num_steps)
    return round(recipe.warmup_fraction * num_steps)


def decay_steps(recipe: TrainingRecipe, *, num_steps: int) -> int:
    """D of wsd: steps of the linear decay, which never reaches into the warm-up."""
    stable_and_decay = num_steps - warmup_steps(recipe, num_steps=num_steps)
    return min(round(recipe.decay_fraction * num_steps), stable_and_decay)


def learning_rate_at(step: int, recipe: TrainingRecipe, *, num_steps: int) -> float:
    """The learning rate of a step, counted from 0."""
    warmup = warmup_steps(recipe, num_steps=num_steps)
    if step < warmup:
        return recipe.learning_rate * (step + 1) / warmup
    floor = recipe.final_lr_fraction * recipe.learning_rate
    above = recipe.learning_rate - floor
    if recipe.schedule == "cosine":
        done = (step - warmup) / max(1, num_steps - 1 - warmup)
        return floor + above * (1 + math.cos(math.pi * done)) / 2
    decay = decay_steps(recipe, num_steps=num_steps)
    left = num_steps - 1 - step
    return recipe.learning_rate if left >= decay else floor + above * left / decay
