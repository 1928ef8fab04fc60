"""Rollout: latent frames one after another, each from noise in one evaluation, through the rolling KV cache.

Shape key: B batch, C channels, H, W latent size, P action fields, R ray channels.
Everything random comes from (seed, frame_index). Source: AAPT sections 3.1 and 3.4 (student forcing, one step).

Does not know about pictures, windows or losses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from generator.model.dit import CausalDiT, Prefix
from generator.model.kv_cache import KVCache

Step = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def frame_noise(seed: int, frame_index: int, shape: tuple[int, ...]) -> Tensor:
    """float32 standard normal noise of one latent frame, the same on every machine: shape (C, H, W)."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + frame_index) & 0x7FFF_FFFF_FFFF_FFFF)
    return torch.randn(shape, generator=generator)


@dataclass
class RolloutState:
    """Where a rollout stands: the recycled frame (B, C, H, W), the cache, the seed and the next frame_index."""

    recycled: Tensor
    cache: KVCache
    seed: int
    frame_index: int = 0
    prefix: Prefix | None = field(default=None)


def start(dit: CausalDiT, first: Tensor, seed: int) -> RolloutState:
    """Begin from the latent of the first frame (B, C, H, W)."""
    weight = dit.embed.weight
    return RolloutState(first.to(weight), dit.new_cache(first.shape[0]), seed)


def advance(dit: CausalDiT, state: RolloutState, actions: Tensor, rays: Tensor) -> Tensor:
    """Generate the next latent frame (B, C, H, W) with one evaluation at t = 1; updates the state.

    actions (B, ticks, P), rays (B, R, H, W).
    """
    like = state.recycled
    noise = torch.stack(
        [frame_noise(state.seed + b, state.frame_index, tuple(like.shape[1:])) for b in range(len(like))]
    )
    noise = noise.to(like)
    t = torch.ones(like.shape[0], device=like.device)
    velocity = dit.step(
        noise,
        like,
        t,
        actions.to(like),
        rays.to(like),
        state.cache,
        state.frame_index,
        state.prefix,
    )
    state.recycled = noise - velocity
    state.frame_index += 1
    return state.recycled


@torch.no_grad()
def rollout(dit: CausalDiT, first: Tensor, actions: Tensor, rays: Tensor, seed: int) -> Tensor:
    """A free rollout: first (B, C, H, W), actions (B, F, ticks, P), rays (B, F, R, H, W) to (B, F, C, H, W)."""
    state = start(dit, first, seed)
    frames = [advance(dit, state, actions[:, k], rays[:, k]) for k in range(actions.shape[1])]
    return torch.stack(frames, dim=1)


@torch.no_grad()
def teacher_rollout(
    dit: CausalDiT,
    first: Tensor,
    actions: Tensor,
    rays: Tensor,
    seed: int,
    times: Tensor,
) -> Tensor:
    """A free rollout with several evaluations per latent frame (Euler), one rolling KV cache per grid point.

    The past's keys at t_i are those computed when it was itself at t_i, as in training. Source: LD3 notes section 6.
    Shapes as in `rollout`; times (S + 1,) decreasing from 1 to 0.
    """
    grid = times.tolist()
    caches = [dit.new_cache(first.shape[0]) for _ in grid[:-1]]
    recycled, frames = first.to(dit.embed.weight), []
    for k in range(actions.shape[1]):
        x = torch.stack([frame_noise(seed + b, k, tuple(first.shape[1:])) for b in range(len(first))]).to(recycled)
        for cache, now, after in zip(caches, grid[:-1], grid[1:], strict=True):
            t = torch.full((len(x),), now, device=x.device)
            velocity = dit.step(x, recycled, t, actions[:, k].to(x), rays[:, k].to(x), cache, k)
            x = x + (after - now) * velocity
        recycled = x
        frames.append(x)
    return torch.stack(frames, dim=1)
