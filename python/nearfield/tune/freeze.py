"""Training the upper layers alone: the first rung of partial tuning; and running a model with some of its layers answered for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from nearfield.errors import InputError

# "encoder.layer.3.", "layers.3.", "transformer.layer.3.": how the architectures that we know name a layer.
LAYER = re.compile(r"(?:^|\.)(?:layer|layers|h|block)\.(\d+)\.")


def freeze_lowest(model: torch.nn.Module, layers: int) -> int:
    """Freezes the embeddings and the lowest ``layers`` layers of a transformers model; -1 freezes nothing.

    With one layer or more, whatever else these layers compute with is frozen as well (MPNet's relative positions belong to all layers):
    what they give is then the same in the whole run.

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
    for place, (name, parameter) in enumerate(model.named_parameters()):
        if place < first or numbered.get(name, count) < layers:
            parameter.requires_grad_(False)
    for parameter in _shared(model, layers):
        parameter.requires_grad_(False)
    return sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad)


def layers_of(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The model's layers from the lowest to the highest; none where it does not have exactly one stack of them."""
    found: dict[int, torch.nn.Module] = {}
    for name, module in model.named_modules():
        match = LAYER.search(name + ".")
        if match and match.end() == len(name) + 1:
            if int(match[1]) in found:
                return []
            found[int(match[1])] = module
    return [found[number] for number in sorted(found)] if sorted(found) == list(range(len(found))) else []


@contextmanager
def answering(layers: Sequence[torch.nn.Module], answer: Callable[[], Any]) -> Iterator[None]:
    """Within the block these layers compute nothing and return ``answer()``, whatever they are given.

    >>> layer = torch.nn.Linear(1, 1)
    >>> with answering([layer], lambda: "kept"):
    ...     layer(torch.zeros(1))
    'kept'
    """
    for layer in layers:
        layer.__dict__["forward"] = lambda *_, **__: answer()  # hides the method of the class for this block
    try:
        yield
    finally:
        for layer in layers:
            del layer.__dict__["forward"]


def below(model: torch.nn.Module, layers: int, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
    """What the lowest ``layers`` (>= 1) layers return for a batch, in the form in which they hand it on; no layer above them computes."""
    stack, seen = layers_of(model), list[Any]()
    hook = stack[layers - 1].register_forward_hook(lambda _module, _args, output: seen.append(output))
    try:
        with answering(stack[layers:], lambda: seen[-1]):
            model(input_ids=input_ids, attention_mask=attention_mask)
    finally:
        hook.remove()
    return seen[-1]


def state_in(output: Any) -> torch.Tensor | None:
    """The hidden states in what a layer returned: a tensor, or a tuple of one and Nones; None where more is handed on."""
    first, *others = output if isinstance(output, tuple) else (output,)
    return first if isinstance(first, torch.Tensor) and all(other is None for other in others) else None


def _shared(model: torch.nn.Module, layers: int) -> list[torch.nn.Parameter]:
    """Parameters still trained that the lowest layers use, wherever they stand: those that a gradient from these layers reaches."""
    if layers < 1 or not layers_of(model):
        return []
    device = next(model.parameters()).device
    ids = torch.tensor([[0, 1]], device=device)
    with torch.enable_grad():
        state = state_in(below(model, layers, ids, torch.ones_like(ids)))
        if state is None or not state.requires_grad:
            return []
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        gradients = torch.autograd.grad(state.sum(), trained, allow_unused=True)
    return [parameter for parameter, gradient in zip(trained, gradients, strict=True) if gradient is not None]
