"""The packed encoder on a GPU."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import nearfield as nf
from encode_models import make_architecture, some_texts
from nearfield.encode.spec import read_spec
from nearfield.encode.tokenize import TextTokenizer
from nearfield.errors import InputError

torch = pytest.importorskip("torch")
from nearfield.encode import packed_lanes  # noqa: E402 (they import torch)
from nearfield.encode.packed_backend import PackedBackend  # noqa: E402
from test_packed import HAS_GPU, TEXTS, check_threads, model_of  # noqa: E402

# Precision -> mean and worst 1 - cosine to float32 on the CPU, and how far a component may move with the batch.
BOUNDS = {"fp32": (1e-6, 2e-6, 1e-5), "fp16": (2e-6, 2e-5, 2e-3), "bf16": (1e-4, 5e-4, 2e-2)}


def gpu_models(tiny_model_of: Callable[..., Path]) -> list[Path]:
    """Heads of 8 and of 32 columns in the shape of all-MiniLM-L6-v2, and a real model where one is named."""
    shaped = tiny_model_of(
        hidden=384, max_tokens=256, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, initializer_range=0.05
    )
    named = os.environ.get("NEARFIELD_BENCH_MODEL")
    return [tiny_model_of(), shaped, *([Path(named)] if named else [])]


@pytest.fixture(scope="module")
def models_of(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    from conftest import make_tiny_model

    return gpu_models(lambda **options: make_tiny_model(tmp_path_factory.mktemp("gpu") / "model", **options))


on_the_cpu: dict[Path, np.ndarray] = {}  # half a minute for all three precisions otherwise


def gpu_texts() -> list[str]:
    return [*TEXTS, *some_texts(300, seed=3, longest=20), *some_texts(60, seed=4, longest=250)]


@pytest.mark.cuda
@pytest.mark.skipif(not HAS_GPU, reason="torch finds no CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_a_gpus_vectors_are_the_cpus(models_of: list[Path], precision: str) -> None:
    texts = gpu_texts()
    for folder in models_of:
        if folder not in on_the_cpu:
            on_the_cpu[folder] = nf.Encoder(folder, backend="torch").encode(texts).astype(np.float64)
        wanted = on_the_cpu[folder]
        with nf.Encoder(folder, backend="torch", precision=precision, device="cuda") as encoder:  # type: ignore[arg-type]
            found = encoder.encode(texts)
            away = 1 - (found * wanted).sum(axis=1)
            mean, worst, moved = BOUNDS[precision]
            print(
                f"{folder.parent.name} {precision}: 1 - cosine to the CPU's float32 {away.mean():.2e} on average, {away.max():.2e} at worst"
            )
            assert away.mean() <= mean
            assert away.max() <= worst
            assert encoder._packed is not None
            assert encoder._packed.kernels == "triton", encoder._packed.notes
            assert encoder._packed.recorded, encoder._packed._lanes.reason  # type: ignore[union-attr]
            single = np.concatenate([encoder.encode(text) for text in texts[:40]])
            np.testing.assert_allclose(single, found[:40], atol=moved)
            np.testing.assert_allclose(encoder.encode(texts[::-1])[::-1], found, atol=moved)
            np.testing.assert_array_equal(encoder.encode(texts), found)  # the same call, the same bits
            lanes = encoder._packed._lanes
            assert lanes is not None
            lanes._record = False
            np.testing.assert_allclose(encoder.encode(texts), found, atol=moved)
            encoder._packed.model.steps = type(model_of(folder, torch.float32).steps)()  # torch's own
            np.testing.assert_allclose(encoder.encode(texts), found, atol=moved)


@pytest.mark.cuda
@pytest.mark.skipif(not HAS_GPU, reason="torch finds no CUDA device")
def test_every_recorded_size_and_every_pooling_on_a_gpu(tiny_model_of: Callable[..., Path]) -> None:
    for pooling in ("mean", "cls", "last"):
        folder = tiny_model_of(pooling=pooling)
        backend = PackedBackend(folder, read_spec(folder), "fp16", "cuda")
        backend.warmup()
        assert backend.recorded == packed_lanes.SIZES, backend._lanes.reason  # type: ignore[union-attr]
        tokenizer = TextTokenizer(folder / "tokenizer.json", 64)
        texts = some_texts(3_000, seed=5)
        wanted = nf.Encoder(folder, backend="torch").encode(texts)
        for count in (1, 2, 7, 30, 100, 333, 1_000, 3_000):
            found, _ = backend.encode(texts[:count], "", tokenizer)
            assert np.abs(found - wanted[:count]).max() < 5e-3
    check_threads(lambda texts: backend.encode(texts, "", tokenizer)[0], 2e-3)


@pytest.mark.cuda
@pytest.mark.skipif(not HAS_GPU, reason="torch finds no CUDA device")
def test_the_public_encoder_on_a_gpu(tiny_model: Path, tmp_path: Path) -> None:
    texts = gpu_texts()
    wanted = nf.Encoder(tiny_model, backend="torch").encode(texts)
    with nf.Encoder(tiny_model, device="cuda") as encoder:
        assert (encoder.backend, encoder.precision, encoder.device) == ("torch", "fp16", "cuda")
        encoder.warmup()
        assert encoder._packed is not None
        print(encoder._packed.notes)
        assert np.abs(encoder.encode(texts) - wanted).max() < 5e-3
        assert encoder.truncated
        assert encoder.encode(texts, dim=8).shape == (len(texts), 8)
    other = make_architecture(tmp_path / "roberta", "roberta")
    for precision in ("auto", "fp16"):
        with nf.Encoder(other, precision=precision, device="cuda:0") as encoder:  # type: ignore[arg-type]
            assert encoder._packed is None
            assert np.abs(encoder.encode(texts) - nf.Encoder(other).encode(texts)).max() < 2e-2
    with pytest.raises(InputError, match="torch cannot use it"):
        nf.Encoder(tiny_model, device="cuda:99")


@pytest.mark.cuda
@pytest.mark.skipif(not HAS_GPU, reason="torch finds no CUDA device")
def test_a_bundle_on_a_gpu(tiny_bundle: Path) -> None:
    with nf.Encoder(tiny_bundle, device="cuda", precision="fp32") as encoder:
        assert encoder.backend == "torch"
        assert encoder.self_check() <= 1e-5
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        with nf.Encoder(tiny_bundle, backend="onnx", device="cuda") as encoder:
            assert encoder.self_check() <= 1e-5
    else:
        with pytest.raises(InputError, match="no CUDA provider"):
            nf.Encoder(tiny_bundle, backend="onnx", device="cuda")
