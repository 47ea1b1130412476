"""Packed weights on disk: made once for a model and a precision, then mapped, so that a start costs no packing and processes share pages.

A cache may vanish, be damaged, be read-only or be somebody else's at any time; whatever is wrong with it, the answer is to pack in memory.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from nearfield import _core
from nearfield._version import __version__
from nearfield.errors import InputError
from nearfield.types import ByteArray

_KIND = "encoder"
_BYTES = np.dtype(np.uint8)
_SUFFIX = ".packed"
# A writer that is killed leaves its temporary file; a model that is not used any more leaves its packed form.
_UNFINISHED_S = 86_400
_UNUSED_S = 90 * 86_400
# Packing takes about a second for 100 million parameters: whoever waits longer packs on its own.
_WAIT_S = 30.0


class _Packed(Protocol):
    @property
    def blob(self) -> ByteArray: ...


Model = TypeVar("Model", bound=_Packed)


def cache_folder() -> Path | None:
    """Where packed weights are kept, or None for nowhere.

    ``NEARFIELD_CACHE`` names the folder (empty or ``off``: none). Otherwise it is ``$XDG_CACHE_HOME/nearfield``, or ``~/.cache/nearfield``.

    >>> import os; before = os.environ.get("NEARFIELD_CACHE"); os.environ["NEARFIELD_CACHE"] = "/srv/cache"; cache_folder()
    PosixPath('/srv/cache')
    >>> os.environ["NEARFIELD_CACHE"] = "off"; cache_folder() is None
    True
    >>> _ = os.environ.pop("NEARFIELD_CACHE") if before is None else os.environ.update(NEARFIELD_CACHE=before)
    """
    named = os.environ.get("NEARFIELD_CACHE")
    if named is not None:
        return None if named in ("", "off") else Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):  # the specification: relative ones are to be ignored
        return Path(base) / "nearfield"
    with suppress(RuntimeError):  # an account without a home
        return Path.home() / ".cache" / "nearfield"
    return None


def cached(key: dict[str, Any], pack: Callable[[], Model], load: Callable[[ByteArray], Model]) -> tuple[Model, str]:
    """The packed model of a key: mapped from the cache, or packed, written there and mapped.

    Args:
        key: everything that the packed bytes depend on, as JSON can say it: hash of the weights, shape, precision, layout ...; this
            package's version is added. The file says its key, and one that says another is not used.
        pack: makes the model, with its bytes in ``blob``; called only when the cache has none.
        load: makes it from such bytes, which it keeps alive; it may raise InputError for bytes that it does not take.

    Returns:
        the model, and the path of its file or ``""`` where it lives in this process's memory alone.

    Raises:
        whatever ``pack`` raises; never because of the cache.
    """
    said = json.dumps(key | {"nearfield": __version__}, sort_keys=True).encode()
    folder = cache_folder()
    if folder is None or not _is_ours(folder):
        return pack(), ""
    path = folder / (hashlib.sha256(said).hexdigest()[:40] + _SUFFIX)
    found = _open(path, said, load)
    if found is not None:
        return found, str(path)
    with _turn(folder):
        found = _open(path, said, load)  # another process may have written it meanwhile
        if found is not None:
            return found, str(path)
        made = pack()
        try:
            _core.write_container(str(path), _KIND, [("key", said), ("blob", made.blob.data)])
        except InputError:  # read-only, full, gone
            return made, ""
    _tidy(folder)
    found = _open(path, said, load)
    return (found, str(path)) if found is not None else (made, "")


def _open(path: Path, said: bytes, load: Callable[[ByteArray], Model]) -> Model | None:
    """The model of a sound file of this key; None otherwise."""
    try:
        status = os.stat(path)
        if status.st_uid not in (0, os.geteuid()) or status.st_mode & stat.S_IWOTH:
            return None
        file = _core.Container.open(str(path), _KIND)
        if file.section("key") != said:
            return None
        model = load(file.array("blob", _BYTES))
    except (OSError, InputError):
        return None
    if time.time() - status.st_mtime > _UNFINISHED_S:
        with suppress(OSError):  # says that it is used; somebody else's read-only cache need not know
            os.utime(path)
    return model


def _is_ours(folder: Path) -> bool:
    """Makes the folder if need be; False where others could put weights into it, or where there can be none."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = os.stat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid in (0, os.geteuid()) and not status.st_mode & stat.S_IWOTH


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """One process at a time packs; where the file system has no locks, or the turn never comes, all do: the last file written stays."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        yield
        return
    try:
        begun = time.monotonic()
        while time.monotonic() - begun < _WAIT_S:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EINTR):
                    break
                time.sleep(0.01)
        yield
    finally:
        os.close(handle)


def _tidy(folder: Path) -> None:
    """Removes what killed writers left, and packed models that nobody has opened for three months."""
    with suppress(OSError):
        for path in list(folder.iterdir()):
            limit = _UNUSED_S if path.suffix == _SUFFIX else _UNFINISHED_S if path.name.endswith(".tmp") else None
            with suppress(OSError):
                if limit is not None and _SUFFIX in path.name and time.time() - path.stat().st_mtime > limit:
                    path.unlink()
