"""Collect: records clips of an explorer walking through a world, on several processes, into a data set.

Each clip depends on (seed, clip index) alone, so the number of workers and interruptions leave no trace.

Does not know about networks, latents or training.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import multiprocessing.util
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from controls.action import KEYS, ActionSpec
from controls.errors import UserError
from controls.files import write_atomic
from generator.data.clips import (
    FORMAT,
    Clip,
    read_clip,
    to_jpeg,
    write_clip,
)
from generator.data.engine import (
    HEIGHT,
    LOOK_STEP,
    WIDTH,
    Engine,
    EngineConfig,
    Pose,
    horizontal_fov,
)
from generator.data.explorer import Explorer, wrap
from generator.data.navigation import WalkGrid
from generator.data.sources import MapSource, open_maps
from generator.data.workers import on_workers

FPS = 24
CLIP_FRAMES = 241
HELD_SEED_SHARE = 0.08
SETTLE_TICKS, WARM_TICKS = 6, 12
ATTEMPTS = 40
FAN = np.array([-30.0, -15.0, 0.0, 15.0, 30.0])  # directions looked along when judging a view
NEAR = 104.0  # map units: a view whose middle is nearer than this is a wall
POOR_SHARE, POOR_SHARE_NARROW = 0.10, 0.25  # share of such frames that a clip may have, at first
POOR_SHARE_CARELESS = 0.6
POOR_RELAX = 0.02  # and how much more each further attempt may have
TOLD_AGAIN = 10.0  # seconds that a worker has for its engines' end before it is told a second time
CHECK_TICKS, CHECK_STEP = 40, 8
STUCK_STRIDE = 0.7  # map units per tick; slower with a key held is pushing against something
EMPTY_STD = 5.0  # grey levels across a thumbnail
MAX_STRIDE = 48.0  # map units in one tick; more is a teleporter
METADATA_SECONDS = 5.0


@dataclass(frozen=True)
class Job:
    """One clip to record: its index, length in frames, map, split and file."""

    index: int
    frames: int
    map: int
    split: str
    path: Path


def plan_clips(maps: list[MapSource], frames: int, seed: int, out: Path, length: int = CLIP_FRAMES) -> list[Job]:
    """Which map and split each clip has; clip i is the same whatever the number of frames asked for."""
    jobs = []
    for index in range(math.ceil(frames / length)):
        turn, place = divmod(index, len(maps))
        order = np.random.default_rng([seed, 1, turn]).permutation(len(maps))
        chosen = int(order[place])
        held_seed = np.random.default_rng([seed, 2, index]).random() < HELD_SEED_SHARE
        split = "held_map" if maps[chosen].held else "held_seed" if held_seed else "train"
        jobs.append(Job(index, length, chosen, split, out / "clips" / f"{index:06d}.npz"))
    return jobs


def clip_seed(seed: int, job: Job, attempt: int) -> int:
    """The seed of one attempt at a clip; held_seed clips draw from a stream of their own."""
    stream = 4 if job.split == "held_seed" else 3
    return int(np.random.SeedSequence([seed, stream, job.index, attempt]).generate_state(1)[0] & 0x7FFFFFFF)


def settle(engine: Engine, source: MapSource, explorer: Explorer, seed: int) -> Pose:
    """Start an episode at a place of the explorer's choice, facing open space, and let it get going."""
    engine.start(source.name, seed)
    place, yaw = explorer.spawn()
    pose = engine.warp(*place)
    idle = np.zeros(len(KEYS), np.uint8)
    engine.step(idle, (wrap(yaw - pose.yaw), -pose.pitch))
    for _ in range(SETTLE_TICKS):
        engine.step(idle, (0.0, 0.0))
    for _ in range(WARM_TICKS):
        keys, look = explorer.tick(engine.pose())
        engine.step(keys, look)
    return engine.pose()


@dataclass
class Take:
    """What one attempt recorded."""

    pictures: list[Image.Image]
    keys: npt.NDArray[np.uint8]
    look: npt.NDArray[np.float32]
    pose: npt.NDArray[np.float32]


def record(engine: Engine, source: MapSource, grid: WalkGrid, seed: int, frames: int, limit: float) -> Take | None:
    """One attempt at a clip; None when more than `limit` of it shows walls, or it ended, teleported or turned wrong."""
    explorer = Explorer(grid, np.random.default_rng(seed), use_doors=source.doors)
    limit += POOR_SHARE_CARELESS - POOR_SHARE if explorer.careless else 0.0
    settle(engine, source, explorer, seed)
    picture, pose = engine.observe()
    take = Take(
        [picture],
        np.zeros((frames, len(KEYS)), np.uint8),
        np.zeros((frames, 2), np.float32),
        np.zeros((frames, 5), np.float32),
    )
    take.pose[0] = pose.row()
    for i in range(1, frames):
        keys, look = explorer.tick(pose)
        engine.step(keys, look)
        if engine.finished:
            return None
        picture, after = engine.observe()
        applied = (wrap(after.yaw - pose.yaw), after.pitch - pose.pitch)
        moved = math.hypot(after.x - pose.x, after.y - pose.y)
        if moved > MAX_STRIDE or max(abs(a - b) for a, b in zip(applied, look, strict=True)) > LOOK_STEP / 2:
            return None
        take.pictures.append(picture)
        take.keys[i], take.look[i], take.pose[i] = keys, look, after.row()
        pose = after
        if i % CHECK_TICKS == 0 and poor_frames(take, grid) > limit * frames:
            return None
    return take


def poor_frames(take: Take, grid: WalkGrid) -> int:
    """How many frames so far show a near wall, push against something, or show next to nothing."""
    count = len(take.pictures)
    pose = take.pose[:count].astype(np.float64)
    yaw = (pose[:, 3:4] + FAN).ravel()
    poor = np.median(grid.sight(np.repeat(pose[:, :2], len(FAN), 0), yaw).reshape(count, len(FAN)), axis=1) < NEAR
    stride = np.hypot(*np.diff(pose[:, :2], axis=0, prepend=pose[:1, :2]).T)
    poor |= take.keys[:count, :4].any(1) & (np.convolve(stride, np.ones(9) / 9, "same") < STUCK_STRIDE)
    pictures = take.pictures[::CHECK_STEP]
    small = [np.asarray(p.convert("L").resize((16, 10), Image.Resampling.BOX), np.float32) for p in pictures]
    poor |= np.repeat([s.std() < EMPTY_STD for s in small], CHECK_STEP)[:count]
    return int(poor.sum())


def make_clip(engine: Engine, source: MapSource, grid: WalkGrid, job: Job, seed: int) -> tuple[Clip, int]:
    """Record clip `job`, trying again while it stares at walls: the clip and its number of attempts."""
    for attempt in range(ATTEMPTS):
        chosen = clip_seed(seed, job, attempt)
        limit = (POOR_SHARE_NARROW if source.narrow else POOR_SHARE) + POOR_RELAX * attempt
        take = record(engine, source, grid, chosen, job.frames, limit)
        if take is not None:
            blobs = [to_jpeg(picture) for picture in take.pictures]
            offsets = np.cumsum([0, *map(len, blobs)], dtype=np.int64)
            jpeg = np.frombuffer(b"".join(blobs), np.uint8)
            return Clip(take.keys, take.look, take.pose, jpeg, offsets, chosen), attempt + 1
    raise UserError(f"The map {source.name} gave no good clip in {ATTEMPTS} attempts; leave it out with --maps.")


class Recorder:
    """A worker's engines and walk grids, opened when first needed and kept."""

    def __init__(self, maps: list[MapSource], seed: int) -> None:
        self.maps, self.seed = maps, seed
        self.engines: dict[EngineConfig, Engine] = {}
        self.grids: dict[int, WalkGrid] = {}

    def __call__(self, job: Job) -> tuple[Job, int, int]:
        """Record and store one clip: the job, the clip's seed, and the frames rendered for it."""
        source = self.maps[job.map]
        if source.engine not in self.engines:
            self.engines[source.engine] = Engine(source.engine)
        if job.map not in self.grids:
            self.grids[job.map] = source.walk_grid()
        clip, attempts = make_clip(self.engines[source.engine], source, self.grids[job.map], job, self.seed)
        write_clip(job.path, clip)
        return job, clip.clip_seed, attempts

    def close(self) -> None:
        """End the engines."""
        while self.engines:
            self.engines.popitem()[1].close()


_recorder: list[Recorder] = []  # one per worker process, filled by the pool's initializer


def _end_on_terminate(again: float = 0.0) -> None:
    """Let SIGTERM unwind this process, so that its engines (processes of their own) end with it; once more every
    `again` seconds, for a finaliser that is just running swallows what is raised in it.
    """

    def leave(*_: object) -> None:
        if again and hasattr(signal, "setitimer"):
            signal.signal(signal.SIGALRM, leave)
            signal.setitimer(signal.ITIMER_REAL, again)
        sys.exit(143)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, leave)


def _begin(maps: list[MapSource], seed: int) -> None:
    """Start of a worker: an interrupt is the parent's affair; however the worker ends, its engines end first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_on_terminate(TOLD_AGAIN)
    _recorder[:] = [Recorder(maps, seed)]
    multiprocessing.util.Finalize(None, _recorder[0].close, exitpriority=10)


def _work(job: Job) -> tuple[Job, int, int]:
    return _recorder[0](job)


def _results(maps: list[MapSource], seed: int, jobs: list[Job], workers: int) -> Iterator[tuple[Job, int, int]]:
    """Run the jobs here or on worker processes, in whatever order they end."""
    if workers <= 1 or len(jobs) <= 1:
        recorder = Recorder(maps, seed)
        try:
            yield from map(recorder, jobs)
        finally:
            recorder.close()
        return
    yield from on_workers(_work, jobs, min(workers, len(jobs)), _begin, (maps, seed))


def _stored(jobs: list[Job]) -> dict[int, int]:
    """Clips that are on disk already and whole: clip seed by index."""
    found = {}
    for job in jobs:
        if job.path.exists():
            try:
                found[job.index] = read_clip(job.path).clip_seed
            except UserError:
                job.path.unlink()
    return found


def _metadata(
    world: str, size: str, seed: int, maps: list[MapSource], jobs: list[Job], seeds: dict[int, int]
) -> dict[str, Any]:
    clips = [
        {
            "file": f"clips/{job.path.name}",
            "frames": job.frames,
            "map": maps[job.map].name,
            "map_seed": maps[job.map].seed,
            "theme": maps[job.map].theme,
            "clip_seed": seeds[job.index],
            "split": job.split,
        }
        for job in jobs
        if job.index in seeds
    ]
    return {
        "format": FORMAT,
        "world": world,
        "size": size,
        "width": WIDTH,
        "height": HEIGHT,
        "fps": FPS,
        "hfov": horizontal_fov(),
        "action_spec": ActionSpec().to_dict(),
        "seed": seed,
        "maps": [[source.name, source.seed] for source in maps],
        "clips": clips,
    }


def _check_same(out: Path, new: dict[str, Any]) -> None:
    """UserError when the folder holds another collection than the one asked for."""
    path = out / "meta.json"
    if not path.exists():
        return
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return  # cut short: every clip carries its own seed, so nothing is lost
    old["clip frames"] = old["clips"][0]["frames"] if old.get("clips") else new["clips"][0]["frames"]
    new["clip frames"] = new["clips"][0]["frames"]
    old.setdefault("size", "grand")
    for name in ("format", "world", "size", "seed", "maps", "action_spec", "clip frames"):
        if old.get(name) != new[name]:
            raise UserError(
                f"{str(out)!r} holds a data set with {name} {str(old.get(name))[:60]}, not {str(new[name])[:60]}; "
                "use the same settings to resume, or another --out."
            )


def collect(
    world: str,
    out: Path | str,
    frames: int,
    seed: int = 0,
    maps: str | None = None,
    workers: int = 1,
    clip_frames: int = CLIP_FRAMES,
    size: str = "grand",
) -> dict[str, Any]:
    """Record at least `frames` video frames of a world into `out`; the same call resumes. Returns figures of the run.

    `maps`: a range such as 0-23 for halls, whose `size` is one of SIZES; names such as E1M1,MAP04 for freedoom.
    UserError on bad arguments.
    """
    out = Path(out)
    if frames < 1 or workers < 1 or seed < 0:
        raise UserError(f"frames {frames} and workers {workers} must be 1 or more, and seed {seed} 0 or more.")
    sources = open_maps(world, out, seed, maps, size)
    _end_on_terminate()
    jobs = plan_clips(sources, frames, seed, out, clip_frames)
    _check_same(out, _metadata(world, size, seed, sources, jobs[:1], {0: 0}))
    seeds = _stored(jobs)

    def save() -> None:
        text = json.dumps(_metadata(world, size, seed, sources, jobs, seeds), indent=1)
        write_atomic(out / "meta.json", text.encode())

    save()
    todo = [job for job in jobs if job.index not in seeds]
    began = saved = time.perf_counter()
    rendered = 0
    total = len(jobs) * clip_frames
    with tqdm(
        total=total,
        initial=total - len(todo) * clip_frames,
        unit="frame",
        desc=f"collect {world}",
    ) as bar:
        for job, used, attempts in _results(sources, seed, todo, workers):
            seeds[job.index] = used
            rendered += attempts * job.frames
            bar.update(job.frames)
            if time.perf_counter() - saved > METADATA_SECONDS:
                save()
                saved = time.perf_counter()
    save()
    stored, seconds = len(todo) * clip_frames, time.perf_counter() - began
    return {"clips": len(jobs), "stored_frames": stored, "rendered_frames": rendered, "seconds": seconds,
            "frames_per_second": stored / max(seconds, 1e-9)}  # fmt: skip
