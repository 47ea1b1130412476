"""The walks over ONNX and safetensors structure: hostile files made on purpose and at random, with onnx's own parser as the oracle."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearfield import modelfiles
from nearfield.errors import FormatError
from nearfield.modelfiles import check_onnx, check_safetensors

pytest.importorskip("onnx")

import onnx

from bundles import external_tensor, refusal_of, small_onnx


def hide_in_initializer(model: Any) -> None:
    model.graph.initializer.append(external_tensor())


def hide_in_attribute(model: Any) -> None:
    model.graph.node.append(onnx.helper.make_node("Constant", [], ["c"], value=external_tensor()))


def hide_in_tensors(model: Any) -> None:
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("many", [external_tensor()]))


def hide_in_subgraph(model: Any) -> None:
    inner = onnx.helper.make_graph([], "inner", [], [], [external_tensor()])
    middle = onnx.helper.make_graph([onnx.helper.make_node("If", ["x"], ["z"], then_branch=inner, else_branch=inner)], "middle", [], [])
    model.graph.node.append(onnx.helper.make_node("Loop", ["x"], ["z"], body=middle))


def hide_in_graphs(model: Any) -> None:
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("many", [onnx.helper.make_graph([], "i", [], [], [external_tensor()])]))


def hide_in_function(model: Any) -> None:
    node = onnx.helper.make_node("Constant", [], ["c"], value=external_tensor())
    model.functions.append(onnx.helper.make_function("d", "f", [], ["c"], [node], [onnx.helper.make_opsetid("", 17)]))


def hide_in_function_default(model: Any) -> None:
    function = onnx.helper.make_function("d", "f", [], [], [], [onnx.helper.make_opsetid("", 17)])
    function.attribute_proto.append(onnx.helper.make_attribute("t", external_tensor()))
    model.functions.append(function)


def hide_in_sparse(model: Any) -> None:
    model.graph.sparse_initializer.add().values.CopyFrom(external_tensor())


def hide_in_sparse_indices(model: Any) -> None:
    model.graph.node[0].attribute.add(name="s", type=11).sparse_tensor.indices.CopyFrom(external_tensor())


def hide_in_training(model: Any) -> None:
    model.training_info.add().initialization.initializer.append(external_tensor())


HIDING = [value for name, value in sorted(globals().items()) if name.startswith("hide_in_")]


@pytest.mark.parametrize("hide", HIDING, ids=lambda hide: hide.__name__)
@pytest.mark.parametrize("part", ["both", "location", "entries"])
def test_external_data_is_found_wherever_it_hides(hide: Callable[[Any], None], part: str) -> None:
    model = small_onnx()
    check_onnx(model.SerializeToString(), "m")
    hide(model)
    data = model.SerializeToString()
    entry = onnx.StringStringEntryProto(key="location", value="../../secret").SerializeToString()
    listed, located = b"\x6a" + bytes([len(entry)]) + entry, b"\x70\x01"
    assert data.count(listed) == data.count(located) > 0
    # Same length, other field numbers: 16 is metadata_props, 2 data_type.
    if part == "location":
        data = data.replace(listed, listed.replace(b"\x6a", b"\x42", 1))
    elif part == "entries":
        data = data.replace(located, b"\x10\x01")
    with pytest.raises(FormatError, match="external data"):
        check_onnx(data, "m")


def wrap(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int, *, padded: int = 0) -> bytes:
    out = []
    while value >= 0x80 or padded > len(out) + 1:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def model_with_tensor(fields: bytes) -> bytes:
    return wrap(7, wrap(5, fields))


def test_the_wire_tricks() -> None:
    check_onnx(model_with_tensor(varint(14 << 3) + varint(0)), "m")
    for tensor in (
        varint(14 << 3) + varint((1 << 32) + 1),  # parsers keep the low 32 bits
        varint(14 << 3, padded=4) + varint(1, padded=9),  # overlong numbers are legal
        varint(14 << 3) + varint(0) + varint(14 << 3) + varint(1),  # the last one counts
        varint(14 << 3 | 2) + varint(1) + b"\x01",
        wrap(13, b""),
    ):
        with pytest.raises(FormatError, match="external data"):
            check_onnx(model_with_tensor(tensor), "m")
    for data, says in (
        (b"", "no graph"),
        (b"\x3a", "ends inside a number"),
        (b"\x3a\x05\x0a", "truncated"),
        (varint(0), "impossible field number"),
        (varint(1 << 35 | 14 << 3), "impossible field number"),
        (b"\x08" + b"\xff" * 11, "more than 10 bytes"),
        (b"\x08" + b"\xff" * 9 + b"\x7f", "more than 64 bits"),
        (b"\x3b\x3c", "wire type 3"),
        (b"\x38\x01", "not a message"),
        (wrap(7, wrap(1, wrap(4, b"EPContext"))), "EPContext"),
        (b"\x0a\x02\x01\x01ORTM" + small_onnx().SerializeToString(), "onnxruntime's own format"),
    ):
        with pytest.raises(FormatError, match=says):
            check_onnx(data, "m")


def test_nesting_and_size_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b""
    for _ in range(200):
        data = wrap(1, wrap(5, wrap(6, data)))
    with pytest.raises(FormatError, match="nested deeper"):
        check_onnx(wrap(7, data), "m")
    monkeypatch.setattr(modelfiles, "MAX_FIELDS", 1_000)
    assert "no graph" in str(refusal_of(check_onnx, b"\x08\x00" * 1_000, "m"))
    assert "more than 1,000 fields" in str(refusal_of(check_onnx, b"\x08\x00" * 1_001, "m"))


def test_mutated_onnx_passes_or_is_refused() -> None:
    chance = random.Random(2)
    model = small_onnx()
    for hide in HIDING[:3]:
        clean = small_onnx()
        hide(clean)
        model.graph.node.extend(clean.graph.node)
    whole = small_onnx().SerializeToString(), model.SerializeToString()
    refused = 0
    for i in range(10_000):
        data = bytearray(whole[i % 2])
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(data))
            data[place : place + chance.choice([0, 1, 1, 9])] = chance.randbytes(chance.choice([0, 1, 1, 4]))
        refused += refusal_of(check_onnx, bytes(data), "m") is not None
    assert 1_000 < refused < 10_000


def test_what_the_walker_passes_has_no_external_data_for_onnx_either() -> None:
    """The oracle: onnx's own parser. Whatever it parses out of mutated bytes that we passed refers to no other file."""
    chance = random.Random(3)
    hidden = []
    for hide in HIDING:
        model = small_onnx()
        hide(model)
        hidden.append(model.SerializeToString())
    passed = 0
    for i in range(4_000):
        data = bytearray(hidden[i % len(hidden)])
        place = data.index(b"\x70\x01")
        data[place : place + 2] = b"\x10\x01"
        place = data.index(b"\x6a")
        data[place] = 0x42
        for _ in range(chance.randint(0, 2)):
            data[chance.randrange(len(data))] = chance.choice([0x6A, 0x70, 0x42, 0x01, chance.randrange(256)])
        if refusal_of(check_onnx, bytes(data), "m"):
            continue
        try:
            parsed = onnx.ModelProto.FromString(bytes(data))
        except Exception:
            continue
        passed += 1
        assert not any(t.data_location or t.external_data for t in all_tensors(parsed)), data.hex()
    assert passed > 100


def all_tensors(message: Any) -> list[Any]:
    """Every TensorProto anywhere in a parsed message, by reflection."""
    found = [message] if isinstance(message, onnx.TensorProto) else []
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None:
            for item in [value] if hasattr(value, "ListFields") else value:
                found.extend(all_tensors(item))
    return found


def head_of(header: object, data: bytes = b"", *, length: int | None = None) -> tuple[bytes, int]:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    whole = struct.pack("<Q", len(raw) if length is None else length) + raw + data
    return whole, len(whole)


def entry(dtype: object = "F32", shape: object = (1,), offsets: object = (0, 4)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("whole", "says"),
    [
        (head_of({"t": entry()}, bytes(3)), "truncated"),
        (head_of({"t": entry()}, bytes(5)), "truncated or damaged"),
        (head_of({"t": entry()}, length=1 << 62), "header of"),
        (head_of({"t": entry()}, length=1), "header of"),
        ((b"\x01\x00", 2), "header of"),
        (head_of([], b""), "not a table"),
        (head_of(b"{bad", b""), "not JSON"),
        (head_of(b'{"t": 1, "t": 2}', b""), "twice"),
        (head_of({"t": 3}, bytes(4)), "header entry"),
        (head_of({"t": entry("F33")}, bytes(4)), "header entry"),
        (head_of({"t": entry(["F32"])}, bytes(4)), "header entry"),
        (head_of({"t": entry(shape=[2])}, bytes(4)), "header entry"),
        (head_of({"t": entry(shape=[1 << 40] * 50)}, bytes(4)), "header entry"),
        (head_of({"t": entry(shape=[True])}, bytes(4)), "header entry"),
        (head_of({"t": entry(shape=[-1], offsets=[4, 0])}, bytes(4)), "header entry"),
        (head_of({"t": entry(), "u": entry()}, bytes(4)), "starts at byte"),
        (head_of({"t": entry(offsets=[4, 8])}, bytes(8)), "starts at byte"),
        (head_of({"t": entry(), "u": entry(offsets=[8, 12])}, bytes(12)), "starts at byte"),
    ],
)
def test_safetensors_that_lie(whole: tuple[bytes, int], says: str) -> None:
    with pytest.raises(FormatError, match=says) as caught:
        check_safetensors(*whole, "m")
    assert "\n" not in str(caught.value)


def test_safetensors_as_written_by_the_library(tmp_path: Path) -> None:
    numpy_io = pytest.importorskip("safetensors.numpy")
    arrays = {"a": np.zeros((2, 3), np.float32), "b": np.zeros(0, np.float16), "c": np.ones((), np.int64), "d": np.zeros(5, np.bool_)}
    data = numpy_io.save(arrays, metadata={"format": "pt"})
    check_safetensors(data, len(data), "m")
    chance, refused = random.Random(4), 0
    for _ in range(2_000):
        damaged = bytearray(data)
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        refused += refusal_of(check_safetensors, bytes(damaged), len(damaged), "m") is not None
    assert 500 < refused < 2_000
