"""The tensors of a BERT, checked against its shape and read as float32."""

from __future__ import annotations

from nearfield.encode.checkpoint import FLOATS, Checkpoint
from nearfield.encode.shape import Shape, UnsupportedModelError
from nearfield.errors import FormatError
from nearfield.types import FloatArray

# What stands before the names where a BERT was saved as a part of a model with a head.
_PREFIXES = ("", "bert.")
_ANCHOR = "embeddings.word_embeddings.weight"
# Checkpoints converted from the first TensorFlow releases name the two vectors of a layer normalization so.
_OLD_NAMES = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}


def expected_tensors(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Every tensor that takes part in a text's vector, by transformers' name without prefix, with its extents.

    Matrices are ``(columns out, columns in)``. The head over the first token (``pooler``) and integer buffers take no part.

    >>> small = Shape(1, 4, 2, 8, 10, 6, 2, "gelu", 1e-12)
    >>> expected_tensors(small)["encoder.layer.0.intermediate.dense.weight"]
    (8, 4)
    """
    width, ffn = shape.width, shape.ffn
    wanted: dict[str, tuple[int, ...]] = {
        _ANCHOR: (shape.vocab, width),
        "embeddings.position_embeddings.weight": (shape.positions, width),
        "embeddings.token_type_embeddings.weight": (shape.types, width),
    }
    vectors = {"embeddings.LayerNorm": width}
    for layer in (f"encoder.layer.{number}" for number in range(shape.layers)):
        attention = [f"{layer}.attention.{part}" for part in ("self.query", "self.key", "self.value", "output.dense")]
        products = dict.fromkeys(attention, (width, width))
        products |= {f"{layer}.intermediate.dense": (ffn, width), f"{layer}.output.dense": (width, ffn)}
        for name, extents in products.items():
            wanted[f"{name}.weight"], wanted[f"{name}.bias"] = extents, (extents[0],)
        vectors |= {f"{layer}.attention.output.LayerNorm": width, f"{layer}.output.LayerNorm": width}
    for name, columns in vectors.items():
        wanted[f"{name}.weight"] = wanted[f"{name}.bias"] = (columns,)
    return wanted


def find_weights(checkpoint: Checkpoint, shape: Shape) -> dict[str, str]:
    """Where the tensors of ``expected_tensors`` are: their names there -> their names in the checkpoint.

    Raises:
        FormatError: a tensor that is missing, one beyond the last layer, or one whose extents disagree with ``config.json``.
        UnsupportedModelError: names that are not BERT's, or 8-bit weights.
    """
    entries, folder = checkpoint.entries, checkpoint.folder
    prefix = next((prefix for prefix in _PREFIXES if prefix + _ANCHOR in entries), None)
    if prefix is None:
        raise UnsupportedModelError(f"{folder}: the weights have no tensor {_ANCHOR}; the native encoder knows BERT by transformers' names")
    found = {}
    for name, extents in expected_tensors(shape).items():
        source = _present(checkpoint, prefix + name)
        entry = entries[source]
        if entry.shape != extents:
            raise FormatError(
                f"{folder}: tensor {source} is {_by(entry.shape)}, {_by(extents)} expected by config.json; the folder mixes two models"
            )
        if entry.dtype not in FLOATS:
            raise UnsupportedModelError(f"{folder}: tensor {source} is of type {entry.dtype}; the native encoder reads {', '.join(FLOATS)}")
        found[name] = source
    beyond = f"{prefix}encoder.layer.{shape.layers}."
    if more := next((name for name in entries if name.startswith(beyond)), None):
        raise FormatError(f"{folder}: tensor {more} lies beyond the {shape.layers} layers of config.json; the folder mixes two models")
    return found


def read_weights(checkpoint: Checkpoint, shape: Shape) -> dict[str, FloatArray]:
    """The tensors of ``expected_tensors``, float32 and C-contiguous: 4 bytes for each parameter of the model.

    Raises:
        FormatError: as ``find_weights``, or a tensor with NaN or infinity.
        UnsupportedModelError: as ``find_weights``.
    """
    return {name: checkpoint.read(source) for name, source in find_weights(checkpoint, shape).items()}


def _present(checkpoint: Checkpoint, name: str) -> str:
    """The name itself, or the older one of the same tensor."""
    if name in checkpoint.entries:
        return name
    for new, old in _OLD_NAMES.items():
        older = name.removesuffix(new) + old
        if name.endswith(new) and older in checkpoint.entries:
            return older
    raise FormatError(f"{checkpoint.folder}: the weights have no tensor {name}, which config.json asks for; the folder mixes two models")


def _by(extents: tuple[int, ...]) -> str:
    return " x ".join(f"{extent:,}" for extent in extents) or "a single number"
