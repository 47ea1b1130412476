"""Tokenization: agreement with transformers, counting, padding, refusal at the door, and the batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encode_models import some_texts
from nearfield.encode.tokenize import TextTokenizer, check_texts, length_batches
from nearfield.errors import FormatError, InputError


def test_same_ids_as_transformers(tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    reference = AutoTokenizer.from_pretrained(tiny_model)
    texts = ["", "search", "Ünïcödé 漢字 \u200b tabs\t", "word " * 200, *some_texts(20)]
    found = TextTokenizer(tiny_model / "tokenizer.json", 64)(texts)
    assert found.ids == [list(row) for row in reference(texts, truncation=True, max_length=64)["input_ids"]]
    assert found.truncated == 1


def test_truncation_is_counted_exactly(tiny_model: Path) -> None:
    tokenizer = TextTokenizer(tiny_model / "tokenizer.json", 10)
    # Two special tokens leave room for eight words.
    texts = [" ".join(["word"] * n) for n in (7, 8, 9, 100)]
    found = tokenizer(texts)
    assert [len(row) for row in found.ids] == [9, 10, 10, 10]
    assert found.truncated == 2


def test_long_texts_have_the_tokens_of_the_whole_text(tiny_model: Path) -> None:
    """Only a text's front is read; the oracle reads all of it."""
    from tokenizers import Tokenizer

    limit = 16
    oracle = Tokenizer.from_file(str(tiny_model / "tokenizer.json"))
    oracle.enable_truncation(limit)
    texts = [
        "word " * 10_000,
        "word " * 14 + " " * 5_000,  # full, and nothing behind it
        "word " * 14 + " " * 5_000 + "word",
        " " * 5_000 + "word tree",
        " " * 200_000 + "word tree " * 20,
        "x" * 100_000 + " tree",
        "tree " + "x" * 100_000,
        "\n".join(["word"] * 10_000),
        "漢" * 50_000,
        "\u200b" * 50_000 + "tree",
        *(" ".join(some_texts(1, seed=seed, longest=60)) for seed in range(20)),
    ]
    found = TextTokenizer(tiny_model / "tokenizer.json", limit)(texts)
    wanted = [oracle.encode(text) for text in texts]
    assert found.ids == [encoding.ids for encoding in wanted]
    assert found.truncated == sum(bool(encoding.overflowing) for encoding in wanted)


def test_padding(tiny_model: Path) -> None:
    tokenizer = TextTokenizer(tiny_model / "tokenizer.json", 64)
    ids, mask = tokenizer.pad([[5, 6, 7], [8]])
    assert ids.dtype == mask.dtype == np.int64
    assert ids.tolist() == [[5, 6, 7], [8, tokenizer.pad_id, tokenizer.pad_id]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert tokenizer.pad([[]])[0].shape == (1, 1)
    assert tokenizer.pad([[]])[1].sum() == 0


def test_texts_are_checked_with_their_place() -> None:
    assert check_texts(iter(["a", "ß"])) == ["a", "ß"]
    assert check_texts(np.array(["a", "b"])) == ["a", "b"]
    with pytest.raises(InputError, match=r"texts\[1\]: int given"):
        check_texts(["a", 3])  # type: ignore[list-item]
    with pytest.raises(InputError, match=r"texts\[2\]: NoneType given"):
        check_texts(["a", "b", None])  # type: ignore[list-item]
    with pytest.raises(InputError, match=r"texts\[1\]: a lone surrogate U\+D800 at character 2"):
        check_texts(["a", "xy\ud800"])
    for wrong in (b"bytes", 7, None):
        with pytest.raises(InputError, match="a str or a list of str expected"):
            check_texts(wrong)  # type: ignore[arg-type]


def test_files_that_are_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="missing"):
        TextTokenizer(tmp_path / "tokenizer.json", 8)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(FormatError, match="not a tokenizer"):
        TextTokenizer(tmp_path / "tokenizer.json", 8)


def test_a_panic_of_the_library_is_one_line_and_an_interrupt_is_none(tiny_model: Path) -> None:
    """pyo3's PanicException is no Exception; an interrupt is none either, and stays what it is."""
    panic = type("PanicException", (BaseException,), {})

    class Library:
        def encode_batch_fast(self, texts: list[str]) -> list[object]:
            raise panic("no entry found for key") if texts == ["a"] else KeyboardInterrupt

    tokenizer = TextTokenizer(tiny_model / "tokenizer.json", 8)
    tokenizer.native, tokenizer._library = None, Library()
    with pytest.raises(FormatError, match=r"tokenizer\.json: .*no entry found"):
        tokenizer(["a"])
    with pytest.raises(KeyboardInterrupt):
        tokenizer(["b"])


@given(st.lists(st.integers(0, 300), max_size=60), st.integers(1, 8), st.integers(1, 500))
def test_batches_hold_every_text_once_and_their_limits(lengths: list[int], max_rows: int, max_tokens: int) -> None:
    batches = length_batches(lengths, max_rows=max_rows, max_tokens=max_tokens)
    assert sorted(int(i) for batch in batches for i in batch) == list(range(len(lengths)))
    flat = [lengths[i] for batch in batches for i in batch]
    assert flat == sorted(lengths, reverse=True)
    for batch in batches:
        longest = max(lengths[i] for i in batch)
        assert len(batch) == 1 or (len(batch) <= max_rows and len(batch) * longest <= max_tokens)
