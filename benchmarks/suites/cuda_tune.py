"""Training pairs a second on a GPU in bfloat16, at 128 and 256 tokens: nearfield's loop beside sentence-transformers.

Same model, pairs, batches of 64 and ranking loss over all documents of a batch; every pair is seen once. The trainer of
sentence-transformers is timed by its own account; where a package it needs is missing, its model and loss are driven by the loop that one
would write by hand (autocast, fused AdamW, no logging), which spends less between the steps than the trainer does.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.core import gpu
from benchmarks.core.gpu import Gpu
from benchmarks.core.peers import Engine, present
from benchmarks.core.plan import Plan
from benchmarks.core.results import Row
from benchmarks.core.timing import Series
from benchmarks.encoders import shaped
from benchmarks.suites.encode import operations
from benchmarks.suites.tune import BATCH, NEEDS, TEMPERATURE, Pairs, ours, sentence_transformers

LENGTHS = (128, 256)
QUERY_TOKENS = 16
STEPS, QUICK_STEPS = 80, 8
ROUNDS, QUICK_ROUNDS = 3, 1
# A training step multiplies three times what a forward pass does.
PASSES = 3


def by_hand(pairs: Pairs, model: Path, tokens: int) -> float:
    """Seconds of sentence-transformers' model and loss in a plain loop, after two steps that do not count."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    tower = SentenceTransformer(str(model), device="cuda" if torch.cuda.is_available() else "cpu")
    tower.max_seq_length = tokens
    loss_of = MultipleNegativesRankingLoss(tower, scale=1 / TEMPERATURE)
    optimizer = torch.optim.AdamW(tower.parameters(), lr=5e-5, fused=tower.device.type == "cuda")
    tokenize: Callable[[list[str]], dict[str, torch.Tensor]] = getattr(tower, "preprocess", None) or tower.tokenize
    tower.train()

    def step(batch: Pairs) -> None:
        made = [tokenize(list(texts)) for texts in zip(*batch, strict=True)]
        features = [{key: value.to(tower.device) if hasattr(value, "to") else value for key, value in one.items()} for one in made]
        with torch.autocast(tower.device.type, torch.bfloat16):
            loss = loss_of(features, None)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    batches = [pairs[at : at + BATCH] for at in range(0, len(pairs), BATCH)]
    for batch in batches[:2]:
        step(batch)
    gpu.wait(str(tower.device))
    start = time.perf_counter()
    for batch in batches:
        step(batch)
    gpu.wait(str(tower.device))
    return time.perf_counter() - start


PEER = "sentence-transformers"
ENGINES = (
    Engine("nearfield bf16", partial(ours, dtype="bfloat16"), needs=("torch", "transformers"), precision="bf16", extra="train"),
    Engine(f"{PEER} trainer bf16", partial(sentence_transformers, dtype="bfloat16"), PEER, NEEDS, precision="bf16"),
    Engine(f"{PEER} by hand bf16", by_hand, PEER, ("sentence_transformers",), precision="bf16"),
)


def pairs_of(folder: Path, tokens: int, count: int) -> Pairs:
    """``count`` pairs of a run of the documentation's words and another of the length asked for, which fills it."""
    queries, documents = shaped.texts_of(folder, QUERY_TOKENS, count), shaped.texts_of(folder, tokens, count, ragged=0.25)
    return list(zip(queries, documents, strict=True))


def run(plan: Plan, *, device: Gpu | None = None, model: Path | None = None) -> list[Row]:
    """All rows of the suite; none, and a line that says so, where there is no GPU.

    Args:
        plan: what the run was asked to do.
        device, model: replace the GPU and the model (tests).
    """
    device = device or gpu.find(plan, "cuda_tune")
    if device is None:
        return []
    folder, label = (model, "a tiny model") if model is not None else shaped.model(plan)
    engines = present(ENGINES, plan)
    out = []
    for tokens in LENGTHS[:1] if plan.quick else LENGTHS:
        pairs = pairs_of(folder, tokens, BATCH * (QUICK_STEPS if plan.quick else STEPS))
        needed = _needed(folder, pairs, tokens)
        seconds: dict[str, list[list[float]]] = {engine.name: [] for engine in engines}
        for number in range((QUICK_ROUNDS if plan.quick else ROUNDS) + 1):
            for engine in engines:
                part = pairs if number else pairs[: 4 * BATCH]  # a short round that does not count
                taken = engine.make(part, folder, tokens=tokens)
                plan.say(f"cuda_tune: {engine.name}, {tokens} tokens, round {number}: {len(part) / taken:,.0f} pairs/s")
                if number:
                    seconds[engine.name].append([taken])
        for engine in engines:
            timed = Series(seconds[engine.name])
            peak = device.rates["bf16"]
            out.append(Row(
                suite="cuda_tune", group=f"one pass over {len(pairs):,} pairs, batches of {BATCH}, {tokens} tokens, {device.name}",
                brief=f"{tokens} tokens", engine=engine.name, version=engine.version, ours=engine.ours,
                data=f"{label}; runs of this project's documentation", threads=1,
                params={"pairs": len(pairs), "batch": BATCH, "tokens": tokens, "device": device.name},
                value=len(pairs) / timed.median, unit="pairs / s", spread=timed.spread if len(timed.rounds) > 1 else None,
                ceiling=f"bf16 matrix product: {peak / 1e12:,.1f} TFLOP/s", share=needed / timed.median / peak, rounds=timed.raw(),
            ))  # fmt: skip
    return out


def _needed(folder: Path, pairs: Pairs, tokens: int) -> float:
    """Operations of one pass over the pairs, forward and backward, padding left out."""
    from nearfield.encode.tokenize import TextTokenizer

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tokenizer = TextTokenizer(folder / "tokenizer.json", tokens)
    return PASSES * operations([len(row) for row in tokenizer([text for pair in pairs for text in pair]).ids], config)
