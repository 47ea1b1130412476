"""The peers' own forms of a model, made once into the cache: ONNX for onnxruntime, and OpenVINO in float32 and in calibrated int8."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from benchmarks.core.plan import Plan
from benchmarks.core.texts import fingerprint, texts_of_length
from benchmarks.encoders.loop import padded
from benchmarks.encoders.models import MAX_TOKENS, Model, bundle

# OpenVINO's int8 is calibrated on so many texts of each of these lengths: NNCF's own default is 300 samples.
CALIBRATED = (16, 64, 167, 512)
EACH = 75


def onnx_int8(plan: Plan, model: Model) -> Path:
    """onnxruntime's own dynamic int8 of the fused graph: 8-bit weights per column, its fastest on CPUs with VNNI."""

    def make(path: Path) -> None:
        from nearfield.export.quantize import quantize

        quantize(bundle(plan, model) / "onnx" / "model.onnx", path, "dynamic", bits=8)

    return _made(plan, model, "onnxruntime", "dynamic-int8.onnx", make)


def openvino_f32(plan: Plan, model: Model) -> Path:
    """The torch model with its attention as one operator, read by OpenVINO's own converter; pooling and norm inside."""

    def make(path: Path) -> None:
        import openvino
        import torch

        from nearfield.encode.tower import Tower

        tower = Tower.load(bundle(plan, model) / "model", attention="sdpa")
        # Of unequal length: nothing about padding may be constant in the trace.
        ids, mask = map(torch.from_numpy, tower.tokenizer.pad(tower.tokenizer(["a text to trace", "short"]).ids))
        free = openvino.PartialShape([-1, -1])
        inputs = [(name, free, openvino.Type.i64) for name in ("input_ids", "attention_mask")]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            openvino.save_model(openvino.convert_model(tower, example_input=(ids, mask), input=inputs), path, compress_to_fp16=False)

    return _made(plan, model, "openvino", "f32.xml", make)


def openvino_int8(plan: Plan, model: Model) -> Path:
    """NNCF's static int8 for transformers (with its smoothing and bias correction), calibrated on texts of the lengths that are timed."""

    def make(path: Path) -> None:
        import nncf
        import openvino
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(bundle(plan, model) / "model" / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(MAX_TOKENS)
        texts = [text for tokens in CALIBRATED for text in texts_of_length(plan, tokens, EACH)]
        samples = [dict(zip(("input_ids", "attention_mask"), padded([row.ids]), strict=True)) for row in tokenizer.encode_batch(texts)]
        plan.say(f"quantizing {model.name} with NNCF on {len(samples)} texts ({fingerprint(texts)}; once, a minute or two)")
        source = openvino.Core().read_model(openvino_f32(plan, model))
        made = nncf.quantize(source, nncf.Dataset(samples), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(samples))
        openvino.save_model(made, path, compress_to_fp16=False)

    return _made(plan, model, "nncf", "int8.xml", make)


def _made(plan: Plan, model: Model, library: str, name: str, make: Callable[[Path], None]) -> Path:
    """The file in a folder that names the library's version, so that a newer library makes its own."""
    folder = plan.cache / f"encoder-{model.short}-{library}-{metadata.version(library)}"
    path = folder / name
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"part-{name}"
        make(part)
        if path.suffix == ".xml":  # the weights lie beside it
            os.replace(part.with_suffix(".bin"), path.with_suffix(".bin"))
        os.replace(part, path)
    return path
