"""Into which parts a corpus falls: by what is known of its documents, else by their ids, else by their length."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nearfield.data.dataset import Dataset
from nearfield.types import IntArray

# Seven named parts and the rest: more colours cannot be told apart on a map.
MAX_PARTS = 7
# Parts smaller than this hold too few documents to say anything of; where the seven largest hold less than half of the corpus, or one
# holds nearly all of it, the division tells nothing.
LEAST_SHARE, LEAST_COVER, MOST_SHARE = 0.01, 0.5, 0.95
# Deepest level of a key that is tried: "https://host/folder/page" shows its first difference at the third.
LEVELS = 3
SEPARATORS = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Parts:
    """A division of the documents.

    Attributes:
        by: what divides them.
        how: how it was found, in a sentence.
        names: the parts.
        of: ``(documents,)`` int64: the position of each document's part in ``names``.
    """

    by: str
    how: str
    names: list[str]
    of: IntArray


def parts_of(data: Dataset) -> Parts:
    """Divides a corpus into at most eight parts.

    The first that divides it well: the beginnings of the keys in ``data.groups`` (where documents come from), the beginnings of the ids
    (``cgov-0001`` and ``nihs-0001`` differ in theirs), quarters by length.

    >>> ids = [f"{name}/{i}" for name in ("guide", "api") for i in range(10)]
    >>> parts = parts_of(Dataset("tiny", "memory", ids, ["text"] * 20))
    >>> parts.by, parts.names, parts.of[:2].tolist()
    ('beginning of the id', ['guide', 'api'], [0, 0])
    """
    groups = [data.groups.get(identity, "") for identity in data.doc_ids]
    sources = (
        ("source", "the beginning of the key that the data give for where a document comes from", groups),
        ("beginning of the id", "the beginning of the document's id", data.doc_ids),
    )
    for by, how, keys in sources:
        for level in range(1, LEVELS + 1):
            found = _named([_beginning(key, level) for key in keys])
            if found is not None:
                names, of = found
                return Parts(by, f"A document's part is {how}.", names, of)
    counts = [len(text.split()) for text in data.doc_texts]
    names, of = ranges(counts)
    return Parts("length of the document", "Neither sources nor ids divide this corpus, so its parts are quarters by length.", names, of)


def ranges(counts: Sequence[int], unit: str = "words") -> tuple[list[str], IntArray]:
    """Divides values at their quartiles; equal values stay together, so there may be fewer than four ranges.

    >>> ranges([3, 9, 4, 4, 12, 30, 7, 1])[0]
    ['1 to 3 words', '4 words', '7 to 9 words', '12 to 30 words']
    """
    values = np.asarray(counts, np.int64)
    if not len(values):
        return [], values
    edges = np.unique(np.quantile(values, [0.25, 0.5, 0.75], method="inverted_cdf"))
    _, of = np.unique(np.searchsorted(edges, values), return_inverse=True)
    bounds = [(int(values[of == part].min()), int(values[of == part].max())) for part in range(int(of.max()) + 1)]
    return [f"{low:,} {unit}" if low == high else f"{low:,} to {high:,} {unit}" for low, high in bounds], of.astype(np.int64)


def _beginning(key: str, level: int) -> str:
    """The first ``level`` words of a key, written as in the key; empty for a key with no more than these, which names one document.

    >>> _beginning("numpy.linalg.norm", 2), _beginning("d17", 1)
    ('numpy.linalg', '')
    """
    ends = [match.start() for match in SEPARATORS.finditer(key)]
    return key[: ends[level - 1]] if len(ends) >= level else ""


def _named(keys: Sequence[str]) -> tuple[list[str], IntArray] | None:
    """The largest parts by key and "other", or None where they divide badly; see the limits above."""
    counts = Counter(key for key in keys if key)
    largest = [(key, count) for key, count in counts.most_common(MAX_PARTS) if count >= LEAST_SHARE * len(keys)]
    if len(largest) < 2 or largest[0][1] > MOST_SHARE * len(keys) or sum(count for _, count in largest) < LEAST_COVER * len(keys):
        return None
    names = [key for key, _ in largest]
    place = {key: position for position, key in enumerate(names)}
    of = np.array([place.get(key, len(names)) for key in keys], np.int64)
    return ([*names, "other"] if (of == len(names)).any() else names), of
