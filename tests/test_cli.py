"""The command line as a new user meets it: what works, and every way to get it wrong, each with one clear line and the right exit code."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import nearfield as nf
from nearfield.cli import main

CONFIG = '{"batch_size": 8, "dev_queries": 20, "dev_documents": 40, "merge_trials": 1}'


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs one command in this process; returns (exit code, stdout, stderr)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    return call


def one_line(err: str) -> str:
    """The error is the only line, and it is no traceback."""
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1, err
    assert lines[0].startswith("nearfield: ")
    return lines[0]


def test_the_whole_way_on_a_users_file(run, pairs_file: Path, tiny_model: Path, tmp_path: Path) -> None:
    config, bundle, index = tmp_path / "config.json", tmp_path / "bundle", tmp_path / "index"
    config.write_text(CONFIG)
    code, out, err = run("tune", pairs_file, "--base", tiny_model, "--out", bundle, "--config", config, "--json", "--quiet")
    report = json.loads(out)
    assert code == (1 if report["verdict"] == "do not ship" else 0), err
    assert report["verdict"] in ("ship", "marginal", "do not ship")
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["verdict"]["answer"] == report["verdict"]
    assert {"report.html", "run.json", "README.md", "golden.npz", "onnx/model.onnx", "onnx/model.int8.onnx"} <= set(manifest["files"])
    assert not (tmp_path / "bundle.work").exists()
    baselines, advice = (report["evaluation"][name] for name in ("baselines", "advice"))
    assert [baseline["name"] for baseline in baselines] == ["BM25", "BM25 + model"]
    assert advice in report["sentence"]
    assert advice in (bundle / "README.md").read_text()
    assert manifest["metrics"]["baselines"] == baselines
    assert manifest["metrics"]["study"] == report["evaluation"]["study"]
    repeated = json.loads((bundle / "run.json").read_text())
    assert repeated["command"] == f"nearfield tune {pairs_file} --base {tiny_model} --out {bundle} --config {bundle / 'run.json'}"
    assert repeated["versions"]["nearfield"] == nf.__version__
    page = (bundle / "report.html").read_text()
    assert repeated["command"] in page
    assert repeated["machine"]["cpu"] in page
    assert f"cosine to fp32 {manifest['parity']['int8']['mean_cosine']:.4f}" in page

    code, out, _ = run("eval", pairs_file, "--model", bundle, "--compare", tiny_model, "--json", "--quiet")
    again = json.loads(out)
    key = next(name for name in again["model"]["metrics"] if name.lower().startswith("ndcg"))
    assert again["model"]["metrics"][key] == pytest.approx(report["evaluation"]["model"]["metrics"][key], abs=1e-6)
    assert again["baselines"][0]["metrics"] == baselines[0]["metrics"]

    assert run("index", pairs_file, "--model", bundle, "--out", index, "--quiet")[0] == 0
    code, out, _ = run("search", index, "what is the array", "-k", 3, "--json")
    results = json.loads(out)["results"]
    assert code == 0
    assert [row["rank"] for row in results] == [1, 2, 3]
    assert results[0]["score"] >= results[1]["score"] >= results[2]["score"]

    assert run("encode", pairs_file, "--model", bundle, "--out", tmp_path / "v.npy", "--quiet")[0] == 0
    vectors = np.load(tmp_path / "v.npy")
    with nf.Encoder(bundle) as encoder:
        texts = [json.loads(line)["positive"] for line in pairs_file.read_text().splitlines()]
        np.testing.assert_allclose(vectors, encoder.encode(texts), atol=1e-5)

    # run.json repeats the run: the same weights, hence the same space.
    repeat = tmp_path / "repeat"
    run("tune", pairs_file, "--base", tiny_model, "--out", repeat, "--config", bundle / "run.json", "--json", "--quiet")
    assert nf.Encoder(repeat).fingerprint == nf.Encoder(bundle).fingerprint


def test_info_and_version(run) -> None:
    code, out, _ = run("info", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["version"] == nf.__version__
    assert found["native"]["active"] in [target["name"] for target in found["native"]["targets"] if target["runs_here"]]
    assert f"target {found['native']['active']}" in run("info")[1]
    assert nf.__version__ in run("--version")[1]


def test_bad_data_is_one_line_with_exit_2(run, tmp_path: Path, tiny_model: Path) -> None:
    cases: dict[str, tuple[bytes | None, list[str]]] = {
        "missing.jsonl": (None, ["missing.jsonl"]),
        "empty.jsonl": (b"", ["empty.jsonl"]),
        "columns.csv": (b"question,answer\nwhat,that\n", ["question", "--columns"]),
        "latin.jsonl": ('{"query": "caf\xe9", "positive": "x"}\n'.encode("latin-1"), ["latin.jsonl"]),
        "broken.jsonl": (b'{"query": "a", \n', ["broken.jsonl"]),
        "blank.jsonl": (b'{"query": " ", "positive": ""}\n' * 3, ["blank.jsonl"]),
        "unknown.xyz": (b"a", ["unknown.xyz"]),
    }
    for name, (content, words) in cases.items():
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        code, out, err = run("tune", path, "--base", tiny_model, "--out", tmp_path / "bundle", "--quiet")
        assert (code, out) == (2, ""), (name, err)
        line = one_line(err)
        assert all(word in line for word in words), (name, line)
        assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tune"], ["Missing argument"]),
        (["tune", "x.jsonl", "--bogus"], ["--bogus"]),
        (["search", "nowhere", "query"], ["nowhere"]),
        (["search", "nowhere", "query", "-k", "many"], ["many"]),
        (["export", "no-such-folder/model", "--out", "b"], ["no-such-folder/model"]),
        (["encode", "none.txt", "--model", "none", "--out", "v.npy"], ["none.txt"]),
        (["eval", "none", "--model", "none"], ["none"]),
        (["tune", "x.jsonl", "--columns", "query"], ["--columns"]),
    ],
)
def test_wrong_words(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert all(word in err for word in words), err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_damaged_bundles(run, tmp_path: Path, tiny_bundle: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "a model"}\n')
    for name in ("manifest.json", "onnx/model.onnx", "golden.npz", "model/tokenizer.json"):
        broken = tmp_path / "broken"
        shutil.copytree(tiny_bundle, broken)
        content = (broken / name).read_bytes()
        (broken / name).write_bytes(content[: len(content) // 2])
        code, _, err = run("encode", texts, "--model", broken, "--out", tmp_path / "v.npy", "--quiet")
        assert code == 2
        assert name in one_line(err)
        assert not (tmp_path / "v.npy").exists()
        shutil.rmtree(broken)


def test_an_index_refuses_another_model(run, tmp_path: Path, pairs_file: Path, tiny_bundle: Path, tiny_model_of) -> None:
    other = tiny_model_of(seed=7)
    assert run("index", pairs_file, "--model", tiny_bundle, "--out", tmp_path / "index", "--quiet")[0] == 0
    code, _, err = run("search", tmp_path / "index", "what", "--model", other)
    assert code == 2
    line = one_line(err)
    assert nf.Encoder(tiny_bundle).fingerprint[:16] in line
    assert nf.Encoder(other).fingerprint[:16] in line


def test_out_is_never_overwritten(run, tmp_path: Path, pairs_file: Path, tiny_bundle: Path, tiny_model: Path) -> None:
    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "chapter1.txt").write_text("years of work")
    for command in (
        ("tune", pairs_file, "--base", tiny_model, "--out", precious),
        ("export", tiny_model, "--out", precious),
        ("index", pairs_file, "--model", tiny_bundle, "--out", precious),
        ("demo", "--out", precious),
        ("encode", pairs_file, "--model", tiny_bundle, "--out", precious),
    ):
        code, _, err = run(*command) if command[0] == "demo" else run(*command, "--quiet")
        assert code == 2, command
        assert "thesis" in one_line(err)
    assert [path.name for path in precious.iterdir()] == ["chapter1.txt"]
    # Refused before the work, not after it.
    assert not list(tmp_path.glob("*.work"))


def start(arguments: list[object]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "nearfield", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
        # A job that a shell put into the background ignores Ctrl-C, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_until_python_takes_interrupts(process: subprocess.Popen[str]) -> None:
    """On a busy machine the interpreter may need a second to start; an earlier Ctrl-C ends it as it ends any program."""
    status = Path(f"/proc/{process.pid}/status")
    while status.exists() and process.poll() is None:
        caught = next((line.split()[1] for line in status.read_text().splitlines() if line.startswith("SigCgt:")), "0")
        if int(caught, 16) >> (signal.SIGINT - 1) & 1:
            return
        time.sleep(0.01)


def test_interrupted_anywhere(tmp_path: Path, tiny_model: Path, tiny_bundle: Path) -> None:
    """Ctrl-C at moments spread over each command: 130, one line, and nothing half-written that opens."""
    from conftest import make_pairs

    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in make_pairs(400)))
    config = tmp_path / "config.json"
    config.write_text(CONFIG)
    commands: list[tuple[list[object], Path]] = [
        (["tune", pairs, "--base", tiny_model, "--out", tmp_path / "tuned", "--config", config], tmp_path / "tuned"),
        (["index", pairs, "--model", tiny_bundle, "--out", tmp_path / "index"], tmp_path / "index"),
    ]
    interrupted = 0
    for command, made in commands:
        for delay in (1.5, 3.0, 5.0, 8.0):
            process = start(command)
            wait_until_python_takes_interrupts(process)
            time.sleep(delay)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
            assert process.returncode in (0, 1, 130), err
            assert "Traceback" not in err
            if process.returncode == 130:
                interrupted += 1
                assert "interrupted" in err
                assert not made.exists()
                assert not list(tmp_path.glob(".*partial*"))
            shutil.rmtree(made, ignore_errors=True)
            shutil.rmtree(f"{made}.work", ignore_errors=True)
    assert interrupted >= 2


def test_an_interrupted_import_is_an_interrupted_command(tmp_path: Path) -> None:
    """Libraries make classes by an exec of strings; Python remembers a Ctrl-C there even when it was handled."""
    (tmp_path / "interrupted_there.py").write_text(
        """import sys
from nearfield import cli
cli.cli.commands["info"].callback = lambda **_: exec("raise KeyboardInterrupt")
sys.argv = ["nearfield", "info"]
cli.main()
"""
    )
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "interrupted_there"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": paths})
    assert (done.returncode, done.stderr.strip()) == (130, "nearfield: interrupted")


def test_an_interrupted_evaluation_leaves_the_older_bundle(run, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from conftest import make_pairs
    from nearfield import workflow

    pairs, config, out = tmp_path / "pairs.jsonl", tmp_path / "config.json", tmp_path / "bundle"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in make_pairs(60)))
    config.write_text(CONFIG)
    command = ("tune", pairs, "--base", tiny_model, "--out", out, "--config", config, "--quiet")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(workflow, "_measure", interrupted)
        assert run(*command)[0] == 130
        assert not out.exists()
    assert run(*command)[0] in (0, 1)
    before = (out / "manifest.json").read_bytes()
    assert json.loads(before)["verdict"]["answer"]
    monkeypatch.setattr(workflow, "_measure", interrupted)
    assert run(*command)[0] == 130
    assert (out / "manifest.json").read_bytes() == before


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    process = start(["info"])
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    assert process.wait(timeout=60) == 0


def test_help_names_every_command(run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    for name in ("demo", "tune", "eval", "export", "encode", "index", "search", "bench", "info"):
        assert re.search(rf"^  {name} ", out, re.M)
        assert run(name, "--help")[0] == 0
