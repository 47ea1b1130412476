"""What this machine can do within a budget, measured before the first step on the run's own texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nearfield.config import TuneConfig
from nearfield.data.dataset import Dataset
from nearfield.encode.tower import Tower
from nearfield.tune.budget import Budget, Clock, fitted
from nearfield.tune.embed import vectors_of
from nearfield.tune.loop import model_weights
from nearfield.tune.native import NativeVectors
from nearfield.tune.pairs import TokenIds
from nearfield.tune.pieces import STEPS, tune_on_pieces

# Documents that the speed of encoding is measured on, and how often: the best of three, for whatever disturbs a measurement slows it.
PROBE, PROBES = 32, 3
# Steps on pieces that are really made, optimizer and all; the first of a process sets things up and is left out.
PIECE_STEPS = 3


@dataclass(frozen=True)
class Speed:
    """What was measured.

    Attributes:
        tokens: encoded a second, without gradients.
        pieces: seconds that all steps on pieces take, with loading the two towers; 0 without pieces.
    """

    tokens: float = 0.0
    pieces: float = 0.0


def measured(
    budget: Budget, config: TuneConfig, tower: Tower, fresh: Callable[[], Tower], dtype: str, documents: Sequence[TokenIds],
    guard: Dataset | None, *, native: NativeVectors | None = None,
) -> tuple[TuneConfig, Speed]:  # fmt: skip
    """Returns the config with sub-corpora that fit into the budget, and the speeds that this and the end's reserve follow from.

    Args:
        budget: of the run; its clock measures.
        config: the run's.
        tower: the base, left alone.
        fresh: loads another copy of it, for the steps on pieces.
        dtype: as for ``embed``.
        documents: the training documents' token ids.
        guard: general knowledge to keep, or None.
        native: what scores in torch's place, or None.
    """
    clock = budget.clock
    texts = [] if guard is None else guard.doc_texts[:200]
    guard_tokens = sum(map(len, tower.tokenizer(texts).ids)) / max(len(texts), 1)
    sample = list(documents[:PROBE])
    packed = None if native is None else native.packed(model_weights(tower))

    def encode() -> None:
        if packed is not None:
            packed(sample)
        else:
            vectors_of(tower, sample, chunk_rows=2 * config.chunk_rows, dtype=dtype)

    encode()  # the first call of a process sets things up
    times = []
    for _ in range(PROBES):
        began = clock()
        encode()
        times.append(clock() - began)
    tokens = sum(map(len, sample))
    speed = tokens / max(min(times), 1e-6)
    sizes = fitted(config, budget, tokens_per_second=speed, dev_tokens=tokens / len(sample), guard_tokens=guard_tokens)
    if config.query_only:  # a score encodes queries alone, and they are short
        sizes = dataclasses.replace(
            sizes, dev_queries=config.dev_queries, dev_documents=config.dev_documents, eval_every=config.eval_every
        )  # fmt: skip
    return sizes, Speed(speed, _pieces(config, fresh, documents, dtype, clock) if config.pieces else 0.0)


def _pieces(config: TuneConfig, fresh: Callable[[], Tower], documents: Sequence[TokenIds], dtype: str, clock: Clock) -> float:
    """Seconds of the steps on pieces, by some real ones on towers of their own: an estimate without the optimizer was off by half."""
    if len(documents) < 2:
        return 0.0
    began = clock()
    tower, reference = fresh(), fresh().eval().requires_grad_(False)
    loaded = clock()
    ends = _Ends(clock)
    tune_on_pieces(tower, reference, documents, config, dtype=dtype, bar=ends, steps=PIECE_STEPS)
    # The mean, where the fastest would say too little: a run's own steps are disturbed as well.
    return (loaded - began) + STEPS * (ends.times[-1] - ends.times[0]) / (len(ends.times) - 1)


class _Ends:
    """A bar that notes when each step ended."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.times = clock, list[float]()

    def advance(self, steps: float = 1, note: str = "") -> None:
        self.times.append(self.clock())
