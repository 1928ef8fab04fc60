"""A World that needs no network: a panorama painted from the picture turns with yaw and comes nearer with forward."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from app.door import Door
from app.protocol import Load
from controls.action import ActionSpec
from controls.errors import UserError

SIZE = (256, 160)


class FakeWorld:
    """Same interface as generator.world.World; deterministic; `delay` seconds are spent in every step."""

    def __init__(self, weights: Path, delay: float = 0.0, size: tuple[int, int] = SIZE) -> None:
        self.spec = ActionSpec()
        self.size = size
        self.fps = 24.0
        self.info: dict[str, Any] = {
            "weights_hash": "fake",
            "backend": "fake",
            "preset": "fake",
            "fine": True,
        }
        self.timings = {"step_ms": 0.0, "decode_ms": 0.0}
        self.frame_index = 0
        self.delay = delay
        self.kept: list[np.ndarray] | None = None
        self.light = False

    @property
    def cache_fill(self) -> tuple[int, int]:
        return min(self.frame_index, 6), 6

    def reset(self, picture: np.ndarray, seed: int) -> np.ndarray:
        self.panorama = np.concatenate([picture, picture[:, ::-1]], axis=1)
        self.pose = np.zeros(3)  # yaw, pitch, zoom
        self.seed, self.frame_index = seed, 0
        return self._view()[None]

    def _view(self) -> np.ndarray:
        height, width = self.panorama.shape[0], self.panorama.shape[1] // 2
        yaw, pitch, walked = self.pose
        zoom = 1 + 0.5 * (1 - np.cos(walked * 0.05))
        x = ((np.arange(width) - width / 2) / zoom + width / 2 + yaw * 4).astype(int) % (2 * width)
        y = ((np.arange(height) - height / 2) / zoom + height / 2 - pitch * 4).astype(int).clip(0, height - 1)
        return self.panorama[y][:, x]

    def step(self, action: Any) -> np.ndarray:
        start = time.perf_counter()
        if self.delay:
            time.sleep(self.delay)
        forward, backward = (self.spec.keys.index(key) for key in ("forward", "backward"))
        frames = []
        for keys, look in zip(action.keys, action.look, strict=True):
            self.pose += (
                look[0],
                look[1],
                float(keys[forward]) - float(keys[backward]),
            )
            frames.append(self._view())
        self.frame_index += 1
        if self.kept is not None:
            self.kept.append(np.ones(1 << 18))  # 2 MB
        total = 1000 * (time.perf_counter() - start)
        self.timings = {"step_ms": 0.7 * total, "decode_ms": 0.3 * total}
        return np.stack(frames)

    def lighten(self, light: bool) -> None:
        self.light = light

    def save_state(self) -> dict[str, np.ndarray]:
        return {
            "panorama": self.panorama,
            "pose": self.pose.copy(),
            "index": np.array(self.frame_index),
        }

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        self.panorama, self.pose = state["panorama"], state["pose"].copy()
        self.frame_index = int(state["index"])


def open_fake(request: Load) -> FakeWorld:
    """The backend's name says how the fake behaves: `slow` steps, `behind` real time, `stall`, `crash`, `leak`,
    `broken`, `chaos:...`.
    """
    if request.backend == "broken":
        raise ValueError("driver says no")
    if request.backend == "refuse":
        raise UserError("These weights are of another version; fetch new ones.")
    if request.backend == "loading":
        time.sleep(3)
    if request.backend == "one call" and request.nfe > 1:
        raise UserError("These weights have no teacher for 4 calls; use --nfe 1.")
    kind = request.backend.removesuffix(" coarse")
    world = FakeWorld(request.weights, {"slow": 0.05, "behind": 0.2, "stall": 60.0}.get(kind, 0.0))
    world.info |= {"nfe": request.nfe, "fine": kind == request.backend}
    if request.backend == "leak":
        world.kept = []
    if request.backend == "crash":
        world.step = lambda action: os.kill(os.getpid(), 9)  # type: ignore[assignment, method-assign, return-value]
    if request.backend.startswith("chaos"):
        _, how, step, *mark = request.backend.split(":", 3)
        Chaos(world, how, int(step), Path(mark[0]) if mark else None)
    return world


class Chaos:
    """Spoils a world at its `step`-th step, in every process, or with a `mark` file only in the first one."""

    def __init__(self, world: FakeWorld, how: str, step: int, mark: Path | None) -> None:
        self.plain, self.how, self.left, self.mark = world.step, how, step, mark
        world.step = self.step  # type: ignore[method-assign]

    def step(self, action: Any) -> np.ndarray:
        self.left -= 1
        if self.left or (self.mark is not None and self.mark.exists()):
            return self.plain(action)
        if self.mark is not None:
            self.mark.touch()
        return getattr(self, self.how)(action)  # type: ignore[no-any-return]

    def kill(self, action: Any) -> None:
        os.kill(os.getpid(), 9)

    def leave(self, action: Any) -> None:
        os._exit(7)

    def stop(self, action: Any) -> None:
        os.kill(os.getpid(), 19)

    def memory(self, action: Any) -> None:
        raise MemoryError

    def driver(self, action: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    def nan(self, action: Any) -> None:
        raise UserError("The world has lost its numbers at latent frame 3 (NaN).")

    def floats(self, action: Any) -> np.ndarray:
        return self.plain(action) * np.float32("nan")

    def garble(self, action: Any) -> np.ndarray:
        Connection.send = lambda conn, reply: conn.send_bytes(b"no message at all")  # type: ignore[method-assign]
        return self.plain(action)

    def other(self, action: Any) -> np.ndarray:
        said = Connection.send
        Connection.send = lambda conn, reply: said(conn, {"not": "a reply"})  # type: ignore[method-assign]
        return self.plain(action)

    def half(self, action: Any) -> np.ndarray:
        Connection.send = lambda conn, reply: os.write(conn.fileno(), b"\0\0\1\0half of it")  # type: ignore
        return self.plain(action)


@dataclass(frozen=True)
class FakeScene:
    name: str
    title: str
    caption: str
    picture: Path
    home: Path | None = None


def paint(path: Path, hue: int) -> None:
    """A made-up room as a first frame."""
    y, x = np.mgrid[0:160, 0:256].astype(float)
    floor = y > 90
    depth = np.abs(y - 90) + 8
    tiles = ((x - 128) / depth * 3 // 1 + 60 / depth * 8 // 1) % 2
    base = np.array([np.sin(hue * 1.1 + c * 2.1) * 0.35 + 0.6 for c in range(3)])
    shade = np.where(floor, 0.55 + 0.2 * tiles, 0.5 + 0.4 * (90 - y) / 90)
    wall = (np.abs(x - 128 - 30 * np.sin(hue)) > 90 + depth * 0.2) & (y > 30)
    shade = np.where(wall, 0.35 + 0.1 * ((x // 24) % 2), shade)
    tint = np.where(floor[..., None], np.roll(base, 1), base)
    Image.fromarray((255 * np.clip(tint * shade[..., None], 0, 1)).astype(np.uint8)).save(path)


def make_door(folder: Path, count: int = 8) -> Door:
    """A door to the fake, its scenes painted into `folder`."""
    names = [
        "Long Hall",
        "Green Court",
        "Violet Stair",
        "Amber Gate",
        "Blue Cistern",
        "Rose Vault",
        "Pale Loft",
        "Deep",
    ]
    scenes = []
    for i, title in enumerate(names[:count]):
        path = folder / f"scene{i}.png"
        if not path.exists():
            paint(path, i)
        scenes.append(
            FakeScene(
                f"scene{i}",
                title,
                f"A place that was painted for the tests, number {i}",
                path,
            )
        )

    def find(name: str) -> FakeScene:
        for scene in scenes:
            if scene.name == name:
                return scene
        if Path(name).is_file():
            return FakeScene(Path(name).stem, Path(name).stem, "Your own picture", Path(name))
        raise UserError(f"{name!r} is neither a scene nor a picture file; choose one of the scenes.")

    def load(path: Path, size: tuple[int, int]) -> np.ndarray:
        try:
            return np.asarray(Image.open(path).convert("RGB").resize(size), np.uint8)
        except OSError as error:
            raise UserError(f"{path} is not a readable picture; use a PNG or JPEG.") from error

    def check(weights: Path) -> None:
        if str(weights) == "missing":
            raise UserError("There are no weights at missing; give a folder that holds them with --weights.")

    return Door(lambda: list(scenes), find, load, open_fake, check)
