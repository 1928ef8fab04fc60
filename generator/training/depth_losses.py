"""What teaches the parallax's depth: the true nearness where it is known, else pictures moved onto one another.

Shape key: B batch, Y, X picture size, h, w nearness grid.

Does not know of networks, optimisers or runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as nnf
from torch import Tensor

from generator.tokenizer.parallax import Seen

NEAR_FLOOR = 0.1  # in 1 / units: beyond ten units the error of a nearness counts as it is, before that by its share


@dataclass(frozen=True)
class Pairs:
    """Two pictures (B, 3, Y, X), the look between them (B, 1, 2), the second's place (B, 1, 3), the first's pitch."""

    first: Tensor
    second: Tensor
    look: Tensor
    moves: Tensor
    pitch: Tensor

    def to(self, device: torch.device) -> Pairs:
        """The same on a device."""
        return Pairs(*(v.to(device) for v in (self.first, self.second, self.look, self.moves, self.pitch)))


def known_parts(seen: Seen, near: Tensor, pitch: Tensor) -> dict[str, Tensor]:
    """Errors of what was seen: of nearness (B, 1, h, w), by its share where things are near, and of the horizon."""
    return {
        "near": ((seen.nearness - near).abs() / (NEAR_FLOOR + near)).mean(),
        "horizon": horizon_loss(seen.horizon, pitch),
    }


def horizon_loss(horizon: Tensor, pitch: Tensor) -> Tensor:
    """Error of horizons (B,) under pitches (B,) in radians; a scalar."""
    return nnf.smooth_l1_loss(horizon, pitch.tan(), beta=0.02)


def photometric(made: tuple[Tensor, Tensor], true: Tensor) -> Tensor:
    """Mean absolute difference at full, half and quarter size, where the picture was not left."""
    picture, inside = made
    total = picture.new_zeros(())
    for factor in (1, 2, 4):
        parts = (picture * inside, true * inside, inside)
        a, b, kept = (nnf.avg_pool2d(v, factor) if factor > 1 else v for v in parts)
        total = total + ((a - b).abs() * (kept > 0.99)).mean()
    return total


def roughness(nearness: Tensor, picture: Tensor) -> Tensor:
    """How much nearness changes where the picture does not (Godard et al. 2017), free of its scale."""
    grey = nnf.interpolate(picture, nearness.shape[-2:], mode="area").mean(1, keepdim=True)
    level = nearness / (nearness.mean((2, 3), keepdim=True) + 0.05)
    edges = (level.diff(dim=d).abs() * torch.exp(-8 * grey.diff(dim=d).abs()) for d in (2, 3))
    return torch.stack([edge.mean() for edge in edges]).sum()


def soften(picture: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Some of the pictures (B, 3, Y, X) at half the detail and with a little noise, as generated ones look."""
    chosen = torch.rand((len(picture), 1, 1, 1), generator=generator).to(picture) < share
    soft = nnf.interpolate(nnf.avg_pool2d(picture, 2), picture.shape[-2:], mode="bilinear", align_corners=False)
    noise = torch.randn(picture.shape, generator=generator).to(picture)
    return torch.where(chosen, soft + 0.03 * noise, picture)


def picture_of(nearness: Tensor, like: Tensor) -> Tensor:
    """Nearness as grey pictures of the size of `like`: near is bright."""
    grey = 2 * (nearness / (1 + nearness)) - 1
    return nnf.interpolate(grey, like.shape[-2:], mode="nearest").expand(-1, 3, -1, -1)
