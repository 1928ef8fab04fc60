"""Explorer: plays a map like a person at keyboard and mouse; one (keys, look) per tick from the current pose.

A tick is one video frame. Angles in degrees, yaw positive to the right, pitch positive up; lengths in map units.
Everything random comes from the generator it is given.

Does not know about engines, pictures or files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from controls.action import KEYS
from generator.data.engine import LOOK_STEP, Pose
from generator.data.navigation import Cell, Point, WalkGrid

PITCH_LOW, PITCH_HIGH = -20.0, 25.0
RUNNING = 0.25  # share of the time that the run key is held: walking is already 200 map units a second
CARELESS = 0.4  # share of clips by one who does not look where the walls are, as a player often does not
ROUNDING = 5  # half cells on either side that a corner of a path is averaged over
INDEX = {name: i for i, name in enumerate(KEYS)}
SECTORS = (
    ("forward",), ("forward", "right"), ("right",), ("backward", "right"),
    ("backward",), ("backward", "left"), ("left",), ("forward", "left"),
)  # fmt: skip
# what one does next: share of choices, shortest and longest duration in ticks
MOODS: dict[str, tuple[float, int, int]] = {
    "stroll": (0.42, 48, 140),
    "look": (0.14, 36, 84),
    "stand": (0.20, 24, 72),
    "strafe": (0.08, 16, 48),
    "back": (0.06, 16, 44),
    "spin": (0.05, 36, 84),
    "fidget": (0.07, 20, 56),
    "blunder": (0.0, 48, 160),
}
BLUNDERING = 0.9  # its share beside the others, for the careless


def wrap(angle: float) -> float:
    """The same angle in -180..180."""
    return (angle + 180.0) % 360.0 - 180.0


def bearing(a: Point, b: Point) -> float:
    """Yaw (right of east) from a to b."""
    return -math.degrees(math.atan2(b[1] - a[1], b[0] - a[0]))


class Hand:
    """A mouse hand: a critically damped turn toward an aim, held still inside a dead band, with smooth noise."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.quickness = float(rng.uniform(0.16, 0.34))
        self.top = float(rng.uniform(4.0, 9.0))
        self.tremor = float(rng.uniform(0.03, 0.22))
        self.rate = np.zeros(2)  # yaw, pitch in degrees per tick
        self.noise = np.zeros(2)
        self.aim = np.zeros(2)
        self.band = 4.0

    def set(self, yaw: float, pitch: float) -> None:
        """Rest at this view."""
        self.aim[:] = yaw, pitch
        self.rate[:] = 0

    def wish(self, yaw: float, pitch: float) -> None:
        """Want to look there: the aim follows only when it is off by more than the dead band (bursts, stillness)."""
        off = math.hypot(wrap(yaw - self.aim[0]), 1.5 * (pitch - self.aim[1]))
        if off > self.band:
            slip = self.rng.normal(0.0, 0.08 * min(off, 20.0) + 0.3, 2)
            self.aim[:] = yaw + slip[0], pitch + 0.4 * slip[1]
            self.band = float(self.rng.uniform(2.0, 10.0))

    def move(self, pose: Pose, pace: float = 1.0) -> tuple[float, float]:
        """Degrees (yaw, pitch) of this tick, in whole engine steps; `pace` slows or speeds the wrist."""
        error = np.array([wrap(self.aim[0] - pose.yaw), self.aim[1] - pose.pitch])
        w = self.quickness * pace
        self.rate += w * w * error - 2 * w * self.rate
        self.rate = np.clip(self.rate, -self.top * pace, self.top * pace)
        still = np.abs(self.rate).max() < 0.06 and abs(error[0]) < 0.8 and abs(error[1]) < 0.8
        self.noise += -0.25 * self.noise + self.rng.normal(0.0, self.tremor, 2)
        if still:
            self.set(pose.yaw, pose.pitch)
            return 0.0, 0.0
        busy = min(1.0, 0.15 + abs(self.rate[0]) / 2.0)
        yaw = self.rate[0] + busy * self.noise[0]
        pitch = self.rate[1] + 0.5 * busy * self.noise[1] + 0.02 * self.rate[0] * self.noise[1]
        pitch = min(max(pitch, PITCH_LOW - pose.pitch), PITCH_HIGH - pose.pitch)
        return round(yaw / LOOK_STEP) * LOOK_STEP, round(pitch / LOOK_STEP) * LOOK_STEP


@dataclass
class Plan:
    """A smoothed path (n, 2) of points and how far along it one is."""

    points: npt.NDArray[np.float64]
    at: int = 0

    @property
    def done(self) -> bool:
        """Whether its end is reached."""
        return self.at >= len(self.points) - 1


class Explorer:
    """Chooses moods (stroll, look, stand, strafe, back, spin, fidget) and turns them into keys and look.

    A `careless` one also blunders: walks straight on, into walls too, pushes a while and turns away.
    """

    def __init__(self, grid: WalkGrid, rng: np.random.Generator, use_doors: bool = False) -> None:
        self.grid, self.rng, self.use_doors = grid, rng, use_doors
        self.hand = Hand(rng)
        self.runs = bool(rng.random() < RUNNING)
        self.mood, self.left = "", 0
        self.plan: Plan | None = None
        self.gaze = 0.0  # degrees that the view is turned away from the way one walks
        self.tilt = 0.0  # the pitch one means to hold
        rng.integers(0, 60)  # a draw that nothing uses: without it a seed would no longer give the clip it always gave
        self.direction = 0.0
        self.turn = 0.0
        self.held: tuple[str, ...] = ()
        self.jump = 0
        self.careless = bool(rng.random() < CARELESS)
        self.patience = 0  # ticks that one still pushes against what is in the way
        self.trail: list[Point] = []

    def spawn(self) -> tuple[Point, float]:
        """A random roomy place of the map's main area and a yaw that faces open space."""
        places = self.grid.places
        cell: Cell = tuple(places[self.rng.integers(len(places))])
        here = self.grid.centre(cell)
        return here, self.open_yaw(here, 12)

    def open_yaw(self, here: Point, tries: int) -> float:
        """Of some random directions, one with a long view."""
        yaws = self.rng.uniform(0.0, 360.0, tries)
        views = self.view_length(here, yaws)
        return float(yaws[int(np.argmax(views * self.rng.uniform(0.6, 1.0, tries)))])

    def view_length(self, here: Point, yaws: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Free distance toward each yaw (n,), the least of three close rays."""
        fan = (yaws[:, None] + np.array([-14.0, 0.0, 14.0])).ravel()
        return self.grid.sight(np.tile(here, (len(fan), 1)), fan, 640.0).reshape(-1, 3).min(1)

    def tick(self, pose: Pose) -> tuple[npt.NDArray[np.uint8], tuple[float, float]]:
        """What to do from this pose: keys uint8 (K,), look (yaw, pitch) in degrees."""
        if not self.mood:
            self.hand.set(pose.yaw, pose.pitch)
        if self.left <= 0:
            self._choose(pose)
        self.left -= 1
        here = (pose.x, pose.y)
        self.trail = [*self.trail[-20:], here]
        names, pace = getattr(self, f"_{self.mood}")(pose, here)
        self._tilt()
        look = self.hand.move(pose, pace)
        keys = np.zeros(len(KEYS), np.uint8)
        keys[[INDEX[name] for name in names]] = 1
        if self.runs and names and self.mood != "back":
            keys[INDEX["run"]] = 1
        self._jump(keys, bool(names))
        return keys, look

    def _tilt(self) -> None:
        """Now and then another pitch to hold: mostly near level, one time in three a look up or down."""
        if self.rng.random() < 1 / 60:
            self.tilt = float(self.rng.uniform(-16, 20)) if self.rng.random() < 0.35 else float(self.rng.normal(0, 2.5))

    def _jump(self, keys: npt.NDArray[np.uint8], moving: bool) -> None:
        if self.jump == 0 and self.rng.random() < (1 / 170 if moving else 1 / 400):
            self.jump = int(self.rng.integers(2, 6))
        if self.jump > 0:
            self.jump -= 1
            keys[INDEX["jump"]] = 1

    def _choose(self, pose: Pose) -> None:
        names = list(MOODS)
        share = np.array([MOODS[name][0] for name in names])
        share[-1] = BLUNDERING if self.careless else 0.0
        if self.mood and self.mood != "stroll":
            share[1:] *= 0.6  # mostly walk on after doing something else
        mood = names[self.rng.choice(len(names), p=share / share.sum())]
        here = (pose.x, pose.y)
        facing = self.view_length(here, np.array([pose.yaw]))[0]
        if mood in ("stand", "strafe", "fidget") and facing < 160 and not self.careless:
            mood = "stroll"  # do not linger in front of a wall
        self.mood = mood
        self.left = int(self.rng.integers(MOODS[mood][1], MOODS[mood][2] + 1))
        self.held = ()
        if mood == "stroll":
            self.gaze = 0.0
            if self.plan is None or self.plan.done:
                self.plan = self._new_plan(pose)
            if self.rng.random() < 0.15:
                self.runs = bool(self.rng.random() < RUNNING)
        elif mood in ("look", "blunder"):
            self.direction, self.patience = pose.yaw, int(self.rng.integers(6, 50))
        elif mood == "stand":
            self.hand.set(pose.yaw, pose.pitch)
        elif mood == "spin":
            self.turn = float(self.rng.choice([-1, 1]) * self.rng.uniform(0.6, 3.0))
        elif mood == "strafe":
            self.held = (str(self.rng.choice(["left", "right"])),)
            self.turn = float(self.rng.choice([0.0, 0.0, self.rng.uniform(-2, 2)]))
        elif mood == "back":
            self.held = ("backward",)
            self.turn = float(self.rng.choice([0.0, self.rng.uniform(-1, 1)]))

    def _stand(self, pose: Pose, here: Point) -> tuple[tuple[str, ...], float]:
        self.hand.wish(self.hand.aim[0], self.hand.aim[1])
        return (), 0.7

    def _look(self, pose: Pose, here: Point) -> tuple[tuple[str, ...], float]:
        arrived = abs(wrap(self.direction - pose.yaw)) < 8
        if arrived and self.rng.random() < 0.12:
            options = pose.yaw + self.rng.choice([-1, 1], 4) * self.rng.uniform(20, 110, 4)
            views = self.view_length(here, options)
            self.direction = float(options[int(np.argmax(views * self.rng.uniform(0.5, 1, 4)))])
        self.hand.wish(self.direction, self.tilt)
        return (), 0.75

    def _spin(self, pose: Pose, here: Point) -> tuple[tuple[str, ...], float]:
        self.hand.aim[:] = (
            pose.yaw + 2 * self.turn / self.hand.quickness,
            0.3 * self.tilt,
        )
        return (), 1.0

    def _strafe(self, pose: Pose, here: Point) -> tuple[tuple[str, ...], float]:
        if self.turn:
            self.hand.aim[0] = pose.yaw + 2 * self.turn / self.hand.quickness
        if self._pinned(pose, self.held) and not self.careless:
            self.left = 0
        return self.held, 1.0

    def _back(self, pose: Pose, here: Point) -> tuple[tuple[str, ...], float]:
        return self._strafe(pose, here)

    def _fidget(self, pose: Pose, here: Point) -> tuple[tuple[str, ...], float]:
        """Keys and mouse of somebody trying the controls: any direction, short presses, turns of any size."""
        if self.rng.random() < 0.1:
            choice = int(self.rng.integers(-4, len(SECTORS)))
            self.held = SECTORS[choice] if choice >= 0 else ()
        if self._pinned(pose, self.held) and not self.careless:
            self.held = ()
        if self.rng.random() < 0.07:
            target = pose.yaw + self.rng.normal(0, 35)
            if self.view_length(here, np.array([target]))[0] > 128:
                self.hand.wish(target, self.tilt)
        return self.held, 1.0

    def _blunder(self, pose: Pose, here: Point) -> tuple[tuple[str, ...], float]:
        """Straight on with a wandering aim; after pushing against something for a while, turn well away from it."""
        self.direction += float(self.rng.normal(0.0, 1.2))
        if self._pinned(pose, SECTORS[0]):
            self.patience -= 1
            if self.patience <= 0:
                self.direction = pose.yaw + float(self.rng.choice([-1, 1]) * self.rng.uniform(40, 180))
                self.patience = int(self.rng.integers(6, 50))
                self.held = () if self.rng.random() < 0.4 else SECTORS[int(self.rng.choice([0, 0, 1, 7, 4]))]
        elif self.rng.random() < 0.05 or not self.held:
            self.held = SECTORS[int(self.rng.choice([0, 0, 0, 0, 1, 7]))]
        self.hand.wish(self.direction, self.tilt)
        return self.held, 1.0

    def _pinned(self, pose: Pose, names: tuple[str, ...]) -> bool:
        """Whether walking on in these directions meets a wall within 56 units."""
        if names not in SECTORS:
            return False
        yaw = math.radians(-(pose.yaw + 45.0 * SECTORS.index(names)))
        there = (pose.x + 56 * math.cos(yaw), pose.y + 56 * math.sin(yaw))
        return not self.grid.walkable_line((pose.x, pose.y), there)

    def _stroll(self, pose: Pose, here: Point) -> tuple[tuple[str, ...], float]:
        stuck = len(self.trail) > 20 and math.dist(self.trail[0], here) < 20 and bool(self.held)
        if self.plan is None or self.plan.done or stuck:
            self.plan, self.trail = self._new_plan(pose), []
            if self.plan is None:
                self.mood, self.left = "look", 24
                return (), 1.0
        target = self._ahead(here)
        way = bearing(here, target)
        if self.rng.random() < 1 / 70:
            self.gaze = float(self.rng.choice([-1, 1]) * self.rng.uniform(15, 75)) if not self.gaze else 0.0
        gaze = way + self.gaze
        if self.gaze and self.view_length(here, np.array([gaze]))[0] < 128:
            self.gaze, gaze = 0.0, way
        self.hand.wish(gaze, self.tilt)
        off = wrap(way - pose.yaw)
        names: tuple[str, ...] = SECTORS[round(off / 45.0) % 8] if self.gaze and abs(self.gaze) > 30 else SECTORS[0]
        if self._must_turn_first(off):
            names = ()
        self.held = names
        door = self.use_doors and self._door_ahead(here, target)
        return (*names, "use") if door and self.rng.random() < 0.3 else names, 1.0

    def _must_turn_first(self, off: float) -> bool:
        limit = 70.0 if self.held else 40.0
        return abs(off) > limit and not abs(self.gaze) > 30

    def _door_ahead(self, here: Point, target: Point) -> bool:
        if self.grid.doors is None:
            return False
        cells = (self.grid.cell_at(here[0] + f * (target[0] - here[0]), here[1] + f * (target[1] - here[1]))
                 for f in (0.25, 0.5, 0.75, 1.0))  # fmt: skip
        return any(self.grid.is_open(cell) and bool(self.grid.doors[cell]) for cell in cells)

    def _ahead(self, here: Point) -> Point:
        """The point of the plan to walk toward: up to seven cells on, as far as one can walk straight."""
        assert self.plan is not None
        points = self.plan.points
        window = points[self.plan.at : self.plan.at + 8]
        self.plan.at += int(np.argmin(np.hypot(window[:, 0] - here[0], window[:, 1] - here[1])))
        for reach in (14, 10, 7, 4, 2):
            target = points[min(self.plan.at + reach, len(points) - 1)]
            if self.grid.walkable_line(here, (target[0], target[1])):
                break
        return float(target[0]), float(target[1])

    def _new_plan(self, pose: Pose) -> Plan | None:
        """Plan to somewhere 8 to 60 cells away, of some choices the one that needs the least turning at first."""
        start = self.grid.nearest_open(pose.x, pose.y)
        if start is None:
            return None
        best: tuple[float, list[Cell]] | None = None
        places = self.grid.places
        for _ in range(12):
            goal: Cell = tuple(places[self.rng.integers(len(places))])
            if not 8 <= math.dist(start, goal) <= 60:
                continue
            path = self.grid.path(start, goal)
            if len(path) < 8:
                continue
            off = abs(wrap(bearing((pose.x, pose.y), self.grid.centre(path[5])) - pose.yaw))
            score = off + float(self.rng.uniform(0, 60))
            if best is None or score < best[0]:
                best = (score, path)
            if best[0] < 50:
                break
        if best is None:
            return None
        return Plan(smooth(np.array([self.grid.centre(cell) for cell in best[1]])))


def smooth(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A path (n, 2) at half-cell spacing with its corners rounded: (2n - 1, 2), same ends."""
    n = len(points)
    dense = np.stack(
        [np.interp(np.arange(2 * n - 1) / 2, np.arange(n), points[:, i]) for i in range(2)],
        1,
    )
    padded = np.pad(dense, ((ROUNDING, ROUNDING), (0, 0)), mode="edge")
    rounded = np.mean([padded[i : i + len(dense)] for i in range(2 * ROUNDING + 1)], axis=0)
    rounded[0], rounded[-1] = dense[0], dense[-1]
    return rounded
