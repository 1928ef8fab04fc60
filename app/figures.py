"""Figures: percentiles, frame rate and memory, for the F3 overlay and the headless report.

Does not know where the numbers come from or how they are shown.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

MEMORY_EVERY = 30.0  # seconds of video between two samples of the memory
LONGEST_FRAME = 1.0  # seconds; more is a pause
MEMORY_FIT = 3  # samples that a slope needs
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


def rss_mb(pid: int | None = None) -> float:
    """The resident memory of a process (None: this one) now, in MB; 0 where the system does not tell or it is gone."""
    try:
        pages = int(Path(f"/proc/{pid or 'self'}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / (1024 * 1024)
    except (OSError, ValueError, IndexError):
        return 0.0


def process_age() -> float:
    """Seconds since this process started; since this module was imported where the system does not tell."""
    try:
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

    def newest(self, count: int) -> list[float]:
        """The last `count` numbers, oldest first."""
        return [self._values[i] for i in range(max(0, len(self._values) - count), len(self._values))]

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
        self.look_to_submit_ms = Series()  # with the picture shifted ahead (see `app.reproject`)
        self.draw_ms = Series()  # of the window: drawing and showing what is due
        self.frame_ms = Series(240)  # between frames, pauses left out
        self.frames = 0
        self.late_frames = 0
        self.cache = (0, 0)  # latent frames in the KV cache, and how many it can hold
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
        if 0 < now - self._last < LONGEST_FRAME and self._timed:
            self.frame_ms.add(1000 * (now - self._last))
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


class MemoryTrend:
    """Resident memory in MB, read by `read` at the first frame, after every 30 s of video, and when asked.

    By frames, not by the clock, so that a run that is not paced is sampled as often as it plays.
    """

    def __init__(self, read: Callable[[], float], fps: float, every: float = MEMORY_EVERY) -> None:
        self._read = read
        self._fps = fps
        self._every = max(1, round(every * fps))
        self._samples: list[tuple[int, float]] = []

    def shown(self, frames: int) -> None:
        """`frames` video frames have been shown so far."""
        if not self._samples or frames - self._samples[-1][0] >= self._every:
            self.sample(frames)

    def sample(self, frames: int) -> None:
        """Read the memory now, after `frames` video frames."""
        if not self._samples or frames > self._samples[-1][0]:
            self._samples.append((frames, self._read()))

    def report(self) -> dict[str, float | None]:
        """{start, end, max, slope_mb_per_hour}, None where unknown.

        The slope is that of a straight line through the later half of the samples (the earlier half warms up), per
        hour of video; None when that half has fewer than three samples.
        """
        if not self._samples:
            return dict.fromkeys(("start", "end", "max", "slope_mb_per_hour"))
        frames, values = np.array(self._samples, np.float64).T
        half = len(values) // 2
        slope = None
        if len(values) - half >= MEMORY_FIT:
            slope = round(float(np.polyfit(frames[half:] / (3600 * self._fps), values[half:], 1)[0]), 1)
        start, end, most = (round(float(v), 1) for v in (values[0], values[-1], values.max()))
        return {"start": start, "end": end, "max": most, "slope_mb_per_hour": slope}
