"""The skies of *Halls*: a smooth gradient, a sun or moon, and a skyline that differs by quarter, for bearing.

A sky texture of 1024 pixels goes once around; column 0 looks east (angle 0) and angles grow to the left in the picture.
Does not know: maps, files, where the ceilings open.
"""

import numpy as np

from generator.data.halls.palette import THEMES, colours, index, nearest, ramp

WIDTH, HEIGHT = 1024, 256
HORIZON = 200


def _colour(theme: int, pair: tuple[str, float]) -> np.ndarray:
    shades = ramp(THEMES[theme], pair[0])
    low = int(pair[1])
    high = min(low + 1, len(shades) - 1)
    return shades[low] + (shades[high] - shades[low]) * (pair[1] - low)


def _skyline(kind: int) -> np.ndarray:
    """Height in pixels above the horizon for each column of the texture, float (1024,)."""
    x = np.arange(WIDTH, dtype=float)
    peak = np.zeros(WIDTH)
    centres = ((90, 190, 70), (210, 150, 44), (330, 90, 26))
    for centre, half, height in centres:
        peak = np.maximum(peak, height * (1 - np.abs(x - centre) / half))
    if kind == 1:
        return np.maximum(peak, 8 + 5 * np.cos(2 * np.pi * x / WIDTH * 3))
    towers = np.zeros(WIDTH)
    for centre, half, height in (
        (470, 14, 58),
        (520, 26, 34),
        (560, 10, 82),
        (600, 22, 44),
        (800, 40, 26),
        (880, 9, 62),
    ):
        towers = np.where(np.abs(x - centre) <= half, np.maximum(towers, height), towers)
    for centre, half, height, top in (
        (560, 16, 82, 22),
        (470, 18, 58, 16),
        (880, 14, 62, 18),
    ):
        roof = height + top * (1 - np.abs(x - centre) / half)
        towers = np.where(np.abs(x - centre) < half, np.maximum(towers, roof), towers)
    return np.maximum(towers, 6 + 4 * np.cos(2 * np.pi * x / WIDTH * 2 + 1))


def draw_sky(theme: int) -> np.ndarray:
    """Palette indices of the sky of a theme, uint8 (256, 1024)."""
    table = colours()
    zenith, middle, horizon = (_colour(theme, pair) for pair in THEMES[theme].sky)
    v = np.clip(np.arange(HEIGHT) / HORIZON, 0, 1)[:, None]
    column = np.where(
        v < 0.55,
        zenith + (middle - zenith) * (v / 0.55),
        middle + (horizon - middle) * ((v - 0.55) / 0.45),
    )
    bands = nearest(np.round(column), table)
    out = bands[:, None].repeat(WIDTH, 1)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    glow = _colour(theme, THEMES[theme].glow)
    distance = np.hypot(((x - 768) + WIDTH / 2) % WIDTH - WIDTH / 2, (y - 128) * 0.9)
    for radius, strength in ((74, 0.22), (56, 0.42), (40, 0.65)):
        ring = nearest(np.round(column + (glow - column) * strength), table)
        out = np.where(distance < radius, ring[:, None], out)
    out = np.where(distance < 27, index(theme, *THEMES[theme].glow), out)
    for kind, pair in ((1, THEMES[theme].far[0]), (0, THEMES[theme].far[1])):
        line = HORIZON - _skyline(kind)
        out = np.where(y >= line[None, :], index(theme, *pair), out)
    return out.astype(np.uint8)
