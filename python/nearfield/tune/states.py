"""What the frozen layers give for a text, computed once and read again (docs/tuning.md, "Which weights are trained").

A kept state is a function of the model, the run's texts and its options, never of when it was asked for: the texts that are computed
together are fixed before the first step, and any of them brings about the computation of all. So a run that is killed and resumed, which
begins with nothing kept, comes to the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from nearfield.config import TuneConfig
from nearfield.encode.tower import Tower
from nearfield.tune.batches import Batches, length_chunks
from nearfield.tune.devset import DevSet
from nearfield.tune.freeze import answering, below, layers_of, state_in
from nearfield.tune.memory import machine_bytes
from nearfield.tune.pairs import TokenIds
from nearfield.types import BoolArray

Key = tuple[int, ...]
Group = list[Key]

# Passes that are gone through beforehand to see what is met how often; a tenth of a second for each 6,000 pairs.
PASSES = 4
# How far a kept state's vector may lie from the model's own, as a share of the largest value: both are float32, padding alone differs.
NEAR = 1e-5


class FrozenStates:
    """Hidden states behind the lowest layers, by text, on the CPU.

    Args:
        layers: how many layers are frozen, at least one.
        groups: the texts that are computed together, as tuples of token ids; each text in one group.
        dim: columns of a state.
        dtype: "float32" or "bfloat16": the format that is computed and kept in.
        weights: the weights of everything below the line, by name; states are read under equal weights only.

    Attributes:
        computed, read: texts whose states were computed, and read without computing them.
    """

    def __init__(self, layers: int, groups: Sequence[Group], *, dim: int, dtype: str, weights: Mapping[str, torch.Tensor]) -> None:
        self.layers, self.groups, self.dtype, self._weights = layers, groups, dtype, weights
        self.computed, self.read = 0, 0
        self._group = {key: number for number, group in enumerate(groups) for key in group}
        starts = np.concatenate([[0], np.cumsum([len(key) for group in groups for key in group])]).astype(np.int64)
        self._start = dict(zip((key for group in groups for key in group), starts.tolist(), strict=False))
        # One block, which the system fills with memory where it is written to, and whose long life parts no other blocks from each other.
        self._kept = torch.empty((int(starts[-1]), dim), dtype=torch.bfloat16 if dtype == "bfloat16" else torch.float32)
        self._filled: set[int] = set()
        # What a layer returns besides the states, in a tuple with them or not, and their own number format.
        self._rest: tuple[Any, ...] | None = None
        self._number = self._kept.dtype
        self._checked: WeakKeyDictionary[torch.nn.Module, tuple[tuple[int, ...], bool]] = WeakKeyDictionary()

    def __len__(self) -> int:
        return len(self._group)

    def known(self, tower: Tower, ids: Sequence[Sequence[int]], dtype: str) -> BoolArray:
        """Returns for each text whether ``replay`` can take it; what is not computed yet is computed now.

        Args:
            tower: a model with the frozen weights; with other ones, or another ``dtype``, nothing is known.
            ids: token ids of n texts.
            dtype: what they are to be encoded in.
        """
        if dtype != self.dtype or not self._fits(tower.model):
            return np.zeros(len(ids), np.bool_)
        asked = [self._group.get(tuple(row), -1) for row in ids]
        missing = set(asked) - self._filled - {-1}
        self.read += sum(number >= 0 and number not in missing for number in asked)
        for number in sorted(missing):
            self._fill(tower, self.groups[number])
            self._filled.add(number)
        return np.array(asked, np.int64) >= 0

    def replay(self, tower: Tower, ids: Sequence[Sequence[int]]) -> AbstractContextManager[None]:
        """Within the block the frozen layers answer with the kept states of these texts, padded with zeros to the longest."""
        shape = (len(ids), max(1, *map(len, ids)), self._kept.shape[1])
        states = torch.zeros(shape, dtype=self._number)
        for i, row in enumerate(ids):
            start = self._start[tuple(row)]
            states[i, : len(row)] = self._kept[start : start + len(row)]
        output = states if self._rest is None else (states, *self._rest)
        return answering(layers_of(tower.model)[: self.layers], lambda: output)

    def filled_bytes(self) -> int:
        """Memory of what has been computed so far."""
        return sum(len(key) for number in self._filled for key in self.groups[number]) * self._kept[:1].nbytes

    def entry(self) -> dict[str, Any]:
        """What was kept and how often it was read in this session, for the run's history."""
        return {
            "kind": "frozen", "layers": self.layers, "texts": len(self), "bytes": self.filled_bytes(), "computed": self.computed,
            "read": self.read,
        }  # fmt: skip

    def sentence(self) -> str:
        """The same for its notes."""
        return (
            f"what the {self.layers} lowest layers give was kept for {self.computed:,} texts ({self.filled_bytes() / 2**20:,.1f} MiB) "
            f"and read {self.read:,} times; frozen_cache: 0 computes it anew each time"
        )

    def _fill(self, tower: Tower, group: Group) -> None:
        input_ids, mask = tower.tokenizer.pad(group)
        # In one and the same way whether a step or a dev score asks.
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.dtype == "bfloat16"):
            output = below(tower.model, self.layers, torch.from_numpy(input_ids), torch.from_numpy(mask))
        state = state_in(output)
        assert state is not None, "keep_states has seen that the layers hand on hidden states alone"
        for key, rows in zip(group, state, strict=True):
            self._kept[self._start[key] : self._start[key] + len(key)] = rows[: len(key)]
        self._rest, self._number = output[1:] if isinstance(output, tuple) else None, state.dtype
        self.computed += len(group)

    def _fits(self, model: torch.nn.Module) -> bool:
        """Whether the model has the frozen weights; compared anew only where they have been written to since."""
        parameters = dict(model.named_parameters())
        versions = tuple(parameters[name]._version for name in self._weights)
        known = self._checked.get(model)
        if known is None or known[0] != versions:
            known = versions, all(torch.equal(parameters[name], weight) for name, weight in self._weights.items())
            self._checked[model] = known
        return known[1]


def keep_states(
    tower: Tower, batches: Batches, dev: DevSet, config: TuneConfig, base: Mapping[str, torch.Tensor], *, dtype: str
) -> tuple[FrozenStates | None, list[str]]:
    """Returns what keeps the states of a run's texts, or None where nothing is to be kept; and a note where a model does not allow it.

    Args:
        tower: with its lowest layers frozen.
        batches, dev: what the run will encode.
        config: the run's.
        base: the weights that the run begins with, by name.
        dtype: "float32" or "bfloat16".
    """
    if config.frozen_layers < 1 or config.dropout or not config.frozen_cache or tower.device.type != "cpu":
        return None, []
    numbers = 2 if dtype == "bfloat16" else 4
    room = int(config.frozen_cache * machine_bytes()) // (numbers * tower.spec.dim)
    groups = list(groups_met_again(batches, dev, config, room))
    if not groups:
        return None, []
    weights = {name: base[name] for name, parameter in tower.model.named_parameters() if not parameter.requires_grad}
    texts = sorted((key for group in groups for key in group), key=len)
    if not _agrees(tower, [texts[0], texts[len(texts) // 2], texts[-1]], config.frozen_layers, weights):
        name = type(tower.model).__name__
        return None, [f"what the frozen layers give is computed anew each time: {name} does not go on from what is kept"]
    return FrozenStates(config.frozen_layers, groups, dim=tower.spec.dim, dtype=dtype, weights=weights), []


def groups_met_again(batches: Batches, dev: DevSet, config: TuneConfig, room: int) -> Iterator[Group]:
    """Yields the texts that a run meets twice or more, in the groups in which it meets them first, of about the same length each.

    Args:
        batches, dev: what the run will encode: dev first, then the steps.
        config: the run's.
        room: tokens at most; the texts that are met most often come first.
    """
    occasions = list(_occasions(batches, dev, config))
    meetings: dict[Key, float] = {}
    for _, times, keys in occasions:
        for key in keys:
            meetings[key] = meetings.get(key, 0.0) + times
    again = sorted((key for key, times in meetings.items() if times >= 2), key=lambda key: -meetings[key])
    ends = np.cumsum([len(key) for key in again])
    left = set(again[: int(np.searchsorted(ends, room, side="right"))])
    for rows, _, keys in occasions:
        first = [key for key in keys if key in left]
        left.difference_update(first)
        for chunk in length_chunks([len(key) for key in first], rows):
            yield [first[i] for i in chunk]


def _occasions(batches: Batches, dev: DevSet, config: TuneConfig) -> Iterator[tuple[int, float, list[Key]]]:
    """What is encoded together, in the order of a run: (texts of a chunk, how often it happens, the distinct texts)."""
    one_of: dict[Key, Key] = {}  # a text once in memory, however often it is met

    def distinct(texts: Sequence[TokenIds]) -> list[Key]:
        return [one_of.setdefault(key, key) for key in dict.fromkeys(map(tuple, texts))]

    scores = 1 + round(1 / config.eval_every)
    for texts in (dev.queries, dev.documents if dev.fixed is None else []):
        yield 2 * config.chunk_rows, float(scores), distinct(texts)
    passes = min(config.epochs, PASSES)
    for step in range(passes * batches.per_epoch):
        queries, documents = batches.texts(step)
        texts = queries if config.query_only else queries + documents
        yield config.chunk_rows, config.epochs / passes, distinct(texts)


def _agrees(tower: Tower, texts: Group, layers: int, weights: Mapping[str, torch.Tensor]) -> bool:
    """Whether the model gives the same vectors from kept states as from the texts."""
    if not layers_of(tower.model):
        return False
    texts = list(dict.fromkeys(texts))
    batch = [torch.from_numpy(array) for array in tower.tokenizer.pad(texts)]
    with torch.enable_grad():
        state = state_in(below(tower.model, layers, *batch))
    if state is None or state.requires_grad or state.shape != (*batch[0].shape, tower.spec.dim):
        return False
    states = FrozenStates(layers, [texts], dim=tower.spec.dim, dtype="float32", weights=weights)
    with torch.no_grad():
        expected = tower(*batch)
        if not states.known(tower, texts, "float32").all():
            return False
        with states.replay(tower, texts):
            found = tower(*batch)
    return bool((found - expected).abs().max() <= NEAR * expected.abs().max())
