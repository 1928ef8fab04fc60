"""A small patch discriminator for the tokenizer: one logit per overlapping patch of a picture (Isola et al. 2017).

Shape key: B pictures, 3 channels, Y, X size.

Does not know of losses, video or latents.
"""

from __future__ import annotations

import itertools

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm


class PatchDiscriminator(nn.Module):
    """Strided convolutions with spectral normalisation; no statistics over the batch, so any batch size trains."""

    def __init__(self, width: int = 48, depth: int = 3) -> None:
        super().__init__()
        widths = [3] + [width * 2**i for i in range(depth)]
        self.layers = nn.ModuleList(
            spectral_norm(nn.Conv2d(a, b, 4, stride=2, padding=1)) for a, b in itertools.pairwise(widths)
        )
        self.head = nn.Conv2d(widths[-1], 1, 3, padding=1, bias=False)  # a paired loss sees no bias

    def forward(self, pictures: Tensor) -> Tensor:
        """B 3 Y X in [-1, 1] -> logits B 1 y x, high for real."""
        x = pictures
        for layer in self.layers:
            x = functional.leaky_relu(layer(x), 0.2)
        return self.head(x)
