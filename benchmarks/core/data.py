"""Texts and vectors for the suites, made on this machine and kept under ``benchmarks/cache`` (ignored by git, safe to delete).

Real data: short descriptions of Debian packages and the summary lines of the API documentation that is installed beside us, embedded
with all-MiniLM-L6-v2. Synthetic data, for larger n: clustered unit vectors. Every row of the results says which it was.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.core.plan import Plan

DIM = 384
# Queries are held out for the largest request (1,024 in each of 7 rounds and the warm-up), so that the rows never move.
MAX_QUERIES = 8_192
# Documents to harvest (half a minute for 8,000): more where there are few package descriptions to make collections of.
DOCUMENTS, MORE_DOCUMENTS, ENOUGH_DESCRIPTIONS = 8_000, 20_000, 30_000
# Vectors are saved after so many texts (some ten seconds), so that a run that was stopped goes on from there.
SAVED_EVERY = 4_096
# Encoding is the dear part (a few hundred short texts per second on two AVX2 cores): texts are cut at this many words, about 24 tokens.
SHORT_WORDS = 18
SHORT_CHARS = 120
MIN_CHARS = 15
SEED = 20_240_607
# Token counts of the encode suite vary by this much around their mean, as real texts do.
RAGGED = 0.25


# --- texts -------------------------------------------------------------------------------------------------------------


def package_descriptions() -> list[str]:
    """One-line descriptions of Debian packages: all that apt knows, or those installed; empty on other systems."""
    listing = ""
    if shutil.which("apt-cache"):
        listing = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, errors="replace", check=False).stdout
    if not listing:
        status = Path("/var/lib/dpkg/status")
        listing = status.read_text(encoding="utf-8", errors="replace") if status.is_file() else ""
    return re.findall(r"^Description(?:-en)?: (.+)$", listing, re.MULTILINE)


def harvested(plan: Plan, kind: str) -> list[str]:
    """Summary lines (``kind="summaries"``) or bodies (``"documents"``) of the API documentation installed here."""

    def make() -> dict[str, list[str]]:
        from nearfield.data.harvest import harvest

        plan.say("harvesting API documentation (once)")
        limit = DOCUMENTS if len(package_descriptions()) > ENOUGH_DESCRIPTIONS else MORE_DOCUMENTS
        dataset = harvest(limit=limit, progress=True)
        return {"summaries": dataset.query_texts, "documents": dataset.doc_texts}

    return _cached(plan.cache / "harvest.json", make)[kind]  # type: ignore[no-any-return]


def _short(text: str) -> str:
    return " ".join(text.split()[:SHORT_WORDS])[:SHORT_CHARS]


def _cached(path: Path, make: Callable[[], Any]) -> Any:
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(make(), ensure_ascii=False, indent=0), encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))


def sentences(plan: Plan) -> list[str]:
    """All distinct short texts of this machine, in an order that depends on nothing but their content and SEED."""

    def make() -> list[str]:
        found = {_short(text) for text in [*package_descriptions(), *harvested(plan, "summaries")]}
        texts = sorted(text for text in found if len(text) >= MIN_CHARS)
        random.Random(SEED).shuffle(texts)
        return texts

    return _cached(plan.cache / "sentences.json", make)  # type: ignore[no-any-return]


def texts_of_length(plan: Plan, tokens: int, count: int) -> list[str]:
    """``count`` real texts of about ``tokens`` tokens each (within RAGGED, uniformly; [CLS] and [SEP] included), cut at word ends."""

    def make() -> list[str]:
        from tokenizers import Tokenizer

        from nearfield.encode.models import resolve_model

        tokenizer = Tokenizer.from_file(str(resolve_model(None) / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        draw = random.Random(SEED + tokens)
        documents = sorted(set(harvested(plan, "documents")))
        draw.shuffle(documents)
        out: list[str] = []
        for document in documents:
            wanted = round(draw.uniform(1 - RAGGED, 1 + RAGGED) * tokens) - 2
            spans = tokenizer.encode(document, add_special_tokens=False).offsets
            if len(spans) >= wanted:
                out.append(document[: spans[wanted - 1][1]])
            if len(out) == count:
                return out
        if not out:
            raise RuntimeError(
                f"no document of {tokens} tokens among {len(documents)}: install the demo extra, whose documentation is harvested"
            )
        return [out[i % len(out)] for i in range(count)]

    return _cached(plan.cache / f"texts-{tokens}-{count}.json", make)  # type: ignore[no-any-return]


def fingerprint(texts: Sequence[str]) -> str:
    """Eight hex digits that tell two sets of texts apart."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:8]


# --- the model ---------------------------------------------------------------------------------------------------------


def bundle(plan: Plan) -> Path:
    """The bundle of all-MiniLM-L6-v2 (fp32 and int8 ONNX), exported once into the cache."""
    path = plan.cache / "bundle"
    if not (path / "manifest.json").is_file():
        from nearfield.encode.models import resolve_model
        from nearfield.export.export import export_bundle

        plan.say("exporting all-MiniLM-L6-v2 to ONNX (once)")
        texts = sentences(plan)[:64]
        model = resolve_model(None)
        export_bundle(
            model,
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


# --- vectors -----------------------------------------------------------------------------------------------------------


def real_vectors(plan: Plan, rows: int, queries: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Embeddings of real sentences: ``(rows, 384)`` to index, ``(queries, 384)`` that are not among them, and what they are.

    The first sentences of the pool are always the queries, the following ones the rows, so that a smaller run is a slice of a
    larger one and nothing is encoded twice. Fewer rows come where the machine has fewer texts; the description says how many.
    """
    pool = sentences(plan)
    held, body = pool[:MAX_QUERIES], pool[MAX_QUERIES:]
    if queries > len(held) or not body:
        raise RuntimeError(
            f"{len(pool)} sentences found, {queries} queries and more wanted: delete {plan.cache} after installing more packages"
        )
    rows = min(rows, len(body))
    vectors, wanted = _encoded(plan, "rows", body, rows), _encoded(plan, "queries", held, queries)
    made = f"package descriptions and docstrings, all-MiniLM-L6-v2, {fingerprint(body[:rows])}"
    label = f"{rows:,} real sentence embeddings ({made}), queries not among them"
    return vectors, wanted, label


def _encoded(plan: Plan, name: str, texts: list[str], count: int) -> np.ndarray:
    """Vectors of the first ``count`` texts; those in the cache are read, the rest is encoded and appended to it."""
    path, mark = plan.cache / f"{name}.npy", plan.cache / f"{name}.sha"
    old = np.load(path) if path.is_file() else np.empty((0, DIM), np.float32)
    if len(old) and (not mark.is_file() or mark.read_text() != fingerprint(texts[: len(old)])):
        old = old[:0]  # the pool of sentences changed
    if len(old) < count:
        import nearfield
        from nearfield.progress import progress

        plan.say(f"encoding {count - len(old):,} short texts with all-MiniLM-L6-v2 (once; kept in {plan.cache})")
        encoder = nearfield.Encoder(bundle(plan), backend="onnx", precision="fp32")
        with progress("encoding short texts", count - len(old)) as bar:
            while len(old) < count:
                fresh = encoder.encode(texts[len(old) : min(count, len(old) + SAVED_EVERY)])
                old = np.concatenate([old, fresh])
                np.save(path, old)
                mark.write_text(fingerprint(texts[: len(old)]))
                bar.advance(len(fresh))
        encoder.close()
    return old[:count]


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
