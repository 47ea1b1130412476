"""Training the upper layers alone: the first rung of partial tuning."""

from __future__ import annotations

import re

import torch

from nearfield.errors import InputError

# "encoder.layer.3.", "layers.3.", "transformer.layer.3.": how the architectures that we know name a layer.
LAYER = re.compile(r"(?:^|\.)(?:layer|layers|h|block)\.(\d+)\.")


def freeze_lowest(model: torch.nn.Module, layers: int) -> int:
    """Freezes the embeddings and the lowest ``layers`` layers of a transformers model; -1 freezes nothing.

    Returns:
        How many parameters (numbers, not tensors) are frozen.

    Raises:
        InputError: as many layers as the model has, or a model whose layers are not found.
    """
    if layers < 0:
        return 0
    numbered = {name: int(found[1]) for name, _ in model.named_parameters() if (found := LAYER.search(name))}
    count = max(numbered.values(), default=-1) + 1
    if layers >= count:
        raise InputError(f"config: frozen_layers: {layers} given, at most {count - 1} expected, as the model has {count} layers")
    # What stands in front of the first layer is embeddings; heads and final norms come behind the last.
    first = next(place for place, (name, _) in enumerate(model.named_parameters()) if name in numbered)
    frozen = 0
    for place, (name, parameter) in enumerate(model.named_parameters()):
        if place < first or numbered.get(name, count) < layers:
            parameter.requires_grad_(False)
            frozen += parameter.numel()
    return frozen
