"""The latent step and the decode with all state as inputs and outputs: what exporters and graph compilers need.

Shape key: C channels, H, W latent size, A heads, N tokens, E head width, L layers, S cache slots, Q rotated time pairs.
The numbers are those of `CausalDiT.step` and `StreamingDecoder`; only the bookkeeping moves to the caller.

Does not know which compiler runs the graphs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from generator.model.attention import Attention
from generator.model.dit import CausalDiT, DiTConfig
from generator.model.kv_cache import filled_slots, slot_of
from generator.model.layers import modulate
from generator.model.rope import split_pairs, time_angles
from generator.runtime.backend import level_of, to_bytes
from generator.tokenizer.parallax import DepthNet
from generator.tokenizer.refine import Refiner
from generator.tokenizer.reproject import Reprojector
from generator.tokenizer.vae import VideoVAE

Float = npt.NDArray[np.float32]
MASKED = -1e4  # finite, so that bf16 graphs never see inf - inf


@dataclass
class Clock:
    """What the place in time means to one step: angles of the query, the stored key and the sinks, and the mask."""

    now: Float  # (2, Q) cos and sin
    store: Float  # (2, Q)
    sinks: Float  # (2, sink, Q)
    mask: Float  # (1, 1, N, S * N + N), 0 or MASKED; not broadcast: OpenVINO 2026 in bf16 reads a broadcast one wrongly


def clock_at(config: DiTConfig, frame_index: int) -> Clock:
    """The clock of latent frame `frame_index`."""
    head = config.model_width // config.heads
    index = torch.arange(max(config.sink, 1))
    seen = torch.maximum(index, frame_index - (config.window + config.sink) + index)

    def turn(at: Tensor) -> Float:
        angle = time_angles(at, head)
        return np.asarray(torch.stack([angle.cos(), angle.sin()]).numpy())

    now = turn(torch.tensor(frame_index))
    still = np.stack([np.ones_like(now[0]), np.zeros_like(now[1])])
    slots = config.sink + config.window + 1
    open_slots = np.zeros(slots, dtype=bool)
    open_slots[: filled_slots(frame_index, config.window, config.sink)] = True
    open_slots[slot_of(frame_index, config.window, config.sink)] = False
    mask = np.repeat(np.where(open_slots, 0.0, MASKED), config.tokens)
    mask = np.concatenate([mask, np.zeros(config.tokens)]).astype(np.float32)
    rows = np.repeat(mask[None, None, None], config.tokens, axis=2)
    return Clock(now, still if frame_index < config.sink else now, turn(seen), rows)


class ExplicitStep(nn.Module):
    """`CausalDiT.step` at t = 1 as a function of its inputs; the ring is written by the caller."""

    def __init__(self, dit: CausalDiT) -> None:
        super().__init__()
        self.dit = dit
        self.pairs = split_pairs(dit.config.model_width // dit.config.heads)[0]
        with torch.no_grad():  # a constant here: graphs that compute in bf16 would spoil its fast cosines
            self.register_buffer("time", dit.conditioner.embed_time(torch.ones(1)).clone())

    def forward(
        self,
        noise: Tensor,
        recycled: Tensor,
        actions: Tensor,
        rays: Tensor,
        now: Tensor,
        store: Tensor,
        sinks: Tensor,
        mask: Tensor,
        keys: Tensor,
        values: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """noise (1, C, H, W), recycled (1, C to 2C + K, H, W), actions (1, ticks, P), rays (1, R, H, W),
        keys and values (L, A, S * N, E).

        Returns the clean latent (1, C, H, W) and this frame's stored keys and values, each (L, A, N, E).
        """
        channels = (noise[:, None], recycled[:, None])
        x, shared, final = self.dit.enter(*channels, self.time, actions[:, None], rays[:, None])
        new_keys, new_values = [], []
        for layer, block in enumerate(self.dit.blocks):
            shift1, scale1, gate1, shift2, scale2, gate2 = block.modulation(shared)
            y, key, value = self._attend(
                block.attention,
                modulate(x, shift1, scale1)[:, 0],
                (now, store, sinks),
                mask,
                keys[layer],
                values[layer],
            )
            x = x + gate1 * y[:, None]
            x = x + gate2 * block.mlp(modulate(x, shift2, scale2))
            new_keys.append(key)
            new_values.append(value)
        clean = -self.dit.read_out(x, final)  # noise - velocity at t = 1, without rounding the noise
        if self.dit.carry is not None:
            clean = clean + self.dit.carried(x, final, recycled[:, None])
        return clean[:, 0], torch.stack(new_keys), torch.stack(new_values)

    def _attend(
        self,
        attention: Attention,
        x: Tensor,
        turns: tuple[Tensor, Tensor, Tensor],
        mask: Tensor,
        keys: Tensor,
        values: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        now, store, sinks = turns
        q, k, v = (part[0] for part in attention.video(x))
        q, k = self._space(q), self._space(k)
        query = self._turn(q, now[0], now[1])
        config = self.dit.config
        count = config.sink * config.tokens
        far = keys[:, :count].unflatten(1, (max(config.sink, 1), -1)) if count else keys[:, :0]
        placed = self._turn(far, sinks[0][:, None], sinks[1][:, None]).flatten(1, 2) if count else far
        all_keys = torch.cat([placed, keys[:, count:], self._turn(k, now[0], now[1])], dim=1)
        all_values = torch.cat([values, v], dim=1)
        scale = attention.head_width**-0.5
        y = nnf.scaled_dot_product_attention(query[None], all_keys[None], all_values[None], mask, scale=scale)
        return attention.video.merge(y), self._turn(k, store[0], store[1]), v

    def _space(self, x: Tensor) -> Tensor:
        time, space = x[..., : 2 * self.pairs], x[..., 2 * self.pairs :]
        first, second = space.chunk(2, dim=-1)
        cos, sin = self.dit.space_cos, self.dit.space_sin
        return torch.cat([time, first * cos - second * sin, first * sin + second * cos], dim=-1)

    def _turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        first, second = x[..., : self.pairs], x[..., self.pairs : 2 * self.pairs]
        rest = x[..., 2 * self.pairs :]
        return torch.cat([first * cos - second * sin, first * sin + second * cos, rest], dim=-1)


class ExplicitEncode(nn.Module):
    """`Reprojector.forward`, without the first view's latent."""

    def __init__(self, turn: Reprojector) -> None:
        super().__init__()
        self.turn = turn

    def forward(self, views: Tensor) -> tuple[Tensor]:
        """views (1, 1 + ticks, 3, Y, X) -> (1, C, H, W)."""
        return (self.turn(views),)


class ExplicitDepth(nn.Module):
    """`DepthNet.forward` of one picture."""

    def __init__(self, depth: DepthNet) -> None:
        super().__init__()
        self.depth = depth

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """picture (1, 3, Y, X) -> nearness (1, 1, h, w), horizon (1,)."""
        return self.depth(picture)


class ExplicitRefine(nn.Module):
    """`Refiner.forward` of the pictures of one latent frame, from and to bytes."""

    def __init__(self, refiner: Refiner) -> None:
        super().__init__()
        self.refiner = refiner

    def forward(self, frames: Tensor, moved: Tensor, inside: Tensor, *known: Tensor) -> tuple[Tensor]:
        """frames uint8 (ticks, Y, X, 3), moved and perhaps known (ticks, 3, Y, X), inside (ticks, 1, Y, X) -> uint8
        (ticks, Y, X, 3).
        """
        made = frames.permute(0, 3, 1, 2).float() / 127.5 - 1
        return (to_bytes(self.refiner(made, moved, inside, *known)[None]),)


class ExplicitDecode(nn.Module):
    """One streamed decode, from a normalised latent and the memory to byte-valued pictures and the next memory.

    `level`: also what `backend.level_of` says of the pictures before they are bytes, float32 (1,) after them.
    """

    def __init__(self, vae: VideoVAE, level: bool = False) -> None:
        super().__init__()
        self.vae, self.level = vae, level

    def forward(self, latent: Tensor, *memory: Tensor) -> tuple[Tensor, ...]:
        """latent (1, C, H, W) -> uint8 (4, Y, X, 3), then the memory."""
        video, kept = self.vae.decoder(self.vae.denormalise(latent)[:, None], memory, False)
        scaled = ((video[0].clamp(-1, 1) + 1) * 127.5).round()
        level = (level_of(video),) if self.level else ()
        return (scaled.permute(0, 2, 3, 1).to(torch.uint8), *level, *kept)
