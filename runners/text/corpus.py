"""How does text become a training stream and a validation stream that every trial shares?

`prepare_corpus` reads the documents of a source (`runners.text.documents`), sets some apart for
validation (`runners.text.document_split`), tokenises both sides (`runners.text.tokenizers`) and
keeps the streams as memory-mapped arrays under a fingerprint. The tokenizer's separator follows
every document. A source whose files hash as they did before is not read again.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from runners.machine.files import replacing, write_atomically
from runners.text.document_split import Progress, Say, Split, SpooledDocuments, split_documents
from runners.text.documents import TextSource, find_source
from runners.text.tokenizers import (
    TextTokenizer,
    TokenArray,
    definition_of,
    make_tokenizer,
    token_dtype,
)
from spaces.errors import RequestError

FORMAT_VERSION = 1
"""Raised when the same text would give other streams; part of the fingerprint."""

_ENCODING_BATCH_BYTES = 4_000_000
_PATH_FIELDS = ("train_path", "val_path", "token_num_bytes_path", "tokenizer_path")


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A prepared corpus: numbers and paths only, so that it travels to workers."""

    fingerprint: str
    """SHA-256 (hexadecimal) of format, split rule, tokenizer and documents by side."""
    source: str
    """What was read and how it was split, for a person."""
    tokenizer: str
    """``bytes``, ``bpe:N`` or ``file:PATH``."""
    vocab_size: int
    """Symbols, separator included."""
    separator: int
    """The id that follows every document."""
    train_path: Path
    """The training stream: a one-dimensional .npy of unsigned integers."""
    val_path: Path
    """The validation stream."""
    token_num_bytes_path: Path
    """Bytes of text per id, a .npy; 0 for the separator."""
    tokenizer_path: Path | None
    """The tokenizer's JSON; None for bytes."""
    num_train_tokens: int
    """Length of the training stream, separators included."""
    num_val_tokens: int
    """Length of the validation stream, separators included."""
    num_train_bytes: int
    """UTF-8 bytes of the training documents, without separators."""
    num_val_bytes: int
    """UTF-8 bytes of the validation documents, without separators."""
    num_train_documents: int
    """Training documents."""
    num_val_documents: int
    """Validation documents."""


@dataclass(frozen=True, kw_only=True)
class TokenStreams:
    """The arrays of a corpus, opened on the machine that trains."""

    train: TokenArray
    """The training stream, memory-mapped."""
    validation: TokenArray
    """The validation stream, memory-mapped."""
    token_num_bytes: npt.NDArray[np.int32]
    """Bytes of text per id."""


def prepare_corpus(
    source: Path | None,
    *,
    tokenizer: str = "bytes",
    validation_fraction: float = 0.05,
    cache_dir: Path,
    say: Say | None = None,
) -> Corpus:
    """Read, split and tokenise a source once; the same files again reuse the streams.

    ``source`` None is the default corpus. Unchanged files are hashed, not read (0.4 s for a
    gigabyte). Several processes may do it at once. ``say`` gets the lines of progress (standard
    error by default). Raises `RequestError` for a missing, damaged or empty source, text that is
    not UTF-8, a source without a document for either side and a tokenizer that cannot be had.
    """
    if not 0 < validation_fraction < 1:
        raise RequestError(
            f"validation_fraction must lie between 0 and 1, got {validation_fraction}; "
            f"0.05 is usual"
        )
    text_source = find_source(source)
    key = _preparation_key(text_source, tokenizer, validation_fraction)
    cache_dir.mkdir(parents=True, exist_ok=True)
    record = cache_dir / f"prepared-{key[:16]}.json"
    known = _read_record(record)
    if known is not None:
        return known
    progress = Progress(say or _say_on_standard_error)
    if text_source.left_out:
        names = ", ".join(text_source.left_out)
        progress.say(f"text: neither training nor validation by name, left out: {names}")
    with SpooledDocuments(text_source, cache_dir, progress) as documents:
        split = split_documents(
            documents,
            by_name=text_source.is_split_by_name,
            validation_fraction=validation_fraction,
        )
        progress.maybe(f"text: {len(documents)} documents, making the tokenizer {tokenizer}")
        text_tokenizer = make_tokenizer(tokenizer, (documents[index] for index in split.train))
        corpus = _describe(
            documents,
            split,
            source=f"{text_source.description}, split {split.rule}",
            specification=tokenizer,
            tokenizer=text_tokenizer,
            cache_dir=cache_dir,
        )
        corpus = _write_streams(corpus, documents, split, text_tokenizer, progress=progress)
    _write_record(record, corpus)
    return corpus


def load_tokens(corpus: Corpus) -> TokenStreams:
    """Open the streams as memory maps; `RequestError` where they are missing or cut short.

    The maps are copy-on-write, so that torch may wrap them; nothing ever writes to them.
    """
    paths = (corpus.train_path, corpus.val_path, corpus.token_num_bytes_path)
    try:
        train, validation, num_bytes = (
            np.load(path, mmap_mode="c", allow_pickle=False) for path in paths
        )
    except (OSError, ValueError) as error:
        raise RequestError(
            f"the token streams of {corpus.source} cannot be read on this machine: {error}; "
            f"prepare the text on a file system that every worker sees"
        ) from error
    expected = (corpus.num_train_tokens, corpus.num_val_tokens, corpus.vocab_size)
    found = (len(train), len(validation), len(num_bytes))
    if found != expected:
        raise RequestError(
            f"the token streams of {corpus.source} must hold {expected} entries, but hold {found}; "
            f"remove {corpus.train_path.parent} and prepare the text again"
        )
    return TokenStreams(train=train, validation=validation, token_num_bytes=num_bytes)


def _describe(
    documents: SpooledDocuments,
    split: Split,
    *,
    source: str,
    specification: str,
    tokenizer: TextTokenizer,
    cache_dir: Path,
) -> Corpus:
    """The corpus before its streams are written: their token counts are still 0."""
    fingerprint = _fingerprint(documents, split, tokenizer)
    stem = cache_dir / fingerprint[:16]
    has_file = tokenizer.to_json() is not None
    return Corpus(
        fingerprint=fingerprint,
        source=source,
        tokenizer=specification,
        vocab_size=tokenizer.vocab_size,
        separator=tokenizer.separator,
        train_path=stem.with_suffix(".train.npy"),
        val_path=stem.with_suffix(".val.npy"),
        token_num_bytes_path=stem.with_suffix(".bytes.npy"),
        tokenizer_path=stem.with_suffix(".tokenizer.json") if has_file else None,
        num_train_tokens=0,
        num_val_tokens=0,
        num_train_bytes=sum(documents.lengths[index] for index in split.train),
        num_val_bytes=sum(documents.lengths[index] for index in split.validation),
        num_train_documents=len(split.train),
        num_val_documents=len(split.validation),
    )


def _fingerprint(documents: SpooledDocuments, split: Split, tokenizer: TextTokenizer) -> str:
    digest = hashlib.sha256()
    digest.update(f"format {FORMAT_VERSION}, {split.rule}, {tokenizer.identity}".encode())
    for name, indices in (("train", split.train), ("validation", split.validation)):
        digest.update(f"; {name} {len(indices)}: ".encode())
        for index in indices:
            digest.update(documents.digests[index])
    return digest.hexdigest()


def _write_streams(
    corpus: Corpus,
    documents: SpooledDocuments,
    split: Split,
    tokenizer: TextTokenizer,
    *,
    progress: Progress,
) -> Corpus:
    """Write every file of the corpus; returns it with the streams' lengths."""
    lengths = [
        _write_stream(path, documents, indices, tokenizer, progress=progress)
        for path, indices in (
            (corpus.train_path, split.train),
            (corpus.val_path, split.validation),
        )
    ]
    with replacing(corpus.token_num_bytes_path) as file:
        np.save(file, tokenizer.token_num_bytes())
    tokenizer_json = tokenizer.to_json()
    if corpus.tokenizer_path is not None and tokenizer_json is not None:
        write_atomically(corpus.tokenizer_path, tokenizer_json.encode())
    return replace(corpus, num_train_tokens=lengths[0], num_val_tokens=lengths[1])


def _write_stream(
    path: Path,
    documents: SpooledDocuments,
    indices: list[int],
    tokenizer: TextTokenizer,
    *,
    progress: Progress,
) -> int:
    """Write ids and separators of the named documents as one .npy; returns its length."""
    dtype = np.dtype(token_dtype(tokenizer.vocab_size))
    separator = np.array([tokenizer.separator], dtype=dtype)
    num_tokens = num_documents = 0
    with replacing(path) as file:
        header_bytes = _write_header(file, dtype, num_tokens)
        for batch in documents.batches(indices, batch_bytes=_ENCODING_BATCH_BYTES):
            for ids in tokenizer.encode(batch):
                file.write(ids.astype(dtype, copy=False).tobytes())
                file.write(separator.tobytes())
                num_tokens += len(ids) + 1
            num_documents += len(batch)
            progress.maybe(
                f"text: {num_documents} of {len(indices)} documents, {num_tokens / 1e6:.0f} M "
                f"tokens written to {path.name}"
            )
        file.seek(0)
        assert _write_header(file, dtype, num_tokens) == header_bytes, "numpy pads the header"
    return num_tokens


def _write_header(file: IO[bytes], dtype: np.dtype[Any], length: int) -> int:
    """The .npy header of a vector; numpy pads it so that any length fits into the same room."""
    np.lib.format.write_array_header_1_0(
        file, {"descr": dtype.str, "fortran_order": False, "shape": (length,)}
    )
    return file.tell()


def _preparation_key(source: TextSource, tokenizer: str, validation_fraction: float) -> str:
    """What a preparation depends on, known without reading text: the files' hashes and the rules.

    A package of the index would do with its version, but its files may have been edited.
    """
    files = []
    for item in source.files:
        try:
            with item.path.open("rb") as file:
                files.append([item.name, hashlib.file_digest(file, "sha256").hexdigest()])
        except OSError as error:
            raise RequestError(f"{item.path} cannot be read: {error}") from error
    parts = [FORMAT_VERSION, definition_of(tokenizer), validation_fraction, files]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _write_record(path: Path, corpus: Corpus) -> None:
    """Keep a prepared corpus as JSON, paths as names beside it, so that the folder may move."""
    values = asdict(corpus)
    for name in _PATH_FIELDS:
        values[name] = values[name] and values[name].name
    write_atomically(path, json.dumps(values, indent=2).encode())


def _read_record(path: Path) -> Corpus | None:
    """The corpus prepared before, if its record and all its streams are there and whole."""
    try:
        values = json.loads(path.read_text())
        for name in _PATH_FIELDS:
            values[name] = values[name] and path.parent / values[name]
        corpus = Corpus(**values)
        load_tokens(corpus)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    tokenizer_is_there = corpus.tokenizer_path is None or corpus.tokenizer_path.is_file()
    return corpus if tokenizer_is_there else None


def _say_on_standard_error(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
