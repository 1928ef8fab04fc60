"""The flash guard: at most three large luminance flashes in any second reach the screen.

A *change* of a cell is a rise or fall of its relative luminance by a tenth or more, counted from its last turning
point, whose darker end is below 0.8. When more cells change one way than the other within an eighth of a second, by a
quarter of the picture, that is one large change; it is looked for in the whole picture, in its halves and in its
quarters, so that parts that flash against one another are found, and a view that merely moves past, where about as much
brightens as darkens, is not. A flash is a rise and a fall. The guard lets at most three large rises and three large
falls through in any second, so no more than three flashes, wherever in the picture they are.

What would be one too many is shown only as far as it may be: the picture goes part of the way from the last one, the
longest part that is allowed (none at all always is). While the world itself flashes too fast, the way leads to the
mean of the last pictures instead, so that a strobe becomes a steady grey and not a stutter. Everything else passes
untouched, the same array. Cells are an eighth of the height: patterns that are finer, and balanced, are not flashes.

Does not know about windows, recordings, or what the pictures show; saturated red is judged by its luminance alone.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Float = npt.NDArray[np.float32]

ROWS = 8  # cells from top to bottom: a little smaller than the least area that the guidelines count
CHANGE, BRIGHT = 0.1, 0.8
AREA = 0.25
TOGETHER = 0.13  # seconds within which changes count as one
SECOND = 1.05  # the second, and a frame to be safe
FLASHES = 3
SETTLE = 0.8  # seconds, at 24 pictures a second, of the mean that a strobe becomes
PARTS: tuple[float, ...] = (1.0, 0.6, 0.35, 0.2, 0.1, 0.05)
GENTLE = PARTS[3:]  # towards the mean

_LEVEL = np.arange(256) / 255
_LINEAR = np.where(_LEVEL <= 0.04045, _LEVEL / 12.92, ((_LEVEL + 0.055) / 1.055) ** 2.4)
_SHARES = [np.asarray(_LINEAR * share, np.float32) for share in (0.2126, 0.7152, 0.0722)]


def luminance(picture: Pixels) -> Float:
    """Relative luminance 0 to 1 of the cells of a picture uint8 (Y, X, 3): (rows, columns)."""
    height, width = picture.shape[:2]
    cell = max(1, round(height / ROWS))
    rows, columns = height // cell, width // cell
    part = picture[: rows * cell, : columns * cell]
    light = _SHARES[0][part[..., 0]]
    light += _SHARES[1][part[..., 1]]
    light += _SHARES[2][part[..., 2]]
    return np.asarray(light.reshape(rows, cell, columns, cell).mean((1, 3)), np.float32)


def _regions(signed: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Sums over the quarters, the halves and all of a grid of cells, as shares of the whole grid: (9,)."""
    y, x = signed.shape[0] // 2, signed.shape[1] // 2
    parts = [signed[:y, :x].sum(), signed[:y, x:].sum(), signed[y:, :x].sum(), signed[y:, x:].sum()]
    a, b, c, d = (float(part) / signed.size for part in parts)
    return np.array([a, b, c, d, a + b, c + d, a + c, b + d, a + b + c + d])


class Flashes:
    """Counts the large changes of one stream of pictures, given as `luminance` and times in seconds."""

    def __init__(self) -> None:
        self._way: npt.NDArray[np.int8] | None = None  # of each cell's last change: 1 up, -1 down, 0 none yet
        self.rises: deque[float] = deque()
        self.falls: deque[float] = deque()

    def _begin(self, light: Float) -> None:
        self._way = np.zeros(light.shape, np.int8)
        self._low, self._high = light.copy(), light.copy()
        self._rose, self._fell = (np.full(light.shape, -1e9) for _ in range(2))

    def _changes(self, light: Float) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        up = (self._way != 1) & (light - self._low >= CHANGE) & (self._low < BRIGHT)
        down = (self._way != -1) & (self._high - light >= CHANGE) & (light < BRIGHT) & ~up
        return up, down

    def would(self, light: Float, now: float) -> tuple[bool, bool]:
        """Whether a picture would complete a large rise, a large fall."""
        if self._way is None or self._way.shape != light.shape:
            return False, False
        up, down = self._changes(light)
        if not (up.any() or down.any()):
            return False, False
        risen = (up | (now - self._rose < TOGETHER)) & ~down
        fallen = (down | (now - self._fell < TOGETHER)) & ~up
        net = _regions(risen.astype(np.float64) - fallen)
        return bool(up.any() and net.max() >= AREA), bool(down.any() and net.min() <= -AREA)

    def add(self, light: Float, now: float) -> None:
        """The picture is part of the stream."""
        if self._way is None or self._way.shape != light.shape:
            self._begin(light)
            return
        rise, fall = self.would(light, now)
        up, down = self._changes(light)
        for changed, way, when, other in ((up, 1, self._rose, self._fell), (down, -1, self._fell, self._rose)):
            self._way[changed] = way
            when[changed], other[changed] = now, -1e9
        for large, when, times in ((rise, self._rose, self.rises), (fall, self._fell, self.falls)):
            if large:
                when.fill(-1e9)
                times.append(now)
        self._high = np.where(up, light, np.maximum(self._high, light))
        self._low = np.where(down, light, np.minimum(self._low, light))
        self._high[down], self._low[up] = light[down], light[up]

    def recent(self, now: float) -> tuple[int, int]:
        """Large rises and large falls in the last second."""
        for times in (self.rises, self.falls):
            while times and now - times[0] > SECOND:
                times.popleft()
        return len(self.rises), len(self.falls)


class FlashGuard:
    """Pass every picture for the screen through `show`; `softened` counts those that were changed."""

    def __init__(self, on: bool = True) -> None:
        self.on = on
        self.softened = 0
        self.forget()

    def forget(self) -> None:
        """Another scene: what came before no longer counts."""
        self._given, self._shown = Flashes(), Flashes()
        self._last: Pixels | None = None
        self._mean: Float | None = None

    def show(self, picture: Pixels, now: float) -> Pixels:
        """What may be shown at `now` seconds in place of a picture uint8 (Y, X, 3); the picture itself where it may."""
        light = luminance(picture)
        self._given.add(light, now)
        if self._last is None or self._last.shape != picture.shape or not self.on:
            return self._take(picture, light, now)
        if max(self._given.recent(now)) <= FLASHES:
            self._mean = None
            if self._may(light, now):
                return self._take(picture, light, now)
            goal, parts = picture.astype(np.float32), PARTS
        else:
            goal, parts = self._settle(picture), GENTLE
        self.softened += 1
        for part in parts:
            mixed = np.asarray(np.rint(self._last + part * (goal - self._last)), np.uint8)
            light = luminance(mixed)
            if self._may(light, now):
                return self._take(mixed, light, now)
        return self._take(self._last, luminance(self._last), now)

    def _settle(self, picture: Pixels) -> Float:
        """The running mean of the pictures since the world began to flash too fast."""
        assert self._last is not None
        mean = self._last.astype(np.float32) if self._mean is None else self._mean
        self._mean = mean + (picture - mean) * np.float32(1 / (24 * SETTLE))
        return self._mean

    def _may(self, light: Float, now: float) -> bool:
        rise, fall = self._shown.would(light, now)
        rises, falls = self._shown.recent(now)
        return not (rise and rises >= FLASHES) and not (fall and falls >= FLASHES)

    def _take(self, picture: Pixels, light: Float, now: float) -> Pixels:
        self._shown.add(light, now)
        self._shown.recent(now)
        self._last = picture
        return picture
