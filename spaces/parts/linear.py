"""How does a state change its width? By linear maps."""

from __future__ import annotations

from torch import nn

from spaces.parts.weights import Weight, matrix


class Projection(nn.Linear):
    """A linear map that says what its weights are; whoever builds a model draws them."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        weight: Weight | None = None,
        bias: Weight | None = None,
    ) -> None:
        """``weight`` left out: a drawn, decayed matrix; ``bias`` left out: none."""
        super().__init__(inputs, outputs, bias=bias is not None)
        self.weights = {"weight": matrix() if weight is None else weight}
        if bias is not None:
            self.weights["bias"] = bias

    def reset_parameters(self) -> None:
        """Leave the memory as it is."""
