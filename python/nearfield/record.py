"""An evaluation's report on disk, and how its figures came about."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearfield.errors import InputError
from nearfield.files import whole_file

if TYPE_CHECKING:
    from nearfield.evaluate.evaluate import EvalReport


def check_file(out: Path, suffix: str) -> None:
    """Refuses a file that cannot be written, before the work that would fill it. Raises InputError."""
    if out.is_dir() or not out.parent.is_dir():
        problem = "a folder" if out.is_dir() else "its folder does not exist"
        raise InputError(f"{out}: {problem}; name a {suffix} file in a folder that exists")


def check_report(out: Path) -> None:
    """Refuses a report that cannot be written, before the evaluation. Raises InputError, or MissingExtraError without jinja2."""
    from nearfield.evaluate.report.page import open_templates

    open_templates()
    check_file(out, ".html")


def write_report(report: EvalReport, out: Path, *, model: str, command: str) -> None:
    """Writes an evaluation's report.html, which appears only when it is complete.

    Args:
        report: the evaluation, made with ``study=True`` where it shall show more than the verdict.
        out: the file.
        model: what was evaluated; a bundle's parity figures are shown as well.
        command: the command line that repeats it.

    Raises:
        InputError: ``out`` cannot be written.
        MissingExtraError: jinja2 is not installed.
    """
    from nearfield.bundle import Bundle, read_manifest
    from nearfield.evaluate.report.page import render

    manifest = read_manifest(Path(model)) if Bundle.is_bundle(model) else None
    page = render(report, exports=manifest, run=circumstances(command)).encode()
    with whole_file(out) as file:
        file.write(page)


def circumstances(command: str) -> dict[str, Any]:
    """Returns how figures came about: ``command``, ``date``, ``machine`` and ``versions``, as run.json and the report hold them."""
    from nearfield.info import info

    found = info()
    native, cpu = found["native"], found["cpu"]
    libraries = {name: version for name, version in found["libraries"].items() if version is not None}
    return {
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{cpu['model']}, {cpu['cores']} cores, target {native['active']}, {native['threads']} threads",
        "versions": {"nearfield": found["version"], "python": found["python"], **libraries},
    }


def command_line(name: str, data: str | Path, options: Mapping[str, object]) -> str:
    """Returns a command as one types it; options that are None are left out.

    >>> command_line("eval", "my pairs.jsonl", {"--model": "bundle", "--guard": None})
    "nearfield eval 'my pairs.jsonl' --model bundle"
    """
    given = [word for option, value in options.items() if value is not None for word in (option, str(value))]
    return shlex.join(["nearfield", name, str(data), *given])
