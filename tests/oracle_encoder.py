"""A BERT's forward pass in float64, one text at a time, written to be read: what the native encoder is compared with.

Weights come through the safetensors package and sizes straight from config.json, so that nothing here shares a line with nearfield.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

Floats = NDArray[np.float64]


def erf(x: Floats) -> Floats:
    return np.vectorize(math.erf, otypes=[np.float64])(x) if x.size else x


def activation(name: str, x: Floats) -> Floats:
    if name in ("gelu", "gelu_python"):
        return x * 0.5 * (1.0 + erf(x / math.sqrt(2.0)))
    if name in ("gelu_new", "gelu_pytorch_tanh", "gelu_fast"):
        return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))
    assert name == "relu", name
    return np.maximum(x, 0.0)


def layer_norm(x: Floats, weight: Floats, bias: Floats, eps: float) -> Floats:
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    return centred / np.sqrt(variance + eps) * weight + bias


def softmax(row: Floats) -> Floats:
    exponentials = np.exp(row - row.max())
    return exponentials / exponentials.sum()


class Bert:
    """The model of a folder. ``hidden(ids)`` gives the token vectors, ``vector(ids)`` the text's, before Matryoshka and unit length."""

    def __init__(self, folder: Path) -> None:
        self.config = json.loads((folder / "config.json").read_text())
        with safe_open(str(folder / "model.safetensors"), "pt") as file:  # torch's, because numpy has no bfloat16
            self.tensors: dict[str, Floats] = {
                name.removeprefix("bert."): file.get_tensor(name).double().numpy()
                for name in file.keys()  # noqa: SIM118 (it is no mapping)
            }

    def dense(self, name: str, x: Floats) -> Floats:
        return x @ self.tensors[f"{name}.weight"].T + self.tensors[f"{name}.bias"]

    def norm(self, name: str, x: Floats) -> Floats:
        return layer_norm(x, self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"], self.config["layer_norm_eps"])

    def embeddings(self, ids: list[int]) -> Floats:
        words, positions, types = (self.tensors[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type"))
        rows = [words[token] + positions[place] + types[0] for place, token in enumerate(ids)]
        return self.norm("embeddings.LayerNorm", np.array(rows))

    def attention(self, name: str, x: Floats) -> Floats:
        query, key, value = (self.dense(f"{name}.self.{part}", x) for part in ("query", "key", "value"))
        heads = self.config["num_attention_heads"]
        width = x.shape[1] // heads
        mixed = np.empty_like(x)
        for head in range(heads):
            columns = slice(head * width, (head + 1) * width)
            for i in range(len(x)):
                scores = key[:, columns] @ query[i, columns] / math.sqrt(width)
                mixed[i, columns] = softmax(scores) @ value[:, columns]
        return self.norm(f"{name}.output.LayerNorm", self.dense(f"{name}.output.dense", mixed) + x)

    def layer(self, name: str, x: Floats) -> Floats:
        attended = self.attention(f"{name}.attention", x)
        between = activation(self.config["hidden_act"], self.dense(f"{name}.intermediate.dense", attended))
        return self.norm(f"{name}.output.LayerNorm", self.dense(f"{name}.output.dense", between) + attended)

    def hidden(self, ids: list[int]) -> Floats:
        x = self.embeddings(ids)
        for i in range(self.config["num_hidden_layers"]):
            x = self.layer(f"encoder.layer.{i}", x)
        return x

    def vector(self, ids: list[int], pooling: str) -> Floats:
        x = self.hidden(ids)
        return {"mean": x.mean(axis=0), "cls": x[0], "last": x[-1]}[pooling]


def vectors(folder: Path, rows: list[list[int]], pooling: str, *, normalize: bool = True, dim: int | None = None) -> Floats:
    """float64 ``(n, dim)``: pooled, cut to the first ``dim`` columns, and of unit length where the model normalizes or columns were cut."""
    model = Bert(folder)
    pooled = np.array([model.vector(row, pooling)[:dim] for row in rows])
    if normalize or dim is not None:
        pooled = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    return pooled
