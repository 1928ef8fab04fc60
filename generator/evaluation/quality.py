"""How near generated pictures come to the real ones: PSNR in dB (higher is better) and LPIPS (lower is better).

Shape key: T video frames, Y, X video size, F latent frames, C channels, H, W latent size,
P action fields, R ray channels.
PSNR is that of the squared error averaged over all pictures of one name: a mean of the pictures' own PSNRs would be
lifted by stills, of which a perfect one counts 106 dB. LPIPS (AlexNet's) is a mean over pictures.

Does not know where clips or weights are kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from controls.action import encode_rows
from controls.camera import Camera
from generator.checkpoint import Weights
from generator.data.encoding import reprojected
from generator.data.latents import PLAN, video_tensor
from generator.evaluation.motion import View, turned
from generator.rollout import frame_noise, with_ahead
from generator.samplers.sampler import Sampler
from generator.tokenizer.reproject import Reprojector, to_picture
from generator.training.perceptual import Lpips
from generator.training.windows import to_frames

Pixels = npt.NDArray[np.uint8]
PEAK, LEAST_ERROR = 2.0, 1e-10  # of levels in [-1, 1]; no error at all counts as the least: 106 dB


@dataclass
class Scores:
    """Squared errors (levels in [-1, 1]) and LPIPS of single pictures, gathered by name."""

    network: Lpips
    errors: dict[str, list[float]] = field(default_factory=dict)
    distances: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, made: Pixels, real: Pixels, every: bool = True) -> None:
        """Compare pictures uint8 (T, Y, X, 3); with `every` false only the last one is given to LPIPS."""
        one, two = video_tensor(made), video_tensor(real)
        self.errors.setdefault(name, []).extend((one - two).square().mean((-3, -2, -1)).tolist())
        last = slice(None) if every else slice(-1, None)
        with torch.inference_mode():
            self.distances.setdefault(name, []).extend(self.network(one[last], two[last]).tolist())

    def means(self) -> dict[str, float]:
        """`NAME.psnr`, of the mean squared error over all pictures of a name (dB), and `NAME.lpips`, the mean."""
        found = {f"{name}.lpips": float(np.mean(values)) for name, values in self.distances.items()}
        for name, values in self.errors.items():
            found[f"{name}.psnr"] = 10 * math.log10(PEAK**2 / max(float(np.mean(values)), LEAST_ERROR))
        return dict(sorted(found.items()))


def sharpness(pictures: Pixels) -> npt.NDArray[np.float64]:
    """The mean absolute Laplacian of the grey levels of pictures uint8 (T, Y, X, 3), in levels of 255: (T,)."""
    grey = pictures.astype(np.float32).mean(-1)
    inner = grey[:, 1:-1, 1:-1]
    laplacian = 4 * inner - grey[:, :-2, 1:-1] - grey[:, 2:, 1:-1] - grey[:, 1:-1, :-2] - grey[:, 1:-1, 2:]
    return np.asarray(np.abs(laplacian).mean((1, 2)), np.float64)


@dataclass(frozen=True)
class Inputs:
    """What the transformer is given for a clip: latents (1 + F, C, H, W), actions (F, ticks, P), rays (F, R, H, W),
    look (F, ticks, 2) in degrees; pose (1 + F, 4) of its pictures where the world is one place.
    """

    latents: Tensor
    actions: Tensor
    rays: Tensor
    look: Tensor
    pose: Tensor | None = None


@torch.inference_mode()
def prepare(
    weights: Weights,
    frames: Pixels,
    keys: npt.NDArray[np.uint8],
    look: npt.NDArray[np.float32],
    pose: npt.NDArray[np.float32] | None = None,
) -> Inputs:
    """Encode a stretch of video (T, Y, X, 3) and its ticks (T, K), (T, 2); T is 1 + ticks * F.

    Its poses (T, 5) matter where the world is one place; not given, they are read from the pictures.
    """
    config = weights.config
    mean = weights.tokenizer.encode(video_tensor(frames)[None])[0]
    latents = weights.tokenizer.normalise(mean)[0]
    height, width = latents.shape[-2:]
    spec, count = config.action_spec, len(latents) - 1
    actions = encode_rows(keys[1:], look[1:], spec).reshape(count, spec.ticks, -1)
    camera = Camera(config.hfov, config.picture[0] / config.picture[1])
    turn = np.clip(look[1:], -spec.max_look, spec.max_look).astype(np.float32).reshape(count, spec.ticks, 2)
    rays = camera.ray_map(turn, height, width).reshape(count, -1, height, width)
    made = Inputs(latents, *(torch.from_numpy(v) for v in (actions, rays, turn)))
    place = weights.parallax.place if weights.parallax else None
    if place is None:
        return made
    if pose is None:
        return replace(made, pose=place.locate(video_tensor(frames[:: spec.ticks])))
    return replace(made, pose=torch.from_numpy(pose[:: spec.ticks, PLAN]).float())


@torch.inference_mode()
def next_latents(weights: Weights, inputs: Inputs, seed: int, sampler: Sampler | None = None) -> Tensor:
    """Every latent frame from its true past in one evaluation at t = 1, or in a sampler's calls: (F, C, H, W).

    Whole-clip forwards under the causal mask: each frame sees the true recycled frames before it and the noise that a
    rollout of this seed would use, so frame k is what `step` gives when all that it recycled was real.
    """
    target = inputs.latents[1:]
    noise = torch.stack([frame_noise(seed, k, tuple(target.shape[1:])) for k in range(len(target))])
    ahead = None
    if turn := weights.reprojector():
        pose = None if inputs.pose is None else inputs.pose[None]
        ahead = reprojected(turn, inputs.latents[None], inputs.look[None], inputs.actions[None], torch.float32, pose)[
            0
        ][0]
        ahead = turn.told(ahead, None if inputs.pose is None else inputs.pose[1:])
    given = (noise, with_ahead(inputs.latents[:-1], ahead), inputs.actions, inputs.rays)
    noise, recycled, actions, rays = (v[None] for v in given)

    def velocity(call: int, x: Tensor, t: Tensor) -> Tensor:
        return weights.dit(x, recycled, t.to(x).expand(1), actions, rays)

    return (sampler(velocity, noise) if sampler else noise - velocity(0, noise, torch.ones(())))[0]


class Composer:
    """What is shown of a latent frame that follows true pictures: the moved last one wherever both agree."""

    def __init__(self, turn: Reprojector, inputs: Inputs) -> None:
        self.turn, self.inputs, self.pace, self.k = turn, inputs, turn.no_pace(1), 0

    def __call__(self, last: Tensor, video: Tensor) -> Tensor:
        """Decoded video (1, ticks, 3, Y, X) after the true picture `last` (1, 3, Y, X); one latent frame per call."""
        given = (self.inputs.look[None, self.k], self.inputs.actions[None, self.k])
        at = None if self.inputs.pose is None else self.inputs.pose[None, self.k]
        views, self.pace = self.turn.ahead(to_picture(last), *given, self.turn.at(self.pace, at))
        self.k += 1
        return self.turn.compose(views, to_picture(video))


@torch.inference_mode()
def decoded(
    weights: Weights, true: Tensor, branch: Tensor | None = None, inputs: Inputs | None = None
) -> Iterator[tuple[Pixels, Pixels | None]]:
    """Decode normalised latents (1 + F, C, H, W) one by one; with `branch` (F, C, H, W) each latent frame k >= 1 is
    also decoded as branch[k - 1] after the true latents before it, and shown as play shows it under the `inputs`.
    Yields the pictures of both, uint8 (T, Y, X, 3).
    """
    turn = weights.reprojector() if inputs else None
    compose, video = (Composer(turn, inputs) if turn and inputs else None), torch.empty(0)
    vae = weights.tokenizer
    latents = vae.denormalise(true[None])
    state = vae.decoder.init_state(1, (true.shape[-2], true.shape[-1]), latents)
    for k in range(len(true)):
        other = None
        if branch is not None and k:
            guess = vae.decoder(vae.denormalise(branch[None, k - 1, None]), state, False)[0]
            other = to_frames((compose(video[:, -1], guess) if compose else guess)[0])
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
