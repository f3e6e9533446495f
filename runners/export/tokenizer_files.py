"""How does a tokenizer leave? As the JSON of the library tokenizers, bytes too.

Of bytes, symbol 0 is the separator, as it was in training: no document holds a NUL.
"""

from __future__ import annotations

import json

from runners.text.tokenizers import ADDED_SEPARATOR, TextTokenizer


def tokenizer_files(tokenizer: TextTokenizer, *, context_length: int) -> dict[str, str]:
    """File names and texts of the tokenizer as transformers reads it."""
    library = tokenizer.to_json() or bytes_as_json()
    separator = next(
        token["content"]
        for token in json.loads(library)["added_tokens"]
        if token["id"] == tokenizer.separator
    )
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": separator,
        "eos_token": separator,
        "pad_token": separator,
        "model_max_length": context_length,
        "padding_side": "right",
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,
    }
    return {"tokenizer.json": library, "tokenizer_config.json": json.dumps(settings, indent=2)}


def bytes_as_json() -> str:
    """A tokenizer of the library whose ids are bytes: byte-level, no merges."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {character: byte for byte, character in enumerate(byte_alphabet()) if byte}
    library = Tokenizer(models.BPE(vocab={ADDED_SEPARATOR: 0, **vocabulary}, merges=[]))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens([ADDED_SEPARATOR])
    return str(library.to_str())


def byte_alphabet() -> list[str]:
    """The character that byte-level tokenizers write for each of the 256 bytes: those that print
    stand for themselves, the others come after 255 in order."""
    prints = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in prints]
    return [chr(byte) if byte in prints else chr(256 + others.index(byte)) for byte in range(256)]
