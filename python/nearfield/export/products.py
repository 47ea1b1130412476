"""The matrix products of a graph that int8 can take over: which there are, and writing the graph anew with others in their place."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nearfield.types import FloatArray

MICROSOFT = "com.microsoft"
# What Attention and MultiHeadAttention both know; a node with anything else is left as it is.
_SHARED_ATTRIBUTES = {"num_heads", "mask_filter_value", "scale", "unidirectional"}
# Input, weights of query, key and value side by side, their biases, mask.
_ATTENTION_INPUTS = 4
# From this opset on ReduceMin and ReduceMax take their axes as an input; until then as an attribute.
AXES_AS_INPUT = 18


@dataclass(frozen=True)
class Product:
    """One product of activations with constant weights.

    Attributes:
        name: of its node, as torch or the fusion named it; ``Attention_3`` is the projection to query, key and value of layer 3.
        source: the tensor that is multiplied.
        weight: the constant it is multiplied with, ``(inner, columns)``.
    """

    name: str
    source: str
    weight: str


# Writes ``target = source @ weight`` into a graph under way.
Writer = Callable[["Nodes", str, FloatArray, str], None]


def products(model: Any) -> list[Product]:
    """The products of a graph in the order in which they run; nodes without a name get one."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found = []
    for number, node in enumerate(model.graph.node):
        plain = node.op_type == "MatMul" or _is_splittable(node)
        if plain and node.input[1] in constants and len(constants[node.input[1]].dims) == 2:
            node.name = node.name or f"{node.op_type}_{number}"
            found.append(Product(node.name, node.input[0], node.input[1]))
    return found


def rewrite(model: Any, write: Writer, *, keep: Collection[str] = ()) -> Any:
    """Replaces the products of a graph, in place; attention is taken apart into its projection, which is replaced, and the rest.

    Args:
        model: an onnx ModelProto; our own graphs have opset 17, Optimum's 18 and more.
        write: writes one product; it may reuse what it wrote for an earlier product of the same source.
        keep: names of products that stay as they are.

    Returns:
        the model.
    """
    import onnx

    chosen = {product.name: product for product in products(model) if product.name not in keep}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = Nodes(next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), AXES_AS_INPUT))
    for node in model.graph.node:
        product = chosen.get(node.name)
        if product is None:
            nodes.list.append(node)
            continue
        weight = onnx.numpy_helper.to_array(weights[product.weight])
        if node.op_type == "MatMul":
            write(nodes, product.source, weight, node.output[0])
        else:
            write(nodes, product.source, weight, f"{node.name}/projected")
            _attend(nodes, node, weight.shape[1] // 3)
    used = {name for node in nodes.list for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes.list)
    model.graph.initializer.extend([*kept, *nodes.constants.values()])
    if MICROSOFT not in {entry.domain for entry in model.opset_import}:
        model.opset_import.append(onnx.helper.make_opsetid(MICROSOFT, 1))
    return model


class Nodes:
    """The nodes and constants of a graph under way.

    Args:
        opset: the version of ONNX's own operators that the graph asks for.
    """

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.list: list[Any] = []
        self.constants: dict[str, Any] = {}

    def constant(self, name: str, value: npt.NDArray[Any] | np.generic) -> str:
        """Adds a constant, once; returns its name."""
        import onnx

        if name not in self.constants:
            self.constants[name] = onnx.numpy_helper.from_array(np.asarray(value), name)
        return name

    def add(self, operator: str, inputs: list[str], output: str, *, domain: str = "", **attributes: Any) -> str:
        """Adds a node with one output; returns the output's name."""
        import onnx

        self.list.append(onnx.helper.make_node(operator, inputs, [output], name=f"{output}/{operator}", domain=domain, **attributes))
        return output

    def over_rows(self, operator: str, source: str, output: str) -> str:
        """Adds a reduction over the last axis, which stays with length 1; returns its name."""
        if self.opset < AXES_AS_INPUT:
            return self.add(operator, [source], output, axes=[-1], keepdims=1)
        return self.add(operator, [source, self.constant("int8/last", np.array([-1], np.int64))], output, keepdims=1)


def _is_splittable(node: Any) -> bool:
    inputs = [name for name in node.input if name]
    return node.op_type == "Attention" and len(inputs) == _ATTENTION_INPUTS and {a.name for a in node.attribute} <= _SHARED_ATTRIBUTES


def _attend(nodes: Nodes, node: Any, width: int) -> None:
    """The rest of an Attention node, from its projection on."""
    import onnx

    parts = [f"{node.name}/{part}" for part in ("query", "key", "value")]
    sizes = nodes.constant(f"int8/three_{width}", np.full(3, width, np.int64))
    nodes.list.append(onnx.helper.make_node("Split", [f"{node.name}/projected", sizes], parts, name=f"{node.name}/Split", axis=-1))
    rest = onnx.helper.make_node(
        "MultiHeadAttention", [*parts, node.input[2], node.input[3]], list(node.output), name=f"{node.name}/attend", domain=MICROSOFT
    )
    rest.attribute.extend(node.attribute)
    nodes.list.append(rest)
