"""Does every tokenizer keep every byte, and give the same ids each time?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.text.tokenizers import (
    ByteTokenizer,
    LibraryTokenizer,
    TextTokenizer,
    definition_of,
    make_tokenizer,
    token_dtype,
)
from spaces.errors import RequestError

TEXTS = [
    b"The fox, the dog and the fox's dog. <|endoftext|> is no separator here.\n" * 4,
    "Grüße aus 東京: naïve façade \U0001f98a".encode(),
]


def small_byte_pairs(vocab_size: int = 300) -> LibraryTokenizer:
    tokenizer = make_tokenizer(f"bpe:{vocab_size}", iter(TEXTS))
    assert isinstance(tokenizer, LibraryTokenizer)
    return tokenizer


BYTE_PAIRS = small_byte_pairs()


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), BYTE_PAIRS], ids=["bytes", "bpe"])
@given(text=st.text(alphabet=st.characters(exclude_characters="\0", codec="utf-8"), max_size=60))
def test_bytes_of_tokens_are_the_bytes_of_text(tokenizer: TextTokenizer, text: str) -> None:
    (ids,) = tokenizer.encode([text.encode()])
    assert tokenizer.token_num_bytes()[ids].sum() == len(text.encode())
    assert tokenizer.separator not in ids


def test_separator_stands_for_no_byte_and_lies_in_the_vocabulary() -> None:
    for tokenizer in (ByteTokenizer(), BYTE_PAIRS):
        assert tokenizer.token_num_bytes()[tokenizer.separator] == 0
        assert len(tokenizer.token_num_bytes()) == tokenizer.vocab_size
        assert 0 <= tokenizer.separator < tokenizer.vocab_size


def test_byte_pairs_shorten_text_and_decode_to_it() -> None:
    from tokenizers import Tokenizer

    ids = list(BYTE_PAIRS.encode(TEXTS))
    assert len(ids[0]) < len(TEXTS[0]) / 2
    library = Tokenizer.from_str(BYTE_PAIRS.to_json())
    assert [library.decode(list(map(int, i))).encode() for i in ids[1:]] == TEXTS[1:]


def test_training_twice_gives_the_same_tokenizer() -> None:
    assert small_byte_pairs().identity == BYTE_PAIRS.identity
    assert small_byte_pairs(290).identity != BYTE_PAIRS.identity


def test_a_saved_tokenizer_gives_the_same_ids(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(BYTE_PAIRS.to_json() or "")
    loaded = make_tokenizer(f"file:{tmp_path / 't.json'}", iter(()))
    assert (loaded.identity, loaded.vocab_size) == (BYTE_PAIRS.identity, 300)
    for one, other in zip(loaded.encode(TEXTS), BYTE_PAIRS.encode(TEXTS), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_shared_tokenizer_is_read_with_its_separator(shared_data: Path) -> None:
    tokenizer = make_tokenizer(f"file:{shared_data / 'tokenizers' / 'bpe-8k.json'}", iter(()))
    assert (tokenizer.vocab_size, tokenizer.separator) == (8192, 0)
    assert all(0 not in ids for ids in tokenizer.encode(TEXTS))


def test_a_tokenizer_that_changes_text_is_refused(tmp_path: Path) -> None:
    changed = json.loads(BYTE_PAIRS.to_json() or "")
    changed["normalizer"] = {"type": "NFKD"}
    (tmp_path / "t.json").write_text(json.dumps(changed))
    tokenizer = make_tokenizer(f"file:{tmp_path / 't.json'}", iter(()))
    with pytest.raises(RequestError, match="must keep every byte, but a document of 39 bytes"):
        list(tokenizer.encode(TEXTS[1:]))


@pytest.mark.parametrize(
    ("specification", "message"),
    [
        ("words", "must be 'bytes', 'bpe:N' or 'file:PATH', got 'words'"),
        ("bytes:7", "must be 'bytes'"),
        ("file:", "must be 'bytes'"),
        ("bpe:256", "at least 257 .* got '256'"),
        ("bpe:many", "at least 257 .* got 'many'"),
        ("file:/nowhere/t.json", "tokenizer file /nowhere/t.json cannot be read"),
    ],
)
def test_wrong_specifications_are_refused_before_text_is_read(
    specification: str, message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        definition_of(specification)

    def unread() -> Iterator[bytes]:
        raise AssertionError("text was read")
        yield b""

    with pytest.raises(RequestError, match=message):
        make_tokenizer(specification, unread())


def test_too_little_text_for_the_vocabulary_says_what_is_possible() -> None:
    with pytest.raises(RequestError, match=r"yields only 25\d symbols, not 8192; use bpe:25\d"):
        make_tokenizer("bpe:8192", iter([b"a b"]))


def test_a_file_that_is_no_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(RequestError, match=r"t\.json is no tokenizer"):
        make_tokenizer(f"file:{tmp_path / 't.json'}", iter(()))


@pytest.mark.parametrize(("size", "dtype"), [(256, np.uint8), (257, np.uint16), (65537, np.uint32)])
def test_narrowest_type(size: int, dtype: type) -> None:
    assert token_dtype(size) is dtype
