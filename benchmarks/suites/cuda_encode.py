"""Texts to vectors on a GPU, tokenization and copies included: one text, 32, 256 and 2,048 in a call, beside sentence-transformers.

sentence-transformers runs in the same 16-bit type with torch's fused attention, its own sorting by length and its tokenizer on all cores,
at the fastest of several batch sizes for each cell. Shares are of the GPU's measured rate of a large product in the row's type and count
the multiply-adds of real tokens only. The cosine is to float32 on the CPU.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import nearfield
from benchmarks.core import gpu
from benchmarks.core.gpu import Gpu
from benchmarks.core.machine import version_of
from benchmarks.core.plan import Plan
from benchmarks.core.quality import mean_cosine
from benchmarks.core.results import Row
from benchmarks.core.timing import Series, interleave
from benchmarks.encoders import shaped
from benchmarks.suites.encode import operations

Encode = Callable[[list[str]], np.ndarray]

LENGTHS = (16, 64, 167, 512)
BATCHES = (1, 32, 256, 2048)
CORE = tuple((tokens, batch) for tokens in LENGTHS for batch in BATCHES if (tokens, batch) not in {(64, 32), (512, 2048)})
QUICK = ((16, 1), (167, 32))
# Calls in a round: single texts take a fraction of a millisecond, and their 99th percentile is to be of some hundreds.
CALLS = {1: 60, 32: 10, 256: 3}
ROUNDS, QUICK_ROUNDS = 5, 3
# A contestant that has used so many seconds of a cell stops at three rounds.
BUDGET_S = 1.5
# Batch sizes that sentence-transformers may choose among; a call of fewer texts is one batch anyway.
THEIR_BATCHES = (32, 128, 256, 512)
CHECKED = 32
PRECISIONS = {"fp16": "float16", "bf16": "bfloat16"}


def run(plan: Plan, *, device: Gpu | None = None, model: Path | None = None) -> list[Row]:
    """All rows of the suite; none, and a line that says so, where there is no GPU.

    Args:
        plan: what the run was asked to do.
        device, model: replace the GPU and the model (tests).
    """
    device = device or gpu.find(plan, "cuda_encode")
    if device is None:
        return []
    folder, label = (model, "a tiny model") if model is not None else shaped.model(plan)
    ours = {f"nearfield {name}": _ours(plan, folder, device, name) for name in device.rates}
    theirs = {f"sentence-transformers {name}": _theirs(folder, device, name) for name in device.rates} if _has_peer(plan) else {}
    rows = []
    truths: dict[int, np.ndarray] = {}
    reference = nearfield.Encoder(folder, backend="torch")
    for tokens, batch in CORE if not plan.quick else QUICK:
        plan.say(f"cuda_encode: {batch} texts of {tokens} tokens")
        calls = CALLS.get(batch, 1)
        rounds = (QUICK_ROUNDS if plan.quick else ROUNDS) + 1
        texts = shaped.texts_of(folder, tokens, max(CHECKED, batch) + rounds * calls * batch, ragged=0.0 if tokens == 512 else 0.25)
        trial, texts = texts[: max(CHECKED, batch)], texts[max(CHECKED, batch) :]
        if tokens not in truths:
            truths[tokens] = reference.encode(trial[:CHECKED])
        cell = _Cell(device, tokens, batch, calls, _needed(folder, texts), f"{label}; runs of this project's documentation")
        contestants: dict[str, Encode] = {}
        for name, encode in ours.items():
            encode(trial[:batch])
            contestants[name] = encode
        shown = {}
        for name, make in theirs.items():
            contestants[name], shown[name] = _fastest(make, trial[:batch])
        chunks = [[texts[at : at + batch] for at in range(r * calls * batch, (r + 1) * calls * batch, batch)] for r in range(rounds)]
        timed = interleave(contestants, chunks, budget_s=BUDGET_S)
        for name, encode in contestants.items():
            rows.append(cell.row(name, timed[name], mean_cosine(encode(trial[:CHECKED]), truths[tokens]), shown.get(name)))
    return rows


def _ours(plan: Plan, folder: Path, device: Gpu, precision: Any) -> Encode:
    start = time.perf_counter()
    on = {"device": device.ours} if device.ours != "cpu" else {}
    encoder = nearfield.Encoder(folder, backend="torch", precision=precision if on else "fp32", **on)
    opened = time.perf_counter()
    encoder.warmup()
    plan.say(f"cuda_encode: nearfield {precision}: opened in {opened - start:.2f} s, warmed up in {time.perf_counter() - opened:.2f} s")
    packed = encoder._packed
    for note in packed.notes if packed is not None else []:
        plan.say(f"cuda_encode: {note}")
    if packed is not None:
        reason = packed._lanes.reason if packed._lanes is not None else ""
        plan.say(f"cuda_encode: {packed.kernels} kernels, {len(packed.recorded)} recorded sizes {reason}")
    return encoder.encode


def _has_peer(plan: Plan) -> bool:
    if not plan.wants("sentence-transformers"):
        return False
    if version_of("sentence-transformers") is None:
        plan.skipped.append("skipped: sentence-transformers (not installed: pip install 'nearfield[bench]')")
        return False
    return True


def _theirs(folder: Path, device: Gpu, precision: str) -> Callable[[int], Encode]:
    import torch
    from sentence_transformers import SentenceTransformer

    os.environ["TOKENIZERS_PARALLELISM"] = "true"  # nearfield's import switches it off where nobody asks for it
    kwargs = {"dtype": getattr(torch, PRECISIONS[precision]), "attn_implementation": "sdpa"}
    tower = SentenceTransformer(str(folder), device=device.ours, model_kwargs=kwargs)
    tower.max_seq_length = shaped.MAX_TOKENS
    return lambda rows: lambda texts: tower.encode(texts, batch_size=rows, normalize_embeddings=True, show_progress_bar=False)


def _fastest(make: Callable[[int], Encode], texts: list[str]) -> tuple[Encode, str]:
    """The fastest batch size for a call with these texts, each tried after a call that does not count."""
    best: tuple[float, Encode, str] | None = None
    for rows in [rows for i, rows in enumerate(THEIR_BATCHES) if i == 0 or rows <= len(texts)]:
        encode = make(rows)
        encode(texts)
        start = time.perf_counter()
        encode(texts)
        seconds = time.perf_counter() - start
        if best is None or seconds < best[0]:
            best = seconds, encode, f"batches of {rows}"
    assert best is not None
    return best[1], best[2]


def _needed(folder: Path, texts: Sequence[str]) -> tuple[float, float]:
    """Operations and tokens of one text, on average over some."""
    from nearfield.encode.tokenize import TextTokenizer

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    lengths = [len(row) for row in TextTokenizer(folder / "tokenizer.json", shaped.MAX_TOKENS)(texts[:2_000]).ids]
    return operations(lengths, config) / len(lengths), float(np.mean(lengths))


class _Cell:
    """Texts of one length, so many in a call."""

    def __init__(self, device: Gpu, tokens: int, batch: int, calls: int, needed: tuple[float, float], data: str) -> None:
        self.device, self.tokens, self.batch, self.calls, self.needed, self.data = device, tokens, batch, calls, needed, data

    def row(self, name: str, timed: Series, cosine: float, shown: str | None) -> Row:
        single, seconds = self.batch == 1, timed.median / (self.calls * self.batch)
        precision = name.rsplit(" ", 1)[1]
        peak = self.device.rates[precision]
        what = f"one text of {self.tokens} tokens" if single else f"{self.batch} texts of {self.tokens} tokens"
        ours = name.startswith("nearfield")
        return Row(
            suite="cuda_encode",
            group=f"{what}, {self.device.name}",
            brief=what,
            engine=name,
            version=nearfield.__version__ if ours else version_of("sentence-transformers") or "?",
            ours=ours,
            data=f"{self.data}, {self.needed[1]:.0f} tokens on average",
            threads=1,
            params={
                "tokens": self.tokens, "batch": self.batch, "precision": precision, "device": self.device.name, "texts_per_s": 1 / seconds,
                "tokens_per_s": self.needed[1] / seconds, **({"shown": shown} if shown else {}),
            },
            value=1000 * seconds if single else 1 / seconds,
            unit="ms / text" if single else "texts / s",
            spread=timed.spread,
            p50=1000 * timed.percentile(50),
            p99=1000 * timed.percentile(99),
            quality_name="cosine to f32",
            quality=cosine,
            ceiling=f"{precision} matrix product: {peak / 1e12:,.1f} TFLOP/s",
            share=self.needed[0] / seconds / peak,
            rounds=timed.raw(),
        )  # fmt: skip
