"""Patch critics of two sizes, which look at what is shown and at the recorded picture that it stands for.

Shape key: n pictures, Y, X video size, y, x logits of patches.

Does not know who makes the pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from generator.precision import in_half
from generator.training.helpers import Optimisers, step_generator, update
from generator.training.losses import critic_loss, generator_loss
from generator.training.patch_gan import PatchDiscriminator

LARGER = 4  # the second critic sees pictures at a quarter of the size, so shapes as well as edges


class CriticSettings(Protocol):
    """What a stage says of its critics: `penalty` weighs how much their logits change when both pictures are moved by
    `sigma` noise, on every `penalty_every`-th step that much more.
    """

    @property
    def seed(self) -> int: ...
    @property
    def bf16(self) -> bool: ...
    @property
    def penalty(self) -> float: ...
    @property
    def penalty_every(self) -> int: ...
    @property
    def sigma(self) -> float: ...


class Critics(nn.Module):
    """A patch critic of the pictures as they are, and one of small copies: lists of logits (n, 1, y, x)."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = PatchDiscriminator(), PatchDiscriminator()

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Pictures (n, 3, Y, X) in [-1, 1]."""
        return [self.fine(pictures).float(), self.coarse(nnf.avg_pool2d(pictures, LARGER)).float()]


def deceiving(
    critics: Critics, real: Tensor, fake: Tensor, rebuilt: Tensor, last: Tensor, share: float
) -> tuple[Tensor, Tensor]:
    """What the maker of `fake` pictures (n, 3, Y, X) lacks in the critics' eyes, and its loss with that: `share` as
    strong as `rebuilt` at its `last` layer. The critics do not learn from it.
    """
    critics.requires_grad_(False)
    deceit = paired(generator_loss, critics(real), critics(fake))
    return deceit, rebuilt + share * balance(rebuilt, deceit, last) * deceit


def update_critics(
    critics: Critics, optimisers: Optimisers, config: CriticSettings, step: int, real: Tensor, fake: Tensor
) -> dict[str, Tensor]:
    """One update of the critics on pictures (n, 3, Y, X) that go together; the figures.

    The penalty is approximate R1 and R2 (AAPT section 3.4), which leaves the maker a slope to follow.
    """
    critics.requires_grad_(True)
    parts, device = {}, real.device
    with in_half(device.type, config.bf16):
        logits = [critics(pictures) for pictures in (real, fake)]
        parts["critic"] = loss = paired(critic_loss, *logits)
        if config.penalty and (step + 1) % config.penalty_every == 0:
            generator = step_generator(config.seed, step, "penalty", device.type)
            moved = [critics(p + config.sigma * torch.randn(p.shape, generator=generator, device=p.device))
                     for p in (real, fake)]  # fmt: skip
            parts["penalty"] = sum((paired(apart, *two) for two in zip(logits, moved, strict=True)), loss.new_zeros(()))
            loss = loss + config.penalty * config.penalty_every * parts["penalty"]
    loss.backward()
    update(optimisers)
    return parts


def apart(one: Tensor, other: Tensor) -> Tensor:
    """The mean squared difference of logits of one shape."""
    return (one - other).square().mean()


def paired(loss: Callable[[Tensor, Tensor], Tensor], real: list[Tensor], fake: list[Tensor]) -> Tensor:
    """The mean of a loss of paired logits over the critics; a scalar."""
    return torch.stack([loss(a, b) for a, b in zip(real, fake, strict=True)]).mean()


def balance(rebuilt: Tensor, deceit: Tensor, last: Tensor) -> Tensor:
    """How many times larger the first loss's gradient is than the second's at the maker's last layer (Esser et al.
    2021, VQGAN); a scalar without gradient.
    """
    sizes = [torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (rebuilt, deceit)]
    return (sizes[0] / (sizes[1] + 1e-8)).clamp(max=1e3).detach()
