"""Figures: percentiles, frame rate and memory, for the F3 overlay and the headless report.

Does not know where the numbers come from or how they are shown.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path

import numpy as np

_IMPORTED = time.perf_counter()


def percentiles(values: Iterable[float]) -> dict[str, float]:
    """{p50, p99, max} rounded to 0.01; zeros when there are no values."""
    data = np.fromiter(values, np.float64)
    if data.size == 0:
        return {"p50": 0.0, "p99": 0.0, "max": 0.0}
    p50, p99 = np.percentile(data, (50, 99))
    return {
        "p50": round(float(p50), 2),
        "p99": round(float(p99), 2),
        "max": round(float(data.max()), 2),
    }


def own_peak_rss_mb() -> float:
    """The peak resident memory of this process in MB; 0 where the system does not tell."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


def process_age() -> float:
    """Seconds since this process started; since this module was imported where the system does not tell."""
    try:
        import os

        started = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        return max(0.0, uptime - started / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError):
        return time.perf_counter() - _IMPORTED


class Series:
    """Numbers in order: all are kept for the report up to `limit` (the newest), `recent` for the overlay."""

    def __init__(self, limit: int = 100_000) -> None:
        self._values: deque[float] = deque(maxlen=limit)

    def add(self, value: float) -> None:
        """Append one number."""
        self._values.append(value)

    def __len__(self) -> int:
        return len(self._values)

    def all(self) -> dict[str, float]:
        """{p50, p99, max} of everything kept."""
        return percentiles(self._values)

    def recent(self, count: int = 240) -> dict[str, float]:
        """{p50, p99, max} of the newest `count` numbers."""
        start = max(0, len(self._values) - count)
        return percentiles(self._values[i] for i in range(start, len(self._values)))


class Figures:
    """What one session measures; times in ms, `shown` = display times in seconds."""

    def __init__(self) -> None:
        self.step_ms = Series()
        self.decode_ms = Series()
        self.input_to_submit_ms = Series()
        self.frames = 0
        self.late_frames = 0
        self._timed = 0
        self._first: float | None = None
        self._last = 0.0
        self._recent: deque[float] = deque(maxlen=49)

    def frame(self, now: float, late: bool, generated: bool = True) -> None:
        """One video frame was submitted to the display at `now`; the given first frame is held and not timed."""
        self.frames += 1
        self.late_frames += late
        if not generated:
            return
        self._timed += 1
        self._first = now if self._first is None else self._first
        self._last = now
        self._recent.append(now)

    @property
    def fps(self) -> float:
        """Video frames a second over the whole session."""
        span = self._last - self._first if self._first is not None else 0.0
        return (self._timed - 1) / span if span > 0 else 0.0

    @property
    def recent_fps(self) -> float:
        """Video frames a second over the last two seconds or so."""
        span = self._recent[-1] - self._recent[0] if len(self._recent) > 1 else 0.0
        return (len(self._recent) - 1) / span if span > 0 else 0.0
