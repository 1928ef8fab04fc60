"""From motion to footsteps: a stride runs while the floor moves, and says when a foot comes down.

Does not know where the motion comes from or what a footstep sounds like.
"""

from __future__ import annotations

from collections import deque
from statistics import median

from app.sound.motion import Motion

START, STOP = 0.045, 0.028  # eye heights per picture from which walking begins, and below which it ends
HISTORY = 6  # pictures whose median counts: one wrong measurement is not heard
PATIENCE = 12  # pictures without a sure measurement after which the walk has ended
FIRST = 0.75  # the first foot comes down soon after the start
SLOWEST, FASTEST = 1.5, 3.3  # steps a second
PER_SPEED = 0.26  # steps a second for each eye height a second: strides grow with speed as well


def cadence(speed: float, fps: float) -> float:
    """Steps a second at `speed` eye heights per picture."""
    return min(SLOWEST + PER_SPEED * speed * fps, FASTEST)


class Stride:
    """Feed the motion of every shown picture to `step`; `speed` is the smoothed one, 0 when standing."""

    def __init__(self, fps: float) -> None:
        self.fps = fps
        self.reset()

    def reset(self) -> None:
        """Stand still."""
        self.speed = 0.0
        self._recent: deque[float] = deque([0.0] * (HISTORY // 2), maxlen=HISTORY)
        self._unsure = 0
        self._phase = FIRST

    def step(self, motion: Motion) -> bool:
        """Whether a foot comes down with this picture."""
        self._unsure = 0 if motion.sure else self._unsure + 1
        if motion.sure:
            self._recent.append(motion.speed)
        elif self._unsure > PATIENCE:
            self._recent.append(0.0)
        speed = float(median(self._recent))
        self.speed = speed if speed > (STOP if self.speed else START) else 0.0
        if not self.speed:
            self._phase = FIRST
            return False
        self._phase += cadence(self.speed, self.fps) / self.fps
        if self._phase < 1:
            return False
        self._phase -= 1
        return True
