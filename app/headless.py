"""Play without a display: the same session, script or recording for hands, a report for the result.

Does not know about windows, devices or how frames are made.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.door import DEFAULT_SIZE, Door, home_of, scenes_of
from app.figures import MemoryTrend, own_peak_rss_mb, process_age, rss_mb
from app.film import Film
from app.pacing import PacingConfig, WallClock, rest
from app.packs import is_pack, open_pack
from app.player import PlaySession
from app.protocol import Load, Ready
from app.recording import FrameWriter, open_writer
from app.session import GeneratorProcess
from app.settings import data_folder, log_path
from app.ticks import Row
from controls.action import Action
from controls.errors import UserError
from controls.files import write_atomic
from controls.replay import ScriptedActions, open_actions

LOAD_PATIENCE = 300.0  # seconds
STEP_PATIENCE = 60.0


class ScriptTicks:
    """A tick source that plays whole actions tick by tick."""

    def __init__(self, script: ScriptedActions) -> None:
        self._script = script
        self._action: Action | None = None
        self._tick = 0

    def tick(self) -> Row:
        """The next row of the script."""
        if self._action is None or self._tick == len(self._action.keys):
            self._action, self._tick = self._script.next(), 0
        row = self._action.keys[self._tick], self._action.look[self._tick]
        self._tick += 1
        return row


@dataclass
class Startup:
    """Seconds from the start of the process to the first generated frame."""

    age: float
    clock: float

    @classmethod
    def now(cls) -> Startup:
        """Tie the process's age to the session clock."""
        return cls(process_age(), time.perf_counter())

    def at(self, when: float | None) -> float:
        """The age of the process at clock time `when`."""
        return self.age + when - self.clock if when is not None else 0.0


def wait_until_ready(generator: GeneratorProcess, patience: float = LOAD_PATIENCE) -> Ready:
    """Wait for the World; UserError when it fails or takes longer than `patience` seconds."""
    end = time.perf_counter() + patience
    while generator.ready is None:
        generator.poll()
        if generator.failure is not None:
            raise UserError(generator.failure)
        if time.perf_counter() > end:
            raise UserError(f"The world did not load within {patience:.0f} s; use smaller weights or fewer programs.")
        generator.wait(0.1)
    return generator.ready


def run(args: Namespace, door: Door) -> dict[str, Any]:
    """Play `args.frames` video frames and return the report; writes --out and --json. UserError on bad input."""
    startup = Startup.now()
    _check(args)
    scene = _find_scene(door, args.scene) if args.scene else _first_scene(door, args.weights)
    home = home_of(args.weights, scene)
    door.check_weights(home)
    door.load_picture(scene.picture, DEFAULT_SIZE)  # a bad picture is refused before the world is loaded
    load = Load(  # nobody will go back
        home, args.backend, args.threads, log_path(), args.nfe or 1, history_mb=0, parallel=args.parallel,
        light=args.detail == "light",
    )  # fmt: skip
    generator = GeneratorProcess(load, door.open_world)
    try:
        ready = wait_until_ready(generator)
        picture = door.load_picture(scene.picture, ready.size)
        script = open_actions(args.actions or "stroll", ready.spec, args.seed)
        config = PacingConfig(ready.fps, ready.spec.ticks, paced=not args.no_pacing)
        session = PlaySession(generator, ScriptTicks(script), WallClock(), config, Film(1))
        session.begin(picture, args.seed)
        memory = MemoryTrend(lambda: rss_mb() + rss_mb(generator.pid), ready.fps)
        with open_writer(args.out, ready.fps) as writer:
            digest = _play(session, generator, writer, args.frames, memory)
    finally:
        generator.close()
    report = _report(session, ready, digest, "light" if generator.light else "full")
    report["startup_s"] = round(startup.at(session.first_generated), 3)
    report["peak_rss_mb"] = round(own_peak_rss_mb() + generator.child_peak_rss_mb, 1)
    report |= {"rss_mb": memory.report(), "scene": scene.name, "seed": args.seed}
    _write_report(args.json, report)
    return report


def _check(args: Namespace) -> None:
    if args.detail == "auto":
        raise UserError("--detail auto goes by frames that a window shows late; with --headless give full or light.")
    for path in (args.json, args.out):
        if path is not None and str(path) != "-" and path.resolve().parent.is_file():
            raise UserError(f"Cannot write {path}: {path.parent} is a file; choose another folder.")
    if args.json is not None and args.json.is_dir():
        raise UserError(f"--json {args.json} is a folder; give the name of a file.")


def _find_scene(door: Door, name: str) -> Any:
    """The scene of that name, a picture, or the first scene of a world pack."""
    path = Path(name)
    return open_pack(path, data_folder() / "packs").scenes[0] if is_pack(path) else door.find_scene(name)


def _first_scene(door: Door, weights: Path | None) -> Any:
    scenes = scenes_of(weights, door.list_scenes())
    if not scenes:
        raise UserError("No scenes are installed; give a picture with --scene PICTURE.")
    return scenes[0]


def _play(
    session: PlaySession, generator: GeneratorProcess, writer: FrameWriter, frames: int, memory: MemoryTrend
) -> str:
    digest = hashlib.sha256()
    while session.figures.frames < frames:
        session.poll()
        session.sample()
        frame = session.due()
        if frame is not None:
            session.shown(frame)
            memory.shown(session.figures.frames)
            digest.update(frame.pixels.tobytes())
            writer.add(frame.pixels)
            continue
        if session.failure is not None:
            raise UserError(session.failure)
        if session.waiting() > STEP_PATIENCE:
            raise UserError(f"The generator has not answered for {STEP_PATIENCE:.0f} s; try another backend.")
        rest(
            session.clock,
            generator.wait,
            session.next_wake(),
            session.config.spin if session.config.paced else 0.0,
        )
    memory.sample(session.figures.frames)
    return digest.hexdigest()


def _report(session: PlaySession, ready: Ready, digest: str, detail: str) -> dict[str, Any]:
    figures = session.figures
    return {
        "frames": figures.frames,
        "fps": round(figures.fps, 3),
        "step_ms": figures.step_ms.all(),
        "decode_ms": figures.decode_ms.all(),
        "input_to_submit_ms": figures.input_to_submit_ms.all(),
        "late_frames": figures.late_frames,
        "lead_ms": round(1000 * session.lead.seconds, 2),
        "backend": str(ready.info.get("backend", "unknown")),
        "nfe": int(ready.info.get("nfe", 1)),
        "detail": detail,
        "sampler": str(ready.info.get("sampler", "")),
        "weights_hash": str(ready.info.get("weights_hash", "")),
        "size": list(ready.size),
        "paced": session.config.paced,
        "frame_sha256": digest,
    }


def _write_report(path: Path | None, report: dict[str, Any]) -> None:
    text = json.dumps(report, indent=2) + "\n"
    if path is None or str(path) == "-":
        sys.stdout.write(text)
    else:
        write_atomic(path, text)
