"""AMX in a process that serves: permission for the tiles after a fork, beside libraries that use them too, and where it is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from nearfield import _core
from test_service import run

AMX = next(row for row in _core.targets() if row["name"] == "amx")
pytestmark = pytest.mark.skipif(not (AMX["built"] and AMX["runs_here"]), reason="this CPU has no AMX, or this process may not use it")

# Enough rows and queries for whole tiles and rests of them; exact answers, so that every target has to give the same bits.
INDEX = """
import os, signal, sys, threading
import numpy as np
import nearfield as nf
from nearfield import _core

signal.alarm(280)
rng = np.random.default_rng(3)
rows, queries = rng.standard_normal((5003, 97)).astype(np.float32), rng.standard_normal((67, 97)).astype(np.float32)

def search(index, threads=3):
    hits = index.search(queries, 7, threads=threads)
    return hits.ids.tobytes() + hits.scores.tobytes()

def built():
    index = nf.FlatIndex(97, storage="int8", threads=3)
    index.add(rows)
    return index

def scalar(index):
    _core.force_target("scalar")
    found = search(index)
    _core.force_target("")
    return found
"""

FORKS = (
    INDEX
    + """
before = sys.argv[1] == "used before the fork"

def child(index):
    # Proof that tiles are what answers: the kernel's file names itself, after a scan has loaded them.
    _core.force_target("amx")
    problems = []
    def call():
        found = search(index)
        if found != expected:
            problems.append("another answer")
    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert not problems, problems
    assert _core.kernel_targets()["scan_i8"] == "amx"

index = built()
expected = scalar(index)
_core.force_target("amx")
if before:
    assert search(index) == expected
def forked(generations):
    pid = os.fork()
    if pid == 0:
        signal.alarm(280)
        try:
            child(index)
            if generations > 1:
                forked(generations - 1)
        except BaseException as problem:
            print(repr(problem), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
for _ in range(2):
    forked(2)
child(index)
print("done")
"""
)


@pytest.mark.parametrize("moment", ["used before the fork", "first used in the child"])
def test_children_and_their_children_may_use_the_tiles(moment: str) -> None:
    assert run(FORKS, moment) == "done\n"


BESIDE = (
    INDEX
    + """
import torch
torch.set_num_threads(2)
index = built()
expected = scalar(index)
_core.force_target("amx")
encoder = nf.Encoder(sys.argv[1], backend="onnx", precision="int8", threads=2)
texts = sys.argv[2:]
vectors = encoder.encode(texts)
left, right = (torch.from_numpy(rng.standard_normal((256, 256)).astype(np.float32)).bfloat16() for _ in range(2))
product = left @ right
exact = left.double() @ right.double()
assert (product.double() - exact).abs().max() < 0.01 * exact.abs().max()  # bfloat16 keeps 8 bits
uses = {
    "nearfield": lambda: search(index) == expected,
    "torch": lambda: torch.equal(left @ right, product),
    "onnxruntime": lambda: np.array_equal(encoder.encode(texts), vectors),
}
problems = []
def each_in_turn(shift):
    for i in range(6):
        name = list(uses)[(i + shift) % 3]
        if not uses[name]():
            problems.append(name)
def one_alone(name):
    for _ in range(6):
        if not uses[name]():
            problems.append(name)
threads = [threading.Thread(target=each_in_turn, args=(shift,)) for shift in range(3)]
threads += [threading.Thread(target=one_alone, args=(name,)) for name in uses]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not problems, problems
print("done")
"""
)


def test_others_that_use_the_tiles_in_the_same_threads_are_not_disturbed(tiny_bundle: Path) -> None:
    """oneDNN (torch's bfloat16) and onnxruntime (int8) configure tiles of their own: a configuration left behind breaks the next."""
    assert run(BESIDE, tiny_bundle, "how to sort a list", "a tree of numbers", "search", timeout=300) == "done\n"


SMALL_STACK = """
import ctypes, sys
class Stack(ctypes.Structure):
    _fields_ = [("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]
def alternate(size):
    memory = ctypes.create_string_buffer(size)
    kept.append(memory)
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.sigaltstack(ctypes.byref(Stack(ctypes.addressof(memory), 0, size)), None)
kept = []
size = 6000  # holds AVX-512's registers and not the 8 KiB of tiles
if sys.argv[1] == "before":
    assert alternate(size) == 0
"""
REST = """
index = built()
found = search(index)
assert found == scalar(index)
late = alternate(size) if sys.argv[1] == "after" else 0
print(_core.active_target(), _core.kernel_targets()["scan_i8"] == "amx", late)
"""


def test_a_signal_stack_too_small_for_tiles() -> None:
    """Set before the import, the kernel grants no tiles and the next target answers; set after it, the kernel refuses the stack."""
    name, tiles, _ = run(SMALL_STACK + INDEX + REST, "before").split()
    assert (name, tiles) == ("avx512vnni", "False")
    name, _, late = run(SMALL_STACK + INDEX + REST, "after").split()
    assert (name, late) == ("amx", "-1")


def test_pythons_own_fault_handler_leaves_room_for_tiles() -> None:
    assert run("import faulthandler; faulthandler.enable()\nfrom nearfield import _core; print(_core.active_target())") == "amx\n"
    assert sys.platform == "linux"
