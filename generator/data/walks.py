"""Walks: fresh actions of the explorer, for rollouts that no recording leads; no engine runs.

The explorer of the collector (explorer.py) walks a hall drawn for the purpose, with a body of plain arithmetic: the
engine's friction and turning, walls that stop, floors that are followed. Nothing is looked at, so what the walk would
show does not matter; the keys and the mouse do, and come from the same moods and hand as the recorded ones.

Does not know about pictures, engines' processes or rollouts.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from controls.action import KEYS
from generator.data.engine import Pose
from generator.data.explorer import INDEX, PITCH_HIGH, PITCH_LOW, Explorer
from generator.data.halls.maps import draw_map, walk_grid
from generator.data.navigation import WalkGrid

FRICTION, ENGINE_RATE, FPS = 0.90625, 35.0, 24.0
WALK = 8.3  # map units a tick of video at a steady walk; running doubles it
CELL = 32
HALLS = 8  # different halls that walks take place in
WARM = 24  # ticks until the explorer has got going, as the collector lets it
Keys = npt.NDArray[np.uint8]
Look = npt.NDArray[np.float32]


@lru_cache(maxsize=HALLS)
def hall(number: int) -> WalkGrid:
    """The walk grid of a small hall, drawn once."""
    canvas = draw_map(0, number, "small")[0]
    free, floor = walk_grid(canvas)
    return WalkGrid(free, floor, CELL)


class Body:
    """Who walks: where, how fast; keys (K,) and look (yaw, pitch) move it as the engine would, on open cells only."""

    def __init__(self, grid: WalkGrid, x: float, y: float, yaw: float) -> None:
        self.grid, self.velocity = grid, np.zeros(2)
        self.pose = Pose(x, y, 0.0, yaw, 0.0)

    def step(self, keys: Keys, look: tuple[float, float]) -> None:
        """One tick of video."""
        held = {name: bool(keys[INDEX[name]]) for name in KEYS}
        yaw = (self.pose.yaw + look[0]) % 360.0
        pitch = min(max(self.pose.pitch + look[1], PITCH_LOW), PITCH_HIGH)
        ahead, right = (held[a] - held[b] for a, b in (("forward", "backward"), ("right", "left")))
        turn = math.radians(-yaw)  # yaw is measured to the right, map angles to the left
        push = np.array(
            [ahead * math.cos(turn) + right * math.sin(turn), ahead * math.sin(turn) - right * math.cos(turn)]
        )
        keep = FRICTION ** (ENGINE_RATE / FPS)
        self.velocity = keep * self.velocity + (1 - keep) * push * WALK * (2 if held["run"] else 1)
        x, y = self.pose.x, self.pose.y
        for axis in (0, 1):  # each by itself, so that one slides along a wall
            to = (x + self.velocity[0], y) if axis == 0 else (x, y + self.velocity[1])
            if self.grid.is_open(self.grid.cell_at(*to)):
                x, y = to
            else:
                self.velocity[axis] = 0.0
        self.pose = Pose(x, y, 0.0, yaw, pitch)


def fresh_walk(frames: int, rng: np.random.Generator) -> tuple[Keys, Look]:
    """Keys uint8 (T, K) and look float32 (T, 2) in degrees of `frames` ticks by a new explorer in some hall."""
    grid = hall(int(rng.integers(HALLS)))
    explorer = Explorer(grid, rng)
    place, yaw = explorer.spawn()
    body = Body(grid, *place, yaw)
    keys, look = np.zeros((frames, len(KEYS)), np.uint8), np.zeros((frames, 2), np.float32)
    for k in range(-WARM, frames):
        pressed, turned = explorer.tick(body.pose)
        body.step(pressed, turned)
        if k >= 0:
            keys[k], look[k] = pressed, turned
    return keys, look
