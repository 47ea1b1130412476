"""Pairs out of documents alone: what a text says about itself becomes the question, and the rest of it the answer.

Four sources, from the best down: a title asks for its text, a heading for its section, a question in the text for what stands around
it, and a sentence for the rest of its paragraphs (the inverse cloze task, Lee, Chang and Toutanova 2019, section 4). Whatever became a
question is taken out of its document: a model that finds a sentence in the text that still holds it has learned to compare words.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from nearfield.data.dataset import Dataset, Finding
from nearfield.data.near import normalize, words
from nearfield.errors import InputError

# A rest of fewer words answers nothing; a question of fewer says nothing, of more is none that somebody would type.
MIN_BODY_WORDS, MIN_WORDS, MAX_WORDS = 12, 2, 32
# Inverse cloze takes sentences of this many words, and leaves a document alone that has fewer sentences than three.
MIN_CLOZE_WORDS, MIN_CLOZE_SENTENCES = 6, 3
# A heading that stands over this many sections ("Examples", "See also") tells none of them from the others without its document's title.
MAX_REPEATS = 3

_ATX = re.compile(r"^ {0,3}(#{1,6})\s+(.+?)\s*#*\s*$")
_SETEXT = re.compile(r"^ {0,3}(=+|-{3,}|~{3,}|\^{3,})\s*$")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?[A-Z0-9\u00c0-\uffff])")
_QUESTION = re.compile(r"[^.!?\n]{8,200}\?$")

KINDS = ("title", "heading", "question", "cloze")


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a document: its heading ("" for what stands before the first) and its text, heading left out."""

    heading: str
    text: str


def sections(text: str) -> list[Section]:
    """Divides a text at its Markdown and reStructuredText headings.

    >>> [s.heading for s in sections("Intro text.\\n# First\\nSome words.\\nSecond\\n======\\nOther words.")]
    ['', 'First', 'Second']
    """
    found, heading, body = list[Section](), "", list[str]()
    fenced = False
    for line in text.splitlines():
        fenced ^= line.lstrip().startswith(("```", "~~~")) and not _SETEXT.match(line)
        atx = None if fenced else _ATX.match(line)
        if atx:
            found.append(Section(heading, "\n".join(body).strip()))
            heading, body = atx[2].strip(), []
        elif (
            not fenced and _SETEXT.match(line) and body and body[-1].strip() and (len(body) == 1 or not body[-2].strip() or line[0] == "=")
        ):
            above = body.pop().strip()
            found.append(Section(heading, "\n".join(body).strip()))
            heading, body = above, []
        else:
            body.append(line)
    found.append(Section(heading, "\n".join(body).strip()))
    return [section for section in found if section.heading or section.text]


def sentences(text: str) -> list[str]:
    """Cuts a text into sentences and lines, as they stand.

    >>> sentences("What is it? A tree. It has 3.5 leaves.")
    ['What is it?', 'A tree.', 'It has 3.5 leaves.']
    """
    return [part.strip() for line in text.splitlines() for part in _SENTENCE_END.split(line) if part.strip()]


def pairs_from_documents(dataset: Dataset, *, seed: int = 0, kinds: tuple[str, ...] = KINDS) -> Dataset:
    """Returns a dataset of pairs made out of the documents of ``dataset``; its documents are the rests, its only split is train.

    Sections of one document share a group, so that ``split`` never divides them. A document that gives no question stays as it is and can
    only be found by mistake. The same documents and seed give the same pairs, in whatever order the documents stand.

    Args:
        dataset: documents; judgements and queries of it are not used.
        seed: of the choice of sentences.
        kinds: which sources to use.

    Returns:
        The dataset; one that gives no pair has no split at all.

    >>> text = "A stack keeps what came last on top. " + "It grows and shrinks at one end only. " * 3
    >>> made = pairs_from_documents(Dataset("d", "memory", ["a"], [text], titles={"a": "What a stack is"}), kinds=("title",))
    >>> made.query_texts, made.doc_texts[0][:12]
    (['What a stack is'], 'A stack keep')
    """
    parts = [
        (doc, number, section)
        for doc, text in zip(dataset.doc_ids, dataset.doc_texts, strict=True)
        for number, section in _of(doc, text, dataset)
    ]
    repeats = Counter(normalize(section.heading) for _, _, section in parts)
    ids, texts, groups = list[str](), list[str](), dict[str, str]()
    queries, qrels, counts = dict[str, str](), dict[str, dict[str, int]](), Counter[str]()
    for doc, number, section in parts:
        identity = doc if number is None else f"{doc}#{number}"
        title = dataset.titles.get(doc, "")
        asked, rest = _questions(section, title, number, repeats, (seed, identity), kinds)
        ids.append(identity)
        texts.append(rest)
        groups[identity] = dataset.groups.get(doc, doc)
        for kind, question in asked:
            name = "s" + hashlib.sha256(f"{identity}\0{question}".encode("utf-8", "surrogatepass")).hexdigest()[:16]
            queries[name], qrels[name] = question, {identity: 1}
            counts[kind] += 1
    how = ", ".join(f"{counts[kind]:,} by {kind}" for kind in KINDS if counts[kind]) or "none"
    message = (
        f"{len(queries):,} questions made out of {len(dataset.doc_ids):,} documents ({len(ids):,} parts): {how}; real queries are better"
    )
    return Dataset(
        dataset.name, dataset.source, ids, texts, list(queries), list(queries.values()), {"train": qrels} if qrels else {},
        findings=[*dataset.findings, Finding("made-pairs", dataset.name, message, "warning")], groups=groups,
    )  # fmt: skip


def _of(doc: str, text: str, dataset: Dataset) -> Iterator[tuple[int | None, Section]]:
    """The sections of a document that are documents of their own, or the whole of it without its title."""
    title = dataset.titles.get(doc, "")
    body = text[len(title) :].strip() if title and text.startswith(title) else text
    found = sections(body)
    long_enough = [section for section in found if section.heading and len(words(section.text)) >= MIN_BODY_WORDS]
    if len(long_enough) < 2:
        yield None, Section("", body)
        return
    yield from enumerate(section for section in found if len(words(section.text)) >= MIN_BODY_WORDS)


def _questions(
    section: Section, title: str, number: int | None, repeats: Counter[str], seed: tuple[int, str], kinds: tuple[str, ...]
) -> tuple[list[tuple[str, str]], str]:
    """The questions of a part, and the part without them."""
    asked = list[tuple[str, str]]()
    heading = section.heading
    if heading and title and (repeats[normalize(heading)] > 1 or len(words(heading)) < MIN_WORDS):
        heading = f"{title}: {heading}"
    if heading and "heading" in kinds and (title or repeats[normalize(section.heading)] <= MAX_REPEATS):
        asked.append(("heading", heading))
    if title and number is None and "title" in kinds:
        asked.append(("title", title))
    left = sentences(section.text)
    order = sorted(range(len(left)), key=lambda i: hashlib.sha256(f"{seed[0]}\0{seed[1]}\0{i}".encode("utf-8", "surrogatepass")).digest())
    taken = set[int]()
    if "question" in kinds:
        taken |= set([i for i in order if _QUESTION.match(left[i])][:1])
        asked += [("question", left[i]) for i in taken]
    if "cloze" in kinds and len(left) >= MIN_CLOZE_SENTENCES:
        chosen = [i for i in order if i not in taken and MIN_CLOZE_WORDS <= len(words(left[i])) <= MAX_WORDS][:1]
        asked += [("cloze", left[i]) for i in chosen]
        taken |= set(chosen)
    rest = section.text
    for i in taken:
        rest = rest.replace(left[i], " ")  # wherever it stands: boilerplate is repeated
    fit = [(kind, question) for kind, question in asked if MIN_WORDS <= len(words(question)) <= MAX_WORDS]
    if len(words(rest)) < MIN_BODY_WORDS:
        # Too little would be left: the part stays whole, and only what stands outside it may ask for it.
        fit, rest = [(kind, question) for kind, question in fit if kind in ("title", "heading")], section.text
    if len(words(rest)) < MIN_BODY_WORDS:
        fit = []
    return fit, rest


def few_pairs(dataset: Dataset, *, advised: int = 1000) -> Dataset:
    """Returns ``dataset`` with a warning where it has fewer training pairs than advised: 1,000 at least, 5,000 for most of the gain."""
    count = sum(len(judged) for judged in dataset.qrels.get("train", {}).values())
    if not 0 < count < advised:
        return dataset
    message = f"{count:,} training pairs; 1,000 to 5,000 are advised: with fewer the gain is small and its interval wide"
    return replace(dataset, findings=[*dataset.findings, Finding("few-pairs", dataset.name, message, "warning")])


def with_pairs(dataset: Dataset, seed: int) -> Dataset:
    """Documents alone ask their own questions; whatever has judgements is left as it is.

    Raises:
        InputError: documents that nothing can be asked of.
    """
    if dataset.qrels or dataset.query_ids:
        return dataset
    made = pairs_from_documents(dataset, seed=seed)
    if not made.qrels:
        raise InputError(
            f"data: {dataset.source}: {len(dataset.doc_ids):,} documents without judgements, and no title, heading, question or "
            "paragraph of three sentences among them to make questions of; give query-positive pairs, or qrels/train.tsv"
        )
    return made
