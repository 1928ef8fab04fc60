"""InputSampler: events of any device in, one row per tick out, four rows to an Action.

Nothing a player does is lost: mouse motion is summed and what one tick cannot carry goes to the next, a tap
shorter than a tick counts for one tick, and losing focus releases everything.

Does not know about pygame, windows, clocks (the caller decides when a tick is), files or networks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from controls.action import Action, ActionSpec, Float, Keys
from controls.bindings import LOOK_INPUTS, WINDOW_INPUTS, Bindings

LOOK_STEP = 1 / 1024  # degrees; look is a multiple of it, so float32, JSON and the encoding carry it exactly
KEY_RATE = 3.0  # degrees per tick of a turn key
STICK_RATE = 6.0  # degrees per tick of a stick pushed all the way
STICK_PRESS, STICK_RELEASE = (
    0.5,
    0.4,
)  # a stick direction bound to a key acts as a button with hysteresis
PITCH_SHARE = 0.5  # keys and sticks look up and down at this share of their turning rate
# unit (yaw, pitch) of each look input
LOOK_UNITS = dict(
    zip(
        LOOK_INPUTS,
        ((-1.0, 0.0), (1.0, 0.0), (0.0, PITCH_SHARE), (0.0, -PITCH_SHARE)),
        strict=True,
    )
)


class TickRow(NamedTuple):
    """One tick: `keys` uint8 (K,) of 0 or 1, `look` float32 (2,) yaw and pitch in degrees."""

    keys: Keys
    look: Float


def quantise_look(look: npt.ArrayLike, max_look: float) -> Float:
    """Degrees to the nearest multiple of LOOK_STEP within +-max_look, float32 of the same shape."""
    steps = np.rint(np.asarray(look, np.float64) / LOOK_STEP) * LOOK_STEP
    return np.clip(steps, -max_look, max_look).astype(np.float32)


class ActionBuilder:
    """Stacks the rows of consecutive ticks into one Action.

    With more rows than an action has ticks (the generator came late) the two oldest become one: keys are
    joined, look is summed.
    """

    def __init__(self, spec: ActionSpec) -> None:
        self.spec = spec
        self.rows: list[TickRow] = []

    @property
    def missing(self) -> int:
        """How many rows are still wanted."""
        return self.spec.ticks - len(self.rows)

    def add(self, row: TickRow) -> npt.NDArray[np.float64]:
        """Append one row; returns the look (2,) in degrees that merging rows could not carry."""
        self.rows.append(row)
        if self.missing >= 0:
            return np.zeros(2)
        first, second = self.rows[:2]
        total = first.look.astype(np.float64) + second.look
        look = quantise_look(total, self.spec.max_look)
        self.rows[:2] = [TickRow(first.keys | second.keys, look)]
        return total - look

    def take(self) -> Action:
        """The finished Action; the builder is empty afterwards. Needs exactly `spec.ticks` rows."""
        assert self.missing == 0, f"{len(self.rows)} rows are not {self.spec.ticks} ticks"
        rows, self.rows = self.rows, []
        return Action(np.stack([row.keys for row in rows]), np.stack([row.look for row in rows]))


class InputSampler:
    """Turns device-neutral events into ticks.

    `sensitivity` is in degrees per pixel of mouse motion; `invert` turns the vertical look of mouse, stick.
    `turning` is the share of their usual rate at which keys and sticks turn the view.
    """

    def __init__(
        self,
        spec: ActionSpec,
        bindings: Bindings,
        sensitivity: float = 0.12,
        invert: bool = False,
    ) -> None:
        self.spec = spec
        self.sensitivity = sensitivity
        self.invert = invert
        self.turning = 1.0
        self.rebind(bindings)

    def rebind(self, bindings: Bindings) -> None:
        """Use other bindings from now on; everything held is released."""
        self.bindings = bindings
        self._input_of = bindings.by_source()
        self.reset()

    def reset(self) -> None:
        """Forget everything, motion and unfinished actions included (a new scene, the end of a pause)."""
        self._held: set[str] = set()  # sources
        self._asked: set[str] = set()  # window inputs pressed since they were taken
        self._latched: set[str] = set()  # toggled inputs that are on
        self._tapped: set[str] = set()  # inputs pressed since the last tick
        self._analog: dict[str, float] = {}  # stick direction -> 0..1
        self._motion = np.zeros(2)  # degrees not yet given to a tick
        self._builder = ActionBuilder(self.spec)

    def press(self, source: str) -> None:
        """A key or button went down; repeats and unbound sources do nothing."""
        name = self._input_of.get(source)
        if name is None or source in self._held:
            return
        self._held.add(source)
        if name in WINDOW_INPUTS:
            self._asked.add(name)
        elif name not in self.bindings.toggle:
            self._tapped.add(name)
        elif name in self._latched:
            self._latched.remove(name)
        else:
            self._latched.add(name)
            self._tapped.add(name)

    def release(self, source: str) -> None:
        """A key or button went up."""
        self._held.discard(source)

    def take(self, name: str) -> bool:
        """Whether a window input was pressed since the last call."""
        if name not in self._asked:
            return False
        self._asked.remove(name)
        return True

    def motion(self, dx: float, dy: float) -> None:
        """Mouse motion in pixels, + right and + down; summed until ticks have carried all of it."""
        pitch = dy if self.invert else -dy
        self._motion += np.array([dx, pitch]) * self.sensitivity

    def stick(self, side: str, x: float, y: float) -> None:
        """A stick's position after its dead zone, `side` left or right, in [-1, 1], + right and + down."""
        amounts = {"left": -x, "right": x, "up": -y, "down": y}
        for direction, amount in amounts.items():
            source = f"pad {side} stick {direction}"
            self._analog[source] = min(max(amount, 0.0), 1.0)
            if self._input_of.get(source) in LOOK_UNITS:
                continue
            if amount >= STICK_PRESS:
                self.press(source)
            elif amount < STICK_RELEASE:
                self.release(source)

    def focus_lost(self) -> None:
        """Release every key, button, toggle and stick; motion and taps that already happened still count."""
        self._held.clear()
        self._latched.clear()
        self._analog.clear()

    @property
    def waiting(self) -> tuple[float, float]:
        """Yaw and pitch in degrees that no tick has carried yet."""
        return float(self._motion[0]), float(self._motion[1])

    def still(self) -> None:
        """Throw away taps and motion that no tick has carried; what is held stays held."""
        self._tapped.clear()
        self._motion[:] = 0.0

    @property
    def held(self) -> frozenset[str]:
        """Named inputs that are on now, for an overlay."""
        sticks = {self._input_of[s] for s, amount in self._analog.items() if amount and s in self._input_of}
        buttons = {self._input_of[s] for s in self._held} - set(self.bindings.toggle)
        return frozenset(buttons | self._latched | (sticks & LOOK_UNITS.keys()))

    def tick(self, share: int = 1) -> TickRow:
        """Sample one tick now; call it as late as possible. Takes 1/`share` of the motion that is waiting."""
        on = self.held | self._tapped
        keys = np.array([key in on for key in self.spec.keys], np.uint8)
        rate = self._look_rate()
        look = quantise_look(self._motion / share + rate, self.spec.max_look)
        self._motion += rate - look
        self._tapped.clear()
        return TickRow(keys, look)

    def advance(self) -> TickRow:
        """Sample one tick now and keep it for `collect`; for a window that ticks while it waits."""
        row = self.tick()
        self._motion += self._builder.add(row)
        return row

    def collect(self) -> Action:
        """The Action of the next latent frame: ticks kept by `advance`, the rest sampled now.

        What happens after its last tick was kept belongs to the action after it.
        Motion waiting is spread evenly over the ticks sampled now, as a hand would have moved.
        """
        while self._builder.missing:
            self._builder.add(self.tick(share=self._builder.missing))
        return self._builder.take()

    def _look_rate(self) -> npt.NDArray[np.float64]:
        """Degrees (2,) that turn keys and sticks ask for in one tick; the stronger of two sources counts."""
        amounts = dict.fromkeys(LOOK_UNITS, 0.0)
        pressed = {self._input_of[source] for source in self._held} | self._tapped
        for name in pressed & amounts.keys():
            amounts[name] = KEY_RATE
        for source, amount in self._analog.items():
            name = self._input_of.get(source, "")
            if name in amounts:
                rate = STICK_RATE * amount**2  # fine near the middle, fast at the rim
                flipped = self.invert and name in ("look_up", "look_down")
                name = {"look_up": "look_down", "look_down": "look_up"}[name] if flipped else name
                amounts[name] = max(amounts[name], rate)
        total = np.zeros(2)
        for name, amount in amounts.items():
            total += np.array(LOOK_UNITS[name]) * amount
        return total * self.turning
