"""What is a trial, what identifies it, and what does it leave behind?

Plain frozen values that cross every room's border: the driver writes them, workers return them,
the ledger stores them as JSON and ``analysis`` reads them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from spaces.architecture import Architecture
from spaces.arms.contract import find_arm
from spaces.arms.registry import is_known
from spaces.budget import Budget
from spaces.flops import train_flops_per_sequence, train_flops_per_token
from spaces.identity import added, canonical_json
from spaces.parametrization import STANDARD, ResolvedParametrization

RECORD_VERSION = 1
"""Version of the canonical form and of what a result means; part of every identity."""

OutcomeStatus = Literal[
    "complete", "diverged", "out_of_memory", "failed", "preempted", "pruned", "lost"
]
Schedule = Literal["cosine", "wsd"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """Everything about a trial's training that is already resolved to numbers."""

    learning_rate: float
    """Peak learning rate of AdamW."""
    batch_sequences: int
    """Sequences per optimizer step (the global batch)."""
    schedule: Schedule = "cosine"
    """After the warm-up: cosine to the floor, or stable and then a linear decay (wsd)."""
    warmup_fraction: float = 0.05
    """Share of the steps with a linear warm-up."""
    warmup_steps: int | None = added(as_before=None)
    """Steps of the warm-up, whatever the length of the trial; None takes the share."""
    decay_fraction: float = 0.2
    """Share of the steps that decay, for ``wsd``."""
    final_lr_fraction: float = 0.1
    """Floor of the schedule as a share of the peak."""
    weight_decay: float = 0.1
    """Decoupled weight decay, on matrices only."""
    beta1: float = 0.9
    """AdamW's first moment decay."""
    beta2: float = 0.95
    """AdamW's second moment decay."""
    adam_epsilon: float = 1e-8
    """AdamW's epsilon."""
    grad_clip: float = 1.0
    """Largest global gradient norm."""
    ponder_penalty: float = 0.0
    """Weight of the expected number of loops (per layer and token) in the loss."""
    gate_entropy_penalty: float = 0.0
    """Weight of the mean gate entropy (nats) in the loss."""
    gate_balance_penalty: float = added(as_before=0.0)
    """Weight of the mean imbalance of the gates in the loss."""
    precision: Precision = "float32"
    """Arithmetic of the matrix products; parameters and optimizer stay float32."""
    parametrization: ResolvedParametrization = added(as_before=STANDARD)
    """What start, rate, epsilon and decay of each kind of weight are multiplied by."""


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """All that determines a trial's result; its canonical hash is the trial's identity."""

    architecture: Architecture
    """The resolved architecture."""
    tokens: int
    """Training tokens; a whole number of sequences."""
    training: TrainingRecipe
    """The resolved training recipe."""
    text_fingerprint: str
    """Identity of corpus, split and tokenizer."""
    eval_sequences: int
    """Validation sequences that every trial is measured on."""
    eval_points: int = 8
    """Intermediate validation measurements along the curve (the final one comes besides)."""
    init_seed: int = 0
    """Seed of the weights."""
    data_seed: int = 0
    """Seed of the order of the training sequences; common across arms."""
    record_version: int = RECORD_VERSION
    """Version of the canonical form and of the record's meaning."""

    @cached_property
    def config_hash(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of the canonical JSON.

        Of a configuration that was stored, the hash that it was stored under (`stored_as`).
        """
        text = canonical_json(self)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def stored_as(self, config_hash: str) -> TrialConfig:
        """This configuration, known by the hash of its row: that *is* its identity, and is never
        computed again."""
        self.__dict__["config_hash"] = config_hash
        return self

    @property
    def num_sequences(self) -> int:
        """Training sequences."""
        return self.tokens // self.architecture.context_length

    @property
    def num_steps(self) -> int:
        """Optimizer steps; the last may hold fewer sequences than the others."""
        return -(-self.num_sequences // self.training.batch_sequences)


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """One measured point of a trial's curve."""

    step: int
    """Optimizer steps done."""
    tokens: int
    """Training tokens seen."""
    train_flops: int
    """Training FLOPs spent so far, in the ``full`` convention."""
    train_loss_nats: float | None = None
    """Mean training loss since the last point, nats per token."""
    val_loss_nats: float | None = None
    """Validation loss, nats per token; None where it was not measured."""
    learning_rate: float | None = None
    """Learning rate of the last step."""
    wall_seconds: float = 0.0
    """Training seconds so far."""
    readouts: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """What the arm read off its layers with the validation loss: means by layer."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a trial left: plain values; what was not measured is None, never 0."""

    status: OutcomeStatus
    """How it ended; only ``complete`` is a result."""
    reason: str | None = None
    """Why, where it is not complete."""
    loss_nats: float | None = None
    """Final validation loss, nats per token."""
    bits_per_byte: float | None = None
    """The same per byte of UTF-8 text, in bits: comparable across tokenizers."""
    train_loss_nats: float | None = None
    """Mean training loss over the last tenth of the steps, nats per token."""
    generalization_gap_nats: float | None = None
    """``loss_nats - train_loss_nats``."""
    steps: int = 0
    """Optimizer steps done."""
    tokens: int = 0
    """Training tokens seen."""
    resumed_tokens: int = 0
    """Of these, the tokens that a checkpoint brought along into the last attempt."""
    trunk_parent: str | None = None
    """The trial whose trunk this one went on from; None where it trained all its steps itself."""
    trunk_tokens: int = 0
    """Of the tokens, those of that trunk: its own trial paid for them."""
    epochs: float | None = None
    """Tokens over the corpus's training tokens."""
    train_flops: dict[str, int] = field(default_factory=dict)
    """Delivered training FLOPs by convention: full, causal, projection."""
    forward_flops_per_token: dict[str, int] = field(default_factory=dict)
    """Forward FLOPs per token by convention."""
    parameters: dict[str, int] = field(default_factory=dict)
    """total, embedding, head, deep, wide, shared."""
    wall_seconds: float | None = None
    """Training seconds, measuring excluded."""
    setup_seconds: float | None = None
    """From hand-over to the first step of the last attempt: weights, kernels, capture."""
    measuring_seconds: float | None = None
    """Seconds of validation in the last attempt."""
    tokens_per_second: float | None = None
    """Training throughput."""
    peak_memory_bytes: int | None = None
    """Peak device memory (GPU) or resident memory (CPU)."""
    model_flops_utilization: float | None = None
    """Delivered ``full`` FLOPs over the device's peak; None where the peak is not known."""
    device: str | None = None
    """Device name."""
    curve: tuple[CurvePoint, ...] = ()
    """The measured curve."""
    readouts: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """What the arm reads off its layers on the validation tokens: means by layer."""
    warnings: tuple[str, ...] = ()
    """What a reader of the loss should know: many epochs, a wide gap."""
    versions: dict[str, str] = field(default_factory=dict)
    """Versions of Python, torch and this package (``isoflop``), and its ``commit``."""
    weights_path: str | None = None
    """Where the weights lie as safetensors, when they were asked for."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a running attempt stands."""

    step: int
    """Optimizer steps of the trial done."""
    steps: int
    """Optimizer steps of the whole trial."""
    tokens: int
    """Training tokens of the trial seen."""
    resumed_tokens: int
    """Of these, the tokens that a checkpoint brought along: seen, but not in this attempt."""
    curve: tuple[CurvePoint, ...] = ()
    """The whole curve so far."""


TrialState = Literal[
    "queued",
    "running",
    "preempted",
    "complete",
    "reused",
    "diverged",
    "out_of_memory",
    "failed",
    "pruned",
]
"""Where a trial stands in its sweep; ``reused`` is complete by another sweep of this home."""

WAITING_STATES: tuple[TrialState, ...] = ("queued", "preempted")
"""States of a trial that waits for its next attempt."""

FAILED_STATES: tuple[TrialState, ...] = ("diverged", "out_of_memory", "failed")
"""States of a trial that ended without a result, by no decision of the search."""

Purpose = Literal["baseline", "search", "tuning", "replicate"]


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A configuration and why it is asked for; the why is no part of its identity."""

    config: TrialConfig
    """What determines the result."""
    arm: str
    """The arm that was searched; its architecture may be of another arm of the same family."""
    budget: Budget
    """What it was to cost."""
    axes: dict[str, float | int | str]
    """The values of the free and fixed axes, as they were proposed."""
    purpose: Purpose
    """Why: a baseline, the search, a tuning stage, or a replicate."""
    nominal_alpha: float | None = None
    """Deep share of a layer's FLOPs that was asked for, where it is an axis."""
    attained_alpha: float | None = None
    """Deep share of a layer's FLOPs as built."""
    numbers: dict[str, int | float] = field(default_factory=dict, compare=False)
    """What it was to be and cost when it was asked for (`search.record.numbers`), for readers that
    cannot import its arm; empty until a ledger has it."""

    @property
    def config_hash(self) -> str:
        """Identity of the trial."""
        return self.config.config_hash

    @property
    def family(self) -> str:
        """Arms of one family answer questions about each other."""
        return family_of(self.arm)

    @property
    def train_flops_per_token(self) -> int | float:
        """Training FLOPs per token, in the budget's convention."""
        if self.config.architecture.is_known:
            return train_flops_per_token(self.config.architecture).get(self.budget.convention)
        return self.numbers["train_flops_per_token"]

    @property
    def train_flops(self) -> int:
        """Training FLOPs of the whole trial, in the budget's convention."""
        config = self.config
        if not config.architecture.is_known:
            return int(self.numbers["train_flops"])
        per_sequence = train_flops_per_sequence(config.architecture)[self.budget.convention]
        return per_sequence * config.num_sequences


def family_of(arm: str) -> str:
    """The family of an arm; an arm that cannot be imported here stands for itself."""
    return find_arm(arm).family if is_known(arm) else arm
