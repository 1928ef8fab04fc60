"""Places: whether a long walk through a world that is one place still shows that place.

Shape key: N recorded pictures, Y, X video size. A pose is x, y in map units and yaw in degrees.
A rollout that goes where no recording went has no truth to be held to, but in a place it has one wherever some
recording looked from nearly the same spot the same way. Visitors (visitor.py) walk from the first
pictures of held-out clips; every few moments what they see is compared with the nearest recorded picture, and with
another one taken at random:
`place.lpips`, `place.other`  the mean distance of each stretch of 10 s to either (LPIPS)
`place.found`  the share of moments at which a picture was recorded near enough
`place.near`   the LPIPS of two such recorded pictures: what the distance between two poses costs by itself

Does not know how worlds generate or keep their pose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from controls.action import Action, ActionSpec
from controls.errors import UserError
from generator.data.clips import Dataset
from generator.evaluation.drift import starting_clips
from generator.evaluation.quality import Scores
from generator.evaluation.visitor import Visitor
from generator.tokenizer.place import Place

Pixels = npt.NDArray[np.uint8]
Double = npt.NDArray[np.float64]
CLOSE, TURNED, RAISED = 24.0, 4.0, 4.0  # map units, degrees of yaw, map units of height: farther is another view
LEVEL = 6.0  # degrees of pitch up to which a recorded view counts as level, as these walks look
EVERY, STRETCH = 2.0, 10.0  # seconds between two moments, seconds of a stretch
TELLS = 1000.0  # what a view that is not level, or from another height, costs in map units


class Placed(Protocol):
    """What is measured: `generator.world.World` of a world that is a place."""

    spec: ActionSpec
    fps: float

    @property
    def pose(self) -> tuple[float, float, float] | None:
        """Where one is."""

    def reset(self, picture: Pixels, seed: int) -> Pixels:
        """Begin: (1, Y, X, 3)."""

    def step(self, action: Action) -> Pixels:
        """The video frames of one latent frame: (ticks, Y, X, 3)."""


@dataclass(frozen=True)
class Plan:
    """`rollouts` walks of `seconds` each."""

    seconds: int = 60
    rollouts: int = 4

    def check(self) -> None:
        """UserError when there is nothing to measure."""
        if self.seconds < STRETCH or self.rollouts < 1:
            raise UserError(
                f"--place {self.seconds} with {self.rollouts} rollouts is too short; give {STRETCH:g} seconds or more "
                "and 1 rollout or more."
            )


class Recorded:
    """Every recorded picture of a data set by its pose in a place."""

    def __init__(self, dataset: Dataset, place: Place) -> None:
        self.dataset, self.place = dataset, place
        poses, places = [], []
        for index in range(len(dataset.meta["clips"])):
            pose = dataset.clip(index).pose.astype(np.float64)
            poses.append(pose)
            places.append(np.stack([np.full(len(pose), index), np.arange(len(pose))], axis=1))
        self.poses, self.places = np.concatenate(poses), np.concatenate(places)
        self.height = float(np.median(self.poses[:, 2]))

    def nearest(self, pose: tuple[float, float, float], without: int = -1) -> int | None:
        """The number of the picture nearest to a pose, in no clip `without`; None where none is near enough."""
        away, turned = self.apart(pose)
        odd = (np.abs(self.poses[:, 4]) > LEVEL) | (np.abs(self.poses[:, 2] - self.height) > RAISED)
        cost = away + turned * (CLOSE / TURNED) + TELLS * (odd | (self.places[:, 0] == without))
        best = int(cost.argmin())
        return best if cost[best] < TELLS and away[best] <= CLOSE and turned[best] <= TURNED else None

    def apart(self, pose: tuple[float, float, float]) -> tuple[Double, Double]:
        """How far each picture was taken from a pose: map units and degrees, both (N,)."""
        period, away = self.place.period, np.full(len(self.poses), np.inf)
        for step in self.place.same:
            offset = self.poses[:, :2] - np.asarray(pose[:2]) + step
            away = np.minimum(away, np.hypot(*(np.mod(offset + period / 2, period) - period / 2).T))
        return away, np.abs(np.mod(self.poses[:, 3] - pose[2] + 180.0, 360.0) - 180.0)

    def picture(self, number: int) -> Pixels:
        """A picture (Y, X, 3)."""
        index, frame = (int(v) for v in self.places[number])
        return self.dataset.clip(index).frames(frame, 1)[0]


@dataclass
class PlaceFigures:
    """The report, and for the first walk (seconds, generated picture, nearest recorded one)."""

    report: dict[str, Any]
    shown: list[tuple[float, Pixels, Pixels]]


def measure_place(
    world: Placed, place: Place, dataset: Dataset, split: str, scores: Scores, plan: Plan, say: Callable[[str], None]
) -> PlaceFigures:
    """Walk and compare; `scores` holds the network. UserError when the plan is too short."""
    plan.check()
    recorded, rng = Recorded(dataset, place), np.random.default_rng(0)
    starts, _ = starting_clips(dataset, split, plan.rollouts)
    latents, every = round(plan.seconds * world.fps / world.spec.ticks), round(EVERY * world.fps / world.spec.ticks)
    shown: list[tuple[float, Pixels, Pixels]] = []
    moments = 0
    for seed, index in enumerate(starts):
        world.reset(dataset.clip(index).frames(0, 1)[0], seed)
        player = Visitor(world, place, world.spec, seed)
        for k in range(1, latents + 1):
            made = world.step(player.next())[-1:]
            if k % every:
                continue
            moments += 1
            assert world.pose is not None, "a world that is a place has a pose"
            if (number := recorded.nearest(world.pose)) is None:
                continue
            real, seconds = recorded.picture(number)[None], k * world.spec.ticks / world.fps
            bucket = min(int((seconds - 1e-6) / STRETCH), int(plan.seconds / STRETCH) - 1)
            scores.add(f"here {bucket}", made, real)
            scores.add(f"other {bucket}", made, recorded.picture(int(rng.integers(len(recorded.poses))))[None])
            beside = recorded.nearest(_pose(recorded.poses[number]), int(recorded.places[number, 0]))
            if beside is not None:
                scores.add("near", recorded.picture(beside)[None], real)
            if seed == 0:
                shown.append((seconds, made[0].copy(), real[0]))
        say(f"place: walk {seed + 1} of {len(starts)}")
    buckets = range(int(plan.seconds / STRETCH))
    means = {name: float(np.mean(values)) for name, values in scores.distances.items()}
    compared = sum(len(values) for name, values in scores.distances.items() if name.startswith("here"))
    report = {
        "place.seconds": plan.seconds,
        "place.rollouts": len(starts),
        "place.found": compared / moments,
        "place.lpips": [means.get(f"here {bucket}") for bucket in buckets],
        "place.other": [means.get(f"other {bucket}") for bucket in buckets],
        "place.near": means.get("near"),
    }
    return PlaceFigures(report, shown)


def _pose(row: Double) -> tuple[float, float, float]:
    return float(row[0]), float(row[1]), float(row[3])
