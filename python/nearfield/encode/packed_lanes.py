"""Batches on their way to a device and back: pinned memory for both directions, recorded launches, one stream.

A *recording* (a CUDA graph) replays every kernel of a batch of one size in a single call: without it the launches of a small batch take ten
times as long as its work. Sizes are few (``SIZES``); a batch takes the next larger one, whose spare tokens stand alone and cost what they
weigh. A recording is made when its size first occurs.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from nearfield.encode.packed import Int32Array, Packed, PackedBert, lay_out, views
from nearfield.types import FloatArray, IntArray

# Tokens of a recorded batch: steps of a third to a half, so that at most a third of a batch is spare.
SIZES = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192)
# A recorded batch holds at most a text for each four tokens; the shortest texts have three or four.
TOKENS_PER_TEXT = 4


def texts_for(tokens: int) -> int:
    """The most texts of a batch with so many tokens."""
    return max(1, tokens // TOKENS_PER_TEXT)


def size_for(tokens: int, texts: int) -> int | None:
    """The smallest recorded size that holds a batch; None for one beyond all of them.

    >>> size_for(20, 1), size_for(20, 20), size_for(10_000, 1)
    (32, 96, None)
    """
    return next((size for size in SIZES if size >= tokens and texts_for(size) >= texts), None)


@dataclass
class Lane:
    """Memory of one batch in flight.

    Attributes:
        fed: int32, what ``lay_out`` writes; pinned where there is a GPU.
        made: float32, the vectors.
        texts: of the batch in flight.
        done: recorded behind the copy of the vectors; None on a CPU.
    """

    fed: torch.Tensor
    made: torch.Tensor
    texts: int = 0
    done: Any = None

    def vectors(self, dim: int) -> FloatArray:
        """Waits for the batch; the rows lie in the lane's own memory."""
        if self.done is not None:
            self.done.synchronize()
        rows: FloatArray = self.made[: self.texts * dim].numpy().reshape(self.texts, dim)
        return rows


@dataclass
class _Recording:
    fed: torch.Tensor
    made: torch.Tensor
    graph: Any
    kept: list[Any] = field(default_factory=list)


class Lanes:
    """Runs packed batches of one model. Any number of threads may call; their batches take turns on one stream.

    Args:
        model: on its device.
        record: whether batches are recorded; on a CPU nothing is.

    Attributes:
        reason: why recording was given up; empty while it works.
    """

    def __init__(self, model: PackedBert, *, record: bool = True) -> None:
        self.model, self.reason = model, ""
        self.dim = model.shape.width
        self._cuda = model.device.type == "cuda"
        self._record = record and self._cuda
        self._recordings: dict[int, _Recording] = {}
        self._free: list[Lane] = []
        self._lock = threading.Lock()
        self._stream: Any = None
        self._pool: Any = None
        if self._cuda:
            self._stream = torch.cuda.Stream(model.device)  # type: ignore[no-untyped-call]
            self._pool = torch.cuda.graph_pool_handle()
            torch.cuda.synchronize(model.device)

    @property
    def recorded(self) -> tuple[int, ...]:
        """The sizes that were recorded, ascending."""
        return tuple(sorted(self._recordings))

    def launch(self, ids: Int32Array, offsets: IntArray) -> Lane:
        """Starts a batch: token ids int32, ``offsets`` ``(texts + 1,)`` from 0. ``land`` gives its lane back."""
        tokens, texts = len(ids), len(offsets) - 1
        longest = int(np.diff(offsets).max(initial=0))
        size = size_for(tokens, texts) if self._record and not self.model.steps.pads else None
        whole, rows = (size, texts_for(size)) if size is not None else (tokens, texts)
        lane = self._lane(3 * whole + rows + 1, rows)
        lay_out(ids, offsets, whole, rows, lane.fed.numpy())
        lane.texts = texts
        if not self._cuda:
            made = self.model(views(lane.fed, whole, rows, longest))
            lane.made[: texts * self.dim].copy_(made[:texts].reshape(-1))
            return lane
        with self._lock, torch.cuda.stream(self._stream):
            recording = self._recording(size) if size is not None else None
            fed = lane.fed[: 3 * whole + rows + 1]
            if recording is not None:
                recording.fed.copy_(fed, non_blocking=True)
                recording.graph.replay()
                made = recording.made
            else:
                made = self.model(views(fed.to(self.model.device, non_blocking=True), whole, rows, longest))
            lane.made[: texts * self.dim].copy_(made[:texts].reshape(-1), non_blocking=True)
            lane.done.record()
        return lane

    def land(self, lane: Lane) -> None:
        """Takes a lane back whose batch is done with."""
        if lane.done is not None:
            lane.done.synchronize()  # after an error the copy may still be under way
        with self._lock:
            self._free.append(lane)

    def record(self) -> None:
        """Records every size that is missing, so that no later call has to."""
        if self._record and not self.model.steps.pads:
            for size in reversed(SIZES):
                with self._lock, torch.cuda.stream(self._stream):
                    self._recording(size)

    def _lane(self, fed: int, texts: int) -> Lane:
        """A free lane that is large enough, or a new one; pinning costs a millisecond, so they are kept."""
        with self._lock:
            for i, lane in enumerate(self._free):
                if len(lane.fed) >= fed and len(lane.made) >= texts * self.dim:
                    return self._free.pop(i)
        largest, most = 3 * SIZES[-1], texts_for(SIZES[-1])
        small = fed <= largest // 8 and texts <= most // 8
        fed, texts = max(fed, (largest + most + 1) // (8 if small else 1)), max(texts, most // (8 if small else 1))
        pin = self._cuda
        lane = Lane(torch.zeros(fed, dtype=torch.int32, pin_memory=pin), torch.zeros(texts * self.dim, dtype=torch.float32, pin_memory=pin))
        if self._cuda:
            lane.done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        return lane

    def _recording(self, size: int) -> _Recording | None:
        """The recording of a size, made now if it is the first of its kind; None once the device has refused one. Called with the lock."""
        if size not in self._recordings and self._record:
            try:
                self._recordings[size] = self._make(size)
            except (RuntimeError, ValueError) as error:
                self._record, self.reason = False, (str(error).strip() or type(error).__name__).splitlines()[0]
        return self._recordings.get(size)

    def _make(self, size: int) -> _Recording:
        texts = texts_for(size)
        empty = np.zeros(3 * size + texts + 1, np.int32)
        lay_out(np.zeros(0, np.int32), np.zeros(1, np.int64), size, texts, empty)
        fed = torch.from_numpy(empty).to(self.model.device)
        batch: Packed = views(fed, size, texts, 1)
        for _ in range(2):  # whatever is loaded, compiled, chosen or allocated for these sizes is not part of the recording
            self.model(batch)
        torch.cuda.current_stream().synchronize()
        graph: Any = torch.cuda.CUDAGraph()
        # Other threads of the process may allocate meanwhile: only this thread's calls belong to the recording.
        graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
        try:
            made = self.model(batch)
        finally:
            graph.capture_end()
        return _Recording(fed, made, graph)
