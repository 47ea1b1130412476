"""The encoder on the native engine: torch's vectors, the same bits in any batch, and who takes it when."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import nearfield as nf
from encode_models import edit_json, make_bundle, some_texts
from nearfield.encode import native_backend
from nearfield.encode.shape import UnsupportedModelError
from nearfield.encode.tower import Tower

TEXTS = ["", "search", "word " * 300, *some_texts(60)]
# Of unit vectors of the tiny random model; what real models keep is measured by `python -m benchmarks encode_quality`.
LEAST_COSINE = {"fp32": 1 - 1e-6, "bf16": 0.999, "int8": 0.99}


@pytest.fixture(scope="module")
def model(tiny_model_of: Callable[..., Path]) -> Path:
    folder = tiny_model_of(seed=4)
    edit_json(folder / "config_sentence_transformers.json", prompts={"query": "find: ", "document": ""})
    return folder


@pytest.fixture(scope="module")
def bundle(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(model, tmp_path_factory.mktemp("native") / "bundle")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_the_native_engine_agrees_with_torch(tiny_model_of: Callable[..., Path], pooling: str, precision: str) -> None:
    folder = tiny_model_of(pooling=pooling, normalize=pooling != "cls", prompts={"query": "find: ", "document": ""})
    tower = Tower.load(folder)
    with nf.Encoder(folder, backend="native", precision=precision) as encoder:  # type: ignore[arg-type]
        assert (encoder.backend, encoder.precision) == ("native", precision)
        for kind in ("document", "query"):
            expected, found = tower.encode(TEXTS, kind=kind), encoder.encode(TEXTS, kind=kind)  # type: ignore[arg-type]
            assert encoder.truncated == 1
            expected /= np.linalg.norm(expected, axis=1, keepdims=True)  # vectors are unit rows whether the model normalizes or not
            np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
            assert np.sum(found * expected, axis=1).min() > LEAST_COSINE[precision]
            if precision == "fp32":
                np.testing.assert_allclose(found, expected, atol=1e-5)
        halves = encoder.encode(TEXTS, dim=16)
        full = encoder.encode(TEXTS)[:, :16].astype(np.float64)
        np.testing.assert_allclose(halves, full / np.linalg.norm(full, axis=1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_the_same_bits_in_any_batch_at_any_place_by_any_number_of_threads(bundle: Path, precision: str) -> None:
    encoders = [nf.Encoder(bundle, backend="native", precision=precision, threads=threads) for threads in (1, 2, 3)]  # type: ignore[arg-type]
    expected = encoders[0].encode(TEXTS)
    order = np.random.default_rng(0).permutation(len(TEXTS))
    for encoder in encoders:
        assert np.array_equal(encoder.encode(TEXTS), expected)
        assert np.array_equal(encoder.encode([TEXTS[i] for i in order]), expected[order])
        assert np.array_equal(np.concatenate([encoder.encode(text) for text in TEXTS]), expected)
    assert encoders[0].encode([]).shape == (0, 32)


def test_more_texts_than_one_call_of_the_engine_takes(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with nf.Encoder(bundle, backend="native", precision="int8") as encoder:
        expected = encoder.encode(TEXTS)
        monkeypatch.setattr(native_backend, "SLICE", 7)
        assert np.array_equal(encoder.encode(TEXTS), expected)
        assert encoder.truncated == 1
        assert encoder.self_check(tolerance=0.2) > 0


def test_a_bundle_and_its_model_folder_give_the_same_bits(bundle: Path, model: Path) -> None:
    with nf.Encoder(bundle, backend="native", precision="int8") as one, nf.Encoder(model, backend="native", precision="int8") as other:
        assert np.array_equal(one.encode(TEXTS), other.encode(TEXTS))
        assert one.fingerprint == other.fingerprint


@pytest.mark.parametrize(("precision", "fast", "expected"), [
    ("int8", {"int8"}, "native"), ("int8", set(), "onnx"), ("bf16", {"bf16"}, "native"), ("auto", {"int8", "bf16"}, "onnx"),
    ("fp32", {"int8", "bf16"}, "onnx"),
])  # fmt: skip
def test_auto_takes_the_engine_where_the_cpu_has_the_instructions(
    bundle: Path, precision: str, fast: set[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native_backend, "is_fast", lambda asked: asked in fast)
    with nf.Encoder(bundle, precision=precision) as encoder:  # type: ignore[arg-type]
        assert encoder.backend == expected
    with nf.Encoder(bundle, backend="onnx", precision="int8") as encoder:
        assert encoder.backend == "onnx"


def test_what_is_fast_follows_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    targets = {"linear_i8": "amx", "linear_bf16": "scalar", "linear_f32": "avx512"}
    monkeypatch.setattr(native_backend._core, "encoder_targets", lambda: targets)
    assert [native_backend.is_fast(precision) for precision in ("int8", "bf16", "fp32")] == [True, False, False]
    targets |= {"linear_i8": "avx2", "linear_bf16": "amx"}
    assert [native_backend.is_fast(precision) for precision in ("int8", "bf16", "fp32")] == [False, True, False]


def test_a_model_that_the_engine_does_not_compute(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make_bundle(model, tmp_path / "bundle")
    monkeypatch.setattr(native_backend, "is_fast", lambda asked: True)

    def unsupported(*arguments: object, **options: object) -> None:
        raise UnsupportedModelError("config.json: model_type 'modernbert'; the native encoder computes 'bert'")

    monkeypatch.setattr(native_backend, "open_native_model", unsupported)
    with nf.Encoder(bundle, precision="int8") as encoder:
        assert encoder.backend == "onnx"
    with pytest.raises(nf.InputError, match="model_type 'modernbert'"):
        nf.Encoder(bundle, backend="native", precision="int8")


def test_a_token_that_the_model_does_not_have(tiny_model_of: Callable[..., Path]) -> None:
    folder = tiny_model_of(seed=5)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["query"] = 70_000
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with nf.Encoder(folder, backend="native", precision="fp32") as encoder:
        assert encoder.encode("search").shape == (1, 32)
        with pytest.raises(nf.InputError, match="token id 70000"):
            encoder.encode("search query")


def test_a_closed_native_encoder(bundle: Path) -> None:
    encoder = nf.Encoder(bundle, backend="native", precision="int8")
    encoder.warmup()
    encoder.close()
    for use in (lambda: encoder.encode("a"), encoder.warmup, encoder.self_check):
        with pytest.raises(nf.InputError, match="this encoder is closed"):
            use()


def test_threads_share_one_encoder(bundle: Path) -> None:
    problems: list[BaseException] = []
    with nf.Encoder(bundle, backend="native", precision="int8", threads=2) as encoder:
        expected = encoder.encode(TEXTS)

        def call(number: int) -> None:
            try:
                for i in range(60):
                    place = (7 * number + i) % len(TEXTS)
                    assert np.array_equal(encoder.encode(TEXTS[place])[0], expected[place])
                    if i % 20 == 0:
                        assert np.array_equal(encoder.encode(TEXTS), expected)
            except BaseException as problem:
                problems.append(problem)

        threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not problems


FORK = """
import os, sys
import numpy as np
import nearfield as nf
encoder = nf.Encoder(sys.argv[1], backend="native", precision="int8", threads=2)
texts = sys.argv[2:]
expected = encoder.encode(texts)
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        alone = all(np.array_equal(encoder.encode(t)[0], e) for t, e in zip(texts, expected))
        same = alone and np.array_equal(encoder.encode(texts), expected)
        os._exit(0 if same else 3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert np.array_equal(encoder.encode(texts), expected)
assert "onnxruntime" not in sys.modules and "torch" not in sys.modules
print("done")
"""


def test_a_forked_child_works_on_and_nothing_heavy_is_imported(bundle: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK, str(bundle), *TEXTS[3:20]], capture_output=True, text=True, timeout=120, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "done\n"
