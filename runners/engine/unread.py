"""How are a device's losses read without waiting for it? In lots that travel while it goes on."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

LOT = {"cpu": 1, "cuda": 64}
"""Losses that are read at once."""
LOTS_UNDER_WAY = 2
"""Most lots of a GPU that nobody has read: the loop is at most so far ahead of the device."""


class UnreadLosses:
    """Losses of steps that were handed to a device, in the order of the steps."""

    def __init__(self, device: torch.device) -> None:
        self._lot = LOT[device.type]
        self._waiting: list[Tensor] = []
        self._under_way: deque[tuple[Tensor, torch.cuda.Event | None]] = deque()

    def add(self, loss: Tensor) -> None:
        """Take the next step's loss, a scalar on the device."""
        self._waiting.append(loss)
        if len(self._waiting) >= self._lot:
            self._send()

    def arrived(self) -> list[float]:
        """Those that are here; waits only where the loop is too far ahead."""
        read: list[float] = []
        while self._under_way:
            values, event = self._under_way[0]
            if event is not None and not event.query():  # type: ignore[no-untyped-call]
                if len(self._under_way) <= LOTS_UNDER_WAY:
                    break
                event.synchronize()
            read += values.tolist()
            self._under_way.popleft()
        return read

    def all(self) -> list[float]:
        """Every one that was added and not read yet; waits for the device."""
        if self._waiting:
            self._send()
        for _, event in self._under_way:
            if event is not None:
                event.synchronize()
        return self.arrived()

    def _send(self) -> None:
        lot = torch.stack(self._waiting)
        self._waiting = []
        if not lot.is_cuda:
            self._under_way.append((lot, None))
            return
        on_host = torch.empty(lot.shape, dtype=lot.dtype, pin_memory=True)
        on_host.copy_(lot, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self._under_way.append((on_host, event))
