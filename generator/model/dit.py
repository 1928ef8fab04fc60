"""CausalDiT: the block-causal video diffusion transformer that generates one latent frame per evaluation.

Shape key: B batch, F latent frames, C channels, H, W latent size, N tokens per latent frame, D width, P action fields,
R ray channels (3 per tick). Latents are B F C H W.
The input of latent frame k is the channel concat of noisy_k, frame_{k-1} (the recycled frame) and the ray maps of k;
the output is the velocity of frame k. The first picture has no token block: it is only the recycled frame of frame 0
here (the first generated one). Source: AAPT sections 3.1 to 3.3 and 4.

Does not know about schedules, losses, tokenizers or where noise comes from.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from generator.model.attention import Positions, block_causal_mask
from generator.model.conditioning import Conditioner, patchify, unpatchify
from generator.model.kv_cache import CacheShape, KVCache
from generator.model.layers import Block
from generator.model.rope import space_angles

Prefix = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class DiTConfig:
    """Sizes of a CausalDiT. `height` and `width` are latent sizes; `window` and `sink` count latent frames."""

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


class CausalDiT(nn.Module):
    """The transformer. `forward` takes a whole clip under the mask, `step` one latent frame with the cache."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        width, area = config.model_width, config.patch**2
        self.embed = nn.Linear((2 * config.latent_channels + config.ray_channels) * area, width)
        self.conditioner = Conditioner(width, config.ticks, config.action_fields)
        self.text_in = nn.Linear(config.text_width, width) if config.text_width else None
        self.blocks = nn.ModuleList(
            Block(
                width,
                config.heads,
                config.mlp_ratio,
                config.window,
                config.sink,
                bool(config.text_width),
            )
            for _ in range(config.depth)
        )
        self.out = nn.Linear(width, config.latent_channels * area)
        angles = space_angles(config.rows, config.columns, width // config.heads, config.reference)
        self.register_buffer("space_cos", angles.cos(), persistent=False)
        self.register_buffer("space_sin", angles.sin(), persistent=False)
        self._masks: dict[tuple[int, int, torch.device], Tensor] = {}
        self._initialise()

    def _mask(self, frames: int, prefix: int, device: torch.device) -> Tensor:
        """The block-causal mask of a clip of this length, made once."""
        key = (frames, prefix, device)
        if key not in self._masks:
            c = self.config
            self._masks[key] = block_causal_mask(frames, c.tokens, c.window, c.sink, prefix).to(device)
        return self._masks[key]

    def _initialise(self) -> None:
        residual_std = (2 * self.config.depth * self.config.model_width) ** -0.5
        for block in self.blocks:
            nn.init.normal_(block.attention.video.out.weight, std=residual_std)
            nn.init.normal_(block.mlp.down.weight, std=residual_std)
            nn.init.zeros_(block.mlp.down.bias)
        nn.init.normal_(self.out.weight, std=0.1 * self.config.model_width**-0.5)
        nn.init.zeros_(self.out.bias)

    def forward(
        self,
        noisy: Tensor,
        recycled: Tensor,
        t: Tensor,
        actions: Tensor,
        rays: Tensor,
        text: Tensor | None = None,
    ) -> Tensor:
        """Velocity of every latent frame of a clip.

        noisy, recycled (B, F, C, H, W); t (B,); actions (B, F, ticks, P); rays (B, F, R, H, W);
        text (B, L, text_width) or None. Returns (B, F, C, H, W).
        """
        frames = noisy.shape[1]
        x, shared, final = self.enter(noisy, recycled, self.conditioner.embed_time(t), actions, rays)
        index = torch.arange(frames, device=noisy.device)
        positions = Positions(index, self.space_cos, self.space_sin)
        prefix = self._enter_text(text)
        length = 0 if prefix is None else prefix.shape[1]
        mask = self._mask(frames, length, noisy.device)
        for block in self.blocks:
            x, prefix = block(x, shared, positions, mask, prefix)
        return self._leave(x, final, noisy, t)

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

        noisy, recycled (B, C, H, W); t (B,); actions (B, ticks, P); rays (B, R, H, W). Returns (B, C, H, W).
        """
        noisy, recycled, actions, rays = (v[:, None] for v in (noisy, recycled, actions, rays))
        x, shared, final = self.enter(noisy, recycled, self.conditioner.embed_time(t), actions, rays)
        index = torch.full((1,), frame_index, device=noisy.device)
        positions = Positions(index, self.space_cos, self.space_sin)
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
        return self._leave(x, final, noisy, t)[:, 0]

    def prefill(self, text: Tensor) -> Prefix:
        """Keys and values of the text prefix (B, L, text_width) for every layer, computed once a session."""
        prefix = self._enter_text(text)
        assert prefix is not None
        pairs: Prefix = []
        for block in self.blocks:
            prefix, pair = block.prefill(prefix)
            pairs.append(pair)
        return pairs

    def new_cache(self, batch: int, dtype: torch.dtype | None = None) -> KVCache:
        """An empty rolling cache for this model, on its device and in its dtype unless given."""
        c = self.config
        shape = CacheShape(batch, c.heads, c.tokens, c.model_width // c.heads, c.window, c.sink)
        weight = self.embed.weight
        return KVCache(c.depth, shape, dtype or weight.dtype, weight.device)

    def enter(
        self, noisy: Tensor, recycled: Tensor, time: Tensor, actions: Tensor, rays: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """time (B, D) is the embedded t. Tokens (B, F, N, D), modulation shared (B, F, 6, D) and final (B, F, 2, D)."""
        dtype = self.embed.weight.dtype
        channels = torch.cat([noisy.to(dtype), recycled.to(dtype), rays.to(dtype)], dim=2)
        shared, final, token = self.conditioner.mix(time, actions)
        x = self.embed(patchify(channels, self.config.patch)) + token[:, :, None]
        return x, shared, final

    def _enter_text(self, text: Tensor | None) -> Tensor | None:
        if text is None:
            return None
        assert self.text_in is not None, "this model was built without a text stream"
        return self.text_in(text.to(self.text_in.weight.dtype))

    def _leave(self, x: Tensor, final: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        skip = output_skip(t)[:, None, None, None, None].to(noisy.dtype)
        return self.read_out(x, final).to(noisy.dtype) + skip * noisy

    def read_out(self, x: Tensor, final: Tensor) -> Tensor:
        """The network's part of the velocity (B, F, C, H, W); at t = 1 it is minus the clean latent frame."""
        shift, scale = final[:, :, :, None].unbind(2)
        x = nnf.rms_norm(x, (x.shape[-1],), None, 1e-6) * (1 + scale) + shift
        return unpatchify(self.out(x), self.config.patch, self.config.height, self.config.width)
