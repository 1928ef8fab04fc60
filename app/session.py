"""The generator as a child process: started, fed and watched without ever waiting for it.

`GeneratorProcess` lives in the window process; `server.serve` runs in the child. A child that dies, or says what cannot
be read, shows up as `Failed` in `poll`; `restart` starts a fresh one with the same request. The parent removes the
shared memory. Its end of the pipe never blocks: half a message, or a pipe that nobody empties, must not stop us.

Does not know about windows, pacing or what the player sees.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from app.door import Pixels
from app.protocol import (
    Failed,
    Frames,
    Lighten,
    Load,
    LoadState,
    Progress,
    Ready,
    Reply,
    Request,
    Reset,
    Rewind,
    Saved,
    SaveState,
    Step,
    Stop,
    Stopped,
)
from app.ring import FrameRing
from app.server import OpenWorld, serve
from controls.action import Action

SAVE_PATIENCE = 15.0  # seconds
SLOTS = 4  # one being written, one being shown, two of slack
NOISE = "The generator process said something that cannot be read"


class GeneratorProcess:
    """The window's handle on the child: every method returns at once.

    `ready` is None until the World is open; `failure` is a sentence once the child is gone; `epoch` counts resets.
    """

    def __init__(self, request: Load, open_world: OpenWorld) -> None:
        self._request = request
        self._open_world = open_world
        self._ring: FrameRing | None = None
        self._begin()

    def _begin(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._conn, theirs = context.Pipe()
        self._process = context.Process(
            target=serve,
            args=(theirs, self._request, self._open_world),
            daemon=True,
            name="farstep-generator",
        )
        self._process.start()
        theirs.close()  # so that the pipe ends when the child does
        if os.name == "posix":  # elsewhere pipes are of another kind, and waited for by the system
            os.set_blocking(self._conn.fileno(), False)
        self.ready: Ready | None = None
        self.progress = Progress(0.0, "Starting the generator")
        self.failure: str | None = None
        self.child_peak_rss_mb = 0.0
        self.epoch = 0
        self._unsaved: set[Path] = set()  # asked for and not yet reported
        self._keeping: dict[Path, int] = {}  # automatic states that were asked for, and in which epoch
        self._kept: list[Path] = []
        self._ring_epoch = 0  # replies from this epoch on point into the present ring

    @property
    def pid(self) -> int | None:
        """The child's process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the child can still be asked for something."""
        return self.failure is None

    def status(self) -> str:
        """How far the World is, in a few words."""
        if self.failure is not None:
            return "The world is not loaded"
        return f"Ready on {self.ready.info.get('backend', 'the CPU')}" if self.ready else f"{self.progress.stage} ..."

    @property
    def weights(self) -> Path:
        """The folder of the weights that the child was asked for."""
        return self._request.weights

    @property
    def nfe(self) -> int:
        """Network calls per latent frame that the child was asked for."""
        return self._request.nfe

    @property
    def light(self) -> bool:
        """Whether the child leaves fine detail out."""
        return self._request.light

    def lighten(self, light: bool) -> None:
        """Have fine detail left out, or no longer, by this child and those after it."""
        if light != self.light:
            self._request = replace(self._request, light=light)
            self._send(Lighten(light))

    def restart(self, backend: str | None = None, nfe: int | None = None, weights: Path | None = None) -> None:
        """Drop the child and its frames and start a fresh one, optionally on another backend, with other calls or
        weights.
        """
        self.close(patience=0.1, finish_saving=False)
        self._request = replace(
            self._request,
            backend=backend or self._request.backend,
            nfe=nfe or self.nfe,
            weights=weights or self.weights,
        )
        self._begin()

    def give_up(self, why: str) -> None:
        """End a child that does not answer; `why` is the sentence that `failure` becomes."""
        self._process.kill()
        self.failure = self.failure or why

    def wait(self, seconds: float) -> None:
        """Sleep up to `seconds`, less when the child says something or dies."""
        sources: list[Any] = [self._conn] if self.alive else []
        wait(sources, max(0.0, seconds)) if sources else threading.Event().wait(max(0.0, seconds))

    def poll(self) -> list[Reply]:
        """All replies that have arrived; a dead child is reported once, as Failed."""
        replies: list[Reply] = []
        while self.alive:
            try:
                if not self._conn.poll():
                    break
                reply: Reply = self._conn.recv()
                if not isinstance(reply, Reply):
                    raise TypeError
            except (EOFError, ConnectionError):
                reply = self._gone()
            except Exception as error:  # bytes that are no message can raise anything while they are unpacked
                self._process.kill()
                reply = Failed(f"{NOISE} ({type(error).__name__}) and was ended.")
            if not self._is_automatic(reply):
                self._note(reply)
                replies.append(reply)
        return replies

    def _is_automatic(self, reply: Reply) -> bool:
        """Take note of an automatic state that has been written, or could not be: no player has asked for it."""
        path = reply.path if isinstance(reply, Saved | Failed) else None
        if path is None or path not in self._keeping:
            return False
        if self._keeping.pop(path) == self.epoch and isinstance(reply, Saved):
            self._kept.append(path)
        return True

    def _gone(self) -> Failed:
        self._process.join(0.2)
        code = self._process.exitcode
        if code is None:
            how = "it does not listen any more"
        elif code == -9:
            how = "signal 9: it was killed, perhaps because memory ran out"
        else:
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return Failed(f"The generator process ended unexpectedly ({how}).")

    def _note(self, reply: Reply) -> None:
        match reply:
            case Progress():
                self.progress = reply
            case Ready():
                self.ready = reply
                self.progress = Progress(1.0, "Ready")
                width, height = reply.size
                self._ring = self._ring or FrameRing(SLOTS, reply.spec.ticks, height, width)
            case Frames(peak_rss_mb=peak) | Stopped(peak_rss_mb=peak):
                self.child_peak_rss_mb = max(self.child_peak_rss_mb, peak)
            case Saved(path) | Failed(fatal=False, path=Path() as path):
                self._unsaved.discard(path)
            case Failed(message, fatal) if fatal:
                self.failure = message

    def _send(self, request: Request) -> None:
        if self.alive:
            with suppress(OSError):  # a broken pipe is reported by the next poll
                self._conn.send(request)

    @property
    def can_step(self) -> bool:
        """Whether a slot is free for another latent frame."""
        return self._ring is not None and self._ring.free > 0

    def reset(self, picture: Pixels, seed: int) -> None:
        """Start again from picture uint8 (Y, X, 3): a new epoch; frame 0 arrives as `Frames` with index 0."""
        assert self.ready is not None and self._ring is not None, "reset before Ready"
        width, height = self.ready.size
        assert picture.shape == (height, width, 3), f"picture {picture.shape} is not {(height, width, 3)}"
        old = self._ring  # a step of the old epoch may still write there, so the new epoch gets its own memory
        self._ring = FrameRing(SLOTS, self.ready.spec.ticks, height, width)
        old.close()
        self.epoch += 1
        self._ring_epoch = self.epoch
        slot = self._ring.acquire()
        assert slot is not None
        self._ring.view(slot)[0] = picture
        self._send(Reset(self.epoch, slot, seed, self._ring.plan))

    def step(self, index: int, action: Action) -> None:
        """Ask for latent frame `index`; a slot must be free (`can_step`)."""
        assert self._ring is not None
        slot = self._ring.acquire()
        assert slot is not None, "no free slot; ask can_step first"
        self._send(Step(self.epoch, index, slot, action))

    def take(self, reply: Frames) -> Pixels | None:
        """A copy of the reply's frames uint8 (count, Y, X, 3), its slot released; None when the reply is stale."""
        if reply.epoch < self._ring_epoch or self._ring is None:
            return None
        frames: Pixels = self._ring.view(reply.slot)[: reply.count].copy()
        self._ring.release(reply.slot)
        return frames if reply.epoch == self.epoch else None

    def save_state(self, path: Path, scene: str = "", title: str = "", seed: int = 0) -> None:
        """Ask for the World's state in a file; `Saved` or a not fatal `Failed` follows."""
        self._unsaved.add(path)
        self._send(SaveState(path, scene, title, seed))

    def keep_state(self, path: Path, scene: str = "", title: str = "", seed: int = 0) -> None:
        """Ask for an automatic state in a file; `kept` names it once it is whole."""
        self._keeping[path] = self.epoch
        self._send(SaveState(path, scene, title, seed, quick=True))

    def kept(self) -> list[Path]:
        """The automatic states of this epoch that have become whole since the last call."""
        done, self._kept = self._kept, []
        return done

    @property
    def keeping(self) -> bool:
        """Whether an automatic state was asked for that is not whole yet."""
        return bool(self._keeping)

    def load_state(self, path: Path) -> None:
        """Ask to go to a saved state; `Loaded` follows, after a not fatal `Failed` when it was refused."""
        assert self._ring is not None, "load_state before Ready"
        self.epoch += 1
        self._send(LoadState(self.epoch, path, self._ring.plan))

    def rewind(self, index: int) -> None:
        """Ask to stand again after latent frame `index`; `Loaded` follows as for `load_state`."""
        self.epoch += 1
        self._send(Rewind(self.epoch, index))

    def close(self, patience: float = 1.0, finish_saving: bool = True) -> None:
        """Ask the child to leave, end it after `patience` seconds, remove the shared memory; harmless when repeated.

        A place that is being saved is waited for up to SAVE_PATIENCE seconds, unless `finish_saving` is False.
        """
        self._send(Stop())
        if self.alive and self._unsaved and finish_saving:
            patience = max(patience, SAVE_PATIENCE)
        self._process.join(patience if self.alive else 0.1)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(2.0)
        self.poll()
        self.failure = self.failure or "The generator was closed."
        self._conn.close()
        if self._ring is not None:
            self._ring.close()
            self._ring = None
