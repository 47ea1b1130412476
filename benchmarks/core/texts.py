"""Texts for the suites, found on this machine and kept under the plan's cache folder.

Short texts: one-line descriptions of Debian packages and the sentences of all documentation strings of the standard library and the
installed packages. Longer ones: bodies of API documentation. ``--data FILE`` puts the caller's documents in place of the short texts.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sysconfig
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.core import own
from benchmarks.core.plan import Plan

# Documents to harvest for the longer texts (half a minute for 8,000).
DOCUMENTS = 8_000
# Sentences of documentation to collect: with a few tens of thousands of package descriptions, 200,000 rows and the queries without
# reading every file of a large environment.
ENOUGH_SENTENCES = 260_000
# What a quick run makes where nothing is cached yet, in seconds: its own files, so that a full run never takes them for the whole pool.
QUICK_DOCUMENTS, QUICK_SENTENCES = 1_500, 24_000
# Encoding is the dear part (a few hundred short texts per second on two AVX2 cores): texts are cut at this many words, about 24 tokens.
SHORT_WORDS = 18
SHORT_CHARS = 120
MIN_CHARS = 15
# Larger files are generated tables; parsing one takes more than a second.
MAX_FILE_BYTES = 1_000_000
SKIPPED_FOLDERS = frozenset({"__pycache__", "test", "tests", "site-packages", "dist-packages", "_vendor"})
SEED = 20_240_607
# Token counts of the encode suite vary by this much around their mean, as real texts do.
RAGGED = 0.25

# Examples, tables and underlined headings are no sentences.
_NO_PROSE = re.compile(r">>>|^\s*[-=~+|]{3,}", re.MULTILINE)
_BLANK_LINE = re.compile(r"\n\s*\n")
_SENTENCE_END = re.compile(r"(?<=[.!?:])\s+")


def package_descriptions() -> list[str]:
    """One-line descriptions of Debian packages: all that apt knows, or those installed; empty on other systems."""
    listing = ""
    if shutil.which("apt-cache"):
        listing = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, errors="replace", check=False).stdout
    if not listing:
        status = Path("/var/lib/dpkg/status")
        listing = status.read_text(encoding="utf-8", errors="replace") if status.is_file() else ""
    return re.findall(r"^Description(?:-en)?: (.+)$", listing, re.MULTILINE)


def documentation_sentences(roots: Iterable[Path], enough: int = ENOUGH_SENTENCES) -> list[str]:
    """Distinct sentences, cut short, of the documentation strings under ``roots``; sources are parsed, never imported.

    Files are taken in the order of a hash of their path below the root until there are ``enough`` sentences, so that the choice depends
    on what is installed and not on the file system. Some 80 s of one core for 260,000 sentences of 10,000 files.
    """
    files = {str(path.relative_to(root)): path for root in roots for path in _sources(root)}
    found: dict[str, None] = {}
    for name in sorted(files, key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()):
        if len(found) >= enough:
            break
        found.update(dict.fromkeys(short for text in _docstrings(files[name]) for short in _sentences(text)))
    return list(found)


def _sources(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in SKIPPED_FOLDERS]
        yield from (Path(folder, name) for name in names if name.endswith(".py"))


def _docstrings(path: Path) -> Iterator[str]:
    try:
        source = path.read_bytes() if path.stat().st_size <= MAX_FILE_BYTES else b""
        if b'"""' not in source and b"'''" not in source:  # parsing is what takes the time
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an invalid escape in other people's files is not ours to report
            tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and (text := ast.get_docstring(node)):
            yield text


def _sentences(docstring: str) -> Iterator[str]:
    for paragraph in _BLANK_LINE.split(docstring):
        if not _NO_PROSE.search(paragraph):
            yield from map(_short, _SENTENCE_END.split(" ".join(paragraph.split())))


def harvested(plan: Plan) -> list[str]:
    """Bodies of the API documentation installed here."""

    def make() -> list[str]:
        from nearfield.data.harvest import harvest

        plan.say("harvesting API documentation (once)")
        return harvest(limit=QUICK_DOCUMENTS if _brief(plan, "documents") else DOCUMENTS, progress=True).doc_texts

    return _cached(plan.cache / f"documents{_brief(plan, 'documents')}.json", make)  # type: ignore[no-any-return]


def _brief(plan: Plan, name: str) -> str:
    """``"-quick"`` where a quick run must make this pool and makes a small one; empty where the whole one is there or is wanted."""
    return "-quick" if plan.quick and not (plan.cache / f"{name}.json").is_file() else ""


def _short(text: str) -> str:
    return " ".join(text.split()[:SHORT_WORDS])[:SHORT_CHARS]


def _cached(path: Path, make: Callable[[], Any]) -> Any:
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(make(), ensure_ascii=False, indent=0), encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))


def sentences(plan: Plan) -> tuple[list[str], str]:
    """All distinct short texts, in an order that depends on nothing but their content and SEED, and what they are.

    They come from ``plan.data`` where a file was given (its documents, cut short), otherwise from this machine.
    """
    if own.holds_vectors(plan.data):
        raise own.BadData(f"--data {plan.data}: holds vectors, and this suite needs texts (JSONL, CSV, TSV, Parquet or a BEIR folder)")
    if plan.data is not None:
        from nearfield.data.read import read

        return _shuffled(map(_short, read(plan.data).doc_texts)), plan.data.name

    def make() -> list[str]:
        plan.say(f"collecting the sentences of the installed documentation (once, {'some seconds' if plan.quick else 'a minute or two'})")
        roots = [Path(path) for path in dict.fromkeys(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))]
        enough = QUICK_SENTENCES if _brief(plan, "short-texts") else ENOUGH_SENTENCES
        return _shuffled([*map(_short, package_descriptions()), *documentation_sentences(roots, enough)])

    return _cached(plan.cache / f"short-texts{_brief(plan, 'short-texts')}.json", make), "package descriptions and docstrings"


def _shuffled(texts: Iterable[str]) -> list[str]:
    out = sorted({text for text in texts if len(text) >= MIN_CHARS and text.isprintable()})
    random.Random(SEED).shuffle(out)
    return out


def texts_of_length(plan: Plan, tokens: int, count: int, ragged: float = RAGGED) -> list[str]:
    """``count`` real texts of about ``tokens`` tokens each (within ``ragged``, uniformly; [CLS] and [SEP] included), cut at word ends."""

    def make() -> list[str]:
        from tokenizers import Tokenizer

        from nearfield.encode.models import resolve_model

        tokenizer = Tokenizer.from_file(str(resolve_model(None) / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        draw = random.Random(SEED + tokens)
        documents = sorted(set(harvested(plan)))
        draw.shuffle(documents)
        out: list[str] = []
        for document in documents:
            wanted = round(draw.uniform(1 - ragged, 1 + ragged) * tokens) - 2
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

    kind = f"{'' if ragged == RAGGED else f'-{ragged:g}'}{_brief(plan, 'documents')}"
    return _cached(plan.cache / f"texts-{tokens}-{count}{kind}.json", make)  # type: ignore[no-any-return]


def fingerprint(texts: Sequence[str], digits: int = 8) -> str:
    """Hex digits that tell two lists of texts apart."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:digits]
