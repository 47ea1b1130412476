"""Texts to token ids, one thread: the native tokenizer beside the `tokenizers` library, on API documentation with all-MiniLM's vocabulary.

Both cut at 512 tokens; the quality is the share of texts with the same ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.core.machine import version_of
from benchmarks.core.plan import Plan
from benchmarks.core.results import Row
from benchmarks.core.texts import RAGGED, fingerprint, texts_of_length
from benchmarks.core.timing import Series, interleave

MAX_TOKENS = 512
# Tokens of a text, texts in a call, calls in a round.
CELLS = ((16, 1, 200), (64, 256, 1), (167, 256, 1))
QUICK_CELLS = ((16, 1, 20), (64, 16, 1))

Tokenize = Callable[[list[str]], Sequence[Sequence[int]]]


def run(plan: Plan) -> list[Row]:
    """All rows of the suite."""
    engines = _engines(plan)
    rows = []
    for tokens, batch, calls in QUICK_CELLS if plan.quick else CELLS:
        plan.say(f"tokenize: {batch} texts of {tokens} tokens in a call")
        texts = texts_of_length(plan, tokens, (plan.rounds + 1) * batch * calls, RAGGED)
        chunks = [
            [texts[at : at + batch] for at in range(r * batch * calls, (r + 1) * batch * calls, batch)] for r in range(plan.rounds + 1)
        ]
        wanted = [list(row) for row in engines["nearfield"](texts)]
        timed = interleave(engines, chunks)
        for name, tokenize in engines.items():
            same = float(np.mean([list(a) == b for a, b in zip(tokenize(texts), wanted, strict=True)]))
            label = f"{len(texts):,} pieces of API documentation ({fingerprint(texts)}), {np.mean([len(row) for row in wanted]):.0f} tokens"
            rows.append(_row(name, timed[name], label, tokens, batch, calls, same))
    return rows


def _engines(plan: Plan) -> dict[str, Tokenize]:
    from nearfield.encode.models import resolve_model
    from nearfield.encode.spec import weights_folder

    path = weights_folder(resolve_model()) / "tokenizer.json"
    engines = {"nearfield": _native(path)}
    if plan.peers and (not plan.only or any(text in "tokenizers" for text in plan.only)):
        engines["tokenizers"] = _library(path)
    return engines


def _native(path: Path) -> Tokenize:
    from nearfield.encode.tokenize import TextTokenizer

    tokenizer = TextTokenizer(path, MAX_TOKENS)
    assert tokenizer.native is not None, tokenizer.reason

    def tokenize(texts: list[str]) -> Sequence[Sequence[int]]:
        ids, offsets, _ = tokenizer.encode(texts)
        return _Rows(ids, offsets)

    return tokenize


class _Rows(Sequence[Sequence[int]]):
    """Rows of one array, made when they are asked for: the engine needs none."""

    def __init__(self, ids: np.ndarray, offsets: np.ndarray) -> None:
        self._ids, self._offsets = ids, offsets

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, place):  # type: ignore[no-untyped-def]
        if not 0 <= place < len(self):
            raise IndexError(place)
        return self._ids[self._offsets[place] : self._offsets[place + 1]].tolist()


def _library(path: Path) -> Tokenize:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return lambda texts: [encoding.ids for encoding in tokenizer.encode_batch_fast(texts)]


def _row(name: str, timed: Series, label: str, tokens: int, batch: int, calls: int, same: float) -> Row:
    seconds = timed.median / (calls * batch)
    single = batch == 1
    what = f"one text of {tokens} tokens" if single else f"{batch} texts of {tokens} tokens in a call"
    return Row(
        suite="tokenize",
        group=f"{what}, 1 thread",
        brief="",
        engine=name,
        version=version_of(name) or "",
        ours=name == "nearfield",
        data=label,
        threads=1,
        params={"tokens": tokens, "batch": batch},
        value=1e3 * seconds if single else 1 / seconds,
        unit="ms / text" if single else "texts / s",
        spread=timed.spread,
        p50=1e3 * timed.percentile(50) if single else None,
        p95=1e3 * timed.percentile(95) if single else None,
        p99=1e3 * timed.percentile(99) if single else None,
        quality_name="texts with nearfield's ids",
        quality=same,
        rounds=timed.raw(),
    )
