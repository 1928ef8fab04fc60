"""Pictures with their true nearness, for worlds whose maps are known (our own, and still maps): the depth need then not
be guessed from motion, nor the ground from where somebody stood.

Shape key: B batch, Y, X picture size, h, w nearness grid.

Does not know of networks, optimisers or runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from controls.errors import UserError
from generator.data.clips import Dataset
from generator.data.halls.canvas import Canvas
from generator.data.halls.depth import exact_nearness, nearness, ray_slopes
from generator.data.halls.maps import draw_map
from generator.data.still_map import BARRED, STILL, Ground, Linedefs, still_ground, still_lines
from generator.tokenizer.place_map import CELL, FINEST
from generator.training.helpers import step_rng
from generator.training.windows import to_video

TALL = 56  # map units that a body needs above the floor
RAYS, EVERY = (64, 40), 20  # that ask what pictures of a still map show, and of which pictures
PERIODS = 128  # map units that periods of still maps are whole numbers of


@dataclass(frozen=True)
class KnownDepth:
    """Pictures uint8 (n, Y, X, 3), nearness (n, h, w) in 1 / map units, pitch (n,) in degrees."""

    pictures: np.ndarray
    nearness: np.ndarray
    pitch: np.ndarray

    def draw(self, count: int, unit: float, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Random ones, half of them mirrored: (B, 3, Y, X) in [-1, 1], (B, 1, h, w) in 1 / units, (B,) in radians."""
        chosen = rng.choice(len(self.pictures), min(count, len(self.pictures)), replace=False)
        flipped = rng.random(len(chosen)) < 0.5
        shown, near = self.pictures[chosen], self.nearness[chosen] * unit
        shown[flipped], near[flipped] = shown[flipped, :, ::-1], near[flipped, :, ::-1]
        return (
            to_video(shown),
            torch.from_numpy(near)[:, None].float(),
            torch.from_numpy(np.deg2rad(self.pitch[chosen])),
        )


def is_known(meta: Mapping[str, Any]) -> bool:
    """Whether the maps are known that a data set of this `meta` was recorded in."""
    return meta["world"] == "halls" or meta.get("size") == STILL


class TrueDepth:
    """How near everything is in pictures of *Halls* or of a still map, from the map; UserError for other worlds, once
    it is asked.

    `without` is the setting that does without it; `exact` finds just where rays end.
    """

    def __init__(self, data: Dataset, without: str = "known=0", exact: bool = False) -> None:
        self.data, self.without, self.find = data, without, exact_nearness if exact else nearness
        self._maps: dict[str, Canvas] = {}

    def canvas(self, index: int) -> Canvas | Ground:
        """The map that a clip was recorded in."""
        entry, meta = self.data.entry(index), self.data.meta
        if not is_known(meta):
            raise UserError(
                f"True depth is known in clips of halls and still maps only, not of {meta['world']!r}; "
                f"give --set {self.without}."
            )
        if meta["world"] != "halls":
            return still_ground(self.data.folder / f"{entry['map']}.wad", entry["map"])
        if entry["map"] not in self._maps:
            canvas, _, info = draw_map(meta["seed"], int(entry["map"][3:]) - 1, meta.get("size", "grand"))
            if info.seed != entry["map_seed"]:
                raise UserError(
                    f"The map {entry['map']} is drawn otherwise by now; collect again, or --set {self.without}."
                )
            self._maps[entry["map"]] = canvas
        return self._maps[entry["map"]]

    def __call__(self, index: int, pose: npt.NDArray[np.float32], rays: tuple[int, int]) -> npt.NDArray[np.float32]:
        """1 / distance (n, h, w) in map units along rays (w, h) from poses (n, 5) in a clip."""
        return self.find(self.canvas(index), pose, self.data.meta["hfov"], self.data.size, rays)


def known_ground(data: Dataset, period: float, cells: int) -> npt.NDArray[np.float64]:
    """How high the floor is in a place of this period, of so many cells a side, map units (cells, cells): as it is
    nearest to where training clips were recorded. Infinite where nobody fits, NaN where there is no map.
    """
    canvas, at, inside = _nearest(data, period, cells, "ground=false")
    fits = ~canvas.solid[at] & (canvas.ceil[at] - canvas.floor[at] >= TALL) & ~canvas.barred[at]
    return np.where(inside, np.where(fits, canvas.floor[at].astype(np.float64), np.inf), np.nan)


def line_count(data: Dataset) -> int:
    """How many lines the still map has that a data set was recorded in."""
    return len(_lines(data).ends)


def _lines(data: Dataset) -> Linedefs:
    entry = data.entry(data.select("train")[0])
    return still_lines(data.folder / f"{entry['map']}.wad", entry["map"])


@dataclass(frozen=True)
class KnownLines:
    """The lines of a still map, floors and ceilings (C, C) int16 of the place that was recorded in it (BARRED and none
    where nobody fits), and where in the map the place's period begins (2,), map units.
    """

    lines: Linedefs
    floor: npt.NDArray[np.int16]
    ceiling: npt.NDArray[np.int16]
    window: npt.NDArray[np.float64]


def known_lines(data: Dataset, period: float, cells: int) -> KnownLines:
    """What holds a body in a place of this period, of so many cells a side, that is a still map."""
    middle = np.mean(shown_room(data), axis=0)[:2]
    window = FINEST * np.round((middle - period / 2) / FINEST)
    ground = TrueDepth(data).canvas(data.select("train")[0])
    at, fits = _cells(ground, *(begin + (np.arange(cells) + 0.5) * FINEST for begin in window))
    fits &= ~ground.solid[at] & (ground.ceil[at] - ground.floor[at] >= TALL)
    floor, ceiling = (np.where(fits, part[at], BARRED).astype(np.int16) for part in (ground.floor, ground.ceil))
    return KnownLines(_lines(data), floor, ceiling, window)


def known_solids(
    data: Dataset, period: float, cells: int, heights: npt.NDArray[np.floating]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """What is solid and what is air in such a place at these heights (L,) in map units: (cells, cells, L) each, neither
    where there is no map, nor in still maps above a ceiling of sky, beyond which nothing is drawn.
    """
    canvas, at, inside = _nearest(data, period, cells, "mend=false")
    floor, ceiling, sky, solid = (part[at][..., None] for part in (canvas.floor, canvas.ceil, canvas.sky, canvas.solid))
    filled = solid | (heights < floor) | ((heights > ceiling) & ~sky)
    beyond = sky & (heights > ceiling) & (data.meta["world"] != "halls")
    return filled & inside[..., None], ~filled & ~beyond & inside[..., None]


def _nearest(
    data: Dataset, period: float, cells: int, without: str
) -> tuple[Canvas | Ground, tuple[npt.NDArray[np.int64], ...], npt.NDArray[np.bool_]]:
    """The map of a place, which of its cells (cells, cells) is nearest to where training clips were recorded (of still
    maps, to the middle of what they show) for each of the place's, and which of those the map has.
    """
    clips = data.select("train")
    canvas = TrueDepth(data, without).canvas(clips[0])
    if data.meta["world"] == "halls":
        middles = np.median(np.concatenate([data.clip(index).pose[:, :2] for index in clips]), axis=0)
    else:
        middles = np.mean(shown_room(data), axis=0)[:2]
    own = (np.arange(cells) + 0.5) * FINEST
    x, y = (own + period * np.round((middle - own) / period) for middle in middles)
    return canvas, *_cells(canvas, x, y)


def _cells(
    canvas: Canvas | Ground, x: npt.NDArray[np.floating], y: npt.NDArray[np.floating]
) -> tuple[tuple[npt.NDArray[np.int64], ...], npt.NDArray[np.bool_]]:
    """Which cells of a map lie at these x (c,) and y (r,), an index of (r, c), and which of those it has (r, c)."""
    column, row = (
        np.floor((v - begin) / canvas.sub).astype(np.int64) for v, begin in zip((x, y), canvas.origin, strict=True)
    )
    rows, columns = canvas.shape
    inside = ((row >= 0) & (row < rows))[:, None] & ((column >= 0) & (column < columns))
    return np.ix_(row.clip(0, rows - 1), column.clip(0, columns - 1)), inside


def shown_room(data: Dataset) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The least and greatest x, y and height (3,) in map units of what training clips of a still map show."""
    return _shown_room(data.folder.resolve())


@cache
def _shown_room(folder: Path) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """It takes seconds, and sizes, mending and lines all ask for it."""
    data = Dataset.open(folder)
    true_depth, least, most = TrueDepth(data, "period=0", exact=True), np.full(3, np.inf), np.full(3, -np.inf)
    across, down = ray_slopes(data.meta["hfov"], data.size, RAYS)
    for index in data.select("train"):
        pose = data.clip(index).pose[::EVERY].astype(np.float64)
        near = true_depth(index, pose.astype(np.float32), RAYS)
        angle, ground = np.deg2rad(-pose[:, 3, None, None]), true_depth.canvas(index)
        far = np.divide(1.0, near, out=np.full(near.shape, np.nan), where=near > 0)
        x = pose[:, 0, None, None] + far * (np.cos(angle) + across * np.sin(angle))
        y = pose[:, 1, None, None] + far * (np.sin(angle) - across * np.cos(angle))
        z = pose[:, 2, None, None] + far * (np.tan(np.deg2rad(pose[:, 4, None, None])) - down[:, None])
        points = np.stack([x, y, z], axis=-1)
        begin = np.array(ground.origin)
        end = begin + ground.sub * np.array(ground.shape[::-1])
        within = ((points[..., :2] >= begin) & (points[..., :2] <= end)).all(-1)
        if within.any():
            least, most = np.minimum(least, points[within].min(0)), np.maximum(most, points[within].max(0))
    return least, most


def still_sizes(data: Dataset, eye: float) -> tuple[float, int, float]:
    """Period in map units, levels and `below` of a place that is a still map, recorded mostly at that height of the
    eye: as large as what is shown, with a little room.
    """
    least, most = shown_room(data)
    period = math.ceil(((most - least)[:2].max() + 2 * FINEST) / PERIODS) * PERIODS
    bottom = math.floor(least[2] / FINEST - 1) * FINEST
    return float(period), math.ceil((most[2] + 2 * FINEST - bottom) / CELL), eye - bottom


def know_depth(data: Dataset, split: str, count: int, seed: int) -> KnownDepth:
    """About `count` random pictures of a split, as many of each clip; UserError where the map is not known."""
    clips, true_depth = data.select(split), TrueDepth(data)
    if not clips:
        raise UserError(f"The recordings have no clips in the split {split!r}; collect more, or give --set known=0.")
    pictures, near, pitch = [], [], []
    for index in clips[:count]:
        clip = data.clip(index)
        rng = step_rng(seed, index, f"known {split}")
        chosen = rng.choice(len(clip), min(len(clip), max(1, count // len(clips))), replace=False)
        pictures += [clip.frames(int(frame), 1)[0] for frame in chosen]
        width, height = data.size
        near.append(true_depth(index, clip.pose[chosen], (width // 4, height // 4)))
        pitch.append(clip.pose[chosen, 4])
    return KnownDepth(np.stack(pictures), np.concatenate(near), np.concatenate(pitch).astype(np.float32))
