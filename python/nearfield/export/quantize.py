"""An int8 graph from an fp32 one: onnxruntime's dynamic quantization, weights signed and per channel.

Measured on an AVX2 machine without VNNI, all-MiniLM-L6-v2, 120 texts (60 questions, 60 medical articles), batches of 8, cosine to fp32:

    weights                      mean      min
    per channel, 7 bits          0.9937    0.9897     (chosen)
    per channel, 8 bits          0.9933    0.9859
    per tensor,  8 bits          0.956     0.902
    per tensor,  7 bits          0.845     0.698

AVX2 adds two u8 x s8 products in 16 bits and saturates; 7-bit weights (``reduce_range``) cannot reach that limit, so one file gives the
same integers on every CPU. With one scale per channel the lost bit costs nothing that can be measured.
"""

from __future__ import annotations

from pathlib import Path

from nearfield.export.onnx_graph import quiet

# Matrix products, plain and inside fused attention. Everything else (norms, softmax, pooling) stays in float32.
PRODUCTS = ("MatMul", "Attention")
# Token embeddings as 8-bit codes: a third of the file, and a lookup that needs no arithmetic.
EMBEDDINGS = ("EmbedLayerNormalization", "Gather")
SETTINGS = {"weights": "int8, per channel, 7 bits (reduce_range)", "activations": "uint8, one scale per tensor, at run time"}


def quantize(source: Path, target: Path, *, embeddings: bool) -> Path:
    """Writes the int8 form of an fp32 graph.

    Args:
        source: the fp32 graph, fused or plain.
        target: the file to write.
        embeddings: also quantize the embedding tables (one scale per table).
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quiet():
        quantize_dynamic(
            str(source), str(target), op_types_to_quantize=[*PRODUCTS, *(EMBEDDINGS if embeddings else ())], per_channel=True,
            reduce_range=True, weight_type=QuantType.QInt8,
            # Only products with constant weights: attention's own two products have none. onnx's shape inference stops at fused
            # operators, and every tensor it cannot type is float32.
            extra_options={"MatMulConstBOnly": True, "DefaultTensorType": onnx.TensorProto.FLOAT},
        )  # fmt: skip
    return target
