"""Is the closed form right about this very model? Two independent counters must agree, exactly.

fvcore counts the operators of a trace, PyTorch's ``FlopCounterMode`` those that are dispatched;
both run the real model on the ``meta`` device, where no weight takes memory. This is the only
module that knows fvcore. Its import needs ``torch.jit.script``, which newer PyTorch deprecates.

Every operator must be on a list: counted, or free by name. fvcore itself would give attention zero
and only log what it does not know; PyTorch's counter gives whatever it does not know zero.
"""

from __future__ import annotations

import math
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from spaces.architecture import Architecture
from spaces.flops import (
    CONVENTIONS,
    Convention,
    FlopsByConvention,
    deep_share,
    forward_flops_per_token,
    layer_flops_per_token,
    train_flops_per_token,
)
from spaces.model import DualPathModel
from spaces.parameters import ParameterCounts, count_parameters

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from fvcore.nn import FlopCountAnalysis
    from fvcore.nn.jit_handles import get_shape, linear_flop_jit

FLOPS_PER_MULTIPLY_ADD = 2
"""fvcore counts multiply-adds."""

ATTENTION = "scaled_dot_product_attention"

TRACED_FREE = (
    # element-wise
    *("add", "sub", "rsub", "mul", "silu", "sigmoid", "softplus", "softmax", "where"),
    # norms and means
    *("rms_norm", "mean"),
    # look-ups and constants
    *("embedding", "zeros_like", "ones_like"),
)
"""Operators of a trace that count zero, besides fvcore's own list of shapes, integers and copies.

Matrix products are ``linear`` alone: fvcore undercounts a broadcast ``matmul``, gives ``baddbmm``
zero and rounds ``einsum``, so these stay unknown here.
"""

DISPATCHED_PRODUCTS = ("mm", "addmm")
"""Dispatched operators of projections, gates, routers and head."""

DISPATCHED_ATTENTION = (
    "bmm",  # on meta attention is taken apart into two batched products
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
)
"""Dispatched operators of attention's scores and their use."""

DISPATCHED_FREE = (
    # element-wise
    *("add", "add_", "sub", "rsub", "mul", "silu", "sigmoid", "softplus", "pow", "rsqrt"),
    *("where", "_softmax", "_safe_softmax"),
    # norms and means
    *("mean", "_fused_rms_norm"),
    # look-ups, shapes and constants
    *("embedding", "cat", "split", "split_with_sizes", "stack", "unbind", "permute", "transpose"),
    *(
        "t",
        "view",
        "_unsafe_view",
        "expand",
        "select",
        "slice",
        "unsqueeze",
        "clone",
        "_to_copy",
        "alias",
    ),
    *("ones", "ones_like", "zeros_like", "full_like", "tril", "scalar_tensor", "detach"),
)
"""Dispatched operators that count zero by the same definition; PyTorch's versions differ in which
of them a model meets."""


class UnknownOperatorError(RuntimeError):
    """A model ran an operator that is neither counted nor known to be free."""


class CounterDisagreementError(RuntimeError):
    """The counters of one architecture differ."""


@dataclass(frozen=True, kw_only=True)
class CounterResults:
    """Forward FLOPs per token by each way of counting."""

    fvcore: FlopsByConvention
    """fvcore's trace, with a handler for attention."""
    closed_form: FlopsByConvention
    """The formula that planning uses."""
    meta: FlopsByConvention
    """PyTorch's own counter on the meta device."""

    @property
    def agree(self) -> bool:
        """Whether the three are equal as integers in every convention."""
        return self.fvcore == self.closed_form == self.meta


@dataclass(frozen=True, kw_only=True)
class FlopCertificate:
    """What an architecture costs, and that three ways of counting agree on it."""

    architecture: Architecture
    """What was certified, on one sequence of its context length."""
    parameters: ParameterCounts
    """Parameters by part; equal to those of the model that was built."""
    forward_flops_per_token: FlopsByConvention
    """The whole model."""
    layer_flops_per_token: FlopsByConvention
    """One layer with its gates and routers, without the head."""
    train_flops_per_token: FlopsByConvention
    """Three forward passes."""
    alpha: dict[Convention, float]
    """Deep path's share of a layer's path FLOPs, by convention."""
    counters: CounterResults
    """Forward FLOPs per token as counted."""
    wall_seconds: float
    """Time that certifying took."""

    @property
    def agree(self) -> bool:
        """Whether the counters agree; `certify` raises where they do not."""
        return self.counters.agree


def certify(architecture: Architecture) -> FlopCertificate:
    """Count one sequence of an architecture in three ways and its parameters in two, on ``meta``.

    Takes seconds for billions of parameters, and no memory for them. Raises
    `UnknownOperatorError` for an operator on no list and `CounterDisagreementError` where two
    numbers that must be equal are not.
    """
    started = time.perf_counter()
    with torch.device("meta"):
        model = DualPathModel(architecture).eval()
        tokens_BT = torch.empty(1, architecture.context_length, dtype=torch.long)
    parameters = count_parameters(architecture)
    if parameters != built_parameters(model):
        raise CounterDisagreementError(
            f"the closed form must count the model's parameters, but gives {parameters} "
            f"and the model has {built_parameters(model)} ({architecture}); correct spaces/"
            f"parameters.py"
        )
    counters = CounterResults(
        fvcore=per_token(count_with_fvcore(model, tokens_BT), architecture),
        closed_form=forward_flops_per_token(architecture),
        meta=per_token(count_with_pytorch(model, tokens_BT), architecture),
    )
    if not counters.agree:
        raise CounterDisagreementError(
            f"the three counters must be equal, got {counters} ({architecture}); "
            f"correct spaces/flops.py"
        )
    return FlopCertificate(
        architecture=architecture,
        parameters=parameters,
        forward_flops_per_token=counters.closed_form,
        layer_flops_per_token=layer_flops_per_token(architecture),
        train_flops_per_token=train_flops_per_token(architecture),
        alpha={name: deep_share(architecture, name) for name in CONVENTIONS},
        counters=counters,
        wall_seconds=time.perf_counter() - started,
    )


def built_parameters(model: DualPathModel) -> ParameterCounts:
    """The parameters that a model really has, by part."""
    counts: Counter[str] = Counter()
    for part, _, parameter in model.named_parameters_by_part():
        counts[part] += parameter.numel()
    parts = {part: counts[part] for part in ("embedding", "head", "deep", "wide", "shared")}
    return ParameterCounts(total=sum(p.numel() for p in model.parameters()), **parts)


@dataclass(frozen=True, kw_only=True)
class SequenceFlops:
    """Counted FLOPs of one sequence."""

    matrix_products: int
    """Projections, gates, routers and head."""
    attention: int
    """Attention scores and their use, over the whole square."""


def per_token(counted: SequenceFlops, architecture: Architecture) -> FlopsByConvention:
    """A sequence's count per token in each convention; raises where tokens share a FLOP."""
    tokens = architecture.context_length
    projection = exact_quotient(counted.matrix_products, tokens)
    scores = exact_quotient(counted.attention, tokens)
    return FlopsByConvention(
        full=projection + scores,
        causal=projection + exact_quotient(scores, 2),
        projection=projection,
    )


def exact_quotient(dividend: int, divisor: int) -> int:
    """The quotient of a division without remainder; raises `CounterDisagreementError` else."""
    quotient, remainder = divmod(dividend, divisor)
    if remainder:
        raise CounterDisagreementError(f"{divisor} must divide a count, got {dividend}")
    return quotient


def count_with_fvcore(model: nn.Module, tokens_BT: Tensor) -> SequenceFlops:
    """Count one forward pass by fvcore's trace. Raises `UnknownOperatorError`."""
    analysis = FlopCountAnalysis(model, (tokens_BT,)).clear_op_handles()
    analysis.set_op_handle("aten::linear", linear_flop_jit)
    analysis.set_op_handle(f"aten::{ATTENTION}", attention_multiply_adds)
    for name in TRACED_FREE:
        analysis.set_op_handle(f"aten::{name}", None)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.tracer_warnings("none")
    multiply_adds: Mapping[str, int] = analysis.by_operator()
    raise_unknown("fvcore's trace", analysis.unsupported_ops())
    return SequenceFlops(
        matrix_products=FLOPS_PER_MULTIPLY_ADD * int(multiply_adds["linear"]),
        attention=FLOPS_PER_MULTIPLY_ADD * int(multiply_adds[ATTENTION]),
    )


def attention_multiply_adds(inputs: list[Any], outputs: list[Any]) -> int:
    """Scores and their use: two products of T x T x C for every sequence and head."""
    *batch, num_queries, channels = get_shape(inputs[0])
    num_keys, value_channels = get_shape(inputs[2])[-2:]
    return int(math.prod(batch) * num_queries * num_keys * (channels + value_channels))


class OperatorRecorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the name of every operator that is dispatched."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Note the operator, then run it."""
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def count_with_pytorch(model: nn.Module, tokens_BT: Tensor) -> SequenceFlops:
    """Count one forward pass by ``FlopCounterMode``. Raises `UnknownOperatorError`."""
    recorder, counter = OperatorRecorder(), FlopCounterMode(display=False)
    with torch.no_grad(), counter, recorder:
        model(tokens_BT)
    counted = (*DISPATCHED_PRODUCTS, *DISPATCHED_ATTENTION)
    raise_unknown("PyTorch's dispatch", recorder.names - {*counted, *DISPATCHED_FREE})
    flops = {
        operator.__name__: count for operator, count in counter.get_flop_counts()["Global"].items()
    }
    raise_unknown("PyTorch's FLOP counter", flops.keys() - set(counted))
    return SequenceFlops(
        matrix_products=sum(flops.get(name, 0) for name in DISPATCHED_PRODUCTS),
        attention=sum(flops.get(name, 0) for name in DISPATCHED_ATTENTION),
    )


def raise_unknown(counter: str, names: Iterable[str]) -> None:
    """Raise `UnknownOperatorError` where there are names."""
    unknown = sorted(names)
    if unknown:
        raise UnknownOperatorError(
            f"every operator must be counted or free by name, but {counter} met "
            f"{', '.join(unknown)}; put each on a list of spaces/certificate.py"
        )
