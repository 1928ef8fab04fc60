"""What a body learns from recorded walks, all at once and without steps: a place's relief, and how keys carry one.

Shape key: T ticks, N ticks of all walks, K keys, F keys and pairs of them, C cells a side.
The relief is the highest of the map's blocks that could be in a body's way, corrected by where recorded bodies were:
nothing can stand higher than the ground under whoever stands there. Speeds follow from poses, so what is kept of them
and what keys add to it are least squares; ticks in which a wall had a say do not fit and are left out, in rounds.

Does not know of pictures or networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as nnf
from torch import Tensor

from generator.data.clips import Dataset
from generator.tokenizer.body import HIGHEST, RADIUS, TOUCH, UNKNOWN, WEARY, Body, both, turned
from generator.tokenizer.line_body import LineBody
from generator.tokenizer.place import Place
from generator.tokenizer.place_map import FINEST, PlaceMap
from generator.training.known_depth import KnownLines, is_known, known_ground, known_lines

if TYPE_CHECKING:
    from generator.training.parallax import ParallaxRun

HEAD = 10.0  # map units above the eye up to which blocks are in a body's way
ALIKE = 4.0  # map units by which a block's top may differ from the ground that it is
HOLE = 16  # cells
ABOVE = 40.0  # map units that a relief goes on above the highest floor: who stands there cannot step on what ends it
ROUNDS, FIT, MOST = 12, 0.03, 0.95  # of leaving out; map units a tick that always fit; the share that fits at first
CLEAR = 1.0  # map units from walls at which nothing has stopped a body: it ends a 32nd of its step short of them
RIDGE = 1e-3  # what was never seen is taken to be as it was
SEEN = 20  # ticks with a key on the ground that tell whether it lifts
LEVEL = 0.1  # map units: who rises or falls by more in a tick does not stand


def stood_on(pose: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """x, y and height (T, 3) of a recorded path (T, 5); infinite heights where it rose or fell."""
    walked = pose[:, :3].copy()
    still = np.abs(np.diff(walked[:, 2])) < LEVEL
    walked[~(np.r_[False, still] & np.r_[still, False]), 2] = np.inf
    return walked


@dataclass(frozen=True)
class Walked:
    """One recorded walk: keys (T, K) that led to poses (T, 5) of x, y, height, yaw and pitch."""

    keys: npt.NDArray[np.uint8]
    pose: npt.NDArray[np.float32]


def walks_of(data: Dataset, split: str) -> list[Walked]:
    """All recorded walks of a split."""
    return [Walked(clip.keys, clip.pose) for clip in map(data.clip, data.select(split))]


def find_body(run: ParallaxRun, place: Place) -> dict[str, float]:
    """Find the place's body from all training walks of a run, and of the true ground where that is known."""
    assert place.body is not None
    known, cells = run.config.ground and is_known(run.data.meta), len(place.body.relief)
    if isinstance(place.body, LineBody):
        return learn_body(place, walks_of(run.data, "train"), known_lines(run.data, place.period, cells))
    ground = known_ground(run.data, place.period, cells) if known else None
    return learn_body(place, walks_of(run.data, "train"), ground)


@torch.no_grad()
def learn_body(
    place: Place, walks: Sequence[Walked], ground: npt.NDArray[np.floating] | KnownLines | None = None
) -> dict[str, float]:
    """Find the relief (of `ground` (C, C), or lines, if they are known) and all numbers of a place's body; returns how
    many map units a tick are off where nothing stops it, and how often nothing does.
    """
    body = place.body
    assert body is not None, "only a place with a map has a body"
    if isinstance(body, LineBody):
        assert isinstance(ground, KnownLines), "lines are known, not found"
        lay_lines(body, walks, ground)
    elif ground is None:
        lay(body, place, walks)
    else:
        assert not isinstance(ground, KnownLines), "only a body among lines is held to them"
        lay_known(body, place, walks, ground)
    ticks = [_ticks(body, place, walk) for walk in walks if len(walk.pose) > 3]
    speed, before, keys, flies, flown, flew, rise, rises, fresh, clear = (
        torch.cat(part) for part in zip(*ticks, strict=True)
    )
    free = _fit_speed(body, speed, before, both(keys), (flies, flew, clear))
    _fit_height(body, keys, (flies, flown, fresh), rise, rises)
    kept = body.carry.cpu()[flew.long()][:, None] * before
    pushed = body.pushes(keys.to(body.push.device)).cpu()[torch.arange(len(keys)), flies.long()]
    off = (kept + pushed - speed).norm(dim=-1)
    return {"body_off": off[free].mean().item(), "body_free": free.float().mean().item()}


def lay(body: Body, place: Place, walks: Sequence[Walked]) -> None:
    """The relief, and how high the eye is above what one stands on, from the map's blocks and the walks."""
    assert place.map is not None
    stood = _stood(walks)
    tops = tops_in_the_way(place.map).cpu().numpy()
    eye = float(place.map.eye)
    side, column, row = len(tops), *_cells(stood[:, :2], len(tops))
    under = tops[row, column]
    height = stood[:, 2] - eye + place.map.below  # of the eye, above the map's lowest level
    seen = under > 0
    stature = float(np.median(height[seen] - under[seen])) if seen.any() else 0.0
    most = np.full((side, side), np.inf)
    lower = height - stature
    for same in place.same:
        first, last = (_covered(stood[:, :2] + np.array(same), way) for way in (-1, 1))
        for right in range(int(2 * RADIUS / FINEST) + 1):
            for up in range(int(2 * RADIUS / FINEST) + 1):
                x, y = first[:, 0] + right, first[:, 1] + up
                within = (x <= last[:, 0]) & (y <= last[:, 1])
                np.minimum.at(most, (y[within] % side, x[within] % side), lower[within])
    relief = np.where(tops > 0, tops, float(UNKNOWN))
    stands = np.isfinite(most)
    relief = np.where(stands & (relief > most - ALIKE), np.minimum(most, np.maximum(relief, most)), relief)
    relief = filled(np.where(relief < UNKNOWN, relief.clip(0, HIGHEST), UNKNOWN))
    _set(body, relief, stature)


def lay_known(body: Body, place: Place, walks: Sequence[Walked], ground: npt.NDArray[np.floating]) -> None:
    """The same from the true heights of the ground (C, C): infinite where nobody fits, NaN where nothing is known."""
    assert place.map is not None
    stood = _stood(walks)
    column, row = _cells(stood[:, :2], len(ground))
    stature = float(np.nanmedian(stood[:, 2] - ground[row, column]))
    bottom = float(place.map.eye) - place.map.below
    stands = float(stood[:, 2].max()) - stature - bottom  # the highest floor that anybody stood on
    low = FINEST * np.ceil(max(0.0, stands + ABOVE - HIGHEST) / FINEST)
    heights = (ground - bottom - low).clip(0, HIGHEST)
    relief = np.where(np.isnan(ground), float(UNKNOWN), heights)
    _set(body, relief, stature, low)


def lay_lines(body: LineBody, walks: Sequence[Walked], known: KnownLines) -> None:
    """What holds a body to known lines, and how high the eye is above what one stands on."""
    lines = known.lines
    parts = {"ends": lines.ends, "bottom": lines.bottom, "top": lines.top, "single": lines.single}
    parts |= {"relief": known.floor, "ceiling": known.ceiling, "window": known.window, "blocks": np.array(lines.blocks)}
    for name, part in parts.items():
        buffer = getattr(body, name)
        buffer.copy_(torch.from_numpy(part).to(buffer))
    body.changed()
    stood, side = _stood(walks), len(known.floor)
    column, row = _cells(np.mod(stood[:, :2] - known.window, side * FINEST), side)
    body.stature.fill_(float(np.median(stood[:, 2] - known.floor[row, column])))


def _stood(walks: Sequence[Walked]) -> npt.NDArray[np.floating]:
    """x, y and the eye's height (n, 3) wherever somebody stood."""
    stood = np.concatenate([stood_on(walk.pose) for walk in walks])
    return np.asarray(stood[np.isfinite(stood[:, 2])])


def _set(body: Body, relief: npt.NDArray[np.floating], stature: float, low: float = 0.0) -> None:
    """The body has this relief (C, C), which begins that `low`, and stature."""
    body.low.fill_(low)
    body.relief.copy_(torch.from_numpy(np.rint(relief).astype(np.uint8)))
    body.stature.fill_(stature)
    body.changed()


def filled(relief: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """A relief (C, C) where each UNKNOWN cell within HOLE cells of others is as the lowest beside it: what is inside of
    walls stays high, what was hidden behind something becomes ground.
    """
    for _ in range(HOLE):
        beside = np.min([np.roll(relief, way, axis) for axis in (0, 1) for way in (-1, 1)], axis=0)
        relief = np.where(relief < UNKNOWN, relief, beside)
    return relief


def tops_in_the_way(place_map: PlaceMap) -> Tensor:
    """How high above the map's lowest level the highest block of each column is that could be in a body's way, map
    units (C, C): 0 where there is none, HIGHEST where it is as high as a head, and so goes on above it.
    """
    levels = min(place_map.heights, int((place_map.below + HEAD) / FINEST) + 1)
    codes: Tensor = place_map._buffers["codes0"]  # type: ignore[assignment]
    solid = codes.view(place_map.cells, place_map.cells, -1)[..., 1 : 1 + levels] > 0
    highest = (solid * torch.arange(1, levels + 1, device=solid.device)).amax(-1)
    return torch.where(highest == levels, float(HIGHEST), highest * FINEST)


def _cells(plan: npt.NDArray[np.floating], side: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Columns and rows of the relief that plan positions (n, 2) lie in."""
    column, row = (np.floor(plan / FINEST).astype(np.int64) % side).T
    return column, row


def _covered(plan: npt.NDArray[np.floating], way: int) -> npt.NDArray[np.int64]:
    """The first (way -1) or last (1) cells (n, 2) that bodies at plan positions (n, 2) cover as good as wholly."""
    edge = (plan + way * (RADIUS + TOUCH)) / FINEST
    return np.asarray(np.ceil(edge) if way < 0 else np.floor(edge) - 1, np.int64)


def _ticks(body: Body, place: Place, walk: Walked) -> tuple[Tensor, ...]:
    """Of each tick of a walk but the ends: speed and the speed before it, forward and right of the new heading (N, 2),
    keys (N, K), whether it flies, the one before did and it ended in the air, bool (N,), how much the eye rises in it
    and in the next (N,), whether it has not for as long as a body is weary, and whether nothing can have stopped it,
    as far as that is known: bool (N,).
    """
    pose = torch.from_numpy(walk.pose.astype(np.float64))
    steps, rises = pose[1:, :2] - pose[:-1, :2], (pose[1:, 2] - pose[:-1, 2]).float()
    way = torch.deg2rad(pose[2:-1, 3])
    speed, before = (turned(v, way.cos(), way.sin()).float() for v in (steps[1:-1], steps[:-2]))
    floors = body.standing(place, pose[:-2, :2].float().to(body.relief.device)).cpu()
    flying = pose[1:-1, 2].float() > floors + TOUCH  # a body is where its camera will be a tick later
    height, floor = pose[1:-2, 2].float(), floors[1:]
    keys = torch.from_numpy(walk.keys[2:-1].astype(np.float32))
    lately = nnf.max_pool1d(nnf.pad(rises[None, 1:-1], (WEARY, 0)), WEARY + 1, 1)[0]
    flies, flown, flew = flying[1:], flying[:-1], height > floor + TOUCH
    clear = torch.ones(len(speed) + 1, dtype=torch.bool)
    if isinstance(body, LineBody):
        plan, feet = (part.to(body.relief.device) for part in (pose[1:-1, :2], pose[1:-1, 2] - body.stature.cpu()))
        clear = body.fits(place, plan, feet, RADIUS + CLEAR).cpu()
    return speed, before, keys, flies, flown, flew, rises[1:-1], rises[2:], lately < LEVEL, clear[1:] & clear[:-1]


def _fit_speed(body: Body, speed: Tensor, before: Tensor, keys: Tensor, told: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Find `carry` and `push` from ticks of which is told whether they fly, whether the one before ended in the air,
    and whether they are clear of walls; returns bool (N,): which ticks fit, where nothing stopped the body.
    """
    flies, flew, clear = told
    kept = torch.stack([before * ~flew[:, None], before * flew[:, None]], dim=-1)  # (N, 2, 2)
    given = torch.cat([keys * ~flies[:, None], keys * flies[:, None]], dim=-1)  # (N, 2 F)
    nothing = torch.zeros_like(given)
    forward = torch.cat([kept[:, 0], given, nothing], dim=-1)
    right = torch.cat([kept[:, 1], nothing, given], dim=-1)
    prior = torch.zeros(forward.shape[1])
    prior[:2] = body.carry.cpu()
    free = clear if clear.any() else torch.ones_like(clear)
    for number in range(ROUNDS):
        rows, aims = torch.cat([forward[free], right[free]]), torch.cat([speed[free, 0], speed[free, 1]])
        found = _ridge(rows, aims, prior)
        off = torch.stack([forward @ found - speed[:, 0], right @ found - speed[:, 1]], dim=-1).norm(dim=-1)
        free = (off <= _within(off, number)) & (clear | (number == ROUNDS - 1))
    push = found[2:].view(2, 2, -1).transpose(0, 1)  # by way, then by whether it flies
    body.carry.copy_(found[:2])
    body.push.copy_(push.flatten())
    return free


def _fit_height(body: Body, keys: Tensor, told: tuple[Tensor, Tensor, Tensor], rise: Tensor, rises: Tensor) -> None:
    """Find `lift` and `fall` from ticks of which is told whether they fly, did before, and have not risen lately."""
    flies, flown, fresh = told
    for number in range(body.keys):
        held = ~flies & fresh & (keys[:, number] > 0)
        often = rises[held].median().item() if int(held.sum()) >= SEEN else 0.0
        body.lift[number] = often if often > LEVEL else 0.0
    for number, before in enumerate((~flown, flown)):
        rows, prior = torch.stack([rise, torch.ones_like(rise)], dim=-1), body.fall[2 * number : 2 * number + 2].cpu()
        fits = flies & before
        weight = torch.ones(int(fits.sum()), dtype=torch.float64)
        for _ in range(ROUNDS if len(weight) > 2 else 0):  # least absolute errors: landings are few, and far off
            found = _ridge(rows[fits] * weight[:, None], rises[fits] * weight, prior)
            weight = (rows[fits] @ found - rises[fits]).abs().clamp(min=FIT**2).rsqrt().double()
            body.fall[2 * number : 2 * number + 2] = found


def _within(off: Tensor, number: int) -> float:
    """How far what fits may be off (n,) in round `number`: half as far in each, or what the better half needs."""
    widest = off.sort().values[int(MOST * (len(off) - 1))].item()
    return max(FIT, 2 * off.median().item(), widest * 0.5**number)


def _ridge(rows: Tensor, aims: Tensor, prior: Tensor) -> Tensor:
    """Least squares of rows (n, m) to aims (n,), drawn a little to a prior (m,)."""
    rows, aims, prior = rows.double(), aims.double(), prior.double()
    square = rows.T @ rows + RIDGE * torch.eye(rows.shape[1], dtype=torch.float64)
    return (prior + torch.linalg.solve(square, rows.T @ (aims - rows @ prior))).float()
