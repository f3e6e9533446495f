"""What does an architecture compute? A language model whose body is its arm's.

Embedding, the arm's body, a final norm and an untied head. What a body is made of lies in
`spaces.parts`, which body an arm has in `spaces.arms`.

Shapes in names: B batch, T tokens, D width, C channels, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import torch
from torch import Tensor, nn

from spaces.architecture import Architecture
from spaces.arms.contract import Readings, find_arm
from spaces.errors import RequestError
from spaces.parametrization import STANDARD, ResolvedParametrization
from spaces.parts.attention import Rotation, rotation_tables
from spaces.parts.norm import RMSNorm
from spaces.parts.vocabulary import Head, TokenEmbedding
from spaces.parts.weights import (
    DeclaredParameter,
    Piece,
    declared_parameters,
    require_declared_state,
)

Body: TypeAlias = "Callable[[Tensor, Rotation], tuple[Tensor, Readings]]"
"""What runs between embedding and final norm."""


class LanguageModel(nn.Module):
    """The language model of one architecture.

    On a real device every weight is drawn from ``seed``, as `initialize` says; on ``meta`` nothing
    is. Raises `RequestError` where a parameter of its arm is not declared.
    """

    part = "shared"
    rotation_cos_TC: Tensor
    rotation_sin_TC: Tensor

    def __init__(
        self,
        architecture: Architecture,
        *,
        seed: int = 0,
        parametrization: ResolvedParametrization = STANDARD,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        a, self.arm = architecture, find_arm(architecture.arm)
        self.embedding = TokenEmbedding(a.vocab_size, a.d_model)
        self.layers = self.arm.body(a)
        self.final_norm = RMSNorm(a.d_model, a.norm_epsilon)
        self.head = Head(a.d_model, a.vocab_size)
        for name in ("rotation_cos_TC", "rotation_sin_TC"):
            table = torch.empty(a.context_length, a.head_dim // 2)
            self.register_buffer(name, table, persistent=False)
        list(self.declared())  # or say which parameter is not
        require_declared_state(self)
        if not self.embedding.weight.is_meta:
            self.initialize(seed, parametrization)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits of the next token, B x T x V."""
        logits_BTV: Tensor = self.head(self.hidden(tokens_BT))
        return logits_BTV

    def hidden(self, tokens_BT: Tensor) -> Tensor:
        """The state after the final norm, before the head (B x T x D)."""
        return self.hidden_with_readings(tokens_BT)[0]

    def hidden_with_readings(
        self, tokens_BT: Tensor, *, body: Body | None = None
    ) -> tuple[Tensor, Readings]:
        """The state before the head, and what the body tells of itself.

        ``body`` runs in the place of the arm's.
        """
        rotation = self._rotation(tokens_BT.shape[1])
        x_BTD = self.embedding.look_up(tokens_BT, self.head.weight.dtype)
        x_BTD, readings = (body or self.layers)(x_BTD, rotation)
        return self.final_norm(x_BTD), readings

    def _rotation(self, num_tokens: int) -> Rotation:
        if num_tokens > self.architecture.context_length:
            raise RequestError(
                f"a sequence must fit the context_length, got {num_tokens} tokens and "
                f"{self.architecture.context_length}; cut the sequence or build a longer context"
            )
        return Rotation(self.rotation_cos_TC[:num_tokens], self.rotation_sin_TC[:num_tokens])

    @torch.no_grad()
    def initialize(self, seed: int, parametrization: ResolvedParametrization = STANDARD) -> None:
        """Set every weight and table anew, as each is declared and the parametrisation scales it:
        equal seeds give equal weights on every device."""
        for each in self.declared():
            each.parameter.copy_(each.fresh(seed, parametrization))
        self.set_tables()

    @torch.no_grad()
    def set_tables(self) -> None:
        """Set what is no parameter: rotary tables, and what pieces hold besides their weights."""
        a = self.architecture
        for name, table in rotation_tables(a.context_length, a.head_dim, a.rope_base).items():
            getattr(self, name).copy_(table)
        for module in self.modules():
            if isinstance(module, Piece):
                module.initialize()

    def declared(self) -> Iterator[DeclaredParameter]:
        """Every parameter with what is declared of it."""
        return declared_parameters(self)
