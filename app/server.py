"""The generator process: one World, asked for frames and states through a pipe until it is told to leave.

`serve` is the child's whole life; it alone imports the generator. The child leaves when its parent is gone. Saving is
hashed and written by a thread beside the next steps; everything else happens in the order of the requests.

Does not know about windows, pacing, players or who started it.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from multiprocessing.connection import Connection, wait
from pathlib import Path

import numpy as np

from app.door import Pixels, WorldLike
from app.figures import own_peak_rss_mb
from app.history import RememberingWorld
from app.protocol import (
    PROTOCOL_VERSION,
    Failed,
    Frames,
    Lighten,
    Load,
    Loaded,
    LoadState,
    Progress,
    Ready,
    Reply,
    Request,
    Reset,
    Rewind,
    RingPlan,
    Saved,
    SaveState,
    Step,
    Stop,
    Stopped,
)
from app.ring import RingWriter
from app.statefile import About, StateFile, check_fits, write_quickly, write_state
from controls.errors import UserError
from controls.machine import give_back_memory

OpenWorld = Callable[[Load], WorldLike]


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(3)


class _Server:
    """The child's side of the conversation: one World, one ring, requests in order."""

    def __init__(self, conn: Connection, world: WorldLike, history_mb: float) -> None:
        self.conn = conn
        self.world = RememberingWorld(world, budget=round(1e6 * history_mb))
        self.writer: RingWriter | None = None
        self.epoch = 0
        self._say = threading.Lock()  # a thread reports what it has saved
        self._saving: threading.Thread | None = None

    def send(self, reply: Reply) -> None:
        """Answer; from any thread."""
        with self._say:
            self.conn.send(reply)

    def _frames(self, epoch: int, index: int, slot: int, frames: Pixels) -> None:
        assert self.writer is not None, "a step before the first reset"
        if frames.dtype != np.uint8:  # written as bytes, NaN would be any colour
            raise UserError(f"The pictures of latent frame {index} are {frames.dtype}, not bytes; try another backend.")
        count = self.writer.write(slot, frames)
        times = self.world.timings
        step_ms, decode_ms = (
            float(times.get("step_ms", 0.0)),
            float(times.get("decode_ms", 0.0)),
        )
        kept = self.world.oldest, self.world.nbytes / 1e6, self.world.cache_fill
        self.send(Frames(epoch, index, slot, count, step_ms, decode_ms, own_peak_rss_mb(), *kept))

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

    def _save(self, request: SaveState) -> None:
        """Copy the state at once, write it beside the next steps: a disk may take longer than a step."""
        self.finish_saving()
        world, info = self.world, self.world.info
        about = About(
            weights_hash=str(info.get("weights_hash", "")),
            backend=str(info.get("backend", "")),
            frame_index=world.frame_index,
            scene=request.scene,
            title=request.title,
            seed=request.seed,
            saved=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        job = (request.path, about, world.save_state(), world.picture, world.first)

        def write() -> None:
            try:
                (write_quickly if request.quick else write_state)(*job)
                reply: Reply = Saved(request.path)
            except UserError as error:
                reply = Failed(str(error), fatal=False, path=request.path)
            with suppress(OSError):  # the window has gone
                self.send(reply)
            give_back_memory()  # what a state was copied into, several times over

        self._saving = threading.Thread(target=write, name="farstep-save")  # no daemon: it is finished before leaving
        self._saving.start()

    def finish_saving(self) -> None:
        """Wait until nothing is being written."""
        if self._saving is not None:
            self._saving.join()
            self._saving = None

    def _jump(self, request: LoadState | Rewind) -> None:
        """To another state; whatever comes of it, `Loaded` says where the World stands, if it stands anywhere."""
        self.epoch = request.epoch
        self.finish_saving()
        try:
            if isinstance(request, Rewind):
                self.world.rewind(request.index)
            elif self.writer is not None or self._attach(request.ring):
                with StateFile(request.path) as file:
                    info = self.world.info
                    check_fits(file.about, str(info.get("weights_hash", "")), str(info.get("backend", "")))
                    first, picture = file.picture(first=True), file.picture()
                    self.world.load_state(file.state())
                    self.world.arrived(first, picture)
        except UserError as error:
            self.send(Failed(str(error), fatal=False))
        if self.world.began:
            self.send(Loaded(request.epoch, self.world.frame_index, self.world.oldest))

    def answer(self, request: Request) -> bool:
        """Do what one request asks; False when it was Stop."""
        match request:
            case Step(epoch, index, slot, action) if epoch == self.epoch:
                self._frames(epoch, index, slot, self.world.step(action))
            case Reset():
                self._reset(request)
                give_back_memory()  # a first picture is looked for on a whole map
            case SaveState():
                self._save(request)
            case LoadState() | Rewind():
                self._jump(request)
                give_back_memory()  # later states are forgotten
            case Lighten(light):
                self.world.lighten(light)
            case Stop():
                self.finish_saving()
                self.send(Stopped(own_peak_rss_mb()))
                return False
        return True


def _open(conn: Connection, request: Load, open_world: OpenWorld) -> _Server:
    if request.version != PROTOCOL_VERSION:
        raise UserError(f"Protocol {request.version} is not {PROTOCOL_VERSION}; install one version of Farstep.")
    conn.send(Progress(0.1, "Opening the world"))
    world = open_world(request)
    give_back_memory()
    conn.send(Progress(0.9, "Almost there"))
    camera = getattr(world, "camera", None)
    info = {**world.info, "hfov": float(camera.hfov_degrees)} if camera is not None else dict(world.info)
    conn.send(Ready(world.spec, world.size, float(world.fps), info))
    return _Server(conn, world, request.history_mb)


def _sentence(error: Exception, log: Path | None) -> str:
    """What the player is told of a fault that nobody has foreseen, or of memory that ran out."""
    said = str(error).lower()
    if isinstance(error, MemoryError) or "out of memory" in said or "allocate memory" in said:
        return "The generator ran out of memory; close other programs or choose smaller weights."
    place = f"; details are in {log}" if log else ""
    first = (str(error).splitlines() or ["no reason given"])[0]
    return f"The generator stopped with {type(error).__name__}: {first}{place}."


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
            try:
                while server.answer(conn.recv()):
                    pass
            finally:
                server.finish_saving()
        except UserError as error:
            conn.send(Failed(str(error)))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except Exception as error:  # any fault of a driver or library ends the child, never the window
            logging.exception("the generator stopped")
            conn.send(Failed(_sentence(error, request.log)))
    if server is not None and server.writer is not None:
        server.writer.close()
