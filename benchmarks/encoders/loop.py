"""The loop one would write by hand around a graph: tokenize, sort by length, pad, run batches, put the rows back in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

Forward = Callable[[np.ndarray, np.ndarray], np.ndarray]
Encode = Callable[[Sequence[str]], np.ndarray]


class HandLoop:
    """Texts to rows through ``forward``.

    Args:
        model: the folder with ``tokenizer.json``.
        max_tokens: longer texts are cut.
        forwards: each ``(input_ids, attention_mask)``, int64 ``(n, t)``, to ``(n, dim)``; several run at the same time, one thread each.
        rows: texts of one batch.
    """

    def __init__(self, model: Path, max_tokens: int, forwards: Sequence[Forward], rows: int) -> None:
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(max_tokens)
        self.forwards, self.rows = forwards, rows
        self.pool = ThreadPoolExecutor(len(forwards)) if len(forwards) > 1 else None

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        ids = self.tokenize(texts)
        batches = list(self._batches(ids))
        if self.pool is None or len(batches) == 1:
            parts = [self.forwards[0](*padded([ids[place] for place in places])) for places in batches]
        else:
            free = list(self.forwards)

            def run(places: np.ndarray) -> np.ndarray:
                forward = free.pop()  # never empty: as many workers as forwards
                try:
                    return forward(*padded([ids[place] for place in places]))
                finally:
                    free.append(forward)

            parts = list(self.pool.map(run, batches))
        out = np.empty((len(texts), parts[0].shape[1]), np.float32)
        for places, part in zip(batches, parts, strict=True):
            out[places] = part
        return out

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, cut, special tokens included."""
        return [item.ids for item in self.tokenizer.encode_batch_fast(list(texts))]

    def _batches(self, ids: list[list[int]]) -> Iterator[np.ndarray]:
        order = np.argsort([-len(row) for row in ids], kind="stable")
        # Several forwards share a call only if there are as many batches.
        rows = min(self.rows, -(-len(ids) // len(self.forwards)))
        for start in range(0, len(ids), rows):
            yield order[start : start + rows]

    def close(self) -> None:
        """Ends the pool."""
        if self.pool is not None:
            self.pool.shutdown()


def padded(rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """``(input_ids, attention_mask)``, right-padded with 0 to the longest row."""
    width = max(len(row) for row in rows)
    ids = np.zeros((len(rows), width), np.int64)
    mask = np.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(row)], mask[place, : len(row)] = row, 1
    return ids, mask
