"""Small valid bundles and model files, and a hostile tensor, for the tests of bundles."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from nearfield.bundle import Bundle
from nearfield.errors import FormatError
from nearfield.export.writer import BundleWriter


def small_onnx(**initializer: Any) -> Any:
    """A model y = x + w; ``initializer`` sets fields of the tensor w."""
    helper, proto = onnx.helper, onnx.TensorProto
    weight = helper.make_tensor("w", proto.FLOAT, [3], np.arange(3, dtype=np.float32).tobytes(), raw=True)
    for name, value in initializer.items():
        setattr(weight, name, value)
    ends = [[helper.make_tensor_value_info(name, proto.FLOAT, [None, 3])] for name in "xy"]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", *ends, [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def external_tensor() -> Any:
    tensor = onnx.helper.make_tensor("e", onnx.TensorProto.FLOAT, [1], [1.0])
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../secret"
    tensor.data_location = onnx.TensorProto.EXTERNAL
    return tensor


def small_safetensors() -> bytes:
    head = json.dumps({"__metadata__": {"a": "b"}, "t": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}).encode()
    return struct.pack("<Q", len(head)) + head + bytes(16)


FIELDS: dict[str, Any] = {
    "kind": "encoder", "fingerprint": "ab" * 32, "dim": 3, "max_tokens": 8, "pooling": "mean", "normalize": True,
    "prompts": {"query": "q: ", "document": ""}, "parity": {}, "metrics": None, "verdict": None,
}  # fmt: skip


def fill(folder: Path) -> None:
    (folder / "model" / "1_Pooling").mkdir(parents=True)
    (folder / "onnx").mkdir()
    (folder / "model" / "model.safetensors").write_bytes(small_safetensors())
    (folder / "model" / "1_Pooling" / "config.json").write_text("{}")
    (folder / "onnx" / "model.onnx").write_bytes(small_onnx().SerializeToString())
    np.savez(folder / "golden.npz", texts=np.array(["a", "bc"]), vectors=np.eye(2, 3, dtype=np.float32))
    (folder / "README.md").write_text("# model\n")


def write(out: Path, change: Callable[[Path], object] = lambda folder: None, **fields: Any) -> Bundle:
    """Writes a small bundle; ``change`` sees the temporary folder before it is finished."""
    with BundleWriter(out) as writer:
        fill(writer.folder)
        change(writer.folder)
        return writer.finish(FIELDS | fields)


def refusal_of(check: Callable[..., object], *args: object, **options: object) -> str | None:
    """The message of the FormatError that ``check`` raises, one line, or None where it raises nothing."""
    try:
        check(*args, **options)
    except FormatError as error:
        message = str(error)
        if "\n" in message:
            raise AssertionError(f"more than one line: {message!r}") from None
        return message
    return None
