"""Light: how much darker the blocks of a place's map are the farther away they are seen.

Shape key: n poses, h, w rows and columns of rays, N cells.
Engines of this kind darken what is far: a sector's own darkness counts in full from afar, and nearness takes away from
it. A block's colour is what it would be at hand; seen at `z` map units, with black at 0, it is

    (1 - max(0, dim - fade / z)) of that.

Cells of CELL map units have each a `dim`; the sectors of our own maps are made of such cells. Engines that draw in few
colours cannot be that exact: each colour of the map's palette is off by its own `tones` at each of LEVELS darknesses.

Does not know how rays find blocks, or how dim cells were found to be (training/place_light.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from generator.tokenizer.kept import sized_for

STEP = 1 / 255  # of `dim`, which is kept in bytes
LEVELS, TONE = 32, 1 / 256  # of darkness, and what tones are counted in


class Light(nn.Module):
    """How `dim` (N,) bytes the cells of a map are far away, row by row, of so many a `side` and `levels`; how fast they
    `fade` (1,), in map units; and the `tones` (LEVELS, colours, 3) int8 of the palette's colours. All are empty where
    all is as bright from anywhere, and tones also where none were found.

    The map has `blocks` a side, so many `heights` of them and `colours`, and a cell is `wide` blocks wide.
    """

    dim: Tensor
    fade: Tensor
    tones: Tensor

    def __init__(self, blocks: int, heights: int, wide: int, colours: int) -> None:
        super().__init__()
        self.colours = colours
        self.side, self.levels, self.wide = blocks // wide, heights // wide, wide
        self.register_buffer("dim", torch.zeros(0, dtype=torch.uint8))
        self.register_buffer("fade", torch.zeros(0))
        self.register_buffer("tones", torch.zeros(0, colours, 3, dtype=torch.int8))

    @property
    def known(self) -> bool:
        """Whether anything is darker from afar."""
        return len(self.dim) > 0

    def fill(self, dim: Tensor, fade: float) -> None:
        """Cells are that dim (N,), 0 to 1, and fade like that."""
        assert len(dim) == self.side**2 * self.levels, dim.shape
        self.dim = (dim.clamp(0, 1) * 255).round().to(torch.uint8)
        self.fade = torch.full((1,), fade, device=dim.device)

    def forget(self) -> None:
        """All is as bright from anywhere."""
        self.dim, self.fade, self.tones = self.dim[:0], self.fade[:0], self.tones[:0]

    def tone(self, off: Tensor) -> None:
        """The palette's colours are that far off (LEVELS, colours, 3), in levels of -1..1."""
        self.tones = (off / TONE).round().clamp(-127, 127).to(torch.int8)

    def of(self, number: Tensor) -> Tensor:
        """Numbers of the cells that blocks of these numbers lie in."""
        column, level = number // (self.levels * self.wide), number % (self.levels * self.wide)
        row, column = column // (self.side * self.wide), column % (self.side * self.wide)
        return (row // self.wide * self.side + column // self.wide) * self.levels + level // self.wide

    def left(self, cell: Tensor, away: Tensor) -> Tensor:
        """The share (...) of the brightness of cells of these numbers (...) that is left so far `away` (...)."""
        return 1 - (self.dim[cell].float() * STEP - self.fade / away).clamp(min=0)

    def shaded(self, colour: Tensor, code: Tensor, left: Tensor) -> Tensor:
        """Colours (..., 3) in [-1, 1] of these codes (...) of the palette, of which that share (...) is left."""
        made = dimmed(colour, left)
        return made + self.tones[darkness(left), code].float() * TONE if len(self.tones) else made

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """As any module's; maps without any were kept before there was light."""
        errors: list[str] = rest[-1]
        state_dict = sized_for(self, state_dict, prefix, ("dim", "fade", "tones"))
        super()._load_from_state_dict(state_dict, prefix, *rest)  # type: ignore[arg-type]
        whole = (self.side**2 * self.levels,), (1,)
        if (tuple(self.dim.shape), tuple(self.fade.shape)) not in (whole, ((0,), (0,))):
            errors.append(f"The light of {prefix}dim is not of a map of {whole[0][0]} cells.")
        if tuple(self.tones.shape) not in ((0, self.colours, 3), (LEVELS, self.colours, 3)) or (
            len(self.tones) and not self.known
        ):
            errors.append(f"{prefix}tones are not {LEVELS} times {self.colours} colours of a map with light.")


def dimmed(colour: Tensor, left: Tensor) -> Tensor:
    """Colours (..., 3) in [-1, 1] of which that share (...) of the brightness is left, whatever their tones."""
    return (colour + 1) * left[..., None] - 1


def darkness(left: Tensor) -> Tensor:
    """Which of the LEVELS of darkness it is where that share (...) of the brightness is left."""
    return ((1 - left) * LEVELS).long().clamp_(0, LEVELS - 1)
