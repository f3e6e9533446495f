"""What does one architecture cost? ``isoflop flops``: its certificate, counted in three ways."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from experiments.command import default_home, parse_options, print_json, talk
from spaces.architecture import Architecture
from spaces.flops import CONVENTIONS, Convention, FlopsByConvention

if TYPE_CHECKING:
    from spaces.certificate import FlopCertificate


@dataclass(frozen=True, kw_only=True)
class FlopsOptions:
    """The FLOP certificate of one architecture, on the meta device: 7 B parameters in seconds."""

    architecture: tyro.conf.OmitArgPrefixes[Architecture]
    """The architecture to certify."""
    convention: Convention = "full"
    """Convention of the alpha in the JSON document; the readable certificate shows all three."""
    json: bool = False
    """Print one JSON document."""
    home: Path = field(default_factory=default_home)
    """Folder of records; a certificate reads and writes none."""


def run(argv: list[str]) -> int:
    """Print the certificate. Raises where counters disagree or meet an unknown operator."""
    options = parse_options(FlopsOptions, argv, verb="flops")
    from spaces.certificate import certify

    certificate = certify(options.architecture)
    if options.json:
        print_json(certificate_document(certificate, options.convention))
        talk(f"certified in {certificate.wall_seconds:.1f} s")
    else:
        print(certificate_text(certificate))
    return 0


def certificate_document(certificate: FlopCertificate, convention: Convention) -> dict[str, Any]:
    """The JSON contract of ``isoflop flops``; counters are forward FLOPs per token, ``full``."""
    counters = certificate.counters
    return {
        "parameters": certificate.parameters.as_dict(),
        "forward_flops_per_token": certificate.forward_flops_per_token.as_dict(),
        "layer_flops_per_token": certificate.layer_flops_per_token.as_dict(),
        "train_flops_per_token": certificate.train_flops_per_token.as_dict(),
        "alpha": certificate.alpha[convention],
        "counters": {
            "fvcore": counters.fvcore.full,
            "closed_form": counters.closed_form.full,
            "meta": counters.meta.full,
        },
        "agree": certificate.agree,
    }


def certificate_text(certificate: FlopCertificate) -> str:
    """The certificate for a person."""
    counters = certificate.counters
    lines = [
        architecture_text(certificate.architecture),
        "",
        f"{'parameters':<24}{'million':>14}{'exactly':>18}",
    ]
    lines += [
        f"  {name:<22}{count / 1e6:>14,.1f}{count:>18,}"
        for name, count in certificate.parameters.as_dict().items()
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
        flops_row("fvcore", counters.fvcore),
        flops_row("PyTorch on meta", counters.meta),
        flops_row("the closed form", counters.closed_form),
        "",
        f"The three counters agree exactly. Certified in {certificate.wall_seconds:.1f} s.",
        "2 FLOPs per multiply-add; attention scores over the whole square (full), half of it "
        "(causal), none (projection).",
    ]
    return "\n".join(lines)


def architecture_text(architecture: Architecture) -> str:
    """One line on the shape, one on the variants that the arm has."""
    a = architecture
    sizes = [
        f"{name} {size}" for name, size in (("deep", a.deep_ffn), ("wide", a.wide_ffn)) if size
    ]
    variants = [f"query and key norm {a.qk_norm}"]
    if a.has_wide_path:
        variants.append(f"wide attention {'yes' if a.wide_attention else 'no'}")
    if a.arm in ("dual", "loop"):
        variants.append(f"loop output {a.loop_output}")
    if a.arm == "dual":
        variants.append(f"gates {a.gate_mode}")
    return (
        f"{a.arm}: {a.num_layers} layers, K {a.num_loops}, width {a.d_model} "
        f"({a.d_model // a.head_dim} heads of {a.head_dim}), FFN {', '.join(sizes)}, "
        f"context {a.context_length}, vocabulary {a.vocab_size}\n{', '.join(variants)}"
    )


def flops_row(name: str, flops: FlopsByConvention) -> str:
    """One row of millions."""
    return f"  {name:<22}" + "".join(f"{flops[key] / 1e6:>14,.2f}" for key in CONVENTIONS)
