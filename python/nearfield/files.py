"""Files and folders that appear whole or not at all, and errors of the disk as one line."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from nearfield.errors import InputError

# linux/fs.h; Linux 3.15 and glibc 2.28 have it, the common file systems know it (ext4, xfs, btrfs, tmpfs, overlay).
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100
# What renameat2 answers where the kernel or the file system cannot exchange two folders.
_CANNOT_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EXDEV)
# How the names of unfinished files and folders end; all of them begin with a dot.
PARTIAL = ".partial"
# A folder without a lock that is younger may be one whose maker is about to lock it.
_LEFT_BEHIND_S = 60


def reason_of(error: OSError) -> str:
    """Why the system refused, in a few words; numpy raises OSError without a number for a disk that is full.

    >>> reason_of(OSError(28, "No space left on device")), reason_of(OSError("12 requested and 0 written"))
    ('No space left on device', '12 requested and 0 written')
    """
    return error.strerror or str(error).partition("\n")[0] or type(error).__name__


def cannot_write(path: str | os.PathLike[str], error: OSError) -> InputError:
    """The error for a path that cannot be written."""
    return InputError(f"{os.fspath(path)}: cannot be written ({reason_of(error)}): free some space, or name a place that can be written")


@contextmanager
def whole_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a path to write to, for a library that opens files itself; the file takes its place only when the block ends well.

    The bytes reach the disk before the name does, so that a crash of the machine leaves the old file or the new one, too.

    Raises:
        InputError: it cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(6)}{PARTIAL}")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        with suppress(OSError):
            partial.unlink()


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Gives a file to write; what is at ``path`` stays until the block ends well. Raises as ``whole_path``.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with whole_file(Path(folder) / "x") as file:
    ...         _ = file.write(b"abc")
    ...     (Path(folder) / "x").read_bytes(), os.listdir(folder)
    (b'abc', ['x'])
    """
    with whole_path(path) as partial, partial.open("xb") as file:
        yield file


def is_partial(name: str) -> bool:
    """Whether a file or folder of this name is an unfinished one, left behind by a process that was killed.

    >>> is_partial("b/.manifest.json.0a1b2c3d4e5f.partial"), is_partial("manifest.json")
    (True, False)
    """
    last = name.rsplit("/", 1)[-1]
    return last.startswith(".") and last.endswith(PARTIAL)


@contextmanager
def building(out: Path) -> Iterator[Path]:
    """Gives a hidden folder beside ``out`` to build in, removed at the end unless ``put_in_place`` moved it.

    It is locked while its maker lives: unlocked ones for the same ``out`` were left behind by a kill, and are removed first.

    Raises:
        InputError: no folder can be made there, or what the block writes into it does not fit on the disk.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_behind(out)
        # mkdtemp would make it private to its owner, which a bundle or an index is not.
        folder = out.parent / f".{out.name}.{secrets.token_hex(6)}{PARTIAL}"
        folder.mkdir()
    except OSError as error:
        raise InputError(f"{out}: cannot be made ({reason_of(error)}): name a folder that can be written") from None
    lock = os.open(folder, os.O_RDONLY)
    try:
        _locked(lock)
        yield folder
    except Exception as error:
        # Libraries in C++ write on silently where the disk is full, and trip over their own truncated files later.
        _refuse_where_full(out, folder)
        if not isinstance(error, OSError) or (error.filename and not str(error.filename).startswith(str(folder))):
            raise
        raise cannot_write(out, error) from None
    finally:
        os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)


def _refuse_where_full(out: Path, folder: Path) -> None:
    """Raises InputError if the disk, or the one of temporary files, does not take once more what is in ``folder``, a MiB at least."""
    size = max(1 << 20, sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))
    for place, named in ((folder, out), (Path(tempfile.gettempdir()), Path(tempfile.gettempdir()))):
        try:
            with tempfile.TemporaryFile(dir=place) as file:
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise cannot_write(named, error) from None


def _remove_left_behind(out: Path) -> None:
    prefix = f".{out.name}."
    for path in out.parent.iterdir():
        middle = path.name.removeprefix(prefix).removesuffix(PARTIAL)
        if path.name != f"{prefix}{middle}{PARTIAL}" or len(middle) != 12 or not path.is_dir():
            continue
        with suppress(OSError):
            lock = os.open(path, os.O_RDONLY)
            try:
                if time.time() - os.fstat(lock).st_mtime > _LEFT_BEHIND_S and _locked(lock):
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)


def _locked(handle: int) -> bool:
    """Takes the lock of an open folder; False where another process has it, or where the file system has no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def sync_folder(folder: Path) -> None:
    """Makes a folder's entries survive a crash of the machine."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def put_in_place(new: Path, out: Path) -> None:
    """Moves the folder ``new`` to ``out`` on the same disk; what stood there is removed.

    Where the system can exchange two folders, ``out`` is the old folder or the new one at every moment, also for kill -9. Elsewhere (NFS)
    the old one is renamed first, and a kill just then leaves it beside ``out``, complete, in a hidden folder that ends in ``.old``.

    Raises:
        InputError: it cannot be moved; ``out`` is as it was.
    """
    try:
        if not out.exists():
            os.rename(new, out)
        elif _exchange(new, out):
            shutil.rmtree(new, ignore_errors=True)
        else:
            _rename_twice(new, out)
        sync_folder(out.parent)
    except OSError as error:
        raise cannot_write(out, error) from None


def _rename_twice(new: Path, out: Path) -> None:
    aside = out.with_name(f".{out.name}.{secrets.token_hex(6)}.old")
    try:
        os.rename(out, aside)
        os.rename(new, out)
    except BaseException:
        if not out.exists():
            os.rename(aside, out)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Swaps two folders in one step; False where that cannot be done here."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), os.fspath(other))
