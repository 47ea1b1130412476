"""The demo's corpus: API documentation of the packages that come with the demo extra, read by parsing their files; nothing is imported."""

from __future__ import annotations

import hashlib
import math
import os
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from nearfield.data.dataset import Dataset, Finding
from nearfield.data.docstrings import Entry, entries
from nearfield.data.near import join_near, normalize
from nearfield.data.union import Union
from nearfield.errors import InputError
from nearfield.progress import progress as show

# What `pip install nearfield[demo]` brings, directly or not, and documents itself; a fixed list, so that other packages beside
# them (a developer's tools) do not change the corpus.
PACKAGES = (
    "click", "fsspec", "huggingface_hub", "jinja2", "joblib", "networkx", "numpy", "onnx", "onnxruntime", "rich", "safetensors", "scipy",
    "sentence_transformers", "sklearn", "sympy", "tokenizers", "torch", "tqdm", "transformers",
)  # fmt: skip

# Not documentation of the package itself.
_SKIPPED_FOLDERS = frozenset(
    {"__pycache__", "test", "tests", "testing", "_vendor", "vendor", "vendored", "_vendored", "third_party", "externals"}
)

# Larger files are generated tables; parsing one takes more than a second.
_MAX_FILE_BYTES = 1_000_000

# A summary that stands in more places than this is boilerplate ("Initialize the optimizer."), not a question anybody has.
_MAX_REPEATS = 3

# transformers and torch have 60 % of the files: without a bound the corpus would be theirs. Where fewer than four packages are
# installed, equal shares.
_MAX_SHARE = 0.25


def harvest(
    *, limit: int = 8000, progress: bool = False, roots: Sequence[Path] | None = None, packages: Sequence[str] = PACKAGES
) -> Dataset:
    """Returns pairs of a docstring's summary line (the query) and the rest of the docstring (the document).

    Public functions, classes and methods of the installed ``packages`` count. The document holds neither the summary nor the
    name, which would give the answer away; pairs whose summary stands word for word in the rest, repeated summaries and near
    duplicates of documents are left out. Files are taken in the order of a hash of their module's name until there are ``limit``
    documents, no package with more than a quarter of them: the choice depends on what is installed, not on the file system.

    All judgements are in ``"train"``; ``groups`` has each document's module, so `nearfield.data.split.split` makes dev and test of
    other modules. Ids are qualified names (``numpy.linalg.norm``). 8,000 documents take about 20 seconds on one core.

    Args:
        limit: the most documents, at least 1.
        progress: a bar on stderr.
        roots: folders that hold packages; default: the running interpreter's site-packages.
        packages: names of the packages' folders.

    Raises:
        InputError: no documentation found.

    >>> data = harvest(limit=20, packages=["click"])
    >>> len(data.doc_ids) == len(data.qrels["train"]) <= 20
    True
    """
    if limit < 1:
        raise InputError(f"harvest: limit {limit} given, at least 1 expected")
    if roots is None:
        roots = [Path(p) for p in dict.fromkeys(sysconfig.get_paths()[name] for name in ("purelib", "platlib"))]
    files = _files(roots, packages)
    with show("harvesting API documentation", limit, enabled=progress) as bar:
        found = _collect(files, limit, bar.advance)
    kept = _distinct(found)[:limit]
    if not kept:
        where = ", ".join(str(root) for root in roots)
        raise InputError(f"harvest: no documented package of {', '.join(packages)} found in {where}: pip install 'nearfield[demo]'")
    kept.sort(key=lambda entry: entry.name)
    names = Counter(entry.name.split(".")[0] for entry in kept)
    message = f"{len(kept):,} documents from " + ", ".join(f"{name} {count:,}" for name, count in names.most_common())
    return Dataset(
        "API documentation", "docstrings of the installed packages",
        [e.name for e in kept], [e.body for e in kept], [f"q:{e.name}" for e in kept], [e.summary for e in kept],
        {"train": {f"q:{e.name}": {e.name: 1} for e in kept}},
        findings=[Finding("harvested", "harvest", message, "info")],
        groups={e.name: e.module for e in kept},
    )  # fmt: skip


def _files(roots: Iterable[Path], packages: Iterable[str]) -> list[tuple[str, Path]]:
    """Returns ``(module name, file)`` of every source file, in the order of the module name's hash."""
    found: dict[str, Path] = {}
    for root in roots:
        for package in packages:
            for folder, folders, names in os.walk(root / package):
                folders[:] = [f for f in folders if f not in _SKIPPED_FOLDERS]
                for name in names:
                    if name.endswith(".py") and not name.startswith(("test_", "conftest")):
                        path = Path(folder, name)
                        parts = path.relative_to(root).with_suffix("").parts
                        found.setdefault(".".join(parts[:-1] if parts[-1] == "__init__" else parts), path)
    return sorted(found.items(), key=lambda item: hashlib.sha256(item[0].encode("utf-8", "surrogateescape")).digest())


def _collect(files: list[tuple[str, Path]], limit: int, advance: Callable[[float], object]) -> list[Entry]:
    """Parses files in order until a quarter more entries than needed are there; `_distinct` left out 17 % where this was written."""
    target = limit + limit // 4 + 10
    present = len({module.split(".")[0] for module, _ in files})
    share = math.ceil(max(_MAX_SHARE, 1 / max(present, 1)) * target)
    found: list[Entry] = []
    taken: Counter[str] = Counter()
    for module, path in files:
        package = module.split(".")[0]
        if len(found) >= target:
            break
        if taken[package] >= share:
            continue
        fresh = list(_parse(module, path))[: share - taken[package]]
        taken[package] += len(fresh)
        found += fresh
        advance(len(fresh) * limit / target)
    return found


def _parse(module: str, path: Path) -> Iterator[Entry]:
    """Yields a file's entries; one that cannot be read or parsed has none."""
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            return
        source = path.read_bytes()
    except OSError:
        return
    # A file without a triple quote has no docstring worth its parsing, which is what harvesting spends its time on.
    if b'"""' in source or b"'''" in source:
        yield from entries(module, source)


def _distinct(found: list[Entry]) -> list[Entry]:
    """Leaves out boilerplate summaries, all but the first of repeated ones, and all but the first of nearly equal documents."""
    repeats = Counter(normalize(entry.summary) for entry in found)
    seen: set[str] = set()
    unique: list[Entry] = []
    for entry in found:
        key = normalize(entry.summary)
        if repeats[key] <= _MAX_REPEATS and key not in seen and entry.name not in seen:
            seen |= {key, entry.name}
            unique.append(entry)
    union = Union(len(unique))
    join_near([entry.body for entry in unique], union)
    return [entry for i, entry in enumerate(unique) if union.find(i) == i]
