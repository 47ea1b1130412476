"""One source file to (summary, body) pairs, by parsing it; it is never executed."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from nearfield.data.near import words

# Fewer words than these say too little to be a question, or to be found.
MIN_SUMMARY_WORDS, MIN_BODY_WORDS = 4, 12

# A summary longer than this is a paragraph, not a line somebody would type.
_MAX_SUMMARY_WORDS = 40

# About 250 tokens: what a docstring is about stands in its first paragraphs, and encoding a corpus costs by the token.
MAX_BODY = 1000

# First words of a docstring that begins with markup or with a section instead of a sentence.
_NO_SENTENCE = re.compile(
    r"(>>>|[:@.*#|+=~\-]|args?\b|arguments?:|parameters?\b|returns?:|see also|see `|see :|deprecated|alias (of|for)|todo|note:)", re.I
)

# A signature instead of a sentence: "abs(x, out=None) -> Tensor".
_SIGNATURE = re.compile(r"[\w.]+\(.*\)(\s*->.*)?$")

_MARKUP = (
    (re.compile(r":[\w:+.-]+:`[~!]?([^`<]*?)(?:\s*<[^`>]*>)?`"), r"\1"),
    (re.compile(r"\[`?([^\]`]+)`?\](\([^)]*\))?"), r"\1"),
    (re.compile(r"`+([^`]*)`+_*"), r"\1"),
    (re.compile(r"\*\*([^*]+)\*\*"), r"\1"),
)

# A sentence ends where a capital letter or nothing follows; "e.g. this" goes on.
_SENTENCE_END = re.compile(r"(?<!e\.g)(?<!i\.e)(?<!etc)(?<!\bvs)[.!?](?=\s+[^a-z\s]|$)")


@dataclass(frozen=True, slots=True)
class Entry:
    """One documented function, class or method.

    Attributes:
        name: the qualified name, ``package.module.Class.method``.
        module: ``package.module``.
        summary: the first sentence of the docstring, without markup.
        body: the rest, as it stands there, at most 1,000 characters.
    """

    name: str
    module: str
    summary: str
    body: str


def entries(module: str, source: bytes) -> Iterator[Entry]:
    """Yields what the public functions, classes and methods of one file say about themselves; nothing where it does not parse.

    >>> code = b'def f():\\n    "Sorts the given list in place.\\\\n\\\\n' + b'a b c d e f g h i j k l m.' + b'"'
    >>> [(entry.name, entry.summary) for entry in entries("tools", code)]
    [('tools.f', 'Sorts the given list in place.')]
    """
    try:
        with warnings.catch_warnings():
            # Other people's files: an invalid escape in them is not our user's concern.
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    pending: list[tuple[str, ast.AST]] = [(module, tree)]
    while pending:
        prefix, node = pending.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and not child.name.startswith("_"):
                name = f"{prefix}.{child.name}"
                if isinstance(child, ast.ClassDef):
                    pending.append((name, child))
                pair = divide(ast.get_docstring(child) or "")
                if pair is not None:
                    yield Entry(name, module, *pair)


def divide(docstring: str) -> tuple[str, str] | None:
    """Returns ``(summary, body)``, or None where the docstring makes no pair.

    None: a summary of fewer than 4 or more than 40 words, markup or a signature instead of a sentence, a body of fewer than 12
    words, a summary that stands word for word in the body (any model would find it), text that UTF-8 cannot hold.

    >>> divide("Sorts :class:`~list` objects in place. Stable.\\n\\nEqual items keep their order, and it takes n log n comparisons.")
    ('Sorts list objects in place.', 'Stable.\\n\\nEqual items keep their order, and it takes n log n comparisons.')
    """
    paragraph, _, rest = docstring.strip().partition("\n\n")
    if _NO_SENTENCE.match(paragraph) or _SIGNATURE.match(paragraph.split("\n")[0]):
        return None
    end = _SENTENCE_END.search(paragraph)
    cut = end.end() if end else len(paragraph)
    summary = plain(paragraph[:cut])
    body = (paragraph[cut:].strip() + "\n\n" + rest.strip("\n")).strip()
    if len(body) > MAX_BODY:
        body = body[:MAX_BODY].rsplit(None, 1)[0]
    asked, told = words(summary), words(body)
    if not MIN_SUMMARY_WORDS <= len(asked) <= _MAX_SUMMARY_WORDS or len(told) < MIN_BODY_WORDS:
        return None
    if f" {' '.join(asked)} " in f" {' '.join(words(plain(body)))} ":
        return None
    try:
        (summary + body).encode("utf-8")
    except UnicodeEncodeError:
        return None
    return summary, body


def plain(text: str) -> str:
    """Returns ``text`` on one line without reStructuredText and Markdown marks.

    >>> plain("A :class:`~torch.Tensor` or [`Model`]\\n of ``x``.")
    'A torch.Tensor or Model of x.'
    """
    for pattern, replacement in _MARKUP:
        text = pattern.sub(replacement, text)
    return " ".join(text.split())
