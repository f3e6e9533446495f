"""How does a stream of tokens get into a file, document by document?"""

from __future__ import annotations

from typing import IO, Any

import numpy as np

from runners.text.spool import Progress, SpooledDocuments
from runners.text.tokenizers import TextTokenizer, token_dtype

_ENCODING_BATCH_BYTES = 4_000_000


def write_stream(
    file: IO[bytes],
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
    header_bytes = _write_header(file, dtype, num_tokens)
    file.flush()  # no empty file, which might not have been locked yet
    for batch in documents.batches(indices, batch_bytes=_ENCODING_BATCH_BYTES):
        for ids in tokenizer.encode(batch):
            file.write(ids.astype(dtype, copy=False).tobytes())
            file.write(separator.tobytes())
            num_tokens += len(ids) + 1
        num_documents += len(batch)
        progress.maybe(
            f"text: {num_documents} of {len(indices)} documents tokenised, {num_tokens / 1e6:.0f} "
            f"M tokens"
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
