"""Habits of a process that serves: the documented asyncio example, pre-fork and spawn, memory under load, idle CPU, closing under load."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nearfield as nf
from conftest import WORDS

EMBEDDING = Path(__file__).parents[1] / "docs" / "embedding.md"
TEXTS = [" ".join(WORDS[i : i + 1 + i % 9]) for i in range(40)]


@pytest.fixture(scope="module")
def indexes(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``flat.nfi`` and ``help.nfi`` (HNSW) over the bundle's vectors of TEXTS."""
    folder = tmp_path_factory.mktemp("indexes")
    with nf.Encoder(tiny_bundle) as encoder:
        vectors, fingerprint = encoder.encode(TEXTS), encoder.fingerprint
    for name, index in (
        ("flat.nfi", nf.FlatIndex(32, fingerprint=fingerprint)),
        ("help.nfi", nf.HNSWIndex(32, fingerprint=fingerprint)),
    ):
        index.add(vectors, ids=[f"text {i}" for i in range(len(TEXTS))])
        index.save(folder / name)
    return folder


def run(script: str, *arguments: object, timeout: float = 120) -> str:
    """Runs a script in a process of its own; returns its output. The environment's word on the tokenizer's threads is taken away."""
    environment = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, timeout=timeout, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "fork" not in done.stderr
    return done.stdout


class Gate:
    """Stands before an encoder's forward pass and lets nothing through until the event loop has come round three times more."""

    def __init__(self, forward: Any) -> None:
        self.forward, self.entered, self.passed = forward, threading.Event(), threading.Event()

    def __call__(self, *arrays: Any) -> Any:
        self.entered.set()
        assert self.passed.wait(30), "the event loop stood still while a batch was encoded"
        return self.forward(*arrays)

    def close(self) -> None:
        self.forward.close()

    async def tick(self) -> int:
        ticks = 0
        while ticks < 3:
            await asyncio.sleep(0)
            ticks += self.entered.is_set()
        self.passed.set()
        return ticks


def test_the_asyncio_example_leaves_the_loop_free(
    tiny_bundle: Path, indexes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bundle").symlink_to(tiny_bundle)
    (tmp_path / "help.nfi").symlink_to(indexes / "help.nfi")
    monkeypatch.chdir(tmp_path)
    (example,) = (block for block in re.findall(r"```py\n(.*?)```", EMBEDDING.read_text(encoding="utf-8"), re.S) if "asyncio" in block)
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(example, str(EMBEDDING), "exec"), names)
    encoder = names["encoder"]
    gate = encoder._forward = Gate(encoder._forward)

    async def both() -> tuple[list[str], int]:
        return await asyncio.gather(names["answer"](TEXTS[7]), asyncio.wait_for(gate.tick(), 60))

    try:
        found, ticks = asyncio.run(both())
        assert ticks == 3
        assert found == names["searcher"].search(TEXTS[7], k=5).ids[0].tolist()
        assert found[0] == "text 7"
    finally:
        names["pool"].shutdown()
        encoder.close()


def test_the_loop_goes_round_while_a_real_batch_is_encoded(tiny_bundle: Path) -> None:
    """What the gate cannot show: the forward pass lets go of the GIL."""

    async def turns(encoder: nf.Encoder) -> int:
        work = asyncio.get_running_loop().run_in_executor(None, encoder.encode, TEXTS * 50)
        count = 0
        while not work.done():
            await asyncio.sleep(0.0005)
            count += 1
        assert (await work).shape == (len(TEXTS) * 50, 32)
        return count

    with nf.Encoder(tiny_bundle, threads=1) as encoder:
        assert asyncio.run(turns(encoder)) >= 10


PREFORK = """
import os, signal, sys, threading
import numpy as np
import nearfield as nf
from nearfield.encode.encoder import Encoder

bundle, indexes, backend, *texts = sys.argv[1:]
encoder = Encoder(bundle, backend=backend, threads=2)
flat, graph = nf.FlatIndex.load(f"{indexes}/flat.nfi", threads=2), nf.HNSWIndex.load(f"{indexes}/help.nfi", threads=2)
searchers = [nf.Searcher(encoder, flat), nf.Searcher(encoder, graph)]
encoder.warmup()
vectors = encoder.encode(texts)
expected = [searcher.search(texts, 5) for searcher in searchers]

def agree():
    np.testing.assert_allclose(encoder.encode(texts), vectors, atol=1e-5)
    for searcher, hits in zip(searchers, expected):
        found = searcher.search(texts, 5)
        assert found.ids.tolist() == hits.ids.tolist()
        np.testing.assert_allclose(found.scores, hits.scores, atol=1e-5)

def serve(number, ready):
    signal.alarm(100)    # not inherited: a child that hangs ends too
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    problems = []
    def call():
        try:
            agree()
        except BaseException as problem:
            problems.append(repr(problem))
    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    os.write(ready, (f"{number} {os.getpid()} {problems or 'agrees'}\\n").encode())
    if number % 2:
        sys.exit(0)      # a worker that has served its number of requests
    while True:
        signal.pause()   # a worker that waits for the master's word

def start(number):
    pid = os.fork()
    if pid == 0:
        os.close(read)
        serve(number, write)
    return pid

signal.alarm(100)
read, write = os.pipe()
answers = os.fdopen(read)
workers = {number: start(number) for number in range(4)}
said = [answers.readline().split(None, 2) for _ in workers]
assert sorted(int(line[0]) for line in said) == [0, 1, 2, 3], said
assert all(line[2] == "agrees\\n" for line in said), said
os.kill(workers[2], signal.SIGKILL)
assert os.waitstatus_to_exitcode(os.waitpid(workers.pop(2), 0)[1]) == -signal.SIGKILL
agree()                  # the master works on, and its pools with it, before it forks a replacement
workers[4] = start(4)
assert answers.readline().split(None, 2)[2] == "agrees\\n"
for number, pid in workers.items():
    if number % 2 == 0:
        os.kill(pid, signal.SIGTERM)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 0, (number, status)
agree()
print("done")
"""


@pytest.mark.parametrize("backend", ["onnx", "native", pytest.param("torch", marks=pytest.mark.slow)])
def test_workers_forked_from_a_loaded_master_serve_and_end(tiny_bundle: Path, indexes: Path, backend: str) -> None:
    """As gunicorn does with preload_app: workers end by themselves, by SIGTERM and by SIGKILL, and are replaced."""
    assert run(PREFORK, tiny_bundle, indexes, backend, *TEXTS) == "done\n"


FORK_AND_END = """
import os, signal, sys
import onnxruntime
import nearfield as nf
nf.Encoder
if os.fork() == 0:
    signal.alarm(60)
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_a_child_of_a_process_that_only_imported_onnxruntime_ends() -> None:
    """No encoder is open: without the class's own precaution the child waits for a thread that it does not have."""
    assert run(FORK_AND_END) == "7\n"


def _answer(bundle: Path, indexes: Path, texts: list[str], backend: Any) -> tuple[np.ndarray, list[Any], list[Any]]:
    with nf.Encoder(bundle, backend=backend, threads=1) as encoder:
        flat, graph = nf.FlatIndex.load(indexes / "flat.nfi"), nf.HNSWIndex.load(indexes / "help.nfi")
        answers = [nf.Searcher(encoder, index).search(texts, 5).ids.tolist() for index in (flat, graph)]
        return encoder.encode(texts), answers[0], answers[1]


@pytest.mark.parametrize("backend", ["onnx", "native"])
def test_spawned_processes_open_their_own_and_agree(tiny_bundle: Path, indexes: Path, backend: str) -> None:
    expected = _answer(tiny_bundle, indexes, TEXTS, backend)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        for found in pool.map(_answer, [tiny_bundle] * 2, [indexes] * 2, [TEXTS] * 2, [backend] * 2, timeout=120):
            np.testing.assert_allclose(found[0], expected[0], atol=1e-5)
            assert found[1:] == expected[1:]


@pytest.mark.parametrize("backend", ["onnx", "native", "torch"])
def test_closing_an_encoder_that_others_use(tiny_bundle: Path, backend: str) -> None:
    """Every call that runs meanwhile gives its vectors or the one error; so does every later use."""
    encoder = nf.Encoder(tiny_bundle, backend=backend, threads=1)  # type: ignore[arg-type]
    expected = encoder.encode(TEXTS)
    running = threading.Barrier(5)
    problems: list[BaseException] = []
    answered: list[int] = []

    def call() -> None:
        running.wait()
        try:
            while True:
                np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=1e-5)
                answered.append(1)
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    running.wait()
    while len(answered) < 8:
        threads[0].join(0.001)
        assert not problems
    encoder.close()
    for thread in threads:
        thread.join(60)
    assert [type(problem) for problem in problems] == [nf.InputError] * 4
    encoder.close()
    uses = [lambda: encoder.encode(TEXTS), lambda: encoder.encode([]), encoder.warmup, encoder.self_check, encoder.__enter__]
    messages = set(map(str, problems))
    for use in uses:
        with pytest.raises(nf.InputError) as caught:
            use()
        messages.add(str(caught.value))
    assert messages == {"this encoder is closed; open another one"}


# Prints, as JSON, resident bytes and threads after a warm-up and after the load.
LOAD = """
import gc, json, os, sys, threading
import numpy as np
import nearfield as nf

bundle, indexes, backend, *texts = sys.argv[1:]
encoder = nf.Encoder(bundle, backend=backend, threads=1)
searchers = [nf.Searcher(encoder, nf.FlatIndex.load(f"{indexes}/flat.nfi")), nf.Searcher(encoder, nf.HNSWIndex.load(f"{indexes}/help.nfi"))]

def measure():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/task"))

gate = threading.Barrier(9)
problems = []

def work(number):
    try:
        for calls in (200, 1000):
            for i in range(calls):
                hits = searchers[i % 2].search(texts[(i * 8 + number) % len(texts)], 5, threads=1)
                assert (hits.counts == 5).all()
            gate.wait()
            gate.wait()
    except BaseException as problem:
        problems.append(repr(problem))
        gate.abort()

workers = [threading.Thread(target=work, args=(number,)) for number in range(8)]
for worker in workers: worker.start()
measured = []
for _ in range(2):
    gate.wait()
    measured.append(measure())
    gate.wait()
for worker in workers: worker.join()
assert not problems, problems
print(json.dumps(measured))
"""
# Half a kilobyte for each of 8,000 calls. Eight arenas of the allocator settle: 0.4 to 1.1 MB in five runs, 1.4 MB after 48,000 calls.
GROWTH = 4_000_000


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["onnx", "native"])
def test_memory_does_not_grow_under_eight_threads(tiny_bundle: Path, indexes: Path, backend: str) -> None:
    (before, threads), (after, threads_after) = json.loads(run(LOAD, tiny_bundle, indexes, backend, *TEXTS, timeout=500))
    assert threads_after == threads
    assert after - before < GROWTH


IDLE = """
import sys, time
import numpy as np
import nearfield as nf

bundle, indexes, backend, *texts = sys.argv[1:]
encoder = nf.Encoder(bundle, backend=backend, threads=4)
index = nf.FlatIndex(256, threads=4)
index.add(np.random.default_rng(0).standard_normal((20_000, 256)).astype(np.float32))
encoder.encode(texts * 20)
for text in texts:  # few tokens: the native engine's members spin for a moment
    encoder.encode(text)
index.search(np.ones((64, 256), np.float32), threads=4)
used = []
for _ in range(3):
    start = time.process_time()  # of all threads
    time.sleep(1)
    used.append(time.process_time() - start)
print(min(used))
"""


@pytest.mark.parametrize("backend", ["onnx", "native"])
def test_an_idle_process_takes_no_cpu(tiny_bundle: Path, indexes: Path, backend: str) -> None:
    """After work on four threads of each pool: less than 1 % of a second in the quietest of three."""
    assert float(run(IDLE, tiny_bundle, indexes, backend, *TEXTS)) < 0.01
