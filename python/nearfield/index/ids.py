"""Ids of an index: int64 or str, one kind for each index, named by slot (a row's number in order of insertion)."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from nearfield.arrays import as_array, as_candidates, as_places
from nearfield.errors import FormatError, InputError
from nearfield.types import AnyArray, BoolArray, IntArray

# Section names in an index file.
INT_SECTION, TEXT_SECTION, ENDS_SECTION = "ids", "id_bytes", "id_ends"


def check_ids(ids: Any, what: str = "ids") -> IntArray | list[str]:
    """Returns int64 ids >= 0 as a 1-D array, or str ids as a list; anything else is refused.

    >>> check_ids([3, 1])
    array([3, 1])
    """
    if isinstance(ids, str | bytes):
        raise InputError(f"{what}: one {type(ids).__name__} given, a sequence of ids expected: wrap it in a list")
    try:
        values = ids if isinstance(ids, np.ndarray) and ids.ndim else list(ids)
    except TypeError:
        raise InputError(f"{what}: {ids!r} given, a sequence of ids expected: wrap it in a list") from None
    if len(values) == 0:
        return np.empty(0, np.int64)
    if isinstance(values, np.ndarray):
        if values.ndim != 1:
            raise InputError(f"{what}: shape {values.shape} given, a sequence of ids expected")
        if values.dtype.kind not in "iuUO":
            raise InputError(f"{what}: dtype {values.dtype} given, int64 >= 0 or str expected, one for each row")
        if values.dtype.kind in "UO":
            values = values.tolist()
    if isinstance(values, list) and isinstance(values[0], str):
        for row, value in enumerate(values):
            if not isinstance(value, str):
                raise InputError(f"{what}: row {row} is {value!r}, a str expected as in row 0: one index holds one kind of ids")
        return [str(value) for value in values]
    for row, value in enumerate(values if isinstance(values, list) else ()):
        if not _is_whole(value) or not -(2**63) <= value < 2**63:
            raise InputError(f"{what}: {value!r} given in row {row}, int64 >= 0 or str expected, one for each row")
    exact = np.asarray(values).astype(np.int64)
    negative = np.flatnonzero(exact < 0)  # or, of uint64, beyond int64
    if len(negative):
        raise InputError(f"{what}: row {negative[0]} is {values[negative[0]]}, a number from 0 to 2^63 - 1 expected")
    return exact


def check_candidates(ids: Any, queries: int) -> tuple[BoolArray, IntArray | list[str]]:
    """Returns which places of ``ids``, ``(queries, m)``, hold an id (-1 and None are missing), and these ids in order of reading.

    >>> check_candidates([["b", None, "a"]], 1)
    (array([[ True, False,  True]]), ['b', 'a'])
    """
    # As objects, so that numpy makes no str of the number in [1, "a"] and no float of the one beside a None.
    given = as_candidates(as_array(ids, "ids", object if isinstance(ids, list | tuple) else None), queries, "ids")
    if given.dtype.kind not in "UO":
        places = as_places(given, "ids")
        return places >= 0, places[places >= 0]
    present = np.zeros(given.size, np.bool_)
    kind: type | None = None
    for at, value in enumerate(given.ravel().tolist()):
        if value is None or (_is_whole(value) and value == -1):
            continue
        own = str if isinstance(value, str) else int if _is_whole(value) and 0 <= value < 2**63 else None
        if own is None or kind not in (None, own):
            expected = "an id (int64 >= 0 or str)" if own is None else "ids of one kind"
            raise InputError(
                f"ids: row {at // given.shape[1]}, place {at % given.shape[1]} is {value!r}, {expected}, or -1 or None for none, expected"
            )
        kind, present[at] = own, True
    names = given.ravel()[present]
    return present.reshape(given.shape), [str(name) for name in names] if kind is str else names.astype(np.int64)


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


@dataclass(slots=True)
class Change:
    """An add that has been checked but not made: the ids of the new rows, and the slots they replace."""

    names: IntArray | list[str]
    replaced: IntArray = field(default_factory=lambda: np.empty(0, np.int64))


class IdMap:
    """Slots and ids of one index, both ways.

    Names are appended and never moved, so a search may translate slots without a lock while a writer appends. Writers must
    hold the index's own lock. As long as ids are 0..n-1 in order no table is kept; the table of other ids is made at the first look-up.
    """

    def __init__(self, names: IntArray | list[str] | None = None) -> None:
        self.kind: str | None = None
        self._ints: IntArray = np.empty(0, np.int64)
        self._texts: list[str] = []
        self._count = 0  # slots that have a name
        self._linked = 0  # of these, slots whose rows are in: their names can be found
        self._table: dict[Any, int] | None = None
        self._sequential = True
        self._next = 0
        if names is not None and len(names):
            self.append(names)
            self.link()

    def __len__(self) -> int:
        return self._linked

    def __contains__(self, id: object) -> bool:
        if isinstance(id, str):
            return len(self.find([id])[0]) == 1
        return _is_whole(id) and 0 <= id < 2**63 and len(self.find(np.array([id]))[0]) == 1

    def plan(self, ids: Any | None, rows: int) -> Change:
        """Checks the ids of ``rows`` new rows against each other and against those that exist.

        Raises:
            InputError: wrong kind or number of ids, or one id twice.
        """
        if ids is None:
            if self.kind == "str":
                raise InputError("ids: none given, but this index has str ids: give a str for each vector")
            if self._next + rows > np.iinfo(np.int64).max:
                raise InputError("ids: none given, and no int64 is left after the largest id: give ids")
            return Change(np.arange(self._next, self._next + rows, dtype=np.int64))
        names = check_ids(ids)
        if len(names) != rows:
            raise InputError(f"ids: {len(names)} given for {rows} vectors, one for each expected")
        if rows == 0:
            return Change(names)
        self._check_kind(names, "ids")
        self._check_unique(names)
        if self._linked == 0 or (isinstance(names, np.ndarray) and int(names.min()) >= self._next):
            return Change(names)  # above every id there is or was: nothing can be replaced
        return Change(names, self.find(names)[0])

    def append(self, names: IntArray | list[str]) -> None:
        """Gives the next ``len(names)`` slots their names; ``link`` makes them findable once the rows are in."""
        if len(names) == 0:
            return
        if isinstance(names, list):
            self.kind = "str"
            self._texts += names
            self._sequential = False
        else:
            self.kind = "int"
            end = self._count + len(names)
            if end > len(self._ints):
                grown = np.empty(max(end, len(self._ints) * 3 // 2), np.int64) if self._count else names.copy()
                grown[: self._count] = self._ints[: self._count]
                self._ints = grown
            self._ints[self._count : end] = names
            if self._sequential:
                self._sequential = bool((names == np.arange(self._count, end)).all())
            self._next = max(self._next, int(names.max()) + 1)
        self._count += len(names)

    def link(self) -> None:
        """Makes the names appended last findable; a name that occurs again names its later slot."""
        if self._table is not None:
            self._table.update(zip(self._list(self._linked, self._count), range(self._linked, self._count), strict=True))
        self._linked = self._count

    def withdraw(self, next_id: int) -> None:
        """Takes back the names of an add that failed; ``next_id`` is what ``next_id`` was before."""
        self._count, self._next = self._linked, next_id
        del self._texts[self._count :]
        if self._count == 0:
            self.kind, self._sequential = None, True

    def reserve(self, next_id: int) -> None:
        """Keeps default ids from naming again what was deleted."""
        self._next = max(self._next, next_id)

    @property
    def next_id(self) -> int:
        """The first default id of the next add."""
        return self._next

    def find(self, names: IntArray | list[str]) -> tuple[IntArray, IntArray]:
        """Returns (slots of the ids that exist, positions in ``names`` of those that do not)."""
        if self.kind is None or len(names) == 0 or isinstance(names, list) != (self.kind == "str"):
            return np.empty(0, np.int64), np.arange(len(names))
        if self._sequential and self._table is None:
            array = np.asarray(names)
            known = (array >= 0) & (array < self._linked)
            return array[known], np.flatnonzero(~known)
        table = self._lookup()
        slots = np.fromiter((table.get(name, -1) for name in (names if isinstance(names, list) else names.tolist())), np.int64, len(names))
        return slots[slots >= 0], np.flatnonzero(slots < 0)

    def require(self, ids: Any) -> IntArray:
        """The slots of ids that must all exist; raises InputError for the first that does not."""
        names = check_ids(ids)
        slots, unknown = self.find(names)
        if len(unknown):
            raise InputError(f"ids: {_shown(names, unknown[0])} (row {unknown[0]}) is not in the index")
        return slots

    def candidates(self, ids: Any, queries: int) -> IntArray:
        """The slots of the candidates of each query, ``(queries, m)``, -1 where there is none.

        Raises:
            InputError: another shape or kind of ids, or an id that is not in the index, with its row and place.
        """
        present, names = check_candidates(ids, queries)
        if len(names):
            self._check_kind(names, "ids")
        found, unknown = self.find(names)
        if len(unknown):
            row, place = np.argwhere(present)[unknown[0]].tolist()
            raise InputError(f"ids: {_shown(names, unknown[0])} (row {row}, place {place}) is not in the index: give -1 or None for none")
        slots = np.full(present.shape, -1, np.int64)
        slots[present] = found
        return slots

    def forget(self, slots: IntArray) -> None:
        """Makes the names of deleted slots unknown."""
        table = self._lookup()
        for slot in slots.tolist():
            table.pop(self._texts[slot] if self.kind == "str" else int(self._ints[slot]), None)

    def restore(self, slots: IntArray) -> None:
        """Makes the names of these slots mean these slots again, whatever later slots bear the same names."""
        table = self._lookup()
        for slot, name in zip(slots.tolist(), self.names(slots).tolist(), strict=True):
            table[name] = slot

    def names(self, slots: IntArray) -> AnyArray:
        """The ids of slots of any shape; -1 becomes -1, or None for str ids."""
        if self.kind == "str":
            texts = self._texts
            named = np.fromiter((None if slot < 0 else texts[slot] for slot in slots.ravel().tolist()), object, slots.size)
            return named.reshape(slots.shape)
        if self._count == 0:
            return np.full(slots.shape, -1, np.int64)
        if self._sequential:
            return slots  # the engine's own array, of which nobody else knows
        found: IntArray = self._ints[slots]
        if (slots < 0).any():
            found[slots < 0] = -1
        return found

    def sections(self, slots: IntArray) -> list[tuple[str, Any]]:
        """The file sections that hold the ids of these slots."""
        if self.kind != "str":
            return [(INT_SECTION, self._ints[slots] if self._count else np.empty(0, np.int64))]
        encoded = [self._texts[slot].encode("utf-8", "surrogatepass") for slot in slots.tolist()]
        return [(TEXT_SECTION, b"".join(encoded)), (ENDS_SECTION, np.cumsum([len(text) for text in encoded], dtype=np.uint64))]

    def _list(self, start: int, end: int) -> list[Any]:
        return self._texts[start:end] if self.kind == "str" else self._ints[start:end].tolist()

    def _lookup(self) -> dict[Any, int]:
        if self._table is None:
            self._table = dict(zip(self._list(0, self._linked), range(self._linked), strict=True))
        return self._table

    def _check_kind(self, names: IntArray | list[str], what: str) -> None:
        given = "str" if isinstance(names, list) else "int"
        if self.kind not in (None, given):
            raise InputError(f"{what}: {given} ids given, but this index has {self.kind} ids: one index holds one kind")

    @staticmethod
    def _check_unique(names: IntArray | list[str]) -> None:
        unique = len(np.unique(names)) if isinstance(names, np.ndarray) else len(set(names))
        if unique == len(names):
            return
        seen: dict[Any, int] = {}
        for row, name in enumerate(names if isinstance(names, list) else names.tolist()):
            if name in seen:
                raise InputError(f"ids: {name!r} given twice, in rows {seen[name]} and {row}: one row for each id expected")
            seen[name] = row


def _shown(names: IntArray | list[str], at: int) -> str:
    return repr(names[at] if isinstance(names, list) else int(names[at]))


def read_ids(container: Any, kind: str | None, count: int, path: str) -> IdMap:
    """The ids of an index file; sizes, offsets and text are checked, whatever the bytes."""
    if kind != "str":
        ints: npt.NDArray[np.int64] = container.array(INT_SECTION, np.dtype("<i8"))
        if len(ints) != count:
            raise FormatError(f"{path}: {len(ints)} ids for {count} rows: the file is damaged")
        return IdMap(ints)
    ends = container.array(ENDS_SECTION, np.dtype("<u8"))
    blob: bytes = container.section(TEXT_SECTION)
    rising = len(ends) == count and (count == 0 or (int(ends[-1]) == len(blob) and bool((ends[1:] >= ends[:-1]).all())))
    if not rising or (count == 0 and blob):
        raise FormatError(f"{path}: the ends of its str ids do not fit: the file is damaged")
    try:
        bounds = [0, *ends.tolist()]
        return IdMap([blob[a:b].decode("utf-8", "surrogatepass") for a, b in pairwise(bounds)])
    except UnicodeDecodeError as problem:
        raise FormatError(f"{path}: a str id is not UTF-8: the file is damaged") from problem
