"""Texts to vectors with all-MiniLM-L6-v2, tokenization included: throughput over three lengths, and one query at a time.

Shares of the ceiling count the multiply-adds that the real tokens need (no padding), against the peak rate of the precision.
The cosine is to torch in float32.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np

import nearfield
from benchmarks.core import data
from benchmarks.core.ceilings import threads_text
from benchmarks.core.peers import Engine, present, set_threads
from benchmarks.core.plan import Plan
from benchmarks.core.quality import mean_cosine
from benchmarks.core.results import Row
from benchmarks.core.texts import fingerprint, texts_of_length
from benchmarks.core.timing import Series, interleave

# Peers take batches of 32, sorted by length; our Encoder makes its own batches from a token budget.
BATCH = 32
# Mean tokens -> texts per round: a query, a short paragraph, an API documentation entry; about one or two seconds each on two AVX2 cores.
LENGTHS = {16: 256, 64: 128, 167: 64}
QUICK_LENGTHS = {16: 64, 64: 32, 167: 16}
# The latency of one query is measured on the shortest texts, this many calls per round.
CALLS = 40
BUDGET_S = 20.0

Encode = Callable[[Sequence[str]], np.ndarray]


def _ours(precision: Literal["fp32", "int8"]) -> Callable[[Path, Path, int], Encode]:
    def make(bundle: Path, model: Path, threads: int) -> Encode:
        return nearfield.Encoder(bundle, backend="onnx", precision=precision, threads=threads).encode

    return make


def _sentence_transformers(bundle: Path, model: Path, threads: int) -> Encode:
    from sentence_transformers import SentenceTransformer

    tower = SentenceTransformer(str(model), device="cpu")
    return lambda texts: tower.encode(list(texts), batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False)


def _onnxruntime(file: str) -> Callable[[Path, Path, int], Encode]:
    """The short loop one would write by hand: tokenize, sort by length, pad, run; onnxruntime's defaults but for the threads."""

    def make(bundle: Path, model: Path, threads: int) -> Encode:
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(str(bundle / "onnx" / file), options, providers=["CPUExecutionProvider"])
        inputs = {item.name for item in session.get_inputs()}
        tokenizer = Tokenizer.from_file(str(bundle / "model" / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(256)

        def encode(texts: Sequence[str]) -> np.ndarray:
            encodings = tokenizer.encode_batch(list(texts))
            order = np.argsort([-len(item.ids) for item in encodings], kind="stable")
            out = np.empty((len(texts), data.DIM), np.float32)
            for start in range(0, len(texts), BATCH):
                rows = order[start : start + BATCH]
                ids = np.zeros((len(rows), len(encodings[rows[0]].ids)), np.int64)
                mask = np.zeros_like(ids)
                for place, row in enumerate(rows):
                    found = encodings[row].ids
                    ids[place, : len(found)], mask[place, : len(found)] = found, 1
                feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
                out[rows] = session.run(None, {name: value for name, value in feed.items() if name in inputs})[0]
            return out

        return encode

    return make


ENGINES = (
    Engine("nearfield Encoder onnx fp32", _ours("fp32")),
    Engine("nearfield Encoder onnx int8", _ours("int8"), precision="int8"),
    Engine("sentence-transformers torch fp32", _sentence_transformers, "sentence-transformers", ("sentence_transformers", "torch")),
    Engine("onnxruntime fp32", _onnxruntime("model.onnx"), "onnxruntime", ("onnxruntime",)),
    Engine("onnxruntime int8", _onnxruntime("model.int8.onnx"), "onnxruntime", ("onnxruntime",), precision="int8"),
)


def operations(lengths: Sequence[int], config: dict[str, int]) -> float:
    """Operations (2 per multiply-add) that a BERT encoder needs for texts of these token counts.

    Per token and layer: 4 h^2 for query, key, value and output, 2 h i for the feed-forward part, 2 t h for scores and weighted sum over the
    t tokens of its text. For all-MiniLM-L6-v2 (6 layers, h = 384, i = 1,536) that is 10.6 million multiply-adds per token plus attention.
    """
    hidden, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    dense = 4 * hidden**2 + 2 * hidden * inner
    return 2.0 * layers * sum(t * (dense + 2 * t * hidden) for t in lengths)


def run(plan: Plan) -> list[Row]:
    """All rows of the suite."""
    from nearfield.encode.models import resolve_model

    model, bundle = resolve_model(None), data.bundle(plan)
    rows = []
    for threads in plan.all_cores:
        set_threads(threads)
        engines = present(ENGINES, plan)
        encoders = {engine.name: engine.make(bundle, model, threads) for engine in engines}
        for tokens, count in (QUICK_LENGTHS if plan.quick else LENGTHS).items():
            texts = texts_of_length(plan, tokens, (plan.rounds + 1) * count)
            work = _Work(plan, engines, encoders, model, texts, tokens, threads)
            rows += work.throughput(count)
            if tokens == min(LENGTHS):
                rows += work.latency()
    return rows


@dataclass
class _Work:
    """One text length with one number of threads: what throughput and latency share."""

    plan: Plan
    engines: list[Engine]
    encoders: dict[str, Encode]
    model: Path
    texts: list[str]
    tokens: int
    threads: int

    def __post_init__(self) -> None:
        self.config = json.loads((self.model / "config.json").read_text(encoding="utf-8"))
        self.counts = _token_counts(self.model, self.texts)
        made = f"API documentation ({fingerprint(self.texts)})"
        self.label = f"{len(self.texts):,} pieces of {made}, {np.mean(self.counts):.0f} tokens on average"
        self.cosines = self._cosines(self.texts[:BATCH])

    def _cosines(self, texts: list[str]) -> dict[str, float | None]:
        if find_spec("torch") is None:
            self.plan.say("encode: no torch, so no cosine to float32")
            return dict.fromkeys(self.encoders)
        reference = nearfield.Encoder(self.model, backend="torch", threads=self.threads)
        truth = reference.encode(texts)
        reference.close()
        set_threads(self.threads)
        return {name: mean_cosine(encode(texts), truth) for name, encode in self.encoders.items()}

    def throughput(self, count: int) -> list[Row]:
        rounds = self.plan.rounds + 1
        self.plan.say(f"encode: {count} texts of about {self.tokens} tokens, {threads_text(self.threads)}, {self.plan.rounds} rounds")
        timed = interleave(self.encoders, [[self.texts[i * count : (i + 1) * count]] for i in range(rounds)], budget_s=BUDGET_S)
        group = f"throughput, {self.tokens} tokens, {count} texts per round, {threads_text(self.threads)}"
        needed = operations(self.counts[count : rounds * count], self.config) / self.plan.rounds
        return [self._row(engine, timed[engine.name], group, f"{self.tokens} tokens", count, needed) for engine in self.engines]

    def latency(self) -> list[Row]:
        rounds = self.plan.rounds + 1
        chosen = self.texts[: rounds * CALLS]
        self.plan.say(f"encode: one query at a time, {threads_text(self.threads)}")
        chunks = [[[text] for text in chosen[i * CALLS : (i + 1) * CALLS]] for i in range(rounds)]
        timed = interleave(self.encoders, chunks, budget_s=BUDGET_S)
        group = f"latency of one query, {self.tokens} tokens, {threads_text(self.threads)}"
        needed = operations(self.counts[CALLS : rounds * CALLS], self.config) / (self.plan.rounds * CALLS)
        return [self._row(engine, timed[engine.name], group, f"one query of {self.tokens} tokens", 1, needed) for engine in self.engines]

    def _row(self, engine: Engine, timed: Series, group: str, brief: str, count: int, needed: float) -> Row:
        single = count == 1
        seconds = timed.median / len(timed.rounds[0])
        ceiling, share = self.plan.ceilings.compute(engine.precision, self.threads, needed, seconds)
        return Row(
            suite="encode",
            group=group,
            brief=brief,
            engine=engine.name,
            version=engine.version,
            ours=engine.ours,
            data=self.label,
            threads=self.threads,
            params={
                "tokens": self.tokens,
                "texts": count,
                "precision": engine.precision,
                "batch": "token budget" if engine.ours else BATCH,
            },
            value=1000 * seconds if single else count / seconds,
            unit="ms / query" if single else "texts / s",
            spread=timed.spread,
            p50=1000 * timed.percentile(50) if single else None,
            p99=1000 * timed.percentile(99) if single else None,
            quality_name="cosine to torch f32",
            quality=self.cosines[engine.name],
            ceiling=ceiling,
            share=share,
            rounds=timed.raw(),
        )


def _token_counts(model: Path, texts: list[str]) -> list[int]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    return [len(item.ids) for item in tokenizer.encode_batch(texts)]
