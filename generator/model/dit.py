"""CausalDiT: the block-causal video diffusion transformer that generates one latent frame per evaluation.

Shape key: B batch, F latent frames, C channels, H, W latent size, N tokens per latent frame, D width, P action fields,
R ray channels (3 per tick), K place channels. Latents are B F C H W.
The input of latent frame k is the channel concat of noisy_k, frame_{k-1} (the recycled frame) and the ray maps of k;
the output is the velocity of frame k. The first picture has no token block: it is only the recycled frame of frame 0
here (the first generated one). Source: AAPT sections 3.1 to 3.3 and 4.
With `reproject` the recycled channels are 2C: frame_{k-1} as it is and as the commanded look turns it
(tokenizer/reproject.py), and each token says how much of either to carry over (both ours). Where the world is one
place, K more channels tell of it (tokenizer/place.py).

Does not know about schedules, losses, tokenizers or where noise comes from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from generator.model.attention import Positions, block_causal_mask, may_see
from generator.model.conditioning import Conditioner, patchify, unpatchify
from generator.model.kv_cache import CacheShape, KVCache, Past
from generator.model.layers import Block
from generator.model.rope import space_angles
from generator.model.share import Share

Prefix = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class DiTConfig:
    """Sizes of a CausalDiT. `height` and `width` are latent sizes; `window` and `sink` count latent frames. Without
    `recycle` only the given picture is recycled, by frame 0: the paper's ablation.
    """

    latent_channels: int = 32
    height: int = 10
    width: int = 16
    patch: int = 2
    model_width: int = 320
    depth: int = 8
    heads: int = 5
    mlp_ratio: int = 4
    window: int = 15
    sink: int = 1
    ticks: int = 4
    action_fields: int = 10
    text_width: int = 0
    reference_rows: int = 0
    reference_columns: int = 0
    reproject: bool = False
    recycle: bool = True
    place_channels: int = 0

    @property
    def carried_channels(self) -> int:
        """Channels of the recycled frame that are latents."""
        return self.latent_channels * (2 if self.reproject else 1)

    @property
    def recycled_channels(self) -> int:
        """Channels of the recycled frame, with what it is told of the place."""
        return self.carried_channels + self.place_channels

    @property
    def ahead_channels(self) -> int:
        """Channels of what lies ahead: all that is recycled but the last latent frame."""
        return self.recycled_channels - self.latent_channels

    @property
    def rows(self) -> int:
        """Token rows."""
        return self.height // self.patch

    @property
    def columns(self) -> int:
        """Token columns."""
        return self.width // self.patch

    @property
    def tokens(self) -> int:
        """N: tokens per latent frame."""
        return self.rows * self.columns

    @property
    def ray_channels(self) -> int:
        """R: a direction for each tick."""
        return 3 * self.ticks

    @property
    def reference(self) -> tuple[int, int]:
        """The token grid that spatial positions are stretched to."""
        return self.reference_rows or self.rows, self.reference_columns or self.columns


def output_skip(t: Tensor) -> Tensor:
    """Weight of the noisy input in the velocity: the best linear guess for unit-variance data; 1 at t = 1.

    The network then need not carry the noise through its width. Ours; the paper does not say.
    """
    return (2 * t - 1) / (t * t + (1 - t) * (1 - t))


def carry_skip(t: Tensor) -> Tensor:
    """Weight of an expected clean frame in the velocity beside `output_skip`: 1 at t = 1, 0 at t = 0."""
    return 1 + (1 - t) * output_skip(t)


def new_block(config: DiTConfig) -> Block:
    """One block of the transformer with its first numbers."""
    c = config
    return Block(c.model_width, c.heads, c.mlp_ratio, c.window, c.sink, bool(c.text_width))


class CausalDiT(nn.Module):
    """The transformer. `forward` takes a whole clip under the mask, `step` one latent frame with the cache."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        width, area = config.model_width, config.patch**2
        channels = config.latent_channels + config.recycled_channels + config.ray_channels
        self.embed = nn.Linear(channels * area, width)
        self.conditioner = Conditioner(width, config.ticks, config.action_fields)
        self.text_in = nn.Linear(config.text_width, width) if config.text_width else None
        self.blocks = nn.ModuleList(new_block(config) for _ in range(config.depth))
        self.out = nn.Linear(width, config.latent_channels * area)
        self.carry = nn.Linear(width, config.carried_channels * area) if config.reproject else None
        angles = space_angles(config.rows, config.columns, width // config.heads, config.reference)
        self.register_buffer("space_cos", angles.cos(), persistent=False)
        self.register_buffer("space_sin", angles.sin(), persistent=False)
        self._masks: dict[tuple[int, int, torch.device], Tensor] = {}
        self.share: Share | None = None
        self.initialise()

    def spread(self, share: Share) -> None:
        """From now on the tokens are shared by several processes that all call alike (share.py)."""
        self.share = share
        for block in self.blocks:
            block.attention.share = share

    def _positions(self, index: Tensor, last: int = 0) -> Positions:
        """Where this process's tokens of latent frames `index` stand."""
        own = self.share.span if self.share else slice(None)
        return Positions(index, self.space_cos[own], self.space_sin[own], last)

    def _mask(self, frames: int, prefix: int, device: torch.device) -> Tensor:
        """The block-causal mask of a clip of this length, made once."""
        key = (frames, prefix, device)
        if key not in self._masks:
            c = self.config
            self._masks[key] = block_causal_mask(frames, c.tokens, c.window, c.sink, prefix).to(device)
        return self._masks[key]

    def initialise(self) -> None:
        """Give what ends a branch, and what reads out, its own first numbers."""
        residual_std = (2 * self.config.depth * self.config.model_width) ** -0.5
        for block in self.blocks:
            nn.init.normal_(block.attention.video.out.weight, std=residual_std)
            nn.init.normal_(block.mlp.down.weight, std=residual_std)
            nn.init.zeros_(block.mlp.down.bias)
        nn.init.normal_(self.out.weight, std=0.1 * self.config.model_width**-0.5)
        nn.init.zeros_(self.out.bias)
        if self.carry is not None:
            nn.init.zeros_(self.carry.weight)
            nn.init.zeros_(self.carry.bias)

    def forward(
        self,
        noisy: Tensor,
        recycled: Tensor,
        t: Tensor,
        actions: Tensor,
        rays: Tensor,
        text: Tensor | None = None,
        past: list[Past] | None = None,
        start: int = 0,
        checkpointed: bool = False,
    ) -> Tensor:
        """Velocity of every latent frame of a clip.

        noisy (B, F, C, H, W); recycled (B, F, C to 2C + K, H, W); t (B,); actions (B, F, ticks, P);
        rays (B, F, R, H, W); text (B, L, text_width) or None. Returns (B, F, C, H, W).
        A segment of a longer rollout begins at frame_index `start` and sees the `past` of every layer
        (`KVCache.past`); `checkpointed` keeps one block's activations at a time for the backward pass.
        """
        recycled = self._recycled(recycled, start)
        x, shared, final = self.enter(noisy, recycled, self.conditioner.embed_time(t), actions, rays)
        for tokens in self.through_blocks(x, shared, text, past, start, checkpointed):
            x = tokens
        return self._leave(x, final, noisy, recycled, t)

    def through_blocks(
        self,
        x: Tensor,
        shared: Tensor,
        text: Tensor | None = None,
        past: list[Past] | None = None,
        start: int = 0,
        checkpointed: bool = False,
        causal: bool = True,
    ) -> Iterator[Tensor]:
        """The tokens (B, F, N, D) after each block in turn; without `causal` every token sees the whole clip."""
        frames, device = x.shape[1], x.device
        index = torch.arange(start, start + frames, device=device)
        positions = self._positions(index, start + frames - 1 if causal else 0)
        prefix = self._enter_text(text)
        length = 0 if prefix is None else prefix.shape[1]
        mask = None if not causal else self._mask(frames, length, device)
        if past is not None:
            c = self.config
            seen = may_see(index, torch.cat([past[0].frame_index, index]), c.window, c.sink)
            mask = seen.repeat_interleave(c.tokens, 0).repeat_interleave(c.tokens, 1)
        for number, block in enumerate(self.blocks):
            given = (x, shared, positions, mask, prefix, past[number] if past is not None else None)
            x, prefix = checkpoint(block, *given, use_reentrant=False) if checkpointed else block(*given)
            yield x

    def step(
        self,
        noisy: Tensor,
        recycled: Tensor,
        t: Tensor,
        actions: Tensor,
        rays: Tensor,
        cache: KVCache,
        frame_index: int,
        prefix: Prefix | None = None,
    ) -> Tensor:
        """Velocity of one latent frame; writes its keys and values to the cache.

        noisy (B, C, H, W); recycled (B, C to 2C + K, H, W); t (B,); actions (B, ticks, P); rays (B, R, H, W).
        Returns (B, C, H, W).
        """
        noisy, recycled, actions, rays = (v[:, None] for v in (noisy, recycled, actions, rays))
        recycled = self._recycled(recycled, frame_index)
        x, shared, final = self.enter(noisy, recycled, self.conditioner.embed_time(t), actions, rays)
        index = torch.full((1,), frame_index, device=noisy.device)
        positions = self._positions(index)
        for layer, block in enumerate(self.blocks):
            x = block.step(
                x,
                shared,
                positions,
                cache,
                layer,
                frame_index,
                prefix[layer] if prefix else None,
            )
        return self._leave(x, final, noisy, recycled, t)[:, 0]

    def prefill(self, text: Tensor) -> Prefix:
        """Keys and values of the text prefix (B, L, text_width) for every layer, computed once a session."""
        prefix = self._enter_text(text)
        assert prefix is not None
        pairs: Prefix = []
        for block in self.blocks:
            prefix, pair = block.prefill(prefix)
            pairs.append((self.share.own_heads(pair[0]), self.share.own_heads(pair[1])) if self.share else pair)
        return pairs

    def new_cache(self, batch: int, dtype: torch.dtype | None = None) -> KVCache:
        """An empty rolling cache for this model, on its device and in its dtype unless given."""
        c = self.config
        heads = self.share.heads if self.share else c.heads
        shape = CacheShape(batch, heads, c.tokens, c.model_width // c.heads, c.window, c.sink)
        weight = self.embed.weight
        return KVCache(c.depth, shape, dtype or weight.dtype, weight.device)

    def _recycled(self, recycled: Tensor, start: int) -> Tensor:
        """What the frames from frame_index `start` on recycle; without `recycle` only frame 0, the given picture."""
        if self.config.recycle:
            return recycled
        first = torch.arange(start, start + recycled.shape[1], device=recycled.device) == 0
        latents, told = recycled.split((self.config.carried_channels, self.config.place_channels), dim=2)
        return torch.cat([latents * first[None, :, None, None, None].to(recycled), told], dim=2)

    def enter(
        self, noisy: Tensor, recycled: Tensor, time: Tensor, actions: Tensor, rays: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """time (B, D) is the embedded t. Tokens (B, F, N, D), modulation shared (B, F, 6, D) and final (B, F, 2, D)."""
        dtype = self.embed.weight.dtype
        channels = torch.cat([noisy.to(dtype), recycled.to(dtype), rays.to(dtype)], dim=2)
        shared, final, token = self.conditioner.mix(time, actions)
        patches = patchify(channels, self.config.patch)
        x = self.embed(self.share.own_tokens(patches) if self.share else patches) + token[:, :, None]
        return x, shared, final

    def _enter_text(self, text: Tensor | None) -> Tensor | None:
        if text is None:
            return None
        assert self.text_in is not None, "this model was built without a text stream"
        return self.text_in(text.to(self.text_in.weight.dtype))

    def _leave(self, x: Tensor, final: Tensor, noisy: Tensor, recycled: Tensor, t: Tensor) -> Tensor:
        scale = (slice(None), *(None,) * 4)
        velocity = self.read_out(x, final).to(noisy.dtype) + output_skip(t)[scale].to(noisy.dtype) * noisy
        if self.carry is None:
            return velocity
        return velocity - carry_skip(t)[scale].to(noisy.dtype) * self.carried(x, final, recycled).to(noisy.dtype)

    def read_out(self, x: Tensor, final: Tensor) -> Tensor:
        """The network's part of the velocity (B, F, C, H, W); at t = 1 it is minus the clean latent frame."""
        return self._unpatchify(self.out(self._finish(x, final)))

    def carried(self, x: Tensor, final: Tensor, recycled: Tensor) -> Tensor:
        """What is carried over from the recycled latents (B, F, 2C, H, W), gated by the tokens: (B, F, C, H, W)."""
        assert self.carry is not None
        gates = self._unpatchify(self.carry(self._finish(x, final)))
        recycled = recycled[:, :, : self.config.carried_channels]
        return (gates * recycled.to(gates.dtype)).unflatten(2, (-1, self.config.latent_channels)).sum(2)

    def _finish(self, x: Tensor, final: Tensor) -> Tensor:
        shift, scale = final[:, :, :, None].unbind(2)
        return nnf.rms_norm(x, (x.shape[-1],), None, 1e-6) * (1 + scale) + shift

    def _unpatchify(self, tokens: Tensor) -> Tensor:
        if self.share:
            tokens = self.share.all_tokens(tokens)
        return unpatchify(tokens, self.config.patch, self.config.height, self.config.width)
