"""What reading gives and every later stage takes: documents, queries, judgements by split, and what was found on the way."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from nearfield.errors import InputError

Qrels = dict[str, dict[str, int]]
"""Query id -> {document id: grade}; every grade is > 0."""

Severity = Literal["error", "warning", "info"]

SPLITS = ("train", "dev", "test")
"""The split names that the stages know, in the order in which they are shown."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that reading or checking noticed.

    Attributes:
        kind: a stable short name to group and filter by, for example ``"bad-json"`` or ``"duplicate-document"``.
        where: the file and row (``"corpus.jsonl:17"``, ``"data.csv row 5"``) or the ids concerned.
        message: what is wrong and what was done about it, in one line.
        severity: ``"error"``: something was left out or makes figures wrong; ``"warning"``: worth a look; ``"info"``: for the record.
    """

    kind: str
    where: str
    message: str
    severity: Severity = "error"


@dataclass
class Dataset:
    """Documents, queries and judgements. Treated as immutable once made: `fingerprint` is computed once.

    Attributes:
        name: how reports call it, for example the folder's name.
        source: the path it was read from, or what made it.
        doc_ids: unique, in the order of the file.
        doc_texts: aligned with ``doc_ids``; the title is joined to the text by a space.
        query_ids: unique.
        query_texts: aligned with ``query_ids``.
        qrels: split name (``"train"``, ``"dev"``, ``"test"``) -> judgements; empty where there are documents alone.
        hard_negatives: query id -> document ids labelled as not relevant.
        findings: what reading found: rows left out, and why.
        groups: document id -> a key shared by documents that must not be divided between splits (the sub-module they come from);
            empty where nothing is known.
        titles: document id -> the title at the front of its text, where it has one.

    Raises:
        InputError: ids and texts differ in number.

    >>> data = Dataset("tiny", "memory", ["d1", "d2"], ["a cat", "a dog"], ["q1"], ["meow?"], {"test": {"q1": {"d1": 1}}})
    >>> data.queries_of("test")
    (['q1'], ['meow?'])
    >>> len(data.fingerprint)
    64
    """

    name: str
    source: str
    doc_ids: list[str]
    doc_texts: list[str]
    query_ids: list[str] = field(default_factory=list)
    query_texts: list[str] = field(default_factory=list)
    qrels: dict[str, Qrels] = field(default_factory=dict)
    hard_negatives: dict[str, list[str]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    groups: dict[str, str] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    _fingerprint: str | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for what, ids, texts in (("doc", self.doc_ids, self.doc_texts), ("query", self.query_ids, self.query_texts)):
            if len(ids) != len(texts):
                raise InputError(f"{self.name}: {len(ids)} {what}_ids and {len(texts)} {what}_texts given, one text for each id expected")

    @property
    def fingerprint(self) -> str:
        """sha256 (64 hex digits) of ids, texts, judgements and hard negatives; name, source, findings, groups and titles do not count."""
        if self._fingerprint is None:
            digest = hashlib.sha256()
            for part in self._parts():
                data = part.encode("utf-8", "surrogatepass")
                digest.update(len(data).to_bytes(8, "little"))
                digest.update(data)
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def _parts(self) -> Iterable[str]:
        """The content as a sequence of strings; counts go first so that no two contents give the same sequence."""
        for values in (self.doc_ids, self.doc_texts, self.query_ids, self.query_texts):
            yield str(len(values))
            yield from values
        for split in sorted(self.qrels):
            yield from ("split", split, str(len(self.qrels[split])))
            for query, judged in sorted(self.qrels[split].items()):
                yield from (query, str(len(judged)))
                for doc, grade in sorted(judged.items()):
                    yield from (doc, str(grade))
        yield "negatives"
        for query, docs in sorted(self.hard_negatives.items()):
            yield from (query, str(len(docs)), *docs)

    def queries_of(self, split: str) -> tuple[list[str], list[str]]:
        """Returns ``(ids, texts)`` of the queries judged in ``split``, in the order of ``query_ids``.

        Raises:
            InputError: the dataset has no such split; the message names those it has.
        """
        if split not in self.qrels:
            have = ", ".join(sorted(self.qrels)) or "none (documents alone)"
            raise InputError(
                f"{self.name}: split {split!r} asked for, it has {have}: name one of them or make it with nearfield.data.split.split"
            )
        judged = self.qrels[split]
        pairs = [(i, t) for i, t in zip(self.query_ids, self.query_texts, strict=True) if i in judged]
        return [i for i, _ in pairs], [t for _, t in pairs]
