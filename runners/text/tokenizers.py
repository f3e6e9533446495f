"""How does text become numbers, and how many bytes does each number stand for?

Three tokenizers: ``bytes`` (256 symbols, NUL is the document separator), ``bpe:N`` (a byte-level
BPE of N symbols, separator included, trained on the training documents with the library
``tokenizers``) and ``file:PATH`` (a byte-level tokenizer of that library, saved as JSON). All keep
every byte: a document's tokens stand for as many bytes as it has, so that bits per byte are exact.
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from spaces.errors import RequestError

if TYPE_CHECKING:
    import tokenizers

TokenArray = npt.NDArray[np.unsignedinteger]

SEPARATORS = ("<|endoftext|>", "<|end_of_text|>", "<|eos|>", "</s>", "<eos>")
"""Names under which tokenizer files keep a document separator; without one, a symbol is added."""
ADDED_SEPARATOR = "<|endoftext|>"
MINIMUM_BPE_SIZE = 257
"""256 bytes and the separator."""
MAXIMUM_BPE_SIZE = 4_000_000
"""Today's largest vocabularies have about 260,000."""
LARGEST_FILE_BYTES = 100_000_000
"""Of a tokenizer; those of today's large vocabularies have about 20 MB."""


class TextTokenizer(Protocol):
    """Turns documents into token ids; never changes or drops a byte."""

    @property
    def identity(self) -> str:
        """Hexadecimal SHA-256 of all that determines the ids."""

    @property
    def vocab_size(self) -> int:
        """Symbols, separator included."""

    @property
    def separator(self) -> int:
        """The id that ends every document."""

    def encode(self, documents: Sequence[bytes]) -> Iterator[TokenArray]:
        """The ids of each document, without separator."""

    def token_num_bytes(self) -> npt.NDArray[np.int32]:
        """Bytes of text that each id stands for; 0 for the separator."""

    def to_json(self) -> str | None:
        """The library's JSON; None where no file is needed to decode."""


class ByteTokenizer:
    """Every byte is its own symbol; NUL, which no document holds, separates."""

    identity = hashlib.sha256(b"bytes, NUL separates").hexdigest()
    vocab_size = 256
    separator = 0

    def encode(self, documents: Sequence[bytes]) -> Iterator[TokenArray]:
        """The ids of each document, without separator."""
        return (np.frombuffer(document, dtype=np.uint8) for document in documents)

    def token_num_bytes(self) -> npt.NDArray[np.int32]:
        """1 for every byte, 0 for NUL."""
        counts = np.ones(self.vocab_size, dtype=np.int32)
        counts[self.separator] = 0
        return counts

    def to_json(self) -> str | None:
        """None: bytes decode by themselves."""
        return None


class LibraryTokenizer:
    """A byte-level tokenizer of the library; text never yields its special tokens."""

    def __init__(self, library: tokenizers.Tokenizer, *, name: str) -> None:
        self._library = library
        self._name = name
        library.no_truncation()
        library.no_padding()
        library.encode_special_tokens = True
        if not any(library.token_to_id(token) is not None for token in SEPARATORS):
            library.add_special_tokens([ADDED_SEPARATOR])
        self.separator: int = next(
            number for token in SEPARATORS if (number := library.token_to_id(token)) is not None
        )
        self.vocab_size: int = max(library.get_vocab(with_added_tokens=True).values()) + 1
        self.identity = hashlib.sha256(_canonical(library.to_str()).encode()).hexdigest()
        self._num_bytes = self.token_num_bytes()

    def encode(self, documents: Sequence[bytes]) -> Iterator[TokenArray]:
        """The ids of each document, without separator.

        Raises `RequestError` where the tokens' bytes do not add up to the document's.
        """
        texts = [document.decode() for document in documents]
        encodings = self._library.encode_batch_fast(texts, add_special_tokens=False)
        dtype = token_dtype(self.vocab_size)
        ids = [np.asarray(encoding.ids, dtype=dtype) for encoding in encodings]
        ends = np.cumsum([len(each) for each in ids], dtype=np.int64)
        bytes_up_to = np.cumsum(self._num_bytes[np.concatenate(ids)] if ids else [], dtype=np.int64)
        bytes_up_to = np.concatenate([[0], bytes_up_to])[ends]
        num_bytes = np.diff(bytes_up_to, prepend=0)
        for document, each, found in zip(documents, ids, num_bytes.tolist(), strict=True):
            if found != len(document):
                raise RequestError(
                    f"tokenizer {self._name} must keep every byte, but a document of "
                    f"{len(document)} bytes became tokens of {found}; use a byte-level BPE "
                    f"without normaliser or added prefix space, or the tokenizer 'bytes'"
                )
            yield each

    def token_num_bytes(self) -> npt.NDArray[np.int32]:
        """Bytes per id: one per character of the byte-level alphabet; 0 for special tokens."""
        counts = np.zeros(self.vocab_size, dtype=np.int32)
        for token, number in self._library.get_vocab(with_added_tokens=False).items():
            counts[number] = len(token)
        for number, added in self._library.get_added_tokens_decoder().items():
            counts[number] = 0 if added.special else len(added.content.encode())
        return counts

    def to_json(self) -> str | None:
        """The library's JSON, the separator among its special tokens."""
        return str(self._library.to_str())


def make_tokenizer(specification: str, training_documents: Iterator[bytes]) -> TextTokenizer:
    """The tokenizer of ``bytes``, ``bpe:N`` or ``file:PATH``; only ``bpe`` reads the documents.

    Raises `RequestError` where the specification is none of these or cannot be met.
    """
    definition_of(specification)
    kind, _, argument = specification.partition(":")
    if kind == "bytes":
        return ByteTokenizer()
    if kind == "bpe":
        return _train_byte_pairs(int(argument), training_documents)
    return _load_library_tokenizer(Path(argument))


def load_tokenizer(path: Path | None) -> TextTokenizer:
    """The tokenizer that a prepared corpus keeps in a file; bytes where it keeps none."""
    return ByteTokenizer() if path is None else _load_library_tokenizer(path)


def definition_of(specification: str) -> str:
    """What names the tokenizer before it exists: its specification, or a file's content hash.

    Raises `RequestError` for what is no specification, before any text is read.
    """
    kind, _, argument = specification.partition(":")
    if specification == "bytes":
        return specification
    if kind == "bpe":
        _check_bpe_size(argument)
        return specification
    if kind == "file" and argument:
        return "file:" + hashlib.sha256(_read_tokenizer_file(Path(argument)).encode()).hexdigest()
    raise RequestError(
        f"the tokenizer must be 'bytes', 'bpe:N' or 'file:PATH', got {specification!r}"
    )


def _check_bpe_size(size: str) -> None:
    is_number = size.isdecimal() and len(size) <= len(str(MAXIMUM_BPE_SIZE))
    if not is_number or not MINIMUM_BPE_SIZE <= int(size) <= MAXIMUM_BPE_SIZE:
        raise RequestError(
            f"bpe:N needs a vocabulary N of at least {MINIMUM_BPE_SIZE} (256 bytes and the "
            f"separator) and at most {MAXIMUM_BPE_SIZE:,}, got {size[:40]!r}; bpe:8192 is usual"
        )


def token_dtype(vocab_size: int) -> type[np.unsignedinteger]:
    """The narrowest unsigned type that holds every id."""
    if vocab_size <= 1 << 8:
        return np.uint8
    return np.uint16 if vocab_size <= 1 << 16 else np.uint32


def _train_byte_pairs(vocab_size: int, documents: Iterator[bytes]) -> LibraryTokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    library.train_from_iterator((document.decode() for document in documents), trainer)
    tokenizer = LibraryTokenizer(library, name=f"bpe:{vocab_size}")
    if tokenizer.vocab_size != vocab_size:
        raise RequestError(
            f"the training text yields only {tokenizer.vocab_size} symbols, not {vocab_size}; use "
            f"bpe:{tokenizer.vocab_size} or fewer, or the tokenizer 'bytes'"
        )
    return tokenizer


def _load_library_tokenizer(path: Path) -> LibraryTokenizer:
    from tokenizers import Tokenizer

    text = _read_tokenizer_file(path)
    try:
        library = Tokenizer.from_str(text)
    except Exception as error:  # the library raises plain Exception
        raise RequestError(f"{path} is no tokenizer of the library tokenizers: {error}") from error
    return LibraryTokenizer(library, name=str(path))


def _read_tokenizer_file(path: Path) -> str:
    """The text of a tokenizer's file; a device or a pipe is not opened, which might never end."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            kind = "a folder" if path.is_dir() else "a device or a pipe"
            raise RequestError(f"{path} is {kind}; name the JSON file of a tokenizer")
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE_BYTES)
        if len(content) == LARGEST_FILE_BYTES:
            raise RequestError(
                f"a tokenizer has less than {LARGEST_FILE_BYTES:,} bytes, but {path} has "
                f"{max(path.stat().st_size, LARGEST_FILE_BYTES):,} or more; name the JSON file of "
                f"a tokenizer"
            )
        return content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"tokenizer file {path} cannot be read: {error}") from error


def _canonical(text: str) -> str:
    return json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))
