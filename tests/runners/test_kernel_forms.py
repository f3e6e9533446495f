"""What makes the GPU engine compile? A model's first step, and a width past a power of two.

Triton compiles here for an H100 that need not be there: no kernel runs, all are made ready.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from runners.engine.step import EagerEngine
from search.record.trial import TrainingRecipe
from spaces.architecture import Architecture
from spaces.model import LanguageModel

pytest.importorskip("triton", reason="the kernels need Triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("interpreted kernels are not compiled", allow_module_level=True)

# Triton 3.7 builds syntax trees in a way that Python 3.13 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:AnnAssign.__init__ missing:DeprecationWarning")

BASE = Architecture(
    arm="dual",
    num_layers=2,
    num_loops=2,
    d_model=256,
    deep_ffn=768,
    wide_ffn=1_024,
    head_dim=64,
    context_length=64,
    vocab_size=512,
)


class AbsentH100:
    """As much of a Triton driver as compiling needs."""

    def get_current_target(self) -> Any:
        """Hopper."""
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        """The only one."""
        return 0

    def get_current_stream(self, device: int | None = None) -> int:
        """The default one."""
        return 0


@pytest.fixture
def absent_h100(monkeypatch: pytest.MonkeyPatch) -> None:
    """Launching a kernel makes it ready and does no more."""
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    def make_ready(kernel: Any, grid: Any) -> Callable[..., Any]:
        return lambda *arguments: kernel.warmup(*arguments, grid=grid)

    monkeypatch.setattr(JITFunction, "__getitem__", make_ready)
    monkeypatch.setattr(driver, "_active", AbsentH100())


def forms_of_a_step(architecture: Architecture, batch: int = 4) -> int:
    """Forms of kernels that one step makes ready, besides those that were."""
    from runners.engine.fused import use_kernels
    from runners.engine.kernels.count import num_compiled

    recipe = TrainingRecipe(learning_rate=0.01, batch_sequences=batch, precision="bfloat16")
    engine = EagerEngine(LanguageModel(architecture), recipe)
    use_kernels(engine.working.model)
    before = num_compiled()
    tokens = torch.zeros(batch, architecture.context_length + 1, dtype=torch.int64)
    engine.step(tokens[:, :-1], tokens[:, 1:], learning_rate=0.0)
    return num_compiled() - before


@pytest.mark.usefixtures("absent_h100")
def test_only_a_width_past_a_power_of_two_compiles_anything() -> None:
    assert forms_of_a_step(BASE) > 0
    known = {
        "depth": {"num_layers": 5},
        "one loop": {"num_loops": 1},
        "many loops": {"num_loops": 9},
        "deep": {"deep_ffn": 1_040},
        "wide": {"wide_ffn": 2_056},
        "loop arm": {"arm": "loop", "wide_ffn": None},
        "width": {"d_model": 192},
    }
    for name, changes in known.items():
        assert forms_of_a_step(replace(BASE, **changes)) == 0, name  # type: ignore[arg-type]
    assert forms_of_a_step(BASE, batch=7) == 0
    assert forms_of_a_step(replace(BASE, d_model=320)) > 0
    assert forms_of_a_step(replace(BASE, d_model=512)) == 0
