"""The one place where the window program touches `generator.world`, behind a seam that tests replace.

Importing this module imports nothing of the generator; the World itself is opened only in the generator process.

Does not know about windows, processes or time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from app.protocol import Load
from controls.action import Action, ActionSpec

Pixels = npt.NDArray[np.uint8]
DEFAULT_WEIGHTS = Path(__file__).resolve().parent.parent / "assets" / "weights" / "pocket"
DEFAULT_SIZE = (256, 160)  # for pictures that are shown before a World has said its own


def home_of(given: Path | None, scene: Any = None, running: Path = DEFAULT_WEIGHTS) -> Path:
    """The folder of the weights to walk a scene with: the given ones, else the scene's own, else those that run."""
    return given or getattr(scene, "home", None) or running


def scenes_of(weights: Path | None, scenes: Sequence[Any]) -> list[Any]:
    """Those of some scenes that are of these weights; all where no weights are given or none are of them."""
    from generator.world import scenes_of

    return scenes_of(weights, scenes)


class WorldLike(Protocol):
    """What the program needs of a World (see `generator.world`)."""

    spec: ActionSpec
    size: tuple[int, int]
    fps: float
    info: dict[str, Any]
    timings: dict[str, float]

    @property
    def frame_index(self) -> int: ...
    @property
    def cache_fill(self) -> tuple[int, int]: ...
    def reset(self, picture: Pixels, seed: int) -> Pixels: ...
    def step(self, action: Action) -> Pixels: ...
    def lighten(self, light: bool) -> None: ...
    def save_state(self) -> dict[str, npt.NDArray[Any]]: ...
    def load_state(self, state: dict[str, npt.NDArray[Any]]) -> None: ...


class SceneLike(Protocol):
    """What the menu shows of a scene."""

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def caption(self) -> str: ...
    @property
    def picture(self) -> Path: ...


@dataclass(frozen=True)
class Door:
    """The generator's functions that the program uses; `open_world` is sent to a child, so it needs a name."""

    list_scenes: Callable[[], list[Any]]
    find_scene: Callable[[str], Any]
    load_picture: Callable[[Path, tuple[int, int]], Pixels]
    open_world: Callable[[Load], WorldLike]
    check_weights: Callable[[Path], None]


def open_world(request: Load) -> WorldLike:
    """Open the World; runs in the generator process only. UserError when the weights cannot be read."""
    from generator.world import World

    world: WorldLike = World(request.weights, request.backend, request.threads, request.nfe, request.parallel)
    world.lighten(request.light)
    return world


def follow_leader(request: Load) -> bool:
    """False in the process that plays; in any other of a group, do its share until the end, then True. UserError when
    the processes do not fit together.
    """
    from generator.world import follow_leader, leads

    if leads():
        return False
    follow_leader(request.weights, request.backend, request.threads, request.nfe, request.parallel)
    return True


def check_weights(folder: Path) -> None:
    """UserError when there are no weights at `folder`, before a window opens or a process starts."""
    from controls.errors import UserError

    if not folder.is_dir():
        raise UserError(f"There are no weights at {folder}; give a folder that holds them with --weights.")
    if not any(folder.rglob("*.safetensors")):
        raise UserError(f"The folder {folder} holds no .safetensors file; give a weights folder with --weights.")


def default_door() -> Door:
    """The real generator (light: this does not import torch)."""
    from generator.world import find_scene, list_scenes, load_picture

    return Door(list_scenes, find_scene, load_picture, open_world, check_weights)
