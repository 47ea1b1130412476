"""Text in, hits out: an encoder and an index that provably belong together."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import numpy.typing as npt

from nearfield.errors import FingerprintError, InputError
from nearfield.search.encoders import Model, model_name, open_encoder
from nearfield.search.folder import IndexFolder
from nearfield.types import Hits


class SearchIndex(Protocol):
    """What a Searcher asks of an index; FlatIndex and HNSWIndex have it."""

    @property
    def dim(self) -> int:
        """Columns of every vector."""

    @property
    def fingerprint(self) -> str | None:
        """The vector space its rows belong to, or None where nobody said."""

    def search(self, queries: npt.ArrayLike, k: int = 10) -> Hits:
        """Returns the k best rows for each query; further options are the index's own."""

    def __len__(self) -> int: ...


@runtime_checkable
class Asking(Protocol):
    """An encoder whose texts may become vectors inside the search."""

    def queries(self, texts: Sequence[str]) -> npt.ArrayLike:
        """What ``SearchIndex.search`` takes for these texts."""


class Searcher:
    """Searches an index by text.

    An index remembers the fingerprint of the model whose vectors it holds, and a Searcher refuses any other model: vectors of two models
    give plausible scores and wrong results. An index that was built without a fingerprint is accepted, because its vectors may come from
    anywhere and there is nothing to compare; its number of columns must fit all the same.

    Args:
        model: a bundle, a model folder or name, or an encoder.
        index: a FlatIndex or HNSWIndex, an opened `IndexFolder`, or the path of an index folder.
        threads: of the encoder opened here; None takes the library's default.

    Raises:
        FingerprintError: the index holds another model's vectors; the message names both.
        InputError: the numbers of columns differ.
        FormatError: model or index cannot be opened.

    Attributes:
        encoder: what encodes the queries.
        index: what is searched.
    """

    def __init__(self, model: Model, index: SearchIndex | IndexFolder | str | os.PathLike[str], *, threads: int | None = None) -> None:
        name = "the index"
        if isinstance(index, (str, os.PathLike)):
            index = IndexFolder.open(index)
        if isinstance(index, IndexFolder):
            name, index = str(index.path), index.index
        self.index: SearchIndex = index
        self.encoder = open_encoder(model, threads=threads)
        self._opened_here = self.encoder is not model
        try:
            _check_pair(model_name(model), self.encoder.dim, self.encoder.fingerprint, name, index)
        except InputError:
            self.close()
            raise

    def search(self, texts: str | Sequence[str], k: int = 10, **options: Any) -> Hits:
        """Encodes ``texts`` as queries and searches.

        Args:
            texts: the queries; one str is one row.
            k: documents for each query.
            **options: as the index's own ``search`` takes them: ``ef``, ``target_recall``, ``filter``, ``bias``, ``threads``.

        Returns:
            `Hits` of shape ``(n, k)``; ids are the documents' ids as they were added.
        """
        rows = [texts] if isinstance(texts, str) else texts
        if isinstance(self.encoder, Asking):
            return self.index.search(self.encoder.queries(rows), k, **options)
        return self.index.search(self.encoder.encode(rows, kind="query"), k, **options)

    def close(self) -> None:
        """Releases the encoder if it was opened here; one that was handed in stays the caller's."""
        close = getattr(self.encoder, "close", None)
        if self._opened_here and close is not None:
            close()

    def __enter__(self) -> Searcher:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _check_pair(model: str, dim: int, fingerprint: str, name: str, index: SearchIndex) -> None:
    if index.fingerprint and index.fingerprint != fingerprint:
        raise FingerprintError(
            f"{name} holds vectors of model {index.fingerprint[:16]}, but {model} is model {fingerprint[:16]}: "
            "search it with the model it was built with, or build the index again"
        )
    if index.dim != dim:
        raise InputError(f"{name} has {index.dim} columns, but {model} makes vectors of {dim}: build the index with this model")
