"""From a model folder to a bundle: parity with torch, what is written, what is measured, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("onnx")

import onnx
import onnxruntime
import torch

from conftest import WORDS
from encode_models import by_hand, make_architecture
from nearfield.bundle import Bundle
from nearfield.config import ExportConfig
from nearfield.data.dataset import Dataset
from nearfield.encode.encoder import Encoder
from nearfield.encode.fingerprint import space_fingerprint
from nearfield.encode.spec import read_spec
from nearfield.encode.tower import Tower
from nearfield.errors import InputError, MissingExtraError
from nearfield.export import int8 as int8_module
from nearfield.export import parity as parity_module
from nearfield.export.card import model_card
from nearfield.export.export import TEXTS, export_bundle
from nearfield.export.onnx_graph import GraphRunner
from nearfield.export.optimum import check_optimum
from nearfield.export.parity import RetrievalLoss, cosines, fp32_parity


def sentences(n: int, seed: int = 0) -> list[str]:
    chance = np.random.default_rng(seed)
    return [" ".join(chance.choice(WORDS, size=chance.integers(1, 30))) for _ in range(n)]


@pytest.fixture(scope="module")
def exported(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("exported") / "bundle"
    return export_bundle(
        tiny_model,
        out,
        texts=sentences(12),
        parity_data=dataset(),
        base="tiny",
        config={"seed": 7},
        data_fingerprint="cd" * 32,
        progress=False,
    )


def dataset(split: str = "dev") -> Dataset:
    documents = sentences(60, seed=1)
    queries = [" ".join(text.split()[:4]) for text in documents[:20]]
    qrels = {split: {f"q{i}": {f"d{i}": 1} for i in range(20)}}
    return Dataset("tiny", "here", [f"d{i}" for i in range(60)], documents, [f"q{i}" for i in range(20)], queries, qrels)


# Mean with normalization is what every other test here exports.
@pytest.mark.parametrize(("pooling", "normalize"), [("cls", False), ("last", True)])
def test_every_pooling_is_the_graphs_own(tiny_model_of: Callable[..., Path], tmp_path: Path, pooling: str, normalize: bool) -> None:
    model = tiny_model_of(pooling=pooling, normalize=normalize, max_tokens=24)
    bundle = export_bundle(model, tmp_path / "b", progress=False)
    assert (bundle.pooling, bundle.normalize, bundle.max_tokens) == (pooling, normalize, 24)
    assert bundle.manifest["parity"]["fp32"]["passed"]
    assert [24, 8] not in bundle.manifest["parity"]["fp32"]["cases"]
    assert [8, 24] in bundle.manifest["parity"]["fp32"]["cases"]
    graph = GraphRunner(bundle.file("onnx/model.onnx"))
    tower = Tower.load(model)
    for lengths in ([1], [24], [3, 1, 24], [5, 24, 2, 1, 7, 7, 9, 11]):
        batch = tower.tokenizer.pad([list(range(5, 5 + n)) for n in lengths])
        assert np.abs(graph(*batch) - by_hand(model, *batch)).max() < 1e-5


def test_inputs_and_output_of_the_graphs(exported: Bundle) -> None:
    for name in ("onnx/model.onnx", "onnx/model.int8.onnx"):
        session = onnxruntime.InferenceSession(exported.read_model(name), providers=["CPUExecutionProvider"])
        assert [(i.name, i.type) for i in session.get_inputs()] == [("input_ids", "tensor(int64)"), ("attention_mask", "tensor(int64)")]
        assert [(o.name, o.type) for o in session.get_outputs()] == [("embedding", "tensor(float)")]
        for rows, tokens in ((1, 1), (2, 9), (5, 64)):
            ids = np.full((rows, tokens), 7, np.int64)
            assert session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0].shape == (rows, 32)


def test_what_a_bundle_holds(exported: Bundle, tiny_model: Path) -> None:
    assert {
        "README.md",
        "run.json",
        "golden.npz",
        "onnx/model.onnx",
        "onnx/model.int8.onnx",
        "model/model.safetensors",
        "model/tokenizer.json",
    } <= set(exported.manifest["files"])
    on_disk = {path.relative_to(exported.path).as_posix() for path in exported.path.rglob("*") if path.is_file()}
    assert on_disk == set(exported.manifest["files"]) | {"manifest.json"}
    for name, entry in exported.manifest["files"].items():
        assert entry["size"] == (exported.path / name).stat().st_size
    assert exported.manifest["base"] == "tiny"
    assert exported.manifest["data_fingerprint"] == "cd" * 32
    assert exported.manifest["metrics"] is exported.manifest["verdict"] is None
    assert set(exported.manifest["versions"]) >= {"torch", "transformers", "onnxruntime", "onnx"}
    assert json.loads(exported.read("run.json"))["config"] == {"seed": 7}
    assert exported.fingerprint == space_fingerprint(tiny_model, read_spec(tiny_model)), "the folder it was made from has the same"
    assert Bundle.open(exported.path).manifest == exported.manifest


def test_the_models_folder_loads_in_sentence_transformers(exported: Bundle) -> None:
    library = pytest.importorskip("sentence_transformers")
    texts, vectors = exported.golden()
    loaded = library.SentenceTransformer(str(exported.path / "model"), device="cpu")
    assert np.abs(loaded.encode(texts) - vectors).max() < 1e-5


def test_golden_vectors_are_those_of_the_model(exported: Bundle, tiny_model: Path) -> None:
    texts, vectors = exported.golden()
    assert texts == sentences(12)[:8]
    tower = Tower.load(tiny_model)
    assert np.abs(vectors - by_hand(tiny_model, *tower.tokenizer.pad(tower.tokenizer(texts).ids))).max() < 1e-5


def test_fused_nodes_are_counted(exported: Bundle) -> None:
    graphs = exported.manifest["graphs"]
    assert graphs["model.onnx"]["fused_offline"]
    # Two layers: one attention and two norms with their residual sums each.
    assert graphs["model.onnx"]["nodes"]["Attention"] == 2
    assert graphs["model.onnx"]["nodes"]["SkipLayerNormalization"] == 4
    assert graphs["model.int8.onnx"]["nodes"]["MultiHeadAttention"] == 2
    assert graphs["model.int8.onnx"]["nodes"]["MatMulIntegerToFloat"] == 8
    assert "MatMul" not in graphs["model.int8.onnx"]["nodes"]


def test_int8_weights_are_signed_per_channel_and_seven_bits(exported: Bundle) -> None:
    model = onnx.load(str(exported.path / "onnx" / "model.int8.onnx"))
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    weights = {name: value for name, value in tensors.items() if value.dtype == np.int8 and value.ndim == 2}
    assert len(weights) == 2 * 4, "attention in one, its output, and the two layers of the feed-forward part, in each of two layers"
    for name, value in weights.items():
        assert np.abs(value.astype(int)).max() == 63, "7 bits never saturate AVX2's 16-bit sums"
        assert tensors[name.replace("/int8/weight", "/int8/scales")].shape == (value.shape[1],)


def test_int8_figures_are_measured(exported: Bundle) -> None:
    int8 = exported.manifest["parity"]["int8"]
    tower = Tower.load(exported.path / "model")
    texts = sentences(12)
    graph = GraphRunner(exported.file("onnx/model.int8.onnx"))
    assert int8["texts"] == 12
    assert 0.9 < int8["min_cosine"] <= int8["mean_cosine"] < 1
    alone = np.concatenate([graph(*tower.tokenizer.pad(tower.tokenizer([text]).ids)) for text in texts])
    values = (alone * tower.encode(texts)).sum(axis=1)
    assert values.mean() == pytest.approx(int8["mean_cosine"], abs=1e-6)
    loss = int8["retrieval"]
    assert (loss["split"], loss["queries"], loss["documents"]) == ("dev", 20, 60)
    assert 0 < loss["ndcg_fp32"] < 1
    assert loss["loss"] == pytest.approx(loss["ndcg_fp32"] - loss["ndcg_int8"])
    assert int8["passed"] == loss["passed"] == (loss["loss"] <= 0.003 and loss["low"] > -0.01)


def test_retrieval_loss_of_known_rankings(tiny_model: Path) -> None:
    """Documents sit on a circle; the bad graph turns each query by 1.4 of their steps: its document comes third, nDCG 1 / log2(4)."""
    tower = Tower.load(tiny_model)
    words = sorted(set(WORDS))[:30]
    documents, queries = words[:20], words[20:]
    place = {row[1]: n for n, row in enumerate(tower.tokenizer(documents).ids)}
    place |= {row[1]: n for n, row in enumerate(tower.tokenizer(queries).ids)}
    asked = {row[1] for row in tower.tokenizer(queries).ids}
    assert len(place) == 30, "one token for each word"

    def turning(steps: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        def graph(input_ids: np.ndarray, _: np.ndarray) -> np.ndarray:
            angles = np.array([0.05 * (place[token] + steps * (token in asked)) for token in input_ids[:, 1].tolist()])
            return np.pad(np.stack([np.cos(angles), np.sin(angles)], axis=1), ((0, 0), (0, 30))).astype(np.float32)

        return graph

    names = [f"d{n}" for n in range(20)]
    qrels = {"test": {f"q{n}": {f"d{n}": 1} for n in range(10)}}
    data = Dataset("circle", "here", names, documents, [f"q{n}" for n in range(10)], queries, qrels)
    loss = RetrievalLoss(tower, turning(0), data, queries=300, documents=1_000)
    found = loss.of(turning(1.4))
    assert found["ndcg_fp32"] == 1.0
    assert found["ndcg_int8"] == pytest.approx(0.5)
    assert found["loss"] == pytest.approx(0.5)
    assert found["standard_error"] == pytest.approx(0.0, abs=1e-12)
    assert found["low"] == pytest.approx(-0.5)
    assert (found["split"], found["queries"], found["documents"]) == ("test", 10, 20)
    assert loss.of(turning(0))["loss"] == 0.0
    # Every other query turned: a loss of 0.5 or 0, whose mean has the standard error of ten such values.
    half = loss.of(lambda ids, mask: turning(1.4 * (place[int(ids[0, 1])] % 2))(ids, mask))
    assert half["standard_error"] == pytest.approx(np.std([0.5, 0.0] * 5, ddof=1) / 10**0.5)
    assert half["low"] == pytest.approx(-0.25 - 1.96 * half["standard_error"])
    worse = RetrievalLoss(tower, turning(1.4), data, queries=300, documents=1_000)
    assert worse.of(turning(0))["loss"] == pytest.approx(-0.5)


def test_the_sub_corpus_is_capped_and_keeps_what_is_relevant(tiny_model: Path) -> None:
    data = dataset()
    split, queries, documents = parity_module._sample(data, 5, 30, seed=0)
    assert (split, len(queries), len(documents)) == ("dev", 5, 30)
    assert {f"d{query[1:]}" for query in queries} <= set(documents)
    assert parity_module._sample(data, 5, 30, seed=0) == (split, queries, documents)
    assert parity_module._sample(data, 5, 30, seed=1) != (split, queries, documents)
    assert len(parity_module._sample(data, 300, 7, seed=0)[2]) == 7
    data.qrels["dev"] = {"q0": {"gone": 1}}
    with pytest.raises(InputError, match="no query of split 'dev'"):
        parity_module._sample(data, 5, 30, seed=0)
    with pytest.raises(InputError, match="dev or test"):
        parity_module._sample(dataset("train"), 5, 30, seed=0)


def test_a_graph_that_differs_is_never_shipped(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tower = Tower.load(tiny_model)
    for offset, passes in ((0.0, True), (9e-6, True), (2e-5, False), (np.nan, False)):
        measured = fp32_parity(tower, lambda ids, mask, offset=offset: tower.forward_arrays(ids, mask) + np.float32(offset), ["a test"])
        assert measured["passed"] is passes, offset
    run = GraphRunner.__call__
    monkeypatch.setattr(GraphRunner, "__call__", lambda self, ids, mask: run(self, ids, mask) + np.float32(1e-4))
    with pytest.raises(InputError, match="from torch, at most 1e-05 expected"):
        export_bundle(tiny_model, tmp_path / "b", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_graph_for_one_shape_alone_is_refused(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What onnxruntime raises for such a graph is its own error; the user reads one line."""

    def failing(self: GraphRunner, input_ids: np.ndarray, _: np.ndarray) -> np.ndarray:
        raise RuntimeError("Reshape: 14 elements do not fit\nand more lines")

    monkeypatch.setattr(GraphRunner, "__call__", failing)
    with pytest.raises(InputError, match=r"another shape \(RuntimeError: Reshape: 14 elements do not fit\); .*exported$") as caught:
        export_bundle(tiny_model, tmp_path / "b", exporter="own", progress=False)
    assert str(caught.value).startswith(f"{tiny_model}: "), "the folder that was given, not the one where the bundle is made"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(find_spec("optimum") is not None, reason="Optimum is installed here")
def test_an_architecture_that_ours_does_not_know_names_the_extra(tmp_path: Path) -> None:
    model = make_architecture(tmp_path / "m", "glm")
    with pytest.raises(
        InputError, match=r"GlmModel cannot be exported .*; .*optimum-onnx, .* pip install 'nearfield\[optimum\]' in an env"
    ) as caught:
        export_bundle(model, tmp_path / "b", progress=False)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="GlmModel cannot be exported") as caught:
        export_bundle(model, tmp_path / "b", exporter="own", progress=False)
    assert "ptimum" not in str(caught.value)
    with pytest.raises(MissingExtraError, match="optimum-onnx"):
        export_bundle(tmp_path / "missing", tmp_path / "b", exporter="optimum", progress=False)
    with pytest.raises(InputError, match="'ours' given, one of auto, own, optimum expected"):
        export_bundle(model, tmp_path / "b", exporter="ours", progress=False)  # type: ignore[arg-type]


def test_optimum_beside_transformers_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"optimum-onnx": "0.1.0", "transformers": "5.23.0"}
    needs = ["onnx", "transformers<4.58.0,>=4.36", 'transformers<1; extra == "tests"']
    monkeypatch.setattr("nearfield.export.optimum.metadata.requires", {"optimum-onnx": needs}.__getitem__)
    monkeypatch.setattr("nearfield.export.optimum.metadata.version", versions.__getitem__)
    with pytest.raises(
        InputError, match=r"a model: optimum-onnx 0\.1\.0 needs transformers <4\.58\.0,>=4\.36 and 5\.23\.0 is installed; make an env"
    ):
        check_optimum("a model")
    versions["transformers"] = "4.57.6"
    check_optimum("a model")


def test_a_model_without_an_attention_mask_is_refused(tmp_path: Path) -> None:
    model = make_architecture(tmp_path / "m", "fnet")
    with pytest.raises(InputError, match="FNetModel takes no attention mask"):
        Tower.load(model)


def test_without_fusion_the_plain_graph_is_shipped(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxruntime.transformers.optimizer.optimize_model", lambda *args, **options: 1 / 0)
    bundle = export_bundle(tiny_model, tmp_path / "b", progress=False)
    assert not bundle.manifest["graphs"]["model.onnx"]["fused_offline"]
    assert "Attention" not in bundle.manifest["graphs"]["model.onnx"]["nodes"]
    assert bundle.manifest["parity"]["fp32"]["passed"]
    assert bundle.manifest["parity"]["int8"]["mean_cosine"] > 0.95


def test_embeddings_stay_in_float_where_quantizing_them_costs(exported: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8_module, "EMBEDDING_COSINE", 1.0)
    kept = export_bundle(exported.path / "model", tmp_path / "kept", progress=False)
    for bundle, quantized in ((kept, False), (exported, True)):
        graph = bundle.manifest["graphs"]["model.int8.onnx"]
        assert graph["quantization"]["embeddings"] is quantized
        assert ("QEmbedLayerNormalization" in graph["nodes"]) is quantized
        assert not (bundle.path / "onnx" / "embeddings.onnx").exists()
    assert kept.fingerprint == exported.fingerprint


def test_other_layouts_and_precisions_are_written_anew(tiny_model: Path, tmp_path: Path) -> None:
    from transformers import AutoModel

    half = tmp_path / "half"
    AutoModel.from_pretrained(tiny_model, dtype=torch.float16).save_pretrained(half)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (half / name).write_bytes((tiny_model / name).read_bytes())
    bundle = export_bundle(half, tmp_path / "b", progress=False)
    assert (bundle.pooling, bundle.normalize) == ("mean", True)
    assert bundle.manifest["parity"]["fp32"]["passed"]
    assert (bundle.path / "model" / "model.safetensors").stat().st_size > 1.9 * (half / "model.safetensors").stat().st_size
    assert bundle.fingerprint == space_fingerprint(bundle.path / "model", read_spec(bundle.path / "model"))


def test_linked_model_files_are_copied_and_no_data_means_no_figure(tiny_model: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    (linked / "1_Pooling").mkdir(parents=True)
    for path in tiny_model.rglob("*"):
        if path.is_file():
            (linked / path.relative_to(tiny_model)).parent.mkdir(exist_ok=True)
            (linked / path.relative_to(tiny_model)).symlink_to(path)
    bundle = export_bundle(linked, tmp_path / "b", progress=False)
    assert not any(path.is_symlink() for path in bundle.path.rglob("*"))
    # No data was given, so there is no retrieval figure, and manifest and card say so.
    assert bundle.manifest["parity"]["int8"]["passed"] is None
    assert "retrieval" not in bundle.manifest["parity"]["int8"]
    assert "not measured" in bundle.read("README.md").decode()
    assert bundle.golden()[0] == list(TEXTS[:8])


def test_refusals_come_before_the_work(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tower, "load", lambda *_: pytest.fail("no model is loaded"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not a bundle"):
        export_bundle(tiny_model, tmp_path / "mine", progress=False)
    with pytest.raises(InputError, match="missing"):
        export_bundle(tmp_path / "missing", tmp_path / "b", progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]


def test_cosines() -> None:
    rows = np.array([[1, 0], [0, 1]], np.float32)
    turned = np.array([[1, 0], [0.6, 0.8]], np.float32)
    assert cosines(rows, turned) == pytest.approx({"mean_cosine": 0.9, "min_cosine": 0.8})


def test_the_card_says_what_the_manifest_says(exported: Bundle) -> None:
    card = model_card(exported.manifest)
    assert card == exported.read("README.md").decode()
    loss = exported.manifest["parity"]["int8"]["retrieval"]
    assert f"{100 * loss['loss']:.2f} points" in card
    judged: dict[str, Any] = {
        **exported.manifest,
        "metrics": {},
        "verdict": {"answer": "ship", "sentence": "Better by 3 points."},
        "base": "a`\nb",
    }
    card = model_card({**judged, "prompts": {"query": "ask: ", "document": ""}})
    assert "Better by 3 points." in card
    assert "`a' b`" in card
    assert "each query: `ask:`" in card


def test_a_bundle_without_int8(tiny_model: Path, tmp_path: Path) -> None:
    bundle = export_bundle(tiny_model, tmp_path / "bundle", settings=ExportConfig(int8="none"), progress=False)
    assert "onnx/model.int8.onnx" not in bundle
    assert set(bundle.manifest["parity"]) == {"fp32"}
    with pytest.raises(InputError, match="int8"):
        Encoder(bundle.path, backend="onnx", precision="int8")
