"""The report in Debian's Chromium: nothing asked of the network, nothing on the console, readable at desktop and phone width."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import chromium
from nearfield.evaluate.report.page import render
from nearfield.evaluate.results import EvalReport
from test_report import FINDINGS, MANIFEST, RUN, SHOWN, nasty_report

pytestmark = pytest.mark.skipif(chromium.PROGRAM is None, reason="no Chromium here: apt-get install chromium")

DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844, "phone": True}
# What must be seen: width and height of each on the page, in pixels of the style sheet.
SEEN = """
[...document.querySelectorAll("svg, svg path, .chart li:not(.axis) .track, .chart .dot, .legend .key, .changes li, table")].map(
  found => { const box = found.getBoundingClientRect(); return [found.tagName + "." + found.getAttribute("class"), box.width, box.height] })
"""
# Whatever lies beyond the window's right edge and is not inside a box that scrolls by itself.
OUTSIDE = """
[...document.querySelectorAll("body *")].filter(found => !found.closest(".scroll > *") && !found.closest("svg > *"))
  .filter(found => found.getBoundingClientRect().right > innerWidth + 0.5).map(found => found.tagName + "." + found.className)
"""
# Labels of one scale that touch each other.
TOUCHING = """
[...document.querySelectorAll(".axis .track")].flatMap(axis => [...axis.children].map(found => found.getBoundingClientRect()))
  .filter((box, i, all) => i && box.top === all[i - 1].top && box.left > all[i - 1].left && box.left < all[i - 1].right + 2).length
"""


@pytest.fixture(scope="module")
def report() -> EvalReport:
    return nasty_report()


@pytest.fixture(scope="module")
def page(report: EvalReport, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render(report, findings=FINDINGS, exports=MANIFEST, run=RUN), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Browser]:
    with chromium.browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("window", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_is_seen_whole_and_asks_for_nothing(tab: chromium.Browser, page: Path, window: dict[str, int], dark: bool) -> None:
    tab.open(page, **window, dark=dark)  # type: ignore[arg-type]
    tab.screenshot(page.with_suffix(".png"))
    noises = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
    said = [event for event in tab.events if event.get("method") in noises]
    assert said == []
    asked = [event["params"]["request"]["url"] for event in tab.events if event.get("method") == "Network.requestWillBeSent"]
    assert asked == [page.as_uri()]
    assert tab.value("document.documentElement.scrollWidth") <= window["width"]
    assert tab.value(OUTSIDE) == []
    assert tab.value(TOUCHING) == 0
    seen = tab.value(SEEN)
    assert {found[0].split(".")[0] for found in seen} == {"svg", "path", "SPAN", "I", "LI", "TABLE"}
    assert [found for found in seen if not (found[1] >= 4 and found[2] >= 4)] == []
    assert [found[1] > 300 for found in seen if found[0].startswith("svg")] == [True, True, True]
    light = tab.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert light != dark
    # Both maps stand side by side where there is room.
    tops = tab.value('[...document.querySelectorAll("svg")].map(found => found.getBoundingClientRect().top)')
    assert (tops[0] == tops[1]) == (window is DESKTOP)
    assert page.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_a_browser_reads_untrusted_text_as_text(tab: chromium.Browser, page: Path, report: EvalReport) -> None:
    tab.open(page, **DESKTOP)
    assert tab.value('document.querySelectorAll("script, img, iframe, b b").length') == 0
    assert tab.value("document.title") == f"{SHOWN}: base against tuned"
    assert tab.value('document.querySelectorAll(".changes li").length') == len(report.wins) + len(report.losses)
    assert tab.value('[...document.querySelectorAll("section")].every(found => found.parentElement.tagName === "MAIN")')


def test_what_should_not_be_there_would_be_noticed(tab: chromium.Browser, page: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    added = '<script>console.log("x")</script><img src="http://127.0.0.1:9/x.png"/><p style="width:2000px">wide</p></main>'
    bad.write_text(page.read_text(encoding="utf-8").replace("</main>", added), encoding="utf-8")
    tab.open(bad, **DESKTOP)
    # The page's own policy stops both, and the browser says so on its console.
    assert sum(event.get("method") == "Log.entryAdded" for event in tab.events) >= 2
    assert tab.value("document.documentElement.scrollWidth") > 1280
    assert "P." in tab.value(OUTSIDE)


def test_the_page_prints(tab: chromium.Browser, page: Path) -> None:
    tab.open(page, **DESKTOP, dark=True)
    printed = tab.pdf()
    assert printed.startswith(b"%PDF")
    assert 2 <= printed.count(b"/Type /Page\n") + printed.count(b"/Type /Page ") <= 25
    tab.send("Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    assert tab.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    tab.send("Emulation.setEmulatedMedia", media="", features=[])
