"""Are devices found by name, and their peaks known where they are known?"""

from __future__ import annotations

import pytest
import torch

from runners.machine.device import (
    device_name,
    find_device,
    peak_flops_per_second,
    peak_memory_bytes,
    reset_peak_memory,
)
from spaces.errors import RequestError

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
    ],
)
def test_known_peaks(name: str, teraflops: float) -> None:
    assert peak_flops_per_second(name) == teraflops * 1e12


def test_a_cpu_has_a_name_memory_and_no_known_peak() -> None:
    assert device_name(find_device("cpu"))
    assert peak_flops_per_second(device_name(CPU)) is None
    reset_peak_memory(CPU)
    assert peak_memory_bytes(CPU) > 50e6


@pytest.mark.parametrize("name", ["tpu", "meta", "cuda:99", "cpu:7"])
def test_a_device_that_is_not_there(name: str) -> None:
    with pytest.raises(RequestError, match=name):
        find_device(name)
