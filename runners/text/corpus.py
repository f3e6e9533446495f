"""How does text become a training stream and a validation stream that every trial shares?

`prepare_corpus` reads the documents of a source (`runners.text.documents`), sets some apart for
validation (`runners.text.document_split`), tokenises both sides (`runners.text.tokenizers`) and
keeps the streams as memory-mapped arrays under a fingerprint. The tokenizer's separator follows
every document. A source whose files hash as they did before is not read again. What was guessed,
left out or is doubtful is said each time.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from runners.machine.files import abandoned_partials, replacing, write_atomically
from runners.text.document_split import Split, split_documents
from runners.text.documents import TextSource, find_source
from runners.text.json_text import TEXT_KEY
from runners.text.overlap import find_overlap
from runners.text.preparation_key import FORMAT_VERSION, ReadingRules, preparation_key
from runners.text.spool import Progress, Say, SpooledDocuments
from runners.text.streams import write_stream
from runners.text.tokenizers import TextTokenizer, TokenArray, make_tokenizer
from spaces.errors import RequestError

_SIZES = ("documents", "bytes", "tokens")
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
    notes: tuple[str, ...] = ()
    """What was guessed of the text and what is doubtful in it, for a person."""

    def sizes(self) -> dict[str, dict[str, int]]:
        """Documents, bytes and tokens of each side."""
        return {
            side: {name: getattr(self, f"num_{prefix}_{name}") for name in _SIZES}
            for side, prefix in (("training", "train"), ("validation", "val"))
        }

    def describe_sizes(self) -> str:
        """Both sides in one line, for a person."""
        sides = [
            f"{side}: {size['documents']:,} document{'s' * (size['documents'] > 1)}, "
            f"{size['bytes']:,} bytes, {size['tokens']:,} tokens"
            for side, size in self.sizes().items()
        ]
        share = self.num_val_bytes / (self.num_train_bytes + self.num_val_bytes)
        return f"text: {'; '.join(sides)} ({share:.1%} of the bytes); {self.source}"


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
    key: str = TEXT_KEY,
    cache_dir: Path,
    say: Say | None = None,
) -> Corpus:
    """Read, split and tokenise a source once; the same files again reuse the streams.

    ``source`` None is the default corpus; ``key`` is where JSON has its text. Unchanged files are
    hashed, not read (0.4 s for a gigabyte). Several processes may do it at once; what killed ones
    left is removed. ``say`` gets notes and progress (standard error by default). Raises
    `RequestError` for a missing, damaged or empty source, text that is not UTF-8, a source without
    a document for either side and a tokenizer that cannot be had.
    """
    if not 0 < validation_fraction < 1:
        raise RequestError(
            f"validation_fraction must lie between 0 and 1, got {validation_fraction}; "
            f"0.05 is usual"
        )
    text_source = find_source(source)
    rules = ReadingRules(tokenizer=tokenizer, validation_fraction=validation_fraction, key=key)
    name = preparation_key(text_source, rules)
    cache_dir.mkdir(parents=True, exist_ok=True)
    for partial in abandoned_partials(cache_dir):
        partial.unlink(missing_ok=True)
    progress = Progress(say or _say_on_standard_error)
    _say_notes(text_source.notes, progress)
    record = cache_dir / f"prepared-{name[:16]}.json"
    corpus = _read_record(record)
    if corpus is None:
        corpus = _make_corpus(text_source, rules, cache_dir=cache_dir, progress=progress)
        write_record(record, corpus)
    _say_notes(corpus.notes, progress)
    return corpus


def find_prepared(cache_dir: Path, fingerprint: str) -> Corpus | None:
    """The corpus of that fingerprint, if a folder holds it whole."""
    records = (_read_record(path) for path in sorted(cache_dir.glob("prepared-*.json")))
    return next((each for each in records if each and each.fingerprint == fingerprint), None)


def _make_corpus(
    source: TextSource, rules: ReadingRules, *, cache_dir: Path, progress: Progress
) -> Corpus:
    """Read, split and tokenise, whatever was kept."""
    with SpooledDocuments(source, cache_dir, progress, key=rules.key) as documents:
        split = split_documents(
            documents,
            by_name=source.is_split_by_name,
            validation_fraction=rules.validation_fraction,
        )
        notes = (*documents.notes, *split.notes, *_notes_on_overlap(documents, split, progress))
        progress.maybe(f"text: {len(documents)} documents, making the tokenizer {rules.tokenizer}")
        tokenizer = make_tokenizer(rules.tokenizer, (documents[index] for index in split.train))
        corpus = _describe(
            documents,
            split,
            source=f"{source.description}, split {split.rule}",
            specification=rules.tokenizer,
            tokenizer=tokenizer,
            cache_dir=cache_dir,
        )
        corpus = _write_streams(corpus, documents, split, tokenizer, progress=progress)
        return replace(corpus, notes=notes)


def _notes_on_overlap(
    documents: SpooledDocuments, split: Split, progress: Progress
) -> tuple[str, ...]:
    found = find_overlap(documents, split.train, split.validation, progress)
    if found.num_documents == 0:
        return ()
    num_bytes = sum(documents.lengths[index] for index in split.validation)
    return (
        f"warning: {found.num_documents:,} of {len(split.validation):,} validation documents "
        f"({found.num_bytes / num_bytes:.0%} of its bytes) stand in the training text as well, "
        f"whole or for the most part, so that the validation loss is too low; remove the copies",
    )


def _say_notes(notes: tuple[str, ...], progress: Progress) -> None:
    for note in notes:
        progress.say(f"text: {note}")


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
    """Write every file of the corpus; returns it with the streams' lengths.

    Both streams are whole before either has its name, so that a killed process leaves no stream
    that no record names.
    """
    with replacing(corpus.train_path) as file:
        num_train = write_stream(file, documents, split.train, tokenizer, progress=progress)
        with replacing(corpus.val_path) as other:
            num_val = write_stream(other, documents, split.validation, tokenizer, progress=progress)
    with replacing(corpus.token_num_bytes_path) as file:
        np.save(file, tokenizer.token_num_bytes())
    tokenizer_json = tokenizer.to_json()
    if corpus.tokenizer_path is not None and tokenizer_json is not None:
        write_atomically(corpus.tokenizer_path, tokenizer_json.encode())
    return replace(corpus, num_train_tokens=num_train, num_val_tokens=num_val)


def write_record(path: Path, corpus: Corpus) -> None:
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
        values["notes"] = tuple(values["notes"])
        corpus = Corpus(**values)
        load_tokens(corpus)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    tokenizer_is_there = corpus.tokenizer_path is None or corpus.tokenizer_path.is_file()
    return corpus if tokenizer_is_there else None


def _say_on_standard_error(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
