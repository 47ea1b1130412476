"""Optimum's exporter beside ours, in the one environment where both run (make test-optimum): the same vectors, within 1e-5, and torch's."""

from __future__ import annotations

import json
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("onnx")

import onnx

from encode_models import by_hand, make_architecture, some_texts
from nearfield.cli import main
from nearfield.config import ExportConfig
from nearfield.encode.encoder import Encoder
from nearfield.encode.models import resolve_model
from nearfield.encode.tower import Tower
from nearfield.errors import InputError
from nearfield.export import optimum as optimum_module
from nearfield.export.export import export_bundle
from nearfield.export.onnx_graph import GraphRunner, export_graph
from nearfield.export.optimum import export_with_optimum

pytestmark = [
    pytest.mark.optimum,
    pytest.mark.skipif(find_spec("optimum") is None, reason="Optimum is not installed here; make test-optimum has an environment for it"),
]

PLAIN = ExportConfig(int8="none")
BOTH = ["bert", "mpnet", "roberta", "xlm-roberta", "distilbert", "electra", "albert", "deberta-v2", "modernbert"]
# What tracing alone does not get right beside transformers 4.57, and, of these, "glm" not beside transformers 5 either. gpt2 has absolute
# places; the others' are relative, so that places counted from anywhere give the same vectors.
ONLY_OPTIMUM = ["gpt2", "qwen3", "gemma3_text", "glm"]


def batches(tower: Tower) -> list[tuple[np.ndarray, np.ndarray]]:
    """Batches of 1, 3 and 8 rows with 1, 16 and 64 tokens in the longest, the others shorter and padded."""
    chance = np.random.default_rng(0)
    made = []
    for tokens in (1, 16, 64):
        for rows in (1, 3, 8):
            lengths = [tokens, *chance.integers(1, tokens + 1, rows - 1)]
            made.append(tower.tokenizer.pad([chance.integers(5, 60, length).tolist() for length in lengths]))
    return made


def signature(path: Path) -> list[tuple[str, int, int]]:
    """Name, type and number of axes of each input and output."""
    graph = onnx.load(str(path)).graph
    return [(v.name, v.type.tensor_type.elem_type, len(v.type.tensor_type.shape.dim)) for v in [*graph.input, *graph.output]]


@pytest.mark.parametrize("kind", BOTH)
def test_both_exporters_give_the_same_vectors(kind: str, tmp_path: Path) -> None:
    model = make_architecture(tmp_path / "m", kind)
    tower = Tower.load(model)
    own, theirs = export_graph(tower, tmp_path / "own.onnx"), export_with_optimum(tower, tmp_path / "optimum.onnx")
    assert signature(own) == signature(theirs)
    runs = GraphRunner(own), GraphRunner(theirs)
    for batch in batches(tower):
        vectors = [run(*batch) for run in runs]
        assert np.abs(vectors[0] - vectors[1]).max() < 1e-5, batch[0].shape
        assert np.abs(vectors[1] - by_hand(model, *batch)).max() < 1e-5, batch[0].shape
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m", "optimum.onnx", "own.onnx"], "nothing is left behind"


@pytest.mark.parametrize(("pooling", "normalize"), [("cls", False), ("last", True), ("last", False)])
def test_pooling_and_norm_are_in_optimums_graph_too(pooling: str, normalize: bool, tmp_path: Path) -> None:
    model = make_architecture(tmp_path / "m", "bert", pooling=pooling, normalize=normalize)
    tower = Tower.load(model)
    run = GraphRunner(export_with_optimum(tower, tmp_path / "optimum.onnx"))
    for batch in batches(tower):
        assert np.abs(run(*batch) - by_hand(model, *batch)).max() < 1e-5, batch[0].shape


def test_the_real_model(tmp_path: Path) -> None:
    model = resolve_model(None)
    tower = Tower.load(model)
    runs = [GraphRunner(export(tower, tmp_path / f"{export.__name__}.onnx")) for export in (export_graph, export_with_optimum)]
    for rows, words in ((1, 3), (3, 60), (8, 200)):
        batch = tower.tokenizer.pad(tower.tokenizer(some_texts(rows, longest=words)).ids)
        own, theirs = (run(*batch) for run in runs)
        assert np.abs(own - theirs).max() < 1e-5
        assert np.abs(theirs - by_hand(model, *batch)).max() < 1e-5


@pytest.mark.parametrize("kind", ONLY_OPTIMUM)
def test_what_ours_cannot_trace_becomes_a_bundle(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = make_architecture(tmp_path / "m", kind, pooling="last")
    with pytest.raises(InputError, match="cannot be exported"):
        export_bundle(model, tmp_path / "own", exporter="own", progress=False)
    with pytest.raises(SystemExit) as ended:
        main(["export", str(model), "--out", str(tmp_path / "b"), "--json", "--quiet"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["exporter"] == "optimum"
    with Encoder(tmp_path / "b") as encoder, Encoder(model) as reference:
        assert encoder.backend == "onnx"
        texts = ["a", *some_texts(7, longest=70)]
        found = encoder.encode(texts)
        batch = reference._tokenizer.pad(reference._tokenizer(texts).ids)
        assert np.abs(found - by_hand(model, *batch)).max() < 1e-5
        assert np.abs(found - reference.encode(texts)).max() < 1e-5
        assert np.abs(found @ found.T - np.eye(8)).max() > 1e-3, "vectors of different texts differ"
        assert encoder.self_check() < 1e-5
        assert encoder.fingerprint == reference.fingerprint
        manifest = encoder._bundle.manifest  # type: ignore[union-attr]
    assert manifest["graphs"]["model.onnx"]["exporter"] == "optimum"
    assert manifest["versions"]["optimum-onnx"] == metadata.version("optimum-onnx")
    assert manifest["parity"]["fp32"]["passed"]
    assert 0.9 < manifest["parity"]["int8"]["mean_cosine"] < 1


def test_auto_takes_ours_where_it_can_and_optimum_when_told(tmp_path: Path) -> None:
    model = make_architecture(tmp_path / "m", "bert")
    made = {name: export_bundle(model, tmp_path / name, exporter=name, settings=PLAIN, progress=False) for name in ("auto", "optimum")}
    for name, exporter in (("auto", "own"), ("optimum", "optimum")):
        assert made[name].manifest["graphs"]["model.onnx"]["exporter"] == exporter
        assert made[name].manifest["graphs"]["model.onnx"]["nodes"]["Attention"] == 2, "fused all the same"
        assert ("optimum" in made[name].manifest["versions"]) is (name == "optimum")
    assert made["auto"].fingerprint == made["optimum"].fingerprint
    with Encoder(tmp_path / "auto") as own, Encoder(tmp_path / "optimum") as theirs:
        texts = some_texts(20)
        assert np.abs(own.encode(texts) - theirs.encode(texts)).max() < 1e-5


def test_a_graph_of_optimums_that_differs_is_refused(tmp_path: Path) -> None:
    """XLM looks token types up among the words, so that zeros are not the same as none; Optimum makes an input of them, ours does not."""
    model = make_architecture(tmp_path / "m", "xlm")
    with pytest.raises(InputError, match=r"Optimum's ONNX graph of XLMModel is .* from torch, at most 1e-05 expected"):
        export_bundle(model, tmp_path / "b", exporter="optimum", progress=False)
    assert not (tmp_path / "b").exists()
    assert export_bundle(model, tmp_path / "b", settings=PLAIN, progress=False).manifest["graphs"]["model.onnx"]["exporter"] == "own"


@pytest.mark.parametrize(
    ("kind", "reason"), [("ernie", "does not know the architecture 'ernie'"), ("layoutlm", "Optimum's graph has inputs input_ids, bbox")]
)
def test_what_optimum_cannot_do_is_said(kind: str, reason: str, tmp_path: Path) -> None:
    model = make_architecture(tmp_path / "m", kind)
    with pytest.raises(InputError, match=reason) as caught:
        export_bundle(model, tmp_path / "b", exporter="optimum", progress=False)
    assert "\n" not in str(caught.value)
    assert str(model) in str(caught.value)


def test_both_reasons_are_named_where_neither_can(tmp_path: Path) -> None:
    model = make_architecture(tmp_path / "m", "tapas")
    with pytest.raises(InputError, match=r"TapasModel cannot be exported to ONNX .*; .* does not know the architecture 'tapas'"):
        export_bundle(model, tmp_path / "b", progress=False)


def test_transformers_5_beside_optimum_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    optimum_module.check_optimum()
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "5.23.0" if name == "transformers" else version(name))
    model = make_architecture(tmp_path / "m", "glm")
    for exporter in ("optimum", "auto"):
        with pytest.raises(InputError, match=r"needs transformers .*<4\.58.* and 5\.23\.0 is installed; make an environment of its own"):
            export_bundle(model, tmp_path / "b", exporter=exporter, progress=False)  # type: ignore[arg-type]
