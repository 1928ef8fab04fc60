"""Rays of cameras through the pixels of a picture, one or several through each.

Shape key: n poses, S samples of a pixel, h, w rows and columns of rays.
A pose is x, y in map units, yaw and pitch in degrees, and the eye's height in map units, or without the last.
A recorded pixel is the mean of four that the engine drew. One ray through its middle finds one thing where that is a
mean of several; two, through two of the four places that lie aslant, come nearly as near as all four (LOG.md). Engines
may look along the edge of a row instead of its middle, half a row lower.

Does not know what rays meet.
"""

from __future__ import annotations

import torch
from torch import Tensor

from controls.errors import UserError
from generator.tokenizer.devices import centres, constant

SAMPLES = {
    1: ((0.0, 0.0),),
    2: ((-0.25, 0.25), (0.25, -0.25)),
    4: ((-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25)),
}  # how far right and down of a pixel's middle its samples are, in pixels


def check_samples(samples: int) -> None:
    """UserError on a number of samples that pixels are not taken in."""
    if samples not in SAMPLES:
        known = ", ".join(map(str, SAMPLES))
        raise UserError(f"samples = {samples} of a pixel of the map's views is none of {known}; give one of those.")


def finer(samples: int) -> int:
    """How many of these samples of pixels lie beside one another across a pixel."""
    return len({right for right, _ in SAMPLES[samples]})


class Rays:
    """The rays of cameras at poses (n, 4 or 5) through a grid of h x w: slopes per unit of heading, of which east and
    north (n, 1, w) are those of a column and up (n, h, 1) is that of a row.

    With several SAMPLES a pixel those of a pose stand beside one another, n * S in all. All look `lower` than the
    middles of their rows, by that slope before it is stretched.
    """

    def __init__(
        self,
        pose: Tensor,
        edge: float,
        stretch: float | Tensor,
        height: int,
        width: int,
        samples: int = 1,
        lower: float = 0.0,
    ) -> None:
        shift = constant(tuple(part for pair in SAMPLES[samples] for part in pair), pose.device).view(samples, 1, 2)
        pose = pose.float().repeat_interleave(samples, dim=0)
        right, down = (
            (centres(count, pose.device) + shift[..., axis] * (2 / count)).repeat(len(pose) // samples, 1) * edge
            for axis, count in enumerate((width, height))
        )
        down = (down * (height / width) + lower) / stretch
        yaw, pitch = torch.deg2rad(pose[:, 2:4])[:, :, None, None].unbind(1)
        self.pose = pose
        self.up = pitch.tan() - down[:, :, None]
        self.east = yaw.cos() - right[:, None] * yaw.sin()
        self.north = -yaw.sin() - right[:, None] * yaw.cos()
        self.azimuth = pose[:, 2, None, None] + torch.rad2deg(right[:, None].atan())

    def plan(self) -> list[tuple[Tensor, Tensor]]:
        """Start (n, 1, 1, 1) and step (n, 1, w) per unit of heading, of x and y."""
        x, y = self.pose[:, :2, None, None, None].unbind(1)
        return [(x, self.east), (y, self.north)]
