"""How near everything is in a picture of a map that is known, from the map itself: rays through its grid of floors and
ceilings.

Shape key: n pictures, h, w rows and columns of rays. Lengths in map units; distances are along the level heading, as
the parallax counts them (tokenizer/parallax.py): looking up or down only shifts the picture.
Does not know: networks, clips, how a map is drawn.
"""

import math
from typing import Protocol

import numba
import numpy as np
import numpy.typing as npt

STRETCH = 1.2  # the engine's pixels are so much taller than wide
FIRST, FINE, SHARE, FAR = 6.0, 2.0, 0.008, 4000.0  # rays go on by FINE or a SHARE of the way; FAR is the sky's distance


class Floors(Protocol):
    """Cells (ny, nx) of `sub` map units from the `origin` on: where there is nothing, heights of floor and ceiling, and
    where the latter is the sky.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def sub(self) -> int: ...
    @property
    def origin(self) -> tuple[float, float]: ...
    @property
    def floor(self) -> npt.NDArray[np.int16]: ...
    @property
    def ceil(self) -> npt.NDArray[np.int16]: ...
    @property
    def solid(self) -> npt.NDArray[np.bool_]: ...
    @property
    def sky(self) -> npt.NDArray[np.bool_]: ...


def ray_slopes(hfov: float, size: tuple[int, int], rays: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Right (w,) and down (h,) per unit forward of rays (w, h) through a level picture of size (width, height)."""
    edge = math.tan(math.radians(hfov) / 2)
    across, down = ((np.arange(count) + 0.5) / count * 2 - 1 for count in rays)
    return across * edge, down * edge * size[1] / size[0] / STRETCH


def nearness(
    c: Floors, poses: np.ndarray, hfov: float, size: tuple[int, int] = (256, 160), rays: tuple[int, int] = (64, 40)
) -> np.ndarray:
    """1 / distance (n, h, w) float32 of what cameras see: poses (n, 5) are x, y, z, yaw, pitch; 0 is the sky."""
    across, down = ray_slopes(hfov, size, rays)
    x, y, z, yaw, pitch = np.asarray(poses, np.float64).T[:, :, None, None]
    angle = np.deg2rad(-yaw)
    step_x = np.cos(angle) + across * np.sin(angle) + 0 * down[:, None]
    step_y = np.sin(angle) - across * np.cos(angle) + 0 * down[:, None]
    step_z = np.tan(np.deg2rad(pitch)) - down[:, None] + 0 * step_x
    start = [np.broadcast_to(v, step_x.shape).ravel() for v in (x - c.origin[0], y - c.origin[1], z)]
    steps = [v.ravel() for v in (step_x, step_y, step_z)]
    found, open_rays, distance = np.zeros(step_x.size), np.arange(step_x.size), FIRST
    while distance < FAR and len(open_rays):
        here = [begin[open_rays] + distance * step[open_rays] for begin, step in zip(start, steps, strict=True)]
        column, row = (
            np.clip((v // c.sub).astype(int), 0, side - 1) for v, side in zip(here, c.shape[::-1], strict=False)
        )
        above = here[2] > c.ceil[row, column]
        hit = c.solid[row, column] | (here[2] < c.floor[row, column]) | (above & ~c.sky[row, column])
        found[open_rays[hit]] = 1.0 / distance
        open_rays = open_rays[~(hit | above)]
        distance += max(FINE, SHARE * distance)
    return found.reshape(step_x.shape).astype(np.float32)


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _march(x, y, z, steps, far, sub, solid, floor, ceil, sky):  # type: ignore[no-untyped-def]
    """Fill distances `far` (rays,) of rays with `steps` (rays, 3) from a point, from cell to cell of the map's grid,
    `sub` wide; 0 where they meet the sky.
    """
    rows, columns = floor.shape
    for ray in range(len(steps)):
        east, north, up = steps[ray]
        column, row, distance = int(np.floor(x / sub)), int(np.floor(y / sub)), 0.0
        while distance < FAR:
            r, c = min(max(row, 0), rows - 1), min(max(column, 0), columns - 1)
            height = z + distance * up
            if distance > 0 and (solid[r, c] or height < floor[r, c] or (height > ceil[r, c] and not sky[r, c])):
                far[ray] = distance
                break
            if height > ceil[r, c] and sky[r, c]:
                break
            side = ((column + (east > 0)) * sub - x) / east if east != 0 else np.inf
            other = ((row + (north > 0)) * sub - y) / north if north != 0 else np.inf
            leaves = max(min(side, other), distance)
            height = z + leaves * up
            if up < 0 and height < floor[r, c]:
                far[ray] = max((floor[r, c] - z) / up, distance)
                break
            if up > 0 and height > ceil[r, c]:
                if not sky[r, c]:
                    far[ray] = max((ceil[r, c] - z) / up, distance)
                break
            if side <= other:
                column += 1 if east > 0 else -1
            else:
                row += 1 if north > 0 else -1
            distance = leaves


def exact_nearness(
    c: Floors, poses: np.ndarray, hfov: float, size: tuple[int, int] = (256, 160), rays: tuple[int, int] = (64, 40)
) -> np.ndarray:
    """As `nearness`, but exact: from cell to cell in place of step by step. Compiled."""
    across, down = ray_slopes(hfov, size, rays)
    made = np.zeros((len(poses), rays[1], rays[0]), np.float32)
    for number, (x, y, z, yaw, pitch) in enumerate(np.asarray(poses, np.float64)):
        angle = np.deg2rad(-yaw)
        east, north = np.cos(angle) + across * np.sin(angle), np.sin(angle) - across * np.cos(angle)
        up = np.tan(np.deg2rad(pitch)) - down[:, None]
        steps = np.stack([part.ravel() for part in np.broadcast_arrays(east, north, up)], axis=1)
        far = np.zeros(len(steps))
        _march(x - c.origin[0], y - c.origin[1], z, steps, far, c.sub, c.solid, c.floor, c.ceil, c.sky)
        made[number] = np.divide(1.0, far, out=np.zeros_like(far), where=far > 0).reshape(made[number].shape)
    return made
