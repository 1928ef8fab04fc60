"""Camera: how far each tick turned the picture, as a ray map; and poses in map units.

Shape key: H, W grid over the picture, "..." any leading axes (B, F, ticks).
Camera frame: x right, y up, z forward. Yaw + turns right, pitch + looks up, both in degrees.
Map frame (Doom): x east, y north, z up; yaw 0 faces east, + turns right: minus the engine's angle.

The engine is a software renderer: it draws pitch as a vertical shear, not as a rotation, and keeps vertical
lines upright. The ray map rotates all the same. Both move the middle of the picture alike, and a rotation is
what any other world needs; the network learns the difference.

The ray map holds directions only. Where the camera moved to is the world's business (walls stop it), so there
are no origin channels.

Does not know about devices, actions, engines or networks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float32]
Double = npt.NDArray[np.float64]

PICTURE_ASPECT = 16 / 10  # width_px / height_px of the picture
RAY_SCALE = 32.0  # 1 / radians(2), about: yaw of std 2 degrees per tick gives the x channel about unit std
PITCH_LIMIT = 89.0  # degrees; a pose never tips over


@dataclass(frozen=True)
class Camera:
    """A pinhole camera with a horizontal field of view in degrees and a picture aspect (width / height)."""

    hfov_degrees: float = 90.0
    aspect: float = PICTURE_ASPECT

    def __post_init__(self) -> None:
        assert 0.0 < self.hfov_degrees < 180.0, f"hfov {self.hfov_degrees} is not between 0 and 180 degrees"

    def rays(self, height: int, width: int) -> Double:
        """Unit directions through the centres of an H x W grid over the picture: (3, H, W), row 0 on top."""
        half = math.tan(math.radians(self.hfov_degrees) / 2)
        across = ((np.arange(width) + 0.5) / width * 2 - 1) * half
        up = (1 - (np.arange(height) + 0.5) / height * 2) * half / self.aspect
        x, y = np.meshgrid(across, up)
        rays = np.stack([x, y, np.ones_like(x)])
        return np.asarray(rays / np.linalg.norm(rays, axis=0), np.float64)

    def ray_map(self, look: npt.ArrayLike, height: int, width: int) -> Float:
        """Turn of each tick relative to the tick before: look (..., 2) degrees to float32 (..., 3, H, W).

        Rotated minus unrotated ray direction times RAY_SCALE (no unit); exactly zero where look is zero.
        """
        turn = turn_minus_identity(look) * RAY_SCALE
        flat = turn.astype(np.float32) @ self.rays(height, width).reshape(3, -1).astype(np.float32)
        return np.asarray(flat.reshape(*turn.shape[:-2], 3, height, width), np.float32)


def ray_map(look: npt.ArrayLike, height: int, width: int, hfov: float) -> Float:
    """`Camera(hfov).ray_map`: look (..., 2) degrees per tick to float32 (..., 3, H, W)."""
    return Camera(hfov).ray_map(look, height, width)


def turn_minus_identity(look: npt.ArrayLike) -> Double:
    """Rotation of the camera frame (pitch, then yaw) minus identity: look (..., 2) degrees to (..., 3, 3).

    The matrix maps a direction of the old camera frame's grid to where that grid ray points after the turn.
    `cos - 1` comes from half angles, so small turns keep their precision and no turn is exactly zero.
    """
    angles = np.radians(np.asarray(look, np.float64))
    sin_yaw, sin_pitch = np.sin(angles[..., 0]), np.sin(angles[..., 1])
    versed = -2 * np.sin(angles / 2) ** 2  # cos - 1
    yaw, pitch = versed[..., 0], versed[..., 1]
    cos_yaw, cos_pitch = yaw + 1, pitch + 1
    matrix = np.zeros((*angles.shape[:-1], 3, 3))
    matrix[..., 0, 0] = yaw
    matrix[..., 0, 1] = -sin_yaw * sin_pitch
    matrix[..., 0, 2] = sin_yaw * cos_pitch
    matrix[..., 1, 1] = pitch
    matrix[..., 1, 2] = sin_pitch
    matrix[..., 2, 0] = -sin_yaw
    matrix[..., 2, 1] = -cos_yaw * sin_pitch
    matrix[..., 2, 2] = yaw * cos_pitch + pitch
    return matrix


class Pose(NamedTuple):
    """Where a camera is: x, y, z in map units; yaw and pitch in degrees. One row of a clip's pose table."""

    x: float = 0.0
    y: float = 0.0
    z: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0


def wrap_degrees(angle: npt.ArrayLike) -> Double:
    """The same angle in [-180, 180)."""
    wrapped = np.mod(np.asarray(angle, np.float64) + 180.0, 360.0) - 180.0
    return np.where(wrapped >= 180.0, -180.0, wrapped)  # mod rounds up to 360 for tiny negative sums


def advance(pose: npt.ArrayLike, look: npt.ArrayLike, move: npt.ArrayLike) -> Double:
    """Turn, then walk: pose (..., 5), look (..., 2) degrees, move (..., 3) forward, right, up -> (..., 5).

    `move` is in map units along the new heading, level with the ground (pitch does not tilt it).
    """
    start, turn, step = (np.asarray(a, np.float64) for a in (pose, look, move))
    yaw = wrap_degrees(start[..., 3] + turn[..., 0])
    pitch = np.clip(start[..., 4] + turn[..., 1], -PITCH_LIMIT, PITCH_LIMIT)
    sin, cos = np.sin(np.radians(yaw)), np.cos(np.radians(yaw))
    forward, right, up = step[..., 0], step[..., 1], step[..., 2]
    x = start[..., 0] + cos * forward - sin * right
    y = start[..., 1] - sin * forward - cos * right
    return np.stack(np.broadcast_arrays(x, y, start[..., 2] + up, yaw, pitch), axis=-1)


def relative_pose(a: npt.ArrayLike, b: npt.ArrayLike) -> tuple[Double, Double]:
    """The (look, move) from pose a to pose b, each (..., 5): `advance(a, *relative_pose(a, b))` is b."""
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    yaw = np.radians(second[..., 3])
    sin, cos = np.sin(yaw), np.cos(yaw)
    delta = second[..., :3] - first[..., :3]
    forward = cos * delta[..., 0] - sin * delta[..., 1]
    right = -sin * delta[..., 0] - cos * delta[..., 1]
    look = np.stack(
        [wrap_degrees(second[..., 3] - first[..., 3]), second[..., 4] - first[..., 4]],
        axis=-1,
    )
    return look, np.stack(np.broadcast_arrays(forward, right, delta[..., 2]), axis=-1)
