"""Looking ahead: between generated frames the last picture is shifted by the look motion that is not in it yet.

A generated frame shows the head where it was a quarter of a second ago. What the hand has done since is known, so the
window shows the last picture, a little enlarged (cropped by MARGIN on every side), moved by that turn; as frames with
the turn in them arrive, the turn still missing shrinks by as much, and the shift eases out by itself. A shift is not a
rotation: the middle of the picture is right, its edges are stretched otherwise, by a share that grows with the field
of view; `residuals` measures what is left. Screenshots, recordings and the film never contain any of it.

Source of the idea: peers.md section 4 (over-scan crop). Does not know about windows, devices, sessions or generators.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Double = npt.NDArray[np.float64]
MARGIN = 0.05  # of the picture's width and height, hidden on every side; also as far as a shift can go
Pair = tuple[float, float]


def shift_of(turn: Pair, hfov: float, aspect: float, strength: float = 1.0, limit: float = MARGIN) -> Pair:
    """Where a picture's content goes when the head turns: shares of its width (+ right) and height (+ down).

    `turn` is yaw (+ right) and pitch (+ up) in degrees, `hfov` in degrees, `aspect` width / height, `strength` 0 to 1.
    Never beyond +-limit, which is approached smoothly, so that a fast turn meets no wall.
    """
    yaw, pitch = (math.radians(min(max(angle, -60.0), 60.0)) * strength for angle in turn)
    edge = 2 * math.tan(math.radians(hfov) / 2)
    across, down = -math.tan(yaw) / edge, math.tan(pitch) / edge * aspect
    return limit * math.tanh(across / limit), limit * math.tanh(down / limit)


def shifted(picture: Double, shift: Pair, margin: float = MARGIN) -> Double:
    """The part of a picture (Y, X) that is in sight under a shift: sampled bilinearly on the cropped grid, (Y, X)."""
    high, wide = picture.shape
    rows = (np.arange(high) + 0.5) * (1 - 2 * margin) + (margin - shift[1]) * high - 0.5
    columns = (np.arange(wide) + 0.5) * (1 - 2 * margin) + (margin - shift[0]) * wide - 0.5
    return _sample(picture, rows, columns)


def _sample(picture: Double, rows: Double, columns: Double) -> Double:
    high, wide = picture.shape
    rows, columns = rows.clip(0, high - 1), columns.clip(0, wide - 1)
    top, left = np.floor(rows).astype(int).clip(0, high - 2), np.floor(columns).astype(int).clip(0, wide - 2)
    down, right = (rows - top)[:, None], columns - left
    upper = picture[top][:, left] * (1 - right) + picture[top][:, left + 1] * right
    lower = picture[top + 1][:, left] * (1 - right) + picture[top + 1][:, left + 1] * right
    return np.asarray(upper * (1 - down) + lower * down, np.float64)


def far_view(turn: Pair, hfov: float, size: tuple[int, int], detail: int = 24, seed: int = 0) -> Double:
    """A view (Y, X), 0 to 1, of an endless far scenery with the head turned: `detail` waves over the directions.

    It can be seen in any direction exactly, so that a turned picture can be compared with the truth. Yaw turns about
    the upright axis, pitch shifts the picture, as the engine of Halls draws it; `size` is (X, Y).
    """
    wide, high = size
    edge = math.tan(math.radians(hfov) / 2)
    x = ((np.arange(wide) + 0.5) / wide * 2 - 1) * edge
    y = ((np.arange(high) + 0.5) / high * 2 - 1) * edge * high / wide
    yaw, pitch = math.radians(turn[0]), math.tan(math.radians(turn[1]))
    heading = np.arctan(x) + yaw
    height = (y[:, None] - pitch) * np.cos(heading - yaw)  # on an upright cylinder around the head
    rng, picture = np.random.default_rng(seed), np.zeros((high, wide))
    for _ in range(detail):
        around, up = rng.integers(1, 24), rng.normal(0, 8)
        picture += np.sin(around * heading[None] + up * height + rng.uniform(0, 2 * math.pi))
    return np.asarray(0.5 + picture / (4 * math.sqrt(detail / 2)), np.float64)


def residuals(
    angles: Sequence[float], hfov: float = 100.4, size: tuple[int, int] = (256, 160), strength: float = 1.0
) -> list[dict[str, float]]:
    """For each yaw in degrees, the root mean square error against the truly turned view, over the cropped picture.

    `still` without a shift, `shifted` with it, `share` of the error's power that the shift took away; all in 0 to 1.
    """
    rows, seeds = [], range(4)
    for angle in angles:
        errors = np.zeros(2)
        for seed in seeds:
            old, new = (far_view((turn, 0.0), hfov, size, seed=seed) for turn in (0.0, angle))
            truth = shifted(new, (0.0, 0.0))
            moved = shift_of((angle, 0.0), hfov, size[0] / size[1], strength)
            errors += [((shifted(old, shift) - truth) ** 2).mean() for shift in ((0.0, 0.0), moved)]
        still, left = errors / len(seeds)
        row = {"yaw": float(angle), "still": math.sqrt(still), "shifted": math.sqrt(left)}
        rows.append(row | {"share": float(1 - left / still) if still else 0.0})
    return rows
