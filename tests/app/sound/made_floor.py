"""An endless smooth random floor, seen from eye height."""

from __future__ import annotations

import numpy as np


def floor(step: float, count: int, size: tuple[int, int] = (256, 160), drift: float = 0.0) -> list[np.ndarray]:
    """Pictures of an endless smooth random floor, `step` eye heights further (and `drift` to the right) each."""
    rng = np.random.default_rng(5)
    waves = [(rng.uniform(-2, 2), rng.uniform(-2, 2), rng.uniform(0, 6)) for _ in range(9)]
    width, height = size
    focal = width / 2 / np.tan(np.radians(100.4) / 2)
    y, x = np.mgrid[0:height, 0:width] + 0.5
    below = np.maximum(y - height / 2, 0.5)
    ahead = 1.2 * focal / below
    across = (x - width / 2) / focal * ahead
    pictures = []
    for k in range(count):
        value = sum(np.sin(a * (ahead + k * step) * 2 + b * (across + k * drift) * 2 + c) for a, b, c in waves)
        shade = np.where(y > height / 2, 128 + 22 * np.asarray(value), 90)
        pictures.append(np.repeat(np.clip(shade, 0, 255).astype(np.uint8)[..., None], 3, 2))
    return pictures
