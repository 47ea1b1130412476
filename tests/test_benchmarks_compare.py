"""Two commits side by side: the verdict on pairs, and the command over two small engines whose speeds are known."""

from __future__ import annotations

import json
import random
import shutil
import textwrap
from math import comb
from pathlib import Path

import pytest

from benchmark_samples import ROOT
from benchmarks.compare import __main__ as command
from benchmarks.compare import instructions, paired, tree


def pairs(speedup: float, count: int, seed: int) -> tuple[list[float], list[float]]:
    """Seconds on a host that halves its speed now and then, for both of a pair, with 3 % of noise on each."""
    draw = random.Random(seed)
    host = [draw.choice((1.0, 1.0, 2.0)) for _ in range(count)]
    base = [speed * draw.gauss(1.0, 0.03) for speed in host]
    return base, [speed * draw.gauss(1.0, 0.03) / speedup for speed in host]


def test_a_difference_is_seen_through_a_host_that_changes_its_speed() -> None:
    found = [paired.ratio(*pairs(1.10, 24, seed)) for seed in range(100)]
    assert sum(one.verdict == "faster" for one in found) >= 95
    assert sum(one.low <= 1.10 <= one.high for one in found) >= 95
    assert sum(paired.ratio(*pairs(0.90, 24, seed)).verdict == "slower" for seed in range(100)) >= 95


def test_equal_commits_are_hardly_ever_called_different() -> None:
    found = [paired.ratio(*pairs(1.0, 24, seed)).verdict for seed in range(200)]
    assert sum(verdict != "no difference shown" for verdict in found) <= 4


def test_a_certain_difference_of_less_than_a_percent_is_none() -> None:
    assert paired.ratio([1.005] * 24, [1.0] * 24).verdict == "no difference shown"
    assert paired.ratio([1.02] * 24, [1.0] * 24).verdict == "faster"


@pytest.mark.parametrize("count", [8, 12, 20, 24, 50])
def test_the_interval_covers_what_it_says(count: int) -> None:
    out = paired.order(count)
    outside = 2 * sum(comb(count, fallen) for fallen in range(out + 1)) / 2**count
    assert outside <= 1 - paired.CONFIDENCE
    assert outside + 2 * comb(count, out + 1) / 2**count > 1 - paired.CONFIDENCE, "no narrower one would"


def test_the_first_of_a_pair_changes() -> None:
    asked: list[str] = []

    def of(name: str) -> object:
        return lambda calls: asked.append(name) or float(calls)

    assert paired.take_turns([of("base"), of("new")], 3, 5) == ([5.0] * 3, [5.0] * 3)  # type: ignore[list-item]
    assert asked == ["base", "new", "new", "base", "base", "new"]
    assert [paired.calls_of(seconds) for seconds in (1.0, 0.01, 1e-6)] == [1, 5, paired.MOST_CALLS]


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Two trees whose exact search takes 4 and 2 ms."""
    out = []
    for name, seconds in (("base", 0.004), ("new", 0.002)):
        package = tmp_path / name / "python" / "nearfield"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(
            textwrap.dedent(f"""
            import time
            class FlatIndex:
                def __init__(self, dim, metric): ...
                def add(self, rows): assert rows.shape[1] == 384
                def search(self, queries, k, threads):
                    assert queries.shape == (1, 384)
                    time.sleep({seconds})
            """)
        )
        out.append(tmp_path / name)
    return out


def test_two_trees_take_turns_and_what_one_cannot_do_is_skipped(folders: list[Path]) -> None:
    found = command.timed("exact, one query", folders, 8, 1)
    assert found["verdict"] == "faster"
    assert 1.3 < found["median"] < 2.3
    assert "faster" in command.line("exact, one query", found)
    assert 0.002 <= found["new_s"] < found["base_s"]
    skipped = command.timed("graph, one query", folders, 8, 1)
    assert skipped == {"skipped": "base: AttributeError: module 'nearfield' has no attribute 'HNSWIndex'"}
    assert command.line("graph, one query", skipped).endswith("has no attribute 'HNSWIndex')")


def test_instructions_are_shown_beside_the_time() -> None:
    found = {"median": 1.0, "low": 0.9, "high": 1.1, "base_s": 1.0, "new_s": 1.0, "verdict": "no difference shown"}
    same = command.line("x", {**found, "base_instructions": 1e6, "new_instructions": 1.001e6})
    assert same.endswith("1.00 -> 1.00 M (the same)")
    assert command.line("x", {**found, "base_instructions": 1e6, "new_instructions": 0.9e6}).endswith("(-10.00 %)")
    assert command.line("x", {**found, "not_counted": "valgrind is not installed"}).endswith("(valgrind is not installed)")


def test_an_unknown_commit_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no repository")
    assert command.main(["nothing-of-this-name"]) == 2
    assert capsys.readouterr().err == "compare: 'nothing-of-this-name': no commit of this repository\n"
    built: list[Path] = []
    monkeypatch.setattr(tree, "built", lambda commit, cache: ROOT)
    monkeypatch.setattr(tree, "build", built.append)
    monkeypatch.setattr(command, "timed", lambda name, folders, pairs, threads: {"skipped": f"{pairs} {threads}"})
    monkeypatch.setattr(command, "counted", lambda name, folders: {})
    assert command.main(["HEAD", "--pairs", "7"]) == 2
    assert "at least 8" in capsys.readouterr().err
    assert command.main(["HEAD", "--only", "one query", "--pairs", "8", "--threads", "1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["figures"] == {"exact, one query": {"skipped": "8 1"}, "graph, one query": {"skipped": "8 1"}}
    assert built == [ROOT]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="no valgrind")
def test_instruction_counts_repeat() -> None:
    first, second = (instructions.per_call("exact, one query", tree.environment(ROOT)) for _ in range(2))
    assert first == pytest.approx(second, rel=command.SAME_COUNT)
    # 20,000 rows of 384 codes: at least one multiply of 32 codes each, and far from one instruction a code.
    assert 20_000 * 384 / 32 < first < 20_000 * 384
