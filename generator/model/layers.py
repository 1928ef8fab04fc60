"""The transformer block: modulated attention and MLP, and the shared time MLP that drives the modulation.

Shape key: B batch, F latent frames, N tokens per latent frame, D width, P prefix tokens.
One MLP is shared by all blocks and maps the condition of each latent frame (time and action) to six vectors;
every block adds its own learned offsets. Source: AAPT section 3 (base model), papers named in design notes.

Does not know about patches, caches' layout, cameras or losses.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from generator.model.attention import Attention, Positions
from generator.model.kv_cache import KVCache, Past

MODULATIONS = 6  # shift, scale and gate for attention, and the same for the MLP


def time_features(t: Tensor, width: int) -> Tensor:
    """Sinusoidal features of diffusion time t in [0, 1]: (...,) to float32 (..., width)."""
    freq = torch.exp(torch.linspace(math.log(1.0), math.log(1000.0), width // 2, device=t.device))
    angle = t.float()[..., None] * freq
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """RMS-normed x (B, F, N, D) with a per-frame shift and scale (B, F, 1, D)."""
    normed = nnf.rms_norm(x, (x.shape[-1],), None, 1e-6)
    return normed * (1 + scale) + shift


class MLP(nn.Module):
    """Two linear layers with GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(nnf.gelu(self.up(x), approximate="tanh"))


class Block(nn.Module):
    """One transformer block of the video stream, with an optional text stream of its own weights."""

    def __init__(self, width: int, heads: int, mlp_ratio: int, window: int, sink: int, text: bool) -> None:
        super().__init__()
        self.attention = Attention(width, heads, window, sink, text)
        self.mlp = MLP(width, mlp_ratio * width)
        self.text_mlp = MLP(width, mlp_ratio * width) if text else None
        self.offsets = nn.Parameter(torch.zeros(MODULATIONS, width))
        with torch.no_grad():
            self.offsets[2] = self.offsets[5] = 1.0  # gates start open

    def modulation(self, shared: Tensor) -> tuple[Tensor, ...]:
        """Six (B, F, 1, D) vectors from the shared (B, F, 6, D)."""
        return (shared + self.offsets.to(shared.dtype))[:, :, :, None].unbind(2)

    def forward(
        self,
        x: Tensor,
        shared: Tensor,
        positions: Positions,
        mask: Tensor | None,
        prefix: Tensor | None = None,
        past: Past | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """A whole clip x (B, F, N, D), prefix (B, P, D), or a segment after its `past`; returns both updated."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(shared)
        attended, text = self.attention(
            modulate(x, shift1, scale1).flatten(1, 2),
            positions,
            mask,
            None if prefix is None else _norm(prefix),
            past,
        )
        x = x + gate1 * attended.view_as(x)
        x = x + gate2 * self.mlp(modulate(x, shift2, scale2))
        return x, None if prefix is None else self._text_update(prefix, text)

    def _text_update(self, prefix: Tensor, attended: Tensor | None) -> Tensor:
        assert self.text_mlp is not None and attended is not None
        prefix = prefix + attended
        return prefix + self.text_mlp(_norm(prefix))

    def prefill(self, prefix: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Run the prefix (B, P, D) alone; returns it updated, and its key and value for `step`."""
        attended, key, value = self.attention.prefill(_norm(prefix))
        return self._text_update(prefix, attended), (key, value)

    def step(
        self,
        x: Tensor,
        shared: Tensor,
        positions: Positions,
        cache: KVCache,
        layer: int,
        frame_index: int,
        prefix: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """One latent frame x (B, 1, N, D) against the cache."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(shared)
        normed = modulate(x, shift1, scale1)[:, 0]
        attended = self.attention.step(normed, positions, cache, layer, frame_index, prefix)
        x = x + gate1 * attended[:, None]
        return x + gate2 * self.mlp(modulate(x, shift2, scale2))


def _norm(x: Tensor) -> Tensor:
    return nnf.rms_norm(x, (x.shape[-1],), None, 1e-6)
