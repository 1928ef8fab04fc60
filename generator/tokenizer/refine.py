"""The refiner: what is shown, of a decoded picture, the last one moved to where the camera is now, and the map's view.

Shape key: n pictures, Y, X video size, W width.
A decoded picture is right about what is there and wobbles where a line should stand still; a moved one keeps every line
where geometry puts it and is soft, or wrong, where something came near or was uncovered; the view of a place's map has
its lines, too, with steps at every edge and none of what the map does not hold. A few convolutions at a quarter of the
size see all and say, for each pixel, how much of the others to take and what to add (after Liu et al. 2021, Infinite
Nature: move, then refine; ours is one step behind a video decoder). Taught by training/decoder.py on histories of the
world's own, so that it knows what its own choices come to when they are moved again and again.

Does not know where pictures come from, how they are moved, or latents.
"""

from __future__ import annotations

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

FOLD = 4  # pixels of a side that are folded into channels
SEEN = 3 + 3 + 1  # channels of the picture made and the one moved, and which pixels were really seen
TOLD = 3 + 1  # channels of what is added, and how much of the moved picture is taken
KNOWN = 3  # further channels where there is a view of a map; and how much of that is taken
BLOCKS = 2


class RefinerBlock(nn.Module):
    """Two 3 x 3 convolutions beside the path."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, 1, 1)
        self.second = nn.Conv2d(width, width, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, W, y, x) to the same."""
        return x + self.second(nnf.silu(self.first(nnf.silu(x))))


class Refiner(nn.Module):
    """Pictures (n, 3, Y, X) made and moved, in [-1, 1], which pixels (n, 1, Y, X) of the moved were seen, and where
    the refiner is of a world that `knows` a map, its views (n, 3, Y, X), to pictures (n, 3, Y, X), not clipped.

    A new one shows what was made. Y and X are multiples of FOLD.
    """

    def __init__(self, width: int, knows: bool = False) -> None:
        super().__init__()
        self.knows = knows
        self.enter = nn.Conv2d((SEEN + KNOWN * knows) * FOLD**2, width, 1)
        self.blocks = nn.ModuleList(RefinerBlock(width) for _ in range(BLOCKS))
        self.out = nn.Conv2d(width, (TOLD + knows) * FOLD**2, 3, 1, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, made: Tensor, moved: Tensor, inside: Tensor, known: Tensor | None = None) -> Tensor:
        """See the class; float32 comes out, whatever the weights' type."""
        assert (known is not None) == self.knows, "the view of the map goes with refiners of worlds that have one"
        views = [made, moved, inside] if known is None else [made, moved, inside, known]
        x = nnf.pixel_unshuffle(torch.cat(views, dim=1).to(self.enter.weight), FOLD)
        x = self.enter(x.contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            x = block(x)
        told = nnf.pixel_shuffle(self.out(nnf.silu(x)), FOLD).float()
        made = made.float()
        shown = made + told[:, 3:4] * (moved.float() - made) + told[:, :3]
        return shown if known is None else shown + told[:, 4:] * (known.float() - made)
