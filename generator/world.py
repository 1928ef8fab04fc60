"""World: the only door between the window and the generator. Four verbs: reset, step, save_state, load_state.

A fifth, stand_at, is for measuring worlds that are one place.

Importing this module does not import torch, so a window can list scenes while the network loads elsewhere.
Everything random comes from (seed, frame_index): the same picture, seed, actions, weights and backend give the same
frames.

Does not know about windows, keys, files other than weights, or time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from controls.action import Action, ActionSpec, encode
from controls.camera import Camera
from controls.errors import UserError
from generator.scene import Scene, find_scene, list_scenes, load_picture, scenes_of

if TYPE_CHECKING:
    from generator.runtime.backend import Backend

__all__ = ["Scene", "World", "find_scene", "list_scenes", "load_picture", "scenes_of"]

Pixels = npt.NDArray[np.uint8]
State = dict[str, npt.NDArray[Any]]
MOST_CALLS = 10  # network calls per latent frame; a test holds it to samplers.sampler.MOST


class World:
    """A running generator on this machine.

    `backend` is a name from `runtime.select` ("auto": the fastest that is installed); `threads` bounds CPU threads.
    `nfe` network calls make a latent frame: 1 is the generator, 2 to `MOST_CALLS` its many-step teacher, on the torch
    backends. `parallel` processes share the network (0: as many as torchrun started). UserError when the weights are
    missing or damaged, have no teacher, or the backend is unknown.
    """

    def __init__(self, weights: Path, backend: str = "auto", threads: int = 2, nfe: int = 1, parallel: int = 0) -> None:
        loaded, opened, self._sampler = _open(Path(weights), backend, threads, nfe, parallel)
        config = loaded.config
        self.spec: ActionSpec = config.action_spec
        self.size: tuple[int, int] = config.picture
        self.fps: float = config.fps
        self.camera = Camera(config.hfov, config.picture[0] / config.picture[1])
        self.latent_size = (config.dit.height, config.dit.width)
        self._cache_slots = config.dit.sink + config.dit.window + 1
        self.timings: dict[str, float] = {"step_ms": 0.0, "reproject_ms": 0.0, "decode_ms": 0.0}
        self.hash = loaded.hash
        self._tokenizer = loaded.tokenizer
        self._backend: Backend = opened
        self._ready = False
        if opened.reprojection:
            opened.reprojection.turn.ready()
        self._picture = np.zeros((self.size[1], self.size[0], 3), np.uint8)
        self.info: dict[str, Any] = {
            "weights_hash": loaded.hash,
            "backend": self._backend.name,
            "preset": config.preset,
            "stage": config.stage,
            "world": config.world,
            "nfe": nfe,
            "sampler": self._sampler,
            "fine": bool(opened.reprojection and opened.reprojection.fine),
        }

    @property
    def frame_index(self) -> int:
        """Latent frames generated since reset."""
        return self._backend.transformer.frame_index

    @property
    def cache_fill(self) -> tuple[int, int]:
        """Latent frames that the KV cache holds, and how many it can: sink, window and the newest."""
        return min(self.frame_index, self._cache_slots), self._cache_slots

    @property
    def pose(self) -> tuple[float, float, float] | None:
        """Where one is in a world that is one place: x, y in map units within its period, yaw in degrees."""
        return self._backend.reprojection.pose if self._backend.reprojection and self._ready else None

    def reset(self, picture: Pixels, seed: int) -> Pixels:
        """Begin from a picture, uint8 (Y, X, 3) of this world's size; returns it as decoded, (1, Y, X, 3)."""
        from generator.runtime.encode import encode_picture

        width, height = self.size
        if picture.shape != (height, width, 3) or picture.dtype != np.uint8:
            raise UserError(f"The first frame is {picture.shape}, this world needs {(height, width, 3)}; resize it.")
        latent = encode_picture(self._tokenizer, picture)
        self._backend.transformer.reset(latent, seed)
        self._ready = True
        frames = self._backend.decoder.first(latent)
        self._picture[:] = frames[-1]
        if self._backend.reprojection:
            self._backend.reprojection.reset(self._picture)
        return frames

    def step(self, action: Action) -> Pixels:
        """Generate the four video frames that an action leads to: uint8 (4, Y, X, 3)."""
        assert self._ready, "reset comes before step"
        began = time.perf_counter()
        look = np.clip(action.look, -self.spec.max_look, self.spec.max_look)
        rays = self.camera.ray_map(look, *self.latent_size).reshape(-1, *self.latent_size)
        encoded = encode(action, self.spec)
        turn, opened = self._backend.reprojection, time.perf_counter()
        ahead = turn(self._picture, look.astype(np.float32), encoded) if turn else None
        seen = time.perf_counter()
        latent = self._backend.transformer.step(encoded, rays, ahead)
        if not latent.isfinite().all():  # decoded it would be any colour
            raise UserError(f"The world's numbers are no longer finite at latent frame {self.frame_index} (NaN).")
        stepped = time.perf_counter()
        frames = self._backend.decoder.next(latent)
        frames = turn.compose(frames) if turn else frames
        self._picture[:] = frames[-1]
        done = time.perf_counter()
        self.timings = {
            "step_ms": 1e3 * (stepped - began),
            "reproject_ms": 1e3 * (seen - opened) if turn else 0.0,
            "decode_ms": 1e3 * (done - stepped),
        }
        return frames

    def stand_at(self, pose: Sequence[float] | npt.NDArray[Any]) -> None:
        """Be elsewhere from here on, in a world that is one place: x, y in map units, yaw and pitch in degrees, and the
        eye's height. The last picture stays, so it should show what is seen from there. UserError where it is no place.
        """
        assert self._ready, "reset comes before stand_at"
        turn = self._backend.reprojection
        if turn is None or turn.pose is None:
            raise UserError("This world is not one place, so nobody can be put somewhere in it; use one that is.")
        turn.stand_at(pose)

    def lighten(self, light: bool) -> None:
        """Leave fine detail out from here on, or no longer, where that saves time: other frames in less of it. No part
        of a state.
        """
        if self._backend.reprojection:
            self._backend.reprojection.lighten(light)

    def save_state(self) -> State:
        """Everything that the next frames depend on, as arrays; belongs to these weights and this backend."""
        assert self._ready, "reset comes before save_state"
        return self._state() | {"identity": np.frombuffer(self._identity().encode(), np.uint8).copy()}

    def load_state(self, state: State) -> None:
        """Continue exactly from `save_state`; UserError when it is damaged or of other weights or another backend.

        After a UserError the world stands where it stood.
        """
        identity = bytes(state.get("identity", np.zeros(0, np.uint8))).decode(errors="replace")
        if identity != self._identity():
            raise UserError(
                f"This state belongs to {identity!r}, not to {self._identity()!r}; use it where it was saved."
            )
        kept = self._state() if self._ready else None
        wanted = {k: v for k, v in state.items() if k != "identity"}
        try:
            if kept is not None and _layout(wanted) != _layout(kept):
                raise ValueError("its arrays are not those of this world")
            self._restore(wanted)
        except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
            if kept is not None:
                self._restore(kept)
            raise UserError(f"This state is damaged ({error}); use another one.") from error
        self._ready = True

    def _state(self) -> State:
        state = {f"transformer.{k}": v for k, v in self._backend.transformer.state().items()}
        state |= {f"decoder.{k}": v for k, v in self._backend.decoder.state().items()}
        if self._backend.reprojection:
            state |= {f"reprojection.{k}": v for k, v in self._backend.reprojection.state().items()}
        return state | {"picture": self._picture.copy()}

    def _restore(self, state: State) -> None:
        self._backend.transformer.load(_part(state, "transformer."))
        self._backend.decoder.load(_part(state, "decoder."))
        if self._backend.reprojection:
            self._backend.reprojection.load(_part(state, "reprojection."))
        if state["picture"].shape != self._picture.shape or state["picture"].dtype != np.uint8:
            raise ValueError(f"its picture is {state['picture'].shape}")
        self._picture[:] = state["picture"]

    def _identity(self) -> str:
        return "/".join(filter(None, (self.hash, self._backend.name, self._sampler)))


def _open(weights: Path, backend: str, threads: int, nfe: int, parallel: int) -> tuple[Any, Backend, str]:
    """The loaded weights, what plays them, and the sampler's label."""
    if parallel > 1 or several():
        from generator.runtime.parallel import Request, open_parallel

        return *open_parallel(Request(weights, backend, threads, nfe, parallel)), ""
    from generator.runtime.multistep import open_dial

    return open_dial(weights, backend, threads, nfe)


def several() -> bool:
    """Whether torchrun started this process beside others."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def leads() -> bool:
    """Whether this process is the one that plays; the others of a group `follow_leader`."""
    return not several() or os.environ.get("RANK", "0") == "0"


def follow_leader(weights: Path, backend: str, threads: int, nfe: int, parallel: int) -> None:
    """Do a share of what the leading process does, until it ends. UserError when they do not fit."""
    from generator.runtime.parallel import Request, follow

    follow(Request(Path(weights), backend, threads, nfe, parallel))


def _part(state: State, prefix: str) -> State:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _layout(state: State) -> dict[str, tuple[Any, ...]]:
    return {k: (v.shape, v.dtype) for k, v in state.items()}
