"""Sequence parallelism: outside attention a rank has some tokens of every latent frame, within it some of the heads.

Shape key: B batch, F latent frames, N tokens per latent frame, n this rank's tokens, D width, A heads, E head width,
P ranks, S anything stacked.
Outside attention every token is alone, so ranks need nothing of one another. Before attention one all-to-all trades
tokens for heads (DeepSpeed Ulysses, 2309.14509), after it another trades them back; the KV cache then holds a rank's
own heads of all tokens. Tokens need not divide evenly, heads must. What lies outside the tokens (the latents) every
rank has whole.
Gradients flow through, so that clips can be trained on by several ranks. Whatever every rank has whole has its whole
gradient on every rank; a share has P times its own, which is what leaving the shares (`all_*`) and entering them
(`own_*`) sees to. The mean over the ranks of a parameter's gradient is then the gradient, whether it was used on shares
or on what is whole: what data parallel training does anyway.
Source: AAPT section 3.5 (sequence sharded over 8 GPUs).

Does not know about processes' starting, caches or what tokens mean.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from controls.errors import UserError
from generator.model.ranks import Ranks, size_of, spans


def share_fault(heads: int, tokens: int, ranks: int) -> str:
    """Why a network cannot be shared by so many ranks, or nothing."""
    if heads % ranks:
        fit = [count for count in range(ranks, 1, -1) if heads % count == 0]
        other = f"start {fit[0]} processes" if fit else "start one process"
        return (
            f"{heads} attention heads cannot be shared evenly by {ranks} processes; {other}, or choose other weights."
        )
    if tokens < ranks:
        return f"{tokens} tokens are fewer than {ranks} processes; start at most {tokens}."
    return ""


class Share:
    """A rank's tokens and heads; UserError when the heads do not divide."""

    def __init__(self, ranks: Ranks, heads: int, tokens: int) -> None:
        if fault := share_fault(heads, tokens, ranks.size):
            raise UserError(fault)
        self.ranks, self.size = ranks, ranks.size
        self.heads = heads // ranks.size
        self.spans = spans(tokens, ranks.size)
        self.counts = [size_of(span) for span in self.spans]
        self.span = self.spans[ranks.rank]

    def own_tokens(self, tokens: Tensor) -> Tensor:
        """(..., N, D) on every rank to (..., n, D)."""
        return _Part.apply(tokens, self, tokens.ndim - 2, self.counts)

    def own_heads(self, x: Tensor) -> Tensor:
        """(B, A, L, E) on every rank to (B, A / P, L, E)."""
        return _Part.apply(x, self, 1, [self.heads] * self.size)

    def all_tokens(self, tokens: Tensor) -> Tensor:
        """(B, F, n, D) of each rank to (B, F, N, D) on every rank."""
        return _Gather.apply(tokens, self, 2, self.counts)

    def all_heads(self, x: Tensor) -> Tensor:
        """(B, A / P, L, E) of each rank to (B, A, L, E) on every rank."""
        return _Gather.apply(x, self, 1, [self.heads] * self.size)

    def _gather(self, part: Tensor, axis: int, counts: list[int]) -> Tensor:
        parts = self.ranks.gather(part.movedim(axis, 0).contiguous(), counts, "output")
        return torch.cat(parts).movedim(0, axis)

    def _part(self, x: Tensor, axis: int, counts: list[int]) -> Tensor:
        return x.split(counts, axis)[self.ranks.rank]

    def to_heads(self, x: Tensor) -> Tensor:
        """(S, A, F, n, E) to (S, A / P, F, N, E)."""
        return _Trade.apply(x, self, True)

    def to_tokens(self, x: Tensor) -> Tensor:
        """(S, A / P, F, N, E) to (S, A, F, n, E)."""
        return _Trade.apply(x, self, False)

    def _to_heads(self, x: Tensor) -> Tensor:
        stack, _, frames, tokens, width = x.shape
        given = x.unflatten(1, (self.size, self.heads)).movedim(1, 0)  # one run of heads for each rank
        one = stack * self.heads * frames * width
        flat = self.ranks.all_to_all(
            given.flatten(), [one * tokens] * self.size, [one * count for count in self.counts], "attention"
        )
        came = flat.split([one * count for count in self.counts])
        return torch.cat([part.view(stack, self.heads, frames, -1, width) for part in came], dim=3)

    def _to_tokens(self, x: Tensor) -> Tensor:
        stack, _, frames, _, width = x.shape
        one, mine = stack * self.heads * frames * width, self.counts[self.ranks.rank]
        given = torch.cat([part.flatten() for part in x.split(self.counts, dim=3)])
        flat = self.ranks.all_to_all(
            given, [one * count for count in self.counts], [one * mine] * self.size, "attention"
        )
        return flat.view(self.size, stack, self.heads, frames, mine, width).movedim(0, 1).flatten(1, 2)


class _Trade(torch.autograd.Function):
    """An all-to-all; its gradient is the other one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, share: Share, to_heads: bool) -> Tensor:
        ctx.share, ctx.to_heads = share, to_heads
        return share._to_heads(x) if to_heads else share._to_tokens(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        back = ctx.share._to_tokens if ctx.to_heads else ctx.share._to_heads
        return back(grads[0].contiguous()), None, None


class _Gather(torch.autograd.Function):
    """Everyone's part along an axis, whole on every rank; its gradient is the rank's own part, P times."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, share: Share, axis: int, counts: list[int]) -> Tensor:
        ctx.share, ctx.place = share, (axis, counts)
        return share._gather(part, axis, counts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        return ctx.share.size * ctx.share._part(grads[0], *ctx.place), None, None, None


class _Part(torch.autograd.Function):
    """A rank's own part along an axis of what every rank has whole; its gradient is everyone's, gathered, over P."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, share: Share, axis: int, counts: list[int]) -> Tensor:
        ctx.share, ctx.place = share, (axis, counts)
        return share._part(x, axis, counts).contiguous()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        return ctx.share._gather(grads[0], *ctx.place) / ctx.share.size, None, None, None
