"""One look-up of the token table for all chunks of a step.

A gradient of the token table is as large as the table (47 MB for 30,522 x 384 in float32), whoever uses only a thousand rows of it, and
every chunk of a step would fill one with zeros and add it to the last. Here the rows that a step needs are taken out once; chunks read
from these, so the large gradient is made once for each step. Values and gradients are those of plain look-ups, up to the order of sums.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from nearfield.tune.pairs import TokenIds


@contextmanager
def shared_lookup(model: torch.nn.Module, ids: Sequence[TokenIds], pad_id: int) -> Iterator[None]:
    """Within the block the model's token table answers from the rows of ``ids`` alone.

    Without gradients, and for models whose table is not a plain ``Embedding``, nothing is changed.

    Args:
        model: a transformers model.
        ids: all token ids that the block will ask for, besides ``pad_id``.
        pad_id: the token that fills up short rows.
    """
    table = getattr(model, "get_input_embeddings", lambda: None)()
    if type(table) is not torch.nn.Embedding or table.max_norm is not None or table.sparse or table.scale_grad_by_freq:
        yield
        return
    if not torch.is_grad_enabled() or not table.weight.requires_grad:
        yield
        return
    device = table.weight.device
    used = np.unique(np.concatenate([np.asarray(row, np.int64) for row in ids] + [np.array([pad_id], np.int64)]))
    row_of = torch.zeros(table.num_embeddings, dtype=torch.int64, device=device)
    row_of[torch.from_numpy(used).to(device)] = torch.arange(len(used), device=device)
    rows = table.weight[torch.from_numpy(used).to(device)]
    padding = None if table.padding_idx is None else int(np.searchsorted(used, table.padding_idx))
    if padding is not None and (padding == len(used) or used[padding] != table.padding_idx):
        padding = None

    def forward(input_ids: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.embedding(row_of[input_ids], rows, padding_idx=padding)

    table.__dict__["forward"] = forward  # hides the method of the class for this block
    try:
        yield
    finally:
        del table.__dict__["forward"]
