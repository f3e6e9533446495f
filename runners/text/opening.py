"""What are the bytes of a file of text, whatever it is packed in, and is it text at all?

gzip and bzip2 are known by the file's name or its first bytes. What they unpack to is read as a
stream that ends in an error where it grows as no text does.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import re
from pathlib import Path
from typing import BinaryIO, cast

from spaces.errors import RequestError

HEAD_BYTES = 65_536
"""So much of a file's beginning tells what it is."""
LARGEST_EXPANSION = 200
"""Prose packs 3 to 6 times, logs up to about 100; a file that unpacks to more than this many
times its size ..."""
FREE_UNPACKED_BYTES = 100_000_000
"""... and to more than this is refused as no text."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_PACKED = {"gzip": re.compile(rb"\x1f\x8b\x08"), "bzip2": re.compile(rb"BZh[1-9]1AY&SY")}
_FOREIGN = {
    "compressed by zstd": b"\x28\xb5\x2f\xfd",
    "compressed by xz": b"\xfd7zXZ\x00",
    "a zip archive": b"PK\x03\x04",
    "a 7-zip archive": b"7z\xbc\xaf\x27\x1c",
    "a parquet table": b"PAR1",
    "an Arrow file": b"ARROW1",
    "a numpy array": b"\x93NUMPY",
    "a PDF": b"%PDF-",
    "a PNG image": b"\x89PNG\r\n",
    "an SQLite database": b"SQLite format 3\x00",
    "a program": b"\x7fELF",
    "UTF-32, not UTF-8": b"\xff\xfe\x00\x00",
    "UTF-16 (little-endian), not UTF-8": b"\xff\xfe",
    "UTF-16 (big-endian), not UTF-8": b"\xfe\xff",
}
_TAR_MAGIC, _TAR_OFFSET = b"ustar", 257
_CONTROL_BYTES = bytes({*range(32), 127} - set(b"\t\n\r\f\b\x0b\x1b"))
MOST_CONTROL_BYTES = 16
"""A beginning with more control characters than this ..."""
LARGEST_CONTROL_SHARE = 0.05
"""... and than this share of it is binary."""


class _Unpacked(io.RawIOBase):
    """What a packed file holds; `RequestError` once that is more than any text packs into it."""

    def __init__(self, packed: io.BufferedIOBase, path: Path) -> None:
        self._packed = packed
        self._path = path
        self._size = path.stat().st_size
        self._limit = max(FREE_UNPACKED_BYTES, LARGEST_EXPANSION * self._size)
        self._num_bytes = 0

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Read on; counts what was read."""
        count = self._packed.readinto(buffer)
        self._num_bytes += count
        if self._num_bytes > self._limit:
            raise RequestError(
                f"{self._path} has {self._size:,} bytes and unpacks to more than "
                f"{self._limit:,}; text unpacks to at most {LARGEST_EXPANSION} times its size "
                f"(or {FREE_UNPACKED_BYTES:,} bytes): name a file of text, or unpack it yourself"
            )
        return count

    def close(self) -> None:
        """Close the packed file as well."""
        self._packed.close()
        super().close()


def open_text(path: Path) -> BinaryIO:
    """The bytes of a file, unpacked where its name (``.gz``, ``.bz2``) or beginning says packed."""
    packing = _packing(path)
    if packing == "gzip":
        unpacked = _Unpacked(gzip.GzipFile(path), path)
    elif packing == "bzip2":
        unpacked = _Unpacked(bz2.BZ2File(path), path)
    else:
        return path.open("rb")
    return cast(BinaryIO, io.BufferedReader(unpacked, buffer_size=1 << 20))


def read_head(path: Path) -> bytes:
    """The beginning of a file, unpacked; `RequestError` where it shows that the file is no text."""
    with open_text(path) as stream:
        head = stream.read(HEAD_BYTES)
    kind = _foreign_kind(head)
    if kind is not None:
        raise RequestError(f"{path} is {kind}; name UTF-8 text or JSON lines (also gz, bz2)")
    return head


def check_text(text: bytes, *, path: Path, offset: int) -> None:
    """Refuse what is not UTF-8 and NUL bytes; ``offset`` is where ``text`` starts in the file."""
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise RequestError(
            f"{path} is not UTF-8: byte 0x{text[error.start]:02x} at offset "
            f"{offset + error.start} ({error.reason}); convert it to UTF-8"
        ) from error
    if b"\0" in text:
        raise RequestError(
            f"{path} holds a NUL at byte {offset + text.index(0)}; NUL separates documents, "
            f"remove it"
        )


def _packing(path: Path) -> str | None:
    if path.suffix == ".bz2":
        return "bzip2"
    if path.suffix == ".gz":
        return "gzip"
    with path.open("rb") as file:
        start = file.read(16)
    return next((kind for kind, magic in _PACKED.items() if magic.match(start)), None)


def _foreign_kind(head: bytes) -> str | None:
    """What a beginning shows a file to be, where that is no UTF-8 text."""
    num_control = len(head) - len(head.translate(None, _CONTROL_BYTES))
    if num_control == 0 and _is_utf8_so_far(head):
        return None
    for kind, magic in _FOREIGN.items():
        if head.startswith(magic):
            return kind
    if head[_TAR_OFFSET:].startswith(_TAR_MAGIC):
        return "a tar archive"
    if num_control > max(MOST_CONTROL_BYTES, LARGEST_CONTROL_SHARE * len(head)):
        return f"binary, not text ({num_control:,} control bytes in its first {len(head):,})"
    return None


def _is_utf8_so_far(head: bytes) -> bool:
    """Whether a beginning is UTF-8, whose last character may be cut."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True
