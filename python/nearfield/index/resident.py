"""A flat index's live rows on a GPU, kept there until the index changes."""

from __future__ import annotations

import threading

from nearfield._core import FlatStore
from nearfield.kernels.devices import RowsOnDevice, rows_on
from nearfield.types import IntArray, Metric


class Resident:
    """The rows of one state of one store on one device; asking for another state or device lets go of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._key: tuple[FlatStore, int, int, str] | None = None
        self._held: tuple[IntArray, RowsOnDevice] | None = None

    def rows(self, store: FlatStore, metric: Metric, device: str) -> tuple[IntArray, RowsOnDevice]:
        """The live slots, rising, and their rows on the device; at least one row must live.

        Raises:
            InputError, MissingExtraError: as ``kernels.devices.rows_on``.
        """
        with self._lock:
            # Slots only grow and a slot's row never changes; live rows grow in number only with slots. So these tell any two states apart.
            key = (store, store.slots, store.live, device)
            if self._held is None or key != self._key:
                self._key = self._held = None  # first, so that two states need not fit side by side
                live = store.live_slots()
                self._held = live, rows_on(device, store.get(live), metric, unit=True)
                self._key = key
            return self._held
