"""What a forked child of a process with onnxruntime needs in order to end."""

from __future__ import annotations

import ctypes
import os
import sys


def _end_without_destructors() -> None:
    """In a forked child: makes a normal exit skip the destructors of C++ globals, and keeps its status.

    onnxruntime 1.32 starts a thread when it is imported, and its global destructor joins it; in a child that thread does not exist,
    and ``sys.exit`` there hangs or aborts, even if the child never encodes and whoever imported the library. glibc runs exit handlers
    last in, first out, so one added now ends the process before that destructor. Python has flushed its files and run ``atexit`` by then.
    """
    if "onnxruntime" not in sys.modules:
        return
    libc = ctypes.CDLL(None)
    on_exit = getattr(libc, "on_exit", None)  # glibc only
    if on_exit is not None:
        on_exit(libc._exit, None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_end_without_destructors)
