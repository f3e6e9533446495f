"""The engine's peer: the training loop of any script, eager or with the whole model compiled."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from runners.engine.batches import TrainingOrder, device_streams, evaluation_windows, gather
from runners.engine.rounded_weights import WorkingModel
from runners.engine.schedule import learning_rate_at
from runners.text.corpus import Corpus
from search.record.trial import TrainingRecipe, TrialConfig
from spaces.architecture import Architecture
from spaces.model import LanguageModel


class PlainStep:
    """The step of any script, eager or with the whole model compiled."""

    def __init__(
        self,
        architecture: Architecture,
        recipe: TrainingRecipe,
        device: torch.device,
        *,
        compiled: bool,
        autocast: bool = False,
    ) -> None:
        self._autocast = autocast and recipe.precision == "bfloat16"
        self.model = LanguageModel(architecture).to(device)
        precision = "float32" if self._autocast else recipe.precision
        self.working = WorkingModel(self.model, precision)
        self._loss = self._forward
        if compiled:
            torch.compiler.reset()  # the ninth model would hit a limit and silently run eagerly
            self._loss = torch.compile(self._forward, dynamic=False)
        decayed = [each.parameter for each in self.model.declared() if each.weight.decays]
        others = [each.parameter for each in self.model.declared() if not each.weight.decays]
        groups = [
            {"params": decayed, "weight_decay": recipe.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=True)

    def _forward(self, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        with torch.autocast(inputs_BT.device.type, torch.bfloat16, enabled=self._autocast):
            logits = self.working.model(inputs_BT).flatten(0, 1).float()
        return F.cross_entropy(logits, targets_BT.flatten())

    def __call__(
        self, inputs_BT: Tensor, targets_BT: Tensor, *, learning_rate: float = 1e-3
    ) -> Tensor:
        """Do one step; returns the loss before it."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.zero_grad()
        self.working.refresh()
        loss = self._loss(inputs_BT, targets_BT)
        torch.autograd.backward(loss)
        self.working.collect_gradients()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._optimizer.step()
        return loss.detach()


def train_plainly(config: TrialConfig, corpus: Corpus, device: str, *, compiled: bool) -> float:
    """A trial as a script would run it; returns its validation loss."""
    a, recipe = config.architecture, config.training
    place = torch.device(device)
    streams = device_streams(corpus, device)
    order = TrainingOrder(
        num_tokens=corpus.num_train_tokens,
        context_length=a.context_length,
        data_seed=config.data_seed,
    )
    plain = PlainStep(a, recipe, place, compiled=compiled)
    for step in range(config.num_steps):
        windows = order.step_windows(step, recipe.batch_sequences, limit=config.num_sequences)
        inputs, targets = gather(streams.train, windows, context_length=a.context_length)
        rate = learning_rate_at(step, recipe, num_steps=config.num_steps)
        plain(inputs, targets, learning_rate=rate)
    windows = evaluation_windows(
        corpus.num_val_tokens, context_length=a.context_length, eval_sequences=config.eval_sequences
    )
    nats = 0.0
    with torch.no_grad():
        plain.working.refresh()
        for start in range(0, len(windows), 32):
            inputs, targets = gather(
                streams.validation, windows[start : start + 32], context_length=a.context_length
            )
            logits = plain.working.model(inputs).flatten(0, 1).float()
            nats += F.cross_entropy(logits, targets.flatten(), reduction="sum").item()
    return nats / (len(windows) * a.context_length)
