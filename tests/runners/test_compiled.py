"""Is a piece compiled once per width, whatever depth, K, feed-forward and batch are?"""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch

from runners.compiled import compile_sublayers, has_kernel, num_compiled, release
from runners.step import EagerEngine
from search.trial import TrainingRecipe
from spaces.architecture import Architecture
from spaces.model import DualPathModel

BASE = Architecture(
    arm="dual",
    num_layers=2,
    num_loops=2,
    d_model=32,
    deep_ffn=24,
    wide_ffn=40,
    head_dim=16,
    context_length=16,
    vocab_size=64,
)
RECIPE = TrainingRecipe(learning_rate=0.01, batch_sequences=4)


def losses_of(architecture: Architecture, batch: int, *, is_compiled: bool) -> list[float]:
    engine = EagerEngine(DualPathModel(architecture, seed=1), RECIPE)
    if is_compiled:
        compile_sublayers(engine.working.model, backend="aot_eager")
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(64, (batch, 17), generator=generator)
    return [engine.step(tokens[:, :-1], tokens[:, 1:], learning_rate=0.01).item() for _ in range(3)]


# PyTorch's tracer looks at the gradient of what is no leaf.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_only_a_new_width_or_arm_compiles_anything() -> None:
    torch.compiler.reset()
    compiled = {}
    changes: dict[str, dict[str, Any]] = {
        "first": {},
        "depth": {"num_layers": 3},
        "loops": {"num_loops": 4},
        "one loop": {"num_loops": 1},
        "deep": {"deep_ffn": 56},
        "wide": {"wide_ffn": 100},
        "loop arm": {"arm": "loop", "wide_ffn": None},
        "width": {"d_model": 48},
    }
    for name, change in changes.items():
        before = num_compiled()
        for batch in (4, 6):
            architecture = replace(BASE, **change)
            found = losses_of(architecture, batch, is_compiled=True)
            plain = losses_of(architecture, batch, is_compiled=False)
            assert found == pytest.approx(plain, rel=1e-4), (name, batch)
        compiled[name] = num_compiled() - before
    assert compiled.pop("first") == compiled.pop("width") > 0
    assert set(compiled.values()) == {0}, compiled


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_a_released_model_goes_with_its_engine_and_needs_no_collector() -> None:
    engine = EagerEngine(DualPathModel(BASE, seed=1), RECIPE)
    compile_sublayers(engine.working.model, backend="aot_eager")
    tokens = torch.zeros(4, 17, dtype=torch.int64)
    engine.step(tokens[:, :-1], tokens[:, 1:], learning_rate=0.01)
    model = weakref.ref(engine.model)
    gc.collect()
    gc.disable()
    try:
        release(engine.working.model)
        del engine
        assert model() is None
    finally:
        gc.enable()


def test_heads_without_a_kernel_take_the_plain_form() -> None:
    assert [size for size in (2, 16, 24, 64, 80, 96, 128) if has_kernel(size)] == [2, 16, 64, 128]
