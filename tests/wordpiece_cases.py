"""Tokenizers of every setting, and texts from all of Unicode, for the tests that hold the native tokenizer to ``tokenizers``."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from nearfield.encode.wordpiece import NativeTokenizer, native_tokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [
    "the",
    "a",
    "of",
    "return",
    "array",
    "value",
    "index",
    "search",
    "file",
    "vector",
    "unaffable",
    "running",
    "tokens",
    "embeddings",
    "naïve",
    "café",
    "straße",
    "İstanbul",
]

# Settings of BERT's normalizer.
NORMALIZERS: dict[str, dict[str, bool | None]] = {
    "uncased": {},
    "cased": {"lowercase": False},
    "accents kept": {"strip_accents": False},
    "accents dropped, cased": {"strip_accents": True, "lowercase": False},
    "Chinese in words": {"handle_chinese_chars": False},
    "not cleaned": {"clean_text": False},
    "not cleaned, accents kept": {"clean_text": False, "strip_accents": False},
    "nothing": {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False},
}


def added(content: str, id: int, **flags: bool) -> dict[str, Any]:
    """An entry of added_tokens."""
    row: dict[str, Any] = {"id": id, "content": content, "single_word": False, "lstrip": False, "rstrip": False}
    return row | {"normalized": False, "special": True} | flags


@cache
def rich_vocabulary() -> dict[str, int]:
    """Words, and characters of every kind alone and as continuations, so that few texts are unknown and differences show."""
    ranges = [(0x21, 0x3400), (0x4E00, 0x4E40), (0xA000, 0xA010), (0xAC00, 0xAC10), (0xF900, 0xF910), (0xFB00, 0xFE00), (0xFE30, 0xFFFE)]
    ranges += [(0x1D150, 0x1D1F0), (0x1E900, 0x1E960), (0x10400, 0x10450), (0x1F600, 0x1F640), (0x20000, 0x20010), (0xE0100, 0xE0110)]
    letters = [chr(c) for low, high in ranges for c in range(low, high)] + ["\x00", "\x01", "\x7f", "\ufffd", "\U0010ffff", "\u0378"]
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *WORDS, "##ing", "##s", "##able", "un", "##aff", "emb", "##edd"])}
    for letter in letters:
        for text in (letter, "##" + letter):
            vocabulary.setdefault(text, len(vocabulary))
    return vocabulary


def tokenizer_json(vocabulary: dict[str, int], *, tokens: Sequence[dict[str, Any]] | None = None, **settings: Any) -> dict[str, Any]:
    """A tokenizer.json; ``settings`` change the normalizer, the model (``max_input_chars_per_word`` ...) or, whole, ``post_processor``."""
    normalizer = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
    model = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100}

    def special(name: str) -> dict[str, Any]:
        return {"SpecialToken": {"id": name, "type_id": 0}}

    template = {
        "type": "TemplateProcessing",
        "single": [special("[CLS]"), {"Sequence": {"id": "A", "type_id": 0}}, special("[SEP]")],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {name: {"id": name, "ids": [vocabulary[name]], "tokens": [name]} for name in ("[CLS]", "[SEP]")},
    }  # fmt: skip
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added(name, vocabulary[name]) for name in SPECIAL] if tokens is None else list(tokens),
        "normalizer": normalizer | {name: value for name, value in settings.items() if name in normalizer},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": settings.get("post_processor", template),
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": model | {name: value for name, value in settings.items() if name in model} | {"vocab": vocabulary},
    }


class Pair:
    """A tokenizer.json opened by both."""

    def __init__(self, folder: Path, value: dict[str, Any]) -> None:
        from tokenizers import Tokenizer

        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "tokenizer.json"
        path.write_text(json.dumps(value), encoding="utf-8")
        self.path = path
        found = native_tokenizer(path, 512)
        assert isinstance(found, NativeTokenizer), found
        self.native = found.wordpiece
        self.oracle = Tokenizer.from_file(str(path))
        self.oracle.no_padding()

    def differing(self, texts: Sequence[str], max_tokens: int = 512, prompt: str = "") -> list[tuple[str, list[int], list[int]]]:
        """Texts whose ids differ, ours first; the count of cut texts is compared as well."""
        self.oracle.enable_truncation(max_tokens)
        wanted = self.oracle.encode_batch_fast([prompt + text for text in texts])
        ids, offsets, truncated = self.native.encode(list(texts), max_tokens, prompt)
        assert ids.dtype == np.int32
        assert offsets.dtype == np.int64
        assert len(offsets) == len(texts) + 1
        assert truncated == sum(len(encoding.ids) >= max_tokens and bool(encoding.overflowing) for encoding in wanted)
        flat = np.fromiter((i for encoding in wanted for i in encoding.ids), np.int32)
        if np.array_equal(flat, ids) and offsets.tolist() == [0, *np.cumsum([len(encoding.ids) for encoding in wanted])]:
            return []
        rows = [ids[low:high].tolist() for low, high in itertools.pairwise(offsets)]
        return [(text, row, encoding.ids) for text, row, encoding in zip(texts, rows, wanted, strict=True) if row != encoding.ids][:5]


_MARKS = (
    "\u0301\u0323\u0327\u0345\u0334\u05b0\u064b\u0903\u3099\u302e\u302f\U0001d165\U0001d16d\U000e0101\u200d\u20dd\u0f71\u0f72\u0898\u1acf"
)
_SPACES = " \t\n\r\x0b\x0c\x1c\x1f\x85\xa0\u1680\u2000\u2003\u2028\u2029\u202f\u205f\u3000\u200b\ufeff"
_ODD = "\x00\x01\x7f\x80\x9f\xad\u061c\u180e\u200e\u2060\ufffd\ufffe\uffff\ufdd0\ue000\U000f0000\U0010ffff\u0378\U000e0001İıßẞſKÅΣςσǅŉΐﬁ"
_POOLS = [
    "abcdefghijklmnopqrstuvwxyz",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789",
    "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", _SPACES,
    _MARKS, _ODD,
    "ÀÉÎõüñçøÆœŐǺẤộṩ", "абвгдЁЙїљ", "αβγΆΈώᾴῼ", "漢字中文国\u4e00\u9fff\u3400\uf900\U00020000\U0002f800\u9fa6",
    "각뷁힣각가", "ひらがなカﾀ\u309b",
    "العربية", "हिन्दीक़", "ไทย", "🙂👩\u200d👩🏽\U0001f1e9", "«»…—“”„、。！？·¿‐⁀\u0964\u3001\U00010100",
    "①½²ªµ℡Ⅻ", "\U00010400\U0001e921\U0001d400",
]  # fmt: skip
GLUE = ["[SEP]", "[CLS]", "[MASK]", "[sep]", "[SEP", "SEP]", "[UNK]", "[PAD][PAD]", "[[SEP]]", "##ing", "##", "foo", "Foo Bar", "é", "bar"]


def random_text(rng: random.Random) -> str:
    """Up to some hundred characters: words, single characters of every kind, special tokens, runs of one kind."""
    parts = []
    for _ in range(rng.choice((1, 2, 4, 8, 16))):
        kind = rng.random()
        if kind < 0.35:
            parts.append(rng.choice(WORDS))
        elif kind < 0.55:
            pool = rng.choice(_POOLS)
            parts.append("".join(rng.choices(pool, k=rng.randint(1, 6))))
        elif kind < 0.70:
            parts.append("".join(rng.choice(rng.choice(_POOLS)) for _ in range(rng.randint(1, 8))))
        elif kind < 0.80:
            parts.append(any_character(rng))
        elif kind < 0.88:
            parts.append(rng.choice(GLUE))
        elif kind < 0.90:
            parts.append(rng.choice("aé漢\u302e\u0301x") * rng.choice((3, 98, 99, 100, 101, 102, 300)))
        else:
            parts.append(rng.choice(_SPACES))
        if rng.random() < 0.5:
            parts.append(" ")
    return "".join(parts)


def any_character(rng: random.Random) -> str:
    """Any scalar value, the lower planes more often."""
    point = rng.randrange(rng.choice((0x250, 0x3000, 0xD800, 0x110000)))
    return chr(point) if not 0xD800 <= point < 0xE000 else "\ud7ff"


def random_texts(count: int, seed: int) -> list[str]:
    """The same for the same seed."""
    rng = random.Random(seed)
    return [random_text(rng) for _ in range(count)]


def scalar_values() -> Iterable[int]:
    """Every code point that is a character."""
    yield from range(0xD800)
    yield from range(0xE000, 0x110000)
