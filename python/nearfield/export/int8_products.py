"""One matrix product in int8, three ways, as the operators that onnxruntime really runs.

Weights are signed, one scale per column. Where onnxruntime's u8 x s8 product does the work they have 7 bits: AVX2 adds two such products in
16 bits and saturates, which 255 * 127 * 2 exceeds and 255 * 63 * 2 does not. So one file gives the same integers on every CPU.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from nearfield.export.products import MICROSOFT, Nodes, Writer
from nearfield.types import FloatArray

# Steps between the least and the largest value of an unsigned 8-bit code.
STEPS = 255
# Weights and activations of MatMulNBits share a scale over this many inner places; onnxruntime takes 16 to 256. 32 gave the smaller error
# of 32 and 128 (cosine 0.9992 against 0.9978) for 5 % of the time.
BLOCK = 32
# MatMulNBits with this level quantizes activations to int8 as well, one scale per row and block.
INT8_ACTIVATIONS = 4


def weight_codes(weight: FloatArray, bits: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Symmetric codes of ``(inner, columns)`` and one scale per column; ``weight`` is about ``codes * scales``."""
    most = 2 ** (bits - 1) - 1
    scales = np.abs(weight).max(axis=0) / most
    scales = np.where(scales > 0, scales, 1).astype(np.float32)
    return np.rint(weight / scales).astype(np.int8), scales


def per_row(bits: int) -> Writer:
    """Activations quantized at run time with a scale and an offset for each row, that is each token.

    With x = low + step * code, x W = step * (code W) + low * (column sums of W): the first product in integers, the second of rank one.
    Every row stands alone, so a text's vector depends on nothing beside it. Products of one tensor share its codes.
    """

    def write(nodes: Nodes, source: str, weight: FloatArray, target: str) -> None:
        codes, scales = weight_codes(weight, bits)
        rows = _row_codes(nodes, source)
        sums = (codes.astype(np.float64).sum(axis=0) * scales).astype(np.float32)
        product = _integer_product(nodes, rows, codes, scales, f"{target}/int8/product")
        nodes.add("Mul", [product, f"{source}/int8/step"], f"{target}/int8/scaled")
        nodes.add("Mul", [f"{source}/int8/low", nodes.constant(f"{target}/int8/sums", sums)], f"{target}/int8/offset")
        nodes.add("Add", [f"{target}/int8/scaled", f"{target}/int8/offset"], target)

    return write


def _row_codes(nodes: Nodes, source: str) -> str:
    """Codes, step and low end of each row of a tensor, written once."""
    name = f"{source}/int8"
    if any(f"{name}/codes" in node.output for node in nodes.list):
        return f"{name}/codes"
    steps = nodes.constant("int8/steps", np.float32(STEPS))
    # A row of equal values has no width; the least normal float32 keeps the quotient finite and the codes zero.
    tiny = nodes.constant("int8/tiny", np.float32(STEPS * np.finfo(np.float32).tiny))
    low, high = nodes.over_rows("ReduceMin", source, f"{name}/low"), nodes.over_rows("ReduceMax", source, f"{name}/high")
    width = nodes.add("Max", [nodes.add("Sub", [high, low], f"{name}/range"), tiny], f"{name}/width")
    nodes.add("Div", [width, steps], f"{name}/step")
    inverse = nodes.add("Div", [steps, width], f"{name}/inverse")
    scaled = nodes.add("Mul", [nodes.add("Sub", [source, low], f"{name}/above"), inverse], f"{name}/scaled")
    one, zero = nodes.constant("int8/one", np.float32(1)), nodes.constant("int8/zero", np.uint8(0))
    return nodes.add("QuantizeLinear", [scaled, one, zero], f"{name}/codes")


def static(bits: int, ranges: Mapping[str, tuple[float, float]]) -> Writer:
    """Activations quantized with one scale and one zero point for each tensor, calibrated beforehand.

    What onnxruntime makes of a QDQ pair around the product, written directly, so that no pattern can miss.

    Args:
        ranges: tensor -> its least and largest value; values beyond are cut.
    """

    def write(nodes: Nodes, source: str, weight: FloatArray, target: str) -> None:
        low, high = min(0.0, ranges[source][0]), max(0.0, ranges[source][1])
        step = np.float32(max(high - low, STEPS * float(np.finfo(np.float32).tiny)) / STEPS)
        scale, zero = (
            nodes.constant(f"{source}/int8/step", step),
            nodes.constant(f"{source}/int8/zero", np.uint8(round(-low / float(step)))),
        )
        name = f"{source}/int8/codes"
        if not any(name in node.output for node in nodes.list):
            nodes.add("QuantizeLinear", [source, scale, zero], name)
        codes, scales = weight_codes(weight, bits)
        _integer_product(nodes, name, codes, scales, target, scale=scale, zero=zero)

    return write


def _integer_product(
    nodes: Nodes, rows: str, codes: npt.NDArray[np.int8], scales: npt.NDArray[np.float32], target: str, *, scale: str = "", zero: str = ""
) -> str:
    inputs = [
        rows,
        nodes.constant(f"{target}/int8/weight", codes),
        scale or nodes.constant("int8/one", np.float32(1)),
        nodes.constant(f"{target}/int8/scales", scales),
        zero or nodes.constant("int8/zero", np.uint8(0)),
        nodes.constant(f"{target}/int8/zeros", np.zeros(len(scales), np.int8)),
    ]
    return nodes.add("MatMulIntegerToFloat", inputs, target, domain=MICROSOFT)


def n_bits(nodes: Nodes, source: str, weight: FloatArray, target: str) -> None:
    """onnxruntime's MatMulNBits, 8 bits: scales per column and block of ``BLOCK`` inner places; activations per row and block."""
    inner, columns = weight.shape
    blocks = -(-inner // BLOCK)
    padded = np.zeros((columns, blocks * BLOCK), np.float32)
    padded[:, :inner] = weight.T
    parts = padded.reshape(columns, blocks, BLOCK)
    scales = np.abs(parts).max(axis=2) / 127
    scales = np.where(scales > 0, scales, 1).astype(np.float32)
    # Unsigned with the zero point 128, which is the operator's default.
    codes = (np.rint(parts / scales[..., None]) + 128).astype(np.uint8)
    inputs = [source, nodes.constant(f"{target}/int8/weight", codes), nodes.constant(f"{target}/int8/scales", scales.ravel())]
    nodes.add(
        "MatMulNBits", inputs, target, domain=MICROSOFT, K=inner, N=columns, bits=8, block_size=BLOCK, accuracy_level=INT8_ACTIVATIONS
    )  # fmt: skip
