"""The report's page without a browser: well-formed, offline, escaped, complete, and the command that writes it."""

from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fake_encoder import BagEncoder
from nearfield.data.dataset import Dataset, Finding
from nearfield.errors import MissingExtraError
from nearfield.evaluate.evaluate import evaluate
from nearfield.evaluate.report.charts import Line, chart, scale
from nearfield.evaluate.report.maps import part_counts, pictures
from nearfield.evaluate.report.page import TEMPLATES, render
from nearfield.evaluate.report.sizeplot import size_plot
from nearfield.evaluate.results import EvalReport, change_text, interval_text
from nearfield.evaluate.significance import Interval
from nearfield.evaluate.study import latency
from nearfield.evaluate.study.results import CorpusMap, Mark, Side, Size
from test_evaluate import make_data
from test_study import BAD, DATA, GOOD

NASTY = '<script>alert("x")</script><img src=x onerror=y> & \' \x00\x1b \ud800 {{ 7 * 7 }} wind'
# The same without what XML forbids.
SHOWN = re.sub("[\x00\x1b\ud800]", "\ufffd", NASTY)
LOSS = {"split": "dev", "queries": 80, "documents": 160, "ndcg_fp32": 0.7152, "ndcg_int8": 0.7125, "loss": 0.0027, "low": -0.0151}
LEFT = {
    "method": "weights8",
    "weights": "int8, per channel",
    "float32": ["a/MatMul", NASTY, "embeddings"],
    "products": 36,
    "batch_invariant": True,
}
MANIFEST = {
    "parity": {
        "fp32": {"max_abs_diff": 3.2e-7, "passed": True},
        "int8": {"mean_cosine": 0.9987, "note": NASTY, "retrieval": {**LOSS, "passed": False}},
    },
    "graphs": {"model.int8.onnx": {"quantization": LEFT}},
    "fingerprint": "not shown",
}
RUN: dict[str, Any] = {
    "command": f"nearfield tune '{NASTY}' --config bundle/run.json", "base": NASTY, "seed": 7, "date": "2026-11-24T01:02:03+00:00",
    "machine": "AMD EPYC, 2 cores", "versions": {"nearfield": "0.1.0", "python": "3.11.7"}, "config": {"epochs": 1, "learning_rate": 5e-5},
    "history": [{"loss": 1.0}],
}  # fmt: skip
FINDINGS = [
    *(Finding("over-long", f"document d{i}", f"about {i} tokens", "warning") for i in range(20)),
    Finding("over-long", "document", "1,213 more of kind over-long, not listed", "warning"),
    Finding("bad-json", "corpus.jsonl:17", NASTY, "error"),
]


def tree(page: str) -> ET.Element:
    """The page as XML; Chromium reads it as HTML in test_report_browser.py."""
    page.encode("utf-8")
    first, _, rest = page.partition("\n")
    assert first == "<!DOCTYPE html>"
    return ET.fromstring(rest)


def text_of(element: ET.Element | None) -> str:
    assert element is not None
    return " ".join(" ".join(element.itertext()).split())


def section(root: ET.Element, name: str) -> ET.Element | None:
    return root.find(f".//section[@id='{name}']")


def nasty_report() -> EvalReport:
    data = make_data(NASTY)
    data.query_texts[:2] = [f"{NASTY} rain stone {i}" for i in range(2)]
    data.doc_texts[:2] = [f"{NASTY} rain stone {i}" for i in range(2)]
    names = {identity: f"{NASTY}{identity}" for identity in (*data.doc_ids, *data.query_ids)}
    data = Dataset(
        data.name, "memory", [names[i] for i in data.doc_ids], data.doc_texts, [names[i] for i in data.query_ids], data.query_texts,
        {"test": {names[q]: {names[d]: grade for d, grade in judged.items()} for q, judged in data.qrels["test"].items()}},
        groups={names[d]: f"<{'ab'[i % 2]}>{NASTY}" for i, d in enumerate(data.doc_ids)},
    )  # fmt: skip
    good, bad = BagEncoder(NASTY + "good", dim=96), BagEncoder(NASTY + "bad", dim=96, blur=4.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "SECONDS", 0.02)
        return evaluate(data, good, compare=bad, guard=make_data(f"{NASTY}general", seed=5), study=True, threads=1)


@pytest.fixture(scope="module")
def report() -> EvalReport:
    return nasty_report()


@pytest.fixture(scope="module")
def page(report: EvalReport) -> str:
    return render(report, findings=FINDINGS, exports=MANIFEST, run=RUN)


def test_the_page_is_well_formed_offline_and_escaped(page: str) -> None:
    root = tree(page)
    tags = {element.tag for element in root.iter()}
    assert not tags & {"script", "link", "img", "iframe", "object", "form", "base", "a"}
    for element in root.iter():
        assert not {name for name in element.attrib if name.startswith("on") or name in ("src", "href", "srcset", "action")}
        assert not any("://" in value for value in element.attrib.values())
    policy = root.find(".//meta[@http-equiv='Content-Security-Policy']")
    assert policy is not None
    assert policy.get("content") == "default-src 'none'; style-src 'unsafe-inline'"
    style = text_of(root.find(".//style"))
    assert "url(" not in style
    assert "@import" not in style
    assert "<script" not in page
    assert "<img" not in page
    # every template value is put in as text, never as a template
    assert "49" not in text_of(section(root, "changes"))
    for place in ("changes", "map", "exports", "data", "repeat"):
        assert SHOWN in text_of(section(root, place)), place
    assert "<a 20 queries" in text_of(section(root, "slices"))
    assert "<b 75" in text_of(section(root, "map"))
    assert SHOWN in text_of(root.find(".//h1"))


def test_parts_stand_in_their_order_with_their_figures(page: str, report: EvalReport) -> None:
    root = tree(page)
    order = ["before-after", "metrics", "keywords", "changes", "slices", "map", "sizes", "exports", "latency", "data", "repeat"]
    assert [found.get("id") for found in root.iter("section")] == order
    assert report.verdict is not None
    assert report.study is not None
    assert report.guard is not None
    assert report.guard.change is not None
    verdict = text_of(root.find(".//p[@class]"))
    assert verdict.startswith(report.verdict.sentence.removesuffix(report.advice).strip())
    assert verdict.endswith(f"{report.advice.split(':')[0]}.")
    assert report.advice in text_of(section(root, "keywords"))
    before_after = text_of(section(root, "before-after"))
    for expected in ("Before", "After", "BM25", "BM25 + model", change_text(report.guard.change)):
        assert expected in before_after
    for name, change in report.change.items():
        assert change_text(change) in text_of(section(root, "metrics")), name
    changes = text_of(section(root, "changes"))
    assert f"Rank {report.wins[0].rank_before} → {report.wins[0].rank_after}" in changes
    assert report.wins[0].instead_id
    slices = text_of(section(root, "slices"))
    for slicing in report.study.slicings:
        for one in slicing.slices:
            assert one.change is not None
            assert f"{change_text(one.change)}: {one.word}" in slices
            assert f"{one.queries} queries" in slices
    for size in report.study.sizes:
        assert f"{size.bytes:,} bytes" in text_of(section(root, "sizes"))
        assert size.change is None or change_text(size.change) in text_of(section(root, "sizes"))
    drawn = [one.text for one in section(root, "sizes").iter() if one.tag.rpartition("}")[2] == "title"]
    assert len(drawn) == len(report.study.sizes)
    for size in report.study.sizes:
        assert f"{size.storage}, {size.dim:,} columns, {size.bytes:,} bytes: {size.metric.mean:.3f}" in drawn
    exports = text_of(section(root, "exports"))
    for expected in (
        "within 3.2e-07 of torch",
        "int8: weights8; 2 of 36 products and the embedding tables left in float32; the same vector in any batch; cosine to fp32 0.9987",
        "nDCG@10 0.715 in fp32 and 0.713 in int8 (-0.003, 95 % interval from -0.015; 80 dev queries",
        "outside the limits",
        "a/MatMul",
        "per channel",
    ):
        assert expected in exports
    assert "not shown" not in page
    assert f"{report.study.latencies[0].total[0]:.2f} ({report.study.latencies[0].total[1]:.2f})" in text_of(section(root, "latency"))
    data = text_of(section(root, "data"))
    assert data.index("bad-json: 1 error ") < data.index("over-long: 1,233 warnings")
    assert "document d2:" in data
    assert "document d3:" not in data
    assert "and 1,230 more" in data
    repeat = text_of(section(root, "repeat"))
    for expected in (
        "--config bundle/run.json",
        report.data_fingerprint,
        "AMD EPYC",
        "2026-11-24",
        "python 3.11.7",
        "7 (split, training)",
        "5e-05",
    ):
        assert expected in repeat
    assert "loss" not in repeat


def test_charts_and_tables_can_be_read_without_seeing(page: str, report: EvalReport) -> None:
    root = tree(page)
    assert root.get("lang") == "en"
    for table in root.iter("table"):
        heads = table.findall("thead/tr/th")
        assert heads
        assert all(head.get("scope") == "col" for head in heads)
        for row in table.findall("tbody/tr"):
            assert [cell.tag for cell in row] == ["th", *["td"] * (len(heads) - 1)]
            assert row[0].get("scope") == "row"
    for region in root.iterfind(".//div[@role='region']"):
        assert region.get("aria-label")
        assert region.get("tabindex") == "0"
    images = list(root.iter("svg"))
    assert [image.get("role") for image in images] == ["img"] * 3
    said = [str(image.get("aria-label")) for image in images]
    assert all("own part" in text for text in said[:2])
    assert said[2].startswith("nDCG@10 by bytes")
    assert "the table below has the figures" in said[2]
    # what a track draws stands beside it in figures
    rows = [row for row in root.iterfind(".//figure[@class='chart']/ul/li") if row.get("aria-hidden") != "true"]
    assert len(rows) > 8
    for row in rows:
        assert [part.get("class") for part in row] == ["name", "track", "value"]
        assert row[1].get("aria-hidden") == "true"
        assert re.search(r"\d\.\d{3} \[", text_of(row[2]))
    # and the dots are those of their rows
    assert report.study is not None
    slices = root.findall(".//section[@id='slices']//li[@aria-hidden='true']/../li")
    dots = [(str(dot.get("class")), dot.get("title")) for row in slices for dot in row[1] if str(dot.get("class")).startswith("dot")]
    shown = [one for slicing in report.study.slicings for one in slicing.slices]
    expected = [(style, value) for one in shown for style, value in (("dot before", one.before), ("dot after", one.after))]
    assert dots == [(style, interval_text(value)) for style, value in expected if value is not None]
    levels = [int(element.tag[1]) for element in root.iter() if re.fullmatch(r"h\d", element.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """As WCAG 2.2 defines it: 1 to 21; 4.5 is asked of text and 3 of what is drawn."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_colours_have_contrast_in_both_schemes() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    schemes = [dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root \{(.*?)\}", style, re.S)]
    assert len(schemes) == 2
    for colours in schemes:
        assert set(colours) == set(schemes[0])
        for ground in ("page", "fill"):
            for name in ("text", "soft", "ship", "marginal", "no"):
                assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
            for name in ("before", "after", "other", *(f"p{i}" for i in range(8))):
                assert contrast(colours[name], colours[ground]) >= 3, (name, ground)


def test_one_model_alone_without_study_guard_baselines_or_data_check(monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(render(evaluate(DATA, GOOD, threads=1)))
    assert [found.get("id") for found in root.iter("section")] == ["before-after", "metrics", "keywords", "data", "repeat"]
    assert root.find(".//p[@class='verdict']") is None
    assert "Nothing found." in text_of(section(root, "data"))
    monkeypatch.setitem(sys.modules, "bm25s", None)
    page = render(evaluate(DATA, GOOD, compare=BAD, threads=1))
    assert "pip install &#39;nearfield[baselines]&#39;" in page
    before_after = text_of(section(tree(page), "before-after"))
    assert "BM25" not in before_after
    assert "No guard set was given" in before_after


def test_three_queries_give_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "SECONDS", 0.02)
    data = Dataset("few", "memory", ["a", "b", "c"], ["wind rain", "stone", "lamp"], ["q", "r", "s"], ["wind", "stone", ""],
                   {"test": {"q": {"a": 1}, "r": {"b": 1}, "s": {"c": 1}}})  # fmt: skip
    for compare in (None, BAD, GOOD):
        root = tree(render(evaluate(data, GOOD, compare=compare, study=True, threads=1)))
        assert "A map needs at least 20 documents; this corpus has 3." in text_of(section(root, "map"))
        assert "nan" not in text_of(root.find(".//main"))
        assert (section(root, "changes") is None) == (compare is not BAD)
    one = Dataset("one", "memory", ["a"], ["wind"], ["q"], ["wind"], {"test": {"q": {"a": 1}}})
    assert "nan" not in text_of(tree(render(evaluate(one, GOOD, compare=BAD, study=True, threads=1))).find(".//main"))


@pytest.mark.parametrize(
    "parity",
    [
        {"int8": {"retrieval": None}},
        {"int8": {"retrieval": {"loss": 0.1}}},
        {"int4": {"mean_cosine": 1}},
        {"fp32": "none", "note": 3},
        {"int8": {}},
        None,
    ],
)
def test_other_figures_of_exports_are_shown_as_they_are(parity: Any) -> None:
    root = tree(render(evaluate(DATA, GOOD, threads=1), exports={"parity": parity}))
    for name, figures in (parity or {}).items():
        if isinstance(figures, dict):
            assert f"{name}:" in text_of(section(root, "exports"))


def test_the_largest_page_stays_far_below_a_megabyte(report: EvalReport) -> None:
    rng = np.random.default_rng(0)
    points = [(int(x), int(y)) for x, y in rng.integers(0, 1001, (1510, 2))]
    marks = [Mark(f"{'WL'[i // 5]}{1 + i % 5}", "word " * 200, 1500 + i, i) for i in range(10)]
    side = Side(points, 0.5, 0.4)
    drawn = CorpusMap(
        "t-SNE", "source", [f"part {i}" for i in range(8)], rng.integers(0, 8, 1500).tolist(), 10**6, 0.2, side, side, marks, 1.0
    )
    assert report.study is not None
    change = replace(report.wins[0], query="word " * 200, document="x" * 240, instead="y" * 240)
    large = replace(report, study=replace(report.study, map=drawn), wins=[change] * 10, losses=[change] * 10)
    size = len(render(large, findings=FINDINGS * 5, exports=MANIFEST, run=RUN).encode())
    assert 50_000 < size < 300_000


def test_maps_draw_every_document_once() -> None:
    side = Side([(0, 0), (10, 20), (30, 40), (5, 6)], 0.5, 0.25)
    drawn = CorpusMap("how", "source", ["a", "empty", "b"], [0, 2, 0], 9, 0.3, None, side, [Mark("L1", "why?", 3, 1)], 1.0)
    (picture,) = pictures(drawn)
    assert picture.title == "The model"
    assert dict(picture.paths) == {0: "M0 0h0M30 40h0", 2: "M10 20h0"}
    assert part_counts(drawn) == [(0, "a", 2), (2, "b", 1)]
    (pin,) = picture.pins
    assert (pin.x, pin.y, pin.document_x, pin.document_y, pin.style) == (5, 6, 10, 20, "loss")
    assert (pin.label_x, pin.label_y) != (pin.x, pin.y)
    assert "50 % are of its own part (by chance 30 %); 25 %" in picture.text
    assert [picture.title for picture in pictures(replace(drawn, before=side))] == ["Before", "After"]


def test_names_on_a_map_keep_clear_of_each_other() -> None:
    points = [(500, 500), (505, 495), (500, 510), (700, 700), (100, 100)]
    marks = [Mark(f"W{i}", "why?", i, 4) for i in range(4)]
    side = Side(points, 0.5, 0.25)
    pins = pictures(CorpusMap("how", "source", ["a"], [0] * 5, 9, 0.3, None, side, marks, 1.0))[0].pins
    for one, other in combinations(pins, 2):
        assert abs(one.label_x - other.label_x) >= 50 or abs(one.label_y - other.label_y) >= 34


def test_what_the_models_cut_is_said_once() -> None:
    data = replace(DATA, doc_texts=["wind " * 60, *DATA.doc_texts[1:]])
    page = render(evaluate(data, GOOD, compare=BAD, threads=1))
    assert page.count("cut 1 document to") == 1
    assert "Both models cut 1 document to their length" in page
    assert "The new model cut 1 document to its length" in render(evaluate(data, GOOD, threads=1))


def test_scales_hold_their_values_and_stay_between_zero_and_one() -> None:
    rng = np.random.default_rng(0)
    for least, most in [(0.0, 0.0), (1.0, 1.0), (0.3, 0.3), (-0.1, 1.2), *np.sort(rng.random((200, 2)), axis=1).tolist()]:
        low, high, ticks = scale(least, most)
        assert 0 <= low <= max(least, 0) + 1e-9
        assert min(most, 1) - 1e-9 <= high <= 1 + (least >= 1) * 0.01 + 1e-9
        assert 2 <= len(ticks) <= 6
        steps = np.diff([tick for tick, _ in ticks])
        np.testing.assert_allclose(steps, steps[0])
        assert all(float(label) == pytest.approx(tick) for tick, label in ticks)
        made = chart("x", [Line("a", "", [("before", Interval((least + most) / 2, least, most))])])
        (dot,) = made.rows[0].dots
        assert -0.01 <= dot.low <= dot.low + dot.width <= 100.01


def test_without_jinja_one_line_says_how_to_get_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'nearfield\[report\]'"):
        render(evaluate(DATA, GOOD, threads=1))


def test_eval_writes_the_report(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from nearfield.cli import main
    from nearfield.data.write import write_beir

    monkeypatch.setattr(latency, "SECONDS", 0.02)
    write_beir(make_data(), tmp_path / "my data")
    out = tmp_path / "report.html"
    arguments = ["eval", str(tmp_path / "my data"), "--model", str(tiny_bundle), "--quiet", "--threads", "1"]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--report", str(out)])
    assert ended.value.code == 0
    assert capsys.readouterr().out.endswith(f"report: {out}\n")
    root = tree(out.read_text(encoding="utf-8"))
    assert f"nearfield eval '{tmp_path}/my data' --model {tiny_bundle}" in text_of(section(root, "repeat"))
    assert "cosine to fp32" in text_of(section(root, "exports"))
    with pytest.raises(SystemExit):
        main([*arguments, "--report", str(out), "--json"])
    assert json.loads(capsys.readouterr().out)["study"]["latencies"][0]["rows"] == 1
    # Refused in one line before the work, and the older report stays.
    before = out.read_bytes()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "jinja2", None)
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--report", str(out)])
    assert ended.value.code == 2
    assert "pip install 'nearfield[report]'" in capsys.readouterr().err
    for changed, words in (
        (["--report", str(tmp_path / "nowhere" / "report.html")], "its folder does not exist"),
        (["--report", str(tmp_path)], "a folder; name a .html file"),
        (["--report", str(out), "--split", "dev"], "split 'dev' asked for"),
    ):
        with pytest.raises(SystemExit) as ended:
            main([*arguments, *changed])
        said = capsys.readouterr()
        assert (ended.value.code, said.out, said.err.count("\n")) == (2, "", 1)
        assert words in said.err
    assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my data", "report.html"]


def size(dim: int, storage: Any, count: int, mean: float, low: float = float("nan"), high: float = float("nan")) -> Size:
    return Size(dim, storage, count, 9, Interval(mean, low, high), None)


def test_the_plot_of_sizes_places_bytes_by_their_logarithm() -> None:
    drawn = size_plot([size(64, "int8", 64, 0.5, 0.45, 0.55), size(128, "int8", 256, 0.7), size(64, "1 bit", 16, 0.4)])
    assert drawn is not None
    assert [label for _, label in drawn.across] == ["16", "32", "64", "128", "256"]
    eight, one = drawn.curves
    assert [point.x for point in eight.points] == [500.0, 1000.0]
    assert one.points[0].x == 0.0
    assert one.points[0].y > eight.points[0].y > eight.points[1].y
    assert eight.points[0].high < eight.points[0].y < eight.points[0].low
    assert eight.points[1].low == eight.points[1].y == eight.points[1].high
    assert eight.path == f"M500.0 {eight.points[0].y}L1000.0 {eight.points[1].y}"
    assert size_plot([size(64, "int8", 64, 0.5)]) is None
