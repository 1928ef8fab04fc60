"""Reprojection: the last picture as it will look once the head has turned, encoded as the next latent frame.

Shape key: B batch, C latent channels, H, W latent size, Y, X video size.
A turned head moves the whole picture by a known amount; only what a walk changes has to be generated. The last picture
is turned by the summed look of each tick and encoded as if these were the next pictures of the video. Yaw turns about
the upright axis, pitch shifts the picture up or down, as our engine draws it (controls/camera.py); edges repeat.
Ours; the paper recycles the last latent frame as it is. Measured gain: LOG.md.

Does not know where pictures come from, transformers or caches.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from generator.tokenizer.vae import VideoVAE


class Reprojector(nn.Module):
    """`views` turns a picture, `forward` encodes the views; `hfov` in degrees. Shares the tokenizer's weights."""

    def __init__(self, vae: VideoVAE, hfov: float) -> None:
        super().__init__()
        self.vae = vae
        self.edge = math.tan(math.radians(hfov) / 2)

    def views(self, picture: Tensor, look: Tensor) -> Tensor:
        """The picture (B, 3, Y, X), then its view after each tick of look (B, ticks, 2): (B, 1 + ticks, 3, Y, X)."""
        look, ticks = look.to(picture.device), look.shape[1]
        grid = self.grid(look.double().cumsum(1).flatten(0, 1), picture.shape[-2:])
        spread = picture[:, None].expand(-1, ticks, -1, -1, -1).flatten(0, 1)
        turned = nnf.grid_sample(spread, grid.to(picture.dtype), padding_mode="border", align_corners=False)
        return torch.cat([picture[:, None], turned.unflatten(0, (-1, ticks))], dim=1)

    def grid(self, turn: Tensor, size: tuple[int, ...]) -> Tensor:
        """Where each pixel of the new view lies in the old one, in -1..1: turn (n, 2) degrees to (n, Y, X, 2)."""
        high, wide = size
        aspect = wide / high
        across = ((torch.arange(wide, device=turn.device) + 0.5) / wide * 2 - 1) * self.edge
        down = ((torch.arange(high, device=turn.device) + 0.5) / high * 2 - 1) * self.edge / aspect
        yaw, pitch = torch.deg2rad(turn)[:, :, None, None].unbind(1)
        x, y = across[None, None], down[None, :, None]
        depth = (yaw.cos() - x * yaw.sin()).clamp(min=1e-3)  # a view behind one's back shows the border
        source_x = (x * yaw.cos() + yaw.sin()) / depth
        source_y = y / depth - pitch.tan()
        places = torch.broadcast_tensors(source_x / self.edge, source_y * aspect / self.edge)
        return torch.stack(places, dim=-1)

    def forward(self, views: Tensor) -> Tensor:
        """Views (B, 1 + ticks, 3, Y, X) in [-1, 1] to the normalised latent (B, C, H, W) of the turned ones."""
        return self.vae.normalise(self.vae.encode(views)[0])[:, 1]


def to_picture(video: Tensor) -> Tensor:
    """Decoded video in [-1, 1], rounded to the byte values that a player is shown; same shape, float32."""
    return ((video.float().clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
