"""Texts to vectors, tokenization included: two models, four lengths, batches of 1 to 256, beside every engine that runs them on a CPU.

Each engine runs every cell at its own fastest setting, looked for on texts that are not timed. Shares of the ceiling count the
multiply-adds that the real tokens need (no padding), against the peak rate of the precision. The cosine is to torch in float32.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from benchmarks.core import held
from benchmarks.core.ceilings import threads_text
from benchmarks.core.peers import set_threads
from benchmarks.core.plan import Plan, usable_cores
from benchmarks.core.quality import mean_cosine
from benchmarks.core.results import Row
from benchmarks.core.texts import RAGGED, fingerprint, texts_of_length
from benchmarks.core.timing import Series, interleave
from benchmarks.encoders.engines import EncodeEngine, Maker, Setting
from benchmarks.encoders.loop import Encode
from benchmarks.encoders.models import AS_SHIPPED, DEEP, MAX_TOKENS, MINILM, Model, bundle

# Tokens of a query, a short paragraph, an API documentation entry, and a text cut at the model's length.
LENGTHS = (16, 64, 167, MAX_TOKENS)
BATCHES = (1, 8, 32, 256)
# Model, tokens, texts in a call: what a run shows without --full.
CORE = (
    (MINILM, 16, 1), (MINILM, 16, 32), (MINILM, 64, 32), (MINILM, 167, 1), (MINILM, 167, 32), (MINILM, 167, 256), (MINILM, MAX_TOKENS, 32),
    (DEEP, 16, 1), (DEEP, 167, 32),
)  # fmt: skip
# The bundle that end_to_end needs anyway: one export less where nothing is cached.
QUICK = ((AS_SHIPPED, 16, 1), (AS_SHIPPED, 64, 8))
# Cells whose figures stand in the README.
SHOWN = ((MINILM, 16, 1), (MINILM, 16, 32), (MINILM, 167, 32), (DEEP, 167, 32))
# Calls in a round: 40 of a short query; longer ones until a round has about so many tokens (a second of a slow engine on two cores).
CALLS, ROUND_TOKENS = 40, 4_000
BUDGET_S = 6.0
# A call that would take an engine longer gets a part of its texts, though never fewer than one batch of 32.
LONGEST_CALL_S, PART = 2.0, 32
CHECKED = 32


def operations(lengths: Sequence[int], config: dict[str, int]) -> float:
    """Operations (2 per multiply-add) that a BERT encoder needs for texts of these token counts.

    Per token and layer: 4 h^2 for query, key, value and output, 2 h i for the feed-forward part, 2 t h for scores and weighted sum over the
    t tokens of its text. For all-MiniLM-L6-v2 (6 layers, h = 384, i = 1,536) that is 10.6 million multiply-adds per token plus attention.
    """
    hidden, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    dense = 4 * hidden**2 + 2 * hidden * inner
    return 2.0 * layers * sum(t * (dense + 2 * t * hidden) for t in lengths)


def grid(plan: Plan) -> list[tuple[int, Model, int, int]]:
    """Threads, model, tokens and texts in a call of every cell."""
    if plan.full:
        return [(t, m, n, b) for t in plan.one_and_all for m in (MINILM, DEEP) for n in LENGTHS for b in BATCHES]
    return [(threads, *cell) for threads in plan.all_cores for cell in (QUICK if plan.quick else CORE)]


def run(plan: Plan) -> list[Row]:
    """All rows of the suite."""
    rows = []
    makers: dict[tuple[int, Model], Maker] = {}
    for threads, model, tokens, batch in grid(plan):
        set_threads(threads)
        if (threads, model) not in makers:
            for maker in makers.values():
                maker.close()
            makers = {(threads, model): Maker(plan, model, threads)}
        rows += _Cell(plan, makers[threads, model], tokens, batch).rows()
        plan.so_far(rows)
    return rows


def texts_for(plan: Plan, tokens: int, count: int) -> list[str]:
    """``count`` texts; those of the model's full length all fill it, shorter ones vary by a quarter."""
    return texts_of_length(plan, tokens, count, ragged=0.0 if tokens == MAX_TOKENS else RAGGED)


@dataclass
class _Cell:
    """One model, length, number of texts in a call and number of threads, for all engines."""

    plan: Plan
    maker: Maker
    tokens: int
    batch: int
    chosen: dict[str, tuple[Encode, Setting, int]] = field(default_factory=dict)

    def rows(self) -> list[Row]:
        plan, threads, model = self.plan, self.maker.threads, self.maker.model
        plan.say(f"encode: {model.name}, {self.tokens} tokens, {self.batch} texts in a call, {threads_text(threads)}")
        calls = max(1, min(CALLS, ROUND_TOKENS // (self.tokens * self.batch)))
        per_round = calls * self.batch
        texts = texts_for(plan, self.tokens, (plan.rounds + 1) * per_round + max(CHECKED, self.batch))
        trial, texts = texts[: max(CHECKED, self.batch)], texts[max(CHECKED, self.batch) :]
        counts = self.maker.token_counts(texts)
        cosines = self._choose(trial)
        chunks = [
            [texts[at : at + self.batch] for at in range(r * per_round, (r + 1) * per_round, self.batch)] for r in range(plan.rounds + 1)
        ]
        timed = interleave({name: partial(_part, *one) for name, one in self.chosen.items()}, chunks, budget_s=BUDGET_S)
        config = json.loads((bundle(plan, model) / "model" / "config.json").read_text(encoding="utf-8"))
        needed = operations(counts[per_round:], config) / len(counts[per_round:])  # of one text
        label = f"{len(texts):,} pieces of API documentation ({fingerprint(texts)}), {np.mean(counts):.0f} tokens on average"
        return [self._row(engine, timed[engine.name], calls, needed, label, cosines[engine.name]) for engine in self.maker.engines]

    def _choose(self, trial: list[str]) -> dict[str, float | None]:
        """Each engine's fastest setting on texts that are not timed, and the cosine of what it answers."""
        truth = self.maker.truth(trial[:CHECKED])
        cosines: dict[str, float | None] = {}
        for engine in self.maker.engines:
            encode, setting, seconds = self.maker.fastest(engine, trial[: self.batch])
            part = self.batch
            if seconds > LONGEST_CALL_S:
                part = min(self.batch, max(PART, int(self.batch * LONGEST_CALL_S / seconds)))
            self.chosen[engine.name] = (encode, setting, part)
            cosines[engine.name] = None if truth is None else mean_cosine(encode(trial[:CHECKED]), truth)
        return cosines

    def _row(self, engine: EncodeEngine, timed: Series, calls: int, needed: float, label: str, cosine: float | None) -> Row:
        _, setting, part = self.chosen[engine.name]
        plan, threads, model = self.plan, self.maker.threads, self.maker.model
        seconds = timed.median / (calls * part)  # of one text
        ceiling, share = plan.ceilings.compute(engine.precision, threads, needed, seconds, held.bound(plan, engine.ours))
        single = self.batch == 1
        what = f"one text of {self.tokens} tokens" if single else f"{self.batch} texts of {self.tokens} tokens"
        shown = [*(f"{value} {name}" for name, value in setting.items()), *([f"{part} of {self.batch}"] if part < self.batch else [])]
        params: dict[str, Any] = {
            "model": model.name, "tokens": self.tokens, "batch": self.batch, "precision": engine.precision, "texts_per_s": 1 / seconds,
            **({"shown": ", ".join(shown)} if shown else {}), **({"asked": part} if part < self.batch else {}),
        }  # fmt: skip
        return Row(
            suite="encode",
            group=f"{model.name}, {what}, {threads_text(threads)}",
            brief=f"{model.brief}, {what}" if (model, self.tokens, self.batch) in SHOWN and threads == usable_cores() else "",
            engine=engine.name,
            version=engine.version,
            ours=engine.ours,
            data=label,
            threads=threads,
            params=params,
            value=1000 * seconds if single else 1 / seconds,
            unit="ms / text" if single else "texts / s",
            spread=timed.spread,
            p50=1000 * timed.percentile(50) if single else None,
            p95=1000 * timed.percentile(95) if single else None,
            p99=1000 * timed.percentile(99) if single else None,
            quality_name="cosine to torch f32",
            quality=cosine,
            ceiling=ceiling,
            share=share,
            rounds=timed.raw(),
        )


def _part(encode: Encode, setting: Setting, part: int, texts: list[str]) -> np.ndarray:
    return encode(texts[:part])
