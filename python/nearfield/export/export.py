"""From a sentence-transformers folder to a bundle: copy, export, fuse, quantize, measure, write."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from nearfield.bundle import Bundle
from nearfield.config import ExportConfig
from nearfield.encode.fingerprint import space_fingerprint
from nearfield.encode.spec import read_spec
from nearfield.errors import InputError, MissingExtraError
from nearfield.export.card import model_card
from nearfield.export.copy import copy_model
from nearfield.export.writer import BundleWriter
from nearfield.progress import progress as show_progress
from nearfield.types import FloatArray

if TYPE_CHECKING:
    from nearfield.data.dataset import Dataset

# Enough texts for a stable mean cosine (its spread over texts is about 0.003), few enough for seconds.
MEASURED_TEXTS = 64
_STEPS = 2
_VERSIONS = ("torch", "transformers", "onnx", "onnxruntime", "tokenizers", "numpy")
_OPTIMUM = ("optimum", "optimum-onnx")

ExporterName = Literal["auto", "own", "optimum"]
EXPORTERS = get_args(ExporterName)

# Used where no texts are given. Short and long, several scripts, numbers, code, punctuation.
TEXTS = (
    "a",
    "How do I sort a list?",
    "Returns the largest value along an axis, ignoring missing entries.",
    "The committee met on 14 March 2019 and approved the budget of $1,250,000 for the northern district.",
    "def mean(values):\n    return sum(values) / len(values)",
    "Aspirin is used to reduce fever and to relieve mild pain; it should not be given to children with a viral infection.",
    "Où se trouve la gare la plus proche ? Elle est à deux rues d'ici, en face du marché.",
    "Это предложение написано кириллицей, чтобы проверить редкие слова.",
    "東京は日本の首都です。",
    "error: connection refused (111) while connecting to upstream, client: 10.0.0.7, server: localhost",
    "Rivers carry sediment from mountains to the sea, where it settles in layers. Over millions of years these layers harden into rock, "
    "and movements of the crust lift them up again. Geologists read their order like the pages of a book: the oldest lie below.",
    "What is the difference between a process and a thread?",
)


@dataclass(frozen=True)
class _Source:
    """What describes a bundle besides its model."""

    base: str
    config: Mapping[str, Any]
    data_fingerprint: str | None
    verdict: Mapping[str, Any] | None


def export_bundle(
    model: str | Path,
    out: str | Path,
    *,
    texts: Sequence[str] | None = None,
    parity_data: Dataset | None = None,
    base: str | None = None,
    config: Mapping[str, Any] | None = None,
    data_fingerprint: str | None = None,
    verdict: Mapping[str, Any] | None = None,
    progress: bool = True,
    settings: ExportConfig | None = None,
    exporter: ExporterName = "auto",
    query_model: str | Path | None = None,
    query_map: FloatArray | None = None,
) -> Bundle:
    """Makes a bundle of a model folder. all-MiniLM-L6-v2 takes about 30 s on 2 cores without ``parity_data``.

    Args:
        model: a folder in the sentence-transformers layout, or a plain transformers one.
        out: the bundle's folder. A bundle there is replaced in one step at the very end; anything else there is refused at once.
        texts: what parity and int8 cosines are measured on (the first 64), and the golden texts (the first 8); None or empty: built-in.
        parity_data: with a dev or test split: measures what int8 costs in nDCG@10 and gives the worst products back to float32 until
            the limits of ``settings`` hold; None leaves that out, and the manifest says so.
        base: the name of the base model for the manifest; None: the folder's name.
        config: what made the model, written to ``run.json``.
        data_fingerprint: of the training data, for the manifest.
        verdict: for the manifest, where it is known already.
        progress: shows the steps on stderr.
        settings: how the int8 graph is made and what it may cost; None: the defaults. ``ExportConfig(int8="none")`` saves half the time
            where a model is only compared with.
        exporter: ``"own"``, ``"optimum"`` (``nearfield[optimum]``, in an environment of its own), or ``"auto"`` (default): Optimum's only
            where ours gives no graph within 1e-5 of torch. The manifest says which one made the graph.
        query_model: another model folder with the same dimensions, lengths and prompts, which encodes queries alone; the bundle's
            fingerprint is that of ``model``, whose document vectors stay what they are.
        query_map: float32 ``(dim, dim)``: a query's unit vector q becomes q + q A, after either model.

    Returns:
        the opened bundle. Its fp32 graph passed; ``manifest["parity"]["int8"]["passed"]`` may be False (or None: unmeasured); the int8
        graph is written all the same, for whoever accepts the loss. Where the gate acted, ``["note"]`` beside it says so in a line.

    Raises:
        InputError: the model cannot be read or exported, or the ONNX graph differs from torch by more than 1e-5; ``out`` is in the way;
            Optimum is asked for beside a version of transformers that it does not work with.
        MissingExtraError: torch, transformers or onnx is not installed, or Optimum where it is asked for.
    """
    if exporter not in EXPORTERS:
        raise InputError(f"exporter: {exporter!r} given, one of {', '.join(EXPORTERS)} expected")
    _require_extras()
    from nearfield.encode.tower import Tower
    from nearfield.export.fp32 import write_fp32
    from nearfield.export.int8 import NAME, make_int8
    from nearfield.export.onnx_graph import count_nodes
    from nearfield.export.optimum import check_optimum
    from nearfield.export.query import native_plan, query_side, write_golden

    if exporter == "optimum":
        check_optimum()
    folder = Path(model)
    spec = read_spec(folder)
    source = _Source(base or folder.resolve().name, config or {}, data_fingerprint, verdict)
    settings = settings or ExportConfig()
    _check_int8(settings, texts, parity_data)
    given = [text for text in texts or () if text.strip()] or list(TEXTS)
    kept = given[:MEASURED_TEXTS]
    with BundleWriter(out) as writer:
        with show_progress(f"exporting {source.base}", _STEPS, enabled=progress) as bar:
            copy_model(folder, writer.folder / "model")
            # What is shipped is what is measured: from here on only the copy is read.
            tower = Tower.load(writer.folder / "model")
            tower.folder = folder  # errors name what the caller gave
            bar.advance(note="model copied")
            golden = write_golden(tower, kept, writer.folder / "golden.npz")
            onnx_folder = writer.folder / "onnx"
            onnx_folder.mkdir()
            fp32 = write_fp32(tower, kept, onnx_folder, exporter)
            bar.advance(note=f"fp32 checked, attention {'fused' if fp32.fused_offline else 'left as it is'}")
        made_by = {"exporter": fp32.exporter, "fused_offline": fp32.fused_offline}
        graphs: dict[str, Any] = {"model.onnx": {**made_by, "nodes": count_nodes(onnx_folder / "model.onnx")}}
        parity: dict[str, Any] = {"fp32": fp32.parity}
        if settings.int8 != "none":
            made = make_int8(
                tower, onnx_folder, kept, settings, all_texts=given, data=parity_data, progress=progress
            )  # fmt: skip
            graphs[NAME], parity["int8"] = {**graphs["model.onnx"], **made.graph}, made.parity
        native = native_plan(tower, writer.folder / "model", kept) if settings.int8 != "none" else {}
        side = query_side(
            tower, writer.folder, query_model, query_map, kept, settings, all_texts=given, data=parity_data, exporter=exporter,
            progress=progress,
        )  # fmt: skip
        fields = {
            **native,
            **side,
            "kind": "encoder",
            "fingerprint": space_fingerprint(writer.folder / "model", spec),
            "dim": spec.dim,
            "max_tokens": spec.max_tokens,
            "pooling": spec.pooling,
            "normalize": spec.normalize,
            "prompts": spec.prompts,
            "base": source.base,
            "data_fingerprint": source.data_fingerprint,
            "metrics": None,
            "verdict": source.verdict,
            "parity": parity,
            "graphs": graphs,
            "golden": golden,
            "versions": _versions(graphs),
        }
        (writer.folder / "README.md").write_text(model_card(fields), encoding="utf-8")
        run = {
            "base": source.base, "data": source.data_fingerprint, "config": dict(source.config), "export": dataclasses.asdict(settings),
            "versions": fields["versions"],
        }  # fmt: skip
        (writer.folder / "run.json").write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
        return writer.finish(fields)


def _versions(graphs: Mapping[str, Any]) -> dict[str, str]:
    names = [*_VERSIONS, *(_OPTIMUM if graphs["model.onnx"]["exporter"] == "optimum" else ())]
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}


def _check_int8(settings: ExportConfig, texts: Sequence[str] | None, data: Dataset | None) -> None:
    """Refuses at once what the int8 graph could not be made of."""
    from nearfield.export.parity import held_out

    if settings.int8 == "static" and not texts and data is None:
        raise InputError("int8: 'static' is calibrated on your own texts and none were given; give data or texts, or take 'rows'")
    if settings.int8 != "none" and data is not None:
        held_out(data)


def _require_extras() -> None:
    for name in ("torch", "transformers", "onnx"):
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            raise MissingExtraError("exporting a model", "train", name) from None
