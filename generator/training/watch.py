"""The failure watch of stage 3: figures that show how a world goes wrong, and what ends a run before it is spoilt.

Shape key: B batch, F latent frames, C channels, H, W latent size.
Four ends are known: numbers that are not finite; a world that stands still; one that is torn by its own errors (motion
far beyond real, or the grid of the patches showing); a discriminator whose logits saturate and teach nothing. All but
the first must last for `WATCHED` steps. Source: AAPT notes section 7; the grid is what our own run ended in (LOG.md).

Does not know how the figures of a step come about, or what is kept of a run.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from controls.errors import UserError
from generator.training.adversarial_settings import AdversarialTraining

WATCHED = 60  # steps over which a figure is averaged before it counts
TOLD = ("motion", "grid", "saturated")


@torch.no_grad()
def motion_of(frames: Tensor) -> float:
    """Mean absolute change between successive latent frames (B, F, C, H, W)."""
    return (frames[:, 1:] - frames[:, :-1]).abs().mean().item()


@torch.no_grad()
def grid_of(frames: Tensor, patch: int) -> float:
    """How much more latents (B, F, C, H, W) change from patch to patch than within one: about 1 in real clips."""
    edge, inside = [], []
    for axis in (-1, -2):
        change = frames.float().diff(dim=axis).abs().mean([d for d in range(5) if d != 5 + axis])
        between = torch.arange(1, len(change) + 1, device=frames.device) % patch == 0
        edge.append(change[between])
        inside.append(change[~between])
    if not torch.cat(edge).numel() or not torch.cat(inside).numel():
        return 1.0  # patches of one cell, or one patch, have no grid
    return (torch.cat(edge).mean() / torch.cat(inside).mean().clamp_min(1e-9)).item()


class Watch:
    """The last steps' figures, kept with a run's resume state."""

    def __init__(self, kept: Mapping[str, list[float]] | None = None) -> None:
        self.last = {name: deque((kept or {}).get(name, ()), maxlen=WATCHED) for name in TOLD}

    def state(self) -> dict[str, list[float]]:
        """What `Watch` continues from."""
        return {name: list(values) for name, values in self.last.items()}

    def look(self, folder: Path, step: int, figures: Mapping[str, float], config: AdversarialTraining) -> None:
        """Take in a step's figures; UserError when the run has failed."""
        broken = [name for name, value in figures.items() if not math.isfinite(value)]
        kept = f"the last snapshots are kept in {str(folder)!r}"
        if broken:
            raise UserError(
                f"Step {step} gave no finite {', '.join(broken)}; {kept}, "
                "lower the rates with --set lr=... or begin again with --resume-discriminator-from."
            )
        for name in TOLD:
            self.last[name].append(figures[name])
        if len(self.last["motion"]) < WATCHED:
            return
        motion, grid, saturated = (sum(self.last[name]) / WATCHED for name in TOLD)
        for wrong, words, allow in (
            (
                motion < config.least_motion,
                f"Rollouts move {motion:.2f} times as much as real clips over {WATCHED} steps: the world has come to a "
                "stop",
                "least_motion=0",
            ),
            (
                0 < config.most_motion < motion,
                f"Rollouts move {motion:.2f} times as much as real clips over {WATCHED} steps: the world is torn",
                "most_motion=0",
            ),
            (
                0 < config.most_grid < grid,
                f"The grid of the patches is {grid:.2f} times that of real clips over {WATCHED} steps: rollouts end in "
                "it",
                "most_grid=0",
            ),
            (
                0 < config.most_saturated < saturated,
                f"{100 * saturated:.0f} % of the logits are saturated over {WATCHED} steps: the discriminator teaches "
                "nothing",
                "most_saturated=0",
            ),
        ):
            if wrong:
                raise UserError(
                    f"{words}; {kept}, begin again from an earlier one with --resume-discriminator-from, or allow it "
                    f"with --set {allow}."
                )
