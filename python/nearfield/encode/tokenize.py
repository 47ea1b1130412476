"""Texts to token ids, padded batches of them, and the order in which batches are made."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nearfield.errors import FormatError, InputError
from nearfield.types import IntArray

# Rust threads of the tokenizer would ignore our thread count and do not survive a fork (the library prints a warning at every
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

    Args:
        tokenizer_json: path of the file.
        max_tokens: tokens per text, special tokens included.

    Raises:
        FormatError: the file is missing or not a tokenizer.
    """

    def __init__(self, tokenizer_json: str | Path, max_tokens: int) -> None:
        from tokenizers import Tokenizer

        self.path = Path(tokenizer_json)
        self.max_tokens = max_tokens
        if not self.path.is_file():
            raise FormatError(
                f"{self.path}: missing; the fast tokenizer's file is needed: save it with transformers' AutoTokenizer ... save_pretrained"
            )
        try:
            self._tokenizer = Tokenizer.from_file(str(self.path))
            self._tokenizer.no_padding()
            self._tokenizer.enable_truncation(max_tokens)
        except Exception as error:  # the library raises bare Exception for everything
            raise FormatError(f"{self.path}: not a tokenizer that can be read ({error})") from None
        padding = next((i for i in map(self._tokenizer.token_to_id, _PAD_NAMES) if i is not None), None)
        self.pad_id: int = padding if padding is not None else 0

    def __call__(self, texts: Sequence[str]) -> TokenizedTexts:
        """Tokenizes texts already checked by ``check_texts``; prompts are the caller's to prepend.

        Returns:
            ids of each text in order, at most ``max_tokens`` each, and the number of texts that were longer than that.
        """
        ids: list[list[int]] = [[]] * len(texts)
        truncated, waiting, reach = 0, list(range(len(texts))), FRONT_CHARACTERS * self.max_tokens
        while waiting:
            fronts = [_front(texts[i], reach) for i in waiting]
            unfilled = []
            for i, front, encoding in zip(waiting, fronts, self._tokenizer.encode_batch_fast(fronts), strict=True):
                ids[i] = encoding.ids
                # Asking for the overflow copies it, so only full texts are asked.
                if len(ids[i]) >= self.max_tokens and encoding.overflowing:
                    truncated += 1
                elif len(front) < len(texts[i]):
                    unfilled.append(i)
            waiting, reach = unfilled, 8 * reach
        return TokenizedTexts(ids, truncated)

    def pad(self, ids: Sequence[Sequence[int] | IntArray]) -> tuple[IntArray, IntArray]:
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
    for place, text in enumerate(rows):
        if not isinstance(text, str):
            raise InputError(f"{what}[{place}]: {type(text).__name__} given, str expected")
        if not text.isascii():
            try:
                text.encode("utf-8")
            except UnicodeEncodeError as error:
                raise InputError(
                    f"{what}[{place}]: a lone surrogate U+{ord(text[error.start]):04X} at character {error.start}; "
                    "read the file with encoding='utf-8', errors='replace'"
                ) from None
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
