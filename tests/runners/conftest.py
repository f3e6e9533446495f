"""What do the runners' tests share? A small text, and the reference data where it is there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from runners.text.corpus import Corpus, prepare_corpus

SHARED = Path(__file__).parents[2].parent / "shared"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Two threads that wait for each other on busy cores are ten times slower than one."""
    torch.set_num_threads(1)


@pytest.fixture
def shared_data() -> Path:
    """The folder of reference texts; the test is skipped where it is absent."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"the reference data is not at {SHARED}")
    return SHARED / "data"


@pytest.fixture(scope="session")
def sotu_corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The default corpus in bytes."""
    return prepare_corpus(None, cache_dir=tmp_path_factory.mktemp("text"))
