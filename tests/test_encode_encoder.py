"""The public encoder on bundles and model folders: values, counts, threads, forks and refusals."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import nearfield as nf
from encode_models import edit_json, make_bundle, some_texts
from nearfield.encode import batches
from nearfield.encode.threads import thread_count
from nearfield.encode.tower import Tower
from nearfield.errors import FormatError, InputError

TEXTS = ["", "search", "word " * 300, *some_texts(60)]


@pytest.fixture(scope="module")
def model(tiny_model_of: Callable[..., Path]) -> Path:
    folder = tiny_model_of(seed=4)
    edit_json(folder / "config_sentence_transformers.json", prompts={"query": "find: ", "document": ""})
    return folder


@pytest.fixture(scope="module")
def bundle(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(model, tmp_path_factory.mktemp("encoder") / "bundle")


@pytest.fixture(scope="module")
def encoder(bundle: Path) -> Iterator[nf.Encoder]:
    with nf.Encoder(bundle, threads=2) as opened:
        yield opened


def test_onnx_agrees_with_torch(encoder: nf.Encoder, model: Path, bundle: Path) -> None:
    tower = Tower.load(model)
    assert (encoder.backend, encoder.precision, encoder.dim, encoder.max_tokens) == ("onnx", "fp32", 32, 64)
    for kind in ("document", "query"):
        expected = tower.encode(TEXTS, kind=kind)
        found = encoder.encode(TEXTS, kind=kind)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-5)
        for source, backend in ((model, "auto"), (bundle, "torch")):
            other = nf.Encoder(source, backend=backend)
            assert other.backend == "torch"
            np.testing.assert_allclose(other.encode(TEXTS, kind=kind), expected, atol=1e-5)
            assert other.fingerprint == encoder.fingerprint
    assert encoder.self_check() <= 1e-5


def test_same_text_same_vector_in_any_batch(encoder: nf.Encoder) -> None:
    expected = encoder.encode(TEXTS)
    alone = np.concatenate([encoder.encode(text) for text in TEXTS])
    np.testing.assert_allclose(alone, expected, atol=1e-5)
    np.testing.assert_allclose(encoder.encode(TEXTS[::-1])[::-1], expected, atol=1e-5)
    np.testing.assert_allclose(encoder.encode(["word " * 300, *TEXTS])[1:], expected, atol=1e-5)


def test_shapes(encoder: nf.Encoder) -> None:
    assert encoder.encode([]).shape == (0, 32)
    assert encoder.encode([], dim=5).shape == (0, 5)
    assert encoder.encode("one text").shape == (1, 32)
    assert encoder.encode(text for text in ("a", "b")).shape == (2, 32)
    np.testing.assert_allclose(np.linalg.norm(encoder.encode(TEXTS), axis=1), 1, atol=1e-6)
    encoder.warmup()


def test_dim_keeps_the_first_columns_as_unit_rows(encoder: nf.Encoder) -> None:
    full = encoder.encode(TEXTS).astype(np.float64)
    for dim in (1, 7, 32):
        expected = full[:, :dim] / np.linalg.norm(full[:, :dim], axis=1, keepdims=True)
        np.testing.assert_allclose(encoder.encode(TEXTS, dim=dim), expected, atol=1e-6)
    for wrong in (0, 33, True, 2.0, "8"):
        with pytest.raises(InputError, match="dim"):
            encoder.encode(TEXTS, dim=wrong)  # type: ignore[arg-type]


def test_rows_are_unit_even_if_the_model_does_not_normalize(tiny_model_of: Callable[..., Path]) -> None:
    folder = tiny_model_of(normalize=False)
    raw = Tower.load(folder).encode(TEXTS).astype(np.float64)
    assert np.abs(np.linalg.norm(raw, axis=1) - 1).min() > 0.1
    np.testing.assert_allclose(nf.Encoder(folder).encode(TEXTS), raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=1e-6)


def test_truncated_counts_this_threads_last_call(encoder: nf.Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "SLICE", 2)
    encoder.encode(["word " * 70, "short", "word " * 62, "word " * 63])
    assert encoder.truncated == 2
    # 61 words and two special tokens fit 64; the query prompt takes two tokens more.
    encoder.encode("word " * 61)
    assert encoder.truncated == 0
    encoder.encode("word " * 61, kind="query")
    assert encoder.truncated == 1
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(encoder.truncated))
    thread.start()
    thread.join()
    assert seen == [0]


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_threads_share_one_encoder(bundle: Path, backend: str) -> None:
    encoder = nf.Encoder(bundle, backend=backend)  # type: ignore[arg-type]
    parts = [some_texts(40, seed=seed) + ["word " * 100] * seed for seed in range(4)]
    expected = [encoder.encode(part) for part in parts]
    found: dict[int, tuple[np.ndarray, int]] = {}

    def work(i: int) -> None:
        for _ in range(3):
            found[i] = encoder.encode(parts[i]), encoder.truncated

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for i in range(4):
        np.testing.assert_allclose(found[i][0], expected[i], atol=1e-5)
        assert found[i][1] == i


FORK = """
import os, sys
import numpy as np
import nearfield as nf
path, backend, use = sys.argv[1:]
encoder = nf.Encoder(path, backend=backend, threads=2)
texts = ["search a file", "sort the list " * 20] * 20
expected = encoder.encode(texts)
pid = os.fork()
if pid == 0:
    if use == "use":
        np.testing.assert_allclose(encoder.encode(texts), expected, atol=1e-5)
        encoder.close()
    sys.exit(7)
_, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 7, status
np.testing.assert_allclose(encoder.encode(texts), expected, atol=1e-5)
print("done")
"""


@pytest.mark.parametrize(("backend", "use"), [("onnx", "use"), ("onnx", "leave"), ("torch", "use")])
def test_a_forked_child_encodes_and_ends(bundle: Path, backend: str, use: str) -> None:
    run = subprocess.run([sys.executable, "-c", FORK, str(bundle), backend, use], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "done\n"
    assert "forked" not in run.stderr


def test_int8_is_opt_in_and_says_so(bundle: Path, encoder: nf.Encoder) -> None:
    quantized = nf.Encoder(bundle, backend="onnx", precision="int8")
    assert quantized.precision == "int8"
    cosines = (quantized.encode(TEXTS) * encoder.encode(TEXTS)).sum(axis=1)
    assert cosines.min() > 0.9
    assert cosines.min() < 1 - 1e-6  # another graph did run
    np.testing.assert_array_equal(np.concatenate([quantized.encode(text) for text in TEXTS]), quantized.encode(TEXTS))
    assert 1e-5 < quantized.self_check() < 0.2
    with pytest.raises(FormatError, match="golden vectors differ"):
        quantized.self_check(1e-5)


def test_wrong_texts_and_kinds(encoder: nf.Encoder) -> None:
    with pytest.raises(InputError, match=r"texts\[1\]: float given"):
        encoder.encode(["a", 1.5])  # type: ignore[list-item]
    with pytest.raises(InputError, match=r"texts\[1\]: a lone surrogate"):
        encoder.encode(["a", "\udfff"])
    with pytest.raises(InputError, match="kind: 'passage' given"):
        encoder.encode("a", kind="passage")  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_a_closed_encoder_says_so(bundle: Path, backend: str) -> None:
    with nf.Encoder(bundle, backend=backend) as opened:  # type: ignore[arg-type]
        opened.encode("a")
    opened.close()
    with pytest.raises(InputError, match="closed"):
        opened.encode("a")


def test_wrong_choices(bundle: Path, model: Path, tmp_path: Path) -> None:
    for arguments, message in [
        ({"backend": "cuda"}, "auto, native, onnx, torch"),
        ({"precision": "fp8"}, "auto, int8, bf16, fp16, fp32"),
        ({"precision": "fp16"}, "'fp16' is for a GPU"),
        ({"backend": "native", "device": "cuda"}, "the native engine runs on CPUs"),
        ({"backend": "onnx", "device": "cuda"}, "no CUDA provider; install onnxruntime-gpu"),
        ({"backend": "onnx", "device": "meta"}, "'cuda:<number>' expected"),
        ({"precision": "int8", "device": "cuda"}, "'int8' is for CPUs"),
        ({"backend": "onnx", "precision": "bf16"}, "bf16"),
        ({"threads": 0}, "threads"),
        ({"backend": "torch", "precision": "int8"}, "int8"),
    ]:
        with pytest.raises(InputError, match=message):
            nf.Encoder(bundle, **arguments)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="nearfield export"):
        nf.Encoder(model, backend="onnx")
    with pytest.raises(InputError, match="no golden vectors"):
        nf.Encoder(model).self_check()
    with pytest.raises(InputError, match="device"):
        nf.Encoder(model, device="cuda:99")


def test_a_damaged_graph_is_refused(bundle: Path, tmp_path: Path) -> None:
    import shutil

    broken = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    graph = broken / "onnx" / "model.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    with pytest.raises(FormatError, match=r"model\.onnx"):
        nf.Encoder(broken)


def test_thread_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEARFIELD_THREADS", raising=False)
    assert thread_count(3) == 3
    assert thread_count() >= 1
    monkeypatch.setenv("NEARFIELD_THREADS", "2")
    assert (thread_count(3), thread_count(1)) == (2, 1)
    for wrong in ("0", "two", "-1", "²"):
        monkeypatch.setenv("NEARFIELD_THREADS", wrong)
        with pytest.raises(InputError, match="NEARFIELD_THREADS"):
            thread_count()
