"""Texts to token ids, padded batches of them, and the order in which batches are made."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nearfield import _core
from nearfield.encode.wordpiece import native_tokenizer
from nearfield.errors import FormatError, InputError
from nearfield.types import IntArray

# Rust threads of the library would ignore our thread count and do not survive a fork (the library prints a warning at every
# fork then). One thread makes some 10,000 texts of 60 tokens a second, far more than a model reads. A caller's setting wins.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# The tokenizer reads a text to its end before cutting it, and takes 160 bytes of memory for each character. Only a text's front is kept:
# prose has 4 to 6 characters to a token, so that a front of 8 nearly always holds more tokens than that. It is divided at a space, where
# words end for every tokenizer; a text without any for 16 times that length is divided there, far behind the last token kept.
FRONT_CHARACTERS = 8
_WITHOUT_SPACE = 16

_PAD_NAMES = ("[PAD]", "<pad>", "<|pad|>", "<|endoftext|>")


@dataclass(frozen=True, slots=True)
class TokenizedTexts:
    """Token ids of each text, special tokens included, and how many texts were cut to fit."""

    ids: list[list[int]]
    truncated: int


class TextTokenizer:
    """A ``tokenizer.json`` with a maximum length. Safe to call from several threads.

    WordPiece of BERT's family is done natively, anything else by the ``tokenizers`` package; the ids are the same.

    Args:
        tokenizer_json: path of the file.
        max_tokens: tokens per text, special tokens included.

    Attributes:
        native: the native tokenizer, or None where ``tokenizers`` does the work.
        reason: why it does; empty where ``native`` is set.

    Raises:
        FormatError: the file is missing or not a tokenizer.
    """

    def __init__(self, tokenizer_json: str | Path, max_tokens: int) -> None:
        self.path = Path(tokenizer_json)
        self.max_tokens = max_tokens
        if not self.path.is_file():
            raise FormatError(
                f"{self.path}: missing; the fast tokenizer's file is needed: save it with transformers' AutoTokenizer ... save_pretrained"
            )
        found = native_tokenizer(self.path, max_tokens)
        self.native: _core.WordPiece | None = None
        self.reason = ""
        self._library: Any = None
        if isinstance(found, str):
            self.reason = found
            self._library = _load_library(self.path, max_tokens)
            id_of: Callable[[str], int | None] = self._library.token_to_id
        else:
            self.native, id_of = found.wordpiece, found.ids.get
        padding = next((i for i in map(id_of, _PAD_NAMES) if i is not None), None)
        self.pad_id: int = padding if padding is not None else 0

    def __call__(self, texts: Sequence[str]) -> TokenizedTexts:
        """Tokenizes texts already checked by ``check_texts``; prompts are the caller's to prepend.

        Returns:
            ids of each text in order, at most ``max_tokens`` each, and the number of texts that were longer than that.
        """
        if self.native is None:
            return self._by_library(texts)
        ids, offsets, truncated = self.native.encode(list(texts), self.max_tokens)
        bounds = offsets.tolist()
        row = ids.tolist()
        return TokenizedTexts([row[low:high] for low, high in pairwise(bounds)], truncated)

    def encode(self, texts: list[str], prompt: str = "") -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], int]:
        """Tokenizes ``prompt`` followed by each text, into one array.

        Returns:
            ids, int32, one text behind the other; offsets, int64 ``(len(texts) + 1,)``: text i has ``ids[offsets[i]:offsets[i + 1]]``;
            and how many texts were cut.
        """
        if self.native is not None:
            return self.native.encode(texts, self.max_tokens, prompt)
        found = self._by_library([prompt + text for text in texts])
        offsets = np.zeros(len(texts) + 1, np.int64)
        np.cumsum([len(row) for row in found.ids], out=offsets[1:])
        return np.fromiter((i for row in found.ids for i in row), np.int32, int(offsets[-1])), offsets, found.truncated

    def _by_library(self, texts: Sequence[str]) -> TokenizedTexts:
        ids: list[list[int]] = [[]] * len(texts)
        truncated, waiting, reach = 0, list(range(len(texts))), FRONT_CHARACTERS * self.max_tokens
        while waiting:
            fronts = [_front(texts[i], reach) for i in waiting]
            unfilled = []
            for i, front, encoding in zip(waiting, fronts, self._ask_library(fronts), strict=True):
                ids[i] = encoding.ids
                # Asking for the overflow copies it, so only full texts are asked.
                if len(ids[i]) >= self.max_tokens and encoding.overflowing:
                    truncated += 1
                elif len(front) < len(texts[i]):
                    unfilled.append(i)
            waiting, reach = unfilled, 8 * reach
        return TokenizedTexts(ids, truncated)

    def _ask_library(self, texts: list[str]) -> Any:
        with _refusing(self.path, "not a tokenizer that can be used"):
            return self._library.encode_batch_fast(texts)

    def pad(self, ids: Sequence[Sequence[int] | npt.NDArray[np.int32] | IntArray]) -> tuple[IntArray, IntArray]:
        """Right-pads rows to the longest (at least one column).

        Returns:
            ``(input_ids, attention_mask)``, both int64 ``(n, longest)``; the mask is 1 on real tokens.
        """
        lengths = np.fromiter((len(row) for row in ids), np.int64, len(ids))
        width = max(1, int(lengths.max(initial=0)))
        mask = np.arange(width) < lengths[:, None]
        input_ids = np.full((len(ids), width), self.pad_id, np.int64)
        for row, tokens in enumerate(ids):
            input_ids[row, : len(tokens)] = tokens
        return input_ids, mask.astype(np.int64)


def _load_library(path: Path, max_tokens: int) -> Any:
    """The file as ``tokenizers`` reads it, which takes 50 ms and is not even imported where the native tokenizer does the work."""
    from tokenizers import Tokenizer

    with _refusing(path, "not a tokenizer that can be read"):
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_tokens)
    return tokenizer


@contextmanager
def _refusing(path: Path, what: str) -> Iterator[None]:
    """Whatever ``tokenizers`` fails with is one line about its file."""
    try:
        yield
    except BaseException as error:
        # The library raises bare Exception for everything, and a panic in Rust arrives as pyo3's PanicException, which is not even one of
        # these and has no name to import.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise FormatError(f"{path}: {what} ({error})") from None


def _front(text: str, reach: int) -> str:
    """The text up to its first space from ``reach`` on.

    >>> _front("one two three", 4)
    'one two'
    """
    if len(text) <= reach:
        return text
    end = text.find(" ", reach, _WITHOUT_SPACE * reach)
    return text[: end if end > 0 else _WITHOUT_SPACE * reach]


def check_texts(texts: Iterable[str], *, what: str = "texts") -> list[str]:
    """Returns the texts as a list of well-formed strings; one ``str`` is one text.

    Raises:
        InputError: something that is not a ``str``, or holds a lone surrogate (not a character, so no tokenizer takes it), with its place.

    >>> check_texts("one text")
    ['one text']
    """
    if isinstance(texts, str):
        texts = [texts]
    if isinstance(texts, (bytes, bytearray)) or not isinstance(texts, Iterable):
        raise InputError(f"{what}: {type(texts).__name__} given, a str or a list of str expected")
    rows = list(texts)
    _core.check_texts(rows, what)
    return rows


def length_batches(lengths: Sequence[int] | IntArray, *, max_rows: int, max_tokens: int) -> list[IntArray]:
    """Groups texts of like length, longest first, so that little padding is computed and memory peaks at the start.

    Args:
        lengths: tokens of each text.
        max_rows: most texts in a batch.
        max_tokens: most padded tokens in a batch (rows times longest); a single longer text is a batch of its own.

    Returns:
        positions into ``lengths``, int64, each exactly once.

    >>> [batch.tolist() for batch in length_batches([3, 9, 4, 8], max_rows=2, max_tokens=100)]
    [[1, 3], [2, 0]]
    """
    sizes = np.asarray(lengths, np.int64)
    order = np.argsort(-sizes, kind="stable")
    batches = []
    start = 0
    while start < len(order):
        rows = max(1, min(max_rows, max_tokens // max(1, int(sizes[order[start]]))))
        batches.append(order[start : start + rows])
        start += rows
    return batches
