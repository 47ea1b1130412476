"""Which functions of a library or an object hold AVX, AVX-512 or AMX instructions, by the disassembler."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

# Registers beyond SSE, mask registers, and the encoding of AVX on the short registers; tiles.
WIDE = re.compile(r"%[yz]mm\d|%k[1-7]\b|%tmm\d|\tv[a-z0-9]+ +[^\n]*%xmm|\t(?:vzeroupper|ldtilecfg|tilerelease)")
FUNCTION = re.compile(r"^[0-9a-f]+ <(.*)>:$")


def wide_functions(path: Path) -> dict[str, int]:
    """Demangled name -> wide instructions in it; functions of the same name are added up."""
    command = ["objdump", "-d", "-C", "--no-show-raw-insn", str(path)]
    found: dict[str, int] = {}
    name = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as listing:
        assert listing.stdout is not None
        for line in listing.stdout:
            if head := FUNCTION.match(line):
                name = head[1]
            elif WIDE.search(line):
                found[name] = found.get(name, 0) + 1
    assert listing.returncode == 0, command
    return found


def out_of_place(found: dict[str, int]) -> dict[str, int]:
    """Those functions that are no kernel of ours: an older CPU could run them.

    >>> out_of_place({"nf::kernels::scan(int)": 9, "void nf::kernels::run<4>()": 2, "std::vector<int>::push_back(int&&)": 1})
    {'std::vector<int>::push_back(int&&)': 1}
    """
    return {name: count for name, count in found.items() if not re.match(r"(?:[\w:*&<> ]+ )?nf::kernels::", name)}


def shared_text(path: Path) -> set[str]:
    """Functions of an object of which the linker keeps one copy for all objects that have them."""
    done = subprocess.run(["nm", "--defined-only", "-P", str(path)], capture_output=True, text=True, check=True)
    return {parts[0] for line in done.stdout.splitlines() if (parts := line.split())[1] in "WVu"}


def needed(path: Path) -> list[str]:
    """The shared libraries that the dynamic loader opens for it."""
    done = subprocess.run(["objdump", "-p", str(path)], capture_output=True, text=True, check=True)
    return re.findall(r"NEEDED\s+(\S+)", done.stdout)
