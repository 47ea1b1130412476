"""An int8 graph from an fp32 one, by one of four methods; docs/quantization.md has the table by which the default was chosen.

Norms, softmax, attention's own two products, pooling and normalization stay in float32 under every method.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from nearfield.config import Int8Method
from nearfield.export.onnx_graph import quiet

# Bits of a weight where u8 x s8 products are taken, see int8_products.
WEIGHT_BITS = 7
# Matrix products, plain and inside fused attention.
PRODUCTS = ("MatMul", "Attention")
# Token embeddings as 8-bit codes: two thirds of the file's saving, and a lookup that needs no arithmetic.
EMBEDDINGS = ("EmbedLayerNormalization", "Gather")
# Method -> what the manifest says about it.
SETTINGS: Mapping[Int8Method, Mapping[str, str]] = {
    "rows": {"weights": "int8, per column, 7 bits", "activations": "uint8, scale and offset per row, at run time"},
    "dynamic": {"weights": "int8, per column, 7 bits (reduce_range)", "activations": "uint8, one scale per tensor, at run time"},
    "static": {"weights": "int8, per column, 7 bits", "activations": "uint8, one scale per tensor, calibrated"},
    "nbits": {"weights": "8 bits, per column and block of 32", "activations": "int8, per row and block of 32, at run time"},
}

Ranges = Mapping[str, tuple[float, float]]


def quantize(
    source: Path, target: Path, method: Int8Method, *, keep: Collection[str] = (), ranges: Ranges | None = None, bits: int = WEIGHT_BITS
) -> Path:
    """Writes the int8 form of a graph.

    Args:
        source: the fp32 graph, fused or plain.
        target: the file to write.
        method: ``"rows"``, ``"dynamic"``, ``"static"`` or ``"nbits"``.
        keep: names of products (``nearfield.export.products.products``) that stay in float32.
        ranges: for ``"static"``: the calibrated range of each product's source (``nearfield.export.calibrate``).
        bits: of a weight, 7 or 8; ``"nbits"`` always has 8.

    Returns:
        ``target``.
    """
    if method == "dynamic":
        return _dynamic(source, target, list(PRODUCTS), keep=keep, bits=bits)
    import onnx

    from nearfield.export.int8_products import n_bits, per_row, static
    from nearfield.export.products import rewrite

    if method == "static" and ranges is None:
        raise ValueError("method 'static' needs the calibrated ranges")
    write = {"rows": per_row(bits), "static": static(bits, ranges or {}), "nbits": n_bits}[method]
    onnx.save_model(rewrite(onnx.load_model(str(source)), write, keep=keep), str(target))
    return target


def quantize_embeddings(source: Path, target: Path) -> Path:
    """Writes the graph with 8-bit embedding tables, one scale per table, and everything else as it was."""
    return _dynamic(source, target, list(EMBEDDINGS), keep=(), bits=WEIGHT_BITS)


def _dynamic(source: Path, target: Path, operators: list[str], *, keep: Collection[str], bits: int) -> Path:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # Only products with constant weights: attention's own two products have none. onnx's shape inference stops at fused
    # operators, and every tensor it cannot type is float32.
    extra: dict[str, Any] = {"MatMulConstBOnly": True, "DefaultTensorType": onnx.TensorProto.FLOAT}
    with quiet():
        quantize_dynamic(
            str(source), str(target), op_types_to_quantize=operators, nodes_to_exclude=list(keep), per_channel=True,
            reduce_range=bits < 8, weight_type=QuantType.QInt8, extra_options=extra,
        )  # fmt: skip
    return target
