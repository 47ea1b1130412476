"""The loop every backend shares: texts in, windows sorted by length, batches through a forward function, rows back in order."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from nearfield.encode.tokenize import TextTokenizer, length_batches
from nearfield.errors import FormatError
from nearfield.progress import progress as show_progress
from nearfield.types import FloatArray, IntArray

Forward = Callable[[IntArray, IntArray], FloatArray]

# Texts sorted together. 16,384 texts of 256 tokens are 17 MB as int32, and batches of like length waste under 1 % on padding.
WINDOW = 16_384
# Texts per call of the tokenizer: `tokenizers` makes Python lists that take some 40 bytes a token.
SLICE = 1_024


def run_batches(
    texts: list[str],
    prompt: str,
    tokenizer: TextTokenizer,
    forward: Forward,
    dim: int,
    *,
    max_rows: int,
    max_tokens: int,
    progress: bool = False,
) -> tuple[FloatArray, int]:
    """Encodes texts.

    Args:
        texts: checked texts (``check_texts``).
        prompt: put before every text.
        forward: ``(input_ids, attention_mask)``, int64 ``(n, t)``, to float32 ``(n, dim)``.
        max_rows, max_tokens: limits of one batch, see ``length_batches``.

    Returns:
        float32 ``(len(texts), dim)`` in the order given, and how many texts were cut.

    Raises:
        FormatError: vectors of another shape, or with NaN or infinity: the model's files are damaged.
    """
    out = np.empty((len(texts), dim), np.float32)
    truncated = 0
    with show_progress(f"encoding {len(texts):,} texts", len(texts), enabled=progress) as bar:
        for start in range(0, len(texts), WINDOW):
            ids: list[npt.NDArray[np.int32]] = []
            for low in range(start, min(start + WINDOW, len(texts)), SLICE):
                tokens, offsets, cut = tokenizer.encode(texts[low : min(low + SLICE, start + WINDOW)], prompt)
                truncated += cut
                ids.extend(tokens[begin:end] for begin, end in pairwise(offsets.tolist()))
            for places in length_batches([len(row) for row in ids], max_rows=max_rows, max_tokens=max_tokens):
                out[start + places] = check_vectors(forward(*tokenizer.pad([ids[place] for place in places])), start + places, dim)
                bar.advance(len(places))
    return out, truncated


def check_vectors(vectors: FloatArray, places: IntArray, dim: int) -> FloatArray:
    """Returns a model's vectors of the texts at ``places`` if they are numbers, ``(len(places), dim)`` of them; FormatError otherwise."""
    if vectors.shape != (len(places), dim):
        raise FormatError(f"the model gives vectors of shape {vectors.shape} for {len(places)} texts, (n, {dim}) expected: it is damaged")
    wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(wrong):
        raise FormatError(f"the model gives NaN or infinity for text {places[wrong[0]]}: its weights are damaged, take another copy")
    return vectors
