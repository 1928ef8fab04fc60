"""Pacing: when input is sampled and when frames are shown.

The timing contract. p is one video frame (1/24 s), latent frame k >= 1 is the video frames 4(k-1)+1 .. 4k.

- Display grid: video frame n is due at D(n) = anchor + (n - base) p. Deadlines are absolute, so rounding and late
  wake-ups never add up. A frame is *late* when it is shown more than p/2 after its deadline. After a lateness the grid
  stays and the next frames catch up, never less than p/2 apart; after more than 500 ms it is anchored anew.
- Sampling grid: the four ticks of latent frame k end at S(k, i) = D(k, i) - 3p - lead and each is one p long, where
  D(k, i) is the deadline of video frame i of latent frame k. So tick i begins exactly 4p + lead = 167 ms + lead before
  its own video frame is due: that is the delay of an input, for every i, and no event waits longer. It is at the least
  3p + lead, for an event in the last moment of its tick. Each tick is read at its end: as late as possible. With a
  lead of nothing the four ticks would be exactly the time for which latent frame k-1 is shown.
- A frame is given out to be drawn a little ahead of its deadline: by the median of what drawing and submitting took.
- `lead` is what step + decode (and drawing) may take: the action is complete, and sent, at S(k, 3) = D(k, 0) - lead.
  It starts at one latent frame (4p), and follows the measured p99 of the time from sending to arrival plus a margin,
  at most 4p: down at most once in a few seconds and only when it pays, up as soon as a deadline was missed. On a
  change the ticks of one action are stretched or squeezed evenly; motion is summed, so none is lost.
- A generator that is busy at S(k, 3) holds the last tick open until it is free. When it is slower than real time
  (median over 4p) the grid slips with every late latent frame, which keeps frames evenly spaced and the delay short.

Sleeping is coarse, then a short spin. The clock is passed in. Does not know about windows, devices or processes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np


class Clock(Protocol):
    """Seconds from an arbitrary start."""

    def now(self) -> float: ...


class WallClock:
    """The machine's steady clock."""

    def now(self) -> float:
        """Seconds."""
        return time.perf_counter()


@dataclass(frozen=True)
class PacingConfig:
    """`paced` False: everything is due at once. Times in seconds, `review` in latent frames."""

    fps: float = 24.0
    ticks: int = 4
    paced: bool = True
    margin: float = 0.012
    gap: float = 0.5
    review: int = 24
    window: int = 120
    worthwhile: float = 0.008
    spin: float = 0.0015

    @property
    def period(self) -> float:
        """One video frame."""
        return 1.0 / self.fps

    @property
    def latent_period(self) -> float:
        """One latent frame."""
        return self.ticks / self.fps


class DisplayGrid:
    """Absolute deadlines of video frames."""

    def __init__(self, config: PacingConfig) -> None:
        self.config = config
        self._base = 0
        self._anchor = 0.0
        self._last_shown = -1e9
        self._drawing: deque[float] = deque(maxlen=24)
        self.ahead = 0.0  # how long before its deadline a frame is given out to be drawn

    def anchor(self, frame: int, when: float) -> None:
        """Video frame `frame` is due at `when`, the others a period apart."""
        self._base, self._anchor = frame, when

    def deadline(self, frame: int) -> float:
        """D(n): when video frame `frame` is due."""
        return self._anchor + (frame - self._base) * self.config.period

    def due(self, frame: int) -> float:
        """When to draw `frame`: for its deadline, and not sooner than half a period after the one before."""
        return max(self.deadline(frame), self._last_shown + self.config.period / 2) - self.ahead

    def shown(self, frame: int, now: float, drawing: float = 0.0) -> bool:
        """`frame` was shown at `now` after `drawing` seconds: whether it was late. Anchors anew after a gap."""
        self._drawing.append(drawing)
        middle = sorted(self._drawing)[len(self._drawing) // 2]  # in every frame: many times faster than np.median
        self.ahead = min(middle, self.config.period / 3)
        lateness = now - self.deadline(frame)
        self._last_shown = now
        if lateness > self.config.gap:
            self.anchor(frame, now)
        return lateness > self.config.period / 2


class Lead:
    """How long before a latent frame's first deadline its action is sent: follows the measured turnaround."""

    def __init__(self, config: PacingConfig) -> None:
        self.config = config
        self.seconds = config.latent_period
        self.changes = 0
        self._turnarounds: deque[float] = deque(maxlen=config.window)
        self._since = 0

    @property
    def overloaded(self) -> bool:
        """Whether the generator is slower than real time: its recent median exceeds one latent frame."""
        recent = list(self._turnarounds)[-8:]
        return len(recent) >= 4 and float(np.median(recent)) > self.config.latent_period

    def measured(self, turnaround: float) -> None:
        """One latent frame took `turnaround` seconds from sending its action to having its frames."""
        self._turnarounds.append(turnaround)
        self._since += 1
        missed = turnaround > self.seconds
        if not missed and self._since < self.config.review:
            return
        wanted = float(np.percentile(self._turnarounds, 99)) + self.config.margin
        wanted = min(wanted, self.config.latent_period)
        if (missed and wanted > self.seconds) or wanted < self.seconds - self.config.worthwhile:
            self.seconds = wanted
            self.changes += 1
        self._since = 0


def rest(clock: Clock, wait: Callable[[float], None], until: float, spin: float) -> None:
    """Sleep with `wait` until shortly before `until`, then spin; returns early when `wait` does (something arrived)."""
    left = until - clock.now()
    if left > spin:
        wait(left - spin)
        left = until - clock.now()
    if left <= spin:
        while clock.now() < until:
            pass
