"""The whole way in one call: read and check the data, tune, export, measure base against tuned, judge, and write it all into the bundle."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearfield.config import ExportConfig, Ladder, TuneConfig
from nearfield.data.check import check
from nearfield.data.dataset import Dataset, Finding
from nearfield.data.read import read
from nearfield.data.split import split
from nearfield.data.structure import few_pairs, with_pairs
from nearfield.errors import InputError
from nearfield.int8aware import failed, mend
from nearfield.record import circumstances, command_line
from nearfield.repeat import RUN_FORMAT, Recorded, choose_threads, describe_run, place_of, read_config
from nearfield.types import FloatArray

if TYPE_CHECKING:
    from nearfield.bundle import Bundle
    from nearfield.evaluate.evaluate import EvalReport
    from nearfield.ladder import Climbed
    from nearfield.tune.train import TrainResult

# Documents whose vectors show that the exported graph is the trained model; parity is about the graph, so a few of every length do.
PARITY_TEXTS = 64

OnFindings = Callable[[list[Finding]], None]


@dataclass(frozen=True, slots=True)
class TuneReport:
    """What a tuning run made and measured.

    Attributes:
        bundle: the folder that was written, whatever the verdict.
        verdict: ``"ship"``, ``"marginal"`` or ``"do not ship"``.
        sentence: the verdict with its figures, for people.
        evaluation: base against tuned on the held-out test split, guard included.
        findings: what the data check found.
        alpha: share of the tuned weights in the shipped ones (0 is the base, 1 the tuned model).
        dtype: the number format of training, and why it was taken.
        notes: what a user should know about the run, one line each.
        pairs_per_second: training speed.
        seconds: wall time by stage.
        peak_memory: most resident memory of this process so far, bytes.
    """

    bundle: Path
    verdict: str
    sentence: str
    evaluation: EvalReport
    findings: list[Finding]
    alpha: float
    dtype: str
    notes: list[str]
    pairs_per_second: float
    seconds: dict[str, float]
    peak_memory: int

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as JSON-ready values."""
        return {
            "bundle": str(self.bundle),
            "report": str(self.bundle / "report.html"),
            "verdict": self.verdict,
            "sentence": self.sentence,
            "evaluation": self.evaluation.to_dict(),
            "findings": [f"{found.severity}: {found.where}: {found.message}" for found in self.findings],
            "alpha": self.alpha,
            "dtype": self.dtype,
            "notes": self.notes,
            "pairs_per_second": round(self.pairs_per_second, 2),
            "seconds": {stage: round(value, 1) for stage, value in self.seconds.items()},
            "peak_memory": self.peak_memory,
        }


def tune(
    data: str | Path | Dataset,
    *,
    base: str | Path | None = None,
    out: str | Path = "bundle",
    config: TuneConfig | Mapping[str, Any] | str | Path | None = None,
    guard: str | Path | Dataset | None = None,
    progress: bool = True,
    budget: float | None = None,
    query_only: bool | None = None,
    ladder: Ladder | None = None,
    events: str | Path | None = None,
    resume: bool = False,
    columns: Mapping[str, str] | None = None,
    threads: int | None = None,
    cache: str | Path | None = None,
    keep_base: str | Path | None = None,
    command: str | None = None,
    on_findings: OnFindings | None = None,
) -> TuneReport:
    """Fine-tunes ``base`` on ``data``, exports it and measures whether it is better. Needs ``nearfield[train]``.

    Splits that the data bring are kept; missing ones are made so that no query, document or near-duplicate stands on both sides.
    The bundle is always written; whether to use it is the verdict's word.

    Args:
        data: a JSONL, CSV or Parquet file of pairs, a BEIR folder, or a Dataset. Documents alone ask their own questions
            (``nearfield.data.structure``); the verdict is then about such questions, and a finding says so.
        base: a sentence-transformers folder or a hub name, or several with commas between, of which the best on dev is taken (or a clearly
            faster one that is not surely worse, ``nearfield.evaluate.bakeoff``). None: the packaged all-MiniLM-L6-v2
            (``nearfield[demo]``).
        out: the bundle's folder. An existing bundle there is replaced, anything else is refused. Checkpoints live beside it in
            ``<out>.work`` until the run is complete.
        config: a TuneConfig, a mapping of its fields, or a JSON file: of fields, or the ``run.json`` of an earlier bundle. None: defaults.
            A ``run.json`` also gives base, guard, columns and thread counts where the call names none, and on the same machine, with the
            same data and versions, the same bits come out; what differs is a warning for ``on_findings`` and in the notes.
        guard: a data set of general knowledge with judgements; a drop on it beyond ``config.guard_max_drop`` blocks the verdict.
        progress: shows bars on stderr.
        budget: seconds for training and merging (export and evaluation come on top); takes the place of ``config.budget_seconds``.
        query_only: trains a second tower for queries and leaves the documents' vectors as the base (a bundle, for one) makes them: an index
            made with it stays valid. Takes the place of ``config.query_only``; None leaves that.
        ladder: "auto": climbs from the base to an adapter, queries alone, the upper half of the layers and all of them while dev is surely
            better each time (``nearfield.ladder``); "adapter": the first rung alone. Takes the place of ``config.ladder``.
        events: a folder for TensorBoard's event files of the training (needs tensorboard); None writes none.
        resume: goes on from the checkpoint of an interrupted run with the same data, base and config.
        columns: other column names, canonical name -> the data's name.
        threads: threads of training, encoding and search; None: torch's own choice for training (the physical cores), all cores for the
            rest (``NEARFIELD_THREADS`` caps both).
        cache: a folder that keeps corpus vectors, so that an index built next need not encode again; None keeps none.
        keep_base: a folder for the base's own bundle, to compare with later; None removes it at the end.
        command: the command line that repeats the run, for the report; None makes it from the arguments where ``data`` and ``guard``
            are paths.
        on_findings: called with what the data check found, before training starts.

    Raises:
        InputError: data, config, base or ``out`` cannot be used; the message says what, where and how to mend it.
        MissingExtraError: torch or another part of ``nearfield[train]`` is not installed.
    """
    from nearfield.evaluate import bakeoff
    from nearfield.evaluate.precision import open_for_evaluation
    from nearfield.evaluate.run import corpus_vectors
    from nearfield.export.writer import check_replaceable, publish

    settings, recorded = read_config(config)
    if budget is not None:
        settings = dataclasses.replace(settings, budget_seconds=budget)
    if query_only is not None:
        settings = dataclasses.replace(settings, query_only=query_only)
    if ladder is not None:
        settings = dataclasses.replace(settings, ladder=ladder)
    if settings.ladder != "none" and settings.query_only:
        raise InputError(
            f"config: query_only: true given together with ladder {settings.ladder}, one of the two expected; auto tries queries alone too"
        )
    base, guard, columns = base or recorded.base, guard or recorded.guard, columns or recorded.columns
    clock = _Clock()
    out = Path(out)
    # Refused now rather than after the training.
    check_replaceable(out)
    work = out.with_name(out.name + ".work")
    with clock.stage("data"):
        dataset = few_pairs(split(with_pairs(read(data, columns=columns), settings.seed), seed=settings.seed))
        guard_set = None if guard is None else read(guard)
        findings = [*dataset.findings, *check(dataset, progress=progress)]
        if on_findings is not None:
            on_findings(findings)
        _require_judgements(dataset, "data")
        if guard_set is not None:
            _require_judgements(guard_set, "guard", ("test",))

    if base is not None and len(candidates := bakeoff.named(base)) > 1:
        with clock.stage("bake-off"):
            compared = bakeoff.bake_off(dataset, candidates, seed=settings.seed, threads=threads, show=progress)
        base = compared[0].name
        findings.append(Finding("bake-off", "base", bakeoff.describe(compared), "info"))
        if on_findings is not None:
            on_findings(findings[-1:])

    from nearfield.encode.models import resolve_model
    from nearfield.export.export import export_bundle
    from nearfield.ladder import climb
    from nearfield.tune.checkpoints import discard
    from nearfield.tune.threads import torch_threads
    from nearfield.tune.train import train

    base_folder = resolve_model(base)
    used = choose_threads(threads, recorded)
    run = describe_run(settings, base_folder, dataset, guard_set, used)
    differences = recorded.differences(run)
    if differences and on_findings is not None:
        on_findings(differences)
    base_name = str(base) if base is not None else "all-MiniLM-L6-v2"
    shared: dict[str, Any] = {
        "texts": dataset.doc_texts[:PARITY_TEXTS],
        "base": base_name,
        "data_fingerprint": dataset.fingerprint,
        "progress": progress,
    }
    # The base is exported as well: both sides of the comparison then run on the same engine, several times faster than torch.
    export_base = partial(
        export_bundle, base_folder, keep_base or work / "base", parity_data=None, config={}, settings=ExportConfig(int8="none"), **shared
    )  # fmt: skip
    climbed: Climbed | None = None
    with torch_threads(used.training):
        documents, base_bundle = None, None
        run_training = partial(
            train, dataset, base_folder, guard=guard_set, resume=resume, about=run, progress=progress,
            events=None if events is None else Path(events),
        )  # fmt: skip
        if settings.query_only or settings.ladder != "none":
            # Made once, for training and for both sides of the comparison.
            cache = cache or work / "vectors"
            with clock.stage("documents"):
                base_bundle = export_base()
                documents = _vectors(dataset, base_bundle, settings, cache=cache, progress=progress, threads=used.encoding)
        with clock.stage("train"):
            if settings.ladder != "none" and documents is not None and base_bundle is not None:
                opened = partial(open_for_evaluation, precision=settings.evaluation, threads=used.encoding)
                with opened(base_bundle.path) as encoder:
                    climbed = climb(
                        dataset, guard_set, encoder, base_folder, settings, documents=documents, open_model=opened,
                        train=lambda name, options: run_training(options, work=work / name, documents=documents),
                        guard_documents=lambda: corpus_vectors(guard_set.doc_texts, encoder, cache=cache, show=progress)[0]
                        if guard_set else documents,
                    )  # fmt: skip
                result = climbed.result_for(base_folder)
            else:
                result = run_training(settings, work=work, documents=documents)
        differences += Recorded(str(work), tables=result.begun_with).differences(run)
        with clock.stage("export"):
            # Beside the checkpoints until it has its verdict: an interrupted evaluation leaves ``out`` and what is there alone.
            int8 = ExportConfig(int8=settings.int8, int8_documents=min(ExportConfig().int8_documents, settings.dev_documents))
            one_side = climbed.name == "query-only" if climbed else settings.query_only

            def export(model: Path, folder: Path) -> Bundle:
                return export_bundle(
                    base_folder if one_side else model, folder, parity_data=dataset, config=settings.to_dict(), settings=int8,
                    query_model=model if one_side else None, query_map=climbed.matrix if climbed else None, **shared,
                )  # fmt: skip

            bundle = export(result.model, work / "made" / out.name)
            # Where no weights were trained (the base, an adapter) the documents' vectors were promised to stay.
            if settings.int8_aware and result.steps and result.alpha and failed(bundle, query_side=one_side):
                mended = mend(bundle, result.model, dataset, settings, work, export, query_side=one_side, progress=progress)
                bundle, result = mended.bundle, dataclasses.replace(result, history=[*result.history, mended.entry])
                findings.append(mended.finding)
                if on_findings is not None:
                    on_findings([mended.finding])
            base_bundle = base_bundle or export_base()
        with clock.stage("evaluate"):
            report = _measure(dataset, bundle, base_bundle, guard_set, settings, cache=cache, progress=progress, threads=used.encoding)
    if report.verdict is None:
        raise RuntimeError("evaluate gave no verdict although a model to compare with was given")
    made = TuneReport(
        bundle=out,
        verdict=report.verdict.answer,
        sentence=report.verdict.sentence,
        evaluation=report,
        findings=[*differences, *findings],
        alpha=result.alpha,
        dtype=result.dtype_reason,
        notes=[*(f"{found.where}: {found.message}" for found in differences), *result.notes, *_export_notes(bundle)],
        pairs_per_second=result.pairs_per_second,
        seconds=dict(clock.seconds),
        peak_memory=peak_memory(),
    )
    if command is None and not isinstance(data, Dataset) and not isinstance(guard, Dataset):
        named = ",".join(f"{name}={theirs}" for name, theirs in (columns or {}).items()) or None
        options = {"--base": base, "--out": out, "--guard": guard, "--columns": named, "--threads": threads, "--config": out / "run.json"}
        command = command_line("tune", data, options)
    call = {
        "command": command or "",
        "base": base_name if base is None else place_of(base),
        "guard": place_of(guard) if isinstance(guard, (str, Path)) else None,
        "columns": dict(columns) if columns else None,
    }
    publish(_complete(bundle, made, settings, result, call | run), out)
    discard(work)
    return made


def peak_memory() -> int:
    """Returns the most resident memory this process has had, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts kibibytes


def _measure(
    dataset: Dataset,
    bundle: Bundle,
    base_bundle: Bundle,
    guard: Dataset | None,
    settings: TuneConfig,
    *,
    cache: str | Path | None,
    progress: bool,
    threads: int | None,
) -> EvalReport:
    from nearfield.evaluate.evaluate import evaluate
    from nearfield.evaluate.precision import open_for_evaluation

    opened = partial(open_for_evaluation, precision=settings.evaluation, threads=threads)
    with opened(bundle.path) as tuned, opened(base_bundle.path) as base:
        return evaluate(
            dataset, tuned, compare=base, guard=guard, guard_limit=settings.guard_max_drop, cache=cache, progress=progress, threads=threads,
            study=True,
        )  # fmt: skip


def _vectors(dataset: Dataset, base: Bundle, settings: TuneConfig, *, cache: str | Path, progress: bool, threads: int | None) -> FloatArray:
    """The documents' vectors by the base, as the evaluation will find them in the cache."""
    from nearfield.evaluate.precision import open_for_evaluation
    from nearfield.evaluate.run import corpus_vectors

    with open_for_evaluation(base.path, settings.evaluation, threads=threads) as encoder:
        return corpus_vectors(dataset.doc_texts, encoder, cache=cache, show=progress)[0]


def _complete(bundle: Bundle, made: TuneReport, settings: TuneConfig, result: TrainResult, about: Mapping[str, Any]) -> Bundle:
    """Returns the bundle with what was measured: metrics, verdict, report, the run's own description and the model card."""
    from nearfield.evaluate.report.page import render
    from nearfield.export.card import model_card
    from nearfield.export.writer import update

    shown = circumstances(about["command"])
    run = {
        "run_format": RUN_FORMAT,
        "config": settings.to_dict(),
        "data": made.evaluation.data,
        "seed": settings.seed,
        "dtype": result.dtype,
        "dtype_reason": result.dtype_reason,
        "history": result.history,
        "seconds": made.to_dict()["seconds"],
        "peak_memory": made.peak_memory,
        "date": shown["date"],
        **about,
    }
    metrics = made.evaluation.to_dict()
    manifest = {**bundle.manifest, "metrics": metrics, "verdict": {"answer": made.verdict, "sentence": made.sentence}}
    return update(
        bundle,
        files={
            "run.json": (json.dumps(run, indent=1) + "\n").encode(),
            "report.html": render(made.evaluation, findings=made.findings, exports=bundle.manifest, run=run | shown).encode(),
            "README.md": model_card(manifest).encode(),
        },
        metrics=manifest["metrics"],
        verdict=manifest["verdict"],
    )


def _export_notes(bundle: Bundle) -> list[str]:
    """What the export had to do to keep int8 as good as fp32, or that it could not."""
    notes = [bundle.manifest["parity"].get("int8", {}).get("note")]
    if bundle.query is not None:
        note = bundle.query.get("parity", {}).get("int8", {}).get("note")
        notes.append(note and f"the query tower: {note}")
        notes.append(f"documents keep the vectors of {bundle.manifest['base']}: an index made with it stays valid")
    return [note for note in notes if note]


def _require_judgements(dataset: Dataset, role: str, splits: tuple[str, ...] = ("train", "test")) -> None:
    for name in splits:
        if not dataset.qrels.get(name):
            have = (
                ", ".join(f"{split_name} ({len(queries)} queries)" for split_name, queries in dataset.qrels.items())
                or "no judgements at all"
            )
            raise InputError(
                f"{role}: {dataset.source}: no {name} judgements (it has {have}); give query-positive pairs, or qrels/{name}.tsv"
            )


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = time.monotonic() - start
