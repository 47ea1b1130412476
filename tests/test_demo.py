"""The demo from harvest to answers, on a little documentation and a tiny model: everything it promises lies where it says."""

from __future__ import annotations

import html
import json
from functools import partial
from pathlib import Path

import pytest

from nearfield import demo
from nearfield.bundle import Bundle
from nearfield.config import TuneConfig
from nearfield.encode.native_backend import is_fast
from nearfield.search.folder import IndexFolder

LITTLE = TuneConfig(pieces=0, evaluation="auto", max_pairs=48, batch_size=16, dev_queries=10, dev_documents=30, merge_trials=0)


def test_everything_that_the_demo_names_is_there(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "demo"
    monkeypatch.setattr(demo, "QUICK", demo.Size(120, LITTLE))
    monkeypatch.setattr(demo, "tune", partial(demo.tune, base=tiny_model))
    said: list[str] = []
    made = demo.run(out, quick=True, progress=False, say=said.append)
    text = "\n".join(said)
    for name in ("data", "base", "bundle", "bundle/report.html", "index"):
        assert f"  {out / name}: " in text
        assert (out / name).exists()
    assert json.loads(json.dumps(made))["report"] == str(out / "bundle" / "report.html")
    page = Path(made["report"]).read_text(encoding="utf-8")
    assert made["sentence"] in text
    figures = made["sentence"].partition(": ")[2].partition(";")[0]
    for shown in (html.escape(figures), "BM25 + model", f"nearfield demo --quick --out {out}"):
        assert shown in page, shown
    assert Bundle.open(out / "bundle").manifest["verdict"]["answer"] == made["verdict"]
    assert [line["name"] for line in made["evaluation"]["baselines"]] == ["BM25", "BM25 + model"]
    expected = ("native", "bf16") if is_fast("bf16") else ("onnx", "fp32")
    for which in ("model", "compare"):
        assert (made["evaluation"][which]["backend"], made["evaluation"][which]["precision"]) == expected
    spaces = {made["evaluation"][which]["fingerprint"] for which in ("model", "compare")}
    assert len(list((out / "vectors").iterdir())) == len(spaces), "base and tuned; the index and the answers found theirs there"
    opened = IndexFolder.open(out / "index")
    assert len(opened.index) == made["index"]["documents"] == 120
    assert [answer["query"] for answer in made["answers"]] == list(demo.QUESTIONS)
    assert all(len(answer["base"]) == len(answer["tuned"]) == demo.SHOWN for answer in made["answers"])
    assert all(name in opened.index for answer in made["answers"] for name in answer["base"] + answer["tuned"])
