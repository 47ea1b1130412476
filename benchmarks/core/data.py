"""Vectors for the suites, made on this machine and kept under ``benchmarks/cache`` (ignored by git, safe to delete).

Real data: short texts (``texts.py``) embedded with all-MiniLM-L6-v2, or the caller's own vectors (``own.py``). Synthetic data: clustered
unit vectors.
Every row of the results says which it was.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.core import own
from benchmarks.core.own import BadData
from benchmarks.core.plan import Plan
from benchmarks.core.texts import SEED, fingerprint, sentences

DIM = 384
# Queries are held out for the largest request (1,024 in each of 7 rounds and the warm-up), so that the rows never move.
MAX_QUERIES = 8_192
# Vectors are saved by so many texts (some ten seconds), so that a run that was stopped goes on from there.
SHARD = 4_096
# Characters of a shard's file name: 2^64 possible names for a few hundred shards.
SHARD_NAME = 16


def bundle(plan: Plan) -> Path:
    """The bundle of all-MiniLM-L6-v2 (fp32 and int8 ONNX), exported once into the cache."""
    path = plan.cache / "bundle"
    if not (path / "manifest.json").is_file():
        from nearfield.encode.models import resolve_model
        from nearfield.export.export import export_bundle

        plan.say("exporting all-MiniLM-L6-v2 to ONNX (once)")
        texts = sentences(replace(plan, data=None))[0][:64]
        export_bundle(
            resolve_model(None),
            path,
            texts=texts,
            parity_data=None,
            base="all-MiniLM-L6-v2",
            config={},
            data_fingerprint=fingerprint(texts),
            verdict=None,
            progress=False,
        )
    return path


def real_vectors(plan: Plan, rows: int, queries: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Rows ``(rows, d)`` to index, queries ``(queries, d)`` that are not among them, and what they are.

    They are embeddings of real sentences, or the vectors of ``plan.data``.

    The first sentences of the pool are always the queries, the following ones the rows, so that a smaller run is a slice of a
    larger one and nothing is encoded twice. Fewer rows come where there are fewer texts; the description says how many.

    Raises:
        BadData: too little, or vectors that are ranked by something else than inner products.
    """
    vectors, wanted, label, metric = real_with_metric(plan, rows, queries)
    if metric != "ip":
        raise BadData(f"--data {plan.data}: ranked by squared distance, which only the suites search and build measure")
    return vectors, wanted, label


def real_with_metric(plan: Plan, rows: int, queries: int) -> tuple[np.ndarray, np.ndarray, str, str]:
    """The same with the metric, ``"ip"`` or ``"l2"``, for suites that know both."""
    if plan.data is not None and own.holds_vectors(plan.data):
        found = own.read(plan.data)
        vectors = found.rows if plan.data_whole else found.rows[:rows]
        label = (
            f"{len(vectors):,} x {vectors.shape[1]} of {found.origin} ({_digest(vectors)}), {len(found.queries):,} queries not among them"
        )
        return vectors, _as_many(found.queries, queries), label, found.metric
    pool, origin = sentences(plan)
    # A file of one's own may be small; ours holds out as many queries as the largest suite asks for.
    held = MAX_QUERIES if plan.data is None else min(MAX_QUERIES, len(pool) // own.HELD_PART)
    if not 0 < held < len(pool) or (plan.data is None and queries > held):
        raise BadData(
            f"{origin}: {len(pool)} sentences found, more than {MAX_QUERIES if plan.data is None else own.HELD_PART} expected; "
            f"install more packages and delete {plan.cache}, or name a larger file with --data"
        )
    body, held_out = pool[held:], pool[:held]
    rows = min(len(body), len(body) if plan.data_whole else rows)
    vectors, asked = _encoded(plan, body, rows), _as_many(_encoded(plan, held_out, min(queries, held)), queries)
    label = f"{rows:,} real sentence embeddings ({origin}, all-MiniLM-L6-v2, {fingerprint(body[:rows])}), queries not among them"
    return vectors, asked, label, "ip"


def _as_many(queries: np.ndarray, wanted: int) -> np.ndarray:
    """The first ``wanted`` queries; a small set is asked again from its start."""
    return np.ascontiguousarray(np.take(queries, np.arange(wanted), axis=0, mode="wrap"))


def _digest(vectors: np.ndarray, digits: int = 8) -> str:
    return hashlib.sha256(vectors.tobytes()).hexdigest()[:digits]


def _encoded(plan: Plan, texts: list[str], count: int) -> np.ndarray:
    """Vectors of the first ``count`` texts. Shards are files named by a hash of their texts; those that are missing are encoded."""
    shards = [texts[start : start + SHARD] for start in range(0, count, SHARD)]
    paths = [plan.cache / "vectors" / f"{fingerprint(shard, SHARD_NAME)}.npy" for shard in shards]
    missing = [(shard, path) for shard, path in zip(shards, paths, strict=True) if not path.is_file()]
    if missing:
        _encode(plan, missing)
    return np.concatenate([np.load(path) for path in paths])[:count] if paths else np.empty((0, DIM), np.float32)


def _encode(plan: Plan, missing: list[tuple[list[str], Path]]) -> None:
    import nearfield
    from nearfield.progress import progress

    total = sum(len(shard) for shard, _ in missing)
    plan.say(f"encoding {total:,} short texts with all-MiniLM-L6-v2 (once; kept in {plan.cache})")
    with nearfield.Encoder(bundle(plan), backend="onnx", precision="fp32") as encoder, progress("encoding short texts", total) as bar:
        for shard, path in missing:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part")
            with part.open("wb") as file:
                np.save(file, encoder.encode(shard))
            os.replace(part, path)  # a run that is stopped leaves no half shard
            bar.advance(len(shard))


def clustered(rows: int, queries: int, *, dim: int = DIM, seed: int = SEED, noise: float = 0.7) -> tuple[np.ndarray, np.ndarray, str]:
    """Synthetic unit vectors in ``rows / 100`` clusters, and queries drawn from the same clusters, and what they are.

    A row is a random unit centre plus Gaussian noise of length ``noise``, normalized: its cosine to another row of its cluster is about
    1 / (1 + noise^2) = 0.67, as for short texts about one subject. Easier than real text for a graph: never mix the two in one table.
    """
    draw = np.random.default_rng(seed)
    centres = draw.standard_normal((max(1, rows // 100), dim), np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)

    def sample(count: int) -> np.ndarray:
        out = draw.standard_normal((count, dim), np.float32)
        out *= noise / np.sqrt(dim)
        out += centres[draw.integers(0, len(centres), count)]
        out /= np.linalg.norm(out, axis=1, keepdims=True)
        return out

    return (
        sample(rows),
        sample(queries),
        f"{rows:,} synthetic vectors in {len(centres):,} clusters (seed {seed}), {queries:,} queries from the same clusters",
    )
