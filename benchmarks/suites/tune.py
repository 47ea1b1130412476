"""Training pairs a second: nearfield's loop beside the trainer of sentence-transformers.

Same model, pairs, batch, length, loss and precision; both see every pair once. The clock of each is its own account of its training steps:
no loading, no evaluation, no saving. Both train with the ranking loss over all documents of a batch at the same temperature;
sentence-transformers gets its own defaults otherwise.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.core.ceilings import threads_text
from benchmarks.core.machine import has_bf16
from benchmarks.core.peers import Engine, present, set_threads
from benchmarks.core.plan import Plan
from benchmarks.core.results import Row
from benchmarks.core.texts import fingerprint, harvested
from benchmarks.core.timing import PAUSE_S, Series

BATCH, TOKENS = 64, 128
# A step of 64 pairs takes from five seconds to half a minute on two cores.
PAIRS, QUICK_PAIRS = 192, 16
ROUNDS, QUICK_ROUNDS = 3, 1
TEMPERATURE = 0.05
# Words of a document that stand for its query: its beginning, as a title would be.
QUERY_WORDS = 12

Pairs = list[tuple[str, str]]


def pairs_of(plan: Plan, count: int) -> Pairs:
    """``count`` distinct (beginning, rest) of API documentation with enough words for both."""
    out: dict[str, str] = {}
    for text in sorted(set(harvested(plan))):
        words = text.split()
        if len(words) >= 4 * QUERY_WORDS:
            out.setdefault(" ".join(words[:QUERY_WORDS]), " ".join(words[QUERY_WORDS:]))
    if len(out) < count:
        raise RuntimeError(f"{len(out)} documents of {4 * QUERY_WORDS} words found, {count} expected: install the demo extra")
    return list(out.items())[:: len(out) // count][:count]


def ours(pairs: Pairs, model: Path, dtype: str, tokens: int = TOKENS, **options: Any) -> float:
    """Seconds of nearfield's steps, for one pass; ``options`` change the config, as in docs/log.md's comparisons."""
    from nearfield.config import TuneConfig
    from nearfield.data.dataset import Dataset
    from nearfield.tune.train import train

    # Early stopping needs a dev split: the smallest that there can be.
    count = len(pairs)
    queries = [query for query, _ in pairs] + ["one", "two"]
    qrels = {"train": {f"q{i}": {f"d{i}": 1} for i in range(count)}, "dev": {f"q{count + i}": {f"d{i}": 1} for i in range(2)}}
    ids = [f"d{i}" for i in range(count)]
    dataset = Dataset("pairs", "memory", ids, [text for _, text in pairs], [f"q{i}" for i in range(count + 2)], queries, qrels)
    config = TuneConfig.from_dict({
        "batch_size": min(BATCH, count), "max_tokens_train": tokens, "max_tokens_query": tokens, "temperature": TEMPERATURE, "dtype": dtype,
        "pieces": 0.0, "merge_trials": 0, "eval_every": 1.0, "patience": 0, "dev_documents": 2, **options,
    })  # fmt: skip
    with tempfile.TemporaryDirectory() as work:
        done = train(dataset, model, config, work=Path(work), progress=False)
    return count / done.pairs_per_second


def sentence_transformers(pairs: Pairs, model: Path, dtype: str, tokens: int = TOKENS) -> float:
    """Seconds that the trainer of sentence-transformers says its loop took."""
    import torch
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    tower = SentenceTransformer(str(model), device="cuda" if torch.cuda.is_available() else "cpu")
    tower.max_seq_length = tokens
    with tempfile.TemporaryDirectory() as work:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=work, num_train_epochs=1, per_device_train_batch_size=min(BATCH, len(pairs)), bf16=dtype == "bfloat16",
            learning_rate=5e-5,
            warmup_steps=0, save_strategy="no", logging_strategy="no", report_to=[],
            disable_tqdm=True, use_cpu=not torch.cuda.is_available(),
        )  # fmt: skip
        data = Dataset.from_dict({"query": [query for query, _ in pairs], "document": [text for _, text in pairs]})
        loss = MultipleNegativesRankingLoss(tower, scale=1 / TEMPERATURE)
        done = SentenceTransformerTrainer(model=tower, args=arguments, train_dataset=data, loss=loss).train()
    return float(done.metrics["train_runtime"])


def _no_bf16() -> str | None:
    return None if has_bf16() else "this CPU has no bf16 arithmetic"


NEEDS = ("sentence_transformers", "datasets", "accelerate")
ENGINES = (
    Engine("nearfield f32", partial(ours, dtype="float32"), needs=("torch",), extra="train"),
    Engine("nearfield bf16", partial(ours, dtype="bfloat16"), needs=("torch",), unable=_no_bf16, extra="train"),
    Engine("sentence-transformers f32", partial(sentence_transformers, dtype="float32"), "sentence-transformers", NEEDS),
    Engine("sentence-transformers bf16", partial(sentence_transformers, dtype="bfloat16"), "sentence-transformers", NEEDS, unable=_no_bf16),
)


def run(plan: Plan, *, model: Path | None = None) -> list[Row]:
    """All rows of the suite, of all-MiniLM-L6-v2 unless another ``model`` folder is given (tests)."""
    from nearfield.encode.models import resolve_model

    pairs = pairs_of(plan, QUICK_PAIRS if plan.quick else PAIRS)
    base = model or resolve_model(None)
    engines = present(ENGINES, plan)
    out = []
    for threads in plan.all_cores:
        set_threads(threads)
        seconds: dict[str, list[list[float]]] = {engine.name: [] for engine in engines}
        for number in range(QUICK_ROUNDS if plan.quick else ROUNDS):
            for engine in engines:
                plan.say(f"tune: {engine.name}, {threads_text(threads)}, round {number + 1}")
                time.sleep(PAUSE_S)
                seconds[engine.name].append([engine.make(pairs, base)])
        out += [_row(engine, Series(seconds[engine.name]), pairs, threads) for engine in engines]
    return out


def _row(engine: Engine, timed: Series, pairs: Pairs, threads: int) -> Row:
    text, batch = [part for pair in pairs for part in pair], min(BATCH, len(pairs))
    return Row(
        suite="tune", group=f"one pass over {len(pairs):,} pairs, batches of {batch}, {TOKENS} tokens, {threads_text(threads)}",
        brief="pairs / s", engine=engine.name, version=engine.version, ours=engine.ours,
        data=f"beginnings and rests of API documentation ({fingerprint(text)}), all-MiniLM-L6-v2", threads=threads,
        params={"pairs": len(pairs), "batch": batch, "tokens": TOKENS}, value=len(pairs) / timed.median, unit="pairs / s",
        spread=timed.spread if len(timed.rounds) > 1 else None, rounds=timed.raw(),
    )  # fmt: skip
