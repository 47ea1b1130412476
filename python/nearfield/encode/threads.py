"""How many threads a call may use."""

from __future__ import annotations

import os

from nearfield.errors import InputError


def thread_count(threads: int | None = None) -> int:
    """The caller's number, or the CPUs this process may run on; ``NEARFIELD_THREADS`` caps both.

    Raises:
        InputError: not a whole number from 1, in the argument or in the variable.

    >>> thread_count(1)
    1
    """
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise InputError(f"threads: {threads!r} given, a whole number >= 1 or None expected")
    wanted = threads if threads is not None else _available()
    cap = os.environ.get("NEARFIELD_THREADS", "")
    if not cap:
        return wanted
    if not cap.isascii() or not cap.isdigit() or int(cap) < 1:
        raise InputError(f"NEARFIELD_THREADS={cap!r}: a whole number >= 1 expected")
    return min(wanted, int(cap))


def _available() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(affinity(0)) if affinity else os.cpu_count() or 1
