"""A corpus in two dimensions: where the documents of a sample lie to each other, before and after."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nearfield.errors import MissingExtraError
from nearfield.evaluate.study.parts import Parts
from nearfield.evaluate.study.results import CorpusMap, Mark, Side
from nearfield.progress import progress
from nearfield.types import FloatArray, IntArray

Points = npt.NDArray[np.float64]

# t-SNE's usual perplexity (van der Maaten and Hinton, JMLR 2008, suggest 5 to 50); a third of the points at most.
PERPLEXITY = 30.0
# Fewer points have no neighbourhoods to show.
LEAST_POINTS = 20
NEIGHBOURS = 10
# The maps' coordinates are whole numbers from 0 to this: half a pixel on a wide screen.
SCALE = 1000


def draw(
    after: FloatArray, before: FloatArray | None, part: IntArray, marks: Sequence[Mark], parts: Parts, *, seed: int = 0, show: bool = False
) -> CorpusMap:
    """Projects the same documents and queries by both models' vectors.

    t-SNE with a fixed seed on one thread, so that the map repeats. It keeps who is near whom and nothing else: neither distances between
    clusters nor their sizes mean anything. The second map is rotated and reflected onto the first, as t-SNE fixes neither.

    Args:
        after, before: float32 ``(points, dim)``, documents first, then the marks' queries.
        part: ``(documents on the map,)``: the part of each.
        marks: the queries, as rows of the points.
        parts: of the whole corpus.
        seed: of the projection.
        show: whether progress is shown.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    start = time.perf_counter()
    shown = len(part)
    sides = [_unit(vectors) for vectors in (before, after) if vectors is not None]
    flat = []
    with progress("drawing the maps", len(sides), enabled=show) as bar:
        for vectors in sides:
            flat.append(_project(vectors, seed))
            bar.advance()
    if len(flat) == 2:
        flat[1] = _turned(flat[1], onto=flat[0])
    made = [_side(vectors[:shown], points, part) for vectors, points in zip(sides, flat, strict=True)]
    counts = np.bincount(part)
    chance = float((counts * (counts - 1)).sum() / (shown * (shown - 1)))
    sample = f"{shown:,} documents" if shown < len(parts.of) else "all documents"
    return CorpusMap(
        how=f"t-SNE (perplexity {_perplexity(len(after)):g}, seed {seed}) of {sample}", by=parts.by, parts=parts.names, part=part.tolist(),
        documents=len(parts.of), by_chance=chance, before=made[0] if before is not None else None, after=made[-1], marks=list(marks),
        seconds=time.perf_counter() - start,
    )  # fmt: skip


def _unit(vectors: FloatArray) -> FloatArray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 0, norms, 1), np.float32)


def _perplexity(points: int) -> float:
    return min(PERPLEXITY, points // 3)


def _project(vectors: FloatArray, seed: int) -> Points:
    try:
        from sklearn.manifold import TSNE
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise MissingExtraError("a map of the corpus", "report", "scikit-learn") from None
    # Sums over threads come in any order and t-SNE amplifies their last bits into another map.
    with threadpool_limits(1), warnings.catch_warnings():
        # Equal vectors make its start's principal components divide 0 by 0, which it then mends.
        warnings.simplefilter("ignore", RuntimeWarning)
        method = TSNE(perplexity=_perplexity(len(vectors)), init="pca", learning_rate="auto", random_state=seed)
        return np.asarray(method.fit_transform(vectors), np.float64)


def _turned(points: Points, *, onto: Points) -> Points:
    """The points rotated and reflected so that each lies as near as possible to its place in ``onto`` (orthogonal Procrustes)."""
    centred, goal = points - points.mean(axis=0), onto - onto.mean(axis=0)
    left, _, right = np.linalg.svd(centred.T @ goal)
    return np.asarray(centred @ (left @ right), np.float64)


def _side(vectors: FloatArray, points: Points, part: IntArray) -> Side:
    near = _nearest(vectors @ vectors.T)
    flat = points[: len(part)]
    squares = (flat**2).sum(axis=1)
    near_on_map = _nearest(2 * flat @ flat.T - squares[:, None] - squares[None, :])
    kept = [len(set(a) & set(b)) for a, b in zip(near.tolist(), near_on_map.tolist(), strict=True)]
    same = float((part[near] == part[:, None]).mean())
    return Side(_placed(points), same, float(np.mean(kept) / near.shape[1]))


def _nearest(likeness: npt.NDArray[np.floating]) -> IntArray:
    """The positions of the ten largest values of each row, its own place left out."""
    np.fill_diagonal(likeness, -np.inf)
    return np.argsort(-likeness, axis=1, kind="stable")[:, : min(NEIGHBOURS, len(likeness) - 1)]


def _placed(points: Points) -> list[tuple[int, int]]:
    low, high = points.min(axis=0), points.max(axis=0)
    span = max(float((high - low).max()), 1e-12)
    placed = SCALE / 2 + (points - (low + high) / 2) * (SCALE / span)
    return [(int(x), int(y)) for x, y in np.rint(placed)]
