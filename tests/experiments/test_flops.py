"""Does ``isoflop flops`` keep its contract, and does it answer a wrong request with one message?"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from experiments import cli

EXAMPLE = {
    "arm": "dual",
    "num-layers": 16,
    "d-model": 768,
    "head-dim": 64,
    "num-loops": 4,
    "deep-ffn": 1280,
    "wide-ffn": 7680,
    "context-length": 4096,
    "vocab-size": 50304,
}
TINY = EXAMPLE | {"num-layers": 1, "d-model": 64, "context-length": 32, "vocab-size": 256}


def words(options: dict[str, Any], **changes: Any) -> list[str]:
    """The command line of some options; a change to None leaves one out."""
    changed = options | {name.replace("_", "-"): value for name, value in changes.items()}
    given = {name: value for name, value in changed.items() if value is not None}
    return [word for name, value in given.items() for word in (f"--{name}", str(value))]


def document(argv: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What the verb prints as JSON: standard output must hold nothing else."""
    assert cli.run(["flops", *argv, "--json"]) == 0
    parsed = json.loads(capsys.readouterr().out)
    assert isinstance(parsed, dict)
    return parsed


def test_json_of_the_published_example_keeps_the_contract() -> None:
    code = "import sys; from experiments.cli import main; main()"
    command = [sys.executable, "-c", code, "flops", *words(EXAMPLE), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert list(found) == [
        "parameters",
        "forward_flops_per_token",
        "layer_flops_per_token",
        "train_flops_per_token",
        "alpha",
        "counters",
        "agree",
        "active_parameters",
    ]
    assert found["parameters"] == {
        "total": 483_152_784,
        "embedding": 38_633_472,
        "head": 38_633_472,
        "deep": 84_959_296,
        "wide": 320_888_848,
        "shared": 37_696,
    }
    layer = {"full": 145_499_144, "causal": 114_041_864, "projection": 82_584_584}
    assert found["layer_flops_per_token"] == layer
    forward = {name: 16 * flops + 2 * 768 * 50304 for name, flops in layer.items()}
    assert found["forward_flops_per_token"] == forward
    assert found["train_flops_per_token"] == {name: 3 * flops for name, flops in forward.items()}
    assert found["alpha"] == pytest.approx(0.637838, abs=1e-6)
    assert found["counters"] == dict.fromkeys(("fvcore", "closed_form", "meta"), forward["full"])
    assert found["agree"] is True
    assert done.stderr.startswith("certified in ")
    assert len(done.stderr.splitlines()) == 1


def test_readable_certificate_holds_the_published_figures(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.run(["flops", *words(EXAMPLE)]) == 0
    printed = capsys.readouterr().out
    for figure in ("483.2", "145.50", "114.04", "82.58", "agree exactly", "Certified in"):
        assert figure in printed


def test_variants_can_be_set(capsys: pytest.CaptureFixture[str]) -> None:
    base = document(words(TINY), capsys)
    convex = document(words(TINY, gate_mode="convex"), capsys)
    assert base["parameters"]["shared"] - convex["parameters"]["shared"] == 64 + 1
    final = document(words(TINY, loop_output="final"), capsys)
    assert base["parameters"]["shared"] - final["parameters"]["shared"] == 64 + 2
    alone = document([*words(TINY), "--no-wide-attention"], capsys)
    assert base["parameters"]["wide"] - alone["parameters"]["wide"] == 4 * 64 * 64 + 64
    causal = document(words(TINY, convention="causal"), capsys)
    assert causal["alpha"] < base["alpha"]
    assert causal["layer_flops_per_token"] == base["layer_flops_per_token"]


def exit_code(argv: list[str]) -> object:
    """Of the command, whoever ends it."""
    try:
        return cli.run(argv)
    except SystemExit as stopped:
        return stopped.code


@pytest.mark.parametrize("arm", ["loop", "wide", "standard"])
def test_every_arm_is_certified(arm: str, capsys: pytest.CaptureFixture[str]) -> None:
    missing = {"wide": "deep_ffn"}.get(arm, "wide_ffn")
    loops = 2 if arm == "loop" else None
    found = document(words(TINY, arm=arm, num_loops=loops, **{missing: None}), capsys)
    assert found["agree"] is True
    assert found["alpha"] == (0 if arm == "wide" else 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_layers": -2}, "num_layers must be at least 1, got -2"),
        ({"num_loops": 0}, "num_loops must be at least 1, got 0"),
        ({"head_dim": 60}, "head_dim must divide d_model, got head_dim 60 and d_model 768"),
        (
            {"arm": "deep"},
            "arm must be one of dual, loop, wide, standard, unrolled, moe",
        ),
        ({"num_experts": 4}, "the dual arm has no num_experts"),
        ({"arm": "moe", "num_experts": "many"}, "num_experts takes one int, got 'many'"),
        ({"arm": "standard", "num_loops": 1}, "the standard arm has no wide_ffn"),
        ({"wide_ffn": None}, "the dual arm needs wide_ffn"),
        ({"d_model": "wide"}, "wide"),
        ({"no_such_option": 3}, "no-such-option"),
    ],
)
def test_wrong_input_is_one_clear_message_and_exit_2(
    changes: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(["flops", *words(EXAMPLE, **changes), "--json"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    said = " ".join(printed.err.replace("│", " ").split())
    assert message in said
    assert "Traceback" not in said
