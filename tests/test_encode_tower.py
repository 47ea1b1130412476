"""The torch tower against sentence-transformers: the same vectors, before and after saving."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encode_models import edit_json, some_texts
from nearfield.encode.batches import WINDOW, run_batches
from nearfield.encode.dtype import best_dtype, cpu_flags
from nearfield.encode.fingerprint import space_fingerprint
from nearfield.encode.spec import read_spec
from nearfield.encode.tower import Tower, pool
from nearfield.errors import FormatError, InputError

TEXTS = ["", "search", "word " * 300, "How do I sort a list?", *some_texts(12, longest=80)]


def reference(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu")


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("normalize", [True, False])
def test_same_vectors_as_sentence_transformers(tiny_model_of: Callable[..., Path], tmp_path: Path, pooling: str, normalize: bool) -> None:
    folder = tiny_model_of(pooling=pooling, normalize=normalize, max_tokens=24)
    edit_json(folder / "config_sentence_transformers.json", prompts={"query": "search query: ", "document": "text: "})
    tower = Tower.load(folder)
    tower.save(tmp_path / "saved")
    assert read_spec(tmp_path / "saved") == read_spec(folder) == tower.spec
    for source in (folder, tmp_path / "saved"):
        theirs = reference(source)
        assert theirs.max_seq_length == 24
        np.testing.assert_allclose(tower.encode(TEXTS), theirs.encode_document(TEXTS), atol=1e-5)
        np.testing.assert_allclose(tower.encode(TEXTS, kind="query"), theirs.encode_query(TEXTS), atol=1e-5)
    np.testing.assert_array_equal(Tower.load(tmp_path / "saved").encode(TEXTS), tower.encode(TEXTS))
    assert np.abs(tower.encode(TEXTS) - tower.encode(TEXTS, kind="query")).max() > 1e-3


def test_sdpa_equals_eager(tiny_model: Path) -> None:
    np.testing.assert_allclose(Tower.load(tiny_model, attention="sdpa").encode(TEXTS), Tower.load(tiny_model).encode(TEXTS), atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_pooling_against_loops(pooling: str) -> None:
    import torch

    rng = np.random.default_rng(3)
    hidden = rng.standard_normal((5, 7, 4))
    lengths = [7, 1, 3, 6, 2]
    mask = np.array([[1] * n + [0] * (7 - n) for n in lengths])
    expected = []
    for row, n in zip(hidden, lengths, strict=True):
        expected.append({"mean": sum(row[:n]) / n, "cls": row[0], "last": row[n - 1]}[pooling])
    found = pool(torch.from_numpy(hidden), torch.from_numpy(mask), pooling)  # type: ignore[arg-type]
    np.testing.assert_allclose(found.numpy(), np.array(expected), atol=1e-12)


def test_half_precision_weights_load_as_float32(tiny_model: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(tiny_model, tmp_path / "half"))
    weights = {name: value.half() for name, value in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    edit_json(folder / "config.json", dtype="float16")
    tower = Tower.load(folder)
    assert {p.dtype for p in tower.parameters()} == {torch.float32}


def test_saving_keeps_the_fingerprint_and_other_weights_change_it(
    tiny_model: Path, tiny_model_of: Callable[..., Path], tmp_path: Path
) -> None:
    spec = read_spec(tiny_model)
    own = space_fingerprint(tiny_model, spec)
    tower = Tower.load(tiny_model)
    tower.save(tmp_path / "saved")
    assert space_fingerprint(tmp_path / "saved", spec) == own
    tower.model.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")  # type: ignore[operator]
    shutil.copyfile(tiny_model / "tokenizer.json", tmp_path / "sharded" / "tokenizer.json")
    assert (tmp_path / "sharded" / "model.safetensors.index.json").is_file()
    assert space_fingerprint(tmp_path / "sharded", spec) == own
    assert space_fingerprint(tiny_model_of(seed=1), spec) != own
    changed = shutil.copytree(tiny_model, tmp_path / "changed")
    edit_json(changed / "config_sentence_transformers.json", prompts={"query": "q: "})
    assert space_fingerprint(changed, read_spec(changed)) == own
    edit_json(changed / "config_sentence_transformers.json", prompts={"document": "d: "})
    assert space_fingerprint(changed, read_spec(changed)) != own
    edit_json(changed / "tokenizer.json", normalizer={"type": "NFC"})
    assert space_fingerprint(changed, spec) != own


def test_a_missing_pooler_is_not_made_up(tiny_model_of: Callable[..., Path], tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    tower = Tower.load(tiny_model_of())
    tower.save(tmp_path / "saved")
    assert not [name for name in load_file(tmp_path / "saved" / "model.safetensors") if "pooler" in name]


def test_incomplete_weights_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    weights = load_file(folder / "model.safetensors")
    gone = "encoder.layer.1.output.dense.weight"
    del weights[gone]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=gone):
        Tower.load(folder)
    (folder / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(InputError, match="cannot load it") as error:
        Tower.load(folder)
    assert "\n" not in str(error.value)
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"no model\.safetensors"):
        Tower.load(folder)
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(InputError, match="pickle, which is never opened; convert"):
        Tower.load(folder)


def test_code_from_the_folder_is_never_run(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    edit_json(folder / "config.json", model_type="own_kind", auto_map={"AutoConfig": "own.C", "AutoModel": "own.M"})
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(InputError, match="cannot load it"):
        Tower.load(folder)
    assert not (tmp_path / "ran").exists()
    edit_json(folder / "config.json", is_encoder_decoder=True)
    with pytest.raises(InputError, match="encoder-decoder"):
        Tower.load(folder)


def test_windows_put_rows_back_in_order(tiny_model: Path) -> None:
    tower = Tower.load(tiny_model)
    texts = [str(i) for i in range(WINDOW + 3)]

    def forward(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return np.stack([(ids * mask).sum(axis=1), mask.sum(axis=1)], axis=1).astype(np.float32)

    found, truncated = run_batches(texts, "", tower.tokenizer, forward, 2, max_rows=64, max_tokens=4_096)
    expected = np.array([[sum(row), len(row)] for row in tower.tokenizer(texts).ids], np.float32)
    np.testing.assert_array_equal(found, expected)
    assert truncated == 0


def test_best_dtype_says_why(tmp_path: Path) -> None:
    import torch

    dtype, reason = best_dtype("cpu")
    assert (dtype == torch.bfloat16) == bool({"amx_bf16", "avx512_bf16"} & cpu_flags())
    assert reason.startswith(str(dtype).removeprefix("torch."))
    (tmp_path / "cpuinfo").write_text("processor : 0\nflags\t\t: fpu avx2 amx_bf16\n")
    assert "amx_bf16" in cpu_flags(tmp_path / "cpuinfo")
    assert cpu_flags(tmp_path / "none") == frozenset()


def test_damaged_weights_and_a_foreign_tokenizer_are_refused(tiny_model: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from nearfield.encode.encoder import Encoder
    from nearfield.encode.onnx_backend import OnnxBackend

    damaged = shutil.copytree(tiny_model, tmp_path / "damaged")
    weights = load_file(damaged / "model.safetensors")
    weights["encoder.layer.1.output.LayerNorm.bias"][3] = float("nan")
    save_file(weights, damaged / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(FormatError, match=r"^the model gives NaN or infinity for text \d: its weights are damaged"):
        Encoder(damaged).encode(["search", "tree"])
    foreign = shutil.copytree(tiny_model, tmp_path / "foreign")
    tokenizer = json.loads((foreign / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["search"] = 9_999
    (foreign / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(FormatError, match=r"gives a token, or max_tokens a position, that the model does not have") as caught:
        Encoder(foreign).encode(["tree", "search"])
    assert "\n" not in str(caught.value)
    graph = tiny_bundle / "onnx" / "model.onnx"
    ids = np.array([[2, 9_999, 3]])
    with pytest.raises(FormatError, match=r"model\.onnx: onnxruntime cannot run it \(") as caught:
        OnnxBackend(graph.read_bytes, graph, 1)(ids, np.ones_like(ids))
    assert "\n" not in str(caught.value)


def test_vectors_of_another_shape_are_refused(tiny_model: Path) -> None:
    tokenizer = Tower.load(tiny_model).tokenizer
    for shape in ((1, 1), (2, 32), (1, 32, 1)):
        with pytest.raises(FormatError, match=r"vectors of shape \("):
            run_batches(["a"], "", tokenizer, lambda ids, mask, shape=shape: np.zeros(shape, np.float32), 32, max_rows=1, max_tokens=9)
