"""Harvesting from a small site-packages folder made here: what becomes a pair, what does not, and that nothing is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nearfield.data.docstrings import divide, entries
from nearfield.data.harvest import harvest
from nearfield.data.split import split
from nearfield.errors import InputError

BODY = "It walks over all the items once, keeps the best ones seen so far, and gives them back in order."
SAME = "Nothing in this body tells which of both it stands under, because every word of it is there twice."


def function(name: str, summary: str, body: str = "") -> str:
    return f'def {name}(x):\n    """{summary}\n\n    {body or BODY + " " + " ".join(f"{name}{i}" for i in range(20))}\n    """\n'


@pytest.fixture
def site(tmp_path: Path) -> Path:
    files = {
        "pack/__init__.py": "raise RuntimeError('imported')\n" + function("top", "Finds the top items of a list."),
        "pack/inner.py": function("ranked", "Ranks the items by their score.") + function("_hidden", "Hides the items from the user."),
        "pack/classes.py": 'class Tree:\n    """Holds points of a metric space. Fast.\n\n    ' + BODY + '\n    """\n'
        + "".join("    " + line + "\n" for line in function("insert", "Adds one point to the tree.").splitlines()),
        "pack/broken.py": "def f(:\n" + function("lost", "Never seen by the parser at all."),
        "pack/latin.py": "# -*- coding: latin-1 -*-\n" + function("cafe", "Opens the café at eight o'clock."),
        "pack/tests/test_x.py": function("tested", "Tests one thing or the other."),
        "pack/huge.py": function("vast", "Says one thing among very many.") + "#" * 1_000_001,
        "pack/repeat.py": "".join(function(f"r{i}", "Says the same as all others.") for i in range(4)),
        "pack/twice.py": "".join(function(f"t{i}", "Says what one other says.") for i in range(2)),
        "pack/copies.py": function("one", "Gives the first of two copies.", SAME) + function("two", "Gives the other of two copies.", SAME),
        "other/__init__.py": function("elsewhere", "Belongs to a package not asked for."),
    }  # fmt: skip
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("latin-1" if "latin" in name else "utf-8"))
    (tmp_path / "pack" / "bytes.py").write_bytes(b'"""\xff\xfe\x00"""\n')
    return tmp_path


def test_what_becomes_a_pair(site: Path) -> None:
    data = harvest(roots=[site], packages=["pack"])
    queries = dict(zip(data.doc_ids, data.query_texts, strict=True))
    copies = {"pack.copies.one", "pack.copies.two"} & queries.keys()
    twice = {"pack.twice.t0", "pack.twice.t1"} & queries.keys()
    assert len(copies) == len(twice) == 1
    assert {k: v for k, v in queries.items() if k not in copies | twice} == {
        "pack.top": "Finds the top items of a list.",
        "pack.inner.ranked": "Ranks the items by their score.",
        "pack.classes.Tree": "Holds points of a metric space.",
        "pack.classes.Tree.insert": "Adds one point to the tree.",
        "pack.latin.cafe": "Opens the café at eight o'clock.",
    }
    assert data.doc_texts[data.doc_ids.index("pack.classes.Tree")] == "Fast.\n\n" + BODY
    assert data.groups["pack.classes.Tree.insert"] == "pack.classes"
    assert data.qrels == {"train": {f"q:{name}": {name: 1} for name in data.doc_ids}}
    assert "pack" not in sys.modules


@pytest.mark.parametrize(
    ("docstring", "summary"),
    [
        ("Sorts the items\nby their score.\n\n" + BODY, "Sorts the items by their score."),
        ("Sorts items, e.g. numbers, in place. Then rests.\n" + BODY, "Sorts items, e.g. numbers, in place."),
        ("Sorts the ``items`` of a :class:`~list <builtins.list>` and [`x`].\n\n" + BODY, "Sorts the items of a list and x."),
        ("Sorts the items without a full stop\n\n" + BODY, "Sorts the items without a full stop"),
        ("Sorts it.\n\n" + BODY, None),
        ("Sorts the items by score.\n\nToo short a body.", None),
        ("Sorts the items by score.\n\n" + BODY + " It sorts the *items* by score, too.", None),
        ("Sorts the items\ud800 by score.\n\n" + BODY, None),
        (">>> sorts the items by score\n\n" + BODY, None),
        ("sorts(items, key=None) -> list\n\n" + BODY, None),
        ("Args:\n    x: the items to sort.\n\n" + BODY, None),
        (" ".join(["many"] * 41) + ".\n\n" + BODY, None),
        ("", None),
    ],
)
def test_divide(docstring: str, summary: str | None) -> None:
    pair = divide(docstring)
    assert (pair and pair[0]) == summary
    if pair and summary:
        assert summary not in pair[1]
        assert pair[1].endswith(BODY)


def test_long_bodies_are_cut_between_words() -> None:
    pair = divide("Sorts the items by score.\n\n" + "abcdefg " * 400)
    assert pair is not None
    assert 990 <= len(pair[1]) <= 1000
    assert pair[1].endswith(" abcdefg")


def test_source_that_does_not_parse_has_no_entries() -> None:
    for source in (b"def f(:", b"\xff\xfe", b"x = '\x00'", b"(" * 5000, b"# coding: nonsense\n"):
        assert list(entries("m", source)) == []


def test_limit_order_and_groups(tmp_path: Path) -> None:
    def build(root: Path, names: list[int]) -> None:
        for n in names:
            path = root / "pack" / f"m{n}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(function(f"f{n}x{i}", f"Explains the matter numbered {n} and {i}.") for i in range(3)))

    build(tmp_path / "a", list(range(60)))
    build(tmp_path / "b", list(range(59, -1, -1)))
    data = harvest(limit=60, roots=[tmp_path / "a"], packages=["pack"])
    assert len(data.doc_ids) == len(set(data.doc_ids)) == 60
    assert harvest(limit=60, roots=[tmp_path / "b"], packages=["pack"]).fingerprint == data.fingerprint
    assert len(set(data.groups.values())) < 40
    made = split(data)
    sides = {name: {data.groups[doc] for judged in qrels.values() for doc in judged} for name, qrels in made.qrels.items()}
    assert sum(len(modules) for modules in sides.values()) == len(set(data.groups.values()))


def test_no_package_fills_the_corpus(tmp_path: Path) -> None:
    for package, files in (("big", 60), ("one", 5), ("two", 5), ("three", 5), ("four", 5)):
        for n in range(files):
            path = tmp_path / package / f"m{n}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(function(f"{package}{n}", f"Explains the matter of {package} numbered {n}."))
    data = harvest(limit=40, roots=[tmp_path], packages=["big", "one", "two", "three", "four"])
    taken = [name for name in data.doc_ids if name.startswith("big")]
    assert len(taken) <= 0.25 * (40 + 10 + 10) + 1


@pytest.mark.parametrize(("limit", "says"), [(0, "limit 0"), (5, r"pip install 'nearfield\[demo\]'")])
def test_nothing_to_harvest_is_an_input_error(tmp_path: Path, limit: int, says: str) -> None:
    with pytest.raises(InputError, match=says):
        harvest(limit=limit, roots=[tmp_path])


BESIDE_US = """
import sys, time
from nearfield.data.harvest import PACKAGES, harvest
data = harvest(limit=300)
assert len(data.doc_ids) == 300
assert {name.split(".")[0] for name in data.doc_ids} <= set(PACKAGES)
print(time.process_time(), *sorted(set(PACKAGES) & set(sys.modules)))
"""


def test_the_packages_beside_us_give_real_pairs_and_none_is_imported() -> None:
    done = subprocess.run([sys.executable, "-c", BESIDE_US], capture_output=True, text=True, check=True)
    seconds, *imported = done.stdout.split()
    assert imported == ["numpy"]
    # 1.2 s where this was written.
    assert float(seconds) < 15
