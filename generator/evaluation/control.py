"""Does the world do what the keys and the mouse say? Correlation and slope of measured against commanded motion.

Shape key: T video frames, Y, X video size, K keys. Row i of keys and look is the tick that led to frame i.
Yaw and pitch are compared tick by tick, pitch outside the second after a jump; forward motion as a running median
against the speed that the keys ask for: a first-order lag of forward minus backward, doubled by run (its slope is in
eye heights a tick for each steady walk). Walls stop a walker and stairs nod, so even real clips do not reach a
correlation of 1; the same figures on the real clips (`control.real`) say what is reachable.

Does not know how pictures are made.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from controls.action import ActionSpec
from controls.camera import Camera
from generator.evaluation.motion import MAX_PITCH, MAX_YAW, Double, Pixels, pitch_per_tick, walk_per_tick, yaw_per_tick

FRICTION = 0.90625  # share of its speed that a walker of the engine keeps each 35th of a second
ENGINE_RATE = 35.0
NEIGHBOURS = 3  # ticks to each side in the running median
FASTEST_JUDGED = 0.9 * MAX_YAW  # degrees per tick; faster turns leave the search
STEEPEST_JUDGED = 0.9 * MAX_PITCH
AFTER_JUMP = 1.0  # seconds until a jumper stands again


@dataclass(frozen=True)
class Walk:
    """Video and what led to it: frames uint8 (T, Y, X, 3), keys (T, K), look (T, 2), pitch (T,) in degrees."""

    frames: Pixels
    keys: npt.NDArray[np.uint8]
    look: npt.NDArray[np.float32]
    pitch: Double


def commanded_speed(keys: npt.NDArray[np.uint8], spec: ActionSpec, fps: float) -> Double:
    """Forward speed that the keys (T, K) ask for: (T,), 1 is a steady walk, 2 a steady run."""
    column = {name: keys[:, i].astype(np.float64) for i, name in enumerate(spec.keys)}
    nothing = np.zeros(len(keys))
    push = column.get("forward", nothing) - column.get("backward", nothing)
    push = push * (1 + column.get("run", nothing))
    keep, speed, speeds = FRICTION ** (ENGINE_RATE / fps), 0.0, []
    for force in push:
        speed = keep * speed + (1 - keep) * force
        speeds.append(speed)
    return np.array(speeds)


def running_median(values: Double) -> Double:
    """Median of each value and its neighbours that were measured; NaN where none was."""
    spans = (values[max(0, k - NEIGHBOURS) : k + NEIGHBOURS + 1] for k in range(len(values)))
    kept = (span[~np.isnan(span)] for span in spans)
    return np.array([np.median(span) if len(span) else np.nan for span in kept])


def agreement(measured: Double, asked: Double) -> dict[str, float | None]:
    """`corr` (Pearson), `slope` (least squares, measured on asked) and `measured`, the share that was not NaN.

    corr and slope are None where either side never changes.
    """
    known = ~np.isnan(measured)
    share = float(known.mean()) if len(known) else 0.0
    x, y = asked[known], measured[known]
    if known.sum() < 3 or x.std() < 1e-9 or y.std() < 1e-9:
        return {"corr": None, "slope": None, "measured": share}
    x, y = x - x.mean(), y - y.mean()
    slope = float((x * y).sum() / (x * x).sum())
    return {"corr": slope * float(x.std() / y.std()), "slope": slope, "measured": share}


def after_jump(keys: npt.NDArray[np.uint8], spec: ActionSpec, fps: float) -> npt.NDArray[np.bool_]:
    """Which ticks (T,) come with a jump or within a second after one."""
    if "jump" not in spec.keys:
        return np.zeros(len(keys), bool)
    pressed = keys[:, spec.keys.index("jump")].astype(np.float64)
    return np.asarray(np.convolve(pressed, np.ones(1 + round(AFTER_JUMP * fps)))[: len(keys)] > 0)


def measure_control(walks: list[Walk], spec: ActionSpec, camera: Camera, fps: float) -> dict[str, float | None]:
    """`yaw`, `pitch` (degrees per degree) and `forward`, each `.corr`, `.slope` and `.measured`, over all walks."""
    found: dict[str, list[Double]] = {name: [] for name in ("yaw", "pitch", "forward")}
    asked: dict[str, list[Double]] = {name: [] for name in found}
    for walk in walks:
        yaw, look = yaw_per_tick(walk.frames, camera, walk.pitch), walk.look[1:].astype(np.float64)
        pitch = pitch_per_tick(walk.frames, camera, walk.pitch, yaw)
        slow = np.abs(look[:, 0]) <= FASTEST_JUDGED
        standing = (np.abs(look[:, 1]) <= STEEPEST_JUDGED) & ~after_jump(walk.keys, spec, fps)[1:]
        found["yaw"].append(yaw[slow])
        asked["yaw"].append(look[slow, 0])
        found["pitch"].append(pitch[standing])
        asked["pitch"].append(look[standing, 1])
        found["forward"].append(running_median(walk_per_tick(walk.frames, camera, walk.pitch, yaw)[:, 0]))
        asked["forward"].append(commanded_speed(walk.keys, spec, fps)[1:])
    figures: dict[str, float | None] = {}
    for name in found:
        for key, value in agreement(np.concatenate(found[name]), np.concatenate(asked[name])).items():
            figures[f"{name}.{key}"] = value
    return figures
