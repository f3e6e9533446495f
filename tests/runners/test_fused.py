"""Do a model's kernels go as they came? What they compute is `test_kernels`' to say."""

from __future__ import annotations

import gc
import weakref

import pytest

from spaces.architecture import Architecture
from spaces.model import LanguageModel

pytest.importorskip("triton", reason="the kernels need Triton")

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


def test_a_released_model_is_plain_again_and_needs_no_collector() -> None:
    from runners.engine.fused import release, use_kernels

    model = LanguageModel(BASE, seed=1)
    plain = {name: set(vars(module)) for name, module in model.named_modules()}
    use_kernels(model)
    assert any(set(vars(module)) != plain[name] for name, module in model.named_modules())
    release(model)
    assert all(set(vars(module)) == plain[name] for name, module in model.named_modules())
    gone = weakref.ref(model)
    gc.collect()
    gc.disable()
    try:
        del model
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("size", [2, 16, 64, 128])
def test_heads_of_a_power_of_two_have_a_kernel(size: int) -> None:
    from runners.engine.kernels.attention import has_kernel

    assert has_kernel(size)
    assert not has_kernel(3 * size)
