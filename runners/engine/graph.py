"""How does a GPU never wait inside a step? The whole step as one CUDA graph, replayed.

The layers' pieces run in kernels of their own (`runners.engine.fused`); forward, backward, clipping
and AdamW are captured at fixed addresses. The engine outlives its trial: another one of the same
shapes gets new weights, moments, learning rate and decay into the same memory and replays at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from runners.engine.step import EagerEngine, NamedTensors
from runners.engine.validation import TOKENS_AT_ONCE, BatchSums
from search.limits.memory import fitting_micro_batch
from search.record.trial import TrainingRecipe
from spaces.architecture import Architecture
from spaces.model import LanguageModel

USABLE_SHARE = 0.9
"""Of a device's free memory, what a step may be predicted to need."""


@dataclass(frozen=True, kw_only=True)
class StepTask:
    """What a step is built for."""

    architecture: Architecture
    """The model's."""
    recipe: TrainingRecipe
    """How it is trained."""
    device: torch.device
    """A GPU."""
    eval_sequences: int = 1
    """Sequences of one measurement, of which an even share is captured."""
    micro_batch_sequences: int | None = None
    """Sequences of one pass; None takes the most that are predicted to fit what is free."""

    def captured(self) -> StepTask:
        """Of this task, what a captured step cannot change: neither schedule nor decay.

        Adam's epsilon is captured; rates and decays of groups are tensors, but their factors are
        not: the parametrisation stays.
        """
        recipe = replace(
            self.recipe,
            learning_rate=0.0,
            weight_decay=0.0,
            schedule="cosine",
            warmup_fraction=0.0,
            warmup_steps=None,
            decay_fraction=0.0,
            final_lr_fraction=0.0,
        )
        return replace(self, recipe=recipe)


class GraphEngine:
    """A step captured once and replayed; a batch of another size runs eagerly.

    Where memory runs out while capturing, whatever was predicted, the micro-batch is halved and the
    capture done again. Raises `OutOfMemoryAtOneSequence` where not even one sequence fits.
    """

    def __init__(self, task: StepTask, *, init_seed: int) -> None:
        from runners.engine.fused import use_kernels  # needs Triton, which no CPU has

        architecture, recipe, device = task.architecture, task.recipe, task.device
        size = task.micro_batch_sequences or fitting_micro_batch(
            architecture,
            sequences=recipe.batch_sequences,
            memory_bytes=USABLE_SHARE * torch.cuda.mem_get_info(device)[0],
        )
        with device:  # made in place: a copy on the host would take longer than all the rest
            model = LanguageModel(
                architecture, seed=init_seed, parametrization=recipe.parametrization
            )
        self._eager = EagerEngine(model, recipe, micro_batch_sequences=size)
        use_kernels(self._eager.working.model)
        shape = (recipe.batch_sequences, architecture.context_length)
        self._inputs = torch.zeros(shape, dtype=torch.int64, device=device)
        self._targets = torch.zeros(shape, dtype=torch.int64, device=device)
        most = min(size, max(1, TOKENS_AT_ONCE["cuda"] // architecture.context_length))
        self.validation_sequences = even_share(task.eval_sequences, most=most)
        self._capture()

    def release(self) -> None:
        """Let memory go with the last reference to this engine."""
        from runners.engine.fused import release

        release(self._eager.working.model)

    def restart(self, recipe: TrainingRecipe, *, init_seed: int) -> None:
        """Start another trial of the same shapes: fresh weights, empty moments, its own decay."""
        self.model.initialize(init_seed, recipe.parametrization)
        self._eager.set_weight_decay(recipe.weight_decay)
        self._forget_moments()

    def _capture(self) -> None:
        """Capture the step and the validation, and leave weights and moments as they were."""
        self._eager.set_learning_rate(0.0)
        while True:
            try:
                self._try_capture()
                break
            except torch.OutOfMemoryError as error:
                reason = str(error).splitlines()[0]
            self._eager.halve(num_sequences=len(self._inputs), reason=reason)
        self._forget_moments()

    def _try_capture(self) -> None:
        torch.cuda.reset_peak_memory_stats()
        side = capture_stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            # makes kernels and moments ready; at rate 0 no weight changes
            self._eager.run(self._inputs, self._targets)
            self._run_validation()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.empty_cache()
        step, validation = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(step, stream=side):
            self._loss = self._eager.run(self._inputs, self._targets)
        with torch.cuda.graph(validation, pool=step.pool(), stream=side):
            self._sums = self._run_validation()
        self._graph, self._validation_graph = step, validation
        self.peak_memory_bytes = torch.cuda.max_memory_allocated()

    def _run_validation(self) -> BatchSums:
        return self._eager.validation_sums(*self._validation_batch())

    def _validation_batch(self) -> tuple[Tensor, Tensor]:
        return self._inputs[: self.validation_sequences], self._targets[: self.validation_sequences]

    def _forget_moments(self) -> None:
        for tensor in self._eager.optimizer_tensors().values():
            tensor.zero_()

    @property
    def model(self) -> LanguageModel:
        """The model, in its present state."""
        return self._eager.model

    @property
    def micro_batch_sequences(self) -> int:
        """Sequences of one forward and backward pass."""
        return self._eager.micro_batch_sequences

    def step(
        self, inputs_BT: Tensor, targets_BT: Tensor, *, learning_rate: float, index: int = 0
    ) -> Tensor:
        """Do one step; returns the mean cross-entropy before it, a scalar on the device."""
        if len(inputs_BT) != len(self._inputs):
            return self._eager.step(inputs_BT, targets_BT, learning_rate=learning_rate)
        self._eager.set_learning_rate(learning_rate)
        self._inputs.copy_(inputs_BT)
        self._targets.copy_(targets_BT)
        self._graph.replay()
        return self._loss.clone()

    def validation_sums(self, inputs_BT: Tensor, targets_BT: Tensor) -> BatchSums:
        """Loss and readouts of validation sequences in the model's present state."""
        if len(inputs_BT) != self.validation_sequences:
            return self._eager.validation_sums(inputs_BT, targets_BT)
        inputs, targets = self._validation_batch()
        inputs.copy_(inputs_BT)
        targets.copy_(targets_BT)
        self._validation_graph.replay()
        return self._sums.clone()

    def optimizer_tensors(self) -> NamedTensors:
        """The optimizer's state; zeros before the first step."""
        return self._eager.optimizer_tensors()

    def load_optimizer_tensors(self, tensors: NamedTensors) -> None:
        """Put back what `optimizer_tensors` gave."""
        self._eager.load_optimizer_tensors(tensors)


class WarmEngine:
    """Keeps the last captured engine for the next trial of the same shapes."""

    def __init__(self) -> None:
        self._captured: StepTask | None = None
        self._engine: GraphEngine | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is kept."""
        return self._engine is None

    def serves(self, task: StepTask) -> bool:
        """Whether the kept engine does that task as it is."""
        return self._engine is not None and task.captured() == self._captured

    def start(self, task: StepTask, *, init_seed: int) -> GraphEngine:
        """An engine at the start of a trial: the kept one, or a new one in its place."""
        if self._engine is not None and self.serves(task):
            self._engine.restart(task.recipe, init_seed=init_seed)
            return self._engine
        self.let_go()
        self._engine = GraphEngine(task, init_seed=init_seed)
        self._captured = task.captured()
        return self._engine

    def let_go(self) -> None:
        """Give the kept engine's memory back."""
        if self._engine is None:
            return
        self._engine.release()
        self._captured = self._engine = None
        torch.cuda.empty_cache()


def capture_stream() -> torch.cuda.Stream:
    """The present stream, where graphs may be captured on it; else the one for all captures."""
    present = torch.cuda.current_stream()
    return _side_stream() if present == torch.cuda.default_stream() else present


@cache
def _side_stream() -> torch.cuda.Stream:
    """One for the whole process: each new one would keep workspaces."""
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]


def even_share(total: int, *, most: int) -> int:
    """The largest divisor of ``total`` up to ``most``; ``most`` where all are less than half."""
    most = min(total, most)
    largest = next(size for size in range(most, 0, -1) if total % size == 0)
    return largest if 2 * largest >= most else most
