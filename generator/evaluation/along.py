"""Along recorded poses: how good the pictures of a world that is one place are, wherever the rollout would have gone.

Shape key: T video frames, Y, X video size. A pose is x, y in map units, yaw and pitch in degrees, and the eye's height.
In a usual rollout errors of the pose add up, and pictures of a place that is a little elsewhere score as badly as
wrong ones. Here the world is set to the recorded pose before every latent frame; only pictures feed on pictures. Each
figure is a list, one number for each quarter of the time, over all clips together:
`along.psnr`, `along.lpips`  against the recorded pictures (dB of the pooled error; LPIPS of the last picture of each
             latent frame)
`along.sharpness`  mean absolute Laplacian of grey levels, over that of the recorded pictures: 1 is as sharp
`along.join`, `along.inside`  mean absolute second difference in time over the recorded one: of three successive
             pictures of two latent frames, and of one. Above 1 pictures flicker, far more in `join` when each latent
             frame goes its own way.
`.mean` of each is over the whole time. `along.clips` clips were played, `along.short` of the split
were shorter than `along.seconds` and left out.
A ratio is null where nothing was recorded to divide by.

Does not know how worlds generate or keep their pose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from controls.action import Action, ActionSpec
from controls.errors import UserError
from generator.data.clips import Dataset
from generator.data.latents import PLAN
from generator.evaluation.quality import Scores, sharpness

Pixels = npt.NDArray[np.uint8]
Pose = npt.NDArray[np.float32]
Double = npt.NDArray[np.float64]
Shown = list[tuple[float, Pixels, Pixels]]
PARTS, SHORTEST = 4, 2  # quarters of the time, and seconds that can be cut into them
RATIOS = ("sharpness", "join", "inside")
SHEETS, PICTURES = 3, 12  # clips that are shown, and pictures of each


class Posed(Protocol):
    """What is measured: `generator.world.World` of a world that is a place."""

    spec: ActionSpec
    fps: float

    def reset(self, picture: Pixels, seed: int) -> Pixels:
        """Begin: (1, Y, X, 3)."""

    def stand_at(self, pose: Pose) -> None:
        """Be at a pose (5,) from here on."""

    def step(self, action: Action) -> Pixels:
        """The video frames of one latent frame: (ticks, Y, X, 3)."""


@dataclass(frozen=True)
class Plan:
    """`seconds` of each of `clips` clips."""

    seconds: int = 4
    clips: int = 16

    def check(self) -> None:
        """UserError when there is nothing to measure."""
        if self.seconds < SHORTEST or self.clips < 1:
            raise UserError(
                f"--along {self.seconds} with {self.clips} clips is too short; give {SHORTEST} seconds or more "
                "and 1 clip or more."
            )

    def latents(self, fps: float, ticks: int) -> int:
        """Latent frames of each clip."""
        return round(self.seconds * fps / ticks)

    def choose(self, dataset: Dataset, split: str, fps: float, ticks: int) -> tuple[list[int], int]:
        """The first clips of a split that are long enough, and how many of it are not; UserError without any."""
        self.check()
        clips, frames = dataset.select(split), 1 + self.latents(fps, ticks) * ticks
        enough = [index for index in clips if dataset.entry(index)["frames"] >= frames]
        if not enough:
            longest = max((dataset.entry(index)["frames"] - 1 for index in clips), default=0) / fps
            raise UserError(
                f"No clip of the split {split!r} lasts {self.seconds} s (the longest {longest:.3g} s); "
                "give --along fewer seconds, or --split another one."
            )
        return enough[: self.clips], len(clips) - len(enough)


@dataclass
class AlongFigures:
    """The report, and of the first clips by number (seconds, generated picture, recorded one)."""

    report: dict[str, Any]
    shown: dict[int, Shown]


@dataclass
class Tally:
    """Sums over the pictures of each quarter, generated and recorded."""

    sums: Double = field(default_factory=lambda: np.zeros((PARTS, len(RATIOS), 2)))

    def add(self, part: int, made: Pixels, real: Pixels, past: list[Pixels]) -> None:
        """Count a latent frame (T, Y, X, 3); `past` holds the two pictures before it of either, or is empty."""
        for side, pictures in enumerate((made, real)):
            chain = np.concatenate([past[side], pictures]) if past else pictures
            bends, joins = second_differences(chain), 2 if past else 0
            of = (sharpness(pictures).sum(), bends[:joins].sum(), bends[joins:].sum())
            self.sums[part, :, side] += of

    def ratios(self) -> dict[str, Any]:
        """Every ratio by quarter and over the whole time."""
        found: dict[str, Any] = {}
        for number, name in enumerate(RATIOS):
            found[name] = [_over(*pair) for pair in self.sums[:, number]]
            found[f"{name}.mean"] = _over(*self.sums[:, number].sum(0))
        return found


def second_differences(pictures: Pixels) -> Double:
    """Of each three successive pictures (T, Y, X, 3) how far the middle one is from where the others say, doubled:
    mean absolute levels of 255, (T - 2,).
    """
    levels = pictures.astype(np.int16)
    bends: Double = np.abs(levels[2:] - 2 * levels[1:-1] + levels[:-2]).mean((1, 2, 3))
    return bends


def measure_along(
    world: Posed, dataset: Dataset, split: str, scores: Scores, plan: Plan, say: Callable[[str], None]
) -> AlongFigures:
    """Play and compare; `scores` holds the network. UserError when the plan is too short, or every clip is."""
    ticks, latents = world.spec.ticks, plan.latents(world.fps, world.spec.ticks)
    clips, short = plan.choose(dataset, split, world.fps, ticks)
    if short:
        say(f"along: clips shorter than {plan.seconds} s are left out: {short} of the split {split!r}")
    tally, shown = Tally(), {}
    every = max(1, latents // PICTURES)
    for seed, index in enumerate(clips):
        clip, past, kept = dataset.clip(index), [], []
        world.reset(clip.frames(0, 1)[0], seed)
        for k in range(latents):
            rows = slice(1 + k * ticks, 1 + (k + 1) * ticks)
            world.stand_at(clip.pose[k * ticks, PLAN])
            made = world.step(Action(clip.keys[rows], clip.look[rows]))
            real = clip.frames(rows.start, ticks)
            part = PARTS * k // latents
            scores.add(f"part {part}", made, real, every=False)
            tally.add(part, made, real, past)
            past = [made[-2:].copy(), real[-2:]]
            if seed < SHEETS and (k + 1) % every == 0:
                kept.append(((k + 1) * ticks / world.fps, made[-1].copy(), real[-1]))
        if kept:
            shown[index] = kept
        say(f"along: clip {seed + 1} of {len(clips)}")
    report = {"seconds": plan.seconds, "clips": len(clips), "short": short} | _means(scores) | tally.ratios()
    return AlongFigures({f"along.{name}": value for name, value in report.items()}, shown)


def _means(scores: Scores) -> dict[str, Any]:
    """PSNR and LPIPS by quarter and over the whole time."""
    parts = [f"part {part}" for part in range(PARTS)]
    for values in (scores.errors, scores.distances):
        values["whole"] = [value for part in parts for value in values.get(part, [])]
    means, found = scores.means(), dict[str, Any]()
    for name in ("psnr", "lpips"):
        found[name] = [means.get(f"{part}.{name}") for part in parts]
        found[f"{name}.mean"] = means[f"whole.{name}"]
    return found


def _over(made: float, real: float) -> float | None:
    return float(made / real) if real else None
