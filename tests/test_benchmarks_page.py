"""The page of results, its plots, and the list of figures where a peer is ahead."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

import chromium
from benchmark_samples import sample_document, sample_row
from benchmarks import behind
from benchmarks.core import newest, results
from benchmarks.core.results import Row
from benchmarks.page import __main__ as page
from benchmarks.page import charts, plots
from benchmarks.page.charts import Axis, Chart, Line, Scale


def peer(**changes: Any) -> Row:
    return sample_row(**{"engine": "faiss <flat>", "ours": False, **changes})


def graph(engine: str, recall: float, rate: float, **changes: Any) -> Row:
    params = {"k": 10, "n": 100, "ef": 10}
    return sample_row(**{
        "suite": "search", "group": "curve, k = 10", "engine": engine, "ours": engine.startswith("nearfield"), "unit": "queries / s",
        "value": rate,
        "quality": recall, "params": params, "p50": None, "p95": None, "p99": None, **changes,
    })  # fmt: skip


# --- which results -----------------------------------------------------------------------------------------------------


def test_the_newest_run_beside_peers_stands_for_a_machine_and_a_target(tmp_path: Path) -> None:
    results.write(sample_document(sample_row(value=1.0), peer(), day=1), tmp_path)
    results.write(sample_document(sample_row(value=2.0), peer(), day=2), tmp_path)
    results.write(sample_document(sample_row(value=3.0), day=3), tmp_path)
    results.write(sample_document(sample_row(value=4.0), peer(), day=4, quick=True), tmp_path)
    results.write(sample_document(sample_row(value=5.0), day=5, forced="avx2"), tmp_path)
    found = newest.runs(tmp_path)
    assert [(run.machine, run.rows[0].value) for run in found] == [
        ("Some CPU, 2 cores, held to avx2", 5.0), ("Some CPU, 2 cores", 2.0),
    ]  # fmt: skip


# --- where a peer is ahead ---------------------------------------------------------------------------------------------


def leads_of(*rows: Row) -> list[behind.Lead]:
    return behind.leads([newest.Run("score", "here", {}, list(rows))])


def test_a_peer_that_is_ahead_is_listed_with_what_differs() -> None:
    slow, fast = sample_row(value=2.0, p99=2.0), sample_row(engine="nearfield fast", value=1.0, p99=9.0)
    (lead,) = leads_of(slow, fast, peer(value=0.5, p99=2.0, quality=0.7))
    assert (lead.ours, lead.peer, lead.figure, lead.times) == ("nearfield fast", "faiss <flat>", "ms / query", 2.0)
    assert lead.note == "lists = float64 0.7000, ours 1.0000"
    (tail,) = leads_of(slow, fast, peer(value=1.0, p99=1.0))
    assert (tail.ours, tail.figure, tail.times, tail.note) == ("nearfield FlatIndex", "p99 ms", 2.0, "")
    assert leads_of(slow, fast, peer(value=0.99, p99=2.0)) == [], "one percent is no lead"


def test_larger_rates_and_smaller_memory_lead() -> None:
    ours, theirs = {"p99": None, "unit": "queries / s"}, {"p99": None, "unit": "queries / s"}
    assert leads_of(sample_row(value=10.0, **ours), peer(value=9.0, **theirs)) == []
    assert [lead.times for lead in leads_of(sample_row(value=10.0, **ours), peer(value=15.0, **theirs))] == [1.5]
    (lead,) = leads_of(sample_row(memory_bytes=4 * 2**20), peer(memory_bytes=2**20))
    assert (lead.figure, lead.our_value, lead.peer_value) == ("memory", 4.0, 1.0)


def test_only_the_same_work_is_compared_and_precisions_also_among_themselves() -> None:
    assert leads_of(sample_row(params={"kept": 0.5}), peer(params={"kept": 0.1}, value=0.1)) == []
    assert leads_of(sample_row(group="curve"), peer(group="curve", value=0.1)) == []
    int8, f32 = (
        sample_row(params={"precision": "int8"}, value=1.0),
        sample_row(engine="nearfield f32", params={"precision": "f32"}, value=5.0),
    )
    (lead,) = leads_of(int8, f32, peer(params={"precision": "f32"}, value=2.0, p99=None))
    assert (lead.ours, lead.times) == ("nearfield f32", 2.5)


def test_the_list_as_lines_and_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert behind.main(["--results", str(tmp_path)]) == 2
    assert "no results" in capsys.readouterr().err
    results.write(sample_document(sample_row(), peer(value=0.25)), tmp_path)
    assert behind.main(["--results", str(tmp_path)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "Some CPU, 2 cores: 1 figures where a peer is ahead"
    assert out[1] == "    2.00x  score: exact top-10: ms / query: faiss <flat> 0.250, nearfield FlatIndex 0.500"
    assert behind.main(["--results", str(tmp_path), "--machine", "some", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["times"] == 2.0


# --- plots -------------------------------------------------------------------------------------------------------------


def test_ticks_are_round_few_and_inside() -> None:
    for low, high in ((0.8, 1.0), (3.0, 7_000.0), (0.011, 0.013), (1.0, 1e9)):
        for log in (False, True):
            scale = Scale(Axis("x", log=log, low=low, high=high), [], 0, 100)
            ticks = scale.ticks()
            assert len(ticks) <= 11
            assert all(0 <= scale(tick) <= 100 + 1e-9 for tick in ticks)
            assert ticks == sorted(ticks)
            assert len(ticks) >= 2 or high / low < 2
    log = Scale(Axis("x", log=True), [1.0, 100.0], 0, 100)
    assert log(10.0) == pytest.approx(50)
    linear = Scale(Axis("x", low=0.8, high=1.0), [], 0, 100)
    assert (linear(0.8), linear(0.9), linear(1.0)) == (0, pytest.approx(50), 100)


def test_every_point_is_drawn_with_its_figures_and_ours_on_top() -> None:
    lines = [Line("nearfield & us", [(0.9, 10.0), (0.95, 5.0)], True), *(Line(f"peer {n}", [(0.9, n + 1.0)]) for n in range(12))]
    chart = Chart("a <title>", Axis("recall", low=0.8, high=1.0), Axis("rate", log=True), lines)
    drawn = charts.svg(chart)
    assert charts.svg(chart) == drawn
    root = ET.fromstring(drawn)
    titles = [element.text for element in root.iter("{http://www.w3.org/2000/svg}title")]
    assert titles[-2:] == ["nearfield & us: 0.9000, 10.0", "nearfield & us: 0.9500, 5.00"]
    assert len(titles) == 14
    assert len(set(charts.styles(chart))) == 13, "no two lines look the same"
    for circle in root.iter("{http://www.w3.org/2000/svg}circle"):
        assert 0 <= float(circle.get("cx", "-1")) <= charts.WIDTH
        assert 0 <= float(circle.get("cy", "-1")) <= charts.HEIGHT
    assert "peer 11" in charts.legend(chart)


def test_a_batch_reads_the_rows_once_on_the_roofline() -> None:
    params = {"n": 1_000, "dim": 100, "k": 10}
    one = sample_row(params={**params, "nq": 1, "touched_bytes": 400_000}, value=0.5, unit="ms / query")
    many = sample_row(params={**params, "nq": 50}, value=40_000.0, unit="queries / s")
    (chart,) = plots.charts(newest.Run("score", "here", sample_document(one), [one, many]))
    assert chart.lines[0].points == [(0.5, pytest.approx(2e5 / 0.5e-3 / 1e9)), (25.0, pytest.approx(2e5 * 40_000 / 1e9))]
    slope = {roof.label: roof.points for roof in chart.roofs}
    assert slope["f32 peak 50"][0] == (0.5, pytest.approx(5.0)), "10 GB/s times half an operation a byte"
    assert slope["f32 peak 50"][-1][1] == 50
    assert slope["int8 peak 100"][1] == (10.0, 100)


# --- the page ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path: Path) -> Path:
    rows = [graph("nearfield HNSWIndex", 0.9, 900.0), graph("nearfield HNSWIndex", 0.99, 90.0), graph("hnswlib", 0.9, 800.0)]
    target = graph("hnswlib", 0.95, 500.0, group="recall@10 >= 0.95")
    results.write(sample_document(sample_row(), peer(value=0.2), *rows, target, day=1), tmp_path)
    results.write(sample_document(sample_row(value=0.123), peer(), day=2, forced="avx2"), tmp_path)
    assert page.main(["--results", str(tmp_path)]) == 0
    return tmp_path / "results.html"


def test_the_page_holds_every_row_and_needs_nothing_else(written: Path) -> None:
    text = written.read_text()
    assert page.main(["--results", str(written.parent)]) == 0
    assert written.read_text() == text, "the same results give the same bytes"
    assert "faiss &lt;flat&gt;" in text
    assert "faiss <flat>" not in text
    for part in ("Some CPU, 2 cores, held to avx2", "0.123", "p95 ms", "lists = float64", "of ceiling",
                 "Where a peer is ahead of us: 1 figures",
                 "The points of the curves: 1 tables", "Recall against queries a second"):  # fmt: skip
        assert part in text, part
    addresses = set(re.findall(r"""(?:src|href)=["']?([^"'> ]+)|url\(([^)]+)\)|https?://[^"' <]+""", text))
    assert addresses <= {("data:,", ""), ("", "")}
    assert set(re.findall(r"https?://[^\"' <]+", text)) <= {"http://www.w3.org/2000/svg"}


def test_a_folder_without_results_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert page.main(["--results", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"page: {tmp_path}: no results")


@pytest.mark.skipif(chromium.PROGRAM is None, reason="no Chromium")
def test_the_page_in_a_browser(written: Path, tmp_path: Path) -> None:
    shown = "[...document.querySelectorAll('%s')].filter(e => e.offsetParent !== null).length"
    with chromium.browser(tmp_path / "profile") as tab:
        for width, phone in ((1280, False), (390, True)):
            tab.open(written, width=width, height=900, phone=phone, dark=phone)
            assert tab.value("document.documentElement.scrollWidth") == width, "tables scroll, the page does not"
            assert tab.value(shown % "section.machine") == 1
            tab.value("document.querySelector('select').value = ''; document.querySelector('form').dispatchEvent(new Event('change'))")
            assert tab.value(shown % "section.machine") == 2
            assert tab.value(shown % "section.suite") == 3
            tab.value("document.querySelector('button[value=none]').click()")
            assert tab.value(shown % "section.suite") == 0
            tab.value("document.querySelector('input[value=search]').click()")
            assert tab.value(shown % "section.suite") == 1
            assert tab.value("document.querySelector('section.suite[data-suite=search] svg').getBoundingClientRect().height") > 100
            loaded = [event["params"]["request"]["url"] for event in tab.events if event["method"] == "Network.requestWillBeSent"]
            assert [url for url in loaded if not url.startswith(("file://", "data:"))] == []
            assert not [event for event in tab.events if event["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")]
