"""`run.py evaluate`: a world's figures on held-out clips, as one flat table with dotted names.

Shape key: T video frames, Y, X video size, F latent frames.
`tokenizer`  every picture of the real clip, encoded and decoded (LPIPS: the last picture of each latent frame).
`next`       each latent frame generated from its true past, decoded after true latents (LPIPS as above).
`rollout_1s`, `rollout_4s`  the pictures of latent frames 6 and 24 of a free rollout from the clip's first frame
             alone under its own actions (in worlds that are one place it also stands where the recorded walk did
             before its first two latent frames, which tells how fast it is); null when the clips are shorter. There
             `.away` and `.away_half` are how far it then is from the recorded walk, mean and median, in map units.
`halves`     pictures of one half of the split against those of the other half: what knowing nothing scores, the floor.
`baseline.repeat`, `baseline.shift`  the last known picture again, or turned by the commanded look, for the same three.
Every `psnr` is that of the mean squared error over all pictures of all clips, so that stills, which the baselines get
perfect, do not lift it; every `lpips` is a mean over pictures.
`frechet_alexnet` (frechet.py; `fid` instead, fid.py, when asked for) is the distance to pictures of as many other
clips of the split: `.next` and `.rollout` of the last picture of each latent frame, `.ceiling` of the same after the
tokenizer alone and `.floor` of the real ones; null when the split has no other clips.
`control`    measured against commanded motion in the rollouts; `control.real` the same of the real clips (control.py).
`motion_energy.ratio`  mean absolute difference of successive pictures, rollout over real: 1 is as lively as the truth;
             `.static` when it is hardly anything.
`fvd.16`, `fvd.32` on demand: see video_distance.py; `fvd.few` says that a hand held fewer windows than FVD should have.
`drift`, `place` and `along` on demand: see drift.py, place_walks.py and along.py. Of several splits the first has these
names, those of the others begin with theirs, as in `held_map.next.psnr`; what is on demand here is of the first alone.

Does not know what the figures should be.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from controls.errors import UserError
from generator.checkpoint import Weights
from generator.data.clips import Clip, Dataset
from generator.data.latents import PLAN
from generator.evaluation import along, place_walks
from generator.evaluation.control import Walk, measure_control
from generator.evaluation.drift import STATIC, Drift, Plan, measure_drift
from generator.evaluation.film_memory import FilmMemory
from generator.evaluation.frechet import AlexNet, PictureNetwork, Stills
from generator.evaluation.fvd import I3D, LENGTHS
from generator.evaluation.motion import View
from generator.evaluation.quality import (
    Pixels,
    Scores,
    decoded,
    next_latents,
    prepare,
    repeated,
    shifted,
)
from generator.evaluation.sheets import Sheet, along_sheet, clip_sheet, drift_sheet, place_sheet
from generator.evaluation.strays import Strays
from generator.evaluation.video_distance import deal, fvd_figures
from generator.evaluation.walker import Walker, led, open_walker
from generator.tokenizer.place import Place
from generator.tokenizer.reproject import Standing
from generator.training.perceptual import Lpips
from generator.world import World

HORIZONS = {"rollout_1s": 6, "rollout_4s": 24}  # latent frames; 24 is as far as a rollout goes here
FAMILIES = ("tokenizer", "next", *HORIZONS)
ENOUGH = 256  # windows of a hand that FVD should have
SHEETS = 3  # clips that are shown


@dataclass(frozen=True)
class Settings:
    """What is measured and how much of it: `fvd` over at most `windows` windows of `fvd_frames` each, where what I3D
    sees of real video is kept in the folder `keep` for the next time; `drift` video frames (0: none),
    `place` seconds of each walk through a world that is one place, `along` of each rollout along recorded poses in one
    (0: none).

    `split` may be several with commas, the first of which has the plain names. `nfe` calls make a latent frame: more
    than one are the many-step teacher on its learned times, or on uniform ones (World's backend is torch then).
    """

    clips: int = 16
    split: str = "held_seed"
    fvd: bool = False
    fvd_frames: Sequence[int] = LENGTHS
    windows: int = 256
    keep: Path | None = None
    fid: bool = False
    drift: int = 0
    rollouts: int = 8
    place: int = 0
    along: int = 0
    backend: str = "auto"
    threads: int = 0
    nfe: int = 1

    @property
    def lengths(self) -> Sequence[int]:
        """Frames of the windows that FVD is of."""
        return self.fvd_frames if self.fvd else ()

    def check(self) -> None:
        """UserError on numbers that mean nothing."""
        if min(self.clips - 1, self.drift, self.threads) < 0:
            raise UserError("--clips is 1 or more, --drift and --threads are 0 or more; check the numbers.")
        if not self.fvd_frames or not set(self.fvd_frames) <= set(LENGTHS):
            given = " ".join(map(str, self.fvd_frames)) or "nothing"
            raise UserError(f"--fvd-frames {given} is not of {LENGTHS[0]} and {LENGTHS[1]}; give one of them or both.")


@dataclass(frozen=True)
class Evaluation:
    """The flat report, the drift (None when not asked for) and what there is to see."""

    report: dict[str, Any]
    drift: Drift | None
    sheets: list[Sheet]


@dataclass(frozen=True)
class Stretch:
    """The part of a clip that is judged, from its first frame: frames (T, Y, X, 3) and its rows."""

    clip: Clip
    frames: Pixels
    ticks: int

    @property
    def driven(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
        """Its keys (T, K) and look (T, 2)."""
        return self.clip.keys[: len(self.frames)], self.clip.look[: len(self.frames)]

    @property
    def stood(self) -> npt.NDArray[np.float32]:
        """Its poses (T, 5), as worlds that are one place take them."""
        return self.clip.pose[: len(self.frames), PLAN]

    @property
    def walk(self) -> Walk:
        """The real video as `control` reads it."""
        return self.driving(self.frames)

    def driving(self, frames: Pixels) -> Walk:
        """Other pictures under this stretch's actions; pitch is the first pose's and then the commanded one."""
        count = len(frames)
        look = self.clip.look[:count]
        pitch = self.clip.pose[0, 4] + np.cumsum(look[:, 1].astype(np.float64))
        return Walk(frames, self.clip.keys[:count], look, pitch)


def quiet(text: str) -> None:
    """Says nothing."""


def evaluate(
    weights: Path, data: Path, settings: Settings | None = None, say: Callable[[str], None] = quiet
) -> Evaluation:
    """Measure weights on a split of a data set; `say` is told how far it is.

    UserError when weights and data do not fit, when there is too little data, or without a package that is needed.
    """
    began, settings = time.perf_counter(), settings or Settings()
    settings.check()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    walker, dataset = open_walker(Path(weights), settings.nfe), Dataset.open(data)
    loaded = walker.weights
    _check(loaded, dataset)
    config, splits = loaded.config, clips_of(dataset, settings.split)
    lpips = Lpips("alexnet")
    network = _picture_network(lpips, settings.fid)
    windows = {
        split: [deal(dataset, clips, length, settings.windows) for length in settings.lengths]
        for split, clips in splits.items()
    }
    i3d, memory = I3D() if settings.fvd else None, FilmMemory(settings.keep)
    plan, first = Plan(settings.drift, settings.rollouts), next(iter(splits))
    walks = place_walks.Plan(settings.place, min(settings.rollouts, 4))
    poses = along.Plan(settings.along, settings.clips)
    place = _place_of(loaded, walks) if settings.place else None
    if settings.along and _place_of(loaded, poses):
        poses.choose(dataset, first, config.fps, config.action_spec.ticks)
    if settings.drift:
        plan.cut(config.fps, config.action_spec.ticks)
    if settings.drift or place or settings.along:
        world = World(Path(weights), settings.backend, settings.threads or torch.get_num_threads(), settings.nfe)
    report: dict[str, Any] = {}
    sheets: list[Sheet] = []
    for split, clips in splits.items():
        found, shown = clip_figures(walker, dataset, clips, settings, Scores(lpips), network, say)
        for dealt in windows[split]:
            assert i3d is not None
            found |= fvd_figures(walker, dataset, dealt, i3d, say, memory)
        if settings.fvd:
            found["fvd.few"] = min(found[f"fvd.{length}.windows"] for length in settings.lengths) < ENOUGH
        report |= found if split == first else {f"{split}.{name}": value for name, value in found.items()}
        sheets += shown
    drift = None
    if settings.drift:
        drift = measure_drift(world, loaded, dataset, first, network, plan, say)
        report |= drift.report | {"drift.backend": world.info["backend"]}
        sheets += [drift_sheet(name, shown) for name, shown in drift.shown.items()]
    if place:
        seen = place_walks.measure_place(world, place, dataset, first, Scores(lpips), walks, say)
        report |= seen.report
        sheets.append(place_sheet(seen.shown))
    if settings.along:
        posed = along.measure_along(world, dataset, first, Scores(lpips), poses, say)
        report |= posed.report
        sheets += [along_sheet(index, shown) for index, shown in posed.shown.items()]
    about = about_run(walker, settings, len(splits[first])) | {"seconds": round(time.perf_counter() - began, 2)}
    return Evaluation(about | report, drift, sheets)


def about_run(walker: Walker, settings: Settings, clips: int) -> dict[str, Any]:
    """What was judged, and on how many of the `clips` that there are."""
    config = walker.weights.config
    return {
        "weights_hash": walker.weights.hash,
        "preset": config.preset,
        "stage": config.stage,
        "nfe": settings.nfe,
        "sampler": walker.sampler.label if walker.sampler else "",
        "world": config.world,
        "split": settings.split,
        "clips": min(settings.clips, clips),
    }


def _place_of(weights: Weights, plan: place_walks.Plan | along.Plan) -> Place:
    """The place that a world is; UserError when it is none, or the plan measures nothing."""
    plan.check()
    place = weights.parallax.place if weights.parallax else None
    if place is None:
        option = "--along" if isinstance(plan, along.Plan) else "--place"
        raise UserError(f"{option} is for worlds that are one place, and this one is not; leave it out.")
    return place


def clips_of(dataset: Dataset, text: str) -> dict[str, list[int]]:
    """The clips of each of some splits, which commas part; UserError when one has none."""
    splits = {split: dataset.select(split) for split in (part.strip() for part in text.split(","))}
    for split, clips in splits.items():
        if not clips:
            raise UserError(
                f"The data set {str(dataset.folder)!r} has no clips in the split {split!r}; give --split others."
            )
    return splits


def clip_figures(
    walker: Walker,
    dataset: Dataset,
    clips: list[int],
    settings: Settings,
    scores: Scores,
    network: PictureNetwork,
    say: Callable[[str], None],
) -> tuple[dict[str, Any], list[Sheet]]:
    """Everything that is measured clip by clip, and the first clips beside their rollouts."""
    chosen, weights, spec = clips[: settings.clips], walker.weights, walker.spec
    rest = clips[len(chosen) :]
    others = [rest[i * len(rest) // len(chosen)] for i in range(len(chosen))] if len(rest) >= len(chosen) else rest
    stills, strays, sheets = Stills(network), Strays(tuple(HORIZONS)), []
    real, made, energy = [], [], np.zeros(2)
    for seed, index in enumerate(chosen):
        stretch = stretch_of(dataset.clip(index), spec.ticks)
        pictures = judge(walker, stretch, scores, stills, strays, seed)
        real.append(stretch.walk)
        made.append(stretch.driving(pictures))
        energy += [motion_energy(pictures), motion_energy(stretch.frames)]
        if seed < SHEETS:
            title = f"Held out: {dataset.entry(index)['map']}, clip {index}"
            sheets.append(clip_sheet(title, stretch.frames, pictures, weights.config.fps))
        say(f"clips: {seed + 1} of {len(chosen)}")
    for seed, index in enumerate(others):
        frames = stretch_of(dataset.clip(index), spec.ticks).frames[spec.ticks :: spec.ticks]
        stills.add("reference", frames)
        half = real[seed % len(real)].frames[spec.ticks :: spec.ticks]
        count = min(len(frames), len(half))
        scores.add("halves", frames[:count], half[:count])
    report: dict[str, Any] = dict.fromkeys((f"{f}.{m}" for f in (*FAMILIES, "halves") for m in ("psnr", "lpips")), None)
    report |= scores.means() | stills.figures() | strays.figures()
    for name, walks in (("control", made), ("control.real", real)):
        figures = measure_control(walks, spec, walker.camera, walker.fps)
        report |= {f"{name}.{key}": value for key, value in figures.items()}
    ratio = float(energy[0] / energy[1]) if energy[1] else None
    return report | {"motion_energy.ratio": ratio, "motion_energy.static": ratio is not None and ratio < STATIC}, sheets


def judge(walker: Walker, stretch: Stretch, scores: Scores, stills: Stills, strays: Strays, seed: int) -> Pixels:
    """Score one stretch in every way; returns the pictures of its free rollout (T, Y, X, 3)."""
    frames, clip, ticks = stretch.frames, stretch.clip, stretch.ticks
    count, weights = len(frames), walker.weights
    inputs = prepare(weights, frames, *stretch.driven, clip.pose[:count])
    baselines = _Baselines(scores, stretch, View(frames.shape[2], frames.shape[1], weights.config.hfov))
    rebuilt, following = [], []
    following_latents = next_latents(weights, inputs, seed, walker.sampler)
    for k, (again, guess) in enumerate(decoded(weights, inputs.latents, following_latents, inputs)):
        part = slice(max(0, 1 + (k - 1) * ticks), 1 + k * ticks)
        scores.add("tokenizer", again, frames[part], every=False)
        if guess is not None:
            scores.add("next", guess, frames[part], every=False)
            baselines.add("next", k, k - 1, every=False)
            rebuilt.append(again[-1])
            following.append(guess[-1])
    went: list[Standing] = []
    pictures = led(walker, frames[0], *stretch.driven, seed, stretch.stood, went)
    place = weights.parallax.place if weights.parallax else None
    for name, k in HORIZONS.items():
        if k * ticks < count:
            part = slice(1 + (k - 1) * ticks, 1 + k * ticks)
            scores.add(name, pictures[part], frames[part])
            baselines.add(name, k, 0)
            strays.add(name, place, went[k - 1], stretch.stood[k * ticks])
    last = {"floor": frames[ticks::ticks], "ceiling": np.stack(rebuilt), "next": np.stack(following)}
    for name, shown in (last | {"rollout": pictures[ticks::ticks]}).items():
        stills.add(name, shown)
    return pictures


def _picture_network(lpips: Lpips, fid: bool) -> PictureNetwork:
    if fid:
        from generator.evaluation.fid import Inception

        return Inception()
    return AlexNet(lpips)


@dataclass(frozen=True)
class _Baselines:
    scores: Scores
    stretch: Stretch
    view: View

    def add(self, name: str, k: int, known: int, every: bool = True) -> None:
        """Both baselines of latent frame k when latent frame `known` was the last one seen."""
        stretch, ticks = self.stretch, self.stretch.ticks
        at, end = known * ticks, k * ticks
        real = stretch.frames[end - ticks + 1 : end + 1]
        last, pitch = stretch.frames[at], float(stretch.clip.pose[at, 4])
        moved = shifted(last, stretch.clip.look[at + 1 : end + 1], pitch, self.view, ticks)
        self.scores.add(f"baseline.repeat.{name}", repeated(last, ticks), real, every)
        self.scores.add(f"baseline.shift.{name}", moved, real, every)


def motion_energy(frames: Pixels) -> float:
    """Mean absolute difference of successive pictures (T, Y, X, 3), in levels of 255."""
    return float(np.mean([np.abs(b.astype(np.int16) - a.astype(np.int16)).mean() for a, b in pairwise(frames)]))


def stretch_of(clip: Clip, ticks: int) -> Stretch:
    latents = min((len(clip) - 1) // ticks, max(HORIZONS.values()))
    if latents < 1:
        raise UserError(f"A clip has {len(clip)} frames, too few to judge; collect longer clips.")
    return Stretch(clip, clip.frames(0, 1 + latents * ticks), ticks)


def _check(weights: Weights, dataset: Dataset) -> None:
    config = weights.config
    if tuple(config.picture) != dataset.size:
        raise UserError(
            f"The data set has {dataset.size} pictures, the weights make {config.picture}; use a matching pair."
        )
    if config.action_spec != dataset.spec:
        raise UserError("The data set and the weights have different action specs; use a matching pair.")
