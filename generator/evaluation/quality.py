"""How near generated pictures come to the real ones: PSNR in dB (higher is better) and LPIPS (lower is better).

Shape key: T video frames, Y, X video size, F latent frames, C channels, H, W latent size,
P action fields, R ray channels.
A picture's PSNR is taken by itself and then averaged, so one perfect picture (106 dB) can lift a mean: compare means of
the same clips only. LPIPS is AlexNet's.

Does not know where clips or weights are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from controls.action import encode_rows
from controls.camera import Camera
from generator.checkpoint import Weights
from generator.data.latents import video_tensor
from generator.evaluation.motion import View, turned
from generator.rollout import frame_noise, rollout
from generator.training.losses import psnr
from generator.training.perceptual import Lpips
from generator.training.windows import to_frames

Pixels = npt.NDArray[np.uint8]


@dataclass
class Scores:
    """PSNR and LPIPS of single pictures, gathered by name."""

    network: Lpips
    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, made: Pixels, real: Pixels, every: bool = True) -> None:
        """Compare pictures uint8 (T, Y, X, 3); with `every` false only the last one is given to LPIPS."""
        one, two = video_tensor(made), video_tensor(real)
        self.values.setdefault(f"{name}.psnr", []).extend(psnr(one, two).tolist())
        last = slice(None) if every else slice(-1, None)
        with torch.inference_mode():
            self.values.setdefault(f"{name}.lpips", []).extend(self.network(one[last], two[last]).tolist())

    def means(self) -> dict[str, float]:
        """The mean of each name."""
        return {name: float(np.mean(values)) for name, values in sorted(self.values.items())}


@dataclass(frozen=True)
class Inputs:
    """What the transformer is given for a clip: latents (1 + F, C, H, W), actions (F, ticks, P), rays (F, R, H, W)."""

    latents: Tensor
    actions: Tensor
    rays: Tensor


@torch.inference_mode()
def prepare(weights: Weights, frames: Pixels, keys: npt.NDArray[np.uint8], look: npt.NDArray[np.float32]) -> Inputs:
    """Encode a stretch of video (T, Y, X, 3) and its ticks (T, K), (T, 2); T is 1 + ticks * F."""
    config = weights.config
    mean = weights.tokenizer.encode(video_tensor(frames)[None])[0]
    latents = weights.tokenizer.normalise(mean)[0]
    height, width = latents.shape[-2:]
    spec, count = config.action_spec, len(latents) - 1
    actions = encode_rows(keys[1:], look[1:], spec).reshape(count, spec.ticks, -1)
    camera = Camera(config.hfov, config.picture[0] / config.picture[1])
    rays = camera.ray_map(np.clip(look[1:], -spec.max_look, spec.max_look), height, width)
    return Inputs(latents, torch.from_numpy(actions), torch.from_numpy(rays.reshape(count, -1, height, width)))


@torch.inference_mode()
def next_latents(weights: Weights, inputs: Inputs, seed: int) -> Tensor:
    """Every latent frame from its true past in one evaluation: (F, C, H, W).

    One whole-clip forward at t = 1 under the causal mask: each frame sees the true recycled frames before it and the
    noise that a rollout of this seed would use, so frame k is what `step` gives when its whole history was real.
    """
    target = inputs.latents[1:]
    noise = torch.stack([frame_noise(seed, k, tuple(target.shape[1:])) for k in range(len(target))])
    given = (noise, inputs.latents[:-1], inputs.actions, inputs.rays)
    noise, recycled, actions, rays = (v[None] for v in given)
    velocity = weights.dit(noise, recycled, torch.ones(1), actions, rays)
    return (noise - velocity)[0]


def free_latents(weights: Weights, inputs: Inputs, seed: int) -> Tensor:
    """A free rollout from the first frame under the clip's own actions: (F, C, H, W), as `World` plays it."""
    return rollout(weights.dit, inputs.latents[:1], inputs.actions[None], inputs.rays[None], seed)[0]


@torch.inference_mode()
def decoded(weights: Weights, true: Tensor, branch: Tensor | None = None) -> Iterator[tuple[Pixels, Pixels | None]]:
    """Decode normalised latents (1 + F, C, H, W) one by one; with `branch` (F, C, H, W) each latent frame k >= 1 is
    also decoded as branch[k - 1] after the true latents before it. Yields the pictures of both, uint8 (T, Y, X, 3).
    """
    vae = weights.tokenizer
    latents = vae.denormalise(true[None])
    state = vae.decoder.init_state(1, (true.shape[-2], true.shape[-1]), latents)
    for k in range(len(true)):
        other = None
        if branch is not None and k:
            other = to_frames(vae.decoder(vae.denormalise(branch[None, k - 1, None]), state, False)[0][0])
        video, state = vae.decoder(latents[:, k : k + 1], state, k == 0)
        yield to_frames(video[0]), other


def repeated(frame: Pixels, count: int) -> Pixels:
    """Baseline: the picture (Y, X, 3) again and again, (count, Y, X, 3)."""
    return np.repeat(frame[None], count, axis=0)


def shifted(frame: Pixels, look: npt.NDArray[np.float32], pitch: float, view: View, count: int) -> Pixels:
    """Baseline: the picture turned by the summed look (n, 2) degrees; the last `count` of its n turns.

    The new view is cut out of the old one, edges repeated; nothing moves but the head. `pitch` is the old view's.
    """
    sums = np.cumsum(look.astype(np.float64), axis=0)[-count:]
    return np.stack([turned(frame, view, yaw, pitch, pitch + up) for yaw, up in sums])
