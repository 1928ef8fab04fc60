"""Block-causal self-attention, over a whole clip or one latent frame against the rolling cache.

Shape key: B batch, F latent frames, N tokens per latent frame, D width, A heads, E head width, P prefix (text) tokens.
A token sees the prefix, its own latent frame, at most `window` earlier latent frames, and the `sink` first ones.
Source: AAPT section 3.1 and 3.2.

Does not know about diffusion, conditions or what the tokens mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from generator.model.kv_cache import KVCache, Past, sink_position
from generator.model.rope import rotate, split_pairs, time_angles
from generator.model.share import Share


@dataclass
class Positions:
    """Where the queries of one call stand: frame_index int64 (F,), spatial cos and sin (N, R_space).

    `last` is the last frame_index as a plain number.
    """

    frame_index: Tensor
    space_cos: Tensor
    space_sin: Tensor
    last: int = 0


def may_see(query: Tensor, key: Tensor, window: int, sink: int) -> Tensor:
    """bool (queries, keys) of latent frames by frame_index (queries,) and (keys,)."""
    now, then = query[:, None], key[None, :]
    return (then <= now) & ((now - then <= window) | (then < sink))


def block_causal_mask(frames: int, tokens: int, window: int, sink: int, prefix: int = 0) -> Tensor:
    """bool (P + F N, P + F N), True where attention is allowed; prefix tokens see only the prefix."""
    index = torch.arange(frames)
    allowed = may_see(index, index, window, sink)
    grid = allowed.repeat_interleave(tokens, 0).repeat_interleave(tokens, 1)
    mask = torch.zeros(prefix + frames * tokens, prefix + frames * tokens, dtype=torch.bool)
    mask[:, :prefix] = True
    mask[prefix:, prefix:] = grid
    return mask


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis with a learned gain."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return nnf.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), 1e-6)


class Projection(nn.Module):
    """Query, key, value and output weights of one stream (video or text), with QK RMSNorm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, width // heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.norm_q = RMSNorm(self.head_width)
        self.norm_k = RMSNorm(self.head_width)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, L, D) to normed query, key and value, each (B, A, L, E)."""
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, self.head_width).unbind(2)
        return (
            self.norm_q(q).transpose(1, 2),
            self.norm_k(k).transpose(1, 2),
            v.transpose(1, 2),
        )

    def merge(self, y: Tensor) -> Tensor:
        """Attended values y (B, A, L, E) back to (B, L, D)."""
        return self.out(y.transpose(1, 2).flatten(2))


class Attention(nn.Module):
    """Multi-head attention of the video stream, with an optional text stream of its own weights before it."""

    def __init__(self, width: int, heads: int, window: int, sink: int, text: bool) -> None:
        super().__init__()
        assert width % heads == 0, f"width {width} is not a multiple of {heads} heads"
        self.head_width = width // heads
        self.window, self.sink = window, sink
        self.time_pairs = split_pairs(self.head_width)[0]
        self.video = Projection(width, heads)
        self.text = Projection(width, heads) if text else None
        self.share: Share | None = None  # of several processes (share.py); x is then this one's tokens

    def rotate_space(self, x: Tensor, positions: Positions) -> Tensor:
        """Rotate the spatial part of x (B, A, F, N, E)."""
        time, space = x.split([2 * self.time_pairs, self.head_width - 2 * self.time_pairs], dim=-1)
        return torch.cat([time, rotate(space, positions.space_cos, positions.space_sin)], dim=-1)

    def rotate_time(self, x: Tensor, frame_index: Tensor) -> Tensor:
        """Rotate the time part of x (B, A, F, N, E) by frame_index (F,)."""
        time, space = x.split([2 * self.time_pairs, self.head_width - 2 * self.time_pairs], dim=-1)
        angle = time_angles(frame_index, self.head_width)[:, None, :]
        return torch.cat([rotate(time, angle.cos(), angle.sin()), space], dim=-1)

    def forward(
        self,
        x: Tensor,
        positions: Positions,
        mask: Tensor | None,
        prefix: Tensor | None = None,
        past: Past | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """A whole clip: x (B, F N, D) and prefix (B, P, D) under `block_causal_mask`; returns both attended.

        `past` is what a cache holds of earlier latent frames, for a segment that continues a rollout.
        """
        q, k, v = self.video(x)
        frames, tokens = positions.frame_index.shape[0], positions.space_cos.shape[0]
        body_q = self.rotate_space(q.unflatten(2, (frames, tokens)), positions)
        body_k = self.rotate_space(k.unflatten(2, (frames, tokens)), positions)
        if self.share:
            stacked = torch.cat([body_q, body_k, v.unflatten(2, (frames, tokens))])
            body_q, body_k, v = self.share.to_heads(stacked).chunk(3)
            v = v.flatten(2, 3)
        q_plain = self.rotate_time(body_q, positions.frame_index)
        k_plain = self.rotate_time(body_k, positions.frame_index)
        key_index = positions.frame_index
        if past is not None:
            key_index = torch.cat([past.frame_index, key_index])
            placed = self.rotate_time(past.keys[:, :, : past.sinks], past.frame_index[: past.sinks])
            k_plain = torch.cat([placed, past.keys[:, :, past.sinks :], k_plain], dim=2)
            body_k = torch.cat([past.keys, body_k], dim=2)
            v = torch.cat([past.values.flatten(2, 3), v], dim=2)
        if self.sink and positions.last > self.window + self.sink:
            q_plain, k_plain = self._far_sinks(body_q, body_k, q_plain, k_plain, positions.frame_index, key_index)
        q, k = q_plain.flatten(2, 3), k_plain.flatten(2, 3)
        if prefix is None:
            return self.video.merge(self._own_tokens(self._attend(q, k, v, mask), frames)), None
        assert self.text is not None and past is None, "no text stream, or a text prefix beside a past"
        text_q, text_k, text_v = self.text(prefix)
        if self.share:
            text_q, text_k, text_v = (self.share.own_heads(part) for part in (text_q, text_k, text_v))
        pad = (0, q.shape[-1] - self.head_width)
        q = torch.cat([nnf.pad(text_q, pad), q], dim=2)
        k = torch.cat([nnf.pad(text_k, pad), k], dim=2)
        y = self._attend(q, k, torch.cat([text_v, v], dim=2), mask)
        read, text = y[:, :, prefix.shape[1] :], y[:, :, : prefix.shape[1]]
        text = self.share.all_heads(text) if self.share else text
        return self.video.merge(self._own_tokens(read, frames)), self.text.merge(text)

    def _own_tokens(self, y: Tensor, frames: int) -> Tensor:
        """Attended values of some heads (B, A / P, F N, E) as those of this rank's tokens (B, A, F n, E)."""
        if self.share is None:
            return y
        return self.share.to_tokens(y.unflatten(2, (frames, -1))).flatten(2, 3)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        return nnf.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.head_width**-0.5)

    def _far_sinks(
        self,
        q: Tensor,
        k: Tensor,
        q_plain: Tensor,
        k_plain: Tensor,
        index: Tensor,
        key_index: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Widen heads to [plain, one per sink], so that each query meets a sink at its capped distance.

        k (B, A, K, N, E) is read at sinks only, where it has no time rotation; index (F,), key_index (K,).
        """
        wide_q, wide_k = (
            [q_plain],
            [k_plain * (key_index >= self.sink)[:, None, None].to(k.dtype)],
        )
        for sink in range(self.sink):
            seen_at = sink_position(torch.tensor(sink, device=index.device), index, self.window, self.sink)
            wide_q.append(self.rotate_time(q, index - seen_at))
            wide_k.append(k * (key_index == sink)[:, None, None].to(k.dtype))
        return torch.cat(wide_q, -1), torch.cat(wide_k, -1)

    def prefill(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The prefix x (B, P, D) by itself: attended (B, P, D), and its key and value (B, A, P, E) for `step`."""
        assert self.text is not None, "this model was built without a text stream"
        q, k, v = self.text(x)
        return self.text.merge(self._attend(q, k, v, None)), k, v

    def step(
        self,
        x: Tensor,
        positions: Positions,
        cache: KVCache,
        layer: int,
        frame_index: int,
        prefix: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """One latent frame x (B, N, D) against the cache, which it is written to; returns (B, N, D)."""
        q, k, v = self.video(x)
        q = self.rotate_space(q[:, :, None], positions)
        k = self.rotate_space(k[:, :, None], positions)
        now = positions.frame_index
        stored = k if frame_index < self.sink else self.rotate_time(k, now)
        query = self.rotate_time(q, now)
        if self.share:
            query, stored, v = self.share.to_heads(torch.cat([query, stored, v[:, :, None]])).chunk(3)
            v = v[:, :, 0]
        keys, values = cache.write(layer, frame_index, stored[:, :, 0], v)
        keys = self._place_sinks(keys, frame_index, cache.shape.tokens)
        if prefix is not None:
            keys, values = (
                torch.cat([prefix[0], keys], 2),
                torch.cat([prefix[1], values], 2),
            )
        return self.video.merge(self._own_tokens(self._attend(query[:, :, 0], keys, values, None), 1))

    def _place_sinks(self, keys: Tensor, frame_index: int, tokens: int) -> Tensor:
        """Give the unrotated sink keys at the front of keys (B, A, L, E) the time under which this frame sees them."""
        count = min(self.sink, frame_index + 1)
        if not count:
            return keys
        index = torch.arange(count, device=keys.device)
        seen_at = sink_position(index, torch.tensor(frame_index, device=keys.device), self.window, self.sink)
        sinks, rest = keys.split([count * tokens, keys.shape[2] - count * tokens], dim=2)
        placed = self.rotate_time(sinks.unflatten(2, (count, tokens)), seen_at).flatten(2, 3)
        return torch.cat([placed, rest], dim=2)
