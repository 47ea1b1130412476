"""Token ids to vectors through a torch tower, with little padding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext

import numpy as np
import torch

from nearfield.encode.tokenize import length_batches
from nearfield.encode.tower import Tower
from nearfield.progress import Bar
from nearfield.tune.batches import length_chunks
from nearfield.tune.gradcache import cached_backward
from nearfield.tune.lookup import shared_lookup
from nearfield.tune.packed import TOKENS, can_pack, packed_vectors
from nearfield.tune.pairs import TokenIds
from nearfield.tune.states import FrozenStates
from nearfield.types import BoolArray, FloatArray, IntArray

# Texts of a chunk on a GPU at least: fewer take less time than the launches of their kernels.
GPU_ROWS = 128


def rows_on(device: torch.device, chunk_rows: int) -> int:
    """Texts of a chunk on this device."""
    return chunk_rows if device.type == "cpu" else max(chunk_rows, GPU_ROWS)


def embed(
    tower: Tower, ids: Sequence[TokenIds], *, chunk_rows: int, dtype: str, bar: Bar | None = None, states: FrozenStates | None = None
) -> torch.Tensor:
    """Returns ``(n, dim)`` vectors in the order of ``ids``, on the tower's device, in float32; gradients flow through.

    Texts are sorted by length and encoded ``chunk_rows`` at a time, each chunk padded to its own longest: the vectors (and so the loss
    over all of them) are those of one large batch, for a fraction of its padding. A BERT on a GPU takes them without any padding, about
    ``TOKENS`` tokens at a time, and other models there ``GPU_ROWS`` texts at least: small chunks would only wait for their launches.

    Args:
        tower: the model.
        ids: token ids with special tokens, n >= 1.
        chunk_rows: texts padded together.
        dtype: "float32", or "bfloat16" for autocast.
        bar: refreshed, not advanced, after every chunk, so that a long encoding does not look like a halt.
        states: what is kept of the frozen layers; texts that it has are encoded from there, in chunks of their own.
    """
    device = next(tower.model.parameters()).device
    packs = can_pack(tower)
    known = _known(tower, ids, dtype, None if packs else states)
    if packs:
        chunks: Iterable[IntArray] = length_batches([len(row) for row in ids], max_rows=len(ids), max_tokens=TOKENS)
    else:
        chunks = _chunks(ids, rows_on(device, chunk_rows), known)
    parts, positions = [], []
    half = torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == "bfloat16")
    with half, nullcontext() if packs else shared_lookup(tower.model, ids, tower.tokenizer.pad_id):
        for chunk in chunks:
            rows = [ids[i] for i in chunk]
            if packs:
                parts.append(packed_vectors(tower, rows))
            else:
                input_ids, mask = tower.tokenizer.pad(rows)
                with states.replay(tower, rows) if states is not None and known[chunk[0]] else nullcontext():
                    parts.append(tower(torch.from_numpy(input_ids).to(device), torch.from_numpy(mask).to(device)).float())
            positions.append(chunk)
            if bar is not None:
                bar.advance(0)
    back = np.argsort(np.concatenate(positions), kind="stable")
    return torch.cat(parts)[torch.from_numpy(back).to(device)]


def cached_step(
    tower: Tower, ids: Sequence[TokenIds], loss_of: Callable[[torch.Tensor], torch.Tensor], *, chunk_rows: int, dtype: str,
    states: FrozenStates | None = None,
) -> torch.Tensor:  # fmt: skip
    """``loss_of(embed(...))`` and its gradient, for the activations of one chunk (``nearfield.tune.gradcache``); returns the loss."""
    chunks = list(_chunks(ids, rows_on(tower.device, chunk_rows), _known(tower, ids, dtype, states)))
    back = torch.from_numpy(np.argsort(np.concatenate(chunks), kind="stable")).to(tower.device)

    def encode(chunk: IntArray) -> torch.Tensor:
        return embed(tower, [ids[i] for i in chunk], chunk_rows=chunk_rows, dtype=dtype, states=states)

    return cached_backward(chunks, encode, lambda vectors: loss_of(vectors[back]))


def vectors_of(
    tower: Tower, ids: Sequence[TokenIds], *, chunk_rows: int, dtype: str, bar: Bar | None = None, states: FrozenStates | None = None
) -> FloatArray:
    """``embed`` without gradients, as normalized float32 rows ``(n, dim)`` in numpy."""
    with torch.inference_mode():
        rows = torch.nn.functional.normalize(embed(tower, ids, chunk_rows=chunk_rows, dtype=dtype, bar=bar, states=states), dim=-1)
    result: FloatArray = rows.cpu().numpy()
    return result


def _known(tower: Tower, ids: Sequence[TokenIds], dtype: str, states: FrozenStates | None) -> BoolArray:
    return np.zeros(len(ids), np.bool_) if states is None else states.known(tower, ids, dtype)


def _chunks(ids: Sequence[TokenIds], rows: int, known: BoolArray) -> Iterator[IntArray]:
    """Positions of texts of about the same length, ``rows`` at a time: first those whose states are known, then the others."""
    for part in (np.flatnonzero(known), np.flatnonzero(~known)):
        for chunk in length_chunks([len(ids[i]) for i in part.tolist()], rows):
            yield part[chunk]
