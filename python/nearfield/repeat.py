"""What a tuning run was made of, as ``run.json`` keeps it: enough to repeat the run, and to say what differs when it is repeated.

The same data, base, guard, options, thread counts and versions on the same machine give the same bits: weights, ONNX files, metrics. What
is not the same is said, not refused: a run is also repeated to see what a new version changes.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from nearfield._version import __version__
from nearfield.config import TuneConfig, read_options
from nearfield.data.dataset import Dataset, Finding
from nearfield.encode.threads import thread_count
from nearfield.errors import FormatError

RUN_FORMAT = 1
# The kind of finding that says so.
REPEAT_DIFFERS = "repeat-differs"
# The tables of run.json that are compared, name by name; the first are the caller's, the others the machine's.
_COMPARED = ("inputs", "threads", "machine", "versions")
_LIBRARIES = ("numpy", "onnx", "onnxruntime", "safetensors", "tokenizers", "torch", "transformers", "bm25s")


@dataclass(frozen=True, slots=True)
class Threads:
    """Threads of a run: ``training`` are torch's, ``encoding`` onnxruntime's and the search's. Sums are divided among them."""

    training: int
    encoding: int


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a ``run.json`` says about the run it describes; empty where a run begins from options alone.

    Attributes:
        where: the file, for messages.
        base, guard, columns, threads: what the run was called with; None where nothing is recorded.
        tables: what is compared, by table and name.
    """

    where: str = ""
    base: str | None = None
    guard: str | None = None
    columns: dict[str, str] | None = None
    threads: Threads | None = None
    tables: Mapping[str, Mapping[str, Any]] | None = None

    def differences(self, present: Mapping[str, Any]) -> list[Finding]:
        """What of ``present`` (see ``describe_run``) is not as it was recorded; names that only one of the two has are not compared."""
        found = []
        for table, values in (self.tables or {}).items():
            for name, value in present[table].items():
                if name in values and values[name] != value:
                    message = (
                        f"{table}: {name} was {_short(values[name])}, is {_short(value)}: weights and figures may differ from that run's"
                    )
                    found.append(Finding(REPEAT_DIFFERS, self.where, message, "warning"))
        return found


def read_config(config: TuneConfig | Mapping[str, Any] | str | Path | None) -> tuple[TuneConfig, Recorded]:
    """Returns the options of whatever ``tune`` accepts as a config, and what a ``run.json`` recorded besides them.

    Raises:
        InputError: options that cannot be used; the message names the file and the key.
        FormatError: a ``run.json`` of a newer version, or a damaged one.

    >>> read_config({"epochs": 3})[0].epochs
    3
    """
    if config is None:
        return TuneConfig(), Recorded()
    if isinstance(config, TuneConfig):
        return config, Recorded()
    if isinstance(config, Mapping):
        return TuneConfig.from_dict(config), Recorded()
    values = read_options(config)
    if "run_format" not in values:
        return TuneConfig.from_dict(values, where=str(config)), Recorded()
    where = str(config)
    version = values["run_format"]
    if type(version) is not int or not 1 <= version <= RUN_FORMAT:
        raise FormatError(f"{where}: run_format: {version!r:.80} given, 1 to {RUN_FORMAT} expected: upgrade nearfield")
    options = _part(values, "config", where)
    tables = {name: _part(values, name, where) for name in _COMPARED}
    columns = _part(values, "columns", where)
    if not all(isinstance(name, str) for name in columns.values()):
        raise FormatError(f"{where}: columns: texts expected")
    threads = _threads(tables["threads"], where)
    recorded = Recorded(where, _text(values, "base", where), _text(values, "guard", where), columns or None, threads, tables)
    return TuneConfig.from_dict(options, where=f"{where}: config"), recorded


def choose_threads(threads: int | None, recorded: Recorded) -> Threads:
    """The caller's number, else the recorded ones, else torch's own choice and every CPU; ``NEARFIELD_THREADS`` caps the last two."""
    if threads is not None:
        return Threads(thread_count(threads), thread_count(threads))
    if recorded.threads is not None:
        return recorded.threads
    from nearfield.tune.threads import default_threads

    return Threads(thread_count(default_threads()), thread_count())


def place_of(name: str | os.PathLike[str]) -> str:
    """A path as one that is right in any folder; what is no path (a hub name) as it is.

    >>> place_of("intfloat/e5-small-v2")
    'intfloat/e5-small-v2'
    """
    return os.path.abspath(name) if Path(name).exists() else os.fspath(name)


def describe_run(config: TuneConfig, base: Path, dataset: Dataset, guard: Dataset | None, threads: Threads) -> dict[str, dict[str, Any]]:
    """The tables that a run's bits depend on, besides its options."""
    from nearfield.info import cpu_model
    from nearfield.kernels import backend
    from nearfield.tune.precision import choose_device, choose_dtype, instruction_set
    from nearfield.tune.train import fingerprint_of

    native, device = backend(), choose_device(config.device)
    return {
        "inputs": {"data": dataset.fingerprint, "base": fingerprint_of(base), "guard": None if guard is None else guard.fingerprint},
        "threads": {"training": threads.training, "encoding": threads.encoding},
        "machine": {
            "cpu": cpu_model(), "platform": platform.platform(), "kernels": native["active"], "scorer": native["scorer"],
            "torch kernels": instruction_set(), "device": device, "dtype": choose_dtype(config.dtype, device)[0],
        },
        "versions": {"nearfield": __version__, "python": platform.python_version(), **_versions()},
    }  # fmt: skip


def _threads(table: Mapping[str, Any], where: str) -> Threads | None:
    if not table:
        return None
    training, encoding = table.get("training"), table.get("encoding")
    if type(training) is not int or type(encoding) is not int or not (1 <= training <= 2**16 and 1 <= encoding <= 2**16):
        raise FormatError(f"{where}: threads: {dict(table)!r:.80} given, whole numbers from 1 to 65536 for training and encoding expected")
    return Threads(training, encoding)


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _part(values: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    part = values.get(name)
    if part is not None and not isinstance(part, dict):
        raise FormatError(f"{where}: {name}: {part!r:.80} given, a JSON object expected")
    return part or {}


def _text(values: Mapping[str, Any], name: str, where: str) -> str | None:
    text = values.get(name)
    if text is not None and not isinstance(text, str):
        raise FormatError(f"{where}: {name}: {text!r:.80} given, a text expected")
    return text


def _short(value: Any) -> str:
    """A fingerprint by its first digits, the rest as it is."""
    text = str(value)
    return f"{text[:16]}..." if len(text) == 64 and text.isalnum() else text if value is not None else "none"
