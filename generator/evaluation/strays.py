"""Strays: how far rollouts through a world that is one place go from the walks that they follow.

Does not know about pictures, worlds or reports.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from generator.tokenizer.place import Place
from generator.tokenizer.reproject import Standing


@dataclass
class Strays:
    """How far rollouts are from where the recorded walks were, map units by name; `names` are to be told of."""

    names: tuple[str, ...]
    away: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, place: Place | None, here: Standing, there: npt.NDArray[np.float32]) -> None:
        """Compare a pose with a recorded one, where the world is one place."""
        if place is not None and here is not None:
            found = place.away(torch.tensor([here]), torch.from_numpy(there)[None].float())
            self.away.setdefault(name, []).append(float(found))

    def figures(self) -> dict[str, float | None]:
        """`NAME.away` and `NAME.away_half`, the mean and the median; null in other worlds."""
        found: dict[str, float | None] = {}
        for name in self.names:
            values = self.away.get(name)
            found[f"{name}.away"] = float(np.mean(values)) if values else None
            found[f"{name}.away_half"] = float(np.median(values)) if values else None
        return found
