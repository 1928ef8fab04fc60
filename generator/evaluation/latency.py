"""`run.py benchmark`: how long a latent frame takes on this machine, through the very backends that play uses.

Shape key: Y, X video size, C channels, H, W latent size, P action fields, R ray channels. All times are in ms unless a
name says otherwise; p50 and p99 are percentiles over latent frames. Timing starts once the rolling cache is full.
`reproject_ms` is null where the model recycles no reprojection.
`real_time_factor` is generated time over the time it took: 1 just keeps up.
`step_ms_at_40` and `step_ms_at_far` are medians of short bursts taken in turn from two saved states, so that a machine
that slows down meanwhile slows both.

Does not know whether the pictures are any good.
"""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from controls.action import Action, ActionSpec, encode
from controls.camera import Camera
from controls.errors import UserError
from generator.checkpoint import Weights, load_weights
from generator.evaluation.timing import forget_peak, peak_memory_mb, percentiles
from generator.runtime.backend import Backend
from generator.runtime.build import random_weights
from generator.runtime.encode import encode_picture
from generator.runtime.select import BACKENDS, open_backend

Pixels = npt.NDArray[np.uint8]
Float = npt.NDArray[np.float32]
Trace = list[tuple[torch.Tensor, Pixels]]
NEAR = 40  # latent frames: the window is full, the session young
BURST, BURSTS = 5, 12
COMPARED = 8  # latent frames that backends are compared over
REFERENCE = "torch-fp32"


@dataclass(frozen=True)
class Drive:
    """A fixed walk: the inputs of latent frame k, the same for every backend."""

    spec: ActionSpec
    camera: Camera
    size: tuple[int, int]

    def inputs(self, k: int) -> tuple[Float, Float, Float]:
        """actions (ticks, P), rays (R, H, W) and look (ticks, 2) in degrees: walking on while the head sways."""
        action = Action.hold(self.spec, self.spec.keys[0], yaw=3 * np.sin(k / 5), pitch=0.3 * np.cos(k / 7))
        rays = self.camera.ray_map(action.look, *self.size)
        return encode(action, self.spec), rays.reshape(-1, *self.size), action.look


def benchmark(
    name: str, weights: Path | None, backend: str = "auto", frames: int = 120, far: int = 0, threads: int = 2
) -> dict[str, Any]:
    """Time one backend, or each of them with `all`, on random weights of a preset or on given ones.

    UserError on an unknown preset or backend, missing weights, or a model that memory cannot hold.
    """
    if frames < 1 or far < 0 or threads < 1:
        raise UserError(
            f"--frames {frames}, --far {far}, --threads {threads}: frames and threads start at 1, far at 0."
        )
    loaded = load_weights(Path(weights)) if weights else random_weights(name)
    if backend != "all":
        return time_backend(loaded, backend, frames, far, threads)
    reports: dict[str, Any] = {}
    reference = trace(open_backend(REFERENCE, loaded, threads), loaded)
    for each in (b for b in BACKENDS if b != "auto"):
        try:
            reports[each] = time_backend(loaded, each, frames, far, threads, reference)
        except UserError as error:
            reports[each] = {"missing": str(error)}
        gc.collect()
    return {"preset": loaded.config.preset, "weights_hash": loaded.hash, "threads": threads, "backends": reports}


def time_backend(
    weights: Weights, name: str, frames: int, far: int, threads: int, reference: Trace | None = None
) -> dict[str, Any]:
    """The report of one backend, with its distance to the reference's trace when that is given."""
    config = weights.config
    forget_peak()
    began = time.perf_counter()
    backend, drive = open_backend(name, weights, threads), drive_of(weights)
    opened = time.perf_counter()
    picture = first_picture(backend, weights)
    first = time.perf_counter() - opened
    rows, untimed = [], config.dit.window + config.dit.sink + 3
    for k in range(untimed + frames):
        _, pictures, took = one_frame(backend, drive, k, picture)
        picture = pictures[-1]
        rows.append(took)
    spent = np.array(rows[untimed:])
    total, ticks = spent.sum(1), config.action_spec.ticks
    per_frame = float(np.median(total))
    report: dict[str, Any] = {
        "preset": config.preset,
        "weights_hash": weights.hash,
        "backend": backend.name,
        "threads": threads,
        "frames": frames,
        "transformer_ms": percentiles(spent[:, 1]),
        "reproject_ms": percentiles(spent[:, 0]) if backend.reprojection else None,
        "decode_ms": percentiles(spent[:, 2]),
        "total_ms": percentiles(total),
        "fps": 1e3 * ticks / per_frame,
        "real_time_factor": 1e3 * ticks / config.fps / per_frame,
        "open_s": opened - began,
        "first_frame_s": first,
        "step_ms_at_40": None,
        "step_ms_at_far": None,
        "far": far or None,
        "far_ratio": None,
    }
    if far:
        report |= near_and_far(backend, weights, drive, far)
    if reference is not None:
        report |= compare(trace(backend, weights), reference)
    return report | {"peak_rss_mb": peak_memory_mb()}


def near_and_far(backend: Backend, weights: Weights, drive: Drive, far: int) -> dict[str, float]:
    """Median step time at latent frame 40 and at `far`, in bursts taken in turn; and far over near.

    Only the transformer runs: what lies ahead is the first picture's reprojection throughout.
    """
    transformer, kept = backend.transformer, []
    ahead = look_ahead(backend, first_picture(backend, weights), drive.inputs(0))
    for stop in (min(NEAR, far), far):
        while transformer.frame_index < stop:
            transformer.step(*drive.inputs(transformer.frame_index)[:2], ahead)
        kept.append((stop, transformer.state()))
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(BURSTS):
        for (start, state), spent in zip(kept, times, strict=True):
            transformer.load(state)
            for k in range(start, start + BURST):
                (actions, rays, _), began = drive.inputs(k), time.perf_counter()
                transformer.step(actions, rays, ahead)
                if k > start:  # the first one after a load finds a cold cache
                    spent.append(1e3 * (time.perf_counter() - began))
    near, late = (float(np.median(spent)) for spent in times)
    return {"step_ms_at_40": near, "step_ms_at_far": late, "far_ratio": late / near}


def drive_of(weights: Weights) -> Drive:
    """The benchmark's walk for these weights."""
    config = weights.config
    camera = Camera(config.hfov, config.picture[0] / config.picture[1])
    return Drive(config.action_spec, camera, (config.dit.height, config.dit.width))


def begin(weights: Weights, seed: int = 1) -> tuple[torch.Tensor, int]:
    """The latent (1, C, H, W) of a made-up first frame, and the seed."""
    width, height = weights.config.picture
    rows, columns = np.mgrid[0:height, 0:width]
    picture = np.stack([255 * rows / height, 255 * columns / width, 128 + 60 * np.sin(columns / 9)], axis=-1)
    return encode_picture(weights.tokenizer, picture.astype(np.uint8)), seed


def first_picture(backend: Backend, weights: Weights) -> Pixels:
    """Begin the benchmark's walk; its first picture (Y, X, 3) as decoded."""
    latent, seed = begin(weights)
    backend.transformer.reset(latent, seed)
    if backend.reprojection:
        backend.reprojection.reset()
    return backend.decoder.first(latent)[-1]


def look_ahead(backend: Backend, picture: Pixels, inputs: tuple[Float, Float, Float]) -> torch.Tensor | None:
    """What the transformer is given as `ahead` after a picture (Y, X, 3); None where it takes nothing.

    `inputs` are actions, rays and look, as `Drive.inputs` gives them.
    """
    return backend.reprojection(picture, inputs[2], inputs[0]) if backend.reprojection else None


def one_frame(
    backend: Backend, drive: Drive, k: int, picture: Pixels
) -> tuple[torch.Tensor, Pixels, tuple[float, float, float]]:
    """Generate the latent frame (1, C, H, W) after a picture (Y, X, 3), and its pictures (4, Y, X, 3).

    Also the ms in the reprojection, in the transformer and in the decoder.
    """
    inputs, began = drive.inputs(k), time.perf_counter()
    ahead = look_ahead(backend, picture, inputs)
    seen = time.perf_counter()
    latent = backend.transformer.step(*inputs[:2], ahead)
    stepped = time.perf_counter()
    pictures = backend.decoder.next(latent)
    pictures = backend.reprojection.compose(pictures) if backend.reprojection else pictures
    done = time.perf_counter()
    return latent, pictures, (1e3 * (seen - began), 1e3 * (stepped - seen), 1e3 * (done - stepped))


def trace(backend: Backend, weights: Weights) -> Trace:
    """The first latents (1, C, H, W) and pictures (4, Y, X, 3) of the benchmark's walk."""
    drive, picture = drive_of(weights), first_picture(backend, weights)
    made: Trace = []
    for k in range(COMPARED):
        latent, pictures, _ = one_frame(backend, drive, k, picture)
        made.append((latent, pictures))
        picture = pictures[-1]
    return made


def compare(made: Trace, right: Trace) -> dict[str, float]:
    """Distance to the reference over a free rollout, where errors feed on themselves."""
    errors = [float((a - b).norm() / b.norm()) for (a, _), (b, _) in zip(made, right, strict=True)]
    levels = [np.abs(a.astype(int) - b.astype(int)) for (_, a), (_, b) in zip(made, right, strict=True)]
    return {
        "latent_relative_error_first": errors[0],
        "latent_relative_error": float(np.mean(errors)),
        "pixel_error_mean": float(np.mean(levels)),
        "pixel_error_max": float(np.max(levels)),
    }
