"""The many-step teacher one latent frame at a time: any sampler, one rolling KV cache per grid point.

Shape key: B batch, C channels, H, W latent size, P action fields, R ray channels.
The past's keys at t_i are those computed when the past was itself at t_i, as under the mask in training: so a frame
makes its `nfe` calls, each through the cache of its grid point. A solver that asks twice at one grid point (Heun)
overwrites what it wrote there. Source: LD3 notes section 6; AAPT section 3.3.

Does not know where noise, recycled frames or samplers come from.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from generator.model.dit import CausalDiT
from generator.model.kv_cache import KVCache
from generator.samplers.sampler import Sampler


@dataclass
class MultistepState:
    """One cache per grid point of the sampler, and the next frame_index."""

    caches: list[KVCache]
    frame_index: int = 0


def begin(dit: CausalDiT, batch: int, sampler: Sampler) -> MultistepState:
    """Empty caches for `batch` rollouts."""
    return MultistepState([dit.new_cache(batch) for _ in range(sampler.points)])


def sample_next(
    dit: CausalDiT,
    state: MultistepState,
    sampler: Sampler,
    noise: Tensor,
    recycled: Tensor,
    actions: Tensor,
    rays: Tensor,
) -> Tensor:
    """The next latent frame (B, C, H, W) in the type of noise (B, C, H, W); the caches and frame_index move on.

    recycled (B, C', H, W) with the model's recycled channels, actions (B, ticks, P), rays (B, R, H, W).
    """

    def velocity(point: int, x: Tensor, t: Tensor) -> Tensor:
        at = t.to(x.device, x.dtype).expand(len(x))
        return dit.step(x, recycled, at, actions, rays, state.caches[point], state.frame_index)

    made = sampler(velocity, noise)
    state.frame_index += 1
    return made
