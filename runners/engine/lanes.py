"""How do trials of one process train side by side on a GPU? Each in a lane: a stream of its own.

A captured step holds the workspaces of the stream that it was captured on. So an engine belongs to
its lane and never runs in another: engines of two lanes share nothing that a step writes to.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch

from runners.engine.graph import GraphEngine, StepTask, WarmEngine


class Lane:
    """A stream with the engine that was last used on it."""

    def __init__(self) -> None:
        self.warm = WarmEngine()
        self.is_taken = False
        self._stream: torch.cuda.Stream | None = None

    def entered(self, device: torch.device) -> AbstractContextManager[object]:
        """Everything inside runs on the lane's stream; on a CPU lanes do nothing."""
        if device.type != "cuda":
            return contextlib.nullcontext()
        if self._stream is None:
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        return torch.cuda.stream(self._stream)

    def start(self, task: StepTask, *, init_seed: int) -> GraphEngine:
        """An engine at the start of a trial, whole before anything else reads what it made."""
        engine = self.warm.start(task, init_seed=init_seed)
        torch.cuda.current_stream().synchronize()
        return engine


class Lanes:
    """The lanes of a process: as many as trials have ever run side by side."""

    def __init__(self) -> None:
        self._lanes: list[Lane] = []

    def take(self, task: StepTask | None = None) -> Lane:
        """A free lane: one whose engine serves the task if there is one, else any, else a new."""
        free = [lane for lane in self._lanes if not lane.is_taken]
        warm = (lane for lane in free if task is not None and lane.warm.serves(task))
        cold = (lane for lane in free if lane.warm.is_empty)
        lane = next(warm, None) or next(cold, None) or next(iter(free), None)
        if lane is None:
            lane = Lane()
            self._lanes.append(lane)
        lane.is_taken = True
        return lane

    def let_go_idle(self) -> None:
        """Give back the memory of engines that no trial uses.

        Workspaces go once no engine is left that might still write to them.
        """
        for lane in self._lanes:
            if not lane.is_taken:
                lane.warm.let_go()
        if torch.cuda.is_available() and all(lane.warm.is_empty for lane in self._lanes):
            torch._C._cuda_clearCublasWorkspaces()
            torch.cuda.empty_cache()


LANES = Lanes()
"""What this process keeps of its trials on a GPU for the next ones."""
