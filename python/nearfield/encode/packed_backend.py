"""Texts to vectors on a GPU, without padding: tokens are made while the device works on the batch before."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nearfield.encode.batches import check_vectors
from nearfield.encode.checkpoint import Checkpoint
from nearfield.encode.packed import Int32Array, PackedBert
from nearfield.encode.packed_choice import Chosen, choose
from nearfield.encode.packed_lanes import SIZES, Lane, Lanes, texts_for
from nearfield.encode.shape import Shape, read_shape
from nearfield.encode.spec import ModelSpec, weights_folder
from nearfield.encode.tokenize import TextTokenizer
from nearfield.encode.weights import read_weights
from nearfield.errors import FormatError, InputError
from nearfield.progress import progress as show_progress
from nearfield.types import FloatArray, IntArray

# Tokens and texts of a batch. Of all-MiniLM's 8,192 tokens the widest tensor (25 MB in 16 bits) stays in a large GPU's second-level cache.
TOKENS = SIZES[-1]
# Texts tokenized at a time: few, so that the device begins soon; enough that Python's share is small.
SLICE = 256
# With padding in attention texts of a batch are to be of like length: more of them are sorted together.
SORTED_SLICE = 4_096
# Batches under way in one call: one computes, one waits, one is being copied out.
AHEAD = 3


@dataclass(frozen=True)
class _Batch:
    """Token ids of some texts, and which rows of the result they are."""

    ids: Int32Array
    offsets: IntArray
    places: IntArray


class PackedBackend:
    """A BERT over packed tokens on one device. Safe under threads; not in a forked child, where CUDA does not work.

    Args:
        folder: the model folder.
        spec: as ``read_spec`` gives it.
        precision: ``"fp32"``, ``"bf16"``, ``"fp16"``, or ``"auto"``: fp16 where it keeps to the bound of ``packed_choice``.
        device: ``"cuda"``, ``"cuda:1"``; ``"cpu"`` in the tests.

    Attributes:
        precision: what was chosen.
        kernels: ``"triton"`` or ``"torch"``.
        notes: what a user may want to know about the choice, one line each.

    Raises:
        UnsupportedModelError: a sound model that is no BERT.
        InputError: a device that is not there, or does not hold the model, or a precision it does not have.
        FormatError: damaged files.
    """

    def __init__(self, folder: Path, spec: ModelSpec, precision: str, device: str) -> None:
        inner = weights_folder(folder)
        self._shape: Shape = read_shape(inner)
        if spec.dim != self._shape.width:
            raise FormatError(f"{inner / 'config.json'}: hidden_size {self._shape.width}, but vectors of {spec.dim} columns are expected")
        self._folder, self._spec, self._pid = folder, spec, os.getpid()
        with Checkpoint(inner) as checkpoint:
            weights = read_weights(checkpoint, self._shape)
        with _memory(device):
            chosen: Chosen = choose(self._shape, weights, spec, torch.device(device), precision)
            self._lanes: Lanes | None = Lanes(chosen.model)
        self.precision, self.kernels, self.notes = chosen.precision, chosen.model.steps.name, chosen.notes

    @property
    def model(self) -> PackedBert:
        """The weights on the device. Raises InputError once closed."""
        return self._open().model

    @property
    def recorded(self) -> tuple[int, ...]:
        """The batch sizes, in tokens, whose launches are recorded; see ``nearfield.encode.packed_lanes``."""
        return self._open().recorded

    def encode(self, texts: list[str], prompt: str, tokenizer: TextTokenizer, *, progress: bool = False) -> tuple[FloatArray, int]:
        """Checked texts to float32 ``(len(texts), dim)`` in the order given, and how many were cut.

        Raises:
            InputError: closed, a forked child, or a device without memory for the batch.
            FormatError: a token or a position that the model does not have, or vectors that are no numbers.
        """
        lanes = self._open()
        out = np.empty((len(texts), self._spec.dim), np.float32)
        under_way: deque[tuple[Lane, _Batch]] = deque()
        truncated = [0]
        with show_progress(f"encoding {len(texts):,} texts", len(texts), enabled=progress) as bar, _memory(str(lanes.model.device)):
            try:
                for batch in self._batches(texts, prompt, tokenizer, truncated):
                    under_way.append((lanes.launch(batch.ids, batch.offsets), batch))
                    if len(under_way) == AHEAD:
                        bar.advance(self._land(lanes, *under_way.popleft(), out))
                while under_way:
                    bar.advance(self._land(lanes, *under_way.popleft(), out))
            finally:
                for lane, _ in under_way:
                    lanes.land(lane)
        return out, truncated[0]

    def warmup(self) -> None:
        """Records the launches of every batch size: some tenths of a second that no request pays then."""
        self._open().record()

    def close(self) -> None:
        """Frees the weights once running calls have ended; later calls raise InputError."""
        self._lanes = None

    def _open(self) -> Lanes:
        lanes = self._lanes  # once: another thread may close the encoder meanwhile
        if lanes is None:
            raise InputError("this encoder is closed; open another one")
        if os.getpid() != self._pid and lanes.model.device.type == "cuda":
            raise InputError("this encoder was opened before the process forked, and CUDA does not survive a fork; open one in the child")
        return lanes

    def _land(self, lanes: Lanes, lane: Lane, batch: _Batch, out: FloatArray) -> int:
        try:
            vectors = lane.vectors(self._spec.dim)
            if not np.isfinite(vectors).all():
                if self.precision == "fp16":
                    raise FormatError(f"{self._folder}: float16 overflows on text {batch.places[0]} or one near it; use precision='bf16'")
                check_vectors(vectors, batch.places, self._spec.dim)
            out[batch.places] = vectors
        finally:
            lanes.land(lane)
        return len(batch.places)

    def _batches(self, texts: list[str], prompt: str, tokenizer: TextTokenizer, truncated: list[int]) -> Iterator[_Batch]:
        """Whole texts in batches of about ``TOKENS``, in their order where nothing is padded, else by length within a slice."""
        sort = self._open().model.steps.pads
        step = SORTED_SLICE if sort else SLICE
        left = _Batch(np.zeros(0, np.int32), np.zeros(1, np.int64), np.zeros(0, np.int64))
        for low in range(0, len(texts), step):
            ids, offsets, cut = tokenizer.encode(texts[low : low + step], prompt)
            truncated[0] += cut
            self._check(ids, offsets)
            fresh = _Batch(ids, offsets, np.arange(low, low + len(offsets) - 1))
            waiting = _joined(left, _by_length(fresh) if sort else fresh)
            left = yield from _cut(waiting)
        if len(left.places):
            yield left

    def _check(self, ids: Int32Array, offsets: IntArray) -> None:
        """On a GPU an index beyond a table ends every computation of the process, so it is looked for here."""
        longest = int(np.diff(offsets).max(initial=0))
        if len(ids) and not (int(ids.min()) >= 0 and int(ids.max()) < self._shape.vocab and longest <= self._shape.positions):
            raise FormatError(
                f"{self._folder}: tokenizer.json gives a token, or max_tokens a position, that the model does not have (token "
                f"{ids.max()} of {self._shape.vocab}, {longest} positions of {self._shape.positions}): its files do not belong together"
            )


def _by_length(batch: _Batch) -> _Batch:
    lengths = np.diff(batch.offsets)
    order = np.argsort(lengths, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(lengths[order])])
    # Where each token of the sorted texts lay: its place in its text, added to where that text began.
    source = np.arange(len(batch.ids)) + np.repeat(batch.offsets[:-1][order] - offsets[:-1], lengths[order])
    return _Batch(batch.ids[source], offsets, batch.places[order])


def _joined(left: _Batch, right: _Batch) -> _Batch:
    if not len(left.places):
        return right
    offsets = np.concatenate([left.offsets, right.offsets[1:] + left.offsets[-1]])
    return _Batch(np.concatenate([left.ids, right.ids]), offsets, np.concatenate([left.places, right.places]))


def _cut(waiting: _Batch) -> Any:
    """Yields full batches and returns what is left, less than one."""
    offsets, most, start = waiting.offsets, texts_for(TOKENS), 0
    while True:
        # The text that would not fit any more: as many as fit, one at least.
        end = int(np.searchsorted(offsets, offsets[start] + TOKENS, side="right")) - 1
        full = end < len(offsets) - 1 or end - start > most
        if not full:
            return _part(waiting, start, len(offsets) - 1)
        end = max(start + 1, min(end, start + most))
        yield _part(waiting, start, end)
        start = end


def _part(batch: _Batch, start: int, end: int) -> _Batch:
    offsets = batch.offsets[start : end + 1]
    return _Batch(batch.ids[offsets[0] : offsets[-1]], offsets - offsets[0], batch.places[start:end])


@contextmanager
def _memory(device: str) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = str(error).splitlines()[0][:200]
        raise InputError(f"device {device!r}: out of memory ({reason}); free some of it, or use another device") from None
