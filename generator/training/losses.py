"""Losses of the tokenizer stage: sameness, closeness to a unit normal, and the patch critic's relativistic pair.

Shape key: B batch, F latent frames, T video frames, C channels, H, W latent size, Y, X video size.

Does not know of networks, optimisers or schedules.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def normal_kl(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mean, var) | N(0, 1)) in nats, averaged over every number of the latents B F C H W (Kingma 2013)."""
    return 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).mean()


def sample_latents(mean: Tensor, logvar: Tensor, generator: torch.Generator) -> Tensor:
    """One draw from N(mean, var), B F C H W; the noise is made by `generator` on its own device."""
    noise = torch.randn(mean.shape, generator=generator, device=generator.device)
    return mean + (0.5 * logvar).exp() * noise.to(mean)


def some_pictures(first: Tensor, second: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The same `count` random frames of two videos B T 3 Y X -> twice count 3 Y X."""
    frames = first.shape[0] * first.shape[1]
    chosen = torch.randperm(frames, generator=generator, device=generator.device)[:count].to(first.device)
    return first.flatten(0, 1)[chosen], second.flatten(0, 1)[chosen]


def critic_loss(real: Tensor, fake: Tensor) -> Tensor:
    """What the critic minimises: real patches should score above their reconstructions (AAPT section 3.3)."""
    return functional.softplus(fake - real).mean()


def generator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """What the decoder minimises: its patches should score above the real ones they stand for."""
    return functional.softplus(real - fake).mean()


def psnr(first: Tensor, second: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each picture, ... 3 Y X in [-1, 1] (peak 2) -> ..."""
    error = (first - second).square().mean((-3, -2, -1))
    return 10 * torch.log10(4.0 / error.clamp_min(1e-10))
