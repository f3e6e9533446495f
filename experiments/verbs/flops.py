"""What does one architecture cost? ``isoflop flops``: its certificate, counted in three ways."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import tyro
from pydantic import ConfigDict, Field, ValidationError

from experiments.arm_options import architecture_options, own_field_names, taken_options
from experiments.command import default_home, parse_options, print_json, talk
from search.asked.bounds import Depth, Epsilon, RotaryBase, Start, Width
from search.asked.experiment import describe_errors
from search.asked.settings import Settings
from spaces.architecture import Architecture
from spaces.arms.contract import find_arm
from spaces.errors import RequestError
from spaces.flops import CONVENTIONS, Convention, FlopsByConvention

if TYPE_CHECKING:
    from spaces.certificate import FlopCertificate


@dataclass(frozen=True, kw_only=True)
class FlopsOptions:
    """The FLOP certificate of one architecture, on the meta device: 7 B parameters in seconds.

    What only one arm has is an option, too: --arm moe --num-experts 8 --top-k 2 --expert-ffn 256.
    """

    architecture: tyro.conf.OmitArgPrefixes[architecture_options()]  # type: ignore[valid-type]
    """The architecture to certify."""
    convention: Convention = "full"
    """Convention of the alpha in the JSON document; the readable certificate shows all three."""
    json: bool = False
    """Print one JSON document."""
    home: Path = field(default_factory=default_home)
    """Folder of records; a certificate reads and writes none."""


class _Bounds(Settings):
    """What the numbers of an architecture can be: within it, a certificate takes minutes at most.

    What else an architecture must be it says itself.
    """

    model_config = ConfigDict(extra="ignore")

    num_layers: Annotated[Depth, Field(le=1_000)] = 1
    num_loops: Annotated[Depth, Field(le=1_000)] = 1
    d_model: Width = 1
    deep_ffn: Width | None = None
    wide_ffn: Width | None = None
    head_dim: Width = 1
    context_length: Width = 1
    vocab_size: Width = 1
    rope_base: RotaryBase = 1
    norm_epsilon: Epsilon = 1
    step_scale_init: Start = 0
    gate_bias_init: Start = 0


def run(argv: list[str]) -> int:
    """Print the certificate. Raises where counters disagree or meet an unknown operator."""
    argv, own = taken_options(argv, own_field_names())
    options = parse_options(FlopsOptions, argv, verb="flops")
    architecture = architecture_of(vars(options.architecture), own)
    require_within_bounds(vars(options.architecture))
    from spaces.certificate import certify

    certificate = certify(architecture)
    if options.json:
        print_json(certificate_document(certificate, options.convention))
        talk(f"certified in {certificate.wall_seconds:.1f} s")
    else:
        print(certificate_text(certificate))
    return 0


def require_within_bounds(flat: dict[str, Any]) -> None:
    """Raise `RequestError` where an architecture is larger than any, or holds what is no number."""
    try:
        _Bounds.model_validate(flat)
    except ValidationError as error:
        raise RequestError(describe_errors(error, where="the command line")) from None


def architecture_of(flat: dict[str, Any], own: dict[str, list[str]]) -> Architecture:
    """The architecture that the options name. Raises `RequestError`."""
    arm = find_arm(flat["arm"])
    if arm.fields is None:
        if own:
            raise RequestError(f"the {arm.name} arm has no {', '.join(own)}")
        return Architecture(**flat)
    kinds = get_type_hints(arm.fields)
    values = {name: typed(name, kinds[name], words) for name, words in own.items() if name in kinds}
    if stray := own.keys() - kinds.keys():
        raise RequestError(f"the {arm.name} arm has no {', '.join(sorted(stray))}")
    return Architecture(**flat, own=values)


def typed(name: str, kind: Any, words: list[str]) -> Any:
    """One value of an option. Raises `RequestError`."""
    try:
        (word,) = words
        return kind(word)
    except (TypeError, ValueError):
        kind_name = getattr(kind, "__name__", str(kind))
        raise RequestError(f"{name} takes one {kind_name}, got {' '.join(words)!r}") from None


def certificate_document(certificate: FlopCertificate, convention: Convention) -> dict[str, Any]:
    """The JSON contract of ``isoflop flops``; counters are forward FLOPs per token, ``full``."""
    counted = certificate.counted_per_token()
    return {
        "parameters": certificate.parameters.as_dict(),
        "forward_flops_per_token": certificate.forward_flops_per_token.as_dict(),
        "layer_flops_per_token": certificate.layer_flops_per_token.as_dict(),
        "train_flops_per_token": certificate.train_flops_per_token.as_dict(),
        "alpha": certificate.alpha[convention],
        "counters": {name: counted[name].full for name in ("fvcore", "closed_form", "meta")},
        "agree": certificate.agree,
        "active_parameters": certificate.active_parameters,
    }


def certificate_text(certificate: FlopCertificate) -> str:
    """The certificate for a person."""
    counted = certificate.counted_per_token()
    lines = [
        architecture_text(certificate.architecture),
        "",
        f"{'parameters':<24}{'million':>14}{'exactly':>18}",
    ]
    lines += [
        f"  {name:<22}{count / 1e6:>14,.1f}{count:>18,}"
        for name, count in [
            *certificate.parameters.as_dict().items(),
            ("active", certificate.active_parameters),
        ]
    ]
    lines += [
        "",
        f"{'MFLOP per token':<24}" + "".join(f"{name:>14}" for name in CONVENTIONS),
        flops_row("one layer, forward", certificate.layer_flops_per_token),
        flops_row("model, forward", certificate.forward_flops_per_token),
        flops_row("model, training", certificate.train_flops_per_token),
        f"  {'alpha':<22}" + "".join(f"{certificate.alpha[name]:>14.4f}" for name in CONVENTIONS),
        "",
        "model, forward, as counted by",
        flops_row("fvcore", counted["fvcore"]),
        flops_row("PyTorch on meta", counted["meta"]),
        flops_row("the arm's price", counted["closed_form"]),
        "",
        f"The three counters agree exactly. Certified in {certificate.wall_seconds:.1f} s.",
        "2 FLOPs per multiply-add; attention scores over the whole square (full), half of it "
        "(causal), none (projection).",
    ]
    return "\n".join(lines)


def architecture_text(architecture: Architecture) -> str:
    """One line on the shape, one on sizes and variants that the arm has."""
    a, arm = architecture, find_arm(architecture.arm)
    sizes = [f"{name} {value:g}" for name, value in arm.numbers(a).items() if value is not None]
    variants = {"query and key norm": a.qk_norm} | arm.variants(a)
    return (
        f"{a.arm}: {a.num_layers} layers, width {a.d_model} "
        f"({a.d_model // a.head_dim} heads of {a.head_dim}), {', '.join(sizes)}, "
        f"context {a.context_length}, vocabulary {a.vocab_size}\n"
        f"{', '.join(f'{name} {value}' for name, value in variants.items())}"
    )


def flops_row(name: str, flops: FlopsByConvention) -> str:
    """One row of millions."""
    return f"  {name:<22}" + "".join(f"{flops[key] / 1e6:>14,.2f}" for key in CONVENTIONS)
