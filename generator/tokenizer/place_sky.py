"""The sky of a place's map: a colour for each direction, wherever one stands.

Shape key: S slopes, T turns, n poses, h, w rows and columns of rays.
Cells are about half as wide as a column of a 256-wide picture; each has one of few colours.

Does not know of blocks, or how the sky was found (training/place_sky.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from generator.tokenizer.palettes import few

SLOPES, TURNS, LOWEST, HIGHEST = 384, 2048, -0.1, 1.1  # cells: up by slope, and around
COLOURS = 256


class Sky(nn.Module):
    """Which of the colours of the `palette` (COLOURS, 3) cells have: `codes` uint8 (S, T), row 0 the lowest; azimuth 0
    is at column 0.
    """

    codes: Tensor
    palette: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("codes", torch.zeros(SLOPES, TURNS, dtype=torch.uint8))
        self.register_buffer("palette", torch.zeros(COLOURS, 3))

    def fill(self, colours: Tensor) -> None:
        """Its cells are of these colours (S, T, 3) in [-1, 1], of any S and T, or of few like them."""
        made, which = few(colours.flatten(0, 1), COLOURS)
        self.codes = which.to(torch.uint8).view(colours.shape[:2])
        self.palette.zero_()[: len(made)] = made.to(self.palette)

    def seen(self, azimuth: Tensor, up: Tensor) -> Tensor:
        """Colours (n, h, w, 3) in directions of azimuth (n, 1, w) in degrees and slope `up` (n, h, 1)."""
        return self.palette.float()[self.codes.flatten()[self.cells(azimuth, up)].long()]

    def cells(self, azimuth: Tensor, up: Tensor) -> Tensor:
        """Numbers of cells in directions of azimuth in degrees and slope `up`, which go together."""
        return self.slope(up) * self.codes.shape[1] + self.turn(azimuth)

    def turn(self, azimuth: Tensor) -> Tensor:
        """Which of the turns azimuths in degrees lie in."""
        turns = self.codes.shape[1]
        return (torch.remainder(azimuth, 360.0) / 360.0 * turns).long().clamp_(0, turns - 1)

    def slope(self, up: Tensor) -> Tensor:
        """Which of the slopes `up` lies in; the lowest and highest go on."""
        slopes = self.codes.shape[0]
        return ((up - LOWEST) / (HIGHEST - LOWEST) * slopes).long().clamp_(0, slopes - 1)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """As any module's, of however many cells; a state older than codes leaves what it was filled with."""
        errors: list[str] = rest[-1]
        given = {prefix + name: state_dict.get(prefix + name, getattr(self, name)) for name in ("codes", "palette")}
        codes = given[prefix + "codes"]
        if codes.dim() == 2 and codes.numel() and codes.dtype == torch.uint8:
            self.codes = self.codes.new_zeros(codes.shape)
        else:
            errors.append(f"{prefix}codes are not bytes of slopes and turns.")
        super()._load_from_state_dict({**state_dict, **given}, prefix, *rest)  # type: ignore[arg-type]
