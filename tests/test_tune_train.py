"""Whole runs with a tiny model: it learns, repeats, resumes to the same bits, stops, refuses, and saves a sentence-transformers folder."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from conftest import WORDS
from nearfield.config import TuneConfig
from nearfield.data.dataset import Dataset
from nearfield.encode.models import resolve_model
from nearfield.encode.tower import Tower
from nearfield.errors import FormatError, InputError
from nearfield.tune import loop
from nearfield.tune.train import TrainResult, train

# A rate and a number of passes that a random two-layer model with 32 dimensions can learn with.
FAST = TuneConfig(
    pieces=0,
    epochs=6,
    batch_size=16,
    learning_rate=3e-3,
    patience=0,
    eval_every=0.5,
    checkpoint_minutes=1e6,
    merge_trials=1,
)
HALF = len(set(WORDS)) // 2
LEFT, RIGHT = sorted(set(WORDS))[:HALF], sorted(set(WORDS))[HALF : 2 * HALF]

pytestmark = pytest.mark.usefixtures("one_thread")


def code_book(pairs: int = 160, dev: int = 30, seed: int = 0) -> Dataset:
    """Documents are three words; the query is their code words. A model without training has no way to know the code."""
    rng = np.random.default_rng(seed)
    rows = [rng.choice(HALF, 3, replace=False) for _ in range(pairs + dev)]
    ids = [f"{i}" for i in range(len(rows))]
    documents = [" ".join(RIGHT[w] for w in row) for row in rows]
    queries = [" ".join(LEFT[w] for w in rng.permutation(row)) for row in rows]
    qrels = {"train": {i: {i: 1} for i in ids[:pairs]}, "dev": {i: {i: 1} for i in ids[pairs:]}}
    return Dataset("code book", "memory", ids, documents, ids, queries, qrels)


def plain_texts(n: int = 40) -> Dataset:
    """A guard: the right document repeats a word of the query, a wrong one all its code words; learning the code prefers the wrong one."""
    rows = [np.random.default_rng((7, i)).permutation(HALF)[:5] for i in range(n)]
    queries = [" ".join(LEFT[w] for w in row[:3]) for row in rows]
    right = [" ".join(LEFT[w] for w in row[2:]) for row in rows]
    wrong = [" ".join(RIGHT[w] for w in row[:3]) for row in rows]
    ids = [f"{i}" for i in range(2 * n)]
    return Dataset("plain", "memory", ids, right + wrong, ids[:n], queries, {"dev": {i: {i: 1} for i in ids[:n]}})


def run(work: Path, base: Path, config: TuneConfig = FAST, data: Dataset | None = None, **options: Any) -> TrainResult:
    return train(data or code_book(), base, config, work=work, progress=False, **options)


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> TrainResult:
    torch.set_num_threads(1)
    return run(tmp_path_factory.mktemp("run"), tiny_model)


def test_learns_what_the_base_cannot_know(finished: TrainResult) -> None:
    assert finished.dev["base"] < 0.4
    assert finished.dev["chosen"] > finished.dev["base"] + 0.3
    scores = [entry for entry in finished.history if entry["kind"] == "train"]
    assert [entry["step"] for entry in scores] == [0, 30, 60]
    assert scores[0]["loss"] is None
    assert scores[2]["loss"] < scores[1]["loss"]
    assert scores[0]["dev_ndcg"] == finished.dev["base"]
    assert max(entry["dev_ndcg"] for entry in scores[1:]) == finished.dev["tuned"]
    assert (finished.steps, finished.pairs, finished.guard) == (60, 160, None)
    assert 0 < finished.dev["scoring_share"] < 1
    assert finished.dtype_reason.startswith(finished.dtype)


def test_the_result_loads_in_sentence_transformers_with_the_same_vectors(finished: TrainResult) -> None:
    from sentence_transformers import SentenceTransformer

    texts = ["the index of a tree", "search", "how to sort an array of numbers quickly"]
    ours = Tower.load(finished.model).encode(texts)
    theirs = SentenceTransformer(str(finished.model), device="cpu").encode(texts)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert Tower.load(finished.model).spec.max_tokens == 64


def test_the_same_run_gives_the_same_bits_and_leaves_the_callers_random_state(
    tmp_path: Path, tiny_model: Path, finished: TrainResult
) -> None:
    torch.manual_seed(99)
    before = torch.get_rng_state()
    again = run(tmp_path, tiny_model)
    assert digest(again.model) == digest(finished.model)
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.are_deterministic_algorithms_enabled()
    other = run(tmp_path / "other", tiny_model, dataclasses.replace(FAST, seed=1))
    assert digest(other.model) != digest(finished.model)


def interrupt_at(monkeypatch: pytest.MonkeyPatch, step: int, error: type[BaseException], where: str = "step_loss") -> None:
    """Makes the ``step``-th call of the loss (counted over the run) fail, as a Ctrl-C or a crash in that step would."""
    calls, real = [0], getattr(loop, where)

    def failing(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == step:
            raise error("here")
        return real(*args, **kwargs)

    monkeypatch.setattr(loop, where, failing)


# In the first step, in the middle of a step, during the score after step 30, and (with a random state to restore) after it.
@pytest.mark.parametrize(
    ("step", "where", "dropout"), [(1, "step_loss", 0.0), (17, "step_loss", 0.0), (2, "encode_devset", 0.0), (31, "step_loss", 0.1)]
)
def test_resume_after_ctrl_c_gives_the_same_bits(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, finished: TrainResult, step: int, where: str, dropout: float
) -> None:
    config = dataclasses.replace(FAST, dropout=dropout)
    whole = run(tmp_path / "whole", tiny_model, config) if dropout else finished
    with monkeypatch.context() as patch:
        interrupt_at(patch, step, KeyboardInterrupt, where)
        with pytest.raises(KeyboardInterrupt, match=r"stopped after step \d+ of 60; resume continues"):
            run(tmp_path / "cut", tiny_model, config)
    resumed = run(tmp_path / "cut", tiny_model, config, resume=True)
    assert digest(resumed.model) == digest(whole.model)
    assert [{k: v for k, v in e.items() if k != "seconds"} for e in resumed.history] == [
        {k: v for k, v in e.items() if k != "seconds"} for e in whole.history
    ]


def test_resume_after_a_crash_goes_on_from_the_last_checkpoint(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, finished: TrainResult
) -> None:
    # A checkpoint after every step; the interval is no part of what the weights depend on, so the finished run is the same one.
    config = dataclasses.replace(FAST, checkpoint_minutes=0)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 42, RuntimeError)
        with pytest.raises(RuntimeError, match="here"):
            run(tmp_path, tiny_model, config)
    assert len(list(tmp_path.glob("checkpoint-*"))) == 1
    interrupt_at(monkeypatch, 20, RuntimeError)  # of the 19 steps left, none is the 20th
    resumed = run(tmp_path, tiny_model, config, resume=True)
    assert digest(resumed.model) == digest(finished.model)
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".part", ".pt", ".pkl", ".bin")]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_either_number_format_repeats_and_resumes_to_the_same_bits_on_two_threads(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, dtype: Any
) -> None:
    """Whatever "auto" takes on this CPU: with AMX that is bfloat16, whose products other kernels make, in forward and backward."""
    config = dataclasses.replace(FAST, dtype=dtype, epochs=2)
    torch.set_num_threads(2)
    whole, again = (run(tmp_path / name, tiny_model, config) for name in ("whole", "again"))
    with monkeypatch.context() as patch:
        interrupt_at(patch, 13, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "cut", tiny_model, config)
    resumed = run(tmp_path / "cut", tiny_model, config, resume=True)
    assert whole.dtype == dtype
    assert digest(again.model) == digest(whole.model)
    assert digest(resumed.model) == digest(whole.model)
    assert digest(whole.model) != digest(tiny_model)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_packaged_model_resumes_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: Any) -> None:
    """Real sizes: products large enough to be divided between threads, and blocked as on a real run."""
    config = dataclasses.replace(FAST, dtype=dtype, epochs=1, learning_rate=5e-5, dev_queries=20, dev_documents=40)
    base = resolve_model(None)
    data = code_book(pairs=96, dev=20)
    data.doc_texts[:] = [" ".join([text] * (1 + i % 12)) for i, text in enumerate(data.doc_texts)]
    torch.set_num_threads(2)
    whole = run(tmp_path / "whole", base, config, data)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 4, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt, match="stopped after step 3 of 6"):
            run(tmp_path / "cut", base, config, data)
    resumed = run(tmp_path / "cut", base, config, data, resume=True)
    assert digest(resumed.model) == digest(whole.model)
    assert whole.dtype == dtype


def test_resume_of_another_run_is_refused_and_says_why(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, tiny_model)
    with pytest.raises(InputError, match=r"config has learning_rate 0\.003, 0\.001 given"):
        run(tmp_path, tiny_model, dataclasses.replace(FAST, learning_rate=1e-3), resume=True)
    with pytest.raises(InputError, match="its data is"):
        run(tmp_path, tiny_model, data=code_book(seed=1), resume=True)
    weights = next(tmp_path.glob("checkpoint-*/weights.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(FormatError, match="start again without resume"):
        run(tmp_path, tiny_model, resume=True)
    assert run(tmp_path, tiny_model).steps == 60


def test_resume_with_nothing_to_resume_begins_and_a_finished_run_only_merges(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, finished: TrainResult
) -> None:
    first = run(tmp_path, tiny_model, resume=True)
    interrupt_at(monkeypatch, 1, AssertionError)
    second = run(tmp_path, tiny_model, resume=True)
    assert digest(first.model) == digest(second.model) == digest(finished.model)
    with monkeypatch.context() as patch:
        patch.setattr(loop.DevSet, "ndcg", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt, match="while merging; resume continues"):
            run(tmp_path, tiny_model, resume=True)
    base = run(tmp_path, tiny_model, dataclasses.replace(FAST, merge_alphas=(0.0,)), resume=True)
    assert base.alpha == 0.0


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_weights(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, real = [0], loop.step_loss

    def broken(*args: Any, **kwargs: Any) -> torch.Tensor:
        calls[0] += 1
        loss: torch.Tensor = real(*args, **kwargs)
        return loss * float("nan") if calls[0] == 5 else loss

    monkeypatch.setattr(loop, "step_loss", broken)
    with pytest.raises(InputError, match=r"loss is nan at step 5 of 60: lower learning_rate \(0\.003 now\)"):
        run(tmp_path, tiny_model)
    weights = load_file(next(tmp_path.glob("checkpoint-*/weights.safetensors")))
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())


def test_alpha_one_is_the_best_checkpoint_and_alpha_zero_the_base_bit_for_bit(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = run(tmp_path / "one", tiny_model, dataclasses.replace(FAST, merge_alphas=(1.0,)))
    best = load_file(tmp_path / "one" / f"best-{tuned.best_step}.safetensors")
    saved = load_file(tuned.model / "model.safetensors")
    assert tuned.alpha == 1.0
    assert all(torch.equal(saved[name], best[name]) for name in saved)
    base = run(tmp_path / "zero", tiny_model, dataclasses.replace(FAST, merge_alphas=(0.0,), epochs=1))
    assert base.alpha == 0.0
    assert base.dev["chosen"] == base.dev["base"]
    saved, original = load_file(base.model / "model.safetensors"), load_file(tiny_model / "model.safetensors")
    assert all(torch.equal(saved[name], original[name]) for name in saved)


def test_the_guard_holds_the_merge_back(tmp_path: Path, tiny_model: Path) -> None:
    free = run(tmp_path / "free", tiny_model, dataclasses.replace(FAST, guard_max_drop=1.0, guard_margin=0.0), guard=plain_texts())
    held = run(tmp_path / "held", tiny_model, dataclasses.replace(FAST, guard_max_drop=0.0, merge_trials=3), guard=plain_texts())
    assert free.guard is not None
    assert held.guard is not None
    assert free.guard["tuned"] < free.guard["base"]
    assert held.guard["chosen"] >= held.guard["base"]
    assert held.alpha < free.alpha
    points = [entry for entry in held.history if entry["kind"] == "merge"]
    assert {0.0, 1.0} < {entry["alpha"] for entry in points}
    no_dev = dataclasses.replace(plain_texts(), qrels={"test": plain_texts().qrels["dev"]})
    noted = run(tmp_path / "noted", tiny_model, dataclasses.replace(FAST, epochs=1), guard=no_dev)
    assert noted.guard is None
    assert "no dev split" in noted.notes[0]


def test_stops_early_and_keeps_the_best(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, scores = loop.DevSet.ndcg, iter([0.1, 0.3, 0.5, 0.4, 0.5])
    monkeypatch.setattr(loop.DevSet, "ndcg", lambda self, q, d: next(scores, None) or real(self, q, d))
    config = dataclasses.replace(FAST, eval_every=0.1, patience=2)
    result = run(tmp_path, tiny_model, config)
    assert (result.steps, result.best_step) == (24, 12)
    assert "stopped early after step 24 of 60" in result.notes[0]
    assert [path.name for path in tmp_path.glob("best-*")] == ["best-12.safetensors"]


def few(pairs: int) -> Dataset:
    data = code_book(pairs=4, dev=3)
    return dataclasses.replace(data, qrels={**data.qrels, "train": {f"{i}": {f"{i}": 1} for i in range(pairs)}})


def test_few_pairs_work_or_say_what_is_missing(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(InputError, match="at least two different documents"):
        run(tmp_path / "1", tiny_model, data=few(1))
    for pairs in (2, 3):
        assert run(tmp_path / str(pairs), tiny_model, data=few(pairs)).steps == 6
    same = code_book(pairs=8, dev=3)
    with pytest.raises(InputError, match="at least two different documents"):
        run(tmp_path / "same", tiny_model, data=dataclasses.replace(same, doc_texts=["the same"] * 11))
    with pytest.raises(InputError, match="no dev split"):
        run(tmp_path / "nodev", tiny_model, data=dataclasses.replace(same, qrels={"train": same.qrels["train"]}))


def test_all_queries_alike_leave_nothing_to_learn_and_nothing_breaks(tmp_path: Path, tiny_model: Path) -> None:
    data = code_book(pairs=8, dev=3)
    result = run(tmp_path, tiny_model, data=dataclasses.replace(data, query_texts=["the same"] * 11))
    assert result.alpha == 0.0


def test_prompts_and_lengths_of_the_base_are_used(tmp_path: Path, tiny_model_of: Any) -> None:
    from nearfield.tune.train import tokenizers

    base = tiny_model_of(pooling="cls", normalize=False)
    (base / "config_sentence_transformers.json").write_text('{"prompts": {"query": "find ", "document": "the "}}')
    queries, documents = tokenizers(base, TuneConfig(max_tokens_query=5, max_tokens_train=500))
    tower = Tower.load(base)
    long = "search " * 200
    assert queries(["tree"]) == tower.tokenizer(["find tree"]).ids
    assert documents(["tree"]) == tower.tokenizer(["the tree"]).ids
    assert (len(queries([long])[0]), len(documents([long])[0])) == (5, 64)
    wide = ["tree " + " " * 5000 + "graph", "x" * 5000 + " tree", "the node of a tree " * 100, "tree", ""]
    assert documents(wide) == tower.tokenizer(["the " + text for text in wide]).ids
    assert documents(wide[::-1]) == documents(wide)[::-1]
    result = run(tmp_path, base)
    assert result.dev["chosen"] > result.dev["base"]


def test_bfloat16_trains_too(tmp_path: Path, tiny_model: Path) -> None:
    result = run(tmp_path, tiny_model, dataclasses.replace(FAST, dtype="bfloat16"))
    assert result.dtype == "bfloat16"
    assert result.dev["chosen"] > result.dev["base"] + 0.2
    assert load_file(result.model / "model.safetensors")["embeddings.word_embeddings.weight"].dtype == torch.float32


def test_frozen_layers_keep_the_bases_weights_and_the_others_learn(tmp_path: Path, tiny_model: Path) -> None:
    base = load_file(tiny_model / "model.safetensors")
    result = run(tmp_path / "one", tiny_model, dataclasses.replace(FAST, frozen_layers=1, epochs=2, merge_alphas=(1.0,)))
    tuned = load_file(result.model / "model.safetensors")
    moved = {name for name, tensor in tuned.items() if not torch.equal(tensor, base[name])}
    assert moved
    assert all("layer.1." in name for name in moved)
    only_tables = run(tmp_path / "zero", tiny_model, dataclasses.replace(FAST, frozen_layers=0, epochs=2, merge_alphas=(1.0,)))
    tuned = load_file(only_tables.model / "model.safetensors")
    assert {"0", "1"} <= {name.split("layer.")[1][0] for name in tuned if "layer." in name and not torch.equal(tuned[name], base[name])}
    assert all(torch.equal(tuned[name], base[name]) for name in tuned if "embeddings" in name)
    with pytest.raises(InputError, match=r"frozen_layers: 2 given, at most 1 expected, as the model has 2 layers"):
        run(tmp_path / "two", tiny_model, dataclasses.replace(FAST, frozen_layers=2))
