"""What is compiled? Pieces of a layer, never a whole model, nor a feed-forward's products.

A piece is compiled once per width and lasts as long as the worker: depth, K, batch and the size of
a feed-forward are not part of what was compiled. Nothing here runs on a CPU.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from spaces.layers import Attention, Block, DeepPath, Layer, Rotation, SwiGLU
from spaces.model import DualPathModel

SUBLAYERS = ((Block, "attend"), (Block, "add_ffn"), (DeepPath, "mix"), (Layer, "combine"))
"""Methods that are compiled as they are."""

REPLACED = ("attend", "add_ffn", "mix", "combine", "look_up", "forward", "activate", "position")
"""Every method that a module may have in another form here."""

VARIANTS = 1_024
"""Compiled forms of one piece (widths, arms, dtypes) before PyTorch gives up compiling it."""


def compile_sublayers(model: DualPathModel, *, backend: Any = "inductor") -> None:
    """Let the model's layers run compiled; the first call of each piece at a new width compiles."""
    for module in model.modules():
        for kind, name in SUBLAYERS:
            if isinstance(module, kind):
                method = types.MethodType(compiled(getattr(kind, name), backend), module)
                setattr(module, name, method)
    for piece, name in ((model.embedding, "look_up"), (model.final_norm, "forward")):
        function = compiled(getattr(type(piece), name), backend)
        setattr(piece, name, types.MethodType(function, piece))


def use_kernels(model: DualPathModel) -> None:
    """Let the model's positions and feed-forwards run in kernels of their own."""
    from runners.kernels import swiglu_product

    for module in model.modules():
        if isinstance(module, SwiGLU):
            setattr(module, "activate", swiglu_product)  # noqa: B010
        if isinstance(module, Attention) and has_kernel(module.head_dim):
            setattr(module, "position", partial(_position, module))  # noqa: B010


def has_kernel(head_dim: int) -> bool:
    """Whether the rotation's kernel takes such heads: half of one must be a power of two."""
    half = head_dim // 2
    return half & (half - 1) == 0


def release(model: DualPathModel) -> None:
    """Undo both: a module that holds a method bound to itself would outlive its last user."""
    for module in model.modules():
        for name in REPLACED:
            module.__dict__.pop(name, None)


def _position(
    attention: Attention, qkv_BTE: Tensor, rotation: Rotation
) -> tuple[Tensor, Tensor, Tensor]:
    """`Attention.position` in one kernel: without weights the norm commutes with the rotation."""
    epsilon = 0.0 if attention.qk_norm == "none" else attention.norm_epsilon
    results: tuple[Tensor, Tensor, Tensor] = torch.ops.isoflop.position(
        qkv_BTE, rotation.cos_TC, rotation.sin_TC, attention.head_dim, epsilon
    )
    return results


@cache
def compiled(function: Callable[..., Any], backend: Any = "inductor") -> Callable[..., Any]:
    """The function compiled, for any size of its tensor arguments' first dimension."""
    _configure()
    optimized = torch.compile(function, fullgraph=True, backend=backend)

    def call(*arguments: Any) -> Any:
        for argument in arguments:
            if isinstance(argument, Tensor) and argument.ndim > 1:
                torch._dynamo.maybe_mark_dynamic(argument, 0)
        return optimized(*arguments)

    return call


def num_compiled() -> int:
    """Pieces that this process has compiled so far, by PyTorch's own count."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


@cache
def _configure() -> None:
    """Sizes are dynamic where this module says so, and two equal ones are not taken for one."""
    torch._dynamo.config.automatic_dynamic_shapes = False
    torch._dynamo.config.recompile_limit = VARIANTS
    torch._dynamo.config.accumulated_recompile_limit = VARIANTS
    torch.fx.experimental._config.use_duck_shape = False
