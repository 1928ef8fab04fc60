"""What a session plays with: ticks in, frames out, and a generator between them.

Does not know about pacing, windows, devices or processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from app.protocol import Frames, Reply
from controls.action import Action

Pixels = npt.NDArray[np.uint8]
Row = tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]  # keys (K,), look (2,) of one tick


class TickSource(Protocol):
    """Where ticks come from: an input sampler or a script."""

    def tick(self) -> Row: ...


class Generator(Protocol):
    """What a session needs of the generator process."""

    epoch: int

    @property
    def pid(self) -> int | None: ...
    @property
    def light(self) -> bool: ...
    @property
    def can_step(self) -> bool: ...
    def reset(self, picture: Pixels, seed: int) -> None: ...
    def load_state(self, path: Path) -> None: ...
    def rewind(self, index: int) -> None: ...
    def step(self, index: int, action: Action) -> None: ...
    def take(self, reply: Frames) -> Pixels | None: ...
    def poll(self) -> list[Reply]: ...


@dataclass(frozen=True)
class VideoFrame:
    """One frame uint8 (Y, X, 3), its number since the reset, and when the tick that led to it began.

    `tick_began` is None for a frame that is not newly generated. `looked` is the session's whole look up to its tick,
    yaw and pitch in degrees; None: nothing is known to be missing in it.
    """

    number: int
    pixels: Pixels
    tick_began: float | None
    looked: tuple[float, float] | None = None
