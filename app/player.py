"""PlaySession: one scene being played, without a display: samples ticks, sends actions, says which frame is due.

The same code serves the window, the headless run and the tests: time, input and generator are passed in. A loop calls
`poll`, `sample`, then shows what `due` returns and reports it with `shown`, and rests until `next_wake`. Nothing here
waits. The timing contract is written in `app.pacing`.

Does not know about windows, devices, processes or files.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from app.figures import Figures
from app.pacing import Clock, DisplayGrid, Lead, PacingConfig
from app.protocol import Failed, Frames, Reply
from controls.action import Action

Pixels = npt.NDArray[np.uint8]
Row = tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]  # keys (K,), look (2,) of one tick


class TickSource(Protocol):
    """Where ticks come from: an input sampler or a script."""

    def tick(self) -> Row: ...


class Generator(Protocol):
    """What a session needs of the generator process."""

    @property
    def can_step(self) -> bool: ...
    def reset(self, picture: Pixels, seed: int) -> None: ...
    def step(self, index: int, action: Action) -> None: ...
    def take(self, reply: Frames) -> Pixels | None: ...
    def poll(self) -> list[Reply]: ...


@dataclass(frozen=True)
class VideoFrame:
    """One frame uint8 (Y, X, 3), its number since the reset, and when the tick that led to it began (None: frame 0)."""

    number: int
    pixels: Pixels
    tick_began: float | None


@dataclass(frozen=True)
class _Sent:
    index: int
    when: float
    tick_began: tuple[float, ...]


class PlaySession:
    """Plays one scene; `failure` is a sentence once the generator is lost, `started` is set by the first frame."""

    def __init__(
        self,
        generator: Generator,
        source: TickSource,
        clock: Clock,
        config: PacingConfig | None = None,
    ) -> None:
        self.config = config or PacingConfig()
        self.generator = generator
        self.source = source
        self.clock = clock
        self.figures = Figures()
        self.lead = Lead(self.config)
        self.last_action: Action | None = None
        self.failure: str | None = None
        self.first_generated: float | None = None
        self._clear()

    def _clear(self) -> None:
        self.grid = DisplayGrid(self.config)
        self.paused = False
        self.started = False
        self._queue: deque[VideoFrame] = deque()
        self._taken = 0.0  # when `due` gave the frame that is being drawn
        self._rows: list[Row] = []
        self._row_began: list[float] = []
        self._sent: _Sent | None = None
        self._index = 1  # the next latent frame to ask for
        self._next = 0  # the next video frame to show
        self._last_tick = 0.0  # when the tick before the next one ended
        self._ticks_from = 0.0  # where the ticks of this action begin

    @property
    def frame_index(self) -> int:
        """The latent frame that is being shown."""
        return max(0, self._next - 1 + self.config.ticks - 1) // self.config.ticks

    def begin(self, picture: Pixels, seed: int) -> None:
        """Start, or start again, from picture uint8 (Y, X, 3)."""
        self._clear()
        self.generator.reset(picture, seed)

    def poll(self) -> None:
        """Take what the generator has said since the last call."""
        self.feed(self.generator.poll())

    def feed(self, replies: Iterable[Reply]) -> None:
        """Take replies that someone else has polled."""
        for reply in replies:
            if isinstance(reply, Frames):
                self._arrived(reply)
            elif isinstance(reply, Failed) and reply.fatal:
                self.failure = reply.message

    def _arrived(self, reply: Frames) -> None:
        now = self.clock.now()
        pixels = self.generator.take(reply)
        if pixels is None:
            return
        if reply.index == 0:
            self._queue.append(VideoFrame(0, pixels[0], None))
            self.grid.anchor(0, now)
            return
        assert self._sent is not None and self._sent.index == reply.index, f"latent frame {reply.index} unasked"
        sent, self._sent = self._sent, None
        self.lead.measured(now - sent.when + self.grid.ahead)
        self.figures.step_ms.add(reply.step_ms)
        self.figures.decode_ms.add(reply.decode_ms)
        if self.first_generated is None:
            self.first_generated = now
        first = self._first_of(reply.index)
        if self.lead.overloaded and now > self.grid.deadline(first) + self.config.period / 2:
            self.grid.anchor(first, now)
        for i, picture in enumerate(pixels):
            self._queue.append(VideoFrame(first + i, picture, sent.tick_began[i]))

    def _first_of(self, index: int) -> int:
        return self.config.ticks * (index - 1) + 1

    @property
    def has_frame(self) -> bool:
        """Whether there is a frame to show sooner or later."""
        return bool(self._queue)

    def sample_time(self) -> float:
        """S(k, i): when the next tick ends; the ticks of an action are spread evenly up to its sending."""
        if not self.config.paced:
            return self._ticks_from
        sending = self.grid.deadline(self._first_of(self._index)) - self.lead.seconds
        share = (len(self._rows) + 1) / self.config.ticks
        return self._ticks_from + share * max(0.0, sending - self._ticks_from)

    def _may_sample(self) -> bool:
        if not self.started or self.paused or self.failure is not None:
            return False
        last = len(self._rows) == self.config.ticks - 1
        busy = self._sent is not None or not self.generator.can_step
        behind = len(self._queue) > 2 * self.config.ticks  # the display is stuck: do not run ahead of it
        return not (behind or (busy and (last or not self.config.paced)))

    def sample(self) -> None:
        """Read the ticks that are over and send the action when it is complete."""
        while self._may_sample() and (now := self.clock.now()) >= self.sample_time():
            self._row_began.append(self._last_tick if self.config.paced else now)
            self._rows.append(self.source.tick())
            self._last_tick = now
            if len(self._rows) == self.config.ticks:
                self._send(now)

    def _send(self, now: float) -> None:
        keys = np.stack([row[0] for row in self._rows])
        look = np.stack([row[1] for row in self._rows])
        self.last_action = Action(keys, look)
        self.generator.step(self._index, self.last_action)
        self._sent = _Sent(self._index, now, tuple(self._row_began))
        self._rows, self._row_began = [], []
        self._index += 1
        self._ticks_from = now

    def due(self) -> VideoFrame | None:
        """The frame to show now, if one is due."""
        if self.paused or not self._queue:
            return None
        self._taken = self.clock.now()
        if self.config.paced and self._taken < self.grid.due(self._queue[0].number):
            return None
        return self._queue.popleft()

    def shown(self, frame: VideoFrame) -> None:
        """`frame` has just been submitted to the display: measure it."""
        now = self.clock.now()
        late = self.grid.shown(frame.number, now, now - self._taken) and self.config.paced
        self.figures.frame(now, late, generated=frame.number > 0)
        if frame.tick_began is not None:
            self.figures.input_to_submit_ms.add(1000 * (now - frame.tick_began))
        self._next = frame.number + 1
        if not self.started:
            self.started = True
            self._anchor(now)

    def _anchor(self, now: float) -> None:
        """Put the next frames as early as possible, leaving a full action's time before its sending."""
        config = self.config
        room = now + config.latent_period + self.lead.seconds
        boundary = self._first_of(self._index)
        self.grid.anchor(boundary, max(room, now + (boundary - self._next + 1) * config.period))
        self._last_tick = self._ticks_from = now

    def pause(self) -> None:
        """Stop sampling and showing; frames that are on their way are kept."""
        self.paused = True

    def resume(self) -> None:
        """Go on; the grid is anchored anew, ticks of a begun action are kept."""
        self.paused = False
        if self.started:
            self._anchor(self.clock.now())

    def waiting(self) -> float:
        """How long the generator has owed an answer, in seconds."""
        return self.clock.now() - self._sent.when if self._sent is not None else 0.0

    def next_wake(self, limit: float = 0.05) -> float:
        """When something is due next, at most `limit` seconds from now."""
        now = self.clock.now()
        times = [now + limit]
        if self._queue and not self.paused:
            times.append(self.grid.due(self._queue[0].number) if self.config.paced else now)
        if self._may_sample():
            times.append(self.sample_time())
        return min(times)
