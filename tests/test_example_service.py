"""The example service: its answers, its refusals under overload, and that it goes on afterwards; over raw ASGI, and once over HTTP."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import threading
import urllib.error
import urllib.request
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlencode

import pytest

pytest.importorskip("starlette")

from benchmark_samples import ROOT, needs_core
from benchmarks.suites import service as suite
from conftest import WORDS

Answer = tuple[int, dict[str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def service() -> ModuleType:
    spec = importlib.util.spec_from_file_location("example_service", ROOT / "examples" / "service.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def ask(app: Any, path: str = "/search", **query: object) -> Answer:
    """One request through the ASGI interface."""
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http", "path": path,
        "raw_path": path.encode(), "query_string": urlencode(query).encode(), "headers": [], "client": ("test", 1), "server": ("test", 80),
        "root_path": "",
    }  # fmt: skip
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, json.loads(b"".join(message.get("body", b"") for message in sent[1:]))


class Slow:
    """A search that waits until it is let go on."""

    def __init__(self) -> None:
        self.go, self.lock, self.now, self.most, self.done = threading.Event(), threading.Lock(), 0, 0, 0

    def __call__(self, query: str, k: int) -> list[dict[str, Any]]:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        assert self.go.wait(30)
        with self.lock:
            self.now -= 1
            self.done += 1
        if query == "bad":
            raise RuntimeError("no")
        return [{"id": query, "score": 1.0, "text": "x"}] * k


def test_overload_is_refused_at_once_and_those_inside_are_served(service: ModuleType) -> None:
    slow = Slow()
    app = service.application(slow, workers=2, waiting=3)

    async def storm() -> tuple[list[Answer], Answer, Answer]:
        inside = [asyncio.create_task(ask(app, q=f"q{i}", k=1)) for i in range(5)]
        await asyncio.sleep(0.05)
        refused = await asyncio.wait_for(asyncio.gather(*(ask(app, q="more") for _ in range(100))), 10)
        assert {status for status, _, _ in refused} == {429}
        assert all(headers["retry-after"] == "1" and "try again" in body["error"] for _, headers, body in refused)
        assert (slow.done, slow.most) == (0, 2), "nobody was served meanwhile: a refusal waits for no search"
        state = await ask(app, "/health")
        slow.go.set()
        served = await asyncio.gather(*inside)
        return served, state, await ask(app, q="after")

    served, state, after = asyncio.run(storm())
    assert [(status, body["results"][0]["id"]) for status, _, body in served] == [(200, f"q{i}") for i in range(5)]
    assert state[2] == {"inside": 5, "served": 0, "refused": 100}
    assert after[0] == 200, "it goes on"
    assert len(after[2]["results"]) == 10
    assert slow.most == 2


def test_a_place_is_free_again_when_a_search_fails_or_its_caller_leaves(service: ModuleType) -> None:
    slow = Slow()
    app = service.application(slow, workers=1, waiting=0)

    async def leave() -> list[int]:
        gone = asyncio.create_task(ask(app, q="gone"))
        await asyncio.sleep(0.05)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        while_it_runs = (await ask(app, q="early"))[0]
        slow.go.set()
        while (await ask(app, "/health"))[2]["inside"]:
            await asyncio.sleep(0.01)
        with pytest.raises(RuntimeError, match="no"):
            await ask(app, q="bad")
        return [while_it_runs, (await ask(app, q="late"))[0]]

    assert asyncio.run(leave()) == [429, 200], "the search of a caller who left still takes its place"


@pytest.mark.parametrize(
    ("query", "message"),
    [({}, "q: 1 to"), ({"q": " "}, "q: 1 to"), ({"q": "x" * 2_001}, "q: 1 to"), ({"q": "x", "k": 0}, "k: a number"),
     ({"q": "x", "k": "101"}, "k: a number"), ({"q": "x", "k": "-1"}, "k: a number"), ({"q": "x", "k": "9" * 5_000}, "k: a number"),
     ({"q": "x", "k": "²"}, "k: a number")],
)  # fmt: skip
def test_a_bad_request_is_one_line_and_no_search(service: ModuleType, query: dict[str, Any], message: str) -> None:
    def never(query: str, k: int) -> list[dict[str, Any]]:
        raise AssertionError("searched")

    status, _, body = asyncio.run(ask(service.application(never, workers=1), **query))
    assert status == 400
    assert body["error"].startswith(message)


@needs_core
def test_the_service_over_http_finds_what_the_searcher_finds(tiny_bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("uvicorn")
    import nearfield as nf
    from nearfield.search.folder import write_index_folder

    texts = [" ".join(WORDS[i : i + 2 + i % 5]) for i in range(40)]
    with nf.Encoder(tiny_bundle) as encoder:
        vectors = encoder.encode(texts)
        write_index_folder(
            tmp_path / "index", [f"d{i}" for i in range(40)], texts, vectors, model=tiny_bundle, fingerprint=encoder.fingerprint
        )
    with suite.serving(tmp_path / "index", ["--workers", "1"]) as address:
        with urllib.request.urlopen(f"{address}/search?{urlencode({'q': texts[7], 'k': 3})}") as answer:
            results = json.load(answer)["results"]
        assert len(results) == 3
        assert (results[0]["id"], results[0]["text"]) == ("d7", texts[7])
        assert results[0]["score"] > 0.97
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(f"{address}/search")
    with pytest.raises(RuntimeError, match="the service did not start"), suite.serving(tmp_path / "nothing", []):
        pass
