"""Rows and files of any size: a bound on memory, and one line with file and row. Each case is read by a process of its own, whose
peak memory is measured; what it takes for an ordinary file is subtracted."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nearfield.data.rows import MAX_ROW_BYTES

if not Path("/proc/self/status").exists():
    pytest.skip("needs Linux, which tells a process its peak memory", allow_module_level=True)

MB = 1 << 20
# What reading may take beyond an ordinary file: a row of the largest size as bytes, as text and in pieces, with room to spare.
BOUND = 6 * MAX_ROW_BYTES
# JSON made to be large in memory: 25 bytes for each of the file.
WORST_JSON = 30 * MAX_ROW_BYTES

# Not ru_maxrss, which a process inherits from the one that started it.
PEAK = """
def peak():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
"""
READ = (
    PEAK
    + """
import json, sys
from nearfield.data.read import read
from nearfield.errors import InputError
try:
    data = read(sys.argv[1])
    said, rows = [f"{found.where}: {found.message}" for found in data.findings], len(data.doc_ids)
except InputError as error:
    said, rows = [str(error)], 0
print(json.dumps({"rows": rows, "said": said, "peak": peak()}))
"""
)


def read_apart(path: Path) -> tuple[int, list[str], int]:
    """Reads a file in a fresh process: (documents, findings or the refusal, peak memory in bytes)."""
    done = subprocess.run([sys.executable, "-c", READ, str(path)], capture_output=True, text=True, check=True, timeout=1700)
    found = json.loads(done.stdout)
    return found["rows"], found["said"], found["peak"]


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Peak memory for a file of two documents, by suffix."""
    folder = tmp_path_factory.mktemp("ordinary")
    return {suffix: read_apart(write(folder / f"two{suffix}", HEAD[suffix] + LINE[suffix] * 2))[2] for suffix in HEAD}


HEAD = {".jsonl": b"", ".csv": b"text\n", ".tsv": b"text\n"}
LINE = {".jsonl": b'{"text": "one"}\n', ".csv": b"one\n", ".tsv": b"one\n"}
BEFORE = {".jsonl": b'{"text": "', ".csv": b'"', ".tsv": b""}
AFTER = {".jsonl": b'"}\n', ".csv": b'"\n', ".tsv": b"\n"}


def write(path: Path, *parts: bytes | Iterator[bytes]) -> Path:
    with path.open("wb") as file:
        for part in parts:
            file.writelines([part] if isinstance(part, bytes) else part)
    return path


def long_text(size: int) -> Iterator[bytes]:
    block = b"a word and another " * (MB // 19)
    yield from (block for _ in range(size // len(block) + 1))


def check_long_row(path: Path, ordinary: int, size: int) -> None:
    """A row of ``size`` bytes between two good ones."""
    kind = path.suffix
    write(path, HEAD[kind], LINE[kind], BEFORE[kind], long_text(size), AFTER[kind], LINE[kind])
    rows, said, peak = read_apart(path)
    path.unlink()
    row = {".jsonl": ":2", ".csv": " row 3", ".tsv": ":3"}[kind]
    assert rows == 2
    assert said[0] == f"{path.name}{row}: a row of more than 16 MiB, left out: is a line end or a closing quote missing?"
    assert peak - ordinary < BOUND, f"{(peak - ordinary) >> 20} MiB"


@pytest.mark.parametrize("suffix", HEAD)
def test_a_row_just_beyond_the_limit(tmp_path: Path, ordinary: dict[str, int], suffix: str) -> None:
    check_long_row(tmp_path / f"long{suffix}", ordinary[suffix], MAX_ROW_BYTES + 1)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", HEAD)
@pytest.mark.parametrize("size", [100 * MB, 1024 * MB])
def test_a_text_of_100_mb_and_a_line_of_1_gb(tmp_path: Path, ordinary: dict[str, int], suffix: str, size: int) -> None:
    check_long_row(tmp_path / f"long{suffix}", ordinary[suffix], size)


def test_a_quote_that_is_never_closed(tmp_path: Path, ordinary: dict[str, int]) -> None:
    """The rest of the file would be one field; after the limit rows are rows again."""
    path = write(tmp_path / "quote.csv", b'text\none\n"two\n', (b"a line, of two fields\n" for _ in range(900_000)))
    rows, said, peak = read_apart(path)
    assert rows == 1
    assert said[0] == "quote.csv row 3: a row of more than 16 MiB, left out: is a line end or a closing quote missing?"
    assert peak - ordinary[".csv"] < BOUND


@pytest.mark.slow
def test_json_that_is_large_in_memory(tmp_path: Path, ordinary: dict[str, int]) -> None:
    inner = b"[]," * ((MAX_ROW_BYTES - 64) // 3)
    path = write(tmp_path / "deep.jsonl", b'{"text": "one", "x": [', inner, b"0]}\n", LINE[".jsonl"])
    rows, said, peak = read_apart(path)
    assert (rows, said) == (2, [])
    assert peak - ordinary[".jsonl"] < WORST_JSON


def test_a_long_text_in_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "long.parquet"
    parquet.write_table(pyarrow.table({"text": ["one", "x" * (MAX_ROW_BYTES + 1), "three"]}), path)
    rows, said, _ = read_apart(path)
    assert rows == 2
    assert said[0] == "long.parquet row 2: a row of more than 16 MiB, left out: is a line end or a closing quote missing?"


EMPTY = {".jsonl": b"{}\n", ".csv": b'""\n', ".tsv": b" \n"}
FIRST = {
    ".jsonl": "{}: columns none found, 'text' (documents) or 'query' and 'positive' (pairs) expected: name them with --columns text=THEIRS",
    ".csv": "{}: no row that can be used ({:,} left out); empty.csv row 2: 'text' is empty, row left out",
    ".tsv": "{}: no row that can be used ({:,} left out); empty.tsv:2: 'text' is empty, row left out",
}


def check_empty_rows(path: Path, ordinary: int, count: int) -> None:
    kind = path.suffix
    write(path, HEAD[kind], EMPTY[kind] * count)
    rows, said, peak = read_apart(path)
    assert (rows, said) == (0, [FIRST[kind].format(path, count)])
    assert peak - ordinary < 16 * MB, f"{(peak - ordinary) >> 20} MiB"


@pytest.mark.parametrize("suffix", HEAD)
def test_100000_empty_rows(tmp_path: Path, ordinary: dict[str, int], suffix: str) -> None:
    check_empty_rows(tmp_path / f"empty{suffix}", ordinary[suffix], 100_000)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("suffix", HEAD)
def test_5_million_empty_rows(tmp_path: Path, ordinary: dict[str, int], suffix: str) -> None:
    check_empty_rows(tmp_path / f"empty{suffix}", ordinary[suffix], 5_000_000)


ENCODE = (
    PEAK
    + """
import sys
import nearfield as nf
with nf.Encoder(sys.argv[1]) as encoder:
    encoder.encode(["short"])
    before = peak()
    encoder.encode([("a word and another " * (1 << 20))[:int(sys.argv[2])]])
    assert encoder.truncated == 1
print((peak() - before) >> 20)
"""
)


def test_the_longest_text_is_encoded_by_its_front(tiny_bundle: Path) -> None:
    """The tokenizer takes 160 bytes for each character that it reads: 2.6 GB for this text if it read it all."""
    done = subprocess.run(
        [sys.executable, "-c", ENCODE, tiny_bundle, str(MAX_ROW_BYTES)], capture_output=True, text=True, check=True, timeout=100
    )
    assert int(done.stdout) < 100
