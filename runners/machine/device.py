"""What does a trial run on, how fast could it be, and how much memory did it take?"""

from __future__ import annotations

import resource
import sys

import torch

from runners.machine.cpu import cpu_name
from spaces.errors import RequestError

PEAK_BFLOAT16_FLOPS_PER_SECOND = {
    "B200": 2_250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
}
"""Dense bfloat16 peak by what the device's name holds, first match; from NVIDIA's data sheets of
each product (nvidia.com/en-us/data-center), halved where they state it with sparsity."""


def find_device(name: str) -> torch.device:
    """The device called ``cpu``, ``cuda`` or ``cuda:N``; `RequestError` where it is not there."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise RequestError(f"device must be cpu, cuda or cuda:N, got {name!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise RequestError(f"device must be cpu, cuda or cuda:N, got {name!r}")
    num_devices = torch.cuda.device_count() if device.type == "cuda" else 1
    if (device.index or 0) >= num_devices:
        raise RequestError(f"device {name} is not there: torch sees {num_devices} CUDA devices")
    return device


def device_name(device: torch.device) -> str:
    """The product's name, for the record."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()


def peak_flops_per_second(name: str) -> float | None:
    """Dense bfloat16 peak of the device of that name; None where it is not known (every CPU)."""
    for product, peak in PEAK_BFLOAT16_FLOPS_PER_SECOND.items():
        if product in name:
            return peak
    return None


def is_device_failure(error: Exception) -> bool:
    """Whether an error left the device unusable for the whole process, as CUDA's do."""
    return isinstance(error, RuntimeError) and "CUDA error" in str(error)


def reset_peak_memory(device: torch.device) -> None:
    """Start measuring the peak anew (GPU only: a CPU process keeps the peak of its whole life)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_bytes(device: torch.device) -> int:
    """GPU: most memory that torch held since the reset. CPU: most that the process ever held."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes if sys.platform == "darwin" else kilobytes * 1024
