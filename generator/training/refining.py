"""What the decoder stage needs to teach a refiner beside the decoder: opening one, applying it to a clip, and crops.

Shape key: B batch, F latent frames, C channels, H, W latent size, T video frames, Y, X picture size.

Does not know of losses, critics or schedules.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from controls.errors import UserError
from generator.tokenizer.refine import Refiner
from generator.tokenizer.reproject import Views
from generator.training.dit_run import DiTRun
from generator.training.ema import Ema
from generator.training.helpers import Optimisers, split_optimisers


@dataclass
class RefinerRun:
    """A refiner that learns, its average, and the world's own, which holds that average."""

    refiner: Refiner
    ema: Ema
    shown: Refiner

    def average(self) -> None:
        """Give the world the averaged refiner."""
        self.ema.copy_to(self.shown)

    def state(self) -> dict[str, object]:
        """What a resume needs."""
        return {"refiner": self.refiner.state_dict(), "refiner_ema": self.ema.state()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()`."""
        self.refiner.load_state_dict(state["refiner"])
        self.ema.load(state["refiner_ema"])

    def optimisers(self, lr: float, muon: float) -> Optimisers:
        """Muon for the convolutions between, AdamW for the first and the last."""
        named = self.refiner.named_parameters()
        return split_optimisers(named, lr, muon or None, 0.0, lambda n: n.startswith(("enter", "out")))


def open_refiner(run: DiTRun, width: int, seed: int, ema: float) -> RefinerRun | None:
    """The refiner to train, a new one or a copy of the world's; None where none is.

    UserError where there is nothing to refine with, or one of another width.
    """
    if run.parallax is None or (not width and run.parallax.refiner is None):
        if width:
            raise UserError(f"refine={width} wants a world that moves its pictures by a parallax; leave it out.")
        return None
    if run.parallax.refiner is None:
        torch.manual_seed(seed)
        run.parallax.refiner = Refiner(width, run.parallax.recalls).to(run.device).requires_grad_(False)
        run.parallax.config = replace(run.parallax.config, refine=width)
        run.world = replace(run.world, parallax=run.parallax.config)
    if width not in (0, run.parallax.config.refine):
        raise UserError(f"The world has a refiner of width {run.parallax.config.refine}, not {width}; give that.")
    return open_alone(run.parallax.refiner, ema)


def open_alone(refiner: Refiner, ema: float) -> RefinerRun:
    """A copy of a world's refiner, to train."""
    learning = copy.deepcopy(refiner).train().requires_grad_(True)
    return RefinerRun(learning, Ema(learning, ema), refiner)


def refined(refiner: Refiner, video: Tensor, views: Views) -> Tensor:
    """What is shown of decoded video (B, 1 + ticks * F, 3, Y, X) whose latent frames these views (B, F, 1 + ticks, 3,
    Y, X) lay ahead of; float32, not clipped, the first picture as it is.
    """
    known = None if views.known is None else views.known.flatten(0, 1)
    parts = Views(views.pictures.flatten(0, 1), views.inside.flatten(0, 1), known=known).to_refine()
    return torch.cat([video[:, :1], refiner(video[:, 1:].flatten(0, 1), *parts).unflatten(0, (len(video), -1))], dim=1)


def cut(
    latents: Tensor,
    video: Tensor,
    crop: tuple[int, int],
    space: int,
    rng: np.random.Generator,
    views: Views | None = None,
) -> tuple[Tensor, Tensor, Views | None]:
    """A random crop of latents (B, F, C, H, W), and the same of their video (B, T, 3, Y, X) and views, another for each
    clip.
    """
    crop = (min(crop[0], latents.shape[-2]), min(crop[1], latents.shape[-1]))
    if crop == latents.shape[-2:]:
        return latents, video, views
    corners = [[int(rng.integers(a - c + 1)) for a, c in zip(latents.shape[-2:], crop, strict=True)] for _ in latents]

    def cropped(tensor: Tensor, scale: int) -> Tensor:
        high, wide = (side * scale for side in crop)
        return torch.stack(
            [
                part[..., y * scale :, x * scale :][..., :high, :wide]
                for part, (y, x) in zip(tensor, corners, strict=True)
            ]
        )

    if views is not None:
        known = None if views.known is None else cropped(views.known, space)
        views = Views(cropped(views.pictures, space), cropped(views.inside, space), known=known)
    return cropped(latents, 1), cropped(video, space), views
