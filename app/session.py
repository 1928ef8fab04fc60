"""The generator as a child process: started, fed and watched without ever waiting for it.

`GeneratorProcess` lives in the window process; `serve` runs in the child, which alone imports the generator. A child
that dies shows up as `Failed` in `poll`; `restart` starts a fresh one with the same request. The child leaves when
its parent is gone, and the parent removes the shared memory.

Does not know about windows, pacing or what the player sees.
"""

from __future__ import annotations

import io
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from app.door import Pixels, WorldLike
from app.figures import own_peak_rss_mb
from app.protocol import (
    PROTOCOL_VERSION,
    Failed,
    Frames,
    Load,
    Loaded,
    LoadState,
    Progress,
    Ready,
    Reply,
    Request,
    Reset,
    RingPlan,
    Saved,
    SaveState,
    Step,
    Stop,
    Stopped,
)
from app.ring import FrameRing, RingWriter
from controls.action import Action
from controls.errors import UserError
from controls.files import write_atomic

OpenWorld = Callable[[Load], WorldLike]
SLOTS = 4  # one being written, one being shown, two of slack


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(3)


def _write_state(path: Path, state: dict[str, npt.NDArray[Any]]) -> None:
    blob = io.BytesIO()
    np.savez(blob, **state)  # type: ignore[arg-type]
    write_atomic(path, blob.getvalue())


def _read_state(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as data:
            return {name: data[name] for name in data.files}
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"The saved world {path} cannot be read ({error}); choose another.") from error


class _Server:
    """The child's side of the conversation: one World, one ring, requests in order."""

    def __init__(self, conn: Connection, world: WorldLike) -> None:
        self.conn = conn
        self.world = world
        self.writer: RingWriter | None = None
        self.epoch = 0

    def _frames(self, epoch: int, index: int, slot: int, frames: Pixels) -> None:
        assert self.writer is not None, "a step before the first reset"
        count = self.writer.write(slot, frames)
        times = self.world.timings
        step_ms, decode_ms = (
            float(times.get("step_ms", 0.0)),
            float(times.get("decode_ms", 0.0)),
        )
        self.conn.send(Frames(epoch, index, slot, count, step_ms, decode_ms, own_peak_rss_mb()))

    def _attach(self, plan: RingPlan) -> bool:
        if self.writer is not None:
            self.writer.close()
            self.writer = None
        with suppress(FileNotFoundError):  # a newer reset is waiting behind this one: its ring has replaced this one's
            self.writer = RingWriter(plan)
        return self.writer is not None

    def _reset(self, request: Reset) -> None:
        self.epoch = request.epoch
        if self._attach(request.ring):
            assert self.writer is not None
            picture = self.writer.read_picture(request.slot)
            self._frames(request.epoch, 0, request.slot, self.world.reset(picture, request.seed))

    def answer(self, request: Request) -> bool:
        """Do what one request asks; False when it was Stop."""
        match request:
            case Step(epoch, index, slot, action) if epoch == self.epoch:
                self._frames(epoch, index, slot, self.world.step(action))
            case Reset():
                self._reset(request)
            case SaveState(path):
                _write_state(path, self.world.save_state())
                self.conn.send(Saved(path))
            case LoadState(epoch, path):
                self.epoch = epoch
                self.world.load_state(_read_state(path))
                self.conn.send(Loaded(epoch, self.world.frame_index))
            case Stop():
                self.conn.send(Stopped(own_peak_rss_mb()))
                return False
        return True


def _open(conn: Connection, request: Load, open_world: OpenWorld) -> _Server:
    if request.version != PROTOCOL_VERSION:
        raise UserError(f"Protocol {request.version} is not {PROTOCOL_VERSION}; install one version of Farstep.")
    conn.send(Progress(0.1, "Opening the world"))
    world = open_world(request)
    conn.send(Progress(0.9, "Almost there"))
    conn.send(Ready(world.spec, world.size, float(world.fps), dict(world.info)))
    return _Server(conn, world)


def serve(conn: Connection, request: Load, open_world: OpenWorld) -> None:
    """The child's whole life: open the World, answer requests, leave on Stop or when the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    if request.log is not None:
        logging.basicConfig(
            filename=request.log,
            level=logging.INFO,
            format="%(asctime)s generator %(message)s",
        )
    else:
        logging.disable(logging.CRITICAL)
    server: _Server | None = None
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            conn.send(Progress(0.02, "Starting the generator"))
            server = _open(conn, request, open_world)
            while _answer_next(server):
                pass
        except UserError as error:
            conn.send(Failed(str(error)))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except MemoryError:
            logging.exception("out of memory")
            conn.send(Failed("The generator ran out of memory; close other programs or choose smaller weights."))
        except Exception as error:  # any fault of a driver or library ends the child, never the window
            logging.exception("the generator stopped")
            place = f"; details are in {request.log}" if request.log else ""
            first = (str(error).splitlines() or ["no reason given"])[0]
            text = f"The generator stopped with {type(error).__name__}: {first}{place}."
            conn.send(Failed(text))
    if server is not None and server.writer is not None:
        server.writer.close()


def _answer_next(server: _Server) -> bool:
    request: Request = server.conn.recv()
    try:
        return server.answer(request)
    except UserError as error:
        if not isinstance(request, SaveState | LoadState):
            raise
        server.conn.send(Failed(str(error), fatal=False))
        return True


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
        self.ready: Ready | None = None
        self.progress = Progress(0.0, "Starting the generator")
        self.failure: str | None = None
        self.child_peak_rss_mb = 0.0
        self.epoch = 0
        self._ring_epoch = 0  # replies from this epoch on point into the present ring

    @property
    def pid(self) -> int | None:
        """The child's process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the child can still be asked for something."""
        return self.failure is None

    def restart(self, backend: str | None = None) -> None:
        """Drop the child and its frames and start a fresh one, optionally on another backend."""
        self.close(patience=0.1)
        if backend is not None:
            self._request = replace(self._request, backend=backend)
        self._begin()

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
            except (EOFError, OSError):
                reply = self._gone()
            self._note(reply)
            replies.append(reply)
        return replies

    def _gone(self) -> Failed:
        self._process.join(0.2)
        code = self._process.exitcode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        return Failed(f"The generator process ended unexpectedly ({how}); choose a scene to start it again.")

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

    def save_state(self, path: Path) -> None:
        """Ask for the World's state in a file; `Saved` or a not fatal `Failed` follows."""
        self._send(SaveState(path))

    def load_state(self, path: Path) -> None:
        """Ask to go back to a saved state; `Loaded` or a not fatal `Failed` follows."""
        self.epoch += 1
        self._send(LoadState(self.epoch, path))

    def close(self, patience: float = 1.0) -> None:
        """Ask the child to leave, end it after `patience` seconds, remove the shared memory; harmless when repeated."""
        self._send(Stop())
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
