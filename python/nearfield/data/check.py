"""The data check: what would make a fine-tuned model look better, or worse, than it is. It reports; it changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from nearfield.data.dataset import SPLITS, Dataset, Finding, Severity
from nearfield.data.near import BANDS, THRESHOLD, join_near, normalize
from nearfield.data.notes import Notes
from nearfield.data.union import Union
from nearfield.progress import progress as show

# English text has about four characters to a token in the vocabularies in use; an estimate is enough to warn.
CHARACTERS_PER_TOKEN = 4

_SHOWN_IDS = 5


def check(dataset: Dataset, *, max_tokens: int = 512, progress: bool = False) -> list[Finding]:
    """Returns what is doubtful in ``dataset``, at most 20 examples of each kind and then a count.

    Kinds: ``empty-text``, ``duplicate-id``, ``over-long``, ``duplicate-document``, ``near-duplicate-document`` (Jaccard similarity of
    word 3-shingles of at least 0.8), ``unjudged-duplicate``, ``query-is-document``, ``leaked-query``, ``nearly-leaked-query``,
    ``leaked-document``, ``contradictory-judgement``. What reading found is in ``dataset.findings`` and not repeated.

    Args:
        dataset: any dataset, also one that was not read from a file.
        max_tokens: what the model takes; a text of more than 4 characters for each of these is over-long.
        progress: a bar on stderr; 16,000 documents take about 10 seconds.

    >>> data = Dataset("tiny", "memory", ["d1", "d2"], ["a cat", "A  cat"], ["q1"], ["a cat"], {"train": {"q1": {"d1": 1}}})
    >>> for finding in check(data):
    ...     print(finding.kind, "|", finding.where)
    duplicate-document | documents d1, d2
    query-is-document | query q1
    unjudged-duplicate | query q1
    """
    notes = Notes()
    with show("checking the data", 2 * BANDS, enabled=progress) as bar:
        documents, queries = Union(len(dataset.doc_texts)), Union(len(dataset.query_texts))
        join_near(dataset.doc_texts, documents, advance=bar.advance)
        join_near(dataset.query_texts, queries, advance=bar.advance)
        _texts(dataset, max_tokens, notes)
        same = _duplicates(dataset, documents, notes)
        _verbatim(dataset, notes)
        _judgements(dataset, same, notes)
        _leaks(dataset, documents, queries, notes)
    return notes.findings()


@dataclass(frozen=True, slots=True)
class Tally:
    """The findings of one kind.

    Attributes:
        severity, kind: of each.
        count: how many there are, those that were counted but not listed included.
        examples: those that are listed.
    """

    severity: Severity
    kind: str
    count: int
    examples: list[Finding]


def tally(findings: Iterable[Finding]) -> list[Tally]:
    """Returns the findings by kind, errors first, kinds in the order of their first appearance.

    >>> [(kind.kind, kind.count) for kind in tally([Finding("empty-text", "a.jsonl:3", "left out")])]
    [('empty-text', 1)]
    """
    kinds: dict[tuple[Severity, str], list[Finding]] = {}
    for finding in findings:
        kinds.setdefault((finding.severity, finding.kind), []).append(finding)
    made = []
    for (severity, kind), found in sorted(kinds.items(), key=lambda item: ("error", "warning", "info").index(item[0][0])):
        listed = [f for f in found if not f.message.endswith("not listed")]
        rest = sum(int(f.message.split()[0].replace(",", "")) for f in found if f.message.endswith("not listed"))
        made.append(Tally(severity, kind, len(listed) + rest, listed))
    return made


def summarize(findings: Iterable[Finding]) -> str:
    """Returns the findings as lines for people: kinds with errors first, for each kind its number of entries and its first three.

    >>> print(summarize([Finding("empty-text", "a.jsonl:3", "'text' is empty, row left out")]))
    error   empty-text: 1
            a.jsonl:3: 'text' is empty, row left out
    """
    lines: list[str] = []
    for found in tally(findings):
        lines.append(f"{found.severity:7} {found.kind}: {found.count:,}")
        lines += [f"        {example.where}: {example.message}" for example in found.examples[:3]]
    return "\n".join(lines) or "nothing to report"


def _ids(ids: Sequence[str]) -> str:
    listed = ", ".join(i[:40] for i in ids[:_SHOWN_IDS])
    return listed + (f" and {len(ids) - _SHOWN_IDS:,} more" if len(ids) > _SHOWN_IDS else "")


def _texts(dataset: Dataset, max_tokens: int, notes: Notes) -> None:
    for what, ids, texts in (("document", dataset.doc_ids, dataset.doc_texts), ("query", dataset.query_ids, dataset.query_texts)):
        seen: dict[str, int] = {}
        for row, (identity, text) in enumerate(zip(ids, texts, strict=True), 1):
            where = f"{what} {identity[:60]}"
            if not text.strip():
                notes.add("empty-text", what, where, "the text is empty: no query can find it, and it finds nothing")
            if identity in seen:
                notes.add("duplicate-id", what, where, f"the id of {what} number {seen[identity]:,} and of number {row:,}")
            seen.setdefault(identity, row)
            tokens = len(text) // CHARACTERS_PER_TOKEN
            if tokens > max_tokens:
                message = f"about {tokens:,} tokens ({len(text):,} characters), the model takes {max_tokens}: the rest is cut off"
                notes.add("over-long", what, where, message, "warning")


def _duplicates(dataset: Dataset, near: Union, notes: Notes) -> dict[str, list[str]]:
    """Notes exact and near duplicates; returns document id -> ids of all its exact duplicates, itself included, where it has any."""
    groups: dict[str, list[str]] = {}
    for identity, text in zip(dataset.doc_ids, dataset.doc_texts, strict=True):
        if text.strip():
            groups.setdefault(normalize(text), []).append(identity)
    same: dict[str, list[str]] = {}
    for ids in groups.values():
        if len(ids) > 1:
            message = f"{len(ids)} documents have the same text (but for case and white space)"
            notes.add("duplicate-document", "documents", f"documents {_ids(ids)}", message, "warning")
            same.update(dict.fromkeys(ids, ids))
    for cluster in near.clusters():
        forms = {normalize(dataset.doc_texts[i]): dataset.doc_ids[i] for i in reversed(cluster)}
        if len(forms) > 1:
            ids = [i for i in (dataset.doc_ids[c] for c in cluster) if i in set(forms.values())]
            message = f"{len(ids)} texts that are nearly the same (chained by 3-word shingles, Jaccard >= {THRESHOLD})"
            notes.add("near-duplicate-document", "documents", f"documents {_ids(ids)}", message, "warning")
    return same


def _verbatim(dataset: Dataset, notes: Notes) -> None:
    documents: dict[str, str] = {}
    for identity, text in zip(dataset.doc_ids, dataset.doc_texts, strict=True):
        documents.setdefault(normalize(text), identity)
    for identity, text in zip(dataset.query_ids, dataset.query_texts, strict=True):
        doc = documents.get(normalize(text))
        if doc is not None and text.strip():
            message = f"the query is word for word document {doc[:60]}: finding it proves nothing"
            notes.add("query-is-document", "queries", f"query {identity[:60]}", message, "warning")


def _judgements(dataset: Dataset, same: dict[str, list[str]], notes: Notes) -> None:
    """Notes judgements that disagree with each other, and exact copies of relevant documents that nobody judged."""
    grades: dict[str, dict[str, tuple[str, int]]] = {}
    for split, qrels in dataset.qrels.items():
        for query, judged in qrels.items():
            where = f"query {query[:60]}"
            unjudged = sorted({copy for doc in judged for copy in same.get(doc, ()) if copy not in judged})
            if unjudged:
                message = f"in {split}, exact copies of its relevant documents count as wrong: {_ids(unjudged)}"
                notes.add("unjudged-duplicate", split, where, message, "warning")
            for doc, grade in judged.items():
                other, first = grades.setdefault(query, {}).setdefault(doc, (split, grade))
                if first != grade:
                    message = f"document {doc[:60]} has grade {first} in {other} and {grade} in {split}"
                    notes.add("contradictory-judgement", split, where, message)
    for query, docs in dataset.hard_negatives.items():
        relevant = grades.get(query, {})
        for doc in docs:
            if copy := next((c for c in same.get(doc, [doc]) if c in relevant), None):
                message = f"document {doc[:60]} is a hard negative, and {'it' if copy == doc else f'its copy {copy[:60]}'} is relevant"
                notes.add("contradictory-judgement", "hard negatives", f"query {query[:60]}", message)


def _leaks(dataset: Dataset, documents: Union, queries: Union, notes: Notes) -> None:
    """Notes what two splits share: a query, a near duplicate of one, a relevant document, a near duplicate of one."""
    text_of = dict(zip(dataset.query_ids, dataset.query_texts, strict=True))
    query_at = {identity: i for i, identity in enumerate(dataset.query_ids)}
    doc_at = {identity: i for i, identity in enumerate(dataset.doc_ids)}
    splits = sorted(dataset.qrels, key=lambda name: (SPLITS.index(name) if name in SPLITS else len(SPLITS), name))
    exact: dict[str, dict[str, str]] = {}
    near: dict[str, dict[int, str]] = {}
    relevant: dict[str, dict[int, str]] = {}
    for split in splits:
        asked = [query for query in dataset.qrels[split] if query in query_at]
        exact[split] = {normalize(text_of[query]): query for query in reversed(asked)}
        near[split] = {queries.find(query_at[query]): query for query in reversed(asked)}
        judged = (doc for docs in dataset.qrels[split].values() for doc in docs)
        relevant[split] = {documents.find(doc_at[doc]): doc for doc in judged if doc in doc_at}
    for a, b in combinations(splits, 2):
        scope, where = f"{a}/{b}", f"splits {a} and {b}"
        told = set()
        for text in sorted(exact[a].keys() & exact[b].keys()):
            one, two = exact[a][text], exact[b][text]
            told.add(queries.find(query_at[one]))
            notes.add("leaked-query", scope, where, f"query {one[:40]} of {a} and {two[:40]} of {b} are the same")
        for cluster in sorted((near[a].keys() & near[b].keys()) - told):
            one, two = near[a][cluster], near[b][cluster]
            message = f"query {one[:40]} of {a} and {two[:40]} of {b} are nearly the same"
            notes.add("nearly-leaked-query", scope, where, message, "warning")
        for cluster in sorted(relevant[a].keys() & relevant[b].keys()):
            one, two = relevant[a][cluster], relevant[b][cluster]
            which = f"document {one[:40]} is" if one == two else f"documents {one[:40]} and {two[:40]} (nearly the same) are"
            notes.add("leaked-document", scope, where, f"{which} relevant in both", "warning")
