"""The latent step of the GPU runtime: the eager step's numbers from static buffers, ready to be captured as a graph.

Shape key: C channels, H, W latent size, A heads, N tokens, E head width, P action fields, R ray channels, L layers.
Inputs are written into buffers that never move; frame_index and slot live on the device and move on by themselves. What
the host must know is only how many slots are filled, which is why there is one graph for each number of them.

Does not know about graphs, decoders or pictures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from generator.model.dit import CausalDiT, Prefix
from generator.model.layers import Block, modulate
from generator.model.rope import TIME_BASE, frequencies, rotate, split_pairs
from generator.runtime.gpu_attention import Kernel
from generator.runtime.gpu_cache import GpuCache


@dataclass(frozen=True)
class Turn:
    """Cosines and sines of a time rotation, each (positions, 1, pairs)."""

    cos: Tensor
    sin: Tensor


class GpuStep(nn.Module):
    """One latent frame from `noise`, `latent` (the last one), `ahead`, `actions` and `rays` into `latent`."""

    def __init__(self, dit: CausalDiT, cache: GpuCache, attend: Kernel, fuse: bool, compiled: bool) -> None:
        super().__init__()
        c, like = dit.config, dit.embed.weight
        self.dit, self.cache, self.attend, self.fuse = dit, cache, attend, fuse
        self.full = c.sink + c.window  # the first frame_index at which every slot is filled
        self.pairs = split_pairs(c.model_width // c.heads)[0]

        def buffer(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=like.dtype, device=like.device)

        self.noise, self.latent = (buffer(1, c.latent_channels, c.height, c.width) for _ in range(2))
        self.ahead = buffer(1, c.ahead_channels, c.height, c.width) if c.reproject else None
        self.actions, self.rays = buffer(1, c.ticks, c.action_fields), buffer(1, c.ray_channels, c.height, c.width)
        self.index = torch.zeros((), dtype=torch.int64, device=like.device)
        self.sinks = torch.arange(c.sink, device=like.device)
        self.rates = frequencies(self.pairs, TIME_BASE).to(like.device, torch.float64)
        with torch.no_grad():
            self.time = dit.conditioner.embed_time(torch.ones(1, device=like.device)).clone()
            self.offsets = torch.stack([block.offsets.to(like.dtype) for block in dit.blocks])
        self.before = torch.compile(before, dynamic=False) if compiled else before
        self.after = torch.compile(after, dynamic=False) if compiled else after

    def key(self, frame_index: int) -> int:
        """What distinguishes the graphs: frames with the same key run the same kernels on the same places."""
        return min(frame_index, self.full)

    @torch.no_grad()
    def run(self, frame_index: int) -> None:
        """Generate latent frame `frame_index`, which `index` must hold too; both cache and index move on."""
        c = self.dit.config
        ring = c.sink + torch.remainder(self.index - c.sink, c.window + 1)
        self.cache.aim(torch.where(self.index < c.sink, self.index, ring))
        now = self.turn(self.index[None])
        seen = torch.maximum(self.sinks, self.index - (c.window + c.sink) + self.sinks)
        sinks = self.turn(seen)
        recycled = self.latent if self.ahead is None else torch.cat([self.latent, self.ahead], dim=1)
        given = (self.noise[:, None], recycled[:, None], self.time, self.actions[:, None], self.rays[:, None])
        x, shared, final = self.dit.enter(*given)
        vectors = shared[:, :, None] + self.offsets if self.fuse else None  # (1, 1, L, 6, D)
        for layer, block in enumerate(self.dit.blocks):
            six = block.modulation(shared) if vectors is None else vectors[:, :, layer, :, None].unbind(2)
            query, key, value = self.before(
                block, x, six[0], six[1], self.dit.space_cos, self.dit.space_sin, self.pairs
            )
            y = self._attend(layer, frame_index, query, key, value, (now, sinks))
            x = self.after(block, x, y, six)
        clean = -self.dit.read_out(x, final)
        if self.dit.carry is not None:
            clean = clean + self.dit.carried(x, final, recycled[:, None])
        self.latent.copy_(clean[:, 0])
        self.index.add_(1)

    def turn(self, index: Tensor) -> Turn:
        """The time rotation of frame indices (n,), from float64 angles as in rope.py."""
        angle = torch.remainder(index.to(torch.float64)[:, None] * self.rates, 2 * math.pi).float()[:, None]
        return Turn(angle.cos(), angle.sin())

    def rotated(self, x: Tensor, turn: Turn) -> Tensor:
        """x (A, n * N, E) with its time part turned, position by position of the n."""
        positions = turn.cos.shape[0]
        time, space = x.split([2 * self.pairs, x.shape[-1] - 2 * self.pairs], dim=-1)
        turned = rotate(time.unflatten(1, (positions, -1)), turn.cos, turn.sin).flatten(1, 2)
        return torch.cat([turned, space], dim=-1)

    def _attend(
        self, layer: int, frame_index: int, query: Tensor, key: Tensor, value: Tensor, turns: tuple[Turn, Turn]
    ) -> Tensor:
        """query, key and value (A, N, E), turned in space, to what they attend (1, A, N, E)."""
        c, (now, sinks) = self.dit.config, turns
        self.cache.write(layer, self.rotated(key, now), value)
        if frame_index < c.sink:
            self.cache.keep_sink(layer, frame_index, key)
        if count := min(c.sink, frame_index + 1):
            own = Turn(sinks.cos[:count], sinks.sin[:count])
            self.cache.place_sinks(layer, self.rotated(self.cache.sinks[layer, :, : count * c.tokens], own))
        keys, values = self.cache.read(layer, frame_index)
        return self.attend(self.rotated(query, now)[None], keys, values, (c.model_width // c.heads) ** -0.5)

    def reset(self, first: Tensor, prefix: Prefix | None) -> None:
        """Begin from the latent of the first frame (1, C, H, W)."""
        self.cache.reset(prefix)
        self.latent.copy_(first)
        self.index.zero_()


def before(
    block: Block, x: Tensor, shift: Tensor, scale: Tensor, cos: Tensor, sin: Tensor, pairs: int
) -> tuple[Tensor, Tensor, Tensor]:
    """From tokens (1, 1, N, D) to query, key and value (A, N, E), the first two turned in space."""
    q, k, v = block.attention.video(modulate(x, shift, scale)[:, 0])

    def space(part: Tensor) -> Tensor:
        return torch.cat([part[0, ..., : 2 * pairs], rotate(part[0, ..., 2 * pairs :], cos, sin)], dim=-1)

    return space(q), space(k), v[0]


def after(block: Block, x: Tensor, y: Tensor, six: tuple[Tensor, ...]) -> Tensor:
    """Tokens (1, 1, N, D) with what was attended (1, A, N, E) and the MLP added."""
    x = x + six[2] * block.attention.video.merge(y)[:, None]
    return x + six[5] * block.mlp(modulate(x, six[3], six[4]))
