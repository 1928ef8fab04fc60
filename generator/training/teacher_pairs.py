"""Pairs for learning times on the whole teacher: noise and many-step latent of one latent frame after a real history.

Shape key: M pairs, B of them at once, F latent frames of a window (the last is sampled), C channels, H, W latent size,
T video frames, Y, X video size.
At time t the history is the real latents mixed with fixed noise to that t, as the network saw it in training and as
the rolling caches of play hold it. Source: LD3 notes sections 2 and 6; teacher forcing: AAPT section 3.3.

Does not know about grids, solvers' orders, optimisers or files.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from generator.data.latents import Batch, LatentClips
from generator.model.dit import CausalDiT
from generator.samplers.learned_times import Pairs, as_it_is
from generator.samplers.schedule import mix
from generator.samplers.solvers import Network, Solver
from generator.tokenizer.blocks import State
from generator.tokenizer.vae import VideoVAE
from generator.training.helpers import step_generator, step_rng


@dataclass(frozen=True)
class Context:
    """What the sampled frames follow: windows of M clips, and the noise of all their frames (M, F, C, H, W)."""

    batch: Batch
    noise: Tensor

    @property
    def count(self) -> int:
        """M."""
        return len(self.noise)

    def network(self, dit: CausalDiT, index: Tensor) -> Network:
        """The velocity of the last frame of some windows, as a solver asks for it; gradients reach x and t.

        Works on the model's device and answers on that of x.
        """
        weight, batch = dit.embed.weight, self.batch
        past, noise = batch.target[index, :-1], self.noise[index, :-1]
        recycled, actions, rays = (v[index].to(weight) for v in (batch.recycled, batch.actions, batch.rays))

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            at = t.to(x.dtype).expand(len(x))
            clip = torch.cat([mix(past, noise, at), x[:, None]], 1).to(weight)
            return dit(clip, recycled, at.to(weight), actions, rays)[:, -1].to(x)

        return velocity


def make_context(clips: LatentClips, dit: CausalDiT, count: int, history: int, seed: int, use: str) -> Context:
    """Windows of `history` real frames and one to sample, at places that follow from (seed, use)."""
    rng, frames, places = step_rng(seed, 0, use), history + 1, []
    for _ in range(count):
        clip = int(rng.integers(len(clips.clips)))
        places.append((clip, int(rng.integers(len(clips.clips[clip]["latents"]) - frames))))
    batch = clips.gather(places, frames)
    if not dit.config.reproject:
        batch.ahead = batch.pace = None
    noise = torch.randn(batch.target.shape, generator=step_generator(seed, 1, use))
    return Context(batch, noise)


@torch.no_grad()
def solve_targets(dit: CausalDiT, context: Context, solver: Solver, times: Tensor, at_once: int = 4) -> Tensor:
    """The teacher's latents (M, C, H, W) of the last frames, by a solver along many times (S + 1,)."""
    parts = torch.arange(context.count).split(at_once)
    return torch.cat([solver(context.network(dit, part), context.noise[part, -1], times) for part in parts])


class Eyes:
    """Decodes sampled frames after their real history, with gradients: every second video frame (B, T, 3, Y, X)."""

    def __init__(self, vae: VideoVAE, batch: Batch) -> None:
        self.vae = vae
        self.memory = [self._remember(batch, k) for k in range(len(batch.first))]

    @torch.no_grad()
    def _remember(self, batch: Batch, k: int) -> State:
        like = next(self.vae.decoder.parameters())
        past = torch.cat([batch.first[k : k + 1], batch.target[k, :-1]]).to(like)
        state = self.vae.decoder.init_state(1, (past.shape[-2], past.shape[-1]), like)
        return self.vae.decoder(self.vae.denormalise(past[None]), state, True)[1]

    def __call__(self, sample: Tensor, index: Tensor) -> Tensor:
        """Normalised latents (B, C, H, W) of the pairs `index` to video in about [-1, 1]."""
        made = []
        for latent, k in zip(sample, index.tolist(), strict=True):
            memory = self.memory[k]
            raw = self.vae.denormalise(latent[None, None].to(self.vae.scale))
            made.append(self.vae.decoder(raw, memory, False)[0][:, 1::2])
        return torch.cat(made)


def make_pairs(dit: CausalDiT, context: Context, latents: Tensor, eyes: Eyes | None = None) -> Pairs:
    """Pairs for `Learner` from the teacher's latents (M, C, H, W); with `eyes` the decoded pictures are compared."""
    if eyes is None:
        return Pairs(context.noise[:, -1].clone(), latents, lambda index: context.network(dit, index), as_it_is)
    with torch.no_grad():
        seen = torch.cat([eyes(latents[k : k + 1], torch.tensor([k])) for k in range(context.count)])
    return Pairs(context.noise[:, -1].clone(), seen, lambda index: context.network(dit, index), eyes)
