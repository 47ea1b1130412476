"""A search service in one file: a bundle and an index inside the process, answers in a millisecond or two, 429 when it has enough to do.

    pip install nearfield starlette uvicorn
    nearfield index documents.jsonl --model bundle --out index
    python examples/service.py index --port 8000
    curl 'localhost:8000/search?q=reset+my+password&k=5'

Copy it and change it. What matters: searches run in threads, one for each core, as the GIL is free while they compute; each uses one thread
of its own; and what would have to wait for long is refused at once, so that under any load those who are served are served quickly.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import nearfield as nf
from nearfield.search.folder import IndexFolder

# Searches that may wait for each worker. At 2 ms a search the last of 16 waits 32 ms; one that waits much longer is better asked elsewhere.
WAITING = 16
MOST_RESULTS = 100
MOST_CHARACTERS = 2_000
RETRY_AFTER_S = 1

# A query and k to results: dictionaries with id, score and text.
Search = Callable[[str, int], list[dict[str, Any]]]


def search_of(folder: Path) -> Search:
    """Opens an index folder and the model it belongs to."""
    opened = IndexFolder.open(folder)
    encoder = nf.Encoder(opened.model, precision="int8", threads=1)  # the fastest; docs/benchmarks.md has its loss
    encoder.warmup()
    searcher = nf.Searcher(encoder, opened.index, threads=1)

    def search(query: str, k: int) -> list[dict[str, Any]]:
        hits = searcher.search([query], k, threads=1)
        found = zip(hits.ids[0], hits.scores[0].tolist(), strict=True)
        return [{"id": name, "score": round(score, 4), "text": opened.text(name)} for name, score in found if name is not None]

    return search


class Gate:
    """Lets as many searches in as can be served soon.

    Args:
        search: runs in ``workers`` threads.
        workers: searches at a time.
        waiting: searches that may wait beside them; one more is refused.
    """

    def __init__(self, search: Search, workers: int, waiting: int) -> None:
        self.search, self.limit = search, workers + waiting
        self.pool = ThreadPoolExecutor(workers, thread_name_prefix="search")
        # Only the event loop's thread touches these.
        self.inside, self.served, self.refused = 0, 0, 0

    async def ask(self, query: str, k: int) -> list[dict[str, Any]] | None:
        """The results, or None where too many are inside already."""
        if self.inside >= self.limit:
            self.refused += 1
            return None
        self.inside += 1
        work = asyncio.get_running_loop().run_in_executor(self.pool, self.search, query, k)
        # A caller that hangs up leaves its search running: the place is free when the search ends, not before.
        work.add_done_callback(self._left)
        return await asyncio.shield(work)

    def _left(self, work: asyncio.Future[Any]) -> None:
        self.inside -= 1
        self.served += 1
        if not work.cancelled():
            work.exception()  # looked at, also when nobody waits any more


def application(search: Search, *, workers: int, waiting: int | None = None) -> Starlette:
    """The service around a search function."""
    gate = Gate(search, workers, WAITING * workers if waiting is None else waiting)

    async def answer(request: Request) -> Response:
        query, wanted = request.query_params.get("q", "").strip(), request.query_params.get("k", "10")
        if not query or len(query) > MOST_CHARACTERS:
            return JSONResponse({"error": f"q: 1 to {MOST_CHARACTERS} characters expected"}, 400)
        if not wanted.isascii() or not wanted.isdigit() or not 1 <= int(wanted[:9]) <= MOST_RESULTS:
            return JSONResponse({"error": f"k: a number from 1 to {MOST_RESULTS} expected"}, 400)
        results = await gate.ask(query, int(wanted))
        if results is None:
            return JSONResponse({"error": "too many searches, try again"}, 429, headers={"Retry-After": str(RETRY_AFTER_S)})
        return JSONResponse({"results": results})

    async def health(request: Request) -> Response:
        return JSONResponse({"inside": gate.inside, "served": gate.served, "refused": gate.refused})

    @contextlib.asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        yield
        gate.pool.shutdown()  # those inside are answered first

    return Starlette(routes=[Route("/search", answer), Route("/health", health)], lifespan=life)


def main() -> None:
    """Serves an index folder."""
    import uvicorn

    parser = argparse.ArgumentParser(description="Searches an index folder over HTTP.")
    parser.add_argument("index", type=Path, help="a folder that `nearfield index` wrote")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="searches at a time (default: one for each core)")
    parser.add_argument("--waiting", type=int, help=f"searches that may wait (default: {WAITING} for each worker)")
    options = parser.parse_args()
    app = application(search_of(options.index), workers=options.workers, waiting=options.waiting)
    uvicorn.run(app, port=options.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
