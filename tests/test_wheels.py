"""What a wheel promises: one file for every CPU, alone, small, quick to import, and at peace with other libraries in any order."""

from __future__ import annotations

import itertools
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest

import nearfield
import wide
from benchmark_samples import needs_core

ROOT = Path(__file__).resolve().parent.parent
OBJECTS = ROOT / "build" / f"native-{sysconfig.get_config_var('SOABI')}"
needs_objdump = pytest.mark.skipif(
    shutil.which("objdump") is None or platform.machine() != "x86_64", reason="needs objdump, and looks for x86"
)


def library() -> Path:
    from nearfield import _core

    return Path(_core.__file__)


# --- one file for every CPU --------------------------------------------------------------------------------------------


@needs_core
@needs_objdump
def test_in_the_library_wide_instructions_stay_in_kernels() -> None:
    found = wide.wide_functions(library())
    assert sum(found.values()) > 5_000, "the scan sees the kernels"
    assert wide.out_of_place(found) == {}


@needs_objdump
def test_the_scan_sees_what_is_out_of_place(tmp_path: Path) -> None:
    source = tmp_path / "bad.cpp"
    source.write_text(
        "#include <vector>\n"
        "namespace nf::kernels { void add(float* a) { for (int i = 0; i < 64; ++i) a[i] += 1; } }\n"
        "float sum(const std::vector<float>& a) { float s = 0; for (float x : a) s += x * x; return s; }\n"
    )
    subprocess.run(["g++", "-O3", "-mavx2", "-c", str(source), "-o", str(tmp_path / "bad.o")], check=True)
    found = wide.wide_functions(tmp_path / "bad.o")
    assert len(found) == 2
    assert [name.split("(")[0] for name in wide.out_of_place(found)] == ["sum"]


@needs_objdump
def test_no_copy_that_all_may_use_comes_from_a_kernel_file() -> None:
    """Of an inline function the linker keeps one copy: it must not be one that was compiled with AVX."""
    if not OBJECTS.is_dir():
        pytest.skip("no objects here: the engine under test was not built in this checkout")
    objects = [path for path in OBJECTS.rglob("*.o") if (ROOT / "csrc" / path.relative_to(OBJECTS)).with_suffix(".cpp").exists()]
    wide_ones = [path for path in objects if path.parent.parent.name == "kernels" and path.stem.startswith(("avx", "amx"))]
    assert len(wide_ones) >= 6
    plain = set().union(*(wide.shared_text(path) for path in objects if path not in wide_ones))
    assert len(plain) > 20, "other files have such functions"
    for path in wide_ones:
        assert not wide.shared_text(path) & plain, path


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(
    shutil.which("qemu-x86_64") is None or platform.machine() != "x86_64", reason="needs x86-64 and apt-get install qemu-user"
)
@pytest.mark.parametrize(("cpu", "target"), [("Nehalem", "scalar"), ("Haswell", "avx2")])
def test_the_native_tests_pass_on_an_older_cpu(cpu: str, target: str) -> None:
    """Targets that the CPU lacks are not tried there; an instruction that it lacks ends the program."""
    build = [sys.executable, str(ROOT / "tests/native/build.py"), "--build-only"]
    program = subprocess.run(build, capture_output=True, text=True, check=True).stdout.split()[-1]
    emulated = ["qemu-x86_64", "-cpu", cpu, program]
    # All but one: qemu 7.2 itself ends with a failed assertion when a program with threads forks.
    done = subprocess.run([*emulated, "-forked_child"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    ran, failed = map(int, re.findall(r"(\d+) tests, (\d+) failed checks", done.stdout)[0])
    assert ran >= 60
    assert failed == 0
    told = subprocess.run(
        ["qemu-x86_64", "-cpu", cpu, sys.executable, "-c", "from nearfield import _core; print(_core.active_target())"],
        capture_output=True, text=True, check=False, env={**os.environ, "NPY_DISABLE_CPU_FEATURES": ""},
    )  # fmt: skip
    if "numpy" in told.stderr.lower() and told.returncode:
        pytest.skip(f"numpy itself does not run on {cpu}: {told.stderr.strip().splitlines()[-1]}")
    assert told.stdout.strip() == target, told.stderr[-1000:]


# --- small, and alone --------------------------------------------------------------------------------------------------


@needs_core
@needs_objdump
def test_the_library_needs_nothing_but_the_systems_own() -> None:
    needed = {name.split(".so")[0] for name in wide.needed(library())}
    assert needed <= {"libstdc++", "libm", "libgcc_s", "libc", "libpthread", "ld-linux-x86-64"}, "no OpenMP, no BLAS"
    assert library().stat().st_size < 15e6


def test_importing_takes_few_modules() -> None:
    """How long it takes is the affair of the benchmark suite `import`; that it stays quick is what it does not load."""
    code = "import sys; before = set(sys.modules); import nearfield; print(*sorted(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "nearfield" in loaded
    assert not {"numpy", "torch", "onnxruntime", "tokenizers", "numba", "click", "rich"} & {name.partition(".")[0] for name in loaded}
    assert len(loaded) < 40


def test_the_free_threaded_build_asks_for_the_lock() -> None:
    """Nothing here was run without the GIL, so the module does not say that it can be: Python 3.14t takes the lock when it is imported."""
    module = (ROOT / "csrc/bindings/module.cpp").read_text()
    assert "PYBIND11_MODULE(_core, m)" in module
    assert "mod_gil_not_used" not in module


# --- how wheels are made -----------------------------------------------------------------------------------------------


def test_the_wheels_that_are_configured() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        config = tomllib.load(file)
    build = config["tool"]["cibuildwheel"]
    assert build["build"] == [f"cp{version}-manylinux_*" for version in ("311", "312", "313", "314", "314t")]
    assert build["linux"]["archs"] == ["x86_64", "aarch64"]
    assert build["linux"]["manylinux-x86_64-image"] == build["linux"]["manylinux-aarch64-image"] == "manylinux_2_28"
    workflow = (ROOT / ".github/workflows/release.yml").read_text()
    for part in ("cibuildwheel", "ubuntu-24.04-arm", "--sdist", "id-token: write", "tests/wheel_check.py"):
        assert part in workflow, part
    assert "uses: " in workflow
    for line in re.findall(r"uses: (\S+)", workflow):
        assert re.fullmatch(r"[\w./-]+@v[\d.]+", line), f"{line}: a version expected"


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source archive, made from a copy without git by a path without git."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("sdist")
    source = folder / "source"
    source.mkdir()
    for name in ("csrc", "python", "setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        place = ROOT / name
        if place.is_dir():
            shutil.copytree(place, source / name, ignore=shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info"))
        elif place.is_file():
            shutil.copy(place, source / name)
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=without_git(folder))
    assert done.returncode == 0, done.stderr[-2000:]
    (made,) = folder.glob("nearfield-*.tar.gz")
    return made


def without_git(folder: Path) -> dict[str, str]:
    """An environment whose git is a command that fails."""
    git = folder / "bin" / "git"
    git.parent.mkdir(exist_ok=True)
    git.write_text("#!/bin/sh\necho 'no git here' >&2\nexit 127\n")
    git.chmod(0o755)
    return {**os.environ, "PATH": f"{git.parent}{os.pathsep}{os.environ['PATH']}"}


def test_the_source_archive_is_whole_and_made_without_git(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    for folder, patterns in (("csrc", ("*.cpp", "*.h")), ("python/nearfield", ("*.py", "*.pyi", "py.typed", "*.html", "*.css", "*.js"))):
        wanted = {str(path.relative_to(ROOT)) for pattern in patterns for path in (ROOT / folder).rglob(pattern)}
        assert wanted
        assert wanted - held == set()
    assert {"setup.py", "pyproject.toml", "README.md", "LICENSE"} <= held
    assert not any(name.startswith(("benchmarks", "build")) or name.endswith((".so", ".o", ".npy")) for name in held)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_source_archive_builds_without_git(sdist: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.glob("nearfield-*")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=without_git(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = tmp_path.glob("nearfield-*.whl")
    assert wheel.stat().st_size < 15e6
    assert nearfield.__version__ in wheel.name


# --- beside other libraries --------------------------------------------------------------------------------------------

OTHERS = tuple(name for name in ("torch", "faiss", "onnxruntime", "sklearn") if find_spec(name) is not None)
WORK = {
    "nearfield": "import nearfield as nf; i = nf.HNSWIndex(32); i.add(x); assert i.search(x[:9], 3).ids[0][0] == 0; "
    "f = nf.FlatIndex(32); f.add(x); assert (f.search(x, 1).ids[:, 0] == np.arange(len(x))).all()",
    "torch": "import torch; t = torch.from_numpy(x); assert (t @ t.T).argmax(1)[5] == 5",
    "faiss": "import faiss; g = faiss.IndexFlatIP(32); g.add(x); assert g.search(x[:70], 1)[1][69][0] == 69",
    "onnxruntime": "import onnxruntime; onnxruntime.SessionOptions()",
    "sklearn": "from sklearn.cluster import KMeans; KMeans(4, n_init=1, random_state=0).fit(x)",
}
ROWS = "import numpy as np; x = np.random.default_rng(0).standard_normal((400, 32)).astype('f'); x /= np.linalg.norm(x, axis=1)[:, None]; "


def together(order: tuple[str, ...]) -> None:
    """Imports and uses in this order, then once more in the other: in a process of its own, which must end by itself."""
    code = ROWS + "; ".join(WORK[name] for name in (*order, *order[::-1])) + "; print('done')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stdout.split()[-1:]) == (0, ["done"]), f"{' '.join(order)}: {done.returncode} {done.stderr[-1500:]}"


@needs_core
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_nearfield_beside_all_of_them(first: bool) -> None:
    together(("nearfield", *OTHERS) if first else (*OTHERS[::-1], "nearfield"))


@needs_core
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_nearfield_beside_them_in_every_order() -> None:
    orders = list(itertools.permutations(("nearfield", *OTHERS)))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(together, orders))
