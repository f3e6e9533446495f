"""Every row of the table of faults: nothing lost, nothing twice, nothing wrong."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.scenarios import FAULTS, Bench, Fault, Unavailable
from tests.faults.toolbox import Launcher

pytestmark = pytest.mark.faults


def cases() -> Iterator[object]:
    """Every fault and seed; those past the short form are slow."""
    for fault in FAULTS:
        for seed in range(fault.num_seeds):
            marks = [] if seed < fault.num_short else [pytest.mark.slow]
            yield pytest.param(fault, seed, id=f"{fault.name}-{seed}", marks=marks)


@pytest.fixture(scope="session")
def bench() -> Iterator[Bench]:
    """One launcher and one clean sweep for all, on a memory disk where there is one."""
    memory = Path("/dev/shm")
    folder = Path(
        tempfile.mkdtemp(prefix="isoflop-faults-", dir=memory if memory.exists() else None)
    )
    launcher = Launcher()
    yield Bench(launcher, folder)
    launcher.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize(("fault", "seed"), list(cases()))
def test_nothing_is_lost_nothing_twice(fault: Fault, seed: int, bench: Bench) -> None:
    try:
        verdict = fault.strike(bench, seed)
    except Unavailable as error:
        pytest.skip(str(error))
    assert verdict.problems == []
