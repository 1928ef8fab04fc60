"""Walker: weights that play in plain torch with any number of network calls, 32 too; the reference of `World`.

Shape key: T video frames, Y, X video size, C channels, H, W latent size.
What `World` plays on its torch backend in float32, a walker plays as well, bit for bit; but a walker takes any sampler
(the game's dial ends at `MOST_CALLS`) and weights of any stage. Its many-step teacher keeps one rolling KV cache per
grid point. Source: LD3 notes section 6.

Does not know about backends, windows or what its pictures are measured by.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from controls.action import Action, encode
from controls.camera import Camera
from generator.checkpoint import Weights
from generator.model import multistep
from generator.model.sampler_file import expect_sampler, load_sampler
from generator.rollout import Eye, advance, frame_noise, start, with_ahead
from generator.runtime.encode import encode_picture
from generator.runtime.multistep import EVEN, UNLEARNED
from generator.samplers.sampler import Sampler, shifted_sampler
from generator.training.windows import to_frames

Pixels = npt.NDArray[np.uint8]


def sampler_of(folder: Path, weights: Weights, nfe: int) -> Sampler | None:
    """How `nfe` calls make a latent frame: learned times where the folder has them, else uniform ones; None for one."""
    if nfe == 1:
        return None
    path = folder / "times" / f"nfe-{nfe}.yaml"
    if path.is_file():
        return expect_sampler(load_sampler(path, weights.hash), path, nfe=nfe)
    return shifted_sampler(*UNLEARNED, nfe, EVEN)


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

    def _next(self, actions: Tensor, rays: Tensor, ahead: Tensor | None) -> Tensor:
        dit = self.weights.dit
        if self.many is None or self.sampler is None:
            return advance(dit, self.one, actions, rays, ahead)
        noise = frame_noise(self.one.seed, self.many.frame_index, tuple(self.last.shape[1:]))[None].to(self.last)
        recycled = with_ahead(self.last, ahead)
        self.last = multistep.sample_next(dit, self.many, self.sampler, noise, recycled, actions, rays)
        return self.last
