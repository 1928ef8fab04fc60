"""How long a latent frame takes on this machine, through the very backends that play uses.

Shape key: Y, X video size, C channels, H, W latent size, P action fields, R ray channels. All times are in ms unless a
name says otherwise; p50 and p99 are percentiles over latent frames. Timing starts once the rolling cache is full.
A latent frame is timed in four parts, each until its device is done: reproject (null where the model recycles no
reprojection), transformer, decode (composing included) and copy-out (to where a window would read the pictures).
`real_time_factor` is generated time over the time it took: 1 just keeps up.
`step_ms_at` are medians of short bursts taken in turn from saved states of a young and of older sessions, so that a
machine that slows down meanwhile slows all.

Does not know whether the pictures are any good, or what a benchmark compares.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from controls.action import Action, ActionSpec, encode
from controls.camera import Camera
from generator.checkpoint import Weights
from generator.evaluation.timing import forget_peak, peak_device_mb, peak_memory_mb, percentiles, synchronise
from generator.runtime.backend import Backend, LaunchedDecoder, to_pixels
from generator.runtime.build import random_weights
from generator.runtime.encode import encode_picture
from generator.runtime.select import open_backend

__all__ = ["random_weights", "time_backend"]

Pixels = npt.NDArray[np.uint8]
Float = npt.NDArray[np.float32]
Trace = list[tuple[torch.Tensor, Pixels]]
NEAR = 40  # latent frames: the session is young
BURST, BURSTS = 5, 12
MOST_MOVED = 2e11  # bytes of caches that bursts put back; where they are gigabytes, there are fewer and longer bursts
AT_ONCE = 256  # places that are looked round from; bounds memory
COMPARED = 8  # latent frames that backends are compared over
PARTS = ("reproject", "transformer", "decode", "copy_out")


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


def time_backend(
    weights: Weights,
    name: str,
    frames: int,
    far: Sequence[int] = (),
    threads: int = 2,
    reference: Trace | None = None,
    text: torch.Tensor | None = None,
    switches: tuple[str, ...] = (),
) -> dict[str, Any]:
    """The report of one backend, with its distance to the reference's trace when that is given.

    `far` are latent frames at which a step is timed again; text (1, L, text_width) for models that read one.
    """
    device = weights.dit.embed.weight.device
    forget_peak(device)
    began = time.perf_counter()
    backend = open_backend(name, weights, threads, text, switches)
    report = time_opened(backend, weights, time.perf_counter() - began, frames, far, threads)
    if reference is not None:
        report |= compare(trace(backend, weights), reference)
    if isinstance(backend.decoder, LaunchedDecoder) and backend.reprojection is None:
        report["pipelined_ms"] = pipelined(backend, weights, frames)
    return report | {"peak_rss_mb": peak_memory_mb(), "peak_device_mb": peak_device_mb(backend.device)}


def time_opened(
    backend: Backend, weights: Weights, open_s: float, frames: int, far: Sequence[int], threads: int, processes: int = 1
) -> dict[str, Any]:
    """The report of a backend that took `open_s` to open, which `processes` share with so many threads each."""
    report: dict[str, Any] = {
        "preset": weights.config.preset,
        "resolution": list(weights.config.picture),
        "window": weights.config.dit.window,
        "weights_hash": weights.hash,
        "backend": backend.name,
        "device": device_name(backend.device),
        "switches": dict(backend.switches),
        "parallel": processes,
        "threads": threads,
        "frames": frames,
        "open_s": open_s,
        **time_frames(backend, weights, frames, open_s),
        "step_ms_at": None,
        "far_ratio": None,
    }
    if far:
        report |= near_and_far(backend, weights, far)
    return report


def time_frames(backend: Backend, weights: Weights, frames: int, open_s: float = 0.0) -> dict[str, Any]:
    """Times of each part over `frames` latent frames after the cache has filled, and of the first frame."""
    config, drive = weights.config, drive_of(weights)
    began = time.perf_counter()
    picture = first_picture(backend, weights)
    first = time.perf_counter() - began
    ring = np.zeros((config.action_spec.ticks, *picture.shape), np.uint8)
    rows, untimed, generated = [], config.dit.window + config.dit.sink + 3, 0.0
    for k in range(untimed + frames):
        _, pictures, took = one_frame(backend, drive, k, picture, ring)
        picture = pictures[-1]
        rows.append(took)
        generated = generated or time.perf_counter() - began
    spent = np.array(rows[untimed:])
    total, ticks = spent.sum(1), config.action_spec.ticks
    per_frame = float(np.median(total))
    found = {f"{part}_ms": percentiles(spent[:, number]) for number, part in enumerate(PARTS)}
    return {
        **found,
        "reproject_ms": found["reproject_ms"] if backend.reprojection else None,
        "total_ms": percentiles(total),
        "fps": 1e3 * ticks / per_frame,
        "real_time_factor": 1e3 * ticks / config.fps / per_frame,
        "first_frame_s": first,
        "first_generated_s": open_s + generated,
    }


def pipelined(backend: Backend, weights: Weights, frames: int) -> float:
    """ms per latent frame when the next step is begun before the last pictures are fetched: throughput, not latency."""
    decoder, drive = backend.decoder, drive_of(weights)
    assert isinstance(decoder, LaunchedDecoder), "only a decoder that is launched can overlap"
    first_picture(backend, weights)
    untimed, began = weights.config.dit.window + weights.config.dit.sink + 3, 0.0
    for k in range(untimed + frames):
        if k == untimed:
            synchronise(backend.device)
            began = time.perf_counter()
        latent = backend.transformer.step(*drive.inputs(k)[:2])
        if k:
            decoder.fetch()
        decoder.launch(latent)
    decoder.fetch()
    return 1e3 * (time.perf_counter() - began) / frames


def near_and_far(backend: Backend, weights: Weights, far: Sequence[int]) -> dict[str, Any]:
    """Median step time at latent frame 40 and at each later one, in bursts taken in turn; and the last over the first.

    Only the transformer runs: what lies ahead is the first picture's reprojection throughout.
    """
    transformer, drive, kept = backend.transformer, drive_of(weights), []
    ahead = look_ahead(backend, first_picture(backend, weights), drive.inputs(0))
    for stop in sorted({min(NEAR, *far), *far}):
        while transformer.frame_index < stop:
            transformer.step(*drive.inputs(transformer.frame_index)[:2], ahead)
        kept.append((stop, transformer.state()))
    times: dict[int, list[float]] = {stop: [] for stop, _ in kept}
    bursts, burst = bursts_of(sum(array.nbytes for _, state in kept for array in state.values()))
    for _ in range(bursts):
        for start, state in kept:
            transformer.load(state)
            for k in range(start, start + burst):
                (actions, rays, _), began = drive.inputs(k), time.perf_counter()
                transformer.step(actions, rays, ahead)
                synchronise(backend.device)
                if k > start:  # the first one after a load finds a cold cache
                    times[start].append(1e3 * (time.perf_counter() - began))
    found = {stop: float(np.median(spent)) for stop, spent in times.items()}
    first, *_, last = found.values() if len(found) > 1 else [*found.values()] * 2
    return {"step_ms_at": {str(stop): took for stop, took in found.items()}, "far_ratio": last / first}


def bursts_of(nbytes: int) -> tuple[int, int]:
    """How many bursts of how many steps, when each puts back states of so many bytes; as many steps in all."""
    bursts = min(max(int(MOST_MOVED / max(nbytes, 1)), 2), BURSTS)
    return bursts, -(-BURST * BURSTS // bursts)


def drive_of(weights: Weights) -> Drive:
    """The benchmark's walk for these weights."""
    config = weights.config
    camera = Camera(config.hfov, config.picture[0] / config.picture[1])
    return Drive(config.action_spec, camera, (config.dit.height, config.dit.width))


def begin(weights: Weights, seed: int = 1) -> tuple[torch.Tensor, int]:
    """The latent (1, C, H, W) of a first frame, and the seed: a view of the place where the world is one, else made up,
    after which a walk is not like the world's own and small errors grow.
    """
    width, height = weights.config.picture
    turn, place = weights.reprojector(), weights.parallax.place if weights.parallax else None
    if turn and weights.parallax and place and place.map is not None and len(place.map.where):
        plan = place.grid()
        round_about = torch.arange(0.0, 360.0, 15.0, device=plan.device)[None]
        clear = [place.map.clearance(p, round_about.expand(len(p), -1)).amin(1) for p in plan.split(AT_ONCE)]
        plan = plan[torch.cat(clear).argmax()][None]  # in the open
        pose = torch.cat([plan, torch.zeros_like(plan), place.standing(plan)[:, None]], dim=1)
        view = place.map.view(pose, turn.edge, weights.parallax.known_stretch, height, width)
        picture = to_pixels(view[None, :, :3])[0]
        return encode_picture(weights.tokenizer, picture), seed
    rows, columns = np.mgrid[0:height, 0:width]
    picture = np.stack([255 * rows / height, 255 * columns / width, 128 + 60 * np.sin(columns / 9)], axis=-1)
    return encode_picture(weights.tokenizer, picture.astype(np.uint8)), seed


def first_picture(backend: Backend, weights: Weights) -> Pixels:
    """Begin the benchmark's walk; its first picture (Y, X, 3) as decoded."""
    latent, seed = begin(weights)
    backend.transformer.reset(latent, seed)
    picture = backend.decoder.first(latent)[-1]
    if backend.reprojection:
        backend.reprojection.reset(picture)
    return picture


def look_ahead(backend: Backend, picture: Pixels, inputs: tuple[Float, Float, Float]) -> torch.Tensor | None:
    """What the transformer is given as `ahead` after a picture (Y, X, 3); None where it takes nothing.

    `inputs` are actions, rays and look, as `Drive.inputs` gives them.
    """
    return backend.reprojection(picture, inputs[2], inputs[0]) if backend.reprojection else None


def one_frame(
    backend: Backend, drive: Drive, k: int, picture: Pixels, ring: Pixels | None = None
) -> tuple[torch.Tensor, Pixels, tuple[float, ...]]:
    """Generate the latent frame (1, C, H, W) after a picture (Y, X, 3), and its pictures (4, Y, X, 3).

    Also the ms of each of PARTS; pictures are copied out to `ring` (4, Y, X, 3) if given.
    """
    inputs, decoder = drive.inputs(k), backend.decoder
    times = [time.perf_counter()]

    def done() -> None:
        synchronise(backend.device)
        times.append(time.perf_counter())

    ahead = look_ahead(backend, picture, inputs)
    done()
    latent = backend.transformer.step(*inputs[:2], ahead)
    done()
    if isinstance(decoder, LaunchedDecoder):  # a GPU's pictures are copied out once they stand
        decoder.launch(latent)
        done()
        pictures = decoder.fetch()
    else:
        pictures = decoder.next(latent)
        if backend.reprojection:
            pictures = backend.reprojection.compose(pictures)
        done()
    if isinstance(decoder, LaunchedDecoder) and backend.reprojection:
        pictures = backend.reprojection.compose(pictures)
    if ring is not None:
        np.copyto(ring, pictures)
    done()
    return latent, pictures, tuple(1e3 * (b - a) for a, b in pairwise(times))


def trace(backend: Backend, weights: Weights, frames: int = COMPARED) -> Trace:
    """The first latents (1, C, H, W) and pictures (4, Y, X, 3) of the benchmark's walk."""
    drive, picture = drive_of(weights), first_picture(backend, weights)
    made: Trace = []
    for k in range(frames):
        latent, pictures, _ = one_frame(backend, drive, k, picture)
        made.append((latent.cpu(), pictures))
        picture = pictures[-1]
    return made


def relative_error(made: torch.Tensor, right: torch.Tensor) -> float:
    """The distance of latents over the size of the right ones."""
    return float((made - right).norm() / right.norm())


def compare(made: Trace, right: Trace) -> dict[str, float]:
    """Distance to the reference over a free rollout, where errors feed on themselves."""
    errors = [relative_error(a, b) for (a, _), (b, _) in zip(made, right, strict=True)]
    levels = [np.abs(a.astype(int) - b.astype(int)) for (_, a), (_, b) in zip(made, right, strict=True)]
    return {
        "latent_relative_error_first": errors[0],
        "latent_relative_error": float(np.mean(errors)),
        "latent_relative_error_last": errors[-1],
        "pixel_error_mean": float(np.mean(levels)),
        "pixel_error_max": float(np.max(levels)),
    }


def device_name(device: torch.device) -> str:
    """The GPU's own name, or cpu."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
