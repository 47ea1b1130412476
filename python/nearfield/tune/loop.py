"""The training loop: steps, dev scores, early stopping, checkpoints."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from nearfield.config import TuneConfig
from nearfield.encode.native_model import EncodeIds
from nearfield.encode.tower import Tower
from nearfield.errors import InputError
from nearfield.progress import Bar
from nearfield.tune.batches import Batch, Batches
from nearfield.tune.budget import Clock, expected_steps, place
from nearfield.tune.checkpoints import CheckpointStore, Tensors
from nearfield.tune.devset import DevSet
from nearfield.tune.embed import cached_step, embed, vectors_of
from nearfield.tune.events import Events, Nobody
from nearfield.tune.evidence import surely_worse
from nearfield.tune.interrupts import finish_first
from nearfield.tune.lora import RATE, Lora
from nearfield.tune.losses import drift
from nearfield.tune.native import NativeVectors
from nearfield.tune.objective import step_loss
from nearfield.tune.queryside import FixedDocuments
from nearfield.tune.schedule import evaluation_steps, rate_at
from nearfield.tune.states import FrozenStates
from nearfield.tune.watch import Seen, Watch, hold
from nearfield.types import FloatArray

Vectors = tuple[FloatArray, FloatArray]


@dataclass
class RunState:
    """What a run remembers besides weights, optimizer and random state; goes into a checkpoint as JSON.

    Attributes:
        step: finished steps.
        best_values: under a limit, nDCG@10 of each dev query at ``best_step``.
        scored: the last step after which dev was scored; -1 before the first.
        best_step: the step with the best dev score, -1 before the first; ``best`` is that nDCG@10.
        stale: scores since the best one.
        stopped: True once early stopping has ended the run.
        loss_sum, loss_steps: the loss since the last score.
        seconds: time spent training, over all sessions; ``scoring_seconds`` of them scoring dev.
        history: one entry per score.
    """

    step: int = 0
    scored: int = -1
    best_step: int = -1
    best: float = -1.0
    best_values: list[float] = field(default_factory=list)
    stale: int = 0
    stopped: bool = False
    loss_sum: float = 0.0
    loss_steps: int = 0
    seconds: float = 0.0
    scoring_seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)


class Trainer:
    """One run over ``batches``; ``run()`` leaves the best weights in the store and in ``tower``.

    Args:
        tower: the base model on its device; trained in place.
        batches: the steps.
        dev: the sub-corpus that decides early stopping.
        config: the run's options.
        store: opened; with ``resume`` its checkpoint is taken up.
        dtype: "float32" or "bfloat16".
        resume: whether the store has a checkpoint to go on from.
        reference: the base, for ``config.anchor``.
        limit: seconds of training and scoring, over all sessions of a resumed run; None: until the steps are done.
        clock: what measures them.
        fixed: the documents' vectors, where queries alone are trained.
        lora: attached to the tower, where changes of low rank are trained in place of the weights.
        states: what is kept of the frozen layers, or None.
        native: what scores in torch's place, or None.
    """

    def __init__(
        self,
        tower: Tower,
        batches: Batches,
        dev: DevSet,
        config: TuneConfig,
        store: CheckpointStore,
        *,
        dtype: str,
        resume: bool,
        reference: Tower | None = None,
        limit: float | None = None,
        clock: Clock = time.monotonic,
        fixed: FixedDocuments | None = None,
        lora: Lora | None = None,
        states: FrozenStates | None = None,
        native: NativeVectors | None = None,
    ) -> None:
        self.tower, self.batches, self.dev, self.config, self.store, self.dtype = tower, batches, dev, config, store, dtype
        self.reference, self.limit, self.clock, self._place, self.fixed = reference, limit, clock, 0.0, fixed
        self.lora, self.states, self.native = lora, states, native
        self.parameters = lora.parameters if lora else {name: p for name, p in tower.model.named_parameters() if p.requires_grad}
        self.optimizer = make_optimizer(self.parameters, config)
        self.watch = Watch(tower.device)
        self._loss: float | None = None
        self.events: Events = Nobody()
        self.state = RunState()
        self.points = evaluation_steps(len(batches), config.eval_every) | {0}
        self.vectors: dict[int, Vectors] = {}  # the dev vectors at steps 0 and best_step, for the merge
        self._started = self._saved = self.clock()
        if resume:
            self._take_up()

    def run(self, bar: Bar) -> None:
        """Trains to the end or to early stopping; ``bar`` counts the pairs still to come.

        Raises:
            InputError: a loss or a gradient that is not finite; the last good state is saved.
            KeyboardInterrupt: after saving; the message says how to go on.
        """
        self._started = self._saved = self.clock()
        random = _random_state(self.tower.device)
        try:
            while True:
                self._place = place(self.state.step, len(self.batches), self._seconds(), self.limit if self.state.step else None)
                if self._due() and self.state.scored < self.state.step:
                    self._score(bar)
                if self.state.stopped or self._place >= 1:
                    break
                random = _random_state(self.tower.device)
                self._step(bar)
                random = _random_state(self.tower.device)
                if self.clock() - self._saved >= 60 * self.config.checkpoint_minutes:
                    self._save(random)
        except KeyboardInterrupt:
            with finish_first():
                self._save(random)
            raise KeyboardInterrupt(
                f"stopped after step {self.state.step} of {len(self.batches)}; resume continues there, from {self.store.work}"
            ) from None
        self._save(random)

    def best_weights(self) -> Tensors:
        """The weights with the best dev score after training has begun."""
        return self.store.load_best(self.state.best_step)

    def _due(self) -> bool:
        """Whether dev is to be scored now: at fixed steps, or under a limit whenever that share of the run is over."""
        if self.limit is None:
            return self.state.step in self.points
        return self._place >= min(1.0, len(self.state.history) * self.config.eval_every)

    def _step(self, bar: Bar) -> None:
        state = self.state
        batch = self.batches[state.step]
        rate = rate_at(
            state.step,
            expected_steps(state.step, len(self.batches), self._place),
            peak=self.config.learning_rate * (RATE if self.lora else 1),
            warmup_fraction=self.config.warmup_fraction,
            decay=self.config.decay,
        )
        self.events.scalar("train/learning rate", rate, state.step + 1)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._backward(batch)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.config.max_grad_norm)
        self.watch.add(state.step + 1, loss, norm)
        seen = [] if self.watch.late else self._look()
        if self.watch.late:
            hold(self.optimizer, loss, norm)
        with finish_first():
            self.optimizer.step()
            state.step += 1
            self._count(seen)
        if self.watch.due():
            self._settle()
        bar.advance(len(batch), note=self._note(self._loss))

    def _settle(self) -> None:
        self._count(self._look())

    def _look(self) -> list[Seen]:
        """The figures of the steps since the last look; stops the run at one that is not finite."""
        found = self.watch.look()
        for seen in found:
            if wrong := seen.wrong():
                folder = self._save(_random_state(self.tower.device))
                raise InputError(
                    f"training: the {wrong} at step {seen.step} of {len(self.batches)}: lower learning_rate "
                    f"({self.config.learning_rate:g} now) or look for broken texts; the last good weights are in {folder}"
                )
        return found

    def _count(self, found: list[Seen]) -> None:
        for seen in found:
            self._loss = seen.loss
            self.events.scalar("train/loss", seen.loss, seen.step)
            self.events.scalar("train/gradient norm", seen.norm, seen.step)
            self.state.loss_sum += seen.loss
            self.state.loss_steps += 1

    def _backward(self, batch: Batch) -> torch.Tensor:
        """Adds the step's gradient and returns its loss."""
        texts, rows, dtype = batch.queries + batch.documents, self.config.chunk_rows, self.dtype
        fixed = self.fixed
        if fixed is not None:
            texts, batch = batch.queries, fixed.against(batch)
        held = None
        if self.config.anchor and self.reference is not None:
            with torch.no_grad():
                held = embed(self.reference, texts, chunk_rows=rows, dtype=dtype, states=self.states)

        def loss_of(vectors: torch.Tensor) -> torch.Tensor:
            if fixed is None:
                return step_loss(vectors, batch, self.config, held)
            loss = step_loss(torch.cat([vectors, fixed.table]), batch, self.config)
            return loss if held is None else loss + self.config.anchor * drift(vectors, held)

        if self.config.gradcache:
            return cached_step(self.tower, texts, loss_of, chunk_rows=rows, dtype=dtype, states=self.states)
        loss = loss_of(embed(self.tower, texts, chunk_rows=rows, dtype=dtype, states=self.states))
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _score(self, bar: Bar) -> None:
        self._settle()  # what the device still has to do is training, not scoring
        state, began = self.state, self.clock()
        bar.advance(0, note="scoring the dev sub-corpus")
        vectors = self.dev_vectors(bar)
        values = self.dev.values(*vectors)
        score = float(values.mean())
        with finish_first():
            state.scoring_seconds += self.clock() - began
            if state.step == 0:
                self.vectors[0] = vectors
            elif self._is_kept(values, score):
                self.store.save_best(state.step, self._weights())
                self.vectors = {step: kept for step, kept in self.vectors.items() if step == 0} | {state.step: vectors}
                state.best, state.best_step, state.stale = score, state.step, 0
                state.best_values = [] if self.limit is None else values.tolist()
            else:
                state.stale += 1
                # Under a limit the rate falls with the time: stopping before its end would throw away the steps that settle, on the word
                # of a dev set that the budget has made small.
                state.stopped = self.limit is None and 0 < self.config.patience <= state.stale
            loss = state.loss_sum / state.loss_steps if state.loss_steps else None
            state.history.append({"kind": "train", "step": state.step, "loss": loss, "dev_ndcg": score, "seconds": self._seconds()})
            state.loss_sum, state.loss_steps, state.scored = 0.0, 0, state.step
        self.events.scalar("dev/nDCG@10", score, state.step)
        bar.advance(0, note=self._note(loss))

    def _is_kept(self, values: FloatArray, score: float) -> bool:
        """Whether these weights are the best so far.

        Under a limit the rate falls to 0 with the time and dev may be small: the later weights are, until dev surely says otherwise.
        """
        if self.limit is None or not self.state.best_values:
            return score > self.state.best
        return not surely_worse(np.asarray(self.state.best_values), values)

    def dev_vectors(self, bar: Bar) -> Vectors:
        """The dev sub-corpus' vectors under the present weights: (queries, documents)."""
        packed = None if self.native is None else self.native.packed(self._weights())  # of low rank, weights have to be made
        return self.encoded(self.dev, bar, packed, states=self.states)

    def packed(self, weights: Tensors) -> EncodeIds | None:
        """What encodes under these weights in torch's place, or None."""
        return None if self.native is None else self.native.packed(weights)

    def encoded(self, part: DevSet, bar: Bar, packed: EncodeIds | None, *, states: FrozenStates | None = None) -> Vectors:
        """A sub-corpus' vectors: by ``packed``, else under the weights that the tower holds."""
        return encode_devset(self.tower, part, self.config, self.dtype, bar, states=states, packed=packed)

    def _note(self, loss: float | None) -> str:
        parts = [f"loss {loss:.3f}"] if loss is not None else []
        return ", ".join([*parts, *(f"dev nDCG@10 {entry['dev_ndcg']:.3f}" for entry in self.state.history[-1:])])

    def _seconds(self) -> float:
        return self.state.seconds + self.clock() - self._started

    def _save(self, random: Tensors) -> Any:
        self._settle()
        self.state.seconds, self._started = self._seconds(), self.clock()
        low: Tensors = {f"lora.{name}": p.detach() for name, p in self.lora.parameters.items()} if self.lora else {}
        folder = self.store.save(
            self._weights(), optimizer_tensors(self.optimizer, self.parameters) | random | low, dataclasses.asdict(self.state)
        )
        self._saved = self.clock()
        return folder

    def _weights(self) -> Tensors:
        """The weights as a model has them, changes of low rank folded in."""
        return model_weights(self.tower) if self.lora is None else self.lora.merged()

    def _take_up(self) -> None:
        weights, tensors, state = self.store.load()
        self.state = RunState(**state)
        if self.lora is None:
            self.tower.model.load_state_dict(weights)
        else:
            self.lora.load({name.removeprefix("lora."): tensors.pop(name) for name in list(tensors) if name.startswith("lora.")})
        _set_random_state({name: tensors.pop(name) for name in list(tensors) if name.startswith("random.")})
        load_optimizer(self.optimizer, self.parameters, tensors)


def encode_devset(
    tower: Tower, dev: DevSet, config: TuneConfig, dtype: str, bar: Bar, *, states: FrozenStates | None = None,
    packed: EncodeIds | None = None,
) -> Vectors:  # fmt: skip
    """Encodes a sub-corpus without dropout: (queries, documents), normalized rows; by ``packed`` where there is one."""
    if packed is not None:
        queries = packed(dev.queries)
        bar.advance(0)
        return queries, packed(dev.documents) if dev.fixed is None else dev.fixed
    training = tower.training
    tower.eval()
    try:
        # Twice the rows of training: nothing is kept for a backward pass, and longer matrices run a little faster.
        rows = 2 * config.chunk_rows
        queries = vectors_of(tower, dev.queries, chunk_rows=rows, dtype=dtype, bar=bar, states=states)
        if dev.fixed is not None:
            return queries, dev.fixed
        return queries, vectors_of(tower, dev.documents, chunk_rows=rows, dtype=dtype, bar=bar, states=states)
    finally:
        tower.train(training)


def model_weights(tower: Tower) -> Tensors:
    """The model's tensors by name; they are the live ones, not copies."""
    return dict(tower.model.state_dict())


def make_optimizer(parameters: dict[str, torch.nn.Parameter], config: TuneConfig) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only: biases and layer norms have one dimension, and pulling them to 0 only distorts."""
    groups = [
        {"params": [p for p in parameters.values() if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters.values() if p.ndim < 2], "weight_decay": 0.0},
    ]
    # Fused: one pass over each tensor instead of a dozen, a third of the time.
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=config.learning_rate, fused=True)


def optimizer_tensors(optimizer: torch.optim.Optimizer, parameters: dict[str, torch.nn.Parameter]) -> Tensors:
    """AdamW's state as named tensors: ``<parameter>|exp_avg`` and so on."""
    return {f"{name}|{key}": value for name, p in parameters.items() for key, value in optimizer.state.get(p, {}).items()}


def load_optimizer(optimizer: torch.optim.Optimizer, parameters: dict[str, torch.nn.Parameter], tensors: Tensors) -> None:
    """Puts back what ``optimizer_tensors`` gave."""
    of_parameter: dict[str, Tensors] = {}
    for name, tensor in tensors.items():
        parameter, _, key = name.rpartition("|")
        of_parameter.setdefault(parameter, {})[key] = tensor
    place = {id(p): i for i, p in enumerate(p for group in optimizer.param_groups for p in group["params"])}
    state = {place[id(parameters[name])]: values for name, values in of_parameter.items()}
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _random_state(device: torch.device) -> Tensors:
    states = {"random.cpu": torch.get_rng_state()}
    return states | {"random.cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else states


def _set_random_state(states: Tensors) -> None:
    torch.set_rng_state(states["random.cpu"])
    if "random.cuda" in states:
        torch.cuda.set_rng_state(states["random.cuda"])
