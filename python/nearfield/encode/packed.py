"""A BERT over the tokens of many texts laid end to end: no padding, every product sees all tokens of the batch.

Importing this file imports torch; nothing on the serving path without torch does. docs/cuda-encoder.md says why it looks like this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from nearfield.encode.packed_steps import TorchSteps
from nearfield.encode.shape import Shape
from nearfield.encode.spec import ModelSpec
from nearfield.types import FloatArray, IntArray

Int32Array = npt.NDArray[np.int32]
Norm = tuple[torch.Tensor, torch.Tensor]
Linear = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Packed:
    """Texts laid end to end, on the device that computes.

    Attributes:
        ids: int32 ``(tokens,)``.
        first, last: int32 ``(tokens,)``: where the text of each token begins, and where it ends (one behind its last token).
        bounds: int32 ``(texts + 1,)``: text i has the tokens from ``bounds[i]`` to ``bounds[i + 1]``; one without any has the zero vector.
        longest: tokens of the longest text, known without asking the device.
    """

    ids: torch.Tensor
    first: torch.Tensor
    last: torch.Tensor
    bounds: torch.Tensor
    longest: int


class Steps(Protocol):
    """What is computed between the products.

    ``pads``: attention pads texts to the longest of their batch, and knows no tokens outside of all texts.
    """

    name: str
    pads: bool

    def embed(self, batch: Packed, tables: tuple[torch.Tensor, ...], norm: Norm, eps: float) -> torch.Tensor:
        """Word, position and type rows added and normalized: ``(tokens, width)``."""

    def attention(self, qkv: torch.Tensor, batch: Packed, heads: int) -> torch.Tensor:
        """Each token's mixture of the values of its own text: ``(tokens, 3 width)`` to ``(tokens, width)``."""

    def add_norm(self, x: torch.Tensor, y: torch.Tensor, norm: Norm, eps: float) -> torch.Tensor:
        """LayerNorm of x + y."""

    def pool(self, x: torch.Tensor, batch: Packed, spec: ModelSpec) -> torch.Tensor:
        """A float32 row for each text (float64 from float64)."""


@dataclass(frozen=True, slots=True)
class _Layer:
    qkv: Linear
    out: Linear
    attention_norm: Norm
    up: Linear
    down: Linear
    norm: Norm


class PackedBert:
    """The weights of a BERT on one device in one type, and the way from packed token ids to vectors.

    Args:
        shape: its architecture.
        weights: as ``nearfield.encode.weights.read_weights`` gives them.
        spec: pooling and normalization.
        device: where it computes.
        dtype: of weights and of what lies between the layers; sums, norms and softmax are float32, or float64 where this is.
        steps: see ``Steps``; default torch's own operations, which run on any device.
    """

    def __init__(
        self,
        shape: Shape,
        weights: Mapping[str, FloatArray],
        spec: ModelSpec,
        device: torch.device,
        dtype: torch.dtype,
        steps: Steps | None = None,
    ) -> None:
        self.shape, self.spec, self.device, self.dtype = shape, spec, device, dtype
        self.steps: Steps = steps if steps is not None else TorchSteps()
        self._weights = weights
        tables = [self._take(f"embeddings.{name}_embeddings.weight") for name in ("word", "position")]
        self._tables = (*tables, self._take("embeddings.token_type_embeddings.weight")[0].contiguous())
        self._norm = self._pair("embeddings.LayerNorm")
        self._layers = [self._layer(f"encoder.layer.{i}") for i in range(shape.layers)]
        self._weights = {}

    def _take(self, *names: str) -> torch.Tensor:
        values = self._weights[names[0]] if len(names) == 1 else np.concatenate([self._weights[name] for name in names])
        return torch.from_numpy(values).to(self.device, self.dtype)

    def _pair(self, *names: str) -> tuple[torch.Tensor, torch.Tensor]:
        return self._take(*(f"{name}.weight" for name in names)), self._take(*(f"{name}.bias" for name in names))

    def _layer(self, name: str) -> _Layer:
        return _Layer(
            qkv=self._pair(*(f"{name}.attention.self.{part}" for part in ("query", "key", "value"))),
            out=self._pair(f"{name}.attention.output.dense"),
            attention_norm=self._pair(f"{name}.attention.output.LayerNorm"),
            up=self._pair(f"{name}.intermediate.dense"),
            down=self._pair(f"{name}.output.dense"),
            norm=self._pair(f"{name}.output.LayerNorm"),
        )

    def __call__(self, batch: Packed) -> torch.Tensor:
        """Vectors ``(texts, width)``, float32 (float64 for a float64 model), on the device."""
        steps, eps = self.steps, self.shape.eps
        x = steps.embed(batch, self._tables, self._norm, eps)
        for layer in self._layers:
            context = steps.attention(functional.linear(x, *layer.qkv), batch, self.shape.heads)
            x = steps.add_norm(x, functional.linear(context, *layer.out), layer.attention_norm, eps)
            inner = _activated(functional.linear(x, *layer.up), self.shape.activation)
            x = steps.add_norm(x, functional.linear(inner, *layer.down), layer.norm, eps)
        return steps.pool(x, batch, self.spec)


def _activated(x: torch.Tensor, activation: str) -> torch.Tensor:
    """In place: at four times the width this is the largest tensor of a layer."""
    if activation == "relu":
        return x.relu_()
    gelu: Any = torch.ops.aten.gelu_
    out: torch.Tensor = gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")
    return out


def lay_out(ids: Int32Array, offsets: IntArray, tokens: int, texts: int, into: Int32Array) -> None:
    """Writes a batch as one int32 array ``[ids | first | last | bounds]`` of ``3 * tokens + texts + 1``, filled up to these sizes.

    Tokens that no text has stand alone: each attends to itself and costs what any token does, and no vector depends on it.

    Args:
        ids: int32, the texts' tokens one behind the other; at most ``tokens``.
        offsets: ``(n + 1,)`` from 0 to ``len(ids)``; n is at most ``texts``.
        into: written.

    >>> out = np.zeros(3 * 4 + 3 + 1, np.int32)
    >>> lay_out(np.array([5, 6, 7]), np.array([0, 2, 3]), 4, 3, out)
    >>> out.tolist()
    [5, 6, 7, 0, 0, 0, 2, 3, 2, 2, 3, 4, 0, 2, 3, 3]
    """
    used, count = len(ids), len(offsets) - 1
    first, last, bounds = into[tokens : 2 * tokens], into[2 * tokens : 3 * tokens], into[3 * tokens : 3 * tokens + texts + 1]
    lengths = np.diff(offsets)
    into[:used] = ids
    into[used:tokens] = 0
    first[:used] = np.repeat(offsets[:-1], lengths)
    last[:used] = np.repeat(offsets[1:], lengths)
    first[used:] = np.arange(used, tokens)
    last[used:] = np.arange(used + 1, tokens + 1)
    bounds[: count + 1] = offsets
    bounds[count + 1 :] = offsets[-1]


def views(laid: torch.Tensor, tokens: int, texts: int, longest: int) -> Packed:
    """What ``lay_out`` wrote, as a batch over the same memory."""
    ids, first, last = laid[: 3 * tokens].view(3, tokens)
    return Packed(ids, first, last, laid[3 * tokens : 3 * tokens + texts + 1], longest)
