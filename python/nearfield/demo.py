"""The demo: the main job on real text that is already here, the documentation inside installed Python packages."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearfield.config import EvaluationPrecision, TuneConfig
from nearfield.data.harvest import harvest
from nearfield.data.split import split
from nearfield.data.write import write_beir
from nearfield.errors import InputError
from nearfield.texts import index_file
from nearfield.workflow import TuneReport, peak_memory, tune

if TYPE_CHECKING:
    from nearfield.data.dataset import Dataset

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Size:
    """How much of the documentation is used; chosen for the time it takes on two cores.

    Attributes:
        documents: documents harvested at most.
        config: how the model is tuned: pairs, and the sub-corpus on which training watches itself.
    """

    documents: int
    config: TuneConfig


# The demo has no general set whose loss would be noticed: no pieces. It measures in bfloat16 where the CPU multiplies that: of two models
# on the same documents the difference is what counts, and encoding them is most of the time.
# Encoding 8,000 documents twice and training on 4,000 pairs are the bulk of the full demo's time; everything else is a tenth of it.
FULL = Size(8000, TuneConfig(pieces=0, evaluation="auto", max_pairs=4000, dev_queries=300, dev_documents=600))
# Twelve steps of 32 pairs: fewer steps move a model too little, and smaller batches have too few negatives for this learning rate.
QUICK = Size(
    800,
    TuneConfig(
        pieces=0, evaluation="auto", max_pairs=384, batch_size=32, dev_queries=80, dev_documents=160, eval_every=0.5, merge_trials=1
    ),
)

# Questions about things every Python installation documents; the answers show what changed, the figures say by how much.
QUESTIONS = (
    "read lines of a file lazily",
    "estimate how spread out the values are",
    "stop early when the loss no longer improves",
)
SHOWN = 3


def run(out: Path, *, quick: bool = False, threads: int | None = None, progress: bool = True, say: Say = print) -> dict[str, Any]:
    """Harvests, tunes, evaluates, exports, indexes and answers questions; returns what it did as JSON-ready values.

    Args:
        out: the folder for everything it makes: ``data``, ``bundle``, ``index``.
        quick: a small part, under three minutes on two cores.
        threads: threads to use; None takes every core.
        progress: shows bars on stderr.
        say: where the lines for people go.

    Raises:
        InputError: ``out`` holds something that no demo made, or too little documentation is installed.
    """
    start = time.monotonic()
    _claim(out)
    size = QUICK if quick else FULL
    say("Harvesting API documentation from the installed packages: a summary line is the query, the rest of its docstring the document.")
    dataset = split(harvest(limit=size.documents, progress=progress))
    counts = {name: len(queries) for name, queries in dataset.qrels.items()}
    say(f"{len(dataset.doc_ids)} documents; queries: " + ", ".join(f"{number} {name}" for name, number in counts.items()))
    write_beir(dataset, out / "data")
    vectors = out / "vectors"
    report = tune(
        dataset, out=out / "bundle", config=size.config, threads=threads, progress=progress, cache=vectors, keep_base=out / "base",
        command=shlex.join(["nearfield", "demo", *(["--quick"] if quick else []), "--out", str(out)]),
    )  # fmt: skip
    precision = size.config.evaluation
    built = index_file(
        dataset, str(out / "bundle"), out / "index", threads=threads, progress=progress, cache=vectors, precision=precision
    )  # fmt: skip
    answers = _answer(dataset, out, precision, threads=threads, progress=progress)
    for question, before, after in answers:
        say(f"\n{question!r}")
        say(f"    {'base':<58}tuned")
        for left, right in zip(before, after, strict=True):
            say(f"    {left[:56]:<58}{right[:56]}")
    minutes = (time.monotonic() - start) / 60
    say("\n" + describe(report))
    say(f"\nMade in {minutes:.1f} minutes, at most {peak_memory() / 2**30:.1f} GiB of memory:")
    made = (
        ("data", "the documentation as a BEIR folder"),
        ("base", "the base model, exported the same way"),
        ("bundle", "the model to deploy"),
        ("bundle/report.html", "the report to show; open it in a browser"),
        ("index", f"{built['documents']} documents, {built['index']}"),
    )
    for name, what in made:
        say(f"  {out / name}: {what}")
    say(f'Try it: nearfield search {out / "index"} "{QUESTIONS[0]}"')
    return {
        **report.to_dict(),
        "minutes": round(minutes, 2),
        "index": built,
        "answers": [{"query": question, "base": list(before), "tuned": list(after)} for question, before, after in answers],
    }


def describe(report: TuneReport) -> str:
    """Returns a tuning run's outcome as text: the table with the verdict, how it was made, where the bundle is."""
    stages = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in report.seconds.items())
    return "\n".join(
        [
            str(report.evaluation),
            f"training: {report.pairs_per_second:.1f} pairs/s in {report.dtype}",
            *(f"note: {note}" for note in report.notes),
            f"merge: {report.alpha:.2f} of the tuned weights; {stages}; peak memory {report.peak_memory / 2**30:.1f} GiB",
            f"bundle: {report.bundle} (report: {report.bundle / 'report.html'})",
        ]
    )


def _claim(out: Path) -> None:
    """Makes ``out``, or takes over the folder of an earlier demo; anybody else's files are left alone."""
    mark = out / ".nearfield-demo"
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not mark.exists())):
        raise InputError(f"{out}: exists and was not made by the demo; choose another folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    mark.touch()


def _answer(
    dataset: Dataset, out: Path, precision: EvaluationPrecision, *, threads: int | None, progress: bool
) -> list[tuple[str, list[str], list[str]]]:
    """Asks base and tuned the same questions over the same documents; returns the names of what each finds, best first."""
    from nearfield.evaluate.precision import open_for_evaluation
    from nearfield.evaluate.run import corpus_vectors, exact_ranking
    from nearfield.search.folder import IndexFolder
    from nearfield.search.searcher import Searcher

    opened = IndexFolder.open(out / "index")
    tuned = Searcher(opened.model, opened.index, threads=threads).search(list(QUESTIONS), SHOWN)
    with open_for_evaluation(out / "base", precision, threads=threads) as base:
        documents, _, _ = corpus_vectors(dataset.doc_texts, base, cache=out / "vectors", show=progress)
        ids, _ = exact_ranking(base.encode(list(QUESTIONS), kind="query"), documents, dataset.doc_ids, depth=SHOWN, threads=threads)
    return [
        (question, [str(name) for name in before], [str(name) for name in after])
        for question, before, after in zip(QUESTIONS, ids, tuned.ids, strict=True)
    ]
