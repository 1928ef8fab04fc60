"""Walker: weights that play in plain torch with any number of network calls, 32 too; the reference of `World`.

Shape key: T video frames, Y, X video size, C channels, H, W latent size.
What `World` plays on its torch backend in float32, a walker plays as well, bit for bit; but a walker takes any sampler
(the game's dial ends at `MOST_CALLS`) and weights of any stage. Its many-step teacher keeps one rolling KV cache per
grid point. Source: LD3 notes section 6.

Does not know about backends, windows or what its pictures are measured by.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from controls.action import Action, ActionSpec, encode
from controls.camera import Camera
from controls.errors import UserError
from generator.checkpoint import Weights, load_weights
from generator.model import multistep
from generator.rollout import Eye, advance, frame_noise, start, with_ahead
from generator.runtime.encode import encode_picture
from generator.runtime.multistep import sampler_in, teacher_of
from generator.samplers.sampler import Sampler
from generator.tokenizer.reproject import Standing
from generator.training.windows import to_frames

Pixels = npt.NDArray[np.uint8]
Keys = npt.NDArray[np.uint8]
Look = npt.NDArray[np.float32]
Poses = npt.NDArray[np.float32]

BEGUN = 2  # latent frames


class Walks(Protocol):
    """What can be led through a clip: a walker, or anything that plays like it."""

    spec: ActionSpec
    fps: float
    camera: Camera

    def reset(self, picture: Pixels, seed: int) -> Pixels:
        """Begin: (1, Y, X, 3)."""

    def step(self, action: Action) -> Pixels:
        """The video frames of one latent frame: (ticks, Y, X, 3)."""

    def stand_at(self, pose: Poses) -> None:
        """Be at another pose (5,) from here on, where the world is one place."""

    @property
    def pose(self) -> Standing:
        """Where one is in a world that is one place: x, y in map units, yaw in degrees."""


def led(
    world: Walks,
    picture: Pixels,
    keys: Keys,
    look: Look,
    seed: int,
    pose: Poses | None = None,
    went: list[Standing] | None = None,
) -> Pixels:
    """A free rollout from a picture (Y, X, 3) under the ticks of a clip that begins with it: (T, Y, X, 3).

    keys (T, K) and look (T, 2), whose first row is the picture's own; whole latent frames. With its poses (T, 5), as
    worlds that are one place take them, the walk stands where the recorded one did before its first BEGUN latent
    frames: one picture does not tell how fast it goes. `went` is given where it is after each latent frame.
    """
    shown, ticks = [world.reset(picture, seed)], world.spec.ticks
    for k in range(1, len(keys), ticks):
        if pose is not None and k <= BEGUN * ticks:
            world.stand_at(pose[k - 1])
        shown.append(world.step(Action(keys[k : k + ticks], look[k : k + ticks])))
        if went is not None:
            went.append(world.pose)
    return np.concatenate(shown)


class Walker:
    """One rollout at a time; `reset` begins another."""

    def __init__(self, weights: Weights, sampler: Sampler | None = None) -> None:
        config = weights.config
        self.weights, self.sampler = weights, sampler
        self.spec, self.fps = config.action_spec, config.fps
        self.camera = Camera(config.hfov, config.picture[0] / config.picture[1])
        self.eye = Eye(weights.tokenizer, config.hfov, weights.parallax)

    @torch.inference_mode()
    def reset(self, picture: Pixels, seed: int) -> Pixels:
        """Begin from a picture, uint8 (Y, X, 3); returns it as decoded, (1, Y, X, 3)."""
        latent = encode_picture(self.weights.tokenizer, picture)
        self.eye.open(latent)
        self.one = start(self.weights.dit, latent, seed)
        self.many = multistep.begin(self.weights.dit, 1, self.sampler) if self.sampler else None
        self.last = latent.to(self.weights.dit.embed.weight)
        return to_frames(self.eye.video[0])

    @torch.inference_mode()
    def step(self, action: Action) -> Pixels:
        """The video frames of one latent frame: uint8 (ticks, Y, X, 3)."""
        shape = self.last.shape[-2:]
        look = np.clip(action.look, -self.spec.max_look, self.spec.max_look).astype(np.float32)
        rays = self.camera.ray_map(look, *shape).reshape(-1, *shape)
        actions, moved, turned = (torch.from_numpy(v)[None] for v in (encode(action, self.spec), rays, look))
        ahead = self.eye.ahead(turned, actions) if self.weights.dit.config.reproject else None
        self.eye.see(self._next(actions, moved, ahead))
        return to_frames(self.eye.video[0])

    def stand_at(self, pose: Poses) -> None:
        """See `Walks`."""
        self.eye.stand_at(torch.from_numpy(pose)[None].float())

    @property
    def pose(self) -> Standing:
        """See `Walks`."""
        return self.eye.turn.standing(self.eye.pace)

    def _next(self, actions: Tensor, rays: Tensor, ahead: Tensor | None) -> Tensor:
        dit = self.weights.dit
        if self.many is None or self.sampler is None:
            return advance(dit, self.one, actions, rays, ahead)
        noise = frame_noise(self.one.seed, self.many.frame_index, tuple(self.last.shape[1:]))[None].to(self.last)
        recycled = with_ahead(self.last, ahead)
        self.last = multistep.sample_next(dit, self.many, self.sampler, noise, recycled, actions, rays)
        return self.last


def open_walker(folder: Path, nfe: int) -> Walker:
    """Weights as the quality dial plays them: one call is the folder's own network, any number more its teacher.

    UserError when there is no teacher, or `nfe` is none.
    """
    if nfe < 1:
        raise UserError(f"--nfe is {nfe}; give 1, or more network calls per latent frame.")
    if nfe == 1:
        return Walker(load_weights(folder))
    found, weights = teacher_of(folder)
    return Walker(weights, sampler_in(found, weights, nfe))
