"""What each precision costs: cosine to float32, and nDCG@10 on data with judgements, paired query by query.

Queries and documents both go through the precision that is judged; the reference is the bundle's float32 graph, which is within 1e-5 of
torch. Up to 2,000 queries of a split over 3,000 documents (relevant ones and random others, seeded). ``--judged`` names the data.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchmarks.core.peers import set_threads
from benchmarks.core.plan import ROOT, Plan
from benchmarks.core.results import Row
from benchmarks.core.texts import fingerprint
from benchmarks.encoders.engines import EncodeEngine, Maker, engines_named
from benchmarks.encoders.loop import Encode
from benchmarks.encoders.models import AS_SHIPPED
from benchmarks.suites.encode import texts_for

if TYPE_CHECKING:
    from nearfield.data.dataset import Dataset

NAMES = (
    "nearfield native int8", "nearfield native bf16", "nearfield native fp32", "nearfield onnx int8", "onnxruntime int8", "OpenVINO bf16",
    "OpenVINO int8",
)  # fmt: skip
REFERENCE = "onnxruntime f32"
QUERIES, DOCUMENTS = 2_000, 3_000
QUICK_QUERIES, QUICK_DOCUMENTS = 20, 40
# Texts of each length for the cosines without judgements.
LENGTHS, EACH, QUICK_EACH = (16, 64, 167), 128, 8
# Judged where --judged names nothing and a folder beside the repository holds them.
DEFAULT = ("medquad", "nl2bash", "squad_general")
# Half the width of a normal 95 % interval in standard errors.
NORMAL_95 = 1.96


def run(plan: Plan) -> list[Row]:
    """All rows of the suite."""
    threads = plan.all_cores[-1]
    set_threads(threads)
    maker = Maker(plan, AS_SHIPPED, threads, engines_named(NAMES))
    encoders = {engine.name: maker.encode(engine, engine.settings(threads, 32)[0]) for engine in maker.engines}
    (reference,) = engines_named([REFERENCE])
    truth = maker.encode(reference, {"rows": 8})
    rows = _cosines(maker, encoders, truth)
    for path in judged(plan):
        rows += _losses(maker, encoders, truth, path)
    maker.close()
    return rows


def judged(plan: Plan) -> list[Path]:
    """The data: what ``--judged`` names, else the folders in ``../shared/data``; one line for each of these that is not there."""
    if plan.judged:
        return list(plan.judged)
    out = []
    for path in (ROOT.parent / "shared" / "data" / name for name in DEFAULT):
        if path.is_dir():
            out.append(path)
        else:
            line = f"skipped: nDCG@10 on {path.name} (no such data beside the repository; --judged names any)"
            plan.skipped.append(line)
            plan.say(line)
    return out


def _cosines(maker: Maker, encoders: dict[str, Encode], truth: Encode) -> list[Row]:
    each = QUICK_EACH if maker.plan.quick else EACH
    texts = [text for tokens in LENGTHS for text in texts_for(maker.plan, tokens, each)]
    expected = truth(texts)
    label = f"{len(texts)} pieces of API documentation ({fingerprint(texts)}) of {', '.join(map(str, LENGTHS))} tokens"
    rows = []
    for engine in maker.engines:
        start = time.perf_counter()
        found = row_cosines(encoders[engine.name](texts), expected)
        params = {"min_cosine": float(found.min())}
        rows.append(
            _row(
                maker,
                engine,
                "cosine to float32",
                label,
                float(found.mean()),
                "mean cosine",
                params,
                time.perf_counter() - start,
                len(texts),
            )
        )
    return rows


def row_cosines(found: np.ndarray, expected: np.ndarray) -> npt.NDArray[np.float64]:
    """The cosine between the rows of two arrays, in float64."""
    a, b = found.astype(np.float64), expected.astype(np.float64)
    cosines: npt.NDArray[np.float64] = np.sum(a * b, axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return cosines


@dataclass
class Judged:
    """A sample of a data set."""

    queries: list[str]
    documents: list[str]
    query_ids: list[str]
    doc_ids: list[str]
    split: str
    qrels: dict[str, dict[str, int]]

    @classmethod
    def sample(cls, data: Dataset, queries: int, documents: int) -> Judged:
        """The queries and the part of the corpus that ``nearfield export`` would measure int8 on, larger; from test where there is one."""
        from nearfield.export.parity import _sample

        split = "test" if data.qrels.get("test") else "dev"
        only = replace(data, qrels={"dev": data.qrels[split]})
        _, query_ids, doc_ids = _sample(only, queries, documents, 0)
        text_of_doc = dict(zip(data.doc_ids, data.doc_texts, strict=True))
        text_of_query = dict(zip(data.query_ids, data.query_texts, strict=True))
        return cls([text_of_query[i] for i in query_ids], [text_of_doc[i] for i in doc_ids], query_ids, doc_ids, split, data.qrels[split])

    def ndcg(self, queries: np.ndarray, documents: np.ndarray) -> npt.NDArray[np.float64]:
        """nDCG@10 of every query, 0 to 1, by inner product."""
        from nearfield.metrics import score_run

        order = np.argsort(-(queries @ documents.T), axis=1, kind="stable")[:, :10]
        ranked = [[self.doc_ids[place] for place in line] for line in order]
        return np.asarray(score_run(self.query_ids, ranked, self.qrels, k=10, depth=10).values["ndcg@10"], np.float64)


def _losses(maker: Maker, encoders: dict[str, Encode], truth: Encode, path: Path) -> list[Row]:
    from nearfield.data.read import read

    plan = maker.plan
    sizes = (QUICK_QUERIES, QUICK_DOCUMENTS) if plan.quick else (QUERIES, DOCUMENTS)
    data = Judged.sample(read(path), *sizes)
    plan.say(f"encode_quality: {path.name}, float32 (kept), {len(data.documents):,} documents")
    queries, documents = (_kept(plan, truth, texts) for texts in (data.queries, data.documents))
    before = data.ndcg(queries, documents)
    label = (
        f"{path.name}, {data.split}: {len(data.queries):,} queries, {len(data.documents):,} documents ({fingerprint(data.documents)}), "
        f"float32 {100 * before.mean():.2f}"
    )
    rows = []
    for engine in maker.engines:
        plan.say(f"encode_quality: {path.name}, {engine.name}")
        start = time.perf_counter()
        asked, found = (encoders[engine.name](texts) for texts in (data.queries, data.documents))
        seconds = time.perf_counter() - start
        cosines = row_cosines(np.concatenate([asked, found]), np.concatenate([queries, documents]))
        after = data.ndcg(asked, found)
        params = {**paired(before, after), "mean_cosine": float(cosines.mean()), "min_cosine": float(cosines.min())}
        rows.append(_row(maker, engine, f"loss on {path.name}", label, float(after.mean()), "nDCG@10", params, seconds, len(cosines)))
    return rows


def paired(before: npt.NDArray[np.float64], after: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Points of nDCG lost, and the 95 % interval of the mean of the differences query by query.

    >>> paired(np.array([0.5, 0.5]), np.array([0.5, 0.5]))
    {'points_lost': 0.0, 'interval': [0.0, 0.0]}
    """
    lost = 100 * (before - after)
    half = NORMAL_95 * float(lost.std(ddof=1)) / len(lost) ** 0.5 if len(lost) > 1 else 0.0
    return {"points_lost": float(lost.mean()), "interval": [float(lost.mean()) - half, float(lost.mean()) + half]}


def _kept(plan: Plan, truth: Encode, texts: Sequence[str]) -> np.ndarray:
    """The reference's vectors of these texts, made once."""
    path = plan.cache / "quality" / f"{fingerprint(texts, 16)}.npy"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            np.save(file, truth(texts))
        part.replace(path)
    out: np.ndarray = np.load(path)
    return out


def _row(
    maker: Maker, engine: EncodeEngine, group: str, label: str, value: float, unit: str, params: dict[str, Any], seconds: float, texts: int
) -> Row:
    return Row(
        suite="encode_quality", group=group, brief="", engine=engine.name, version=engine.version, ours=engine.ours, data=label,
        threads=maker.threads, params={"model": maker.model.name, "precision": engine.precision, **params}, value=value, unit=unit,
        quality_name="mean cosine to float32" if "mean_cosine" in params else None, quality=params.get("mean_cosine"),
        rounds=[{"seconds": seconds, "calls": texts}],
    )  # fmt: skip
