"""Many Python threads on one index: the answers of one thread, and no native call that keeps the interpreter from the others."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import nearfield as nf
from nearfield import _core

DIM = 64
CALLERS = 8


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", [nf.FlatIndex, nf.HNSWIndex])
def test_many_callers_get_what_one_gets(kind: Any, threads: int) -> None:
    """Each caller has queries, a filter, a bias and candidates of its own, so that an answer given to the wrong one would show."""
    rng = np.random.default_rng(1)
    index = kind(DIM, threads=threads)
    index.add(rng.standard_normal((3000, DIM)).astype(np.float32))
    queries = rng.standard_normal((CALLERS, 70, DIM)).astype(np.float32)
    masks = rng.random((CALLERS, 3000)) < 0.5
    biases = rng.standard_normal((CALLERS, 3000)).astype(np.float32)
    candidates = rng.integers(0, 3000, (CALLERS, 70, 50))

    def ask(caller: int) -> list[np.ndarray]:
        own = queries[caller]
        hits = [index.search(own[:size], 10) for size in (1, 70)]
        hits += [index.search(own, 10, filter=masks[caller]), index.search(own[:5], 10, bias=biases[caller])]
        return [index.score(own, candidates[caller]), *(hit.ids for hit in hits), *(hit.scores for hit in hits)]

    alone = [ask(caller) for caller in range(CALLERS)]
    start = threading.Barrier(CALLERS)

    def ask_together(caller: int) -> list[list[np.ndarray]]:
        start.wait(60)
        return [ask(caller) for _ in range(3)]

    with ThreadPoolExecutor(CALLERS) as pool:
        together = list(pool.map(ask_together, range(CALLERS)))
    for caller in range(CALLERS):
        for answers in together[caller]:
            assert all(np.array_equal(a, b) for a, b in zip(answers, alone[caller], strict=True))


@pytest.fixture
def patient_interpreter() -> Iterator[None]:
    """A thread keeps the interpreter until it lets go of it: none is made to yield."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(3600)
    yield
    sys.setswitchinterval(interval)


@pytest.fixture(scope="module")
def calls() -> dict[str, Callable[[], Any]]:
    rng = np.random.default_rng(2)
    rows, queries = rng.standard_normal((4000, DIM)).astype(np.float32), rng.standard_normal((40, DIM)).astype(np.float32)
    chosen, none = rng.integers(0, 4000, (40, 400)), np.empty(0, np.int64)
    store = _core.FlatStore(DIM, "cosine", "float32")
    store.append(rows, none, 1)
    graph = _core.Hnsw(DIM, "cosine", 8, 10, 0)
    graph.append(rows, none, 1)
    return {
        "FlatStore.search": lambda: store.search(queries, 10, 4000, None, None, 1),
        "FlatStore.score": lambda: store.score(queries, chosen, 1),
        "FlatStore.get": lambda: store.get(chosen.ravel()),
        "FlatStore.append": lambda: _core.FlatStore(DIM, "cosine", "float32").append(rows, none, 1),
        "Hnsw.search": lambda: graph.search(queries, 10, 4000, 100, None, None, 1),
        "Hnsw.score": lambda: graph.score(queries, chosen, 1),
        "Hnsw.append": lambda: _core.Hnsw(DIM, "cosine", 8, 10, 0).append(rows[:500], none, 1),
        "score_matrix": lambda: _core.score_matrix(queries, rows, "cosine", 1),
        "score_candidates": lambda: _core.score_candidates(queries, rows, chosen, "cosine", 1),
        "topk": lambda: _core.topk(queries, rows, 10, "cosine", 1),
    }


def counted_while_calling(call: Callable[[], Any], times: int = 2000) -> int:
    """How far a counter in this thread had come when another one, between its calls, looked at it for the last time."""
    counter, seen = [0], [0]
    begun = threading.Event()

    def work() -> None:
        begun.set()
        for _ in range(times):
            call()
            seen[0] = counter[0]
            if seen[0]:
                return

    worker = threading.Thread(target=work)
    worker.start()
    begun.wait()
    while worker.is_alive():
        counter[0] += 1
        worker.join(0.001)
    return seen[0]


def test_the_counter_stands_still_beside_a_call_that_keeps_the_interpreter(patient_interpreter: None) -> None:
    """What the next test would see of a call that never lets go."""
    assert counted_while_calling(lambda: sum(range(1000)), times=500) == 0


@pytest.mark.parametrize(
    "name",
    [
        *("FlatStore.search", "FlatStore.score", "FlatStore.get", "FlatStore.append", "Hnsw.search", "Hnsw.score", "Hnsw.append"),
        *("score_matrix", "score_candidates", "topk"),
    ],
)
def test_native_calls_let_go_of_the_interpreter(name: str, calls: dict[str, Callable[[], Any]], patient_interpreter: None) -> None:
    """Nobody is made to yield here, so a counter that has moved when a call returns moved while the call ran."""
    assert counted_while_calling(calls[name]) > 0
