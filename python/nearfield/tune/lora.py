"""Low-rank changes of the linear layers (LoRA, https://arxiv.org/abs/2106.09685), folded into the weights before anything is saved.

A layer's weight W stays, and B A of a small rank is learned beside it: no gradient of W, no optimizer state for it, and no embedding moves.
The change acts through hooks, so the model keeps its modules and the names of its weights; what leaves the run is W + scale * B A under the
name of W, which every other part of the house reads as it reads any model.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from nearfield.errors import InputError
from nearfield.tune.checkpoints import Tensors
from nearfield.tune.freeze import LAYER

# scale * B A with the usual alpha = 2 * rank.
SCALE = 2.0
# B begins at 0 and A is small, so entries of W move a tenth as far for the same steps of Adam: rates are this many times the config's.
RATE = 10.0


class Lora:
    """Attaches to every linear layer of the transformer's numbered layers, and freezes the model.

    Args:
        model: a transformers model.
        rank: of each change, 1 at least.

    Raises:
        InputError: a model without such layers, or a rank above a layer's own.
    """

    def __init__(self, model: torch.nn.Module, rank: int) -> None:
        self.model = model
        self.layers = {name: m for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) and LAYER.search(f"{name}.")}
        if not self.layers:
            raise InputError(f"config: lora_rank: {type(model).__name__} has no linear layers in numbered layers; 0 expected")
        least = min(min(layer.weight.shape) for layer in self.layers.values())
        if rank > least:
            raise InputError(f"config: lora_rank: {rank} given, at most {least} expected, the smaller side of the smallest layer")
        model.requires_grad_(False)
        self.parameters: dict[str, torch.nn.Parameter] = {}
        self._hooks = []
        for name, layer in self.layers.items():
            out, inside = layer.weight.shape
            down = torch.empty(rank, inside, device=layer.weight.device).uniform_(-1, 1) / math.sqrt(inside)
            self.parameters[f"{name}.lora_a"] = torch.nn.Parameter(down)
            self.parameters[f"{name}.lora_b"] = torch.nn.Parameter(torch.zeros(out, rank, device=layer.weight.device))
            self._hooks.append(layer.register_forward_hook(self._added(name)))

    def _added(self, name: str) -> Any:
        down, up = self.parameters[f"{name}.lora_a"], self.parameters[f"{name}.lora_b"]

        def add(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
            low = torch.nn.functional.linear(inputs[0], down)
            return output + SCALE * torch.nn.functional.linear(low, up)

        return add

    def merged(self) -> Tensors:
        """The model's weights with the changes in them."""
        weights: Tensors = dict(self.model.state_dict())
        with torch.no_grad():
            for name in self.layers:
                change = self.parameters[f"{name}.lora_b"] @ self.parameters[f"{name}.lora_a"]
                weights[f"{name}.weight"] = weights[f"{name}.weight"] + SCALE * change
        return weights

    def load(self, tensors: Tensors) -> None:
        """Takes up what ``parameters`` held."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[name])

    def remove(self) -> None:
        """Lets the model compute by its own weights again; they are still the base's."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    @property
    def active(self) -> bool:
        """Whether the changes act."""
        return bool(self._hooks)
