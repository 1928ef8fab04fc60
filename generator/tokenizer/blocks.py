"""Layers of the causal video VAE, each written once for a whole clip and for one latent frame.

Shape key: B batch, T frames at a layer's own rate, C channels, H, W its size. Activations are 4-D and *time-major*,
`(T*B) C H W` in channels-last memory: moving one frame into the past is then a slice of whole rows, so a causal 3-D
convolution is a 2-D convolution over neighbouring frames stacked as channels. That is as fast as 2-D convolutions
are on any backend, and exports as such.

Memory: a layer that looks back takes its last `kernel - 1` input frames as `past`, and hands back the new ones. Past
the start of a clip there are zeros, so a first frame looks different from a later one.

Does not know of latents, actions, losses or files.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

State = tuple[Tensor, ...]
LAST = torch.channels_last
BRANCH_GAIN = 0.5  # how loud a residual branch starts, against the path around it


class CausalConv(nn.Module):
    """A `kernel` x 3 x 3 convolution that sees the present and `kernel - 1` earlier frames; the size stays."""

    def __init__(self, inputs: int, outputs: int, kernel: int, gain: float = 1.0) -> None:
        super().__init__()
        self.inputs, self.kernel = inputs, kernel
        self.conv = nn.Conv2d(inputs * kernel, outputs, 3, padding=1)
        nn.init.normal_(self.conv.weight, std=gain * (2.0 / (inputs * kernel * 9)) ** 0.5)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    @property
    def memory(self) -> int:
        """How many earlier frames this layer keeps."""
        return self.kernel - 1

    def forward(self, x: Tensor, batch: int, past: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(T*B) C H W and the memory ((kernel-1)*B) C H W -> outputs and the next memory."""
        if self.kernel == 1:
            return self.conv(x), None
        assert past is not None, "a causal convolution needs its memory"
        rows = x.shape[0]
        padded = torch.cat([past, x], dim=0)
        seen = torch.cat([padded[i * batch : i * batch + rows] for i in range(self.kernel)], dim=1)
        return self.conv(seen), padded[rows:]

    def opening(self, x: Tensor, batch: int, last: bool = False) -> Tensor:
        """`forward` of a clip's first frames (T*B) C H W, of which `last` wants no more than the last one's outputs.

        What lies before a clip is zeros, which need not be multiplied with.
        """
        frames = x.split(batch)
        if self.kernel == 1:
            return self.conv(frames[-1] if last else x)
        made = []
        for at in [len(frames) - 1] if last else range(min(self.kernel - 1, len(frames))):
            seen = torch.cat(frames[max(0, at + 1 - self.kernel) : at + 1], dim=1)
            weight = self.conv.weight[:, -self.inputs * min(self.kernel, at + 1) :]
            made.append(functional.conv2d(seen, weight, self.conv.bias, padding=1))
        rows = x.shape[0] - (self.kernel - 1) * batch
        if rows > 0 and not last:
            made.append(self.conv(torch.cat([x[i * batch : i * batch + rows] for i in range(self.kernel)], dim=1)))
        return torch.cat(made)


class Block(nn.Module):
    """Residual block without normalisation: causal `kernel` x 3 x 3, then 1 x 3 x 3.

    No statistics are taken, over time or otherwise, so a frame can never depend on a later one, and nothing but
    convolutions is left to run.
    """

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.first = CausalConv(channels, channels, kernel)
        self.second = CausalConv(channels, channels, 1, gain=BRANCH_GAIN)

    def forward(self, x: Tensor, batch: int, past: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(T*B) C H W -> the same, and the next memory."""
        hidden, new = self.first(functional.silu(x), batch, past)
        return x + self.second(functional.silu(hidden), batch, None)[0], new

    def opening(self, x: Tensor, batch: int, last: bool = False) -> Tensor:
        """`forward` of a clip's first frames, or of the `last` of them alone."""
        hidden = self.first.opening(functional.silu(x), batch, last)
        return (x[-batch:] if last else x) + self.second(functional.silu(hidden), batch, None)[0]


class Down(nn.Module):
    """Halve the size and, with `frames` = 2, the rate: frame 0 stands alone, then frames (2k-1, 2k) become frame k.

    A learned projection beside a fixed one that averages groups of channels (DC-AE's residual autoencoding).
    """

    def __init__(self, inputs: int, outputs: int, frames: int) -> None:
        super().__init__()
        stacked = inputs * 4 * frames
        assert stacked % outputs == 0, f"{stacked} stacked channels do not average into {outputs}"
        self.outputs, self.frames = outputs, frames
        self.project = nn.Conv2d(stacked, outputs, 1)

    def forward(self, x: Tensor, batch: int) -> Tensor:
        """(T*B) C H W -> (T'*B) C' H/2 W/2 with T = 1 + 2K, T' = 1 + K where the rate halves, else T' = T."""
        if self.frames == 2:
            x = torch.cat([x[:batch], x], dim=0)
            pairs = x.unflatten(0, (-1, 2, batch))
            x = torch.cat([pairs[:, 0].flatten(0, 1), pairs[:, 1].flatten(0, 1)], dim=1)
        x = functional.pixel_unshuffle(x, 2).contiguous(memory_format=LAST)
        return self.project(x) + x.unflatten(1, (self.outputs, -1)).mean(dim=2)


class Up(nn.Module):
    """Double the size and, with `frames` = 2, the rate: each frame becomes two, but a clip's first one stays one.

    A learned projection beside a fixed one that copies channels into the new pixels and frames.
    """

    def __init__(self, inputs: int, outputs: int, frames: int) -> None:
        super().__init__()
        assert outputs * 4 % inputs == 0, f"{inputs} channels do not copy into {outputs * 4}"
        self.copies, self.frames = outputs * 4 // inputs, frames
        self.project = nn.Conv2d(inputs, outputs * 4 * frames, 1)

    def forward(self, x: Tensor, batch: int, first: bool) -> Tensor:
        """(T*B) C H W -> (T'*B) C' 2H 2W; T' = frames * T, less `frames - 1` when `first` opens the clip."""
        spread = x.unsqueeze(2).expand(-1, -1, self.copies, -1, -1).flatten(1, 2)
        made = [functional.pixel_shuffle(part + spread, 2) for part in self.project(x).chunk(self.frames, dim=1)]
        if self.frames == 1:
            return made[0].contiguous(memory_format=LAST)
        pairs = torch.stack([part.unflatten(0, (-1, batch)) for part in made], dim=1)
        x = pairs.flatten(0, 2).contiguous(memory_format=LAST)
        return x[batch:] if first else x
