"""The step that is taken where int8 fails the export's gate: a short tuning towards int8, the gate once more, and the better of the two."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearfield.config import TuneConfig
from nearfield.data.dataset import Dataset, Finding
from nearfield.progress import progress as show_progress

if TYPE_CHECKING:
    from nearfield.bundle import Bundle

# Training texts that the step may draw from; it reads some 1,000.
TEXTS = 1_000


@dataclass(frozen=True)
class Mended:
    """What came of it.

    Attributes:
        bundle: the better one.
        entry: for the history in ``run.json``: kind "int8-aware", ``kept``, cosines and ``ndcg_*`` before and after.
        finding: the same for people.
    """

    bundle: Bundle
    entry: dict[str, Any]
    finding: Finding


def failed(bundle: Bundle, *, query_side: bool) -> bool:
    """Whether the int8 graph of the tower that was trained was measured and is not good enough."""
    return _int8(bundle, query_side).get("passed") is False


def mend(
    first: Bundle,
    model: Path,
    dataset: Dataset,
    config: TuneConfig,
    work: Path,
    export: Callable[[Path, Path], Bundle],
    *,
    query_side: bool = False,
    progress: bool = True,
) -> Mended:
    """Tunes a copy of ``model`` towards int8 and exports it; the first bundle stays unless the second is surely allowed in its place.

    The second is kept when its gate passes and neither its fp32 nor its int8 graph is further below the *first* fp32 graph, in nDCG@10 on
    the same held-out queries, than ``int8_max_loss`` allows: the float weights have moved too, and may not pay for int8. No label is read.

    Args:
        first: the bundle whose int8 graph failed.
        model: the folder of the trained tower.
        dataset: its training texts are read.
        config: the run's options.
        work: a folder for the copy (``work/int8-aware``) and its bundle, begun anew where an earlier session left them.
        export: writes a bundle of a model folder: (model, out).
        query_side: the tower is the one for queries.
        progress: shows a bar on stderr.

    Raises:
        InputError: the loss is not finite.
    """
    from nearfield.config import ExportConfig
    from nearfield.encode.tower import Tower
    from nearfield.tune.quantaware import STEPS, teach_rounding
    from nearfield.tune.train import tokenizers

    taught = work / "int8-aware"
    for folder in (taught, work / "made-int8"):
        shutil.rmtree(folder, ignore_errors=True)
    query_ids_of, doc_ids_of = tokenizers(model, config)
    queries = dataset.queries_of("train")[1]
    documents = [] if query_side else _some(dataset.doc_texts, config.seed)
    texts = [*doc_ids_of(documents), *query_ids_of(_some(queries, config.seed))]
    tower = Tower.load(model)
    if config.int8 == "none":
        raise ValueError("a bundle without int8 has nothing to mend")
    with show_progress("tuning towards int8", STEPS, enabled=progress) as bar:
        figures = teach_rounding(tower, texts, config, config.int8, bar=bar)
    tower.save(taught)
    second = export(taught, work / "made-int8" / first.path.name)
    before, after = _int8(first, query_side), _int8(second, query_side)
    old, new, limit = before["retrieval"], after["retrieval"], ExportConfig().int8_max_loss
    kept = bool(after["passed"]) and min(new["ndcg_fp32"], new["ndcg_int8"]) >= old["ndcg_fp32"] - limit
    entry = {
        "kind": "int8-aware", "kept": kept, **figures, "exported_cosine_before": before["mean_cosine"],
        "exported_cosine_after": after["mean_cosine"],
        **{f"ndcg_{graph}_{when}": side[f"ndcg_{graph}"] for when, side in (("before", old), ("after", new)) for graph in ("fp32", "int8")},
    }  # fmt: skip
    return Mended(second if kept else first, entry, Finding("int8-aware", "export", sentence(entry), "info" if kept else "warning"))


def sentence(entry: Mapping[str, Any]) -> str:
    """One line about the step."""
    end = "the tuned weights are kept" if entry["kept"] else "that is not enough, and the model stays as it was"
    return (
        f"int8 failed its gate, so {entry['steps']} steps without labels taught the model its rounding: nDCG@10 of int8 "
        f"{entry['ndcg_int8_before']:.3f} to {entry['ndcg_int8_after']:.3f} (fp32 {entry['ndcg_fp32_before']:.3f} to "
        f"{entry['ndcg_fp32_after']:.3f}), cosine of int8 to fp32 {entry['exported_cosine_before']:.4f} to "
        f"{entry['exported_cosine_after']:.4f}; {end}"
    )


def _int8(bundle: Bundle, query_side: bool) -> dict[str, Any]:
    described: Mapping[str, Any] = (bundle.query or {}) if query_side else bundle.manifest
    found: dict[str, Any] = described.get("parity", {}).get("int8", {})
    return found


def _some(texts: list[str], seed: int) -> list[str]:
    """At most ``TEXTS`` of them, chosen by the seed."""
    import numpy as np

    return [texts[i] for i in np.random.default_rng((seed, 4)).permutation(len(texts))[:TEXTS]]
