"""Which code runs: the table of targets, forcing one, the proof that it ran, and no wide instruction outside the kernel files."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import nearfield as nf
from nearfield import _core
from nearfield.kernels import backend

ROOT = Path(__file__).resolve().parent.parent
NAMES = ["scalar", "avx2", "avxvnni", "avx512", "avx512vnni", "amx", "neon_dotprod", "neon_i8mm"]
TABLE = {row["name"]: row for row in _core.targets()}
USABLE = [name for name, row in TABLE.items() if row["built"] and row["runs_here"]]


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "python"), **environment}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120, check=False)


def test_the_table_lists_every_target() -> None:
    assert list(TABLE) == NAMES
    assert TABLE["scalar"]["built"]
    assert TABLE["scalar"]["runs_here"]
    assert all(row["needs"] for row in TABLE.values())


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists() or sys.platform != "linux", reason="needs /proc/cpuinfo")
def test_detection_agrees_with_the_kernel() -> None:
    flags = set(re.search(r"^(?:flags|Features)\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.M).group(1).split())  # type: ignore[union-attr]
    base = {"avx2", "fma", "f16c"}
    wide = base | {"avx512f", "avx512bw", "avx512vl", "avx512dq"}
    needs = {
        "avx2": base, "avxvnni": base | {"avx_vnni"}, "avx512": wide, "avx512vnni": wide | {"avx512_vnni"},
        "amx": wide | {"avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16"},
        "neon_dotprod": {"asimddp"}, "neon_i8mm": {"asimddp", "i8mm"},
    }  # fmt: skip
    for name, wanted in needs.items():
        assert TABLE[name]["runs_here"] == (wanted <= flags), name


@pytest.mark.parametrize("name", USABLE)
def test_a_forced_target_runs_from_its_own_files(name: str) -> None:
    # Targets that only bring faster integer products leave the rest to those they extend.
    parents = {"avxvnni": "avx2", "avx512vnni": "avx512", "amx": "avx512", "neon_dotprod": "scalar", "neon_i8mm": "scalar"}
    _core.force_target(name)
    try:
        assert backend()["active"] == name
        assert backend()["forced"] == name
        kernels = _core.kernel_targets()
        assert kernels.pop("scan_i8") == {"neon_i8mm": "neon_dotprod"}.get(name, name)
        # Every other kernel has a file for it or for a target that it extends; those of float32 always the widest.
        chain = {name, "scalar"} | {"avxvnni": {"avx2"}, "avx512": {"avx2"}}.get(name, set())
        chain |= {"avx2", "avx512", "avx512vnni"} if name in {"avx512vnni", "amx"} else set()
        assert set(kernels.values()) <= chain
        assert kernels["dot_f32"] == kernels["l2sqr_f32"] == parents.get(name, name)
    finally:
        _core.force_target("")
    assert backend()["active"] == (os.environ.get("NEARFIELD_TARGET") or USABLE[-1])


def test_unforced_the_scan_is_one_that_runs_here() -> None:
    """Which one is a measurement's business; scalar cannot be the fastest where any vector target runs."""
    if os.environ.get("NEARFIELD_TARGET"):
        pytest.skip("a target is forced")
    chosen = _core.kernel_targets()["scan_i8"]
    assert chosen in USABLE
    assert chosen != "scalar" or USABLE == ["scalar"]


def test_the_environment_forces_a_target() -> None:
    code = "from nearfield import _core; print(_core.active_target(), *_core.kernel_targets().values())"
    assert run(code, NEARFIELD_TARGET="scalar").stdout.split() == ["scalar"] * (1 + len(_core.kernel_targets()))


@pytest.mark.parametrize("name", ["nonsense", "AVX2", *(name for name in NAMES if name not in USABLE)])
def test_an_unusable_target_is_one_clear_error(name: str) -> None:
    code = "import nearfield as nf, numpy as np; i = nf.FlatIndex(2); i.add(np.ones((1, 2), np.float32)); i.search(np.ones(2, np.float32))"
    done = run(code, NEARFIELD_TARGET=name)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("nearfield.errors.InputError: NEARFIELD_TARGET: ")
    assert f"'{name}'" in last
    assert "usable here: scalar" in last
    with pytest.raises(nf.InputError, match="force_target"):
        _core.force_target(name)


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5"])
def test_a_bad_number_of_threads_is_an_error(value: str) -> None:
    done = run("import nearfield as nf; nf.FlatIndex(2).search([0.0, 1.0])", NEARFIELD_THREADS=value)
    assert f"InputError: NEARFIELD_THREADS: '{value}' given" in done.stderr


def test_threads_are_capped() -> None:
    assert run(
        "from nearfield import _core; print(_core.resolve_threads(0), _core.resolve_threads(9))", NEARFIELD_THREADS="1"
    ).stdout.split() == ["1", "1"]


def avx_instructions(path: Path) -> int:
    listing = subprocess.run(["objdump", "-d", "--no-show-raw-insn", str(path)], capture_output=True, text=True, check=True).stdout
    return len(re.findall(r"%[yz]mm\d|%k[1-7]\b|\tv[a-z0-9]+ +[^\n]*%xmm", listing))


@pytest.mark.skipif(shutil.which("objdump") is None, reason="needs objdump")
def test_wide_instructions_stay_in_kernel_target_files() -> None:
    built = ROOT / "build" / f"native-{sysconfig.get_config_var('SOABI')}"
    if not built.is_dir():
        pytest.skip("no objects here: the engine under test was not built in this checkout")
    seen = 0
    for path in sorted(built.rglob("*.o")):
        if not (ROOT / "csrc" / path.relative_to(built)).with_suffix(".cpp").exists():
            continue  # left by a source that is gone
        is_target = path.parent.parent.name == "kernels" and path.stem.startswith(("avx", "amx"))
        count = avx_instructions(path)
        assert is_target or count == 0, f"{path} holds {count} AVX instructions: it would crash an older CPU"
        seen += is_target and count > 0
    assert seen >= 6 or not TABLE["avx2"]["built"]
