"""Checks of model files before anything parses them for real: ONNX (protobuf wire format) and safetensors headers.

A model file is data from elsewhere. ONNX allows a tensor to live in another file named by a path, which has been a way out of the model's
folder more than once (CVE-2024-27318, CVE-2026-27489, CVE-2026-34445); a bundle never needs that, so any trace of it is refused. Only the
structure is walked: tensor contents are skipped by their length, so a 90 MB model of some hundred nodes takes milliseconds.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn, TypeGuard

from nearfield.errors import FormatError

# Protobuf's own limit on one message, and so on a single-file ONNX model.
MAX_MODEL_BYTES = (1 << 31) - 1
# Protobuf parsers refuse more than 100 nested messages; the deepest graph our exporter writes has five.
MAX_DEPTH = 64
# A 24-layer encoder has about 20,000 fields outside its tensors; the cap bounds the time on a hostile file to about a second.
MAX_FIELDS = 500_000
# The safetensors reference implementation's limit on a header.
MAX_HEADER_BYTES = 100_000_000
MAX_TENSORS = 100_000

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# For each ONNX message: field number -> the message it holds, for the fields that can lead to a tensor (onnx.proto3).
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_NODE_OP_TYPE = 4
_TENSOR_NAME, _TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION = 8, 13, 14
_MODEL_GRAPH = 7


class _OnnxWalker:
    """One bounded pass over the messages of an ONNX model."""

    def __init__(self, data: bytes, where: str) -> None:
        self.data, self.where, self.fields = data, where, 0

    def fail(self, position: int, reason: str) -> NoReturn:
        raise FormatError(f"{self.where}: not a usable ONNX model: {reason} (byte {position:,}); export it again")

    def varint(self, at: int, end: int) -> tuple[int, int]:
        """Returns the varint at ``at`` and the position behind it."""
        value = shift = 0
        start = at
        while True:
            if at >= end:
                self.fail(start, "it ends inside a number")
            byte = self.data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >> 64:
                    self.fail(start, "a number of more than 64 bits")
                return value, at
            shift += 7
            if shift > 63:
                self.fail(start, "a number of more than 10 bytes")

    def field(self, at: int, end: int) -> tuple[int, int, int, int, int]:
        """Reads one field; returns (number, wire type, value, content start, position behind it)."""
        self.fields += 1
        if self.fields > MAX_FIELDS:
            self.fail(at, f"more than {MAX_FIELDS:,} fields")
        start = at
        tag, at = self.varint(at, end)
        number, wire = tag >> 3, tag & 7
        if number == 0 or tag >> 32:
            self.fail(start, "an impossible field number")
        if wire == _VARINT:
            value, behind = self.varint(at, end)
            return number, wire, value, at, behind
        if wire == _BYTES:
            size, at = self.varint(at, end)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            self.fail(start, f"wire type {wire}, which ONNX does not use")
        if size > end - at:
            self.fail(start, f"field {number} of {size:,} bytes where {end - at:,} are left: truncated or damaged")
        return number, wire, 0, at, at + size

    def walk(self, message: str, at: int, end: int, depth: int) -> set[int]:
        """Walks one message and everything below it; returns the field numbers seen in it."""
        if depth > MAX_DEPTH:
            self.fail(at, f"graphs nested deeper than {MAX_DEPTH}")
        children = _CHILDREN[message]
        seen: set[int] = set()
        while at < end:
            start = at
            number, wire, value, content, at = self.field(at, end)
            seen.add(number)
            if number in children:
                if wire != _BYTES:
                    self.fail(start, f"field {number} of a {message} is not a message")
                self.walk(children[number], content, at, depth + 1)
            elif message == "tensor" and (
                number == _TENSOR_EXTERNAL_DATA or (number == _TENSOR_DATA_LOCATION and (wire != _VARINT or value))
            ):
                # Any value but 0: parsers truncate the number to 32 bits, so that 2^32 + 1 would read as EXTERNAL.
                self.fail(start, "it keeps tensors in another file (external data), which a bundle must not")
            elif message == "node" and number == _NODE_OP_TYPE and self.data[content:at] == b"EPContext":
                self.fail(start, "it refers to a compiled file (EPContext), which a bundle must not")
        return seen


def check_onnx(data: bytes, where: str) -> None:
    """Refuses an ONNX model that is malformed or that refers to any other file; runs no inference and needs no onnx package.

    Args:
        data: the whole file.
        where: how to name the file in an error.

    Raises:
        FormatError: malformed wire format, external data anywhere (initializers, attributes, subgraphs, functions), an onnxruntime
            flatbuffer model, more than 2 GiB, or bounds on nesting and fields exceeded.

    >>> check_onnx(b"\\x08\\x08", "model.onnx")
    Traceback (most recent call last):
    nearfield.errors.FormatError: model.onnx: not a usable ONNX model: no graph in it (byte 0); export it again
    """
    walker = _OnnxWalker(data, where)
    if len(data) > MAX_MODEL_BYTES:
        walker.fail(0, f"{len(data):,} bytes, at most {MAX_MODEL_BYTES:,} expected")
    if data[4:8] == b"ORTM":
        # onnxruntime recognizes its own flatbuffer format by these bytes, whatever the name says; nothing here checks that format.
        walker.fail(4, "it is in onnxruntime's own format")
    if _MODEL_GRAPH not in walker.walk("model", 0, len(data), 0):
        walker.fail(0, "no graph in it")


_DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
}  # fmt: skip


def load_json(data: bytes, where: str) -> Any:
    """Parses strict JSON: UTF-8, no duplicate keys, no NaN or infinity, bounded nesting; FormatError otherwise.

    >>> load_json(b'{"a": 1}', "x.json")
    {'a': 1}
    """
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise FormatError(f"{where}: not UTF-8 text (byte {error.start:,}); the file is damaged or of another kind") from None
    except json.JSONDecodeError as error:
        raise FormatError(f"{where}: not JSON: {error.msg} (line {error.lineno}, column {error.colno}); truncated or damaged") from None
    except RecursionError:
        raise FormatError(f"{where}: JSON nested too deeply") from None
    except ValueError as error:
        raise FormatError(f"{where}: not JSON that can be used: {error}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key is given twice")
    return table


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def check_safetensors(head: bytes, size: int, where: str) -> None:
    """Refuses a safetensors file whose header does not describe exactly the bytes behind it.

    Args:
        head: the file's first bytes, at least the 8-byte length and the header where the file has them (``safetensors_head_bytes``).
        size: the file's size in bytes.
        where: how to name the file in an error.

    Raises:
        FormatError: truncated, a header that is no JSON table of tensors, offsets that overlap, leave holes or leave the file.
    """
    length = safetensors_head_bytes(head, size, where) - 8
    table = load_json(head[8 : 8 + length], f"{where} (header)")
    if not isinstance(table, dict) or len(table) > MAX_TENSORS:
        raise FormatError(f"{where}: the header is not a table of at most {MAX_TENSORS:,} tensors; the file is damaged")
    spans = [_span(name, entry, where) for name, entry in table.items() if name != "__metadata__"]
    at = 0
    for begin, end, name in sorted(spans):
        if begin != at:
            raise FormatError(f"{where}: tensor {name!r:.80} starts at byte {begin:,}, {at:,} expected; the file is damaged")
        at = end
    if at != size - 8 - length:
        raise FormatError(f"{where}: {size - 8 - length:,} bytes of tensors, {at:,} expected by the header; truncated or damaged")


def safetensors_head_bytes(head: bytes, size: int, where: str) -> int:
    """Returns how many bytes length and header take together, from the file's first 8 bytes, or raises FormatError.

    >>> safetensors_head_bytes(b"\\x02" + bytes(7), 100, "x.safetensors")
    10
    """
    length = int.from_bytes(head[:8], "little")
    if len(head) < 8 or not 2 <= length <= min(size - 8, MAX_HEADER_BYTES):
        raise FormatError(f"{where}: a header of {length:,} bytes in a safetensors file of {size:,}; truncated or damaged")
    return length + 8


def _span(name: str, entry: object, where: str) -> tuple[int, int, str]:
    """Returns (begin, end, name) of one tensor whose offsets agree with its dtype and shape."""
    fields: dict[str, Any] = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
    if isinstance(dtype, str) and dtype in _DTYPE_BITS and _is_counts(shape) and _is_counts(offsets) and len(offsets) == 2:
        bits = _DTYPE_BITS[dtype]
        for extent in shape:
            bits = min(bits * extent, 1 << 64)  # capped: a hostile shape must not make a number of millions of digits
        if (offsets[1] - offsets[0]) * 8 == bits:
            return offsets[0], offsets[1], name
    raise FormatError(
        f"{where}: the header entry of tensor {name!r:.80} is not one of dtype, shape and matching offsets; the file is damaged"
    )


def _is_counts(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(v) is int and 0 <= v < 1 << 62 for v in value)
