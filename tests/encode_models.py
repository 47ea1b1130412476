"""Bundles and model folders for the encoder's tests, made here from tiny random models."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np

from conftest import make_tiny_model
from nearfield.encode.fingerprint import space_fingerprint
from nearfield.encode.spec import read_spec
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


# Sizes that every architecture's tiny form below shares; position tables hold the 64 tokens of the tiny tokenizer and RoBERTa's offset.
_SIZES = {
    "vocab_size": 250, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 66, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3,
}  # fmt: skip
_OWN_SIZES: dict[str, dict[str, object]] = {
    "albert": {"embedding_size": 16},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8},
    "distilbert": {"dim": 32, "hidden_dim": 64, "n_heads": 4, "n_layers": 2},
    "electra": {"embedding_size": 16},
    "gemma3_text": {"num_key_value_heads": 2, "head_dim": 8},
    "glm": {"num_key_value_heads": 2, "head_dim": 8},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 66},
    "modernbert": {"global_attn_every_n_layers": 2, "local_attention": 8},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 8},
    "xlm": {"emb_dim": 32, "n_layers": 2, "n_heads": 4},
}


def make_architecture(folder: Path, kind: str, **layout: object) -> Path:
    """A random two-layer model of any architecture that transformers knows, with the tiny model's tokenizer and layout."""
    import torch
    from transformers import AutoConfig, AutoModel

    make_tiny_model(folder, **layout)  # type: ignore[arg-type]
    (folder / "model.safetensors").unlink()
    torch.manual_seed(0)
    model = AutoModel.from_config(AutoConfig.for_model(kind, **(_SIZES | _OWN_SIZES.get(kind, {}))))
    model.save_pretrained(folder, safe_serialization=True)
    return folder


def by_hand(model: Path, input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
    """transformers' token vectors, pooled and normalized row by row in float64: shares no line with the tower."""
    import torch
    from transformers import AutoModel

    spec = read_spec(model)
    transformer = AutoModel.from_pretrained(model, dtype=torch.float32).eval()
    rows = []
    for ids, mask in zip(input_ids, attention_mask, strict=True):
        real = torch.from_numpy(ids[: mask.sum()][None])
        with torch.no_grad():
            hidden = transformer(input_ids=real).last_hidden_state[0].double().numpy()
        row = {"mean": hidden.mean(axis=0), "cls": hidden[0], "last": hidden[-1]}[spec.pooling]
        rows.append(row / np.linalg.norm(row) if spec.normalize else row)
    return np.array(rows)
