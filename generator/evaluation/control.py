"""Does the world do what the keys and the mouse say? Correlation and slope of measured against commanded motion.

Shape key: T video frames, Y, X video size, K keys. Row i of keys and look is the tick that led to frame i.
Yaw is compared tick by tick; forward motion as a running median against the speed that the keys ask for: a first-order
lag of forward minus backward, doubled by run. Walls stop a walker, so even real clips do not reach a correlation of 1;
the same figures on the real clips (`control.real`) say what is reachable.

Does not know how pictures are made.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from controls.action import ActionSpec
from controls.camera import Camera
from generator.evaluation.motion import MAX_YAW, Double, Pixels, walk_per_tick, yaw_per_tick

FRICTION = 0.90625  # share of its speed that a walker of the engine keeps each 35th of a second
ENGINE_RATE = 35.0
NEIGHBOURS = 3  # ticks to each side in the running median
FASTEST_JUDGED = 0.9 * MAX_YAW  # degrees per tick; faster turns leave the search


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


def measure_control(walks: list[Walk], spec: ActionSpec, camera: Camera, fps: float) -> dict[str, float | None]:
    """`yaw.corr`, `yaw.slope` (degrees per degree), `forward.corr` (and their `measured` shares) over all walks."""
    yaw_found, yaw_asked, speed_found, speed_asked = [], [], [], []
    for walk in walks:
        yaw = yaw_per_tick(walk.frames, camera, walk.pitch)
        asked = walk.look[1:, 0].astype(np.float64)
        judged = np.abs(asked) <= FASTEST_JUDGED
        yaw_found.append(yaw[judged])
        yaw_asked.append(asked[judged])
        speed_found.append(running_median(walk_per_tick(walk.frames, camera, walk.pitch, yaw)[:, 0]))
        speed_asked.append(commanded_speed(walk.keys, spec, fps)[1:])
    turns = agreement(np.concatenate(yaw_found), np.concatenate(yaw_asked))
    steps = agreement(np.concatenate(speed_found), np.concatenate(speed_asked))
    return {
        **{f"yaw.{name}": value for name, value in turns.items()},
        **{f"forward.{name}": value for name, value in steps.items() if name != "slope"},
    }
