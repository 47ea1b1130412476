"""Names for people of the parts of a graph that may stay in float32; nodes are called as torch or the fusion named them."""

from __future__ import annotations

import re
from collections.abc import Iterable

# What the embedding tables are called among the products that may go back to float32.
EMBEDDINGS = "embeddings"
# Each kind of product of a BERT-like layer: its node's name, with the layer's number, and what people call it, one and several.
_KINDS = (
    (r"Attention_(\d+)", "the query-key-value projection", "the query-key-value projections"),
    (r".*/layer\.(\d+)/attention/output/dense/MatMul", "attention's output product", "attention's output products"),
    (r".*/layer\.(\d+)/intermediate/dense/MatMul", "the first feed-forward product", "the first feed-forward products"),
    (r".*/layer\.(\d+)/output/dense/MatMul", "the second feed-forward product", "the second feed-forward products"),
)


def part_names(names: Iterable[str]) -> str:
    """Says which parts of a model node names stand for, those of one kind together; names of no known kind stay as they are.

    Args:
        names: of products (``nearfield.export.products.products``), and perhaps ``EMBEDDINGS``.

    >>> part_names(["Attention_5", "/model/encoder/layer.2/output/dense/MatMul", "embeddings", "Attention_0"])
    'the embedding tables, the query-key-value projections of layers 0 and 5, the second feed-forward product of layer 2'
    """
    layers: dict[int, list[int]] = {}
    said, others = [], []
    for name in names:
        kind, found = next(((i, match) for i, (form, *_) in enumerate(_KINDS) if (match := re.fullmatch(form, name))), (-1, None))
        if found is not None:
            layers.setdefault(kind, []).append(int(found[1]))
        elif name == EMBEDDINGS:
            said.append("the embedding tables")
        else:
            others.append(name)
    for kind, (_, one, several) in enumerate(_KINDS):
        numbers = [str(layer) for layer in sorted(layers.get(kind, ()))]
        if len(numbers) == 1:
            said.append(f"{one} of layer {numbers[0]}")
        elif numbers:
            said.append(f"{several} of layers {', '.join(numbers[:-1])} and {numbers[-1]}")
    return ", ".join([*said, *others])
