"""Which weights does a step compute with? The model's own in float32, or a bfloat16 copy of them.

In ``bfloat16`` every weight that is declared so (of attention, SwiGLU, experts, head, gates and
routers) is rounded once per step, so that the products and the state between them run in bfloat16.
The model's own weights, the embedding, the norms, the step scales and the optimizer stay float32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from search.record.trial import Precision
from spaces.model import LanguageModel


class WorkingModel:
    """A model to compute with, and the way of its gradients back to the weights that are trained.

    ``model`` is the trained model itself in float32, else a second one that shares with it all but
    the rounded weights.
    """

    def __init__(self, trained: LanguageModel, precision: Precision) -> None:
        self.model = trained if precision == "float32" else _rounded_copy(trained)
        pairs = [
            (own, copy)
            for own, copy in zip(trained.parameters(), self.model.parameters(), strict=True)
            if own is not copy
        ]
        self._own: list[Tensor] = [own for own, _ in pairs]
        self._copies: list[Tensor] = [copy for _, copy in pairs]

    @torch.no_grad()
    def refresh(self) -> None:
        """Round the trained weights anew."""
        if self._copies:
            torch._foreach_copy_(self._copies, self._own)

    @torch.no_grad()
    def collect_gradients(self) -> None:
        """Add the copies' gradients to those of the trained weights, in float32."""
        if not self._copies:
            return
        gradients = [_taken_gradient(copy) for copy in self._copies]
        wide = [torch.empty_like(own) for own in self._own]
        torch._foreach_copy_(wide, gradients)
        if self._own[0].grad is None:
            for own, gradient in zip(self._own, wide, strict=True):
                own.grad = gradient
        else:
            sums = [own.grad for own in self._own if own.grad is not None]
            torch._foreach_add_(sums, wide)


def _taken_gradient(parameter: Tensor) -> Tensor:
    gradient = parameter.grad
    assert gradient is not None, "every rounded weight takes part in every step"
    parameter.grad = None
    return gradient


def _rounded_copy(trained: LanguageModel) -> LanguageModel:
    with torch.device("meta"):
        copy = LanguageModel(trained.architecture)
    weights: dict[str, Tensor] = {
        each.name: (
            nn.Parameter(each.parameter.detach().bfloat16())
            if each.weight.is_rounded
            else each.parameter
        )
        for each in trained.declared()
    }
    state = {name: value for name, value in trained.state_dict().items() if name not in weights}
    copy.load_state_dict(weights | state, assign=True)
    for name, buffer in trained.named_buffers():
        place, _, leaf = name.rpartition(".")
        setattr(copy.get_submodule(place), leaf, buffer)
    return copy
