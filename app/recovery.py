"""Recovery: what brings a walk back after the generator has died, hung or run out of memory.

Three parts. `Automatic` asks for a state of the walk every 5 s of play, and at once after every jump: the generator
copies it and a thread beside the next steps writes it, unpacked, to a temporary file that outlives the generator.
`Watchdog` says when an answer is overdue. `Failures` counts failures in a row; the third ends the walk.

Does not know about windows, screens or how a generator is started.
"""

from __future__ import annotations

import tempfile
from collections import deque
from pathlib import Path
from typing import Protocol

from app.pacing import Clock
from app.player import PlaySession
from app.session import GeneratorProcess
from app.statefile import StateFile
from app.ticks import Pixels
from controls.errors import UserError

EVERY = 5.0  # seconds of play between two automatic states
KEPT = 2  # automatic states: when the newest does not help, the one before it may
GOOD_PLAY = 60.0  # seconds of play after which a failure is the first again
ATTEMPTS = 3  # failures in a row that end a walk
LONGEST_TURN = 0.5  # seconds; a window that was held up longer has not been waiting for the generator
PATIENCE = {"load": 240.0, "begin": 60.0, "jump": 60.0, "step": 8.0}  # seconds without an answer
SLOW = 20.0  # a step may take this many times as long as steps have taken


class Origin(Protocol):
    """What a walk began from."""

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...


class Automatic:
    """The automatic states of the walk that is on, in a folder that is removed by `close`."""

    def __init__(self, every: float = EVERY) -> None:
        self.every = every
        self.states: deque[Path] = deque(maxlen=KEPT)  # newest last
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._number = 0
        self._epoch = -1
        self._asked_at = 0  # video frames that had been shown
        self._broken = False

    def follow(self, generator: GeneratorProcess, session: PlaySession, origin: Origin, seed: int) -> None:
        """Ask for a state when it is time; call it once a turn while the walk is on."""
        if generator.epoch != self._epoch:  # the player has gone somewhere else
            self.states.clear()
            self.resumed(generator)
        self.states.extend(generator.kept())
        shown = session.figures.frames
        due = not self.states or shown - self._asked_at >= self.every * session.config.fps
        if self._broken or not due or generator.keeping or not session.started or session.rewinding:
            return
        if not self.states and shown - self._asked_at < session.config.ticks:
            return  # a disk that refuses is not asked in every turn
        self._asked_at = shown
        try:
            generator.keep_state(self._next(), origin.name, origin.title, seed)
        except OSError:  # no room for a temporary folder: a failure leads back to the beginning
            self._broken = True

    def _next(self) -> Path:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="farstep-", ignore_cleanup_errors=True)
        self._number += 1
        return Path(self._folder.name) / f"automatic-{self._number % (KEPT + 1)}.farstep"

    def resumed(self, generator: GeneratorProcess) -> None:
        """The generator goes on in another epoch, from a state that is kept here or from somewhere else."""
        self._epoch = generator.epoch

    def newest(self) -> tuple[Path, Pixels] | None:
        """The newest state that can be read, with its picture uint8 (Y, X, 3); None when there is none."""
        while self.states:
            try:
                with StateFile(self.states[-1]) as file:
                    return self.states[-1], file.picture()
            except UserError:
                self.states.pop()
        return None

    def forget_newest(self) -> None:
        """What was resumed from the newest state has failed: the one before it is the newest now, if there is one."""
        if len(self.states) > 1:
            self.states.pop()

    def close(self) -> None:
        """Remove the files; harmless when repeated."""
        self.states.clear()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


class Failures:
    """Counts failures in a row: a minute of good play between two makes the next one the first."""

    def __init__(self) -> None:
        self.row = 0
        self._shown = 0

    def another(self, session: PlaySession) -> bool:
        """The generator has failed: whether to start it once more."""
        played = (session.figures.frames - self._shown) / session.config.fps
        self.row = 1 if played >= GOOD_PLAY else self.row + 1
        self._shown = session.figures.frames
        return self.row < ATTEMPTS


class Watchdog:
    """Measures how long an answer has been owed, in turns of the loop: a window that slept has not been waiting."""

    def __init__(self, clock: Clock, patience: dict[str, float] | None = None) -> None:
        self.patience = {**PATIENCE, **(patience or {})}
        self._clock = clock
        self._then = clock.now()
        self._debt: object = None
        self._owed = 0.0

    def overdue(self, generator: GeneratorProcess, session: PlaySession | None) -> str | None:
        """A sentence once the generator has owed something for too long; call it once a turn."""
        now = self._clock.now()
        passed, self._then = min(now - self._then, LONGEST_TURN), now
        owed: tuple[str, object] | None = session.owed if session is not None else None
        if generator.alive and generator.ready is None:
            owed = "load", generator.progress
        if not generator.alive or owed is None or owed != self._debt:
            self._debt, self._owed = owed, 0.0
            return None
        self._owed += passed
        if self._owed <= self.patience[owed[0]]:
            return None
        if session is not None and owed[0] == "step":
            usual = session.figures.step_ms.recent()["p50"] + session.figures.decode_ms.recent()["p50"]
            if self._owed <= SLOW * usual / 1000:
                return None
        return f"The generator has not answered for {self._owed:.0f} s and was ended."
