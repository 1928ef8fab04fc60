"""Drift: what becomes of free rollouts, stretch by stretch (AAPT section 5; its claim is about the one-minute mark).

Shape key: T video frames, Y, X video size, N pictures.
Rollouts start from the first pictures of some held-out clips and are played by each drive: `stroll` (a visitor's walk,
controls/replay.py, who turns at walls in a world that is one place: visitor.py), `idle` (nothing pressed) and `spin`
(2 degrees a tick). They are cut into stretches of 10 s, and each stretch, over all rollouts together, gives
`frechet_alexnet` or `fid`  the distance of its pictures to those of the split's other clips;
`sharpness`, `saturation`, `motion`  mean squared gradient of luma, mean chroma (largest channel minus smallest), mean
             absolute difference of successive pictures; each over that of the real pictures: 1 is as the truth.
`last_over_first` is the distance of the last stretch over that of the first. `drift.NAME.floor` is the distance of the
clips that the rollouts start from, `.ceiling` the same after the tokenizer: as many pictures as a stretch has where
clips are as long as a stretch. `drift.static` says that a drive which moves gave nearly a still: the known failure.

One stretch of one rollout is held at a time (a world's state is set aside meanwhile), so length costs no memory.
Idle play should score near 0 in motion, and spinning above 1.

Does not know how worlds generate or what the figures should be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from controls.action import Action, ActionSpec
from controls.errors import UserError
from controls.replay import ScriptedActions, built_in
from generator.checkpoint import Weights
from generator.data.clips import Dataset
from generator.data.latents import video_tensor
from generator.evaluation.frechet import BATCH, Features, Gaussian, PictureNetwork, Pixels, apart, fit
from generator.evaluation.quality import decoded
from generator.evaluation.visitor import Visitor
from generator.tokenizer.place import Place

DRIVES = ("stroll", "idle", "spin")
MOVING = ("stroll", "spin")
MEASURES = ("sharpness", "saturation", "motion")
STATIC = 0.1  # of real motion: less than this is a still
SHOWN = 12  # pictures of a rollout that are kept to be looked at
PIECE = 48  # video frames that the tokenizer is given at once
State = dict[str, npt.NDArray[Any]]
Say = Callable[[str], None]


class Walkable(Protocol):
    """What is measured: `generator.world.World`, or anything that plays like it."""

    spec: ActionSpec
    fps: float

    def reset(self, picture: Pixels, seed: int) -> Pixels:
        """Begin: (1, Y, X, 3)."""

    def step(self, action: Action) -> Pixels:
        """The video frames of one latent frame: (ticks, Y, X, 3)."""

    def save_state(self) -> State:
        """Everything that the next frames depend on."""

    def load_state(self, state: State) -> None:
        """Continue from `save_state`."""


@dataclass(frozen=True)
class Plan:
    """`frames` video frames of each of `rollouts` rollouts for each drive, in stretches of `seconds`."""

    frames: int = 1440
    rollouts: int = 8
    seconds: float = 10.0

    def cut(self, fps: float, ticks: int) -> tuple[int, int]:
        """How many stretches, and how many latent frames each; UserError when that is not two or more."""
        latents = max(1, round(self.seconds * fps / ticks))
        stretches = self.frames // (latents * ticks)
        if stretches < 2:
            raise UserError(
                f"--drift {self.frames} is shorter than two stretches of {self.seconds:g} s; "
                f"give {2 * latents * ticks} frames or more."
            )
        if self.rollouts < 1:
            raise UserError(f"--rollouts {self.rollouts} leaves nothing to measure; give 1 or more.")
        return stretches, latents


@dataclass
class Tally:
    """Sums over the pictures of a stretch; `every` latent frames one picture's features are kept."""

    network: PictureNetwork
    sums: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(len(MEASURES)))
    counts: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(len(MEASURES)))
    waiting: list[Pixels] = field(default_factory=list)
    features: list[Features] = field(default_factory=list)

    def add(self, frames: Pixels, before: Pixels, kept: bool) -> None:
        """Count the frames (T, Y, X, 3) that follow the picture `before` (Y, X, 3); `kept`: features of the last."""
        values = frames.astype(np.float32)
        luma = values @ np.array([0.299, 0.587, 0.114], np.float32)
        rise, slope = np.diff(luma, axis=1), np.diff(luma, axis=2)
        chain = np.concatenate([before[None], frames]).astype(np.int16)
        self.sums += (
            float(np.square(rise).mean() + np.square(slope).mean()) * len(frames),
            float((values.max(-1) - values.min(-1)).mean()) * len(frames),
            float(np.abs(np.diff(chain, axis=0)).mean()) * len(frames),
        )
        self.counts += len(frames)
        if kept:
            self.waiting.append(frames[-1].copy())
        if len(self.waiting) == BATCH:
            self._look()

    def means(self) -> npt.NDArray[np.float64]:
        """Sharpness, saturation and motion, each a mean over pictures."""
        return self.sums / np.maximum(self.counts, 1)

    def gaussian(self) -> Gaussian:
        """What the kept features were like."""
        self._look()
        return fit(np.concatenate(self.features))

    def _look(self) -> None:
        if self.waiting:
            self.features.append(self.network.features(np.stack(self.waiting)))
            self.waiting.clear()


@dataclass(frozen=True)
class Reference:
    """Real pictures: what distances and shares are taken of."""

    network: PictureNetwork
    likeness: Gaussian
    means: npt.NDArray[np.float64]

    def judge(self, tally: Tally) -> dict[str, float]:
        """The distance (under the network's name) and the shares of a stretch."""
        shares = tally.means() / np.maximum(self.means, 1e-9)
        return {
            self.network.name: apart(tally.gaussian(), self.likeness),
            **dict(zip(MEASURES, shares.tolist(), strict=True)),
        }


@dataclass(frozen=True)
class Drift:
    """The figures, flat; curves by drive and measure, one value a stretch; `shown`: by drive, seconds and pictures."""

    report: dict[str, Any]
    curves: dict[str, dict[str, list[float]]]
    shown: dict[str, list[tuple[float, Pixels]]]


def measure_drift(
    world: Walkable, weights: Weights, dataset: Dataset, split: str, network: PictureNetwork, plan: Plan, say: Say
) -> Drift:
    """Play and judge; UserError when the plan has fewer than two stretches."""
    ticks = world.spec.ticks
    stretches, latents = plan.cut(world.fps, ticks)
    starts, others = starting_clips(dataset, split, plan.rollouts)
    say("drift: the real clips")
    real = Tally(network)
    for index in others:
        watch(dataset.clip(index).frames(), ticks, real)
    reference = Reference(network, real.gaussian(), real.means())
    floor, ceiling = Tally(network), Tally(network)
    for index in starts:
        frames = dataset.clip(index).frames(0, min(dataset.entry(index)["frames"], 1 + latents * ticks))
        watch(frames, ticks, floor)
        watch(rebuilt(weights, frames), ticks, ceiling)
    first = [dataset.clip(index).frames(0, 1)[0] for index in starts]
    name = network.name
    report: dict[str, Any] = {
        "drift.frames": stretches * latents * ticks,
        "drift.stretch_seconds": latents * ticks / world.fps,
        "drift.rollouts": len(starts),
        "drift.measure": name,
        "drift.last_over_first": None,
        "drift.static": False,
    }
    curves, shown = {}, {}
    for drive in DRIVES:
        show = Show(stretches * latents, ticks / world.fps)
        place = weights.parallax.place if weights.parallax else None
        rows = play(world, first, drive, (stretches, latents), reference, show, say, place)
        curves[drive] = {key: [row[key] for row in rows] for key in rows[0]}
        shown[drive] = show.pictures
        report |= {f"drift.{drive}.{key}": values for key, values in curves[drive].items()}
        report[f"drift.{drive}.last_over_first"] = rows[-1][name] / max(rows[0][name], 1e-9)
    report["drift.last_over_first"] = report["drift.stroll.last_over_first"]
    report["drift.static"] = any(min(curves[drive]["motion"]) < STATIC for drive in MOVING)
    for end, tally in (("floor", floor), ("ceiling", ceiling)):
        report[f"drift.{name}.{end}"] = reference.judge(tally)[name]
    return Drift(report, curves, shown)


def starting_clips(dataset: Dataset, split: str, rollouts: int) -> tuple[list[int], list[int]]:
    """Clips that rollouts start from, spread over the split, and those that they are compared with: all the others.

    At most half of the clips start one; a clip that is alone does both.
    """
    clips = dataset.select(split)
    if not clips:
        raise UserError(f"The data set {str(dataset.folder)!r} has no clips in the split {split!r}; choose another.")
    count = min(rollouts, max(1, len(clips) // 2))
    starts = [clips[i * len(clips) // count] for i in range(count)]
    return starts, [index for index in clips if index not in starts] or starts


@dataclass
class Show:
    """Keeps pictures of a rollout at even distances; `latents` of it, each of `seconds`."""

    latents: int
    seconds: float
    pictures: list[tuple[float, Pixels]] = field(default_factory=list)

    def offer(self, k: int, picture: Pixels) -> None:
        """The last picture (Y, X, 3) of latent frame k; 0 is the first picture."""
        at = {round(i * self.latents / (SHOWN - 1)) for i in range(SHOWN)}
        if k in at:
            self.pictures.append((k * self.seconds, picture.copy()))


@dataclass
class Seat:
    """One rollout that waits for its turn: its world's state, its player and the last picture that it showed."""

    state: State
    player: ScriptedActions | Visitor
    last: Pixels


def play(
    world: Walkable,
    first: list[Pixels],
    drive: str,
    cut: tuple[int, int],
    reference: Reference,
    show: Show,
    say: Say,
    place: Place | None = None,
) -> list[dict[str, float]]:
    """One drive: every stretch judged over rollouts from all first pictures; the first rollout is shown."""
    seats, every = [], reference.network.every
    for seed, picture in enumerate(first):
        opened = world.reset(picture, seed)[-1].copy()
        player = (
            Visitor(world, place, world.spec, seed)
            if place and drive == "stroll"
            else built_in(drive, world.spec, seed)
        )
        seats.append(Seat(world.save_state(), player, opened))
    show.offer(0, seats[0].last)
    rows = []
    for stretch in range(cut[0]):
        tally = Tally(reference.network)
        for number, seat in enumerate(seats):
            world.load_state(seat.state)
            for k in range(1, cut[1] + 1):
                frames = world.step(seat.player.next())
                tally.add(frames, seat.last, kept=k % every == 0)
                seat.last = frames[-1].copy()
                if number == 0:
                    show.offer(stretch * cut[1] + k, seat.last)
            seat.state = world.save_state()
        rows.append(reference.judge(tally))
        distance = f"{reference.network.name} {rows[-1][reference.network.name]:.4g}"
        say(f"drift: {drive}, stretch {stretch + 1} of {cut[0]}, {distance}")
    return rows


def watch(frames: Pixels, ticks: int, tally: Tally) -> None:
    """Count a whole video (1 + n ticks, Y, X, 3) as `play` counts a rollout."""
    for k, start in enumerate(range(1, len(frames) - ticks + 1, ticks), start=1):
        tally.add(frames[start : start + ticks], frames[start - 1], kept=k % tally.network.every == 0)


@torch.inference_mode()
def rebuilt(weights: Weights, frames: Pixels) -> Pixels:
    """A video (1 + n ticks, Y, X, 3) through the tokenizer, some frames at a time, each piece after a real picture."""
    return np.concatenate(list(_pieces(weights, frames)))


def _pieces(weights: Weights, frames: Pixels) -> Iterator[Pixels]:
    ticks = weights.config.action_spec.ticks
    step = max(1, PIECE // ticks) * ticks
    for start in range(0, len(frames) - 1, step):
        piece = frames[start : start + step + 1]
        piece = piece[: 1 + (len(piece) - 1) // ticks * ticks]
        mean = weights.tokenizer.encode(video_tensor(piece)[None])[0]
        made = [pictures for pictures, _ in decoded(weights, weights.tokenizer.normalise(mean)[0])]
        yield np.concatenate(made)[min(1, start) :]
