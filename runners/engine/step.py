"""How does one optimizer step change the weights? The engine that a trial's loop calls.

`StepEngine` is what the loop knows; `EagerEngine` runs everywhere, `runners.engine.graph` on a GPU.
An engine takes a batch and a learning rate, and returns the batch's mean cross-entropy without
waiting for the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from runners.engine.loss import training_loss
from runners.engine.rounded_weights import WorkingModel
from runners.engine.validation import BatchSums, batch_sums
from search.record.trial import TrainingRecipe
from spaces.model import LanguageModel
from spaces.parametrization import STANDARD, Factors, ResolvedParametrization

NamedTensors = dict[str, Tensor]


class OutOfMemoryAtOneSequence(Exception):
    """The device cannot hold the training of this model on a single sequence."""


class StepEngine(Protocol):
    """Trains one model, step by step."""

    @property
    def model(self) -> LanguageModel:
        """The model, in its present state."""

    @property
    def micro_batch_sequences(self) -> int:
        """Sequences of one forward and backward pass."""

    @property
    def peak_memory_bytes(self) -> int:
        """Most memory that was needed before the first step; 0 where nothing was."""

    @property
    def validation_sequences(self) -> int | None:
        """Sequences that `validation_sums` likes best at once; None where any number will do."""

    def step(
        self, inputs_BT: Tensor, targets_BT: Tensor, *, learning_rate: float, index: int = 0
    ) -> Tensor:
        """Do one step; returns the mean cross-entropy before it, a scalar on the device.

        ``index`` counts the trial's steps, for objectives that depend on it.
        """

    def validation_sums(self, inputs_BT: Tensor, targets_BT: Tensor) -> BatchSums:
        """Loss and readouts of validation sequences in the model's present state."""

    def optimizer_tensors(self) -> NamedTensors:
        """The optimizer's state; empty before the first step."""

    def load_optimizer_tensors(self, tensors: NamedTensors) -> None:
        """Put back what `optimizer_tensors` gave."""


class EagerEngine:
    """Forward, backward, clipping and AdamW, operator by operator.

    A batch may be split into micro-batches; gradients add up to the whole batch's. Where memory
    runs out, the micro-batch is halved and the step done again.
    """

    peak_memory_bytes = 0
    validation_sequences: int | None = None

    def __init__(
        self,
        model: LanguageModel,
        recipe: TrainingRecipe,
        *,
        micro_batch_sequences: int | None = None,
        seed: int = 0,
    ) -> None:
        """``seed`` of the trial, for objectives that draw."""
        self.model = model
        self.micro_batch_sequences = micro_batch_sequences or recipe.batch_sequences
        self.working = WorkingModel(model, recipe.precision)
        self._recipe = recipe
        self._seed = seed
        self._parameters = list(model.parameters())
        self._groups = rate_groups(model, recipe.parametrization)
        self.set_weight_decay(recipe.weight_decay)
        self._optimizer = make_optimizer(self._groups, recipe)

    def step(
        self, inputs_BT: Tensor, targets_BT: Tensor, *, learning_rate: float, index: int = 0
    ) -> Tensor:
        """Do one step; raises `OutOfMemoryAtOneSequence` where no micro-batch fits."""
        self.set_learning_rate(learning_rate)
        while True:
            try:
                return self.run(inputs_BT, targets_BT, index=index)
            except torch.OutOfMemoryError as error:
                reason = str(error).splitlines()[0]
            # outside the handler, whose traceback still holds the activations
            self.halve(num_sequences=len(inputs_BT), reason=reason)

    def set_learning_rate(self, learning_rate: float) -> None:
        """The rate of the next `run`."""
        for group in self._groups:
            group.learning_rate.fill_(learning_rate * group.factors.rate)

    def set_weight_decay(self, weight_decay: float) -> None:
        """The decoupled decay of the runs from now on."""
        for group in self._groups:
            group.weight_decay.fill_(weight_decay * group.factors.decay)

    def run(self, inputs_BT: Tensor, targets_BT: Tensor, *, index: int = 0) -> Tensor:
        """One step on the device alone: no value leaves it, so that it can be captured."""
        self._optimizer.zero_grad()
        self.working.refresh()
        size = self.micro_batch_sequences
        total = torch.zeros((), device=inputs_BT.device)
        pieces = zip(torch.split(inputs_BT, size), torch.split(targets_BT, size), strict=True)
        for inputs, targets in pieces:
            share = len(inputs) / len(inputs_BT)
            loss, cross_entropy = training_loss(
                self.working.model, inputs, targets, self._recipe, seed=self._seed, step=index
            )
            torch.autograd.backward(loss * share)
            self.working.collect_gradients()
            total += cross_entropy * share
        torch.nn.utils.clip_grad_norm_(self._parameters, self._recipe.grad_clip)
        self._decay()
        self._optimizer.step()
        return total

    @torch.no_grad()
    def _decay(self) -> None:
        """AdamW's decoupled decay, as a tensor: a captured step takes another trial's value."""
        for group in self._groups:
            if group.decayed:
                kept = 1 - group.learning_rate * group.weight_decay
                torch._foreach_mul_(group.decayed, kept)

    def halve(self, *, num_sequences: int, reason: str) -> None:
        """Use micro-batches of half the size from now on."""
        self._optimizer.zero_grad()
        size = min(self.micro_batch_sequences, num_sequences)
        if size == 1:
            raise OutOfMemoryAtOneSequence(reason)
        self.micro_batch_sequences = size // 2
        if self._groups[0].learning_rate.is_cuda:
            torch.cuda.empty_cache()

    @torch.no_grad()
    def validation_sums(self, inputs_BT: Tensor, targets_BT: Tensor) -> BatchSums:
        """Loss and readouts of validation sequences in the model's present state."""
        self.working.refresh()
        return batch_sums(self.working.model, inputs_BT, targets_BT)

    def optimizer_tensors(self) -> NamedTensors:
        """Both moments and the step count of every parameter, as ``<what>/<parameter>``."""
        return {
            f"{what}/{name}": tensor
            for name, parameter in self.model.named_parameters()
            for what, tensor in self._optimizer.state[parameter].items()
        }

    def load_optimizer_tensors(self, tensors: NamedTensors) -> None:
        """Put back what `optimizer_tensors` gave, where it was where there is a place for it."""
        parameters = dict(self.model.named_parameters())
        for key, tensor in tensors.items():
            what, _, name = key.partition("/")
            state = self._optimizer.state[parameters[name]]
            if what in state:
                state[what].copy_(tensor)
            else:
                state[what] = tensor.to(parameters[name].device)


@dataclass(frozen=True, kw_only=True)
class RateGroup:
    """Parameters that are trained at one multiple of the recipe's rate, epsilon and decay."""

    factors: Factors
    """The multiples; that of the start is none of a step's, and 1."""
    learning_rate: Tensor
    """The rate of the next step, a scalar on the device."""
    weight_decay: Tensor
    """The decoupled decay of the next step, a scalar on the device."""
    parameters: list[nn.Parameter]
    """All of them."""
    decayed: list[Tensor]
    """Of these, those that weight decay acts on."""


def rate_groups(
    model: LanguageModel, parametrization: ResolvedParametrization = STANDARD
) -> list[RateGroup]:
    """The model's parameters by their factors; one group where all are alike."""
    groups: dict[Factors, RateGroup] = {}
    for each in model.declared():
        factors = replace(each.factors(parametrization) * Factors(rate=each.weight.rate), std=1.0)
        if factors not in groups:
            groups[factors] = _empty_group(factors, each.parameter.device)
        groups[factors].parameters.append(each.parameter)
        if each.weight.decays:
            groups[factors].decayed.append(each.parameter)
    return list(groups.values())


def _empty_group(factors: Factors, device: torch.device) -> RateGroup:
    rate, decay = torch.zeros((), device=device), torch.zeros((), device=device)
    return RateGroup(
        factors=factors, learning_rate=rate, weight_decay=decay, parameters=[], decayed=[]
    )


def make_optimizer(groups: Sequence[RateGroup], recipe: TrainingRecipe) -> torch.optim.AdamW:
    """AdamW (arXiv 1711.05101) in one fused kernel; the decay comes before it, where declared."""
    return torch.optim.AdamW(
        [
            {
                "params": group.parameters,
                "lr": group.learning_rate,
                "eps": recipe.adam_epsilon * group.factors.epsilon,
            }
            for group in groups
        ],
        betas=(recipe.beta1, recipe.beta2),
        weight_decay=0.0,
        fused=True,
        capturable=groups[0].learning_rate.is_cuda,
    )
