"""Camera motion read from pictures alone: yaw per tick from a panorama, pitch from the horizon, forward from the floor.

Shape key: T video frames, Y, X video size, R panorama rows, A panorama angles, G, H bird's-eye cells forward and right.
The renderer keeps vertical lines upright and draws pitch as a vertical shear, so a picture resampled to equal angles
turns by pure translation; the floor, seen from above in units of the eye's height, walks by pure translation; what is
far away, in a narrow band about the horizon, only rises and sinks with pitch. All three translations are the peak of
one masked normalised cross-correlation (Padfield 2012), refined by a parabola.

Where the horizon lies is taken as given; does not know walls, floors or maps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from controls.camera import Camera

Pixels = npt.NDArray[np.uint8]
Double = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

STRETCH = 1.2  # the engine draws heights this much taller than widths (Doom's pixels were not square)
ANGLES = 512  # panorama columns
SLOPES = np.linspace(-0.4, 0.4, 15)  # panorama rows: height over distance, horizon in the middle
MAX_YAW = 14.0  # degrees per tick that the search covers
MIDDLE = 40.0  # degrees to each side that count: walking forward moves the middle least
CELL = 0.06  # bird's-eye cell in eye heights
FORWARD = (1.4, 4.0)  # eye heights in front of the camera
RIGHT = 3.0  # eye heights to each side
MAX_WALK = 0.55  # eye heights per tick that the search covers; more would mistake one floor tile for the next
OVERLAP = 0.3  # share of the smaller picture that two views must have in common
SURE = 0.2  # a weaker peak is no measurement
SURE_YAW, MARGIN = 0.35, 0.1  # yaw: the least peak, and its lead over any other more than RIVAL degrees away
MAX_PITCH = 8.0  # degrees per tick that the search covers
BAND = 0.08  # height over distance, to each side of the horizon: the eye's rise and fall moves what is nearer
SURE_PITCH = 0.6  # on 11 real clips 0.88 of correlation and a slope of 1.00; a BAND of 0.2 gives 0.81
RIVAL = 2.0  # on 20 real clips this keeps 80 % of the ticks and lifts the correlation from 0.946 to 0.975


@dataclass(frozen=True)
class View:
    """Where the pixels of an X x Y picture look: `focal` in pixels, half angle in degrees."""

    width: int
    height: int
    hfov: float
    focal: float = field(init=False)

    def __post_init__(self) -> None:
        half = math.tan(math.radians(self.hfov) / 2)
        object.__setattr__(self, "focal", self.width / 2 / half)

    @classmethod
    def of(cls, camera: Camera, frames: Pixels) -> View:
        """The view of frames uint8 (..., Y, X, 3)."""
        return cls(frames.shape[-2], frames.shape[-3], camera.hfov_degrees)

    def horizon(self, pitch: float) -> float:
        """Row (pixels, not whole) of the horizon at a pitch in degrees: looking up moves it down."""
        return self.height / 2 + self.tall * math.tan(math.radians(pitch))

    @property
    def tall(self) -> float:
        """Vertical focal length in pixels."""
        return STRETCH * self.focal


def sample(picture: Double, rows: Double, columns: Double) -> Double:
    """Bilinear picture (Y, X, C) at pixel-centre coordinates of any one shape S, clamped at the edges: S + (C,)."""
    height, width = picture.shape[:2]
    y = np.clip(rows - 0.5, 0, height - 1)
    x = np.clip(columns - 0.5, 0, width - 1)
    top, left = (np.minimum(v.astype(int), limit - 2) for v, limit in ((y, height), (x, width)))
    fy, fx = (y - top)[..., None], (x - left)[..., None]
    upper = picture[top, left] * (1 - fx) + picture[top, left + 1] * fx
    lower = picture[top + 1, left] * (1 - fx) + picture[top + 1, left + 1] * fx
    return np.asarray(upper * (1 - fy) + lower * fy)


def turned(picture: Pixels, view: View, yaw: float, pitch_from: float, pitch_to: float) -> Pixels:
    """The picture (Y, X, 3) after a turn by `yaw` degrees and a change of pitch; unseen parts repeat the edge."""
    x = (np.arange(view.width) + 0.5 - view.width / 2) / view.focal
    limit = math.radians(view.hfov) / 2
    angle = np.arctan(x)
    source = np.clip(angle + math.radians(yaw), -limit, limit)
    rows = np.arange(view.height)[:, None] + 0.5 - view.horizon(pitch_to)
    rows = rows * np.cos(angle) / np.cos(source) + view.horizon(pitch_from)
    columns = np.broadcast_to(np.tan(source) * view.focal + view.width / 2, rows.shape)
    return np.asarray(sample(picture.astype(np.float64), rows, columns).round(), np.uint8)


def panorama(picture: Pixels, view: View, pitch: float) -> tuple[Double, Mask]:
    """Edges along equal angles: (3 R, A) and which of them the picture (Y, X, 3) really shows."""
    limit = math.radians(view.hfov) / 2
    angle = (np.arange(ANGLES) + 0.5) / ANGLES * 2 * limit - limit
    columns = np.broadcast_to(np.tan(angle) * view.focal + view.width / 2, (len(SLOPES), ANGLES))
    rows = view.horizon(pitch) - SLOPES[:, None] * view.tall / np.cos(angle)
    strip = sample(picture.astype(np.float64), rows, columns)
    seen = (rows > 0.5) & (rows < view.height - 0.5)
    edges = np.gradient(strip, axis=1).transpose(2, 0, 1)
    return edges.reshape(-1, ANGLES), np.tile(seen, (3, 1))


def masked_correlation(first: Double, second: Double, masks: tuple[Mask, Mask], axes: tuple[int, ...]) -> Double:
    """Normalised cross-correlation over shifts of the `axes`, summed over all others; -1 where too little overlaps.

    Index s of each axis (wrapping: negative shifts from the end) compares first[i + s] with second[i].
    """
    size = [2 * first.shape[a] for a in axes]
    rest = tuple(a for a in range(first.ndim) if a not in axes)

    def forward(values: Double) -> npt.NDArray[np.complex128]:
        return np.asarray(np.fft.rfftn(values, size, axes))

    def cross(a: npt.NDArray[np.complex128], b: npt.NDArray[np.complex128]) -> Double:
        return np.asarray(np.fft.irfftn((a * b.conj()).sum(rest) if rest else a * b.conj(), size))

    one, two = masks[0].astype(np.float64), masks[1].astype(np.float64)
    a, b = first * one, second * two
    m1, m2, f1, f2 = forward(one), forward(two), forward(a), forward(b)
    count = np.maximum(cross(m1, m2), 1e-9)
    sum1, sum2 = cross(f1, m2), cross(m1, f2)
    top = cross(f1, f2) - sum1 * sum2 / count
    power = (cross(forward(a * a), m2) - sum1**2 / count) * (cross(m1, forward(b * b)) - sum2**2 / count)
    enough = count > OVERLAP * min(one.sum(), two.sum())
    floor = 1e-6 * max(float(power.max()), 1e-9)
    return np.where(enough & (power > floor), top / np.sqrt(np.maximum(power, floor)), -1.0)


def peak(scores: Double, reach: tuple[int, ...]) -> tuple[Double, float]:
    """The shift (not whole) of the highest score within +-reach of each axis, and that score."""
    for axis, limit in enumerate(reach):
        scores = np.take(scores, range(-limit, limit + 1), axis, mode="wrap")
    place = tuple(int(p) for p in np.unravel_index(int(scores.argmax()), scores.shape))
    best, shift = float(scores[place]), []
    for axis, (at, limit) in enumerate(zip(place, reach, strict=True)):
        offset = 0.0
        if 0 < at < 2 * limit:
            below, above = (float(scores[(*place[:axis], at + d, *place[axis + 1 :])]) for d in (-1, 1))
            bend = below - 2 * best + above
            offset = 0.5 * (below - above) / bend if min(below, above) > -1 and bend < 0 else 0.0
        shift.append(at - limit + offset)
    return np.array(shift), best


def yaw_per_tick(frames: Pixels, camera: Camera, pitch: npt.ArrayLike) -> Double:
    """Measured yaw in degrees of every tick (T - 1,), + is right; NaN where the pictures show too little.

    frames uint8 (T, Y, X, 3), pitch (T,) in degrees.
    """
    view = View.of(camera, frames)
    strips = [panorama(f, view, float(p)) for f, p in zip(frames, np.asarray(pitch), strict=True)]
    degrees = view.hfov / ANGLES
    middle = np.abs((np.arange(ANGLES) + 0.5) / ANGLES - 0.5) * view.hfov < MIDDLE
    reach = (round(MAX_YAW / degrees),)
    found = []
    for (before, shown), (after, seen) in pairwise(strips):
        scores = masked_correlation(before, after, (shown, seen & middle), (1,))
        shift, score = peak(scores, reach)
        away = np.abs(np.arange(-reach[0], reach[0] + 1) - shift[0]) * degrees > RIVAL
        rival = float(np.take(scores, range(-reach[0], reach[0] + 1), mode="wrap")[away].max())
        sure = score > SURE_YAW and score - rival > MARGIN
        found.append(shift[0] * degrees if sure else np.nan)
    return np.array(found)


def pitch_per_tick(frames: Pixels, camera: Camera, pitch: npt.ArrayLike, yaw: npt.ArrayLike) -> Double:
    """Measured change of pitch in degrees of every tick (T - 1,), + is up; NaN where nothing is certain.

    frames uint8 (T, Y, X, 3), pitch (T,) and the yaw of each tick (T - 1,) in degrees; NaN where yaw is. What jumps or
    climbs stairs looks as if it nodded.
    """
    view, pitches = View.of(camera, frames), np.asarray(pitch, np.float64)
    reach, near = math.ceil(view.tall * math.tan(math.radians(MAX_PITCH))), round(BAND * view.tall)
    offsets = np.arange(-reach - near, reach + near + 1.0)[:, None]
    inside = (np.abs(offsets) <= near)[..., None]
    found = []
    for k, turn in enumerate(np.asarray(yaw, np.float64)):
        if np.isnan(turn):
            found.append(np.nan)
            continue
        horizon = view.horizon(pitches[k])
        before, shown = about_horizon(frames[k], view, horizon, offsets, turn)
        after, seen = about_horizon(frames[k + 1], view, horizon, offsets, 0.0)
        sunk, score = peak(masked_correlation(before, after, (shown & inside, seen), (0,)), (reach,))
        level = math.tan(math.radians(pitches[k])) - sunk[0] / view.tall
        found.append(math.degrees(math.atan(level)) - pitches[k] if score > SURE_PITCH else np.nan)
    return np.array(found)


def about_horizon(picture: Pixels, view: View, horizon: float, offsets: Double, yaw: float) -> tuple[Double, Mask]:
    """Edges between rows, (len(offsets), angles, 3), at `offsets` (rows, 1) from the horizon after a turn by `yaw`."""
    angle = np.radians(np.arange(-MIDDLE, MIDDLE, math.degrees(2 / view.focal)))
    limit = math.radians(view.hfov) / 2
    source = np.clip(angle + math.radians(yaw), -limit, limit)
    rows = horizon + offsets * np.cos(angle) / np.cos(source)
    columns = np.broadcast_to(np.tan(source) * view.focal + view.width / 2, rows.shape)
    seen = (rows > 0.5) & (rows < view.height - 0.5) & (np.abs(source) < limit)
    edges = np.gradient(sample(picture.astype(np.float64), rows, columns), axis=0)
    return edges, np.repeat(seen[..., None], 3, 2)


def from_above(picture: Pixels, view: View, pitch: float, yaw: float = 0.0) -> tuple[Double, Mask]:
    """The floor from above, (G, H, 3) in CELL eye heights, seen by a camera turned by `yaw` degrees, and its mask."""
    ahead = np.arange(FORWARD[0], FORWARD[1], CELL)
    across = np.arange(-RIGHT, RIGHT, CELL)
    z, x = np.meshgrid(ahead, across, indexing="ij")
    sin, cos = math.sin(math.radians(yaw)), math.cos(math.radians(yaw))
    z, x = z * cos - x * sin, z * sin + x * cos
    near = np.maximum(z, 0.1)
    rows, columns = view.horizon(pitch) + view.tall / near, view.focal * x / near + view.width / 2
    seen = (z > 0.5) & (rows < view.height - 0.5) & (columns > 0.5) & (columns < view.width - 0.5)
    return sample(picture.astype(np.float64), rows, columns), np.asarray(seen)


def walk_per_tick(frames: Pixels, camera: Camera, pitch: npt.ArrayLike, yaw: npt.ArrayLike) -> Double:
    """Measured steps over the floor of every tick: (T - 1, 2) forward and right, in eye heights.

    frames uint8 (T, Y, X, 3); pitch (T,) and the yaw of each tick (T - 1,) in degrees. NaN where nothing is certain.
    """
    view, pitches = View.of(camera, frames), np.asarray(pitch, np.float64)
    turns = np.nan_to_num(np.asarray(yaw, np.float64))
    reach, found = (round(MAX_WALK / CELL),) * 2, []
    for k, turn in enumerate(turns):
        before, shown = from_above(frames[k], view, pitches[k], turn)
        after, seen = from_above(frames[k + 1], view, pitches[k + 1])
        one, two = (np.repeat(m[..., None], 3, 2) for m in (shown, seen))
        shift, score = peak(masked_correlation(before, after, (one, two), (0, 1)), reach)
        found.append(shift * CELL if score > SURE else np.full(2, np.nan))
    return np.array(found).reshape(-1, 2)
