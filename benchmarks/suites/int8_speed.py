"""How fast the int8 graphs of the suite ``int8`` are beside float32: batches of 32 and single texts of 16 to 512 tokens, from token ids."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.core.ceilings import threads_text
from benchmarks.core.peers import set_threads
from benchmarks.core.plan import Plan
from benchmarks.core.results import Row
from benchmarks.core.timing import interleave
from benchmarks.suites.int8_graphs import Workshop, make_all, row

LENGTHS = (16, 64, 167, 512)
QUICK_LENGTHS = (16, 64)
BATCH = 32
# Single texts a round: about a fifth of a second of float32 at each length.
SINGLES = {16: 32, 64: 8, 167: 4, 512: 2}
BUDGET_S = 10.0

Graph = Callable[[Any, Any], Any]


def run(plan: Plan) -> list[Row]:
    """All rows of the suite."""
    set_threads(plan.all_cores[-1])
    work = Workshop(plan)
    graphs = make_all(work)
    rows = []
    for threads in plan.all_cores:
        set_threads(threads)
        rows += _speeds(work, graphs, threads)
    return rows


def _speeds(work: Workshop, graphs: Mapping[str, Path], threads: int) -> list[Row]:
    """Tokens a second in batches of 32, and milliseconds of single texts, all rows exactly as long: no padding."""
    from nearfield.encode.onnx_backend import OnnxBackend

    backends = {name: OnnxBackend(path.read_bytes, path, threads) for name, path in graphs.items()}
    rows = []
    for tokens in QUICK_LENGTHS if work.plan.quick else LENGTHS:
        for batch, count in ((BATCH, 1), (1, SINGLES[tokens])):
            rows += _speed(work, backends, tokens, batch, count, threads)
    for backend in backends.values():
        backend.close()
    return rows


def _speed(work: Workshop, backends: Mapping[str, Graph], tokens: int, batch: int, count: int, threads: int) -> list[Row]:
    work.plan.say(f"int8_speed: {batch} texts of {tokens} tokens, {threads_text(threads)}")
    ids = _token_rows(work, tokens, (work.plan.rounds + 1) * count * batch).reshape(-1, count, batch, tokens)
    chunks = [[(rows, np.ones_like(rows)) for rows in part] for part in ids]
    calls = {name: partial(_call, backend) for name, backend in backends.items()}
    timed = interleave(calls, chunks, budget_s=BUDGET_S)
    group = f"{f'batches of {batch}' if batch > 1 else 'single texts'}, {tokens} tokens, {threads_text(threads)}"
    label = f"{ids.shape[0] * count * batch:,} pieces of API documentation, {tokens} tokens each"
    rows = []
    for name, series in timed.items():
        seconds = series.median / count
        value, unit = (batch * tokens / seconds, "tokens / s") if batch > 1 else (1000 * seconds, "ms / text")
        params = {"tokens": tokens, "batch": batch}
        rows.append(row("int8_speed", name, group, label, threads, value, unit, params, series.raw(), spread=series.spread))
    return rows


def _call(backend: Graph, item: tuple[Any, Any]) -> Any:
    return backend(*item)


def _token_rows(work: Workshop, tokens: int, count: int) -> np.ndarray:
    """``(count, tokens)`` ids: pieces of documents, each between the model's first and last token."""
    from tokenizers import Tokenizer

    from nearfield.encode.models import resolve_model

    tokenizer = Tokenizer.from_file(str(resolve_model(None) / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    first, last = (tokenizer.encode("").ids[place] for place in (0, -1))
    need = count * (tokens - 2)
    stream: list[int] = []
    for start in range(0, len(work.documents), 256):
        encoded = tokenizer.encode_batch(work.documents[start : start + 256], add_special_tokens=False)
        stream.extend(token for item in encoded for token in item.ids)
        if len(stream) >= need:
            break
    stream = stream * (1 + need // len(stream))
    body = np.array(stream[:need], np.int64).reshape(count, tokens - 2)
    ends = [np.full((count, 1), token, np.int64) for token in (first, last)]
    return np.concatenate([ends[0], body, ends[1]], axis=1)
