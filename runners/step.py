"""How does one optimizer step change the weights? The engine that a trial's loop calls.

`StepEngine` is what the loop knows; `EagerEngine` runs everywhere. An engine takes a batch and a
learning rate, and returns the batch's mean cross-entropy without waiting for the device.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from runners.loss import training_loss
from search.trial import TrainingRecipe
from spaces.model import DualPathModel

NamedTensors = dict[str, Tensor]


class OutOfMemoryAtOneSequence(Exception):
    """The device cannot hold the training of this model on a single sequence."""


class StepEngine(Protocol):
    """Trains one model, step by step."""

    @property
    def model(self) -> DualPathModel:
        """The model, in its present state."""

    def step(self, inputs_BT: Tensor, targets_BT: Tensor, *, learning_rate: float) -> Tensor:
        """Do one step; returns the mean cross-entropy before it, a scalar on the device."""

    def optimizer_tensors(self) -> NamedTensors:
        """The optimizer's state; empty before the first step."""

    def load_optimizer_tensors(self, tensors: NamedTensors) -> None:
        """Put back what `optimizer_tensors` gave."""


class EagerEngine:
    """Forward, backward, clipping and AdamW, operator by operator.

    A batch may be split into micro-batches; gradients add up to the whole batch's. Where memory
    runs out, the micro-batch is halved and the step done again.
    """

    def __init__(
        self,
        model: DualPathModel,
        recipe: TrainingRecipe,
        *,
        micro_batch_sequences: int | None = None,
    ) -> None:
        self.model = model
        self.micro_batch_sequences = micro_batch_sequences or recipe.batch_sequences
        self._recipe = recipe
        self._optimizer = make_optimizer(model, recipe)
        self._parameters = list(model.parameters())
        self._device_type = self._parameters[0].device.type

    def step(self, inputs_BT: Tensor, targets_BT: Tensor, *, learning_rate: float) -> Tensor:
        """Do one step; raises `OutOfMemoryAtOneSequence` where no micro-batch fits."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        while True:
            try:
                return self._step(inputs_BT, targets_BT)
            except torch.OutOfMemoryError as error:
                reason = str(error).splitlines()[0]
            # outside the handler, whose traceback still holds the activations
            self._halve(num_sequences=len(inputs_BT), reason=reason)

    def _step(self, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        self._optimizer.zero_grad()
        size = self.micro_batch_sequences
        total = torch.zeros((), device=inputs_BT.device)
        pieces = zip(torch.split(inputs_BT, size), torch.split(targets_BT, size), strict=True)
        for inputs, targets in pieces:
            share = len(inputs) / len(inputs_BT)
            with torch.autocast(
                self._device_type,
                dtype=torch.bfloat16,
                enabled=self._recipe.precision == "bfloat16",
            ):
                loss, cross_entropy = training_loss(self.model, inputs, targets, self._recipe)
            torch.autograd.backward(loss * share)
            total += cross_entropy * share
        torch.nn.utils.clip_grad_norm_(self._parameters, self._recipe.grad_clip)
        self._optimizer.step()
        return total

    def _halve(self, *, num_sequences: int, reason: str) -> None:
        self._optimizer.zero_grad()
        size = min(self.micro_batch_sequences, num_sequences)
        if size == 1:
            raise OutOfMemoryAtOneSequence(reason)
        self.micro_batch_sequences = size // 2
        if self._device_type == "cuda":
            torch.cuda.empty_cache()

    def optimizer_tensors(self) -> NamedTensors:
        """Both moments and the step count of every parameter, as ``<what>/<parameter>``."""
        return {
            f"{what}/{name}": tensor
            for name, parameter in self.model.named_parameters()
            for what, tensor in self._optimizer.state[parameter].items()
        }

    def load_optimizer_tensors(self, tensors: NamedTensors) -> None:
        """Put back what `optimizer_tensors` gave, on the parameters' device."""
        parameters = dict(self.model.named_parameters())
        for key, tensor in tensors.items():
            what, _, name = key.partition("/")
            parameter = parameters[name]
            self._optimizer.state[parameter][what] = tensor.to(parameter.device)


def make_optimizer(model: DualPathModel, recipe: TrainingRecipe) -> torch.optim.AdamW:
    """AdamW (arXiv 1711.05101) in one fused kernel, with decay on matrices only."""
    return torch.optim.AdamW(
        [
            {"params": model.matrix_parameters(), "weight_decay": recipe.weight_decay},
            {"params": model.other_parameters(), "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        betas=(recipe.beta1, recipe.beta2),
        eps=recipe.adam_epsilon,
        fused=True,
    )
