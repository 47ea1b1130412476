"""What the native encoder has to know of a model's architecture, from ``config.json`` alone, and why it may not support it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nearfield.encode.spec import read_json
from nearfield.errors import FormatError, InputError

Activation = Literal["gelu", "gelu_tanh", "relu"]

# transformers' names. Its gelu_new, gelu_fast and gelu_pytorch_tanh are one function, written down in three ways.
_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu", "gelu_python": "gelu", "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}  # fmt: skip
# What a BertConfig is without these keys.
_DEFAULTS: dict[str, Any] = {
    "hidden_act": "gelu", "layer_norm_eps": 1e-12, "type_vocab_size": 2, "position_embedding_type": "absolute", "is_decoder": False,
    "add_cross_attention": False, "is_encoder_decoder": False,
}  # fmt: skip
# Far beyond any encoder (BERT-large: 24 layers, 1,024 columns, 4,096 between), so that no product of two of them overflows 64 bits.
_LIMITS = {
    "num_hidden_layers": 256, "hidden_size": 16_384, "num_attention_heads": 1_024, "intermediate_size": 65_536, "vocab_size": 1 << 24,
    "max_position_embeddings": 1 << 20, "type_vocab_size": 1_024,
}  # fmt: skip


class UnsupportedModelError(InputError):
    """A sound model that the native encoder does not compute; the message says why in one line. Other backends may well."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The architecture of a BERT.

    Attributes:
        layers: transformer layers, from 1.
        width: columns of a token's vector; a multiple of ``heads``.
        heads: attention heads.
        ffn: columns between the two products of the feed-forward part.
        vocab: rows of the word table; a token number lies below it.
        positions: rows of the position table; no text is longer.
        types: rows of the token type table; texts are of type 0.
        activation: ``"gelu"`` (by the error function), ``"gelu_tanh"`` (its approximation by a hyperbolic tangent) or ``"relu"``.
        eps: what layer normalization adds to the variance.
    """

    layers: int
    width: int
    heads: int
    ffn: int
    vocab: int
    positions: int
    types: int
    activation: Activation
    eps: float

    @property
    def head_dim(self) -> int:
        """Columns of one attention head."""
        return self.width // self.heads


def read_shape(folder: Path) -> Shape:
    """Reads ``config.json`` of a folder that holds weights.

    Raises:
        InputError: the file is missing.
        FormatError: not JSON, or a size that is no number, out of range or at odds with another.
        UnsupportedModelError: not a BERT with absolute positions and an activation that is known here.

    ``read_shape(resolve_model(None))`` of all-MiniLM-L6-v2 has 6 layers of 384 columns and 12 heads.
    """
    where = folder / "config.json"
    config = read_json(where)
    given = _DEFAULTS | {key: value for key, value in config.items() if value is not None}
    kind = given.get("model_type")
    if kind != "bert":
        raise UnsupportedModelError(f"{where}: model_type {kind!r:.40}; the native encoder computes 'bert'")
    for key in ("is_decoder", "add_cross_attention", "is_encoder_decoder"):
        if given[key] is not False:
            raise UnsupportedModelError(f"{where}: {key} is {given[key]!r:.40}; the native encoder computes encoders alone")
    if given["position_embedding_type"] != "absolute":
        raise UnsupportedModelError(
            f"{where}: position_embedding_type {given['position_embedding_type']!r:.40}; the native encoder computes 'absolute'"
        )
    activation = _ACTIVATIONS.get(given["hidden_act"]) if isinstance(given["hidden_act"], str) else None
    if activation is None:
        raise UnsupportedModelError(
            f"{where}: hidden_act {given['hidden_act']!r:.40}; the native encoder computes {', '.join(sorted(_ACTIVATIONS))}"
        )
    sizes = {key: _size(given.get(key), key, limit, where) for key, limit in _LIMITS.items()}
    if sizes["hidden_size"] % sizes["num_attention_heads"]:
        hidden, heads = sizes["hidden_size"], sizes["num_attention_heads"]
        raise FormatError(f"{where}: hidden_size {hidden} is no multiple of num_attention_heads {heads}; it is damaged")
    return Shape(
        sizes["num_hidden_layers"], sizes["hidden_size"], sizes["num_attention_heads"], sizes["intermediate_size"], sizes["vocab_size"],
        sizes["max_position_embeddings"], sizes["type_vocab_size"], activation, _eps(given["layer_norm_eps"], where),
    )  # fmt: skip


def _size(value: object, key: str, limit: int, where: Path) -> int:
    if type(value) is not int or not 1 <= value <= limit:
        raise FormatError(f"{where}: {key} is {value!r:.40}, a whole number from 1 to {limit:,} expected")
    return value


def _eps(value: object, where: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise FormatError(f"{where}: layer_norm_eps is {value!r:.40}, a number from 0 to 1 expected")
    return float(value)
