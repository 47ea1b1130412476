"""The native tokenizer, where a ``tokenizer.json`` is one that it does exactly as ``tokenizers`` does; else why not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearfield import _core
from nearfield.errors import FormatError, InputError
from nearfield.modelfiles import load_json

_Json = dict[str, Any]

_TOP = {"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder", "model"}
_MODEL = {"type": str, "unk_token": str, "continuing_subword_prefix": str, "max_input_chars_per_word": int, "vocab": dict}
_NORMALIZER = {"type": str, "clean_text": bool, "handle_chinese_chars": bool, "strip_accents": (bool, type(None)), "lowercase": bool}
_ADDED = {"id": int, "content": str, "single_word": bool, "lstrip": bool, "rstrip": bool, "normalized": bool, "special": bool}
_TEMPLATE = {"type": str, "single": list, "pair": list, "special_tokens": dict}
_BERT = {"type": str, "sep": list, "cls": list}
_ROBERTA = _BERT | {"trim_offsets": bool, "add_prefix_space": bool}
_MOST_INTEGER = 2**31
# Python's JSON takes half of an escaped pair for a character, `tokenizers` refuses the file.
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_PAIR = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")


class _UnsupportedError(Exception):
    """What stands in the way, for a person to read."""


@dataclass(frozen=True, slots=True)
class NativeTokenizer:
    """A ``tokenizer.json`` done natively.

    Attributes:
        wordpiece: the tokenizer.
        ids: the id of every token, added ones included.
    """

    wordpiece: _core.WordPiece
    ids: dict[str, int]


def native_tokenizer(path: Path, max_tokens: int) -> NativeTokenizer | str:
    """Decides whether the native tokenizer does this file's work.

    It does where every part is of a kind whose ids it reproduces bit for bit: WordPiece behind BERT's normalizer and splitter, with added
    tokens and the usual tokens around each text. Anything else, also a file that ``tokenizers`` might refuse, stays with that library.

    Args:
        path: of ``tokenizer.json``.
        max_tokens: tokens per text, special tokens included.

    Returns:
        the tokenizer, or why not.
    """
    try:
        data = path.read_bytes()
        _need(_SURROGATE.search(_PAIR.sub(b"", data)) is None, "a lone surrogate")
        found = _native(load_json(data, str(path)))
        _need(max_tokens >= found.wordpiece.fewest_tokens, f"{max_tokens} tokens are fewer than those put around each text")
    except (_UnsupportedError, FormatError, InputError) as reason:
        return str(reason)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return found


def _native(value: object) -> NativeTokenizer:
    top = _object(value, "the file", dict.fromkeys(_TOP, object))
    _need(top["version"] == "1.0", "version is not 1.0")
    for name in ("truncation", "padding"):  # ours, whatever the file says
        _need(top[name] is None or isinstance(top[name], dict), f"{name} is no object")
    if top["decoder"] is not None:
        _object(top["decoder"], "decoder", {"type": str, "prefix": str, "cleanup": bool}, "WordPiece")
    model = _object(top["model"], "model", _MODEL, "WordPiece")
    normalizer = _object(top["normalizer"], "normalizer", _NORMALIZER, "BertNormalizer")
    _object(top["pre_tokenizer"], "pre_tokenizer", {"type": str}, "BertPreTokenizer")
    vocabulary: dict[str, int] = model["vocab"]
    added = _added_tokens(top["added_tokens"], vocabulary)
    before, after = _around(top["post_processor"])
    longest = model["max_input_chars_per_word"]
    _need(0 <= longest < _MOST_INTEGER, "max_input_chars_per_word out of range")
    strip = normalizer["strip_accents"]
    wordpiece = _core.WordPiece(
        vocabulary=vocabulary,
        unknown=model["unk_token"],
        prefix=model["continuing_subword_prefix"],
        longest_word=longest,
        clean=normalizer["clean_text"],
        chinese=normalizer["handle_chinese_chars"],
        strip=normalizer["lowercase"] if strip is None else strip,
        lower=normalizer["lowercase"],
        added=[(a["content"], a["id"], a["single_word"], a["normalized"], a["lstrip"] or a["rstrip"]) for a in added],
        before=before,
        after=after,
    )
    return NativeTokenizer(wordpiece, vocabulary | {token["content"]: token["id"] for token in added})


def _added_tokens(value: object, vocabulary: dict[str, int]) -> list[_Json]:
    """The added tokens, whose ids must be those that ``tokenizers`` gives them, whatever the file says."""
    _need(isinstance(value, list), "added_tokens is no list")
    assert isinstance(value, list)
    added = [_object(token, "an added token", _ADDED) for token in value]
    ids: dict[str, int] = {}
    for token in added:
        content = token["content"]
        expected = vocabulary.get(content, max([len(vocabulary), *(i + 1 for i in ids.values())]))
        _need(content not in ids and token["id"] not in ids.values(), f"added token {content!r}: twice")
        _need(token["id"] == expected, f"added token {content!r}: another id than its place gives it")
        ids[content] = token["id"]
    return added


def _around(value: object) -> tuple[list[int], list[int]]:
    """The ids before and after each text."""
    kind = _kind(value)
    if kind is None:
        return [], []
    if kind in ("BertProcessing", "RobertaProcessing"):
        pair = _object(value, "post_processor", _BERT if kind == "BertProcessing" else _ROBERTA)
        for name in ("cls", "sep"):
            _need(len(pair[name]) == 2 and isinstance(pair[name][0], str), f"post_processor.{name}")
        return [_id(pair["cls"][1])], [_id(pair["sep"][1])]
    template = _object(value, "post_processor", _TEMPLATE, "TemplateProcessing")
    tokens = {name: _template_token(name, token) for name, token in template["special_tokens"].items()}
    for piece in template["pair"]:  # ours are never pairs; a file whose pairs are wrong is not opened by the library
        _template_piece(piece)
    before: list[int] = []
    after: list[int] = []
    seen = False
    for kind, name in map(_template_piece, template["single"]):
        if kind == "Sequence":
            _need(name == "A" and not seen, "post_processor: a template with other than one sequence A")
            seen = True
            continue
        _need(name in tokens, "post_processor: a special token that is not described")
        (after if seen else before).extend(tokens[name])
    _need(seen, "post_processor: a template without the sequence")
    return before, after


def _template_piece(piece: object) -> tuple[str, str]:
    """Kind and name."""
    if not isinstance(piece, dict) or len(piece) != 1:
        raise _UnsupportedError("post_processor: a piece of the template")
    kind, what = next(iter(piece.items()))
    what = _object(what, "post_processor: a piece of the template", {"id": str, "type_id": int})
    _need(kind == "SpecialToken" or (kind == "Sequence" and what["id"] in ("A", "B")), "post_processor: a piece of the template")
    _id(what["type_id"])
    return kind, what["id"]


def _template_token(name: str, value: object) -> list[int]:
    """Its ids."""
    token = _object(value, "post_processor: a special token", {"id": str, "ids": list, "tokens": list})
    _need(token["id"] == name and len(token["ids"]) == len(token["tokens"]), "post_processor: a special token")
    _need(all(isinstance(text, str) for text in token["tokens"]), "post_processor: a special token's texts")
    return [_id(number) for number in token["ids"]]


def _object(value: object, what: str, fields: dict[str, Any], kind: str | None = None) -> _Json:
    """A JSON object with exactly these keys, of these types."""
    if not isinstance(value, dict) or value.keys() != fields.keys():
        raise _UnsupportedError(f"{what}: other keys than {', '.join(sorted(fields))}")
    for name, types in fields.items():
        # A bool is an int in Python, not in JSON.
        if not isinstance(value[name], types) or (types is int and isinstance(value[name], bool)):
            raise _UnsupportedError(f"{what}.{name}: {type(value[name]).__name__}")
    if kind is not None:
        _need(value["type"] == kind, f"{what} is no {kind}")
    return value


def _kind(value: object) -> object:
    return value.get("type", "") if isinstance(value, dict) else value


def _id(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _MOST_INTEGER:
        raise _UnsupportedError("post_processor: an id that is no whole number from 0 to 2^31 - 1")
    return value


def _need(good: bool, otherwise: str) -> None:
    if not good:
        raise _UnsupportedError(otherwise)
