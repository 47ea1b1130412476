"""Damaged models by the thousand, through the native encoder: run as a program, so that whatever a file may do is done to another process.

    python tests/encoder_mutations.py FOLDER KIND FIRST COUNT

FOLDER holds a sound model (``model``) and room to work. A line of JSON is printed for each damage: seed, outcome ("fine", "refused" or
"wrong") and message. Neither torch nor onnxruntime is imported, so that it runs under a sanitizer's build of the engine.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mutations import TEXTS, damage
from nearfield import _core
from nearfield.encode.native_model import open_native_model
from nearfield.encode.spec import read_spec, weights_folder
from nearfield.encode.tokenize import TextTokenizer
from nearfield.errors import InputError

PRECISIONS = ("fp32", "bf16", "int8")
# More address space than any damaged file of 200 kB should ask for; sanitizers reserve terabytes of it.
MEMORY = 2 << 30


def damage_json(value: Any, chance: random.Random) -> Any:
    """One to three values of a parsed JSON replaced, removed, doubled or exchanged."""
    extremes = [
        0,
        1,
        -1,
        2,
        3,
        63,
        65,
        1 << 15,
        1 << 31,
        1 << 32,
        (1 << 63) - 1,
        1 << 63,
        10**40,
        0.5,
        -0.0,
        1e-320,
        1e308,
        True,
        None,
        "",
        "gelu",
        [],
        {},
    ]
    for _ in range(chance.randint(1, 3)):
        places: list[tuple[Any, Any]] = []
        waiting = [value]
        while waiting:
            holder = waiting.pop()
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            # A vocabulary of hundreds would hide everything else.
            for key in keys if len(keys) < 60 else chance.sample(keys, 4):
                places.append((holder, key))
                if isinstance(holder[key], (dict, list)):
                    waiting.append(holder[key])
        if not places:
            break
        (holder, key), (other, other_key) = chance.choice(places), chance.choice(places)
        kind = chance.randrange(6)
        if kind == 0:
            del holder[key]
        elif kind == 1:
            holder[key] = json.loads(json.dumps(other[other_key]))
        elif kind == 2 and isinstance(holder[key], (int, float)):
            holder[key] += chance.choice([-1, 1])
        elif kind == 3 and isinstance(holder, dict):
            holder[chance.choice([*holder, "x"])] = holder.pop(key)
        else:
            holder[key] = chance.choice(extremes)
    return value


def damaged_json(data: bytes, chance: random.Random) -> bytes:
    return json.dumps(damage_json(json.loads(data), chance)).encode()


def damaged_header(data: bytes, chance: random.Random) -> bytes:
    """A safetensors file whose header says something else, at its true length."""
    (length,) = struct.unpack_from("<Q", data)
    header = damaged_json(data[8 : 8 + length], chance)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def encode(folder: Path, precision: str, *, cache: bool = False) -> None:
    """From a folder to vectors, as a service would; wrong numbers of a damaged weight are fine, others than numbers are not."""
    os.environ["NEARFIELD_CACHE"] = str(folder.parent / "cache") if cache else "off"
    spec = read_spec(folder)
    tokenizer = TextTokenizer(weights_folder(folder) / "tokenizer.json", spec.max_tokens)
    model, _ = open_native_model(folder, spec, precision)
    run(model, tokenizer(TEXTS).ids)


def run(model: _core.EncoderModel, ids: list[list[int]]) -> None:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in ids])]).astype(np.int64)
    vectors = model.encode(np.array([token for row in ids for token in row], np.int32), offsets, threads=2)
    assert vectors.shape == (len(ids), model.shape["width"])


def of_file(name: str, structured: Callable[[bytes, random.Random], bytes]) -> Callable[[Path, random.Random], None]:
    def use(folder: Path, chance: random.Random) -> None:
        path = folder / "model" / name
        good = path.read_bytes()
        path.write_bytes((structured if chance.random() < 0.6 else damage)(good, chance))
        try:
            encode(folder / "model", chance.choice(PRECISIONS))
        finally:
            path.write_bytes(good)

    return use


def cache_file(folder: Path, chance: random.Random) -> None:
    """A damaged cache is never an error: the model is packed again."""
    precision = chance.choice(PRECISIONS)
    encode(folder / "model", precision, cache=True)
    for path in (folder / "cache").glob("*.packed"):
        path.write_bytes(damage(path.read_bytes(), chance))
    try:
        encode(folder / "model", precision, cache=True)
    except InputError as error:
        raise AssertionError(f"a damaged cache was reported: {error}") from None


def packed_bytes(folder: Path, chance: random.Random) -> None:
    """Bytes with a right checksum that no packing made: refused, or wrong numbers, and nothing worse."""
    os.environ["NEARFIELD_CACHE"] = "off"
    spec = read_spec(folder / "model")
    model, _ = open_native_model(folder / "model", spec, chance.choice(PRECISIONS))
    bad = bytearray(model.blob.tobytes())
    if chance.random() < 0.6:  # a field of the header
        place = chance.randrange(0, 256, 4)
        struct.pack_into("<I", bad, place, chance.choice([0, 1, 2, 3, 5, 64, 1 << 16, 1 << 31, (1 << 32) - 1, chance.randrange(1 << 32)]))
    else:
        bad = bytearray(damage(bytes(bad), chance))
    memory = np.empty(len(bad) + 64, np.uint8)
    start = -memory.ctypes.data % 64
    aligned = memory[start : start + len(bad)]
    aligned[:] = np.frombuffer(bytes(bad), np.uint8)
    opened = _core.EncoderModel.from_blob(aligned.data)
    run(opened, [[2, 5, 3], [2, 3], [2, *range(5, 45), 3]])


KINDS: dict[str, Callable[[Path, random.Random], None]] = {
    "safetensors": of_file("model.safetensors", damaged_header),
    "config": of_file("config.json", damaged_json),
    "tokenizer": of_file("tokenizer.json", damaged_json),
    "pooling": of_file("1_Pooling/config.json", damaged_json),
    "cache": cache_file,
    "packed": packed_bytes,
}


def outcome(kind: str, folder: Path, seed: int) -> dict[str, object]:
    try:
        KINDS[kind](folder, random.Random(f"{kind} {seed}"))
    except InputError as error:
        said = str(error)
        return {"seed": seed, "outcome": "wrong" if "\n" in said or not said else "refused", "message": said}
    except Exception as error:
        return {"seed": seed, "outcome": "wrong", "message": f"{type(error).__module__}.{type(error).__name__}: {error}"}
    return {"seed": seed, "outcome": "fine", "message": ""}


def main() -> None:
    import faulthandler

    faulthandler.enable()
    source, kind, first, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    folder = source / f"{kind}-{first}"
    folder.mkdir()
    shutil.copytree(source / "model", folder / "model")
    encode(folder / "model", "int8")
    if "ASAN_OPTIONS" not in os.environ:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY,) * 2)
    for seed in range(first, first + count):
        print(json.dumps(outcome(kind, folder, seed)), flush=True)


if __name__ == "__main__":
    main()
