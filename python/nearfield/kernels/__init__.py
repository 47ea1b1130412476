"""Scores and top-k behind one signature, and which code computes them."""

from __future__ import annotations

from typing import Any

from nearfield import _core
from nearfield.kernels.choice import backend_name


def backend() -> dict[str, Any]:
    """What the native engine found and uses, for ``nearfield.info``.

    Returns:
        ``targets``: list of ``{"name", "needs", "built", "runs_here"}``; ``active``: the target used; ``forced``: the target forced by
        ``NEARFIELD_TARGET`` or by a test, or None; ``kernels``: for each kernel, the target its code names from inside its own file;
        ``threads``: what a call with ``threads=None`` gets; ``scorer``: ``"native"``, or
        ``"numba"`` where ``NEARFIELD_BACKEND`` chooses it.

    Raises:
        InputError: ``NEARFIELD_TARGET``, ``NEARFIELD_THREADS`` or ``NEARFIELD_BACKEND`` holds something that cannot be used.

    >>> backend()["active"] in {row["name"] for row in backend()["targets"] if row["runs_here"]}
    True
    """
    return {
        "targets": _core.targets(),
        "active": _core.active_target(),
        "forced": _core.forced_target() or None,
        "kernels": _core.kernel_targets(),
        "threads": _core.resolve_threads(0),
        "scorer": backend_name(),
    }
