"""Place: where one is in a world that is one place, as waves over its plan that a transformer can look things up by.

Shape key: n poses, H, W latent size, K channels. A pose is x, y in map units, yaw and pitch in degrees, and the eye's
height in map units (controls/camera.py); the pitch is read from each picture, or only from the first where a map is
shown; the others add up. Heights are those above the floor that recorded walks stood on: a jump ends there.
A place repeats: every `period` units along both axes and, like a chessboard, half of that along both at once when it is
`checkered`. Waves over the plan have the same value wherever the place is the same, and so say nothing of how often
one has walked through it. From a pose come channels for each latent cell: where one stands, which way each column
looks, and the waves at a few distances along it, so that a token knows what stands there before it has been seen; and,
where the place has a map (place_map.py), a coarse view of it.
Where a walk begins is read from its first picture by `Localiser`, whose estimate of each wave is its mean over all
poses that the picture might have: together they are the likelihood of every place (its characteristic function), whose
peak is taken. From then on the ego-motion adds up. Ours; AAPT section 4 gives camera origins as channels, which are
known there because the path is.

Does not know about keys, caches or where pictures come from.
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from generator.precision import in_full
from generator.tokenizer.body import CLIMB, NOWHERE, STEEPEST, Body, turned
from generator.tokenizer.devices import centres, constant
from generator.tokenizer.line_body import LineBody
from generator.tokenizer.place_map import BELOW, CELL, CHANNELS, VIEW, PlaceMap
from generator.tokenizer.place_search import HEADINGS, LOOKED, headings, look_up, unlikeness

AXES = (
    (1, 0),
    (0, 1),
    (1, 1),
    (1, -1),
    (2, 0),
    (0, 2),
    (2, 2),
    (2, -2),
    (4, 0),
    (0, 4),
    (8, 0),
    (0, 8),
    (16, 0),
    (0, 16),
)
CHECKERED = ((1, 1), (1, -1), (2, 0), (0, 2), (2, 2), (2, -2), (3, 1), (1, 3), (3, -1), (1, -3), (4, 0), (0, 4))
CHECKERED += ((8, 0), (0, 8), (16, 0), (0, 16))
COARSE = 12  # waves that are looked at along a column; the finer ones belong to where one stands
DISTANCES = (96.0, 256.0, 512.0, 960.0)  # map units along a column
POSE = 5  # x, y, yaw, pitch, height
REACH = 2  # cells about those that were stood on which close gaps between them; the last of them is no ground
SINK = 6.0  # map units a tick that an eye without lift falls
SLIDES = ((1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0))  # all of a step, along an axis, nothing
STEP = 16.0  # map units between the places that a picture's likelihood is first asked for
CLEAR, CLOSE = 24, 24.0  # directions in which the ego-motion is told of walls, and map units that are close
FINE = 4  # and that many parts of it afterwards


class Place(nn.Module):
    """The waves of a place of this period in map units, its map of some `levels` of height, if any, seen `lower` than
    pixels' middles, what finds one's pose in it from a picture, and with `keys` a body that they move (body.py), among
    so many `lines` where they are known (line_body.py).
    """

    def __init__(
        self,
        period: float,
        checkered: bool,
        levels: int = 0,
        keys: int = 0,
        lower: float = 0.0,
        below: float = BELOW,
        lines: int = 0,
    ) -> None:
        super().__init__()
        self.period, self.numbers = period, CHECKERED if checkered else AXES
        cells = math.ceil(period / CELL)
        self.register_buffer("ground", torch.ones(cells, cells))
        self.register_buffer("floor", torch.zeros(cells, cells))
        self.map = PlaceMap(period, levels, lower, below) if levels else None
        self.body: Body | None = None
        if self.map is not None and keys:
            self.body = LineBody(keys, self.map.cells, lines) if lines else Body(keys, self.map.cells)
        self.localiser = Localiser(2 * len(self.numbers) + 2 * len(HEADINGS))

    @property
    def features(self) -> int:
        """How many numbers `known` gives of a pose."""
        return CLEAR if self.map is not None else 2 * len(self.numbers) + 2

    def waves(self, plan: Tensor, count: int | None = None) -> Tensor:
        """Cosines and sines (..., 2 * waves) of plan positions (..., 2); float32 whatever the network's weights are."""
        x, y = (plan.float() * (2 * math.pi / self.period)).unbind(-1)
        across, along = constant(self.numbers[:count], plan.device).unbind(-1)
        phase = x[..., None] * across + y[..., None] * along
        return torch.cat([phase.cos(), phase.sin()], dim=-1)

    def known(self, pose: Tensor) -> Tensor:
        """A pose (n, 3 or more) as numbers (n, features) for the ego-motion: where walls are depends on it.

        With a map it is how near they are all around, from straight ahead to the right and on, which is the same by
        every wall; waves have to be learned by heart.
        """
        if self.map is not None:
            azimuth = pose[:, 2:3] + torch.arange(CLEAR, device=pose.device) * (360.0 / CLEAR)
            return torch.exp(-self.map.clearance(pose[:, :2], azimuth) / CLOSE)
        return torch.cat([self.waves(pose[:, :2]), headings(pose[:, 2], (1,))], dim=-1)

    def aim(self, pose: Tensor) -> Tensor:
        """What the localiser is to say of a picture taken at pose (n, 3 or more): (n, 2 * waves + 2 * headings)."""
        return torch.cat([self.waves(pose[:, :2]), headings(pose[:, 2])], dim=-1)

    def remember(self, plan: Tensor) -> None:
        """Take what recorded walks stood on, plan positions (n, 2), and what lies just beside it, for the ground.

        With the eye's height (n, 3), infinite unless it stands, also where the floor is: the lowest of each cell.
        """
        seen, lowest = torch.zeros_like(self.ground), torch.full_like(self.floor, math.inf)
        for same in plan.new_tensor(self.same):
            column, row = self._cells(plan[:, :2] + same)
            seen[row, column] = 1.0
            if plan.shape[1] > 2:
                number = row * len(lowest) + column
                lowest.view(-1).scatter_reduce_(0, number, plan[:, 2].to(lowest), "amin")
        if plan.shape[1] > 2 and len(known := plan[:, 2][plan[:, 2].isfinite()]):
            self._lay(lowest, known.median())
        wide = nnf.max_pool2d(nnf.pad(seen[None, None], (REACH,) * 4, mode="circular"), 2 * REACH + 1, 1)
        less = -nnf.max_pool2d(nnf.pad(-wide, (REACH - 1,) * 4, mode="circular"), 2 * REACH - 1, 1)
        self.ground.copy_(less[0, 0])

    def _lay(self, lowest: Tensor, usual: Tensor) -> None:
        """The floor from the lowest heights (cells, cells), infinite where nobody stood: that of the cells beside."""
        for _ in range(REACH):
            near = -nnf.max_pool2d(nnf.pad(-lowest[None, None], (1,) * 4, mode="circular"), 3, 1)[0, 0]
            lowest = torch.where(lowest.isfinite(), lowest, near)
        self.floor.copy_(torch.where(lowest.isfinite(), lowest, usual))
        if self.map is not None:
            self.map.eye.copy_(usual)

    def standing(self, plan: Tensor) -> Tensor:
        """The eye's height (...) of one who stands at plan positions (..., 2)."""
        column, row = self._cells(plan)
        return self.floor[row, column].float()

    def _cells(self, plan: Tensor) -> tuple[Tensor, Tensor]:
        """Columns and rows of the ground's cells that plan positions (..., 2) lie in."""
        column, row = (torch.remainder(plan, self.period) / CELL).long().clamp(0, len(self.ground) - 1).unbind(-1)
        return column, row

    def stands(self, plan: Tensor) -> Tensor:
        """bool (...): whether plan positions (..., 2) are on the ground that recorded walks know."""
        column, row = self._cells(plan)
        return self.ground[row, column] > 0.5

    def walkable(self, plan: Tensor) -> Tensor:
        """bool (...): whether one could walk at plan positions (..., 2), on known ground and clear of blocks, and about
        as high as walks mostly were.
        """
        known = self.stands(plan)
        if self.map is None:
            return known
        if self.body is not None:
            return self.body.standing(self, plan) <= torch.maximum(self.standing(plan), self.map.eye.float()) + CLIMB
        return known & (self.map.crowded(plan, self.standing(plan) - self.map.eye.float()) == 0)

    def advance(self, pose: Tensor, look: Tensor, moves: Tensor) -> tuple[Tensor, Tensor]:
        """The pose (n, 5), within a period, after look (n, ticks, 2) in degrees and moves (n, ticks, 3) in map units.

        And the moves that were made: a step off the known ground goes along its edge, or stays, so that errors of the
        ego-motion do not carry anybody through a wall; so does one into what is too high to step on, or nearer to the
        map's blocks than recorded walks came. Nobody sinks below the floor, and without lift one comes back to it.
        """
        plan, yaw, height, made = pose[:, :2].float(), pose[:, 2].float(), pose[:, 4].float(), []
        slides = constant(SLIDES, plan.device)
        for turn, move in zip(look[..., 0].to(plan).unbind(1), moves.to(plan).unbind(1), strict=True):
            yaw = yaw + turn
            cos, sin = torch.deg2rad(yaw).cos(), torch.deg2rad(yaw).sin()
            step = turned(move, cos, sin)
            free, step = ~self.stands(plan), step[:, None] * slides
            there = plan[:, None] + step
            low = self.standing(there) <= torch.maximum(height, self.standing(plan))[:, None] + CLIMB
            may = (low & (self.stands(there) | free[:, None]) & self._has_room(plan, there, height)).float()
            step = step[torch.arange(len(step), device=step.device), may.argmax(1)]
            plan = torch.remainder(plan + step, self.period)
            floor, lift = self.standing(plan), move[:, 2]
            lift = torch.where(lift == 0, (floor - height).clamp(-SINK, CLIMB), torch.maximum(lift, floor - height))
            height = height + lift
            made.append(torch.cat([turned(step, cos, sin), lift[:, None]], dim=-1))
        pitch = (pose[:, 3].float() + look[..., 1].to(plan).sum(1)).clamp(-STEEPEST, STEEPEST)
        after = torch.stack([*plan.unbind(-1), torch.remainder(yaw, 360.0), pitch, height], dim=-1)
        return after, torch.stack(made, dim=1)

    def _has_room(self, plan: Tensor, there: Tensor, height: Tensor) -> Tensor:
        """bool (n, m): whether a body with its eye at height (n,) has as much room at plan positions `there` (n, m, 2)
        as where it is (n, 2), so that whoever is in a wall can leave it.
        """
        if self.map is None:
            return torch.ones(there.shape[:2], dtype=torch.bool, device=there.device)
        rise = height[:, None] - self.map.eye.float()
        crowded = self.map.crowded(torch.cat([plan[:, None], there], dim=1), rise)
        return crowded[:, 1:] <= crowded[:, :1]

    def path(self, pose: Tensor, look: Tensor, moves: Tensor) -> Tensor:
        """The pose (n, ticks, 5) after each tick of look (n, ticks, 2) in degrees and of moves (n, ticks, 3) in map
        units that `advance` made.
        """
        turn = look.float().cumsum(1)
        yaw = pose[:, 2:3].float() + turn[..., 0]
        way = torch.deg2rad(yaw)
        plan = pose[:, None, :2].float() + turned(moves.float(), way.cos(), way.sin()).cumsum(1)
        pitch = (pose[:, 3:4].float() + turn[..., 1]).clamp(-STEEPEST, STEEPEST)
        height = pose[:, 4:].float() + moves[..., 2].float().cumsum(1)
        return torch.stack([*plan.unbind(-1), yaw, pitch, height], dim=-1)

    def channels(self, pose: Tensor, edge: float, stretch: float | Tensor, height: int, width: int) -> Tensor:
        """What each latent cell is told (n, K, H, W) of a camera at pose (n, 4 or 5) whose picture ends at slope
        `edge`, and is `stretch` times as tall as it should be.
        """
        across = centres(width, pose.device) * edge
        azimuth = pose[:, 2:3] + torch.rad2deg(across.atan())  # (n, W)
        way = torch.deg2rad(azimuth)
        direction = torch.stack([way.cos(), -way.sin()], dim=-1)  # (n, W, 2)
        columns = [self.waves(pose[:, :2])[:, None].expand(-1, width, -1), headings(azimuth)]
        there = pose[:, None, None, :2] + constant(DISTANCES, pose.device)[:, None] * direction[:, :, None]
        columns.append(self.waves(there, COARSE).flatten(2))  # (n, W, distances, waves)
        told = torch.cat(columns, dim=-1).transpose(1, 2)
        told = told[:, :, None].expand(-1, -1, height, -1)
        if self.map is None:
            return told
        view = self.map.view(pose, edge, stretch, VIEW * height, VIEW * width)
        return torch.cat([told, nnf.pixel_unshuffle(view, VIEW)], dim=1)

    def locate(self, picture: Tensor) -> Tensor:
        """The likeliest pose (n, 5), taken to be level and to stand, of pictures (n, 3, Y, X) in [-1, 1]."""
        said = self.localiser(picture.to(next(self.parameters()))).float()
        split = 2 * len(self.numbers)
        with in_full(said.device.type):
            where = self._peak(said[:, :split])
            turns = torch.arange(0, 360, 1.0, device=said.device)
            yaw = turns[(said[:, split:] @ headings(turns).T).argmax(1)]
        return self.stood(where, yaw, torch.zeros_like(yaw))

    def find(self, picture: Tensor, pitch: Tensor, edge: float, stretch: float | Tensor) -> Tensor:
        """As `locate` for pictures of a known pitch (n,) in degrees; with a map the pose (n, 5) whose view is most like
        the picture, near any of the places that it might show, on the floor or in a jump.
        """
        if self.map is None:
            found = self.locate(picture)
            return self.stood(found[:, :2], found[:, 2], pitch.to(found))
        return torch.cat([look_up(self, *one, edge, stretch) for one in zip(picture.split(1), pitch, strict=True)])

    def unlike(self, picture: Tensor, pose: Tensor, edge: float, stretch: float | Tensor) -> Tensor:
        """How far apart (n,) pictures (n, 3, Y, X) and the map's views from poses (n, 5) are, in levels of -1..1."""
        if self.map is None:
            return torch.zeros(len(pose), device=pose.device)
        return unlikeness(self, nnf.adaptive_avg_pool2d(picture.float(), LOOKED), pose, edge, stretch)

    def stood(self, plan: Tensor, yaw: Tensor, pitch: Tensor) -> Tensor:
        """Poses (n, 5) of one who stands at plan positions (n, 2), with yaw and pitch (n,) in degrees."""
        height = self.standing(plan)
        if isinstance(self.body, LineBody):  # it knows better, wherever one can be
            exact = self.body.standing(self, plan)
            height = torch.where(exact < NOWHERE, exact, height)
        return torch.stack([*plan.unbind(-1), torch.remainder(yaw, 360.0), pitch, height], dim=-1)

    def grid(self) -> Tensor:
        """Places (m, 2), STEP apart, of the ground that recorded walks know, and where one could stand, if anywhere."""
        line = torch.arange(STEP / 2, self.period, STEP, device=self.ground.device)
        plan = torch.cartesian_prod(line, line)
        plan = plan[self.stands(plan)]
        free = plan[self.walkable(plan)] if self.body is not None else plan
        return free if len(free) else plan

    def _peak(self, said: Tensor) -> Tensor:
        """Where on the plan the waves (n, 2 * waves) agree best: (n, 2)."""
        plan = self.grid()
        best = plan[(said @ self.waves(plan).T).argmax(1)]
        near = (torch.arange(-FINE, FINE + 1, device=said.device) * (STEP / FINE)).float()
        around = best[:, None] + torch.cartesian_prod(near, near)
        score = (self.waves(around) * said[:, None]).sum(-1)
        return around.gather(1, score.argmax(1)[:, None, None].expand(-1, 1, 2))[:, 0]

    def distances(self, found: Tensor, true: Tensor) -> dict[str, float]:
        """How far poses (n, 3 or more) lie from the true ones in map units and degrees, half and most of them."""
        away = self.away(found, true)
        turned = (torch.remainder(found[:, 2] - true[:, 2] + 180, 360) - 180).abs()
        return {
            "place_half": away.median().item(),
            "place_most": away.quantile(0.9).item(),
            "heading_half": turned.median().item(),
            "heading_most": turned.quantile(0.9).item(),
        }

    def away(self, found: Tensor, true: Tensor) -> Tensor:
        """How far (n,) in map units poses (n, 2 or more) lie from the true ones, wherever the place is the same."""
        return self.apart(found, true).norm(dim=-1)

    def apart(self, found: Tensor, true: Tensor) -> Tensor:
        """The shortest way (n, 2) in map units from true poses (n, 2 or more) to others, as the place repeats."""
        same = constant(tuple(map(tuple, self.same)), found.device, found.dtype)
        ways = found[:, None, :2] - true[:, None, :2] + same
        ways = torch.remainder(ways + self.period / 2, self.period) - self.period / 2
        return ways[torch.arange(len(ways), device=ways.device), ways.norm(dim=-1).argmin(1)]

    @property
    def same(self) -> list[list[float]]:
        """Steps that lead to the same place within a period."""
        half = self.period / 2
        return [[0.0, 0.0], [half, half]] if self.numbers is CHECKERED else [[0.0, 0.0]]


def place_channels(period: float, checkered: bool, levels: int = 0) -> int:
    """K of a place; 0 where there is none."""
    if not period:
        return 0
    waves = len(CHECKERED if checkered else AXES)
    return 2 * (waves + len(HEADINGS) + len(DISTANCES) * min(COARSE, waves)) + (CHANNELS if levels else 0)


class Localiser(nn.Module):
    """A small convolutional network: pictures (n, 3, Y, X) in [-1, 1] to their estimated waves (n, outputs)."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        widths, layers = (12, 32, 64, 96, 128), []
        for inputs, wide in itertools.pairwise(widths):
            layers += [nn.Conv2d(inputs, wide, 3, 2, 1), nn.GroupNorm(8, wide), nn.SiLU()]
        self.see = nn.Sequential(*layers)
        self.say = nn.Sequential(nn.Linear(widths[-1] * 40, 384), nn.SiLU(), nn.Linear(384, outputs))

    def forward(self, pictures: Tensor) -> Tensor:
        """See the class."""
        seen = self.see(nnf.pixel_unshuffle(pictures.contiguous(), 2))
        return self.say(nnf.adaptive_avg_pool2d(seen, (5, 8)).flatten(1))
