"""The products of int8 graphs, one at a time: against loops in float64, whatever the rows beside, the operator set, the bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("onnx")

import onnx

from nearfield.config import Int8Method
from nearfield.export.int8_products import n_bits, per_row, static, weight_codes
from nearfield.export.onnx_graph import make_session
from nearfield.export.products import rewrite

METHODS: tuple[Int8Method, ...] = ("rows", "dynamic", "static", "nbits")


def one_product(weight: np.ndarray, write: Any, opset: int = 17) -> Callable[[np.ndarray], np.ndarray]:
    """A graph that is one product, rewritten and run by onnxruntime."""
    helper, proto = onnx.helper, onnx.TensorProto
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    ends = [[helper.make_tensor_value_info(name, proto.FLOAT, None)] for name in "xy"]
    graph = helper.make_graph([node], "g", *ends, [onnx.numpy_helper.from_array(weight, "w")])
    model = rewrite(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9), write)
    session = make_session(model.SerializeToString())
    return lambda x: np.asarray(session.run(None, {"x": x})[0])


def activations(rows: int, inner: int, seed: int = 0) -> np.ndarray:
    """Rows of very different sizes, shifted, one of equal values and one of zeros."""
    chance = np.random.default_rng(seed)
    x = chance.standard_normal((rows, inner)) * 10.0 ** chance.uniform(-3, 3, (rows, 1)) + chance.uniform(-2, 2, (rows, 1))
    x[0], x[1] = 0.0, 3.5
    return x.astype(np.float32)[None]


def codes_of(weight: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    most = 2 ** (bits - 1) - 1
    scale = np.array([max(abs(v) for v in column) / most or 1.0 for column in weight.astype(np.float64).T])
    return np.rint(weight / scale), scale


@pytest.mark.parametrize(("inner", "columns"), [(1, 1), (31, 7), (32, 32), (385, 65)])
def test_a_product_by_rows_is_that_of_float64_loops(inner: int, columns: int) -> None:
    weight = np.random.default_rng(1).standard_normal((inner, columns)).astype(np.float32)
    x = activations(9, inner)
    found = one_product(weight, per_row(7))(x)
    codes, scale = codes_of(weight, 7)
    for row, line in zip(x[0].astype(np.float64), found[0], strict=True):
        low, width = row.min(), max(row.max() - row.min(), 1e-30)
        rounded = low + np.rint((row - low) * 255 / width) * width / 255
        expected = rounded @ (codes * scale)
        # A value half-way between two codes may fall to either in float32: one step of one place.
        slack = width / 255 * np.abs(codes * scale).max() + 1e-5 * np.abs(row).max() * np.abs(weight).sum(axis=0).max()
        assert np.abs(line - expected).max() <= slack


def test_a_row_of_a_product_by_rows_does_not_see_the_others() -> None:
    weight = np.random.default_rng(2).standard_normal((384, 96)).astype(np.float32)
    product = one_product(weight, per_row(7))
    x = activations(33, 384)
    together = product(x)[0]
    for row in range(33):
        assert np.array_equal(product(x[:, row : row + 1])[0, 0], together[row])


@pytest.mark.parametrize("opset", [18, 19, 21])
@pytest.mark.parametrize("write", [per_row(7), n_bits, static(7, {"x": (-4.0, 4.0)})], ids=["rows", "nbits", "static"])
def test_later_operator_sets_give_the_same_bits(write: Any, opset: int) -> None:
    """Optimum's graphs ask for opset 18 or more, where reductions take their axes in another way than in our own graphs."""
    weight = np.random.default_rng(3).standard_normal((64, 24)).astype(np.float32)
    x = activations(7, 64)
    assert np.array_equal(one_product(weight, write, opset)(x), one_product(weight, write)(x))


@pytest.mark.parametrize("inner", [2, 64, 1536])
def test_seven_bits_never_saturate(inner: int) -> None:
    """The largest codes on both sides: AVX2 adds two products in 16 bits, and 255 * 63 * 2 is the most that 7 bits can give."""
    weight = np.full((inner, 2), 1.0, np.float32) * np.array([1.0, -1.0], np.float32)
    assert np.abs(weight_codes(weight, 7)[0].astype(int)).max() == 63
    # All codes are 255 but one, which holds the row's low end at 0.
    x = np.ones((1, 1, inner), np.float32)
    x[0, 0, 0] = 0
    assert one_product(weight, per_row(7))(x)[0, 0] == pytest.approx([inner - 1, 1 - inner], rel=1e-6)


def test_a_static_product_is_that_of_float64_loops() -> None:
    weight = np.random.default_rng(3).standard_normal((48, 10)).astype(np.float32)
    x = np.random.default_rng(4).standard_normal((1, 20, 48)).astype(np.float32)
    low, high = -1.5, 2.5
    found = one_product(weight, static(7, {"x": (low, high)}))(x)
    step = (high - low) / 255
    zero = round(-low / step)
    codes, scale = codes_of(weight, 7)
    rounded = (np.clip(np.rint(x[0].astype(np.float64) / step) + zero, 0, 255) - zero) * step
    assert np.abs(found[0] - rounded @ (codes * scale)).max() <= step * np.abs(codes * scale).max() + 1e-5
    assert np.abs(found[0] - x[0] @ weight).max() > 0.1, "values beyond the range are cut"


@pytest.mark.parametrize("inner", [32, 40, 384])
def test_an_n_bits_product_is_that_of_float64_loops(inner: int) -> None:
    weight = np.random.default_rng(5).standard_normal((inner, 12)).astype(np.float32)
    x = activations(9, inner, seed=6)
    found = one_product(weight, n_bits)(x)[0]
    expected = np.zeros((9, 12))
    for start in range(0, inner, 32):
        block, part = x[0, :, start : start + 32].astype(np.float64), weight[start : start + 32].astype(np.float64)
        for row in range(9):
            step = max(np.abs(block[row]).max() / 127, 1e-30)
            for column in range(12):
                scale = np.abs(part[:, column]).max() / 127
                expected[row, column] += (np.rint(block[row] / step) * step) @ (np.rint(part[:, column] / scale) * scale)
    assert np.abs(found - expected).max(axis=1) == pytest.approx(0, abs=float(np.abs(x).max()) * 1e-3)
