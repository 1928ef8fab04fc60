"""PlaySession: one scene being played, without a display: samples ticks, sends actions, says which frame is due.

The same code serves the window, the headless run and the tests: time, input and generator are passed in. A loop calls
`poll`, `sample`, then shows what `due` returns and reports it with `shown`, and rests until `next_wake`. Nothing here
waits. The timing contract is written in `app.pacing`.

A player can go back: `start_rewind` shows the film of the last half minute backwards, one latent frame at a time and as
many a second as play makes; `end_rewind` asks the generator for the state of the one that is shown. `load` goes to a
saved place. Both are *jumps*: what was on its way is dropped, and play goes on from where the generator says it stands.

Does not know about windows, devices, processes or files.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.figures import Figures
from app.film import SECONDS, Film
from app.pacing import Clock, DisplayGrid, Lead, PacingConfig
from app.protocol import Failed, Frames, Loaded, Reply, Saved
from app.ticks import Generator, Pixels, Row, TickSource, VideoFrame
from controls.action import Action


@dataclass(frozen=True)
class _Sent:
    index: int
    when: float
    tick_began: tuple[float, ...]
    looked: tuple[tuple[float, float], ...]


@dataclass
class _Jump:
    """A jump that was asked for; `picture` is that of the place `path`, both None for one of the film's."""

    when: float
    picture: Pixels | None = None
    path: Path | None = None


@dataclass
class _Rewind:
    """Going back from latent frame `start` since `when`; `shown` is the one in the window."""

    when: float
    start: int
    shown: int


class PlaySession:
    """Plays one scene; `failure` is a sentence once the generator is lost, `started` is set by the first frame.

    `notices` are sentences for the player, oldest first; whoever shows them takes them out.
    """

    def __init__(
        self,
        generator: Generator,
        source: TickSource,
        clock: Clock,
        config: PacingConfig | None = None,
        film: Film | None = None,
    ) -> None:
        self.config = config or PacingConfig()
        self.generator = generator
        self.source = source
        self.clock = clock
        self.figures = Figures()
        self.lead = Lead(self.config)
        self.last_action: Action | None = None  # the newest that was sent, and for which latent frame
        self.acted = 0
        self.failure: str | None = None
        self.first_generated: float | None = None
        self.notices: deque[str] = deque(maxlen=8)
        steps = round(SECONDS * self.config.fps / self.config.ticks)
        self.film = film if film is not None else Film(steps)
        self.history_mb = 0.0  # what the generator keeps for going back
        self._oldest = 0  # as far as it reaches
        self.place: Path | None = None  # the saved place that this walk went on from last
        self._last: Pixels | None = None
        self.looked = (0.0, 0.0)  # yaw and pitch in degrees of all ticks sampled so far
        self._clear()

    def _clear(self) -> None:
        self.grid = DisplayGrid(self.config)
        self.paused = False
        self.started = False
        self._queue: deque[VideoFrame] = deque()
        self._taken = 0.0  # when `due` gave the frame that is being drawn
        self._rows: list[Row] = []
        self._row_began: list[float] = []
        self._row_looked: list[tuple[float, float]] = []
        self._sent: _Sent | None = None
        self._jump: _Jump | None = None
        self._begun: float | None = None  # when the generator was asked to begin, until it has
        self._rewind: _Rewind | None = None
        self._until: int | None = None  # a single step: the latent frame to stop after
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
        self.film.clear()
        self.place = None
        self._begun, self.failure = self.clock.now(), None
        self.generator.reset(picture, seed)

    def poll(self) -> None:
        """Take what the generator has said since the last call."""
        self.feed(self.generator.poll())

    def feed(self, replies: Iterable[Reply]) -> None:
        """Take replies that someone else has polled."""
        for reply in replies:
            match reply:
                case Frames():
                    self._arrived(reply)
                case Loaded() if self._jump is not None and reply.epoch == self.generator.epoch:
                    self._landed(self._jump, reply)
                case Saved(path):
                    self.notices.append(f"Saved in {path.stem.replace('-', ' ')}")
                case Failed():
                    self._failed(reply)

    def _failed(self, reply: Failed) -> None:
        jump = self._jump if reply.path is None else None
        if reply.fatal or (jump is not None and self._last is None):  # a saved place was to be the beginning
            self.failure = reply.message
            return
        self.notices.append(reply.message)
        if jump is not None:
            jump.picture = None

    def _arrived(self, reply: Frames) -> None:
        now = self.clock.now()
        pixels = self.generator.take(reply)
        if pixels is None:
            return
        self._oldest, self.history_mb = reply.oldest, reply.history_mb
        if self._rewind is not None:
            self._sent = None  # made, but never shown: the player is on the way back
            return
        if reply.index == 0:
            self._begun = None
            self._queue.append(VideoFrame(0, pixels[0], None))
            self.grid.anchor(0, now)
            return
        assert self._sent is not None and self._sent.index == reply.index, f"latent frame {reply.index} unasked"
        sent, self._sent = self._sent, None
        self.lead.measured(now - sent.when + self.grid.ahead)
        self.figures.cache = reply.cache
        self.figures.step_ms.add(reply.step_ms)
        self.figures.decode_ms.add(reply.decode_ms)
        if self.first_generated is None:
            self.first_generated = now
        first = self._first_of(reply.index)
        if self.lead.overloaded and now > self.grid.deadline(first) + self.config.period / 2:
            self.grid.anchor(first, now)
        for i, picture in enumerate(pixels):
            self._queue.append(VideoFrame(first + i, picture, sent.tick_began[i], sent.looked[i]))

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
        if self._jump is not None or self._rewind is not None:
            return False
        if self._until is not None and self._index > self._until:
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
            yaw, pitch = self._rows[-1][1].tolist()
            self.looked = (self.looked[0] + yaw, self.looked[1] + pitch)
            self._row_looked.append(self.looked)
            self._last_tick = now
            if len(self._rows) == self.config.ticks:
                self._send(now)

    def _send(self, now: float) -> None:
        keys = np.stack([row[0] for row in self._rows])
        look = np.stack([row[1] for row in self._rows])
        self.last_action, self.acted = Action(keys, look), self._index
        self.generator.step(self._index, self.last_action)
        self._sent = _Sent(self._index, now, tuple(self._row_began), tuple(self._row_looked))
        self._forget_ticks()
        self._index += 1
        self._ticks_from = now

    def _forget_ticks(self) -> None:
        self._rows, self._row_began, self._row_looked = [], [], []

    def due(self) -> VideoFrame | None:
        """The frame to show now, if one is due."""
        if self._rewind is not None:
            return self._film_frame(self._rewind)
        if self.paused or not self._queue:
            return None
        self._taken = self.clock.now()
        if self.config.paced and self._taken < self.grid.due(self._queue[0].number):
            return None
        return self._queue.popleft()

    def shown(self, frame: VideoFrame) -> None:
        """`frame` has just been submitted to the display: measure it."""
        now = self.clock.now()
        self._last = frame.pixels
        if self._rewind is not None:
            self._rewind.shown = frame.number // self.config.ticks
            return
        late = self.grid.shown(frame.number, now, now - self._taken) and self.config.paced
        self.figures.frame(now, late, generated=frame.tick_began is not None)
        if frame.tick_began is not None:
            self.figures.input_to_submit_ms.add(1000 * (now - frame.tick_began))
        self._next = frame.number + 1
        if frame.number % self.config.ticks == 0:
            self.film.add(frame.number // self.config.ticks, frame.pixels)
        if self._until is not None and frame.number >= self.config.ticks * self._until:
            self.pause()
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
        """Stop sampling and showing; frames that are on their way are kept. A rewind ends where it stands."""
        self.end_rewind()
        self.paused, self._until = True, None

    def resume(self) -> None:
        """Go on; the grid is anchored anew, ticks of a begun action are kept."""
        self.paused, self._until = False, None
        if self.started:
            self._anchor(self.clock.now())

    def step_once(self) -> None:
        """While paused: go on to the end of the next latent frame, and pause again."""
        if not self.paused or not self.started or self._jump is not None:
            return
        self.resume()
        self._until = (self._next - 1) // self.config.ticks + 1

    @property
    def owed(self) -> tuple[str, float] | None:
        """What the generator owes an answer to, `begin`, `jump` or `step`, and since when; None: nothing."""
        if self._begun is not None:
            return "begin", self._begun
        if self._jump is not None:
            return "jump", self._jump.when
        return ("step", self._sent.when) if self._sent is not None else None

    def waiting(self) -> float:
        """How long the generator has owed an answer, in seconds."""
        owed = self.owed
        return self.clock.now() - owed[1] if owed is not None else 0.0

    @property
    def rewinding(self) -> bool:
        """Whether the film runs backwards."""
        return self._rewind is not None

    @property
    def reach(self) -> int:
        """The latent frame furthest back that can be gone back to; the film must not be empty."""
        return min(max(self.film.oldest, self._oldest), self.film.newest)

    @property
    def memory_mb(self) -> float:
        """What is kept for going back, in both processes together."""
        return self.history_mb + self.film.nbytes / 1e6

    def start_rewind(self) -> bool:
        """Begin to go back; False when there is nothing to go back to, or something else is going on."""
        if not self.started or self.paused or self._jump is not None or self._rewind is not None or not len(self.film):
            return False
        self._queue.clear()
        self._forget_ticks()
        self._rewind = _Rewind(self.clock.now(), self.film.newest, -1)
        return True

    def rewind_index(self) -> int:
        """The latent frame that a rewind has come to by now; `frame_index` when none is going on."""
        if self._rewind is None:
            return self.frame_index
        steps = int((self.clock.now() - self._rewind.when) / self.config.latent_period)
        return max(self.reach, self._rewind.start - steps)

    def _film_frame(self, rewind: _Rewind) -> VideoFrame | None:
        index = self.rewind_index()
        picture = self.film.get(index)
        if picture is None or index == rewind.shown:
            return None
        return VideoFrame(index * self.config.ticks, picture, None)

    def end_rewind(self) -> None:
        """Go on from the latent frame that the rewind has come to; nothing happens when none is going on."""
        if self._rewind is not None:
            index = self.rewind_index()
            self._rewind = None
            self.go_back(index)

    def go_back(self, index: int) -> None:
        """Go on from latent frame `index` of the film; what came after it is forgotten."""
        self._leave(_Jump(self.clock.now()))
        self.generator.rewind(index)

    def load(self, path: Path, picture: Pixels) -> None:
        """Go on from a saved place; `picture` uint8 (Y, X, 3) is the one that was shown there."""
        self._leave(_Jump(self.clock.now(), picture, path))
        self.generator.load_state(path)

    def recover(self, path: Path, picture: Pixels) -> None:
        """After `failure`, with a generator that is ready again: as `load`, from an automatic state of this walk."""
        self._last = None  # a state that is refused is a failure again
        self._leave(_Jump(self.clock.now(), picture, self.place))
        self.generator.load_state(path)

    def _leave(self, jump: _Jump) -> None:
        self._queue.clear()
        self._forget_ticks()
        self._sent = self._rewind = self._until = self._begun = self.failure = None
        self._jump = jump

    def _landed(self, jump: _Jump, reply: Loaded) -> None:
        """The generator stands at `reply.index`: show that picture and begin a new grid there."""
        if jump.picture is not None:
            self.film.clear()
            self.place = jump.path
        self.film.cut(reply.index)
        picture = jump.picture if jump.picture is not None else self.film.get(reply.index)
        picture = picture if picture is not None else self._last
        assert picture is not None, "a jump before anything was shown"
        paused = self.paused
        self._clear()
        self.paused, self._oldest = paused, reply.oldest
        self._index = reply.index + 1
        number = self._next = self.config.ticks * reply.index
        self._queue.append(VideoFrame(number, picture, None))
        self.grid.anchor(number, self.clock.now())

    def until_due(self) -> float:
        """Seconds until the next frame that has arrived is due; a second when none has."""
        if not self._queue or self.paused:
            return 1.0
        return self.grid.due(self._queue[0].number) - self.clock.now()

    def next_wake(self, limit: float = 0.05) -> float:
        """When something is due next, at most `limit` seconds from now."""
        now = self.clock.now()
        times = [now + limit]
        if self._queue and not self.paused:
            times.append(self.grid.due(self._queue[0].number) if self.config.paced else now)
        if self._may_sample():
            times.append(self.sample_time())
        return min(times)
