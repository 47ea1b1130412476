"""Bundles and model folders for the encoder's tests, made here from tiny random models."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np

from nearfield.encode.fingerprint import space_fingerprint
from nearfield.encode.tower import Tower
from nearfield.export.writer import BundleWriter

WORDS = ["array", "returns", "values", "file", "index", "search", "list", "vector", "query", "document", "model", "train", "score", "path"]


def some_texts(count: int, *, seed: int = 0, longest: int = 40) -> list[str]:
    """Texts of 1 to ``longest`` words."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, longest + 1))) for _ in range(count)]


def edit_json(path: Path, **changes: object) -> None:
    """Sets keys of a JSON object; None removes a key."""
    value = json.loads(path.read_text()) if path.exists() else {}
    value = {key: item for key, item in (value | changes).items() if item is not None}
    path.write_text(json.dumps(value))


def make_bundle(model: Path, out: Path) -> Path:
    """A bundle of the model with an fp32 and a dynamically quantized graph; its exporter is torch's, not the package's own."""
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic

    tower = Tower.load(model)
    with BundleWriter(out) as writer, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = writer.folder
        tower.save(folder / "model")
        (folder / "onnx").mkdir()
        example = tuple(torch.from_numpy(a) for a in tower.tokenizer.pad(tower.tokenizer(["some example text", "short"]).ids))
        fp32 = str(folder / "onnx" / "model.onnx")
        torch.onnx.export(
            tower, example, fp32, input_names=["input_ids", "attention_mask"], output_names=["vectors"], dynamo=False, opset_version=17,
            dynamic_axes={"input_ids": {0: "n", 1: "t"}, "attention_mask": {0: "n", 1: "t"}, "vectors": {0: "n"}},
        )  # fmt: skip
        quantize_dynamic(fp32, str(folder / "onnx" / "model.int8.onnx"), weight_type=QuantType.QInt8, per_channel=True)
        texts = some_texts(4, seed=9)
        np.savez(folder / "golden.npz", texts=np.array(texts), vectors=tower.encode(texts))
        spec = tower.spec
        fields = {"kind": "encoder", "dim": spec.dim, "max_tokens": spec.max_tokens, "pooling": spec.pooling, "normalize": spec.normalize}
        measured: dict[str, object] = {"parity": {}, "metrics": None, "verdict": None}
        writer.finish(fields | {"prompts": spec.prompts, "fingerprint": space_fingerprint(folder / "model", spec)} | measured)
    return out
