"""The two models that the encoder suites run: all-MiniLM-L6-v2, and one of its shape with twice the layers.

Both read up to 512 tokens (all-MiniLM-L6-v2 has positions for so many; its own settings cut at 256), so that long texts can be timed.
Nothing is downloaded: the deeper one holds the six layers twice. Its vectors mean nothing, its time is that of any 12-layer model
384 wide (e5-small, bge-small, arctic-embed-s).
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.core import data
from benchmarks.core.plan import Plan
from benchmarks.core.texts import fingerprint, sentences

MAX_TOKENS = 512
CONFIG, SETTINGS, WEIGHTS = "config.json", "sentence_bert_config.json", "model.safetensors"
LAYER = "encoder.layer."
# Texts that the exporter checks its graph on.
CHECKED_TEXTS = 32


@dataclass(frozen=True)
class Model:
    """A model of the suites.

    Attributes:
        name: in the tables.
        brief: in the titles of the README's columns.
        short: in file names.
        repeats: how often the layers of all-MiniLM-L6-v2 stand behind each other.
        max_tokens: longer texts are cut.
    """

    name: str
    brief: str
    short: str
    repeats: int = 1
    max_tokens: int = MAX_TOKENS


MINILM = Model("all-MiniLM-L6-v2", "MiniLM-L6", "l6")
# The same weights with their own settings, for what is measured on real documents.
AS_SHIPPED = Model("all-MiniLM-L6-v2", "MiniLM-L6", "l6", max_tokens=256)
DEEP = Model("12 layers of 384 (MiniLM's six twice)", "12 layers", "l12", 2)


def bundle(plan: Plan, model: Model) -> Path:
    """The model's bundle, made once into the cache: safetensors, and fp32 and int8 ONNX."""
    if model == AS_SHIPPED:
        return data.bundle(plan)
    path = plan.cache / f"encoder-{model.short}"
    if not (path / "manifest.json").is_file():
        from nearfield.export.export import export_bundle
        from nearfield.export.writer import update

        plan.say(f"exporting {model.name} for texts of {MAX_TOKENS} tokens (once)")
        texts = sentences(replace(plan, data=None))[0][:CHECKED_TEXTS]
        source = plan.cache / f"encoder-{model.short}-source"
        shutil.rmtree(source, ignore_errors=True)
        _write_source(source, model)
        made = export_bundle(source, path, texts=texts, base=model.name, data_fingerprint=fingerprint(texts), progress=False)
        if model.repeats > 1:  # what rounding does to meaningless vectors says nothing: as a model that nobody measured
            update(made, native=None)
        shutil.rmtree(source)
    return path


def _write_source(folder: Path, model: Model) -> None:
    from safetensors.numpy import load_file, save_file

    from nearfield.encode.models import resolve_model

    shutil.copytree(resolve_model(None), folder)
    _change(folder / SETTINGS, {"max_seq_length": MAX_TOKENS})
    if model.repeats == 1:
        return
    layers = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["num_hidden_layers"]
    tensors = load_file(folder / WEIGHTS)
    for name, values in list(tensors.items()):
        if name.startswith(LAYER):
            number, rest = name.removeprefix(LAYER).split(".", 1)
            tensors |= {f"{LAYER}{int(number) + layers * i}.{rest}": values for i in range(1, model.repeats)}
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    _change(folder / CONFIG, {"num_hidden_layers": layers * model.repeats})


def _change(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values, indent=2) + "\n", encoding="utf-8")
