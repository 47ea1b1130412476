"""What a model folder promises about its vectors, read from its JSON files alone: no torch, no transformers."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from nearfield.errors import FormatError, InputError

Pooling = Literal["mean", "cls", "last"]

# sentence-transformers up to 5 writes one flag per mode, from 6 on one name.
_POOLING_NAMES: dict[str, Pooling] = {"mean": "mean", "cls": "cls", "lasttoken": "last"}
_POOLING_FLAGS: dict[str, str] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}
# The names under which sentence-transformers looks for the prompt of each kind of text.
_PROMPT_NAMES = {"query": ("query",), "document": ("document", "passage", "corpus")}
# These families number positions from pad_token_id + 1, so that many rows of their position table are never used for a token.
_OFFSET_POSITIONS = {
    "roberta",
    "xlm-roberta",
    "xlm-roberta-xl",
    "camembert",
    "mpnet",
    "longformer",
    "data2vec-text",
    "roberta-prelayernorm",
}


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What decides a text's vector besides weights and tokenizer.

    Attributes:
        dim: columns of a vector.
        max_tokens: tokens per text, special tokens included; longer texts are cut.
        pooling: how token vectors become one: ``"mean"`` over real tokens, ``"cls"`` the first, ``"last"`` the last real one.
        normalize: whether the model ends with a division by the Euclidean norm.
        prompts: what is put before a text of each kind: ``{"query": ..., "document": ...}``.
    """

    dim: int
    max_tokens: int
    pooling: Pooling
    normalize: bool
    prompts: dict[str, str]


def read_spec(folder: str | Path) -> ModelSpec:
    """Reads a model folder: the sentence-transformers layout (files of versions 2 to 6), or a plain transformers folder.

    A plain folder has no ``modules.json``; it is taken with mean pooling and normalization, as sentence-transformers' own users
    almost always do, and with the position table's length as the maximum.

    Args:
        folder: holds ``config.json``, ``tokenizer.json`` and, in the sentence-transformers layout, ``modules.json``.

    Raises:
        InputError: no such folder, or a module or a pooling that this package does not know (it is named).
        FormatError: a JSON file that cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"model {folder}: no such folder; give the folder that holds config.json and model.safetensors")
    modules = _modules(folder)
    inner = weights_folder(folder)
    config = read_json(inner / "config.json")
    dim = _hidden_size(config, inner / "config.json")
    prompts = _prompts(folder)
    if not modules:
        return ModelSpec(dim, _max_tokens(inner, config, {}), "mean", True, prompts)
    transformer = read_json(inner / "sentence_bert_config.json", missing_ok=True)
    _check_lower_case(inner, transformer)
    pooling = read_json(folder / modules[1][1] / "config.json")
    where = f"{folder / modules[1][1] / 'config.json'}"
    width = pooling.get("embedding_dimension", pooling.get("word_embedding_dimension", dim))
    if width != dim:
        raise InputError(f"{where}: {width} columns, but config.json says {dim}; the folder mixes two models")
    if pooling.get("include_prompt", True) is False and any(prompts.values()):
        raise InputError(
            f"{where}: include_prompt is false together with a prompt, which is not supported; pooling over the prompt's tokens is"
        )
    return ModelSpec(dim, _max_tokens(inner, config, transformer), _pooling(pooling, where), len(modules) == 3, prompts)


def weights_folder(folder: Path) -> Path:
    """Where config, tokenizer and weights lie: the folder itself, or ``0_Transformer`` in the oldest sentence-transformers layout."""
    modules = _modules(folder)
    return folder / modules[0][1] if modules else folder


def read_json(path: Path, *, missing_ok: bool = False) -> dict[str, Any]:
    """Reads one JSON object.

    Raises:
        InputError: the file is missing (unless ``missing_ok``, then ``{}``).
        FormatError: not UTF-8, not JSON, or not an object.
    """
    if missing_ok and not path.is_file():
        return {}
    value = _load(path)
    if not isinstance(value, dict):
        raise FormatError(f"{path}: a JSON object expected, {type(value).__name__} found")
    return value


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: missing; a model folder holds config.json, tokenizer.json and model.safetensors") from None
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not readable as JSON ({error})") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _modules(folder: Path) -> list[tuple[str, str]]:
    """The (type, path) pairs of modules.json, checked: Transformer, Pooling and perhaps Normalize; [] for a plain folder."""
    where = folder / "modules.json"
    if not where.is_file():
        return []
    entries = _load(where)
    try:
        modules = [(str(entry["type"]).rsplit(".", 1)[-1], str(entry["path"])) for entry in entries]
    except (TypeError, KeyError):
        raise FormatError(f"{where}: a list of objects with type and path expected") from None
    for kind, path in modules:
        if kind not in ("Transformer", "Pooling", "Normalize"):
            raise InputError(f"{where}: module {kind} is not supported; Transformer, Pooling and Normalize are")
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise FormatError(f"{where}: path {path!r} leaves the folder")
    kinds = [kind for kind, _ in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise InputError(
            f"{where}: modules {', '.join(kinds) or 'none'}; Transformer, Pooling and perhaps Normalize expected, in this order"
        )
    return modules


def _hidden_size(config: dict[str, Any], where: Path) -> int:
    for key in ("hidden_size", "dim", "d_model", "n_embd", "emb_dim"):
        if isinstance(config.get(key), int) and config[key] > 0:
            return int(config[key])
    raise InputError(f"{where}: no hidden_size; this does not look like a text encoder's configuration")


def _pooling(config: dict[str, Any], where: str) -> Pooling:
    if "pooling_mode" in config:
        given = config["pooling_mode"]
        names = given if isinstance(given, list) else [given]
    else:
        names = [name for flag, name in _POOLING_FLAGS.items() if config.get(flag)]
    if len(names) != 1 or not isinstance(names[0], str) or names[0] not in _POOLING_NAMES:
        raise InputError(f"{where}: pooling {' + '.join(map(str, names)) or 'none'} is not supported; mean, cls or lasttoken is")
    return _POOLING_NAMES[names[0]]


def _max_tokens(folder: Path, config: dict[str, Any], transformer: dict[str, Any]) -> int:
    """The limit that sentence-transformers would apply, never beyond the position table."""
    limits = []
    positions = config.get("max_position_embeddings", config.get("n_positions"))
    if isinstance(positions, int) and positions > 0:
        kind, padding = config.get("model_type"), config.get("pad_token_id") or 0
        if isinstance(kind, str) and kind in _OFFSET_POSITIONS:
            if not isinstance(padding, int) or not 0 <= padding < positions - 1:
                raise InputError(
                    f"{folder / 'config.json'}: pad_token_id: {padding!r} given, a whole number below {positions - 1} expected"
                )
            positions -= padding + 1
        limits.append(positions)
    tokenizer = read_json(folder / "tokenizer_config.json", missing_ok=True)
    stated = transformer.get("max_seq_length") or tokenizer.get("model_max_length")
    if isinstance(stated, (int, float)) and 1 <= stated < math.inf:
        limits.append(int(stated))
    if not limits:
        truncation = read_json(folder / "tokenizer.json").get("truncation") or {}
        longest = truncation.get("max_length") if isinstance(truncation, dict) else None
        limits.extend([longest] if isinstance(longest, int) and longest > 0 else [])
    if not limits:
        raise InputError(
            f"{folder}: no maximum length in sentence_bert_config.json, tokenizer_config.json or config.json; set max_seq_length"
        )
    return min(limits)


def _check_lower_case(folder: Path, transformer: dict[str, Any]) -> None:
    """sentence-transformers lowercases before the tokenizer when asked; ours does not, so the tokenizer has to do it itself."""
    if transformer.get("do_lower_case"):
        normalizer = json.dumps(read_json(folder / "tokenizer.json").get("normalizer"))
        if '"lowercase": true' not in normalizer and '"Lowercase"' not in normalizer:
            raise InputError(
                f"{folder / 'sentence_bert_config.json'}: do_lower_case with a cased tokenizer is not supported; set it to false"
            )


def _prompts(folder: Path) -> dict[str, str]:
    config = read_json(folder / "config_sentence_transformers.json", missing_ok=True)
    prompts = config.get("prompts") or {}
    if not isinstance(prompts, dict):
        raise FormatError(f"{folder / 'config_sentence_transformers.json'}: prompts: an object of names and texts expected")
    return {kind: str(next((prompts[name] for name in names if name in prompts), None) or "") for kind, names in _PROMPT_NAMES.items()}
