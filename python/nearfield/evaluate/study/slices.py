"""For which queries the change holds: by their length, and by the part of the corpus that answers them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from nearfield.evaluate.significance import Paired, bootstrap_columns, paired_columns
from nearfield.evaluate.study.parts import Parts, ranges
from nearfield.evaluate.study.results import Slice, Slicing, Word
from nearfield.evaluate.verdict import is_sure
from nearfield.types import IntArray

Values = npt.NDArray[np.float64]

# Intervals of few values are too narrow: for normal ones, those of 20 hold the mean in 93.5 of 100 cases instead of 95 and those of 10 in
# 91.8 (Student's t at 1.96); changes of nDCG are skewed, which makes it worse.
FEW = 20


def slicings(
    query_texts: Sequence[str],
    judged: Sequence[Mapping[str, int]],
    doc_ids: Sequence[str],
    parts: Parts,
    after: Values,
    before: Values | None,
    *,
    seed: int = 0,
) -> list[Slicing]:
    """Slices the scored queries by length and by part.

    Args:
        query_texts: the ``n`` scored queries.
        judged: for each its judgements; at least one grade is above 0.
        doc_ids: of the corpus.
        parts: of the corpus.
        after, before: ``(n,)`` nDCG@k of the two models; ``before`` is None without a second one.
        seed: of the statistics.
    """
    names, of = ranges([len(text.split()) for text in query_texts])
    place = {identity: position for position, identity in enumerate(doc_ids)}
    home = np.array([_home(grades, place, parts) for grades in judged], np.int64)
    how = f"{parts.how} A query counts where its relevant document stands (of several, the first with the highest grade)."
    return [
        Slicing("length of the query", "In words, divided at the quartiles.", _slices(names, of, after, before, seed)),
        Slicing(f"part of the corpus ({parts.by})", how, _slices([*parts.names, "not in the corpus"], home, after, before, seed)),
    ]


def _home(grades: Mapping[str, int], place: Mapping[str, int], parts: Parts) -> int:
    known = [(-grade, place[document]) for document, grade in grades.items() if grade > 0 and document in place]
    return int(parts.of[min(known)[1]]) if known else len(parts.names)


def _slices(names: Sequence[str], of: IntArray, after: Values, before: Values | None, seed: int) -> list[Slice]:
    made = []
    for part, name in enumerate(names):
        rows = of == part
        if not rows.any():
            continue
        columns = [after[rows]] if before is None else [after[rows], before[rows]]
        intervals = bootstrap_columns(np.stack(columns, axis=1), seed=seed)
        if before is None:
            made.append(Slice(name, int(rows.sum()), intervals[0], None, None, ""))
        else:
            change = paired_columns((after - before)[rows][:, None], seed=seed)[0]
            made.append(Slice(name, int(rows.sum()), intervals[0], intervals[1], change, _word(change, int(rows.sum()))))
    return made


def _word(change: Paired, queries: int) -> Word:
    if queries < FEW:
        return "too few queries"
    if not is_sure(change):
        return "not sure"
    return "better" if change.mean > 0 else "worse"
