"""Pictures with their true nearness, for worlds whose maps are our own: the depth need then not be guessed from motion,
nor the ground from where somebody stood.

Shape key: B batch, Y, X picture size, h, w nearness grid.

Does not know of networks, optimisers or runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from controls.errors import UserError
from generator.data.clips import Dataset
from generator.data.halls.canvas import SUB, Canvas
from generator.data.halls.depth import exact_nearness, nearness
from generator.data.halls.maps import draw_map
from generator.tokenizer.place_map import FINEST
from generator.training.helpers import step_rng
from generator.training.windows import to_video

TALL = 56  # map units that a body needs above the floor


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


class TrueDepth:
    """How near everything is in pictures of *Halls*, from its maps; UserError for other worlds, once it is asked.

    `without` is the setting that does without it; `exact` finds just where rays end.
    """

    def __init__(self, data: Dataset, without: str = "known=0", exact: bool = False) -> None:
        self.data, self.without, self.find = data, without, exact_nearness if exact else nearness
        self._maps: dict[str, Canvas] = {}

    def canvas(self, index: int) -> Canvas:
        """The map that a clip was recorded in."""
        entry, meta = self.data.entry(index), self.data.meta
        if meta["world"] != "halls":
            raise UserError(
                f"True depth is known in clips of halls only, not of {meta['world']!r}; give --set {self.without}."
            )
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
    fits = ~canvas.solid[at] & (canvas.ceil[at] - canvas.floor[at] >= TALL)
    return np.where(inside, np.where(fits, canvas.floor[at].astype(np.float64), np.inf), np.nan)


def known_solids(
    data: Dataset, period: float, cells: int, heights: npt.NDArray[np.floating]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """What is solid and what is air in such a place at these heights (L,) in map units: (cells, cells, L) each, neither
    where there is no map.
    """
    canvas, at, inside = _nearest(data, period, cells, "mend=false")
    floor, ceiling, sky, solid = (part[at][..., None] for part in (canvas.floor, canvas.ceil, canvas.sky, canvas.solid))
    filled = solid | (heights < floor) | ((heights > ceiling) & ~sky)
    return filled & inside[..., None], ~filled & inside[..., None]


def _nearest(
    data: Dataset, period: float, cells: int, without: str
) -> tuple[Canvas, tuple[npt.NDArray[np.int64], ...], npt.NDArray[np.bool_]]:
    """The map of a place, which of its cells (cells, cells) is nearest to where training clips were recorded for each
    of the place's, and which of those the map has.
    """
    clips = data.select("train")
    canvas = TrueDepth(data, without).canvas(clips[0])
    walked = np.concatenate([data.clip(index).pose[:, :2] for index in clips])
    own = (np.arange(cells) + 0.5) * FINEST
    x, y = (own + period * np.round((middle - own) / period) for middle in np.median(walked, axis=0))
    column, row = (np.floor(v / SUB).astype(np.int64) for v in (x, y))
    rows, columns = canvas.shape
    inside = ((row >= 0) & (row < rows))[:, None] & ((column >= 0) & (column < columns))
    return canvas, np.ix_(row.clip(0, rows - 1), column.clip(0, columns - 1)), inside


def know_depth(data: Dataset, split: str, count: int, seed: int) -> KnownDepth:
    """About `count` random pictures of a split of *Halls*, as many of each clip; UserError for other worlds."""
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
