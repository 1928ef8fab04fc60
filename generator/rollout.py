"""Rollout: latent frames one after another, each from noise in one evaluation, through the rolling KV cache.

Shape key: B batch, C channels, H, W latent size, P action fields, R ray channels.
Everything random comes from (seed, frame_index). Source: AAPT sections 3.1 and 3.4 (student forcing, one step).

A model that recycles a reprojection needs its pictures as it goes: an `Eye` decodes them beside the rollout.

Does not know about windows or losses.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from generator.model import multistep
from generator.model.dit import CausalDiT, Prefix
from generator.model.kv_cache import KVCache
from generator.samplers.sampler import Sampler
from generator.tokenizer.blocks import LAST, State
from generator.tokenizer.parallax import Parallax
from generator.tokenizer.reproject import Reprojector, Views, to_picture
from generator.tokenizer.vae import VideoVAE


def frame_noise(seed: int, frame_index: int, shape: tuple[int, ...]) -> Tensor:
    """float32 standard normal noise of one latent frame, the same on every machine: shape (C, H, W)."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + frame_index) & 0x7FFF_FFFF_FFFF_FFFF)
    return torch.randn(shape, generator=generator)


class Eye:
    """The pictures of a batch of rollouts as a player sees them: decoded one latent frame at a time, never with a
    gradient. `ahead` turns and moves the last one by the next action and encodes it. `video` (B, ticks, 3, Y, X) is
    what the last latent frame shows.
    """

    def __init__(self, vae: VideoVAE, hfov: float, parallax: Parallax | None = None) -> None:
        self.vae, self.turn = vae, Reprojector(vae, hfov, parallax)
        self.memory: State = ()
        self.picture, self.pace = torch.empty(0), torch.empty(0)
        self.views: Views | None = None
        self.video = torch.empty(0)

    @torch.no_grad()
    def open(self, first: Tensor, pace: Tensor | None = None) -> None:
        """Begin with the normalised latents of the first pictures (B, C, H, W), standing or at a pace (B, Z)."""
        like = next(self.vae.decoder.parameters())
        self.memory = self.vae.decoder.init_state(len(first), (first.shape[-2], first.shape[-1]), like)
        self.views = None
        self._show(first.to(like), True)
        self.pace = self.turn.stand(self.picture) if pace is None else pace

    @torch.no_grad()
    def stand_at(self, pose: Tensor) -> None:
        """Go on from other poses (B, 5) of worlds that are one place; elsewhere nothing changes."""
        self.pace = self.turn.at(self.pace, pose)

    @torch.no_grad()
    def see(self, latent: Tensor) -> None:
        """Decode the next normalised latents (B, C, H, W)."""
        self._show(latent.to(self.picture), False)

    def _show(self, latent: Tensor, first: bool) -> None:
        video, memory = self.vae.decoder(self.vae.denormalise(latent)[:, None], self.memory, first)
        self.memory = tuple(m.contiguous(memory_format=LAST) for m in memory)  # as play holds it, to the last bit
        shown = to_picture(video)
        self.video = shown if self.views is None else self.turn.compose(self.views, shown)
        self.picture = self.video[:, -1]

    @torch.no_grad()
    def ahead(self, look: Tensor, actions: Tensor) -> Tensor:
        """The reprojected latents (B, C or C + K, H, W) under look (B, ticks, 2) degrees and encoded actions
        (B, ticks, P).
        """
        self.views, self.pace = self.turn.ahead(self.picture, look, actions, self.pace)
        return self.turn.told(self.turn(self.views.pictures).float(), self.views.pose)


class Conditions(Protocol):
    """What leads a rollout: actions (B, F, ticks, P), rays (B, F, R, H, W), look (B, F, ticks, 2) in degrees,
    and the pace (B, Z) at which it begins (None: standing).
    """

    @property
    def actions(self) -> Tensor:
        """Encoded actions."""

    @property
    def rays(self) -> Tensor:
        """Ray maps."""

    @property
    def look(self) -> Tensor:
        """Degrees per tick."""

    @property
    def pace(self) -> Tensor | None:
        """What the ego-motion remembers."""


def open_eye(dit: CausalDiT, vae: VideoVAE, hfov: float, parallax: Parallax | None = None) -> Eye | None:
    """An `Eye` for models that need one."""
    return Eye(vae, hfov, parallax) if dit.config.reproject else None


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


def advance(dit: CausalDiT, state: RolloutState, actions: Tensor, rays: Tensor, ahead: Tensor | None = None) -> Tensor:
    """Generate the next latent frame (B, C, H, W) with one evaluation at t = 1; updates the state.

    actions (B, ticks, P), rays (B, R, H, W); ahead (B, C, H, W) for models that recycle a reprojection.
    """
    like = state.recycled
    noise = torch.stack(
        [frame_noise(state.seed + b, state.frame_index, tuple(like.shape[1:])) for b in range(len(like))]
    )
    noise = noise.to(like)
    t = torch.ones(like.shape[0], device=like.device)
    velocity = dit.step(
        noise,
        with_ahead(like, ahead),
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


def with_ahead(recycled: Tensor, ahead: Tensor | None) -> Tensor:
    """The recycled channels (..., C to 2C + K, H, W) from the last latents and their reprojection (..., C, H, W)."""
    return recycled if ahead is None else torch.cat([recycled, ahead.to(recycled)], dim=-3)


def rollout(dit: CausalDiT, first: Tensor, conditions: Conditions, seed: int, eye: Eye | None = None) -> Tensor:
    """A free rollout from first (B, C, H, W): (B, F, C, H, W). `eye` where the model recycles a reprojection."""
    return rollout_and_history(dit, first, conditions, seed, eye)[0]


@torch.no_grad()
def rollout_and_history(
    dit: CausalDiT, first: Tensor, conditions: Conditions, seed: int, eye: Eye | None = None
) -> tuple[Tensor, Tensor]:
    """As `rollout`, and the recycled channels that each frame was given (B, F, C to 2C + K, H, W)."""
    if eye:
        eye.open(first, conditions.pace)
    return continue_rollout(dit, start(dit, first, seed), conditions, eye)


@torch.no_grad()
def continue_rollout(
    dit: CausalDiT, state: RolloutState, conditions: Conditions, eye: Eye | None = None
) -> tuple[Tensor, Tensor]:
    """The next frames of a rollout that stands at `state` (and `eye`), which both move on; as above."""
    frames, history = [], []
    for k in range(conditions.actions.shape[1]):
        ahead = eye.ahead(conditions.look[:, k], conditions.actions[:, k]) if eye else None
        history.append(with_ahead(state.recycled, ahead))
        frames.append(advance(dit, state, conditions.actions[:, k], conditions.rays[:, k], ahead))
        if eye:
            eye.see(frames[-1])
    return torch.stack(frames, dim=1), torch.stack(history, dim=1)


@torch.no_grad()
def teacher_rollout(
    dit: CausalDiT, first: Tensor, conditions: Conditions, seed: int, sampler: Sampler, eye: Eye | None = None
) -> Tensor:
    """A free rollout with several evaluations per latent frame, one rolling KV cache per grid point of the sampler.

    Shapes as in `rollout`. Source: LD3 notes section 6; see `multistep`.
    """
    state, last, frames = multistep.begin(dit, len(first), sampler), first.to(dit.embed.weight), []
    if eye:
        eye.open(first, conditions.pace)
    for k in range(conditions.actions.shape[1]):
        noise = torch.stack([frame_noise(seed + b, k, tuple(first.shape[1:])) for b in range(len(first))]).to(last)
        given = (conditions.actions[:, k].to(last), conditions.rays[:, k].to(last))
        recycled = with_ahead(last, eye.ahead(conditions.look[:, k], conditions.actions[:, k]) if eye else None)
        last = multistep.sample_next(dit, state, sampler, noise, recycled, *given)
        frames.append(last)
        if eye:
            eye.see(last)
    return torch.stack(frames, dim=1)
