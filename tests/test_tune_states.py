"""What the frozen layers give, kept: the model's own vectors and gradients, in every architecture, mixed with texts that are not kept; what
is kept and when; and runs that compute it once and come to the same bits."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import encode_models
from encode_models import make_architecture, some_texts
from nearfield.config import TuneConfig
from nearfield.data.dataset import Dataset
from nearfield.encode.tower import Tower
from nearfield.tune import freeze, states
from nearfield.tune import train as module
from nearfield.tune.batches import Batches
from nearfield.tune.devset import DevSet
from nearfield.tune.embed import cached_step, embed, vectors_of
from nearfield.tune.freeze import below, freeze_lowest, layers_of, state_in
from nearfield.tune.pairs import TrainingPairs
from nearfield.tune.states import FrozenStates, groups_met_again, keep_states
from test_tune_train import FAST, code_book, digest, interrupt_at, run

FROZEN = dataclasses.replace(FAST, frozen_layers=1, epochs=3, dtype="float32", merge_alphas=(1.0,))
KINDS = ["bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", "mpnet", "deberta-v2", "modernbert", "gpt2", "qwen3"]

pytestmark = pytest.mark.usefixtures("one_thread")


def weights_below(tower: Tower) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in tower.model.named_parameters() if not p.requires_grad}


def kept(tower: Tower, ids: Sequence[list[int]], layers: int, *, dtype: str = "float32", rows: int = 3) -> FrozenStates:
    """States of these texts, ``rows`` computed together in the order given."""
    keys = list(dict.fromkeys(map(tuple, ids)))
    groups = [keys[start : start + rows] for start in range(0, len(keys), rows)]
    return FrozenStates(layers, groups, dim=tower.spec.dim, dtype=dtype, weights=weights_below(tower))


def gradients(
    tower: Tower, ids: Sequence[list[int]], found: FrozenStates | None, *, dtype: str = "float32", twice: bool = False
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Vectors, and the gradients of a loss that pulls every value its own way."""
    tower.zero_grad(set_to_none=True)
    vectors: list[torch.Tensor] = []

    def loss_of(rows: torch.Tensor) -> torch.Tensor:
        vectors.append(rows.detach())
        return (rows * torch.arange(rows.numel()).reshape(rows.shape).sin()).sum()

    if twice:
        cached_step(tower, ids, loss_of, chunk_rows=4, dtype=dtype, states=found)
    else:
        loss_of(embed(tower, ids, chunk_rows=4, dtype=dtype, states=found)).backward()  # type: ignore[no-untyped-call]
    return vectors[0], {name: p.grad.clone() for name, p in tower.named_parameters() if p.grad is not None}


def near(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float = 1e-5) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=tolerance * (1 + float(value.abs().max())), msg=lambda m, n=name: n + m)


def real_calls(layer: torch.nn.Module) -> Counter[str]:
    """Counts what the layer really computes: calls of its first part, which an answered layer never reaches."""
    calls: Counter[str] = Counter()
    next(layer.children()).register_forward_hook(lambda *_: calls.update(["computed"]))
    return calls


@pytest.fixture
def three_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(encode_models._SIZES, "num_hidden_layers", 3)
    monkeypatch.setitem(encode_models._OWN_SIZES["distilbert"], "n_layers", 3)
    monkeypatch.setitem(encode_models._OWN_SIZES["gpt2"], "n_layer", 3)


@pytest.mark.usefixtures("three_layers")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_vectors_and_gradients_are_those_of_the_whole_model(kind: str, attention: Any, tmp_path: Path) -> None:
    folder = make_architecture(tmp_path / kind, kind, pooling="last" if kind in ("gpt2", "qwen3") else "mean")
    try:
        tower = Tower.load(folder, attention=attention)
    except Exception as error:
        assert "scaled_dot_product_attention" in str(error)  # noqa: PT017
        pytest.skip(f"transformers has no fused attention for {kind}")
    freeze_lowest(tower.model, 2)
    ids = tower.tokenizer(some_texts(11, longest=20)).ids
    plain, expected = gradients(tower, ids, None)
    assert expected
    assert not any(".0." in name or ".1." in name for name in expected if freeze.LAYER.search(name))
    found = kept(tower, ids[:7], 2)  # the other four are computed beside them
    calls = real_calls(layers_of(tower.model)[1])
    for _ in range(2):
        vectors, gradient = gradients(tower, ids, found)
        torch.testing.assert_close(vectors, plain, rtol=0, atol=1e-5)
        near(gradient, expected)
    assert calls["computed"] == 3 + 2  # three groups once, and the chunk of the others in each step
    assert (found.computed, found.read) == (7, 7)
    assert all("forward" not in layer.__dict__ for layer in layers_of(tower.model))


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_vectors_and_gradients_against_each_text_alone_in_float64(tiny_model_of: Callable[..., Path], pooling: str) -> None:
    """The oracle knows no padding, no chunks and no rounding of float32."""
    folder = tiny_model_of(pooling=pooling, num_hidden_layers=3)
    tower, exact = Tower.load(folder, attention="sdpa"), Tower.load(folder)
    ids = tower.tokenizer(some_texts(9, longest=20)).ids
    for each in (tower, exact):
        freeze_lowest(each.model, 2)
    model: Any = exact.model.double()
    rows = []
    for text in ids:
        hidden = model(input_ids=torch.tensor([text])).last_hidden_state[0]
        row = {"mean": hidden.mean(dim=0), "cls": hidden[0], "last": hidden[-1]}[pooling]
        rows.append(row / row.norm())
    whole = torch.stack(rows)
    (whole * torch.arange(whole.numel()).reshape(whole.shape).sin()).sum().backward()  # type: ignore[no-untyped-call]
    expected = {name: p.grad.float() for name, p in exact.named_parameters() if p.grad is not None}
    for twice in (False, True):
        vectors, gradient = gradients(tower, ids, kept(tower, ids[2:], 2), twice=twice)
        torch.testing.assert_close(vectors, whole.detach().float(), rtol=0, atol=1e-6)
        near(gradient, expected)


def test_a_second_forward_pass_reads_what_the_first_has_computed(tiny_model: Path) -> None:
    tower = Tower.load(tiny_model)
    freeze_lowest(tower.model, 1)
    ids = tower.tokenizer(some_texts(12)).ids
    found, calls = kept(tower, ids, 1, rows=4), real_calls(layers_of(tower.model)[0])
    gradients(tower, ids, found, twice=True)
    assert (calls["computed"], found.computed) == (3, 12)


def test_in_bfloat16_a_kept_state_costs_no_more_than_the_products_do(tiny_model_of: Callable[..., Path]) -> None:
    """With weights as large as trained ones have: a layer adds as much as it is given (the tiny model's add a twentieth)."""
    tower = Tower.load(tiny_model_of(num_hidden_layers=4, hidden=64, initializer_range=0.2))
    freeze_lowest(tower.model, 2)
    ids = tower.tokenizer(some_texts(60)).ids
    found = kept(tower, ids, 2, dtype="bfloat16", rows=16)
    exact, exact_gradient = gradients(tower, ids, None)
    errors = []
    for each in (None, found):
        vectors, gradient = gradients(tower, ids, each, dtype="bfloat16")
        apart = torch.cat([(gradient[name] - value).flatten() for name, value in exact_gradient.items()])
        errors.append([float((vectors - exact).norm()), float(apart.norm())])
    assert found.filled_bytes() == 64 * 2 * sum(len(key) for key in {tuple(row) for row in ids})
    assert min(errors[0]) > 0
    assert errors[1][0] < 1.25 * errors[0][0]
    assert errors[1][1] < 1.25 * errors[0][1]
    # Kept in bfloat16, read under bfloat16 alone.
    assert not found.known(tower, ids, "float32").any()


def test_the_bits_do_not_depend_on_who_asks_first_or_with_whom(tiny_model: Path) -> None:
    tower = Tower.load(tiny_model, attention="sdpa")
    freeze_lowest(tower.model, 1)
    ids = tower.tokenizer(some_texts(20)).ids
    vectors = []
    for first in ([ids[7]], ids[::-1], ids[3:5] + ids[15:]):
        found = kept(tower, ids, 1, rows=6)
        with torch.no_grad():
            embed(tower, first, chunk_rows=2, dtype="float32", states=found)
        vectors.append(vectors_of(tower, ids, chunk_rows=8, dtype="float32", states=found))
    assert np.array_equal(vectors[0], vectors[1])
    assert np.array_equal(vectors[0], vectors[2])


def test_states_are_read_under_equal_weights_alone(tiny_model: Path) -> None:
    tower, other = Tower.load(tiny_model), Tower.load(tiny_model)
    freeze_lowest(tower.model, 1)
    ids = tower.tokenizer(some_texts(5)).ids
    found = kept(tower, ids, 1)
    assert found.known(tower, ids, "float32").all()
    assert found.known(other, ids, "float32").all()  # the base beside it, as for an anchor
    with torch.no_grad():
        layers_of(tower.model)[1].attention.output.dense.weight.add_(1)
    assert found.known(tower, ids, "float32").all()
    before = {name: tensor.clone() for name, tensor in tower.model.state_dict().items()}
    with torch.no_grad():
        layers_of(tower.model)[0].attention.output.dense.bias[3] += 1
    assert not found.known(tower, ids, "float32").any()
    assert found.known(other, ids, "float32").all()
    tower.model.load_state_dict(before | {name: other.model.state_dict()[name] for name in weights_below(tower)})
    assert found.known(tower, ids, "float32").all()


@pytest.mark.usefixtures("three_layers")
@pytest.mark.parametrize(("kind", "shared"), [("mpnet", "relative_attention_bias"), ("deberta-v2", "rel_embeddings"), ("bert", "")])
def test_what_the_frozen_layers_share_with_the_others_is_frozen_with_them(kind: str, shared: str, tmp_path: Path) -> None:
    tower = Tower.load(make_architecture(tmp_path / kind, kind))
    by_name = {name for name, _ in tower.model.named_parameters() if (at := freeze.LAYER.search(name)) and int(at[1]) == 2}
    freeze_lowest(tower.model, 0)
    frozen = {name for name, p in tower.model.named_parameters() if not p.requires_grad}
    assert frozen
    assert not any("layer.0" in name or (shared and shared in name) for name in frozen)
    count = freeze_lowest(tower.model, 2)
    trained = {name: p for name, p in tower.model.named_parameters() if p.requires_grad}
    assert by_name <= trained.keys()
    assert not shared or (any(shared in name for name in dict(tower.model.named_parameters())) and not any(shared in n for n in trained))
    assert count == sum(p.numel() for p in tower.model.parameters()) - sum(p.numel() for p in trained.values())
    ids = torch.tensor([[5, 6, 7]])
    state = state_in(below(tower.model, 2, ids, torch.ones_like(ids)))
    assert state is not None
    assert not state.requires_grad


def test_layers_are_found_or_there_are_none() -> None:
    linear = torch.nn.Linear(1, 1)
    assert layers_of(linear) == []
    two = torch.nn.ModuleDict({"a": torch.nn.ModuleDict({"layer": torch.nn.ModuleList([linear])})})
    assert layers_of(two) == [linear]
    two["b"] = torch.nn.ModuleDict({"layer": torch.nn.ModuleList([torch.nn.Linear(1, 1)])})
    assert layers_of(two) == []
    state = torch.ones(1)
    assert state_in((state, None)) is state
    assert state_in((state, state)) is None


def pairs_of(*rows: tuple[int, int], negatives: Sequence[tuple[int, ...]] = ()) -> TrainingPairs:
    """Query i is the text [1, 10 + i, 2], document j [1, 50 + j] and j more tokens."""
    queries = [[1, 10 + i, 2] for i in range(1 + max(i for i, _ in rows))]
    documents = [[1, 50 + j, *[9] * j] for j in range(8)]
    relevant = [frozenset(j for k, j in rows if k == i) for i in range(len(queries))]
    return TrainingPairs(queries, documents, np.array(rows, np.int64), relevant, list(negatives or [()] * len(queries)), len(rows))


def groups_of(pairs: TrainingPairs, config: TuneConfig, *, room: int = 10_000, dev: DevSet | None = None) -> list[list[list[int]]]:
    dev = dev or DevSet(["q"], [[1, 99, 2]], ["d"], [[1, 98, 2]], {"q": {"d": 1}})
    return [[list(key) for key in group] for group in groups_met_again(Batches(pairs, config), dev, config, room)]


def test_kept_is_what_is_met_again_with_what_it_is_first_met_with() -> None:
    once = TuneConfig(batch_size=2, chunk_rows=2)
    # Document 3 answers three queries in different steps; everything else is met once in a pass.
    pairs = pairs_of((0, 3), (1, 3), (2, 3), (3, 4), (4, 5), (5, 6))
    assert sum(len(Batches(pairs, once).texts(step)[1]) for step in range(3)) > 4
    found = groups_of(pairs, once)
    assert found[:2] == [[[1, 99, 2]], [[1, 98, 2]]]  # dev, always
    assert found[2:] == [[pairs.documents[3]]]
    twice = groups_of(pairs, dataclasses.replace(once, epochs=2))
    texts = [text for group in twice for text in group]
    assert sorted(texts) == sorted([*pairs.queries, *pairs.documents[3:7], [1, 99, 2], [1, 98, 2]])
    batches, number = Batches(pairs, once), 2
    for step in range(len(batches)):  # by the steps of the first pass, two at a time, the longest first
        met = [text for part in batches.texts(step) for text in part]
        new = sorted([text for text in met if not any(text in group for group in twice[:number])], key=lambda text: -len(text))
        for start in range(0, len(new), 2):
            assert sorted(twice[number]) == sorted(new[start : start + 2])
            assert len(twice[number][0]) >= len(twice[number][-1])
            number += 1
    assert number == len(twice)


def test_queries_alone_and_fixed_documents_and_rotating_negatives() -> None:
    pairs = pairs_of((0, 3), (1, 4), negatives=[(5, 6, 7), ()])
    config = TuneConfig(batch_size=2, epochs=2)
    texts = [text for group in groups_of(pairs, config) for text in group]
    assert pairs.documents[3] in texts
    assert not any(pairs.documents[row] in texts for row in (5, 6, 7))  # another one in each pass, and two passes
    longer = [text for group in groups_of(pairs, dataclasses.replace(config, epochs=8)) for text in group]
    assert all(pairs.documents[row] in longer for row in (5, 6, 7))
    fixed = DevSet(["q"], [[1, 99, 2]], ["d"], [[1, 98, 2]], {"q": {"d": 1}}, fixed=np.ones((1, 4), np.float32))
    alone = [text for group in groups_of(pairs, dataclasses.replace(config, query_only=True), dev=fixed) for text in group]
    assert sorted(alone) == sorted([*pairs.queries, [1, 99, 2]])


def test_the_most_often_met_come_first_where_there_is_no_room_for_all() -> None:
    pairs = pairs_of((0, 1), (1, 1), (2, 1), (3, 4), (4, 5), (5, 6))
    config = TuneConfig(batch_size=2, epochs=4, eval_every=0.5)
    for room in range(60):
        texts = [text for group in groups_of(pairs, config, room=room) for text in group]
        assert sum(map(len, texts)) <= room
        assert len({tuple(text) for text in texts}) == len(texts)
        if pairs.documents[5] in texts:
            assert pairs.documents[1] in texts
        assert room < len(pairs.documents[1]) or pairs.documents[1] in texts  # met more often than dev
    assert len(texts) == 6 + 4 + 2


def frozen_entry(history: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    return next((entry for entry in history if entry["kind"] == "frozen"), None)


def recurring(pairs: int = 48, dev: int = 12) -> Dataset:
    """Documents of many lengths: padding, and so the bits, would tell who asked for a state, and with whom."""
    data = code_book(pairs=pairs, dev=dev)
    data.doc_texts[:] = [" ".join([text] * (1 + 7 * i % 12)) for i, text in enumerate(data.doc_texts)]
    return data


def close(first: Path, second: Path, tolerance: float) -> None:
    one, other = (load_file(folder / "model.safetensors") for folder in (first, second))
    for name, tensor in one.items():
        assert float((tensor - other[name]).abs().max()) < tolerance, name


@pytest.mark.parametrize("options", [{}, {"gradcache": True}, {"query_only": True}, {"anchor": 1.0}])
def test_a_run_computes_each_text_once_and_learns_the_same(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    config = dataclasses.replace(FROZEN, **options)
    towers: list[Any] = []
    computed, real = list[int](), states.below

    def counted(model: Any, layers: int, input_ids: torch.Tensor, mask: torch.Tensor) -> Any:
        computed.append(len(input_ids))
        return real(model, layers, input_ids, mask)

    def noticed(tower: Tower, *args: Any, **kwargs: Any) -> Any:
        found = keep_states(tower, *args, **kwargs)
        if found[0] is not None:
            towers.append(real_calls(layers_of(tower.model)[0]))
        return found

    monkeypatch.setattr(module, "keep_states", noticed)
    monkeypatch.setattr(states, "below", counted)
    result = run(tmp_path / "kept", tiny_model, config, recurring())
    plain = run(tmp_path / "plain", tiny_model, dataclasses.replace(config, frozen_cache=0.0), recurring())
    entry = frozen_entry(result.history)
    assert entry is not None
    assert frozen_entry(plain.history) is None
    assert len(computed) == 2 + 3 + (1 if options.get("query_only") else 3)  # the trial's two first
    texts = 48 + 12 if options.get("query_only") else 2 * (48 + 12)
    assert entry["texts"] == entry["computed"] == texts
    assert entry["read"] >= 2 * 48
    assert 0 < entry["bytes"] == 32 * 4 * (entry["bytes"] // 128) < 10**6
    assert any(f"kept for {texts} texts" in note for note in result.notes)
    # Dev's 12 queries, all 60 documents, for dev has them all, and 16 new queries in each of 3 steps; no layer below the line computes
    # besides. With an anchor the base beside the model asks first, and computes the steps' groups with the same weights.
    groups = {"query_only": 1 + 3, "anchor": 1 + 2}.get(next(iter(options), ""), 1 + 2 + 3)
    assert [dict(calls) for calls in towers] == [{"computed": groups}]
    close(result.model, plain.model, 2e-3)
    for found, expected in zip(result.history, plain.history, strict=False):
        if found["kind"] == "train" and found["loss"] is not None:
            assert found["loss"] == pytest.approx(expected["loss"], rel=1e-3)


def test_a_run_with_room_for_some_texts_keeps_to_it_and_learns_the_same(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "machine_bytes", lambda: 8 * 150_000)
    result = run(tmp_path / "some", tiny_model, FROZEN, recurring())
    entry = frozen_entry(result.history)
    assert entry is not None
    assert 2 * 12 < entry["texts"] < 2 * (48 + 12)
    assert 130_000 < entry["bytes"] <= 150_000
    plain = run(tmp_path / "plain", tiny_model, dataclasses.replace(FROZEN, frozen_cache=0.0), recurring())
    close(result.model, plain.model, 2e-3)


# In the first step, later in the first pass, in the second, during a dev score, with and without room for all.
@pytest.mark.parametrize(
    ("step", "where", "bytes_", "dtype"),
    [
        (1, "step_loss", 10**9, "float32"),
        (2, "step_loss", 50_000, "float32"),
        (6, "step_loss", 50_000, "bfloat16"),
        (2, "encode_devset", 10**9, "float32"),
    ],
)
def test_a_killed_run_resumes_to_the_same_bits(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, step: int, where: str, bytes_: int, dtype: Any
) -> None:
    monkeypatch.setattr(states, "machine_bytes", lambda: 8 * bytes_)
    config = dataclasses.replace(FROZEN, dtype=dtype, checkpoint_minutes=0)
    whole = run(tmp_path / "whole", tiny_model, config, recurring())
    for error in (KeyboardInterrupt, RuntimeError):
        with monkeypatch.context() as patch:
            interrupt_at(patch, step, error, where)
            with pytest.raises(error):
                run(tmp_path / error.__name__, tiny_model, config, recurring())
        resumed = run(tmp_path / error.__name__, tiny_model, config, recurring(), resume=True)
        assert digest(resumed.model) == digest(whole.model)
        drop = ("seconds", "read", "computed", "bytes")  # a session counts for itself
        assert [{k: v for k, v in e.items() if k not in drop} for e in resumed.history] == [
            {k: v for k, v in e.items() if k not in drop} for e in whole.history
        ]
    assert digest(whole.model) != digest(tiny_model)


@pytest.mark.parametrize(
    "options", [{"frozen_layers": -1}, {"frozen_layers": 0}, {"frozen_layers": -1, "lora_rank": 2}, {"dropout": 0.1}, {"frozen_cache": 0.0}]
)
def test_nothing_is_kept_where_it_would_not_be_the_same_again(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("kept")

    monkeypatch.setattr(states, "FrozenStates", never)
    result = run(tmp_path, tiny_model, dataclasses.replace(FROZEN, epochs=2, **options), recurring())
    assert frozen_entry(result.history) is None
    assert not any("frozen" in note for note in result.notes)


def test_a_merge_with_pieces_that_change_the_frozen_layers_measures_the_model_that_it_saves(tmp_path: Path, tiny_model: Path) -> None:
    """Without a guard the pieces' change is in every measured point; the first layer is then no longer the base's."""
    config = dataclasses.replace(FROZEN, pieces=2.0, learning_rate=1e-2, merge_alphas=(1.0,), merge_trials=0)
    result = run(tmp_path, tiny_model, config, recurring())
    base, saved = (load_file(folder / "model.safetensors") for folder in (tiny_model, result.model))
    assert any(not torch.equal(saved[name], base[name]) for name in saved if "layer.0." in name)
    assert frozen_entry(result.history) is not None
    point = next(entry for entry in result.history if entry["kind"] == "merge" and entry["alpha"] == 1.0)
    query_ids_of, doc_ids_of = module.tokenizers(tiny_model, config)
    dev = module.choose_devset(recurring(), config, query_ids_of=query_ids_of, doc_ids_of=doc_ids_of)
    tower = Tower.load(result.model)
    again = dev.ndcg(*(vectors_of(tower, ids, chunk_rows=32, dtype="float32") for ids in (dev.queries, dev.documents)))
    assert point["dev_ndcg"] == pytest.approx(again, abs=1e-6)


def test_a_model_that_gives_other_vectors_is_trained_without(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = states.below
    monkeypatch.setattr(states, "below", lambda *args: real(*args).flip(-1))
    result = run(tmp_path / "other", tiny_model, dataclasses.replace(FROZEN, epochs=1), recurring())
    assert frozen_entry(result.history) is None
    assert "what the frozen layers give is computed anew each time: BertModel does not go on from what is kept" in result.notes
    monkeypatch.setattr(states, "below", lambda *args: (real(*args), torch.ones(1)))
    result = run(tmp_path / "more", tiny_model, dataclasses.replace(FROZEN, epochs=1), recurring())
    assert frozen_entry(result.history) is None


def test_a_budget_counts_what_is_kept_as_it_counts_everything(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that only computing below the line moves: the time is in the run's seconds."""
    now, real = [0.0], states.below

    def slow(*args: Any) -> Any:
        now[0] += 1.0
        return real(*args)

    monkeypatch.setattr(states, "below", slow)
    config = dataclasses.replace(FROZEN, budget_seconds=1e6)
    result = run(tmp_path, tiny_model, config, recurring(), clock=lambda: now[0])
    assert result.seconds == pytest.approx(now[0] - 2)  # less the trial of three texts, which comes before the first step
    assert result.seconds >= 1 + 2 + 3
