"""Which arm has an equal in transformers? The standard one: Llama, or Qwen3 with normed queries.

Norms of queries and keys without weights keep lengths apart from the rotation, so that before and
after it they are the same function; a trained scale of a residual step is linear, so that the
matrix that ends the step absorbs it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spaces.architecture import Architecture
from spaces.model import LanguageModel
from spaces.parts.feed_forward import SwiGLU
from spaces.parts.layers import DeepPath, Layer, LayerStack

NATIVE_ARM = "standard"
"""The arm whose block is one that transformers has."""


def has_native_form(architecture: Architecture) -> bool:
    """Whether transformers has a class of its own for it."""
    return architecture.arm == NATIVE_ARM


def native_config(architecture: Architecture) -> dict[str, Any]:
    """What names the class and its sizes."""
    a = architecture
    family, kind = ("Llama", "llama") if a.qk_norm == "none" else ("Qwen3", "qwen3")
    return {
        "architectures": [f"{family}ForCausalLM"],
        "model_type": kind,
        "hidden_size": a.d_model,
        "intermediate_size": a.deep_ffn,
        "num_hidden_layers": a.num_layers,
        "num_attention_heads": a.d_model // a.head_dim,
        "num_key_value_heads": a.d_model // a.head_dim,
        "head_dim": a.head_dim,
        "hidden_act": "silu",
        "attention_bias": False,
        "rms_norm_eps": a.norm_epsilon,
        "rope_theta": a.rope_base,
        "rope_parameters": {"rope_type": "default", "rope_theta": a.rope_base},
        "use_cache": True,
    }


def native_weights(model: LanguageModel) -> dict[str, Tensor]:
    """The model's weights under the names of transformers."""
    weights = {
        "model.embed_tokens.weight": model.embedding.weight,
        "model.norm.weight": model.final_norm.weight,
        "lm_head.weight": model.head.weight,
    }
    assert isinstance(model.layers, LayerStack)
    for number, layer in enumerate(model.layers):
        assert isinstance(layer, Layer)
        assert layer.deep is not None
        named = _layer_weights(layer.deep)
        weights |= {f"model.layers.{number}.{name}": value for name, value in named.items()}
    return weights


def _layer_weights(deep: DeepPath) -> dict[str, Tensor]:
    block = deep.block
    assert block.attention is not None
    assert block.attention_norm is not None
    query, key, value = block.attention.qkv.weight.chunk(3)
    assert isinstance(block.ffn, SwiGLU)
    gate, up = block.ffn.gate_up.weight.chunk(2)
    scale = 1.0 if deep.step_scales is None else F.softplus(deep.step_scales[0])
    return {
        "input_layernorm.weight": block.attention_norm.weight,
        "self_attn.q_proj.weight": query,
        "self_attn.k_proj.weight": key,
        "self_attn.v_proj.weight": value,
        "self_attn.o_proj.weight": block.attention.output.weight * scale,
        "post_attention_layernorm.weight": block.ffn_norm.weight,
        "mlp.gate_proj.weight": gate,
        "mlp.up_proj.weight": up,
        "mlp.down_proj.weight": block.ffn.output.weight * scale,
    } | _query_norms(block.attention.qk_norm, block.attention.head_dim)


def _query_norms(qk_norm: str, head_dim: int) -> dict[str, Tensor]:
    if qk_norm == "none":
        return {}
    return {f"self_attn.{name}_norm.weight": torch.ones(head_dim) for name in ("q", "k")}
