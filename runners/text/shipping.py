"""How does prepared text reach a machine that does not see the home? In pieces, and it stays there.

A folder of that machine keeps what came as a home does: streams under the text's fingerprint and a
record beside them, so that the next sweep of the same text sends nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from runners.machine.files import abandoned_partials, replacing
from runners.text.corpus import Corpus, find_prepared, write_record

PIECE_BYTES = 32 * 2**20
"""So much travels at a time, and is in memory on both sides."""


def files_of(corpus: Corpus) -> dict[str, Path]:
    """The files that make a corpus, by the field that names them."""
    paths = {
        "train_path": corpus.train_path,
        "val_path": corpus.val_path,
        "token_num_bytes_path": corpus.token_num_bytes_path,
        "tokenizer_path": corpus.tokenizer_path,
    }
    return {field: path for field, path in paths.items() if path is not None}


class TextShelf:
    """The files of a corpus, on a machine that has them, for others to ask for."""

    def __init__(self, corpus: Corpus) -> None:
        self._files = files_of(corpus)
        self._digests: dict[str, str] = {}

    def piece(self, field: str, index: int) -> bytes:
        """Piece ``index`` of a file; empty past its end. Raises OSError."""
        with self._files[field].open("rb") as file:
            file.seek(index * PIECE_BYTES)
            return file.read(PIECE_BYTES)

    def sha256(self, field: str) -> str:
        """Of a whole file, hexadecimal. Raises OSError."""
        if field not in self._digests:
            with self._files[field].open("rb") as file:
                self._digests[field] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._digests[field]


def receive_corpus(
    corpus: Corpus,
    folder: Path,
    *,
    piece: Callable[[str, int], bytes],
    sha256: Callable[[str], str],
) -> Corpus:
    """The corpus as files of ``folder``, asked for piece by piece unless they are there.

    Several processes may ask at once: one fetches, the others wait. Raises OSError where the folder
    does not take them or what came is not what was sent.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _one_at_a_time(folder):
        found = find_prepared(folder, corpus.fingerprint)
        if found is not None:
            return found
        for partial in abandoned_partials(folder):
            partial.unlink(missing_ok=True)
        here = {field: folder / path.name for field, path in files_of(corpus).items()}
        for field, path in here.items():
            _receive(path, field, piece=piece, sha256=sha256)
        received = replace(
            corpus,
            train_path=here["train_path"],
            val_path=here["val_path"],
            token_num_bytes_path=here["token_num_bytes_path"],
            tokenizer_path=here.get("tokenizer_path"),
        )
        write_record(folder / f"prepared-{corpus.fingerprint[:16]}.json", received)
        return received


def _receive(
    path: Path, field: str, *, piece: Callable[[str, int], bytes], sha256: Callable[[str], str]
) -> None:
    digest = hashlib.sha256()
    with replacing(path) as file:
        index = 0
        while content := piece(field, index):
            file.write(content)
            digest.update(content)
            index += 1
        if digest.hexdigest() != sha256(field):
            raise OSError(f"{path.name} changed on its way; is the home being written?")


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
