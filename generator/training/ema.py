"""Exponential moving average of a model's weights: what is evaluated, kept and shipped.

Does not know which model it follows, or when snapshots are due.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Ema:
    """Average of every parameter (buffers are copied as they are); early on it forgets faster, as it knows little."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self.averaged = [name for name, _ in model.named_parameters()]

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards the model's present weights."""
        self.updates += 1
        decay = min(self.decay, self.updates / (self.updates + 9))
        parameters = dict(model.named_parameters())
        mine = [self.weights[name] for name in self.averaged]
        theirs = [parameters[name].detach().to(self.weights[name].dtype) for name in self.averaged]
        torch._foreach_lerp_(mine, theirs, 1 - decay)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Put the averaged weights into a model of the same shape."""
        parameters = dict(model.named_parameters())
        for name in self.averaged:
            parameters[name].copy_(self.weights[name])

    def state(self) -> dict[str, Tensor | int]:
        """What a resume needs: the count and every average."""
        return {
            "updates": self.updates,
            **{f"w.{name}": self.weights[name] for name in self.averaged},
        }

    @torch.no_grad()
    def load(self, state: dict[str, Tensor | int]) -> None:
        """Continue from `state()`."""
        self.updates = int(state["updates"])
        for name in self.averaged:
            kept = state[f"w.{name}"]
            assert isinstance(kept, Tensor), name
            self.weights[name].copy_(kept)
