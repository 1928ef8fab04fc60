"""How near everything is in a picture of *Halls*, from the map itself: rays through its grid of floors and ceilings.

Shape key: n pictures, h, w rows and columns of rays. Lengths in map units; distances are along the level heading, as
the parallax counts them (tokenizer/parallax.py): looking up or down only shifts the picture.
Does not know: networks, clips, how a map is drawn.
"""

import math

import numpy as np

from generator.data.halls.canvas import SUB, Canvas

STRETCH = 1.2  # the engine's pixels are so much taller than wide
FIRST, FINE, SHARE, FAR = 6.0, 2.0, 0.008, 4000.0  # rays go on by FINE or a SHARE of the way; FAR is the sky's distance


def ray_slopes(hfov: float, size: tuple[int, int], rays: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Right (w,) and down (h,) per unit forward of rays (w, h) through a level picture of size (width, height)."""
    edge = math.tan(math.radians(hfov) / 2)
    across, down = ((np.arange(count) + 0.5) / count * 2 - 1 for count in rays)
    return across * edge, down * edge * size[1] / size[0] / STRETCH


def nearness(
    c: Canvas, poses: np.ndarray, hfov: float, size: tuple[int, int] = (256, 160), rays: tuple[int, int] = (64, 40)
) -> np.ndarray:
    """1 / distance (n, h, w) float32 of what cameras see: poses (n, 5) are x, y, z, yaw, pitch; 0 is the sky."""
    across, down = ray_slopes(hfov, size, rays)
    x, y, z, yaw, pitch = np.asarray(poses, np.float64).T[:, :, None, None]
    angle = np.deg2rad(-yaw)
    step_x = np.cos(angle) + across * np.sin(angle) + 0 * down[:, None]
    step_y = np.sin(angle) - across * np.cos(angle) + 0 * down[:, None]
    step_z = np.tan(np.deg2rad(pitch)) - down[:, None] + 0 * step_x
    start = [np.broadcast_to(v, step_x.shape).ravel() for v in (x, y, z)]
    steps = [v.ravel() for v in (step_x, step_y, step_z)]
    found, open_rays, distance = np.zeros(step_x.size), np.arange(step_x.size), FIRST
    while distance < FAR and len(open_rays):
        here = [begin[open_rays] + distance * step[open_rays] for begin, step in zip(start, steps, strict=True)]
        column, row = (
            np.clip((v // SUB).astype(int), 0, side - 1) for v, side in zip(here, c.shape[::-1], strict=False)
        )
        above = here[2] > c.ceil[row, column]
        hit = c.solid[row, column] | (here[2] < c.floor[row, column]) | (above & ~c.sky[row, column])
        found[open_rays[hit]] = 1.0 / distance
        open_rays = open_rays[~(hit | above)]
        distance += max(FINE, SHARE * distance)
    return found.reshape(step_x.shape).astype(np.float32)
