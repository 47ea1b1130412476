"""The encoder of a GPU: packed tokens, its batches, its choices. On torch's CPU device; tests/test_packed_gpu.py goes on."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import nearfield as nf
from encode_models import by_hand, make_architecture, some_texts
from nearfield.encode.checkpoint import Checkpoint
from nearfield.encode.shape import UnsupportedModelError, read_shape
from nearfield.encode.spec import read_spec, weights_folder
from nearfield.encode.tokenize import TextTokenizer
from nearfield.encode.weights import read_weights
from nearfield.errors import FormatError, InputError

torch = pytest.importorskip("torch")
from nearfield.encode import packed_backend, packed_choice, packed_lanes  # noqa: E402 (they import torch)
from nearfield.encode.packed import PackedBert, lay_out, views  # noqa: E402
from nearfield.encode.packed_backend import PackedBackend  # noqa: E402
from nearfield.encode.packed_steps import TorchSteps  # noqa: E402

CPU = torch.device("cpu")
TEXTS = ["", "search", "word " * 300, "How do I sort a list?", *some_texts(12, longest=80)]
HAS_GPU = torch.cuda.is_available()


def packed(ids: np.ndarray, offsets: np.ndarray, *, spare: int = 0, device: torch.device = CPU) -> packed_lanes.Packed:
    """The texts as a batch with some spare tokens and texts."""
    tokens, texts = len(ids) + spare, len(offsets) - 1 + spare // 4
    laid = np.full(3 * tokens + texts + 1, -1, np.int32)
    lay_out(ids, offsets, tokens, texts, laid)
    return views(torch.from_numpy(laid).to(device), tokens, texts, int(np.diff(offsets).max(initial=1)))


def model_of(folder: Path, dtype: torch.dtype, device: torch.device = CPU, **options: object) -> PackedBert:
    inner = weights_folder(folder)
    shape = read_shape(inner)
    with Checkpoint(inner) as checkpoint:
        weights = read_weights(checkpoint, shape)
    return PackedBert(shape, weights, read_spec(folder), device, dtype, **options)  # type: ignore[arg-type]


def truth_of(folder: Path, texts: list[str]) -> np.ndarray:
    """transformers' token vectors, text by text, pooled in float64."""
    tokenizer = TextTokenizer(weights_folder(folder) / "tokenizer.json", read_spec(folder).max_tokens)
    return by_hand(folder, *tokenizer.pad(tokenizer(texts).ids))


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_packed_vectors_are_those_of_each_text_alone(tiny_model_of: Callable[..., Path], pooling: str, activation: str) -> None:
    folder = tiny_model_of(pooling=pooling, normalize=pooling != "cls", hidden_act=activation)
    tokenizer = TextTokenizer(folder / "tokenizer.json", 64)
    ids, offsets, _ = tokenizer.encode(TEXTS)
    found = model_of(folder, torch.float64)(packed(ids, offsets))
    assert found.dtype == torch.float64
    wanted = truth_of(folder, TEXTS)
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-5)  # the oracle's layers are float32
    np.testing.assert_allclose(model_of(folder, torch.float32)(packed(ids, offsets)).numpy(), wanted, atol=1e-5)
    shuffled = np.random.default_rng(0).permutation(len(TEXTS))
    other, bounds, _ = tokenizer.encode([TEXTS[i] for i in shuffled])
    np.testing.assert_allclose(model_of(folder, torch.float64)(packed(other, bounds)).numpy(), found.numpy()[shuffled], atol=1e-13)


def test_spare_tokens_and_texts_change_nothing(tiny_model: Path) -> None:
    ids, offsets, _ = TextTokenizer(tiny_model / "tokenizer.json", 64).encode(TEXTS)
    model = model_of(tiny_model, torch.float64)
    laid = packed(ids, offsets, spare=37)
    assert len(laid.ids) == len(ids) + 37
    first, last = laid.first.numpy(), laid.last.numpy()
    np.testing.assert_array_equal(first[len(ids) :], np.arange(len(ids), len(ids) + 37))
    np.testing.assert_array_equal(last - first, [*np.repeat(np.diff(offsets), np.diff(offsets)), *[1] * 37])
    # torch's attention pads by text, and spare tokens belong to none: they are cut off before it.
    found = model(dataclasses.replace(laid, ids=laid.ids[: len(ids)], first=laid.first[: len(ids)], last=laid.last[: len(ids)]))
    np.testing.assert_allclose(found.numpy()[: len(TEXTS)], model(packed(ids, offsets)).numpy(), atol=1e-13)
    assert not found.numpy()[len(TEXTS) :].any()


def test_every_size_holds_what_it_says() -> None:
    for tokens in [1, 2, 15, 16, 17, 500, 8191, 8192]:
        for texts in {1, max(1, tokens // 3), max(1, tokens // 2)}:
            size = packed_lanes.size_for(tokens, texts)
            if size is None:
                assert texts > packed_lanes.texts_for(packed_lanes.SIZES[-1])
            else:
                assert size >= tokens
                assert packed_lanes.texts_for(size) >= texts
    assert packed_lanes.size_for(8193, 1) is None


@pytest.mark.parametrize(("tokens", "step"), [(64, 3), (100, 256), (1_000, 5)])
def test_batches_keep_every_text_in_its_place(tiny_model: Path, tokens: int, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_backend, "TOKENS", tokens)
    monkeypatch.setattr(packed_backend, "SORTED_SLICE", step)
    monkeypatch.setattr(packed_backend, "SLICE", step)
    backend = PackedBackend(tiny_model, read_spec(tiny_model), "auto", "cpu")
    tokenizer = TextTokenizer(tiny_model / "tokenizer.json", 64)
    texts = TEXTS * 3
    wanted = backend.model(packed(*tokenizer.encode(texts)[:2])).numpy()
    lengths = np.diff(tokenizer.encode(texts)[1])
    for steps in ("torch", "triton"):  # sorted slices, and the order given
        backend.model.steps.pads = steps == "torch"  # type: ignore[misc]
        seen = [batch.places for batch in backend._batches(texts, "", tokenizer, [0])]
        assert sorted(np.concatenate(seen).tolist()) == list(range(len(texts)))
        assert all(lengths[places].sum() <= max(tokens, 64) and len(places) <= packed_lanes.texts_for(tokens) for places in seen)
        if steps == "triton":
            assert np.concatenate(seen).tolist() == list(range(len(texts)))
        found, truncated = backend.encode(texts, "", tokenizer)
        np.testing.assert_allclose(found, wanted, atol=1e-6)
        assert truncated == 3 * sum(len(row) > 64 for row in TextTokenizer(tokenizer.path, 10_000)(TEXTS).ids) > 0
    assert backend.precision == "fp32"
    assert backend.kernels == "torch"
    assert backend.recorded == ()
    assert backend.encode([], "", tokenizer)[0].shape == (0, 32)


class DenseSteps(TorchSteps):
    """Attention of all tokens to all, masked: spare tokens stand alone, as they do for the fused kernels."""

    name = "dense"
    pads = False

    def attention(self, qkv: torch.Tensor, batch: packed_lanes.Packed, heads: int) -> torch.Tensor:
        query, key, value = qkv.view(len(qkv), 3, heads, -1).permute(1, 2, 0, 3)
        own = batch.first[:, None] == batch.first[None, :]
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=own)
        return mixed.transpose(0, 1).reshape(len(qkv), -1)


class Tape:
    """In place of a CUDA graph: replays by asking the model again, into the memory that the recorded call gave."""

    model: PackedBert
    now: Tape | None = None
    replays = 0

    def capture_begin(self, *, pool: object, capture_error_mode: str) -> None:
        assert capture_error_mode == "thread_local"
        Tape.now = self

    def capture_end(self) -> None:
        Tape.now = None

    def replay(self) -> None:
        Tape.replays += 1
        self.made.copy_(compute(Tape.model, self.batch))


compute = PackedBert.__call__


def taped(model: PackedBert, batch: packed_lanes.Packed) -> torch.Tensor:
    made = compute(model, batch)
    if Tape.now is not None:
        Tape.now.batch, Tape.now.made = batch, made  # type: ignore[attr-defined]
    return made


@pytest.fixture
def recorded(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> PackedBackend:
    """A backend that believes in its recordings, on the CPU."""
    cuda = torch.cuda
    nothing = types.SimpleNamespace(synchronize=lambda: None, record=lambda: None)
    monkeypatch.setattr(cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(cuda, "current_stream", lambda: nothing)
    monkeypatch.setattr(cuda, "CUDAGraph", Tape)
    monkeypatch.setattr(cuda, "Event", lambda: nothing)
    zeros = torch.zeros
    monkeypatch.setattr(packed_lanes.torch, "zeros", lambda *size, pin_memory=False, **options: zeros(*size, **options))
    monkeypatch.setattr(PackedBert, "__call__", taped)
    backend = PackedBackend(tiny_model, read_spec(tiny_model), "fp32", "cpu")
    backend.model.steps = DenseSteps()
    Tape.model = backend.model
    lanes = backend._lanes
    assert lanes is not None
    lanes._cuda = lanes._record = True
    return backend


def test_recorded_batches(recorded: PackedBackend, tiny_model: Path) -> None:
    tokenizer = TextTokenizer(tiny_model / "tokenizer.json", 64)
    texts = TEXTS * 3
    wanted = truth_of(tiny_model, texts)
    before = Tape.replays
    for count in (1, 2, 9, len(texts)):
        np.testing.assert_allclose(recorded.encode(texts[:count], "", tokenizer)[0], wanted[:count], atol=1e-5)
    assert Tape.replays == before + 4
    assert recorded.recorded == (16, 384, 2048)  # one and two short texts are of one size
    found, _ = recorded.encode(["a"] * 2_500, "", tokenizer)  # three tokens each: texts fill the batches, not tokens
    np.testing.assert_allclose(found, np.tile(truth_of(tiny_model, ["a"]), (2_500, 1)), atol=1e-5)
    lanes = recorded._lanes
    assert lanes is not None
    assert {len(lane.fed) for lane in lanes._free} == {len(lane.fed) for lane in lanes._free if lane.done is not None}
    assert len(lanes._free) <= 2 * packed_backend.AHEAD


def test_a_recording_that_fails_is_given_up(recorded: PackedBackend, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = TextTokenizer(tiny_model / "tokenizer.json", 64)

    def refuse(self: Tape, **options: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(Tape, "capture_begin", refuse)
    for _ in range(2):
        np.testing.assert_allclose(recorded.encode(TEXTS, "", tokenizer)[0], truth_of(tiny_model, TEXTS), atol=1e-5)
    assert recorded.recorded == ()
    assert recorded._lanes is not None
    assert recorded._lanes.reason == "operation not permitted when stream is capturing"


def test_threads_share_one_backend(tiny_model: Path) -> None:
    backend = PackedBackend(tiny_model, read_spec(tiny_model), "fp32", "cpu")
    check_threads(lambda texts: backend.encode(texts, "", TextTokenizer(tiny_model / "tokenizer.json", 64))[0], 1e-6)


def check_threads(encode: Callable[[list[str]], np.ndarray], bound: float) -> None:
    """Eight threads get what one gets."""
    parts = [some_texts(1 + 7 * i, seed=i) for i in range(8)]
    wanted = [encode(part) for part in parts]
    wrong: list[object] = []

    def work(number: int) -> None:
        try:
            for _ in range(5):
                wrong.extend(i for i in [number] if np.abs(encode(parts[i]) - wanted[i]).max() > bound)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_what_is_refused(tiny_model: Path, tiny_model_of: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = read_spec(tiny_model)
    tokenizer = TextTokenizer(tiny_model / "tokenizer.json", 64)
    backend = PackedBackend(tiny_model, spec, "fp32", "cpu")
    larger = tiny_model_of(vocab_size=40)
    with pytest.raises(FormatError, match="gives a token, or max_tokens a position, that the model does not have"):
        PackedBackend(larger, spec, "fp32", "cpu").encode(["search vector"], "", tokenizer)
    with pytest.raises(FormatError, match="64 positions of 32"):
        PackedBackend(tiny_model_of(max_position_embeddings=32), spec, "fp32", "cpu").encode(["word " * 100], "", tokenizer)
    with pytest.raises(UnsupportedModelError):
        PackedBackend(make_architecture(tmp_path / "roberta", "roberta"), spec, "fp32", "cpu")
    nothing = torch.full((1, 32), float("nan"))
    monkeypatch.setattr(PackedBert, "__call__", lambda self, batch: nothing.expand(len(batch.bounds) - 1, 32))
    with pytest.raises(FormatError, match="NaN or infinity for text 0"):
        backend.encode(["a"], "", tokenizer)
    backend.precision = "fp16"
    with pytest.raises(FormatError, match=r"float16 overflows on text 0.*use precision='bf16'"):
        backend.encode(["a"], "", tokenizer)

    def full(self: PackedBert, batch: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(PackedBert, "__call__", full)
    with pytest.raises(InputError, match="device 'cpu': out of memory"):
        backend.encode(["a"], "", tokenizer)
    backend.close()
    with pytest.raises(InputError, match="closed"):
        backend.encode(["a"], "", tokenizer)


def test_precision_is_chosen_by_what_rounding_does(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU as if it were a GPU, whose candidates are all three."""

    class Pretending:
        type = "cuda"

        def __init__(self) -> None:
            self.used: list[object] = []

    inner = weights_folder(tiny_model)
    shape, spec = read_shape(inner), read_spec(tiny_model)
    with Checkpoint(inner) as checkpoint:
        weights = read_weights(checkpoint, shape)
    made = PackedBert.__init__
    monkeypatch.setattr(PackedBert, "__init__", lambda self, *args: made(self, *args[:3], CPU, *args[4:]))
    batch = packed_choice.probes(shape, CPU)
    monkeypatch.setattr(packed_choice, "probes", lambda shape, device: batch)
    monkeypatch.setattr(packed_choice, "_fused", lambda device, notes: None)

    def chosen(bound: float) -> packed_choice.Chosen:
        monkeypatch.setattr(packed_choice, "AUTO_BOUND", bound)
        return packed_choice.choose(shape, weights, spec, Pretending(), "auto")  # type: ignore[arg-type]

    assert chosen(1e-4).precision == "fp16"
    assert chosen(1e-4).model.dtype == torch.float16
    nothing = chosen(-1.0)
    assert nothing.precision == "fp32"
    assert [note.split(":")[0] for note in nothing.notes] == ["fp16", "bf16"]
    overflowing = {name: 1e8 * values if name.endswith("word_embeddings.weight") else values for name, values in weights.items()}
    monkeypatch.setattr(packed_choice, "AUTO_BOUND", 1e-2)
    assert packed_choice.choose(shape, overflowing, spec, Pretending(), "auto").precision == "bf16"  # type: ignore[arg-type]


def test_kernels_that_fail_or_differ_are_not_taken(tiny_model: Path) -> None:
    model = model_of(tiny_model, torch.float32)
    batch = packed_choice.probes(model.shape, CPU)
    plain = model(batch)

    class Failing:
        name, pads = "failing", False

        def embed(self, *arguments: object) -> None:
            raise OSError("gcc: not found\nand more")

    class Wrong(type(model.steps)):  # type: ignore[misc]
        name = "wrong"

        def pool(self, *arguments: object) -> torch.Tensor:
            return super().pool(*arguments) + 0.01

    notes: list[str] = []
    assert not packed_choice._agree(model, Failing(), batch, plain, 1e-5, notes)  # type: ignore[arg-type]
    assert not packed_choice._agree(model, Wrong(), batch, plain, 1e-5, notes)
    assert packed_choice._agree(model, model.steps, batch, plain, 1e-5, notes)
    assert [note.split(",")[0] for note in notes] == ["kernels: torch's own", "kernels: torch's own"]
    assert "gcc: not found" in notes[0]
    assert "differ by" in notes[1]
    assert model.steps.name == "torch"


INTERPRETED = """
import dataclasses, sys
import numpy as np, torch
sys.path.insert(0, sys.argv[2])
from test_packed import TEXTS, TextTokenizer, model_of, packed
from nearfield.encode.packed_steps import TorchSteps
from nearfield.encode.triton_steps import TritonSteps
from pathlib import Path
folder = Path(sys.argv[1])
texts = TEXTS[:7]
ids, offsets, _ = TextTokenizer(folder / "tokenizer.json", 64).encode(texts)
for pooling in ("mean", "cls", "last"):
    for dtype, bound in ((torch.float32, 1e-6), (torch.float16, 4e-3)):
        model = model_of(folder, dtype)
        model.spec = dataclasses.replace(model.spec, pooling=pooling, normalize=pooling != "last")
        wanted = model(packed(ids, offsets))
        model.steps = TritonSteps()
        for spare in (0, 33):
            found = model(packed(ids, offsets, spare=spare))
            difference = (found[: len(texts)] - wanted).abs().max() / wanted.abs().max()
            assert difference < bound, (pooling, dtype, spare, difference)
            assert not found[len(texts) :].any()
print("agreed")
"""


def test_the_fused_kernels_agree_in_tritons_interpreter(tiny_model_of: Callable[..., Path]) -> None:
    triton = pytest.importorskip("triton")
    if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 9) and tuple(map(int, np.__version__.split(".")[:2])) >= (2, 4):
        pytest.skip("Triton's interpreter before 3.9 fails with numpy 2.4: loops over values that were loaded")
    folder = tiny_model_of(hidden=40)  # heads of 10 columns: nothing is a power of two
    python = os.pathsep.join([str(Path(nf.__file__).parents[1]), *sys.path])
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": python, "CUDA_VISIBLE_DEVICES": ""}
    words = [sys.executable, "-c", INTERPRETED, str(folder), str(Path(__file__).parent)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "agreed"
