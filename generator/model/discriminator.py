"""Discriminator: the causal transformer reads clean latent frames and says after each how real the clip is so far.

Shape key: B batch, F latent frames, C channels, H, W latent size, N tokens per latent frame, D width.
The body is a CausalDiT with stage 1 weights; clean frames stand where noise stood, beside the conditions that led to
them, and t is one U(0, 1) number per clip that noises nothing. At three depths a learned query per latent frame reads
that frame's tokens; the three answers together give one logit. `clip_level` is the other kind of judge: every token
sees the whole clip and there is one logit per clip. Source: AAPT section 3.4, APT section 3.2 (the head), and AAD-1 for
the clip-level one.

Does not know about losses, generators or where clips come from.
"""

from __future__ import annotations

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from generator.model.dit import CausalDiT
from generator.model.share import Share
from generator.precision import in_full

HEAD_DEPTHS = (4 / 9, 13 / 18, 1.0)  # of the body's depth


def moved(x: Tensor, shift: Tensor) -> Tensor:
    """x (B, F, C, H, W), each clip moved down and right by its shift (B, 2); the edge is repeated behind it."""
    clip = torch.arange(len(x), device=x.device)[:, None, None]
    rows, columns = (
        (torch.arange(size, device=x.device) - shift[:, axis, None]).clamp(0, size - 1)
        for axis, size in enumerate(x.shape[-2:])
    )
    return x[clip, :, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 4, 1, 2)  # B H W F C, back in order


class QueryHead(nn.Module):
    """A learned query that cross-attends the tokens of one latent frame, or of a clip."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Parameter(torch.randn(width) * width**-0.5)
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_kv = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, tokens: Tensor, share: Share | None = None, clip: bool = False) -> Tensor:
        """tokens (B, F, N, D) to (B, F, D), or (B, 1, D) of a whole clip; with a `share` a rank has n of the N tokens,
        and reads by its own heads.
        """
        batch, frames, _, width = tokens.shape
        flat = nnf.rms_norm(tokens.flatten(0, 1), (width,), None, 1e-6)
        query = self.to_q(self.query.to(flat.dtype))[None, None].expand(batch if clip else len(flat), 1, -1)
        keys, values = self.to_kv(flat).chunk(2, dim=-1)
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (query, keys, values))
        q, k = (nnf.rms_norm(x, (x.shape[-1],), None, 1e-6) for x in (q, k))
        if share:
            q = share.own_heads(q)
            k, v = share.to_heads(torch.cat([k, v])[:, :, None])[:, :, 0].chunk(2)
        if clip:
            k, v = (x.unflatten(0, (batch, frames)).transpose(1, 2).flatten(2, 3) for x in (k, v))
        read = nnf.scaled_dot_product_attention(q, k, v)
        read = share.all_heads(read) if share else read
        return self.out(read.transpose(1, 2).flatten(1)).unflatten(0, (batch, -1))


class Discriminator(nn.Module):
    """Logits (B, F) of a clip, or (B, 1) with `clip_level`. The body's weights are its own: give a copy."""

    def __init__(self, body: CausalDiT, clip_level: bool = False) -> None:
        super().__init__()
        self.body, self.clip_level = body, clip_level
        config = body.config
        self.depths = tuple(max(1, round(share * config.depth)) for share in HEAD_DEPTHS)
        self.queries = nn.ModuleList(QueryHead(config.model_width, config.heads) for _ in self.depths)
        self.norm = nn.LayerNorm(config.model_width * len(self.depths))
        self.logit = nn.Linear(config.model_width * len(self.depths), 1)
        self.freeze(False)

    def freeze(self, frozen: bool) -> None:
        """Stop or let learn; parts of the body that only a generator uses never do."""
        self.requires_grad_(not frozen)
        for unused in (self.body.out, self.body.carry, self.body.conditioner.final):
            if unused is not None:
                unused.requires_grad_(False)

    def forward(
        self,
        frames: Tensor,
        recycled: Tensor,
        t: Tensor,
        actions: Tensor,
        rays: Tensor,
        checkpointed: bool = False,
        shift: Tensor | None = None,
    ) -> Tensor:
        """Judge clean frames (B, F, C, H, W) that followed `recycled` (B, F, C to 2C + K, H, W) under the conditions.

        t (B,); actions (B, F, ticks, P); rays (B, F, R, H, W). Returns float32 logits. Of 2C recycled channels only the
        last frame is read: what a reprojection shows of a worn history is no fault of the frame that is judged.
        `shift` (B, 2): rows and columns that each clip is moved by before it is cut into patches.
        """
        body, own = self.body, frames.shape[2]
        recycled = torch.cat([recycled[:, :, :own], torch.zeros_like(recycled[:, :, own:])], dim=2)
        if shift is not None:
            frames, recycled, rays = (moved(x, shift) for x in (frames, recycled, rays))
        x, shared, _ = body.enter(frames, recycled, body.conditioner.embed_time(t), actions, rays)
        read = []
        layers = body.through_blocks(x, shared, checkpointed=checkpointed, causal=not self.clip_level)
        for depth, tokens in enumerate(layers, start=1):
            for place, query in zip(self.depths, self.queries, strict=True):
                if depth == place:
                    read.append(query(tokens, body.share, self.clip_level))
        with in_full(frames.device.type):  # the penalties live on differences that bf16 rounds off
            return self.logit(self.norm(torch.cat(read, dim=-1).float())).squeeze(-1)
