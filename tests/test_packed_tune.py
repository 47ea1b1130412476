"""Training without padding and without waiting for the device. All but the ``cuda`` tests run on torch's CPU device."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from encode_models import make_architecture, some_texts
from nearfield.config import TuneConfig
from nearfield.encode.tower import Tower
from nearfield.errors import InputError
from nearfield.tune import embed as embedding
from nearfield.tune import loop, packed, train, watch
from nearfield.tune.loop import make_optimizer
from test_tune_train import FAST, code_book

torch = pytest.importorskip("torch")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
TEXTS = ["", "search", "word " * 300, *some_texts(20, seed=1)]


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("tokens", [100, 10_000])
def test_packed_gradients_are_those_of_padded_batches(
    tiny_model_of: Callable[..., Path], pooling: str, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tower = Tower.load(tiny_model_of(pooling=pooling, normalize=pooling != "last"), attention="sdpa")
    ids = tower.tokenizer(TEXTS).ids
    weights = torch.randn(len(ids), 32, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(embedding, "TOKENS", tokens)

    def gradients(packs: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        monkeypatch.setattr(embedding, "can_pack", lambda tower: packs)
        tower.zero_grad()
        rows = embedding.embed(tower, ids, chunk_rows=4, dtype="float32")
        (rows * weights).sum().backward()
        return rows.detach(), {name: p.grad.clone() for name, p in tower.model.named_parameters() if p.grad is not None}

    (found, own), (wanted, theirs) = gradients(True), gradients(False)
    np.testing.assert_allclose(found.numpy(), wanted.numpy(), atol=1e-5)
    assert own.keys() == theirs.keys()
    assert len(own) > 30
    for name, gradient in theirs.items():
        np.testing.assert_allclose(own[name].numpy(), gradient.numpy(), atol=1e-4 * max(1.0, float(gradient.abs().max())), err_msg=name)


def test_dropout_is_kept(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tower = Tower.load(tiny_model, attention="sdpa")
    ids = tower.tokenizer(TEXTS).ids
    train._set_dropout(tower, 0.3)
    torch.manual_seed(0)
    first, second = (packed.packed_vectors(tower, ids).detach() for _ in range(2))
    assert (first - second).abs().max() > 1e-3
    train._set_dropout(tower, 0.0)
    first, second = (packed.packed_vectors(tower, ids).detach() for _ in range(2))
    assert torch.equal(first, second)


def test_only_a_bert_on_a_gpu_is_packed(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bert, other = Tower.load(tiny_model), Tower.load(make_architecture(tmp_path / "roberta", "roberta"))
    assert not packed.can_pack(bert)
    monkeypatch.setattr(Tower, "device", torch.device("cuda", 0))
    assert packed.can_pack(bert)
    assert not packed.can_pack(other)


def test_a_watch_looks_late_on_a_gpu_and_at_once_on_a_cpu() -> None:
    near, far = watch.Watch(torch.device("cpu")), watch.Watch(torch.device("cuda", 0))
    assert not near.late
    for step in range(1, watch.EVERY + 1):
        assert not far.due()
        far.add(step, torch.tensor(1.0 / step), torch.tensor(float("inf") if step == 3 else 2.0))
    assert far.due()
    seen = far.look()
    assert [entry.step for entry in seen] == list(range(1, watch.EVERY + 1))
    assert [entry.step for entry in seen if entry.wrong()] == [3]
    assert seen[2].wrong() == "gradient norm is inf"
    assert watch.Seen(1, float("nan"), 1.0).wrong() == "loss is nan"
    assert far.look() == []
    assert not far.due()


# --- on a GPU ----------------------------------------------------------------------------------------------------------


@pytest.mark.cuda
@needs_gpu
def test_a_gpu_trains_as_the_cpu_does(tiny_model: Path, tmp_path: Path) -> None:
    """float32 on both: the same first losses but for rounding, which training then spreads; bfloat16 near them. All learn the code."""
    losses, scores = {}, {}
    for device, dtype in (("cpu", "float32"), ("cuda", "float32"), ("cuda", "bfloat16")):
        config = dataclasses.replace(FAST, device=device, dtype=dtype)  # type: ignore[arg-type]
        done = train.train(code_book(), tiny_model, config, work=tmp_path / device / dtype, progress=False)
        history = [entry for entry in done.history if entry["kind"] == "train"]
        losses[device, dtype] = [entry["loss"] for entry in history if entry["loss"] is not None]
        scores[device, dtype] = [entry["dev_ndcg"] for entry in history]
        print(device, dtype, losses[device, dtype], scores[device, dtype], f"{done.pairs_per_second:.0f} pairs/s")
    wanted = losses["cpu", "float32"]
    for where, near in ((("cuda", "float32"), 0.01), (("cuda", "bfloat16"), 0.05)):
        np.testing.assert_allclose(losses[where][0], wanted[0], rtol=near)
        np.testing.assert_allclose(losses[where], wanted, rtol=0.25, atol=0.01)
        assert scores[where][-1] > scores[where][0] + 0.2


@pytest.mark.cuda
@needs_gpu
def test_torchs_own_attention_is_found_and_agrees(tiny_model: Path) -> None:
    tower = Tower.load(tiny_model, device="cuda", attention="sdpa")
    assert packed.can_pack(tower)
    ids = tower.tokenizer(TEXTS).ids
    with torch.no_grad():
        wanted = embedding.embed(tower, ids, chunk_rows=8, dtype="float32")
        found = embedding.embed(tower, ids, chunk_rows=8, dtype="bfloat16")
    np.testing.assert_allclose(found.cpu().numpy(), wanted.cpu().numpy(), atol=3e-2)
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    assert (packed.varlen_attention() is not None) == (version >= (2, 10))


@pytest.mark.cuda
@needs_gpu
def test_a_step_that_is_not_finite_leaves_the_weights_alone(tiny_model: Path, tmp_path: Path) -> None:
    tower = Tower.load(tiny_model, device="cuda", attention="sdpa")
    parameters = dict(tower.model.named_parameters())
    optimizer = make_optimizer(parameters, TuneConfig(learning_rate=1e-2))
    before = {name: p.detach().clone() for name, p in parameters.items()}
    for bad in (True, False):
        for p in parameters.values():
            p.grad = torch.full_like(p, float("nan") if bad else 1.0)
        watch.hold(optimizer, torch.tensor(1.0, device="cuda"), torch.tensor(float("nan") if bad else 1.0, device="cuda"))
        optimizer.step()
        moved = max(float((p - before[name]).abs().max()) for name, p in parameters.items())
        assert (moved == 0) if bad else (0 < moved < 1)
    config = dataclasses.replace(FAST, device="cuda")
    calls = []
    whole = loop.step_loss

    def spoilt(*arguments: object, **options: object) -> torch.Tensor:
        calls.append(1)
        loss = whole(*arguments, **options)  # type: ignore[arg-type]
        return loss * float("nan") if len(calls) == 2 else loss

    loop.step_loss = spoilt  # type: ignore[assignment]
    try:
        with pytest.raises(InputError, match=r"the loss is nan at step 2 of \d+: lower learning_rate"):
            train.train(code_book(), tiny_model, config, work=tmp_path / "work", progress=False)
    finally:
        loop.step_loss = whole
