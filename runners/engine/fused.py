"""How does a model run on a GPU? Its pieces between matrix products in kernels of their own.

The model's methods are replaced on its instances, the plain ones in `spaces.parts` stay what a CPU
runs. Nothing here depends on depth, K, width, batch or the size of a feed-forward. Importing this
needs Triton, which is there where torch is built for a GPU.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from runners.engine.kernels.attention import has_kernel, position
from runners.engine.kernels.feed_forward import swiglu_product
from runners.engine.kernels.mixing import end_loop, gated_sum
from runners.engine.kernels.steps import fork_norm, step, step_norm
from runners.engine.kernels.tokens import look_up
from spaces.model import LanguageModel
from spaces.parts.attention import Attention, Rotation
from spaces.parts.block import Block
from spaces.parts.experts import Experts
from spaces.parts.feed_forward import SwiGLU
from spaces.parts.layers import DeepPath, Layer
from spaces.parts.norm import RMSNorm
from spaces.parts.vocabulary import TokenEmbedding

REPLACED = ("attend", "add_ffn", "mix", "combine", "look_up", "forward", "activate", "position")
"""Every method that a module may have in another form here."""


def use_kernels(model: LanguageModel) -> None:
    """Let the model's layers run in kernels of their own."""
    for module in model.modules():
        if isinstance(module, Attention) and has_kernel(module.head_dim):
            _replace(module, position=partial(_position, module))
        elif isinstance(module, SwiGLU | Experts):
            _replace(module, activate=swiglu_product)
        elif isinstance(module, Block):
            _replace(module, attend=partial(_attend, module), add_ffn=step)
        elif isinstance(module, DeepPath):
            _replace(module, mix=partial(_mix, module))
        elif isinstance(module, Layer):
            _replace(module, combine=partial(_combine, module))
        elif isinstance(module, TokenEmbedding):
            _replace(module, look_up=partial(_look_up, module))
    _replace(model.final_norm, forward=partial(_norm, model.final_norm))


def release(model: LanguageModel) -> None:
    """Undo it: a module that holds a method bound to itself would outlive its last user."""
    for module in model.modules():
        for name in REPLACED:
            module.__dict__.pop(name, None)


def _replace(module: torch.nn.Module, **methods: object) -> None:
    for name, method in methods.items():
        setattr(module, name, method)


def _position(
    attention: Attention, qkv_BTE: Tensor, rotation: Rotation
) -> tuple[Tensor, Tensor, Tensor]:
    """`Attention.position`: without weights the norm commutes with the rotation."""
    epsilon = 0.0 if attention.qk_norm == "none" else attention.norm_epsilon
    return position(qkv_BTE, rotation, head_dim=attention.head_dim, epsilon=epsilon)


def _attend(
    block: Block, x_BTD: Tensor, rotation: Rotation, step_scale: Tensor | None
) -> tuple[Tensor, Tensor]:
    """`Block.attend`."""
    last = block.ffn_norm
    if block.attention is None or block.attention_norm is None:
        return fork_norm(x_BTD, last.weight, last.epsilon)
    first = block.attention_norm
    x_BTD, normed_BTD = fork_norm(x_BTD, first.weight, first.epsilon)
    attended_BTD = block.attention(normed_BTD, rotation)
    return step_norm(x_BTD, attended_BTD, step_scale, last.weight, last.epsilon)


def _mix(
    deep: DeepPath,
    x_BTD: Tensor,
    ffn_BTD: Tensor,
    mixed_BTD: Tensor,
    left_BT1: Tensor,
    step_scale: Tensor | None,
    loop_position: Tensor,
    is_last: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`DeepPath.mix`."""
    assert deep.router is not None
    assert step_scale is not None, "where there is a router there are step scales"
    return end_loop(
        x_BTD,
        ffn_BTD,
        mixed_BTD,
        left_BT1,
        scale=step_scale,
        router_weight_1E=deep.router.weight,
        router_bias_1=deep.router.bias,
        position=loop_position,
        is_last=is_last,
    )


def _combine(
    layer: Layer, x_BTD: Tensor, deep_BTD: Tensor, wide_BTD: Tensor, ffn_BTD: Tensor
) -> tuple[Tensor, Tensor]:
    """`Layer.combine`."""
    assert layer.wide is not None
    assert layer.gate is not None
    gates_BT2 = layer.gate(x_BTD)
    return gated_sum(deep_BTD, wide_BTD, ffn_BTD, layer.wide.scale(), gates_BT2), gates_BT2


def _look_up(embedding: TokenEmbedding, tokens_BT: Tensor, dtype: torch.dtype) -> Tensor:
    """`TokenEmbedding.look_up`."""
    return look_up(tokens_BT, embedding.weight, dtype)


def _norm(norm: RMSNorm, x_BTD: Tensor) -> Tensor:
    """`RMSNorm.forward`."""
    return fork_norm(x_BTD, norm.weight, norm.epsilon)[1]
