"""Tuning a model from a dataset: train, then choose how much of the tuned weights to keep, then save."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from nearfield.config import TuneConfig
from nearfield.data.dataset import Dataset
from nearfield.encode.spec import read_spec, weights_folder
from nearfield.encode.tokenize import TextTokenizer
from nearfield.encode.tower import Tower
from nearfield.errors import InputError
from nearfield.progress import progress as show_progress
from nearfield.tune.batches import Batches
from nearfield.tune.budget import Budget, Clock, reserve
from nearfield.tune.checkpoints import CheckpointStore, Tensors
from nearfield.tune.choice import allowed_drop, choose_weights, summary
from nearfield.tune.devset import DevSet, choose_devset
from nearfield.tune.events import open_events
from nearfield.tune.freeze import freeze_lowest
from nearfield.tune.loop import Trainer, model_weights
from nearfield.tune.lora import Lora
from nearfield.tune.memory import keep_freed_memory
from nearfield.tune.native import native_vectors
from nearfield.tune.pairs import TokenIds, Tokenize, training_pairs
from nearfield.tune.pieces import STEPS, tune_on_pieces
from nearfield.tune.precision import choose_device, choose_dtype
from nearfield.tune.prepare import prepared
from nearfield.tune.queryside import FixedDocuments, check_query_only, vectors_by_id, with_fixed
from nearfield.tune.sizing import Speed, measured
from nearfield.tune.states import keep_states
from nearfield.types import FloatArray

# Options that act after training, or on nothing it computes: a run may be resumed with others.
AFTERWARDS = (
    *("merge_alphas", "merge_trials", "pieces", "guard_queries", "guard_documents", "guard_max_drop", "guard_margin"),
    *("checkpoint_minutes", "int8_aware"),
)


# A gain of half a point of nDCG@10 from the last quarter of the pairs says that the curve still rises.
MORE_DATA = 0.005


@dataclass(frozen=True)
class TrainResult:
    """What a run made.

    Attributes:
        model: a sentence-transformers folder with the chosen weights; with ``query_only`` they are for queries alone.
        alpha: the share of the tuned weights in them: 0 is the base, 1 the tuned model.
        pieces: the share of what pieces change in those tuned weights (``nearfield.tune.pieces``).
        history: in order, an entry per dev score (kind "train": step, mean loss since the last, dev_ndcg, seconds) and per measured merge
            (kind "merge": alpha, pieces, dev_ndcg, guard_ndcg); last, where states of frozen layers were kept, one of kind "frozen".
        dev: nDCG@10 on the dev sub-corpus: base, tuned (the best checkpoint), chosen; its queries and documents; scoring_share, the
            share of the training time spent on scoring it.
        guard: the same three on the guard's dev sub-corpus and the allowed_drop; None without one.
        steps: optimizer steps of the run; ``best_step`` the one whose weights were kept.
        pairs: training pairs of one epoch; ``pairs_seen`` those of all steps together.
        seconds: time of training and merging, over all sessions of a resumed run.
        pairs_per_second: training alone, without scoring.
        dtype, dtype_reason: "float32" or "bfloat16", and why.
        notes: what a user should know about the run, one line each.
        begun_with: the ``about`` of the session that began a resumed run; empty otherwise.
    """

    model: Path
    alpha: float
    pieces: float
    history: list[dict[str, Any]]
    dev: dict[str, Any]
    guard: dict[str, Any] | None
    steps: int
    best_step: int
    pairs: int
    pairs_seen: int
    seconds: float
    pairs_per_second: float
    dtype: str
    dtype_reason: str
    notes: list[str]
    begun_with: dict[str, Any]


def train(
    dataset: Dataset,
    base: Path,
    config: TuneConfig,
    *,
    work: Path,
    guard: Dataset | None = None,
    resume: bool = False,
    about: Mapping[str, Any] | None = None,
    progress: bool = True,
    clock: Clock = time.monotonic,
    events: Path | None = None,
    documents: FloatArray | None = None,
) -> TrainResult:
    """Tunes ``base`` on the ``train`` split and returns the weights that do best on ``dev`` without losing more than allowed on the guard.

    The same data, config, base, machine and thread count give the same weights, resumed or not, unless there is a budget. The caller's
    random state is left alone.

    Args:
        dataset: with ``train`` and ``dev`` splits.
        base: a model folder that ``Tower.load`` reads.
        config: see ``TuneConfig``.
        work: folder for checkpoints and the result (``work/model``); about four times the model's size.
        guard: general knowledge to keep, with a ``dev`` split; None lets dev alone decide.
        resume: goes on from the checkpoint in ``work``; begins anew where there is none.
        about: kept with the checkpoints, for a resumed run to compare with.
        progress: shows a bar on stderr.
        clock: what measures the run and its budget.
        documents: with ``config.query_only``: the documents' vectors, ``(documents, dim)`` in the order of ``dataset.doc_ids``, as the base
            makes them; None encodes those that are needed.
        events: a folder for TensorBoard's event files: loss, gradient norm and learning rate by step, dev scores; None writes none.

    Raises:
        InputError: a split is missing or has nothing usable, the loss is not finite, or ``work`` holds another run than the one to resume.
        KeyboardInterrupt: Ctrl-C; a checkpoint was saved first.
    """
    base, work = Path(base), Path(work)
    config = check_query_only(config) if config.query_only else config
    if config.lora_rank and config.frozen_layers >= 0:
        raise InputError(
            f"config: frozen_layers: {config.frozen_layers} given together with lora_rank, which freezes every weight; -1 expected"
        )
    budget = None if config.budget_seconds is None else Budget(config.budget_seconds, clock)
    device = choose_device(config.device)
    dtype, reason = choose_dtype(config.dtype, device)
    query_ids_of, doc_ids_of = tokenizers(base, config)
    pairs = training_pairs(dataset, config, query_ids_of=query_ids_of, doc_ids_of=doc_ids_of)
    options = {name: value for name, value in config.to_dict().items() if name not in AFTERWARDS}
    identity = {"config": options, "data": dataset.fingerprint, "base": fingerprint_of(base), "dtype": dtype, "device": device}
    store = CheckpointStore(work, identity, about)
    keep_freed_memory()
    with _repeatable(config.seed, device):
        tower = _load(base, device, dtype)
        fresh = partial(_load, base, device, dtype)
        native = native_vectors(base, device, dtype)
        sizes, speed = (
            (config, Speed()) if budget is None else measured(budget, config, tower, fresh, dtype, pairs.documents, guard, native=native)
        )
        dev = choose_devset(dataset, sizes, query_ids_of=query_ids_of, doc_ids_of=doc_ids_of)
        guard_dev, notes = _guard_devset(guard, sizes, base)
        pairs = prepared(pairs, tower, fresh, config, dtype=dtype, progress=progress)
        base_weights = {name: tensor.clone() for name, tensor in model_weights(tower).items()}
        _set_dropout(tower, config.dropout)
        lora = Lora(tower.model, config.lora_rank) if config.lora_rank else None
        if lora is None:
            freeze_lowest(tower.model, config.frozen_layers)
        batches = Batches(pairs, config)
        fixed = None
        if config.query_only:
            known = vectors_by_id(dataset, tower, documents, config, dtype=dtype, progress=progress)
            dev, fixed = with_fixed(dev, known), FixedDocuments(pairs, known, config, tower.device)
            if guard_dev is not None and guard is not None:
                guard_dev = with_fixed(guard_dev, vectors_by_id(guard, tower, None, config, dtype=dtype, progress=progress))
        states, unkept = keep_states(tower, batches, dev, sizes, base_weights, dtype=dtype)
        notes += unkept
        limit = None
        if budget is not None:
            scored = [0 if part is None else part.tokens() for part in (dev, guard_dev)]
            limit = budget.left() - reserve(
                config, tokens_per_second=speed.tokens, dev_tokens=scored[0], guard_tokens=scored[1], piece_seconds=speed.pieces
            )
        reference = _load(base, device, dtype).requires_grad_(False) if config.anchor else None
        trainer = Trainer(
            tower, batches, dev, sizes, store, dtype=dtype, resume=store.open(resume=resume), reference=reference, limit=limit, clock=clock,
            fixed=fixed, lora=lora, states=states, native=native,
        )  # fmt: skip
        # Only what is left: a resumed run's ETA would otherwise count the pairs of the earlier session as done in no time.
        left = len(pairs.pairs) * config.epochs - batches.pairs_before(trainer.state.step)
        with (
            open_events(events, trainer.state.step) as trainer.events,
            show_progress(f"tuning on {left:,} pairs ({dtype})", left, enabled=progress) as bar,
        ):
            trainer.run(bar)
        tower.eval()
        if lora is not None:
            lora.remove()
        began = clock()
        try:
            learn = partial(_changed_by_pieces, base, pairs.documents, config, device, dtype, progress=progress)
            chosen, points = choose_weights(
                trainer, base_weights, learn if config.pieces else None, guard_dev, budget=budget, progress=progress
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"stopped after training, while merging; resume continues there, from {work}") from None
        model = _save_model(tower, work / "model")
    state = trainer.state
    if config.max_pairs is not None and pairs.available > config.max_pairs:
        notes.append(f"{config.max_pairs:,} of {pairs.available:,} training pairs were used, chosen by the seed; max_pairs: null takes all")
    if limit is not None and state.step < len(batches) and not state.stopped:
        share = batches.pairs_before(state.step) / len(pairs.pairs)
        notes.append(f"the budget of {config.budget_seconds:g} s ended training after {share:.2f} passes over {len(pairs.pairs):,} pairs")
    notes += _more_data(state.history, len(pairs.pairs), batches.pairs_before(state.step))
    if state.stopped:
        notes.append(f"stopped early after step {state.step} of {len(batches)}: dev nDCG@10 was best at step {state.best_step}")
    merged = [{"kind": "merge", "alpha": p.alpha, "pieces": p.pieces, "dev_ndcg": p.dev, "guard_ndcg": p.guard} for p in points]
    if states is not None:
        merged.append(states.entry())
        notes.append(states.sentence())
    training = max(state.seconds - state.scoring_seconds, 1e-9)
    return TrainResult(
        model=model,
        alpha=chosen.alpha,
        pieces=chosen.pieces,
        history=state.history + merged,
        dev=summary(points, chosen, "dev") | {
            "queries": len(dev.queries), "documents": len(dev.documents), "scoring_share": state.scoring_seconds / max(state.seconds, 1e-9),
        },
        guard=None if guard_dev is None else summary(points, chosen, "guard") | {
            "queries": len(guard_dev.queries), "documents": len(guard_dev.documents), "allowed_drop": allowed_drop(config),
        },
        steps=state.step,
        best_step=state.best_step,
        pairs=len(pairs.pairs),
        pairs_seen=batches.pairs_before(state.step),
        seconds=state.seconds + clock() - began,
        pairs_per_second=batches.pairs_before(state.step) / training,
        dtype=dtype,
        dtype_reason=reason,
        notes=notes,
        begun_with=store.begun_with,
    )  # fmt: skip


def _more_data(history: Sequence[Mapping[str, Any]], pairs: int, seen: int) -> list[str]:
    """Whether more pairs would help, by what the last part of the first pass brought on dev; nothing where that cannot be told."""
    scores = [entry["dev_ndcg"] for entry in history if entry["kind"] == "train"]
    if len(scores) < 4 or not 0.75 * pairs <= seen <= 1.25 * pairs:
        return []
    gain, whole = scores[-1] - max(scores[:-1]), max(scores) - scores[0]
    advice = "more pairs would probably help" if gain >= MORE_DATA else "more pairs of this kind would hardly help"
    return [f"{advice}: the last part of the pass changed dev nDCG@10 by {gain:+.3f} of {whole:+.3f} in all"]


def fingerprint_of(base: Path) -> str:
    """sha256 of what makes vectors in a model folder: configuration, tokenizer and weights."""
    digest = hashlib.sha256(repr(read_spec(base)).encode())
    inner = weights_folder(base)
    for path in sorted([inner / "config.json", inner / "tokenizer.json", *inner.glob("*.safetensors")]):
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def tokenizers(base: Path, config: TuneConfig) -> tuple[Tokenize, Tokenize]:
    """Texts to token ids as the tower would make them, but cut to the lengths of training: (queries, documents)."""
    spec, path = read_spec(base), weights_folder(base) / "tokenizer.json"

    def make(kind: str, limit: int) -> Tokenize:
        tokenizer, prompt = TextTokenizer(path, min(limit, spec.max_tokens)), spec.prompts[kind]
        known: dict[str, TokenIds] = {}

        def ids_of(texts: Sequence[str]) -> list[TokenIds]:
            new = [text for text in dict.fromkeys(texts) if text not in known]
            known.update(zip(new, tokenizer([prompt + text for text in new]).ids, strict=True))
            return [known[text] for text in texts]

        return ids_of

    return make("query", config.max_tokens_query), make("document", config.max_tokens_train)


def _guard_devset(guard: Dataset | None, config: TuneConfig, base: Path) -> tuple[DevSet | None, list[str]]:
    """The guard's part in the choice of alpha, as near to the verdict's as its size allows: full length, more of it than of dev."""
    if guard is None:
        return None, []
    if not guard.qrels.get("dev"):
        return None, [f"the guard {guard.name} has no dev split, so it had no say in how much of the base is kept"]
    limit = read_spec(base).max_tokens
    whole = dataclasses.replace(
        config,
        dev_queries=config.guard_queries,
        dev_documents=config.guard_documents,
        max_tokens_train=max(limit, config.max_tokens_train),
        max_tokens_query=max(limit, config.max_tokens_query),
    )
    query_ids_of, doc_ids_of = tokenizers(base, whole)
    return choose_devset(guard, whole, query_ids_of=query_ids_of, doc_ids_of=doc_ids_of), []


def _load(base: Path, device: str, dtype: str) -> Tower:
    """The base with the form of attention that trains fastest: torch's fused one, or the plain one where its backward pass is slow.

    In bfloat16 on a CPU the fused form's backward pass takes 31 ms where the plain products take a few (docs/log.md); in float32 it gains
    15 %. An architecture without a fused form is loaded plain.
    """
    if device == "cpu" and dtype == "bfloat16":
        return Tower.load(base, device=device)
    try:
        return Tower.load(base, device=device, attention="sdpa")
    except InputError as error:
        if "scaled_dot_product_attention" not in str(error):
            raise
        return Tower.load(base, device=device)


def _changed_by_pieces(
    base: Path, documents: Sequence[TokenIds], config: TuneConfig, device: str, dtype: str, *, progress: bool
) -> Tensors:
    """The base's weights after it has learned to find documents by pieces of them."""
    tower, reference = _load(base, device, dtype), _load(base, device, dtype).eval().requires_grad_(False)
    _set_dropout(tower, 0.0)
    with show_progress("learning pieces of documents", STEPS, enabled=progress) as bar:
        tune_on_pieces(tower, reference, documents, config, dtype=dtype, bar=bar)
    return {name: tensor.detach().clone() for name, tensor in model_weights(tower).items()}


def _set_dropout(tower: Tower, rate: float) -> None:
    """At rate 0 the model stays in evaluation mode, which switches off every form of dropout an architecture may have."""
    tower.train(rate > 0)
    for module in tower.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = rate


@contextmanager
def _repeatable(seed: int, device: str) -> Iterator[None]:
    """Seeds torch and asks it for repeatable kernels; puts both back afterwards."""
    from torch.utils import deterministic

    settings: Any = deterministic
    before, fill = torch.are_deterministic_algorithms_enabled(), settings.fill_uninitialized_memory
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if device == "cuda" else []):
        torch.manual_seed(seed)
        # warn_only: a GPU kernel without a repeatable form is no reason to fail. Filling fresh memory with NaN is a debugging aid that
        # costs time.
        torch.use_deterministic_algorithms(device == "cpu" or before, warn_only=True)
        settings.fill_uninitialized_memory = False
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)
            settings.fill_uninitialized_memory = fill


def _save_model(tower: Tower, folder: Path) -> Path:
    """Replaces ``folder`` by the tower, complete or not at all."""
    part = folder.with_name(f".{folder.name}.part")
    for path in (part, folder):
        if path.is_dir():
            shutil.rmtree(path)
    tower.save(part)
    part.rename(folder)
    return folder
