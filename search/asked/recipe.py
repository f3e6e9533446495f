"""Which rates and batch does a trial train with? Two power laws, or a parametrisation.

Learning rate: ``rate(arm) * (d_model / 128) ** a * (effective depth / 4) ** b * multiplier``, the
exponents and the rates being settings of the experiment; with a ``loop_exponent`` c it is times
``K ** (c - b)``, so that b is of the layers alone. With a parametrisation other than ``standard``
it is ``rate(arm) * multiplier``, and `spaces.parametrization` does the rest.
Batch: ``batch_tokens * (C / C_0) ** c`` in whole sequences: one fixed batch over all
budgets would bias the exponents of a scaling law (Porian et al., arXiv 2406.19146).
"""

from __future__ import annotations

from search.asked.settings import TrainingSettings
from search.record.trial import Precision, TrainingRecipe
from spaces.architecture import Architecture
from spaces.arms.contract import find_arm

REFERENCE_WIDTH = 128
REFERENCE_EFFECTIVE_DEPTH = 4


def learning_rate(
    settings: TrainingSettings,
    *,
    arm: str,
    architecture: Architecture,
    multiplier: float,
) -> float:
    """Peak learning rate, to four significant digits so that equal choices stay equal."""
    base = settings.learning_rate.of(find_arm(arm))
    return float(f"{shaped(base, settings, architecture) * multiplier:.4g}")


def shaped(base: float, settings: TrainingSettings, architecture: Architecture) -> float:
    """A rate at the reference shape, at another; unchanged where a parametrisation sees to that."""
    if settings.rule().follows_shape:
        return base
    width: float = (architecture.d_model / REFERENCE_WIDTH) ** settings.width_exponent
    depth = architecture.effective_depth / REFERENCE_EFFECTIVE_DEPTH
    by_depth: float = depth**settings.depth_exponent
    by_loops: float = architecture.num_loops**settings.loops_beside_depth
    return base * width * by_depth * by_loops


def batch_sequences(
    settings: TrainingSettings, *, train_flops: float, context_length: int, num_sequences: int
) -> int:
    """Sequences per step: the rule's, but never so many that fewer than ``min_steps`` remain."""
    scale: float = (train_flops / settings.batch_reference_flops) ** settings.batch_exponent
    by_rule = max(1, round(settings.batch_tokens * scale / context_length))
    return max(1, min(by_rule, num_sequences // settings.min_steps))


def recipe(
    settings: TrainingSettings,
    *,
    arm: str,
    architecture: Architecture,
    train_flops: float,
    tokens: int,
    multiplier: float,
    precision: Precision,
) -> TrainingRecipe:
    """The resolved training recipe of one trial."""
    context = architecture.context_length
    batch = batch_sequences(
        settings,
        train_flops=train_flops,
        context_length=context,
        num_sequences=tokens // context,
    )
    warmup = settings.warmup_tokens
    return TrainingRecipe(
        learning_rate=learning_rate(
            settings, arm=arm, architecture=architecture, multiplier=multiplier
        ),
        batch_sequences=batch,
        schedule=settings.schedule,
        warmup_fraction=settings.warmup_fraction,
        warmup_steps=None if warmup is None else max(1, round(warmup / (batch * context))),
        decay_fraction=settings.decay_fraction,
        final_lr_fraction=settings.final_lr_fraction,
        weight_decay=settings.weight_decay,
        beta1=settings.beta1,
        beta2=settings.beta2,
        grad_clip=settings.grad_clip,
        ponder_penalty=settings.ponder_penalty,
        gate_entropy_penalty=settings.gate_entropy_penalty,
        gate_balance_penalty=settings.gate_balance_penalty,
        precision=precision,
        parametrization=settings.rule().at(architecture),
    )
