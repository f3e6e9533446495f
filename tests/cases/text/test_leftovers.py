"""Is nothing left of a process that was killed while it prepared text?"""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from experiments.cli import run
from runners.machine.files import replacing
from search.record.ledger import Ledger
from tests.cases.text.inputs import DATA, read

KILLED = """
import os, signal, sys
from pathlib import Path
import runners.text.corpus

def write_stream(file, *words, **others):
    file.write(b"half a stream" * 100_000)
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

runners.text.corpus.write_stream = write_stream
runners.text.corpus.prepare_corpus(Path(sys.argv[1]), cache_dir=Path(sys.argv[2]))
"""


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The cache of a home after a process was killed while tokenising."""
    with closing(Ledger(tmp_path / "home", create=True)):
        pass
    cache = tmp_path / "home" / "cache"
    command = [sys.executable, "-c", KILLED, str(DATA / "lines.jsonl"), str(cache)]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    assert sum(path.stat().st_size for path in cache.iterdir()) == 1_300_000
    return cache


@pytest.mark.filterwarnings("default")
def test_doctor_sees_it_and_the_next_run_removes_it(
    cache: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    assert run(["doctor", "--home", str(cache.parent)]) == 1
    said = capfd.readouterr().out
    assert ".partial (1,300,000 bytes) was left by a killed process" in said
    assert "the next `isoflop sweep` or `plan` in this home removes it" in said
    read(DATA / "train-dev-test", cache)
    assert not [*cache.glob(".*")]
    assert run(["doctor", "--home", str(cache.parent)]) == 0


def test_what_is_being_written_is_left_alone(cache: Path, tmp_path: Path) -> None:
    with replacing(cache / "stream.npy") as file:
        file.write(b"the other process is alive" * 100_000)
        file.flush()
        read(DATA / "train-dev-test", cache)
        assert len([*cache.glob(".stream.npy.*")]) == 1
    assert (cache / "stream.npy").stat().st_size == 2_600_000


def test_a_refused_source_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"no": 1}\n')
    with pytest.raises(ValueError, match="no text under the key"):
        read(tmp_path / "a.jsonl", tmp_path / "cache")
    assert [*(tmp_path / "cache").iterdir()] == []
