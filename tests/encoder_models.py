"""Small BERTs of every shape that the native encoder has to compute, with weights that make each part of it matter."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from conftest import make_tiny_model


@dataclass(frozen=True)
class Form:
    """A model to be made: sizes as BertConfig names them, how it pools, how its file is saved."""

    name: str
    hidden: int
    heads: int
    config: dict[str, object] = field(default_factory=dict)
    pooling: str = "mean"
    normalize: bool = True
    prompts: dict[str, str] = field(default_factory=dict)
    dtype: str = "F32"
    prefix: str = ""

    def make(self, folder: Path, seed: int = 0) -> Path:
        """Writes it."""
        sizes: dict[str, object] = {"num_attention_heads": self.heads, **self.config}
        make_tiny_model(
            folder, pooling=self.pooling, normalize=self.normalize, prompts=self.prompts, seed=seed, hidden=self.hidden, **sizes
        )
        liven(folder / "model.safetensors", seed, dtype=self.dtype, prefix=self.prefix)
        return folder


# Head widths of 32 and 64 as models have them, and odd ones; widths that are no multiple of 16, 32 or 64.
FORMS = [
    Form("minilm", 96, 3, {"intermediate_size": 384}),
    Form("bge", 128, 2, {"num_hidden_layers": 1, "intermediate_size": 512}, pooling="cls", prompts={"query": "find the graph: "}),
    Form("e5", 64, 2, {"num_hidden_layers": 3}, prompts={"query": "query ", "passage": "document "}, dtype="F16"),
    Form("last", 64, 1, {"num_hidden_layers": 1}, pooling="last", normalize=False),
    Form("odd", 60, 5, {"intermediate_size": 76, "layer_norm_eps": 1e-5, "type_vocab_size": 1}, dtype="BF16"),
    Form("odder", 35, 7, {"intermediate_size": 33, "type_vocab_size": 3}, prefix="bert."),
    Form("one_head", 72, 1, {"intermediate_size": 200, "hidden_act": "gelu_python", "num_hidden_layers": 1}, normalize=False),
    Form("narrow_heads", 64, 16, {"intermediate_size": 80, "num_hidden_layers": 1}),
]
# What the engine does not compute.
OTHER_ACTIVATIONS = [
    Form(name, 32, 4, {"hidden_act": name, "num_hidden_layers": 1}) for name in ("gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu")
]


def liven(path: Path, seed: int, *, dtype: str = "F32", prefix: str = "") -> None:
    """Random weights of trained size: transformers' start (0.02) leaves attention uniform, GELU linear, norms and biases without effect."""
    rng = np.random.default_rng(seed)
    tensors: dict[str, np.ndarray] = {}
    for name, old in sorted(load_file(str(path)).items()):
        if name.endswith("LayerNorm.weight"):
            values = 1.0 + 0.3 * rng.standard_normal(old.shape)
        elif name.endswith("bias"):
            values = 0.2 * rng.standard_normal(old.shape)
        elif ".self.query" in name or ".self.key" in name:
            values = rng.standard_normal(old.shape) * 1.5 / np.sqrt(old.shape[-1])
        else:
            values = rng.standard_normal(old.shape) / (np.sqrt(old.shape[-1]) if "layer" in name else 1.0)
        tensors[prefix + name] = values.astype(np.float32)
    save(path, tensors, dtype)


def save(path: Path, tensors: dict[str, np.ndarray], dtype: str = "F32") -> None:
    """Writes float32 arrays as this type of safetensors."""
    if dtype == "BF16":
        import torch
        from safetensors.torch import save_file as save_torch

        save_torch({name: torch.from_numpy(value).bfloat16() for name, value in tensors.items()}, str(path), metadata={"format": "pt"})
        return
    kind = {"F32": np.float32, "F16": np.float16, "F64": np.float64}[dtype]
    save_file({name: value.astype(kind) for name, value in tensors.items()}, str(path), metadata={"format": "pt"})


def some_ids(count: int, *, vocab: int, seed: int = 0, longest: int = 64) -> list[list[int]]:
    """Token ids of texts of 1 to ``longest`` tokens, the first of one and the second of all of them."""
    rng = np.random.default_rng(seed)
    lengths = [1, longest, *rng.integers(2, longest, count - 2)]
    return [rng.integers(0, vocab, int(length)).tolist() for length in lengths[:count]]
