"""The published equations written out once more, slowly: what the model must compute.

Shares no code with `spaces.model`, only its weights: rotary positions by complex numbers, attention
by an explicit mask, the mixture over loops as a sum of products.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spaces.architecture import Architecture

Weights = dict[str, Tensor]


def root_mean_square_norm(x: Tensor, weight: Tensor | float, epsilon: float) -> Tensor:
    """x over its root mean square."""
    return x / (x.square().mean(-1, keepdim=True) + epsilon).sqrt() * weight


def rotate(x_THC: Tensor, base: float) -> Tensor:
    """Channel c and c + C / 2 as one complex number, turned by position * base^(-2c/C)."""
    num_tokens, _, channels = x_THC.shape
    half = channels // 2
    exponents = torch.tensor([-2 * c / channels for c in range(half)], dtype=torch.float64)
    angles = torch.arange(num_tokens).double()[:, None] * base**exponents
    turned = torch.complex(x_THC[..., :half], x_THC[..., half:]) * torch.exp(1j * angles)[:, None]
    return torch.cat((turned.real, turned.imag), -1)


def attention(a: Architecture, weights: Weights, prefix: str, x_TD: Tensor) -> Tensor:
    """Causal attention of one sequence."""
    num_tokens = len(x_TD)
    q, k, v = (x_TD @ weights[f"{prefix}.qkv.weight"].T).chunk(3, -1)
    q, k, v = (y.reshape(num_tokens, -1, a.head_dim) for y in (q, k, v))
    q, k = rotate(q, a.rope_base), rotate(k, a.rope_base)
    if a.qk_norm != "none":
        q = root_mean_square_norm(q, 1.0, a.norm_epsilon)
        k = root_mean_square_norm(k, 1.0, a.norm_epsilon)
    scores = torch.einsum("qhc,khc->hqk", q, k) / math.sqrt(a.head_dim)
    future = torch.arange(num_tokens)[None] > torch.arange(num_tokens)[:, None]
    shares = scores.masked_fill(future, -math.inf).softmax(-1)
    mixed = torch.einsum("hqk,khc->qhc", shares, v).reshape(num_tokens, -1)
    return mixed @ weights[f"{prefix}.output.weight"].T


def block(a: Architecture, weights: Weights, prefix: str, x_TD: Tensor, scale: float) -> Tensor:
    """h + s Attention(norm(h)), then h + s SwiGLU(norm(h))."""
    if f"{prefix}.attention_norm.weight" in weights:
        normed = root_mean_square_norm(
            x_TD, weights[f"{prefix}.attention_norm.weight"], a.norm_epsilon
        )
        x_TD = x_TD + scale * attention(a, weights, f"{prefix}.attention", normed)
    normed = root_mean_square_norm(x_TD, weights[f"{prefix}.ffn_norm.weight"], a.norm_epsilon)
    gate, up = (normed @ weights[f"{prefix}.ffn.gate_up.weight"].T).chunk(2, -1)
    hidden = gate * torch.sigmoid(gate) * up
    return x_TD + scale * hidden @ weights[f"{prefix}.ffn.output.weight"].T


def softplus(x: Tensor) -> float:
    """log(1 + exp(x)) of one number."""
    return math.log1p(math.exp(float(x)))


def has_router(a: Architecture) -> bool:
    """Whether per-token routers mix the loops."""
    return a.arm in ("dual", "loop") and a.loop_output == "mixture"


def deep_path(a: Architecture, weights: Weights, prefix: str, x_TD: Tensor) -> Tensor:
    """The K loops and their mixture."""
    states, probabilities = [], []
    for loop in range(a.num_loops):
        scales = weights.get(f"{prefix}.step_scales")
        scale = 1.0 if scales is None else softplus(scales[loop])
        x_TD = block(a, weights, f"{prefix}.block", x_TD, scale)
        states.append(x_TD)
        if has_router(a):
            row = weights[f"{prefix}.router.weight"][0]
            position = loop / max(1, a.num_loops - 1)
            logit = x_TD @ row[:-1] + row[-1] * position + weights[f"{prefix}.router.bias"]
            probabilities.append(torch.sigmoid(logit)[:, None])
    if has_router(a):
        output = torch.zeros_like(x_TD)
        for t, state in enumerate(states):
            not_before = math.prod((1 - p for p in probabilities[:t]), start=torch.ones(1))
            output = output + probabilities[t] * not_before * state
        return output + math.prod((1 - p for p in probabilities), start=torch.ones(1)) * states[-1]
    return sum(states, torch.zeros_like(x_TD)) / len(states) if a.loop_output == "average" else x_TD


def layer(a: Architecture, weights: Weights, prefix: str, x_TD: Tensor) -> Tensor:
    """One layer of any arm."""
    outputs = []
    if a.arm != "wide":
        outputs.append(deep_path(a, weights, f"{prefix}.deep", x_TD))
    if a.arm in ("dual", "wide"):
        scale = softplus(weights[f"{prefix}.wide.step_scale"])
        outputs.append(block(a, weights, f"{prefix}.wide.block", x_TD, scale))
    if a.arm != "dual":
        return outputs[0]
    if a.gate_mode == "fixed":
        return outputs[0] / 2 + outputs[1] / 2
    row, bias = weights[f"{prefix}.gate.linear.weight"], weights[f"{prefix}.gate.linear.bias"]
    logits = x_TD @ row.T + bias
    deep = torch.sigmoid(logits[:, :1])
    wide = 1 - deep if a.gate_mode == "convex" else torch.sigmoid(logits[:, 1:])
    if a.gate_mode == "softmax":
        deep = torch.sigmoid(logits[:, :1] - logits[:, 1:])
        wide = 1 - deep
    return deep * outputs[0] + wide * outputs[1]


def reference_logits(a: Architecture, weights: Weights, tokens_T: Tensor) -> Tensor:
    """Logits of one sequence, in float64."""
    weights = {name: weight.double() for name, weight in weights.items()}
    x_TD = weights["embedding.weight"][tokens_T]
    for index in range(a.num_layers):
        x_TD = layer(a, weights, f"layers.{index}", x_TD)
    x_TD = root_mean_square_norm(x_TD, weights["final_norm.weight"], a.norm_epsilon)
    return x_TD @ weights["head.weight"].T
