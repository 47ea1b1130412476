"""The model folder of a bundle: what is needed of another one, in the layout that sentence-transformers reads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from nearfield.encode.spec import weights_folder
from nearfield.errors import InputError


def copy_model(source: Path, target: Path) -> None:
    """Copies what the model needs, links resolved; a folder in another layout or precision is written anew in ours.

    Weights are copied byte for byte where they already are one float32 file beside a sentence-transformers layout, so that the bundle
    has the fingerprint of the folder it was made from.
    """
    from nearfield.encode.tower import Tower

    if not (source / "modules.json").is_file() or weights_folder(source) != source or not _is_float32(source / "model.safetensors"):
        Tower.load(source).save(target)
        return
    target.mkdir()
    for name in _MODEL_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    for module in json.loads((source / "modules.json").read_text(encoding="utf-8"))[1:]:
        inner = target / module["path"]
        inner.mkdir(parents=True, exist_ok=True)
        if (source / module["path"] / "config.json").is_file():
            shutil.copyfile(source / module["path"] / "config.json", inner / "config.json")


_MODEL_FILES = (
    "config.json", "model.safetensors", "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt",
    "sentencepiece.bpe.model", "spiece.model", "tokenizer.model",
)  # fmt: skip


def _is_float32(path: Path) -> bool:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return False
    try:
        with safe_open(str(path), framework="np") as tensors:
            # Integer buffers such as position ids may stay as they are.
            return all(tensors.get_slice(name).get_dtype() in ("F32", "I64", "I32", "BOOL") for name in tensors.keys())  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"{path}: not readable as safetensors ({error})") from None
