"""Is a price right about this very model? Two independent counters must agree with it, exactly.

fvcore counts the operators of a trace, PyTorch's ``FlopCounterMode`` those that are dispatched;
both run the arm's whole objective, every head included, on the ``meta`` device, where no weight
takes memory, over one whole sequence. This is the only module that knows fvcore. Its import needs
``torch.jit.script``, which newer PyTorch deprecates.

Every operator must be on a list: counted, or free by name. fvcore itself would give attention zero
and only log what it does not know; PyTorch's counter gives whatever it does not know zero. Which
products are attention scores is told by the module that runs them (``computes_scores``).
"""

from __future__ import annotations

import math
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from spaces.architecture import Architecture
from spaces.arms.contract import Batch
from spaces.errors import RequestError
from spaces.flops import (
    CONVENTIONS,
    Convention,
    FlopsByConvention,
    by_convention,
    deep_share,
    forward_flops_per_sequence,
    forward_flops_per_token,
    layer_flops_per_token,
    train_flops_per_token,
)
from spaces.model import LanguageModel
from spaces.parameters import ParameterCounts, count_active_parameters, count_parameters
from spaces.parts.expert_products import EXPERT_PRODUCTS, expert_product_flops
from spaces.price import PARTS, Pass
from spaces.shown import Block, Shown, Table

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from fvcore.nn import FlopCountAnalysis
    from fvcore.nn.jit_handles import get_shape, linear_flop_jit

FLOPS_PER_MULTIPLY_ADD = 2
"""fvcore counts multiply-adds."""

ATTENTION = "scaled_dot_product_attention"

TRACED_FREE = (
    # element-wise
    *("add", "sub", "rsub", "mul", "div", "silu", "sigmoid", "softplus", "softmax", "where"),
    *("pow", "exp", "log", "tanh", "relu", "gelu", "maximum", "minimum", "neg", "square", "sqrt"),
    *("log_softmax", "logsumexp"),
    # norms, means and sums
    *("rms_norm", "layer_norm", "mean", "sum", "cumsum"),
    # look-ups, choices and constants
    *("embedding", "zeros_like", "ones_like", "zeros", "ones", "arange", "full_like"),
    *("topk", "sort", "argsort", "gather", "index", "index_select", "index_add", "scatter_add"),
    *("one_hot", "bincount", "searchsorted", "repeat_interleave"),
)
"""Operators of a trace that count zero, besides fvcore's own list of shapes, integers and copies.

fvcore gives ``baddbmm`` zero and rounds ``einsum``, so these stay unknown here.
"""

DISPATCHED_COUNTED = (
    "mm",
    "addmm",
    "bmm",  # on meta attention is taken apart into two batched products
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    *EXPERT_PRODUCTS,
)
"""Dispatched operators that cost FLOPs."""

DISPATCHED_FREE = (
    # element-wise
    *("add", "add_", "sub", "rsub", "mul", "div", "silu", "sigmoid", "softplus", "pow", "rsqrt"),
    *("where", "_softmax", "_safe_softmax", "_log_softmax", "logsumexp"),
    *("exp", "log", "tanh", "relu", "gelu", "maximum", "minimum", "neg", "sqrt"),
    # norms, means and sums
    *("mean", "_fused_rms_norm", "native_layer_norm", "sum", "cumsum"),
    # choices
    *("topk", "sort", "gather", "index", "index_select", "index_add", "scatter_add", "one_hot"),
    *("bincount", "searchsorted", "arange", "zeros", "full", "eq", "scatter", "squeeze"),
    *("floor_divide", "zeros", "scatter_"),
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


class UnknownOperatorError(RequestError):
    """A model ran an operator that is neither counted nor known to be free."""


class CounterDisagreementError(RequestError):
    """The counters of one architecture differ."""


@dataclass(frozen=True, kw_only=True)
class CounterResults:
    """Forward FLOPs of one sequence by each way of counting."""

    fvcore: FlopsByConvention
    """fvcore's trace, with a handler for attention."""
    closed_form: FlopsByConvention
    """The arm's price, which planning uses."""
    meta: FlopsByConvention
    """PyTorch's own counter on the meta device."""

    @property
    def agree(self) -> bool:
        """Whether the three are equal as integers in every convention."""
        return self.fvcore == self.closed_form == self.meta


@dataclass(frozen=True, kw_only=True)
class FlopCertificate(Shown):
    """What an architecture costs, and that three ways of counting agree on it."""

    architecture: Architecture
    """What was certified, on one sequence of its context length."""
    parameters: ParameterCounts
    """Stored parameters by part; equal to those of the model that was built."""
    active_parameters: int
    """Parameters that one token uses."""
    forward_flops_per_token: FlopsByConvention
    """The whole model."""
    layer_flops_per_token: FlopsByConvention
    """One layer with its gates and routers, without the head."""
    train_flops_per_token: FlopsByConvention
    """Forward and backward."""
    alpha: dict[Convention, float]
    """Deep path's share of a layer's path FLOPs, by convention."""
    counters: CounterResults
    """Forward FLOPs of one sequence as counted."""
    wall_seconds: float
    """Time that certifying took."""

    @property
    def agree(self) -> bool:
        """Whether the counters agree; `certify` raises where they do not."""
        return self.counters.agree

    def blocks(self) -> list[Block]:
        """Parameters by part, then FLOPs per token in every convention, by counter and by kind."""
        counted = {f"forward, {name}": each for name, each in self.counted_per_token().items()}
        kinds = {"one layer": self.layer_flops_per_token, "training": self.train_flops_per_token}
        return [
            f"{self.architecture.arm}: the three counters agree"
            if self.agree
            else f"{self.architecture.arm}: the three counters differ",
            Table(
                caption="parameters",
                columns=tuple(self.parameters.as_dict()),
                rows=(tuple(self.parameters.as_dict().values()),),
            ),
            Table(
                caption="FLOPs per token, 2 per multiply-add",
                columns=("of", *CONVENTIONS),
                rows=tuple(
                    (name, *(each.get(convention) for convention in CONVENTIONS))
                    for name, each in {**counted, **kinds}.items()
                ),
            ),
        ]

    def counted_per_token(self) -> dict[str, FlopsByConvention]:
        """Forward FLOPs per token by counter: fvcore, closed_form, meta."""
        tokens = self.architecture.context_length
        return {name: flops.over(tokens) for name, flops in vars(self.counters).items()}


def certify(architecture: Architecture) -> FlopCertificate:
    """Count one sequence of an architecture in three ways and its parameters in two, on ``meta``.

    Takes seconds for billions of parameters, and no memory for them. Raises
    `UnknownOperatorError` for an operator on no list, `CounterDisagreementError` where two numbers
    that must be equal are not, and `RequestError` where an arm of one's own cannot run.
    """
    try:
        return _certificate(architecture)
    except RequestError:
        raise
    except Exception as error:
        if architecture.arm_source is None:
            raise
        raise RequestError(
            f"the {architecture.arm} arm cannot run: {type(error).__name__}: {error} "
            f"({architecture}); correct its body or its objective"
        ) from error


def _certificate(architecture: Architecture) -> FlopCertificate:
    started = time.perf_counter()
    with torch.device("meta"):
        model = LanguageModel(architecture).eval()
        tokens_BT = torch.empty(1, architecture.context_length, dtype=torch.long)
    parameters, built = count_parameters(architecture), built_parameters(model)
    if parameters != built:
        raise CounterDisagreementError(
            f"the {architecture.arm} arm's price must count the model's parameters, but says "
            f"{parameters} and the model has {built} ({architecture}); correct the price of its "
            f"parts"
        )
    counted = Objective(model)
    counters = CounterResults(
        fvcore=by_convention(count_with_fvcore(counted, tokens_BT)),
        closed_form=forward_flops_per_sequence(architecture),
        meta=by_convention(count_with_pytorch(counted, tokens_BT)),
    )
    if not counters.agree:
        raise CounterDisagreementError(_disagreement(architecture, counters))
    return FlopCertificate(
        architecture=architecture,
        parameters=parameters,
        active_parameters=count_active_parameters(architecture),
        forward_flops_per_token=forward_flops_per_token(architecture),
        layer_flops_per_token=layer_flops_per_token(architecture),
        train_flops_per_token=train_flops_per_token(architecture),
        alpha={name: deep_share(architecture, name) for name in CONVENTIONS},
        counters=counters,
        wall_seconds=time.perf_counter() - started,
    )


def _disagreement(architecture: Architecture, counters: CounterResults) -> str:
    """Who says what, and who is to be corrected."""
    said = {
        "fvcore": counters.fvcore,
        "PyTorch": counters.meta,
        f"the {architecture.arm} arm's price": counters.closed_form,
    }
    words = "; ".join(f"{name} {flops.as_dict()}" for name, flops in said.items())
    if counters.fvcore == counters.meta:
        remedy = "the price is wrong: correct the arm's body_price"
    else:
        remedy = "two counters differ about the model itself: look at its operators"
    return (
        f"the three counters must be equal, but of a forward pass over one sequence they say: "
        f"{words}; {remedy} ({architecture})"
    )


def built_parameters(model: LanguageModel) -> ParameterCounts:
    """The parameters that a model really has, by part."""
    counts: Counter[str] = Counter()
    for each in model.declared():
        counts[each.part] += each.parameter.numel()
    parts = {part: counts[part] for part in PARTS}
    return ParameterCounts(total=sum(p.numel() for p in model.parameters()), **parts)


class Objective(nn.Module):
    """What a training step evaluates, as a function of tokens: every head's logits, no softmax."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """The arm's objective, with a mean over logits in the place of the cross-entropy."""

        def mean_nats(hidden_BTD: Tensor, _targets_BT: Tensor) -> Tensor:
            logits_BTV: Tensor = self.model.head(hidden_BTD)
            return logits_BTV.mean()

        batch = Batch(inputs_BT=tokens_BT, targets_BT=tokens_BT, mean_nats=mean_nats, charges={})
        return self.model.arm.objective(self.model, batch).loss


def count_with_fvcore(model: nn.Module, tokens_BT: Tensor) -> Pass:
    """Count one forward pass by fvcore's trace. Raises `UnknownOperatorError`."""
    analysis = FlopCountAnalysis(model, (tokens_BT,)).clear_op_handles()
    analysis.set_op_handle("aten::linear", linear_flop_jit)
    analysis.set_op_handle("aten::matmul", matmul_multiply_adds)
    analysis.set_op_handle("aten::bmm", matmul_multiply_adds)
    analysis.set_op_handle(f"aten::{ATTENTION}", attention_multiply_adds)
    for name in EXPERT_PRODUCTS:
        analysis.set_op_handle(f"isoflop::{name}", expert_multiply_adds)
    for name in TRACED_FREE:
        analysis.set_op_handle(f"aten::{name}", None)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.tracer_warnings("none")
    multiply_adds: Mapping[str, int] = analysis.by_module()
    raise_unknown("fvcore's trace", analysis.unsupported_ops())
    counts = {name: FLOPS_PER_MULTIPLY_ADD * int(count) for name, count in multiply_adds.items()}
    return split(counts, model, root="")


def attention_multiply_adds(inputs: list[Any], outputs: list[Any]) -> int:
    """Scores and their use: two products of T x T x C for every sequence and head."""
    *batch, num_queries, channels = get_shape(inputs[0])
    num_keys, value_channels = get_shape(inputs[2])[-2:]
    return int(math.prod(batch) * num_queries * num_keys * (channels + value_channels))


def matmul_multiply_adds(inputs: list[Any], outputs: list[Any]) -> int:
    """A product of matrices, broadcast over what stands before them."""
    return int(math.prod(get_shape(outputs[0])) * get_shape(inputs[0])[-1])


def expert_multiply_adds(inputs: list[Any], outputs: list[Any]) -> int:
    """A product of rows with the matrices of their experts."""
    shapes = [get_shape(each) for each in inputs[:2]]
    return expert_product_flops(*shapes) // FLOPS_PER_MULTIPLY_ADD


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


def count_with_pytorch(model: nn.Module, tokens_BT: Tensor) -> Pass:
    """Count one forward pass by ``FlopCounterMode``. Raises `UnknownOperatorError`."""
    recorder, counter = OperatorRecorder(), FlopCounterMode(display=False)
    with torch.no_grad(), counter, recorder:
        model(tokens_BT)
    raise_unknown("PyTorch's dispatch", recorder.names - {*DISPATCHED_COUNTED, *DISPATCHED_FREE})
    by_module = counter.get_flop_counts()
    counted = {operator.__name__ for operator in by_module["Global"]}
    raise_unknown("PyTorch's FLOP counter", counted - set(DISPATCHED_COUNTED))
    root = type(model).__name__
    counts = {name: sum(operators.values()) for name, operators in by_module.items()}
    return split(counts | {root: counts["Global"]}, model, root=root)


def split(counts: Mapping[str, int], model: nn.Module, *, root: str) -> Pass:
    """A pass from FLOPs by module (each with all inside it): what a module that computes scores
    runs outside the modules inside it is attention scores and their use, all else products."""

    def count(place: str) -> int:
        return counts.get(".".join(filter(None, (root, place))), 0)

    scores = 0
    for place in _places_of_scores(model):
        inside = model.get_submodule(place).named_children()
        scores += count(place) - sum(count(f"{place}.{name}") for name, _ in inside)
    return Pass(products=count("") - scores, scores=scores)


def _places_of_scores(model: nn.Module) -> Iterator[str]:
    for place, module in model.named_modules():
        if getattr(module, "computes_scores", False):
            yield place


def raise_unknown(counter: str, names: Iterable[str]) -> None:
    """Raise `UnknownOperatorError` where there are names."""
    unknown = sorted(names)
    if unknown:
        raise UnknownOperatorError(
            f"every operator must be counted or free by name, but {counter} met "
            f"{', '.join(unknown)}; write it with linear, matmul, bmm or attention, or put it on a "
            f"list of spaces/certificate.py"
        )
