"""Buffers of a module that hold however much was kept, and none at all where a state is older than they are.

Does not know what they hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn


def sized_for(module: nn.Module, state_dict: Mapping[str, Any], prefix: str, names: Sequence[str]) -> dict[str, Any]:
    """The state with empty buffers for those of `names` that it lacks; the module's get the sizes that it has."""
    given = {name: state_dict.get(prefix + name, getattr(module, name)[:0]) for name in names}
    for name, value in given.items():
        setattr(module, name, getattr(module, name).new_zeros(value.shape))
    return {**state_dict, **{prefix + name: value for name, value in given.items()}}
