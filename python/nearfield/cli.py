"""The command line: a thin layer that turns words into calls and results into text.

Progress goes to stderr, results to stdout, ``--json`` makes them one JSON document. Exit codes: 0 done; 1 done, and the answer is no;
2 bad input, with one line that says what, where and how to mend it; 130 interrupted.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import click

from nearfield.clitext import Duration, hit_rows, int8_figures, plain, print_native, snippet
from nearfield.config import ExportConfig, Int8Method
from nearfield.errors import InputError, NearfieldError
from nearfield.files import reason_of

if TYPE_CHECKING:
    from nearfield.data.dataset import Finding
    from nearfield.encode.encoder import PrecisionName
    from nearfield.export.export import ExporterName
    from nearfield.types import Kind

EXIT_NO, EXIT_INPUT, EXIT_INTERRUPTED = 1, 2, 130

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
quiet_option = click.option("--quiet", is_flag=True, help="No progress on stderr.")
columns_option = click.option("--columns", metavar="NAME=YOURS,...", help="Other column names: query=question,positive=answer.")
threads_option = click.option("--threads", type=click.IntRange(min=1), help="Threads to use (default: every core).")
path = click.Path(path_type=Path)


def _version(context: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked and not context.resilient_parsing:
        from nearfield.info import version_line

        click.echo(version_line())
        context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
def cli() -> None:
    """Turn your own documents into a retriever that is measured, small and fast."""


@cli.command()
@click.option("--quick", is_flag=True, help="A small part of the documentation, under three minutes.")
@click.option("--out", type=path, default=Path("nearfield-demo"), show_default=True, help="Folder for what it makes.")
@threads_option
@json_option
@quiet_option
def demo(quick: bool, out: Path, threads: int | None, as_json: bool, quiet: bool) -> int:
    """The whole way on documentation found on this machine; no network needed."""
    from nearfield.demo import run

    result = run(out, quick=quick, threads=threads, progress=not quiet, say=_quiet if as_json else click.echo)
    if as_json:
        _print_json(result)
    return 0


@cli.command()
@click.argument("data", type=path)
@click.option("--base", metavar="MODEL", help="A folder or hub name, or several with commas: the best on dev (default: all-MiniLM-L6-v2).")
@click.option("--out", type=path, default=Path("bundle"), show_default=True, help="The bundle's folder.")
@click.option("--guard", type=path, help="General-knowledge data with judgements; a drop on it blocks the verdict.")
@click.option("--config", type=path, help="JSON file of options, or the run.json of a bundle.")
@click.option("--budget", type=Duration(), metavar="TIME", help="Time for training and merging: 90s, 10m, 1.5h.")
@click.option("--query-only", is_flag=True, help="Train a tower for queries alone; indexes of the base stay valid.")
@click.option("--ladder", type=click.Choice(["adapter", "auto"]), help="auto: cheap ways first, dearer ones while dev is surely better.")
@click.option("--events", type=path, metavar="FOLDER", help="Also write TensorBoard event files of the training.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint of an interrupted run.")
@columns_option
@threads_option
@json_option
@quiet_option
def tune(
    data: Path, base: str | None, out: Path, guard: Path | None, config: Path | None, budget: float | None, query_only: bool,
    ladder: Literal["adapter", "auto"] | None, events: Path | None, resume: bool, columns: str | None, threads: int | None,
    as_json: bool, quiet: bool,
) -> int:  # fmt: skip
    """Fine-tune on DATA, export, and measure base against tuned. Exit 1 says: do not ship."""
    from nearfield.workflow import tune as run

    report = run(
        data, base=base, out=out, guard=guard, config=config, budget=budget, query_only=query_only or None, ladder=ladder,
        events=events, resume=resume,
        columns=_columns(columns), threads=threads,
        progress=not quiet, on_findings=_findings(quiet),
    )  # fmt: skip
    if as_json:
        _print_json(report.to_dict())
    else:
        from nearfield.demo import describe

        click.echo(describe(report))
    return EXIT_NO if report.verdict == "do not ship" else 0


@cli.command("eval")
@click.argument("data", type=path)
@click.option("--model", required=True, help="A bundle, a sentence-transformers folder or a hub name.")
@click.option("--compare", metavar="MODEL", help="The model to compare with, for example the base.")
@click.option("--guard", type=path, help="General-knowledge data with judgements (with --compare).")
@click.option("--split", default="test", show_default=True, help="Which judgements.")
@click.option("--report", type=path, metavar="FILE.html", help="Also write the report: slices, sizes, latency, a map of the corpus.")
@columns_option
@threads_option
@json_option
@quiet_option
def evaluate_command(
    data: Path, model: str, compare: str | None, guard: Path | None, split: str, report: Path | None, columns: str | None,
    threads: int | None, as_json: bool, quiet: bool,
) -> int:  # fmt: skip
    """Measure a model on DATA's judgements; with --compare, exit 1 says: do not ship."""
    from nearfield.data.read import read
    from nearfield.evaluate.evaluate import evaluate
    from nearfield.record import check_report, command_line, write_report

    if report is not None:
        check_report(report)
    dataset = read(data, columns=_columns(columns))
    found = evaluate(
        dataset, model, split=split, compare=compare, guard=guard, threads=threads, study=report is not None, progress=not quiet
    )
    if report is not None:
        options = {"--model": model, "--compare": compare, "--guard": guard, "--split": split, "--columns": columns, "--threads": threads}
        write_report(found, report, model=model, command=command_line("eval", data, {**options, "--report": report}))
    _print_json(found.to_dict()) if as_json else click.echo(str(found))
    if report is not None and not as_json:
        click.echo(f"report: {report}")
    return EXIT_NO if found.verdict is not None and found.verdict.answer == "do not ship" else 0


@cli.command()
@click.argument("checkpoint", metavar="CHECKPOINT")
@click.option("--out", type=path, required=True, help="The bundle's folder.")
@click.option("--data", type=path, help="Data with judgements: keeps in float32 whatever int8 would make retrieval worse by.")
@click.option(
    "--int8", type=click.Choice(get_args(Int8Method)), default=ExportConfig().int8, show_default=True, help="How the int8 graph is made."
)
@click.option(
    "--exporter", type=click.Choice(["auto", "own", "optimum"]), default="auto", show_default=True,
    help="Who writes the graph; auto asks Optimum, where it is installed, for what ours cannot export.",
)  # fmt: skip
@columns_option
@json_option
@quiet_option
def export(
    checkpoint: str, out: Path, data: Path | None, int8: Int8Method, exporter: ExporterName, columns: str | None, as_json: bool, quiet: bool
) -> int:
    """Make a bundle (fp32 and int8 ONNX, checked against torch) of a sentence-transformers folder."""
    from nearfield.data.read import read
    from nearfield.data.split import split
    from nearfield.encode.models import resolve_model
    from nearfield.export.export import export_bundle
    from nearfield.export.query import query_side_of

    dataset = None if data is None else split(read(data, columns=_columns(columns)))
    bundle = export_bundle(
        resolve_model(checkpoint), out, texts=dataset.doc_texts if dataset else None, parity_data=dataset, base=checkpoint, config={},
        data_fingerprint=None, progress=not quiet, settings=ExportConfig(int8=int8),
        exporter=exporter, **query_side_of(checkpoint),
    )  # fmt: skip
    parity, graphs = bundle.manifest["parity"], bundle.manifest["graphs"]
    if note := parity.get("int8", {}).get("note"):
        click.echo(f"nearfield: {note}", err=True)
    if as_json:
        made = {"bundle": str(out), "fingerprint": bundle.fingerprint, "exporter": graphs["model.onnx"]["exporter"]}
        _print_json({**made, "parity": parity, "graphs": graphs})
    else:
        by = " by Optimum's exporter" if graphs["model.onnx"]["exporter"] == "optimum" else ""
        click.echo(f"{out}: fp32{by} within {parity['fp32']['max_abs_diff']:.1e} of torch{int8_figures(parity.get('int8'))}")
    return 0


@cli.command()
@click.argument("texts", type=path)
@click.option("--model", required=True, help="A bundle, a sentence-transformers folder or a hub name.")
@click.option("--out", type=path, required=True, help="The .npy file of float32 rows, in the order of the texts.")
@click.option(
    "--kind", type=click.Choice(["document", "query"]), default="document", show_default=True, help="Which prompt the model applies."
)
@click.option("--precision", type=click.Choice(["auto", "fp32", "int8", "bf16", "fp16"]), default="auto", show_default=True)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:<number>.")
@columns_option
@threads_option
@json_option
@quiet_option
def encode(
    texts: Path,
    model: str,
    out: Path,
    kind: Kind,
    precision: PrecisionName,
    device: str,
    columns: str | None,
    threads: int | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Turn the documents of TEXTS (JSONL, CSV, TSV, Parquet or a BEIR folder) into vectors."""
    from nearfield.texts import encode_file

    done = encode_file(
        texts, model, out, kind=kind, precision=precision, device=device, columns=_columns(columns), threads=threads, progress=not quiet,
        on_findings=_findings(quiet),
    )  # fmt: skip
    _print_json(done) if as_json else click.echo(
        f"{out}: {done['rows']} x {done['dim']} float32, {done['truncated']} texts cut at {done['max_tokens']} tokens"
    )
    return 0


@cli.command()
@click.argument("data", type=path)
@click.option("--model", required=True, help="A bundle (or a model folder) that encodes the documents.")
@click.option("--out", type=path, required=True, help="The index folder.")
@columns_option
@threads_option
@json_option
@quiet_option
def index(data: Path, model: str, out: Path, columns: str | None, threads: int | None, as_json: bool, quiet: bool) -> int:
    """Encode DATA's documents and build an index folder: index, texts, the model's path and fingerprint."""
    from nearfield.texts import index_file

    done = index_file(
        data, model, out, columns=_columns(columns), threads=threads, progress=not quiet, on_findings=_findings(quiet)
    )  # fmt: skip
    _print_json(done) if as_json else click.echo(f"{out}: {done['documents']} documents, {done['index']}")
    return 0


@cli.command()
@click.argument("folder", metavar="INDEX", type=path)
@click.argument("query")
@click.option("-k", default=10, show_default=True, help="Results to return.")
@click.option("--model", help="The model, where it is no longer at the path the index remembers.")
@threads_option
@json_option
def search(folder: Path, query: str, k: int, model: str | None, threads: int | None, as_json: bool) -> int:
    """Search an index folder with a QUERY."""
    from nearfield.search.folder import IndexFolder
    from nearfield.search.searcher import Searcher

    opened = IndexFolder.open(folder)
    searcher = Searcher(opened.model if model is None else model, opened.index, threads=threads)
    hits = searcher.search([query], k)
    results = list(hit_rows(hits, opened.text))
    if as_json:
        _print_json({"query": query, "results": results})
    else:
        for row in results:
            click.echo(f"{row['rank']:>3}  {row['score']:.4f}  {row['id']}  {snippet(row['text'])}")
    return 0


@cli.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench(arguments: tuple[str, ...]) -> int:
    """Run the benchmark suite (from a checkout of the repository): bench [SUITE ...] [--quick] [--plan] [--data FILE] [--json FILE]."""
    import importlib.util

    sys.path.insert(0, os.getcwd())
    if importlib.util.find_spec("benchmarks") is None or importlib.util.find_spec("benchmarks.__main__") is None:
        raise InputError(f"bench: no benchmarks folder in {os.getcwd()}; run it from a checkout of the repository")
    from importlib import import_module

    run: Callable[[Sequence[str]], int] = import_module("benchmarks.__main__").main
    return run(list(arguments))


@cli.command()
@click.argument("target", metavar="[PATH]", type=path, required=False)
@json_option
def info(target: Path | None, as_json: bool) -> int:
    """What this installation is and what it found on this machine; or what the bundle or index at PATH says of itself."""
    from nearfield.info import describe
    from nearfield.info import info as installation

    found = installation() if target is None else describe(target)
    if as_json:
        _print_json(found)
        return 0
    native = found.pop("native") if target is None else None
    for key, value in found.items():
        if isinstance(value, dict):
            click.echo(f"{key}:{'' if value else ' none'}")
            for name, item in value.items():
                click.echo(f"  {name}: {'not installed' if key == 'libraries' and item is None else plain(item)}")
        else:
            click.echo(f"{key}: {plain(value)}")
    if native is not None:
        print_native(native)
    return 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command and exits with its code; every expected failure is one line on stderr."""
    try:
        code = cli.main(args=list(arguments) if arguments is not None else None, prog_name="nearfield", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = EXIT_INPUT
    except (KeyboardInterrupt, click.Abort) as stop:
        # Tuning says here how to go on from its checkpoint; click turns a Ctrl-C into an Abort and keeps the original as its cause.
        advice = str(stop) or str(stop.__cause__ or stop.__context__ or "")
        click.echo(f"nearfield: interrupted{': ' if advice else ''}{advice}", err=True)
        code = EXIT_INTERRUPTED
    except NearfieldError as error:
        click.echo(f"nearfield: {error}", err=True)
        code = EXIT_INPUT
    except SystemExit:
        # click leaves this way when the reader of our output went away (`| head`): what it read was right.
        code = 0
    except (OSError, MemoryError) as error:
        click.echo(f"nearfield: {_system_error(error)}", err=True)
        code = EXIT_INPUT
    if arguments is None:
        # The answer is out, and letting go of torch takes a second or two in which Python no longer handles signals: a Ctrl-C there would
        # end a finished command as if it had been interrupted.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # A Ctrl-C inside an exec of a string, as in a library's import, stays noted as unhandled although it was handled here, and Python
        # would end itself by SIGINT in place of 130. The next exec of a string takes the note back (run_eval_code_obj in pythonrun.c).
        exec("")
    sys.exit(code if isinstance(code, int) else 0)


def _system_error(error: OSError | MemoryError) -> str:
    if isinstance(error, MemoryError):
        return "out of memory; use a smaller batch_size, or fewer documents at a time"
    where = f"{error.filename}: " if error.filename else "standard output or a temporary file: " if error.errno == errno.ENOSPC else ""
    return f"{where}{reason_of(error)}"


def _findings(quiet: bool) -> Callable[[list[Finding]], None] | None:
    """What is wrong with the data, or other than in a run that is repeated, goes to stderr, before the long work starts."""
    from nearfield.data.check import summarize
    from nearfield.repeat import REPEAT_DIFFERS

    def show(findings: list[Finding]) -> None:
        if findings and all(finding.kind == REPEAT_DIFFERS for finding in findings):
            lines = [f"warning: {finding.where}: {finding.message}" for finding in findings]
        else:
            lines = ["data check:", summarize(findings)]
        click.echo("\n".join(lines), err=True)

    return None if quiet else show


def _columns(text: str | None) -> dict[str, str] | None:
    from nearfield.data.fields import parse_columns

    return None if text is None else parse_columns(text)


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, allow_nan=False))


def _quiet(text: str = "") -> None:
    """Says nothing: with --json, only the document stands on stdout."""
