"""The reprojection on static buffers, run through captured graphs: hundreds of small kernels launched as one.

Shape key: C latent channels, K channels of the place, H, W latent size, P action fields, Z pace, Y, X video size.
Batch is always one. There are two bodies: what lies ahead of a picture, and what is shown of the pictures decoded
after it. Both read and write buffers that stay, so that what was captured at one frame is right at every other.

Does not know about scenes, players, transformers or decoders.
"""

from __future__ import annotations

import torch
from torch import Tensor

from generator.runtime.backend import Float, Pixels, Reprojection, to_bytes
from generator.runtime.eager import eager_encoder
from generator.runtime.gpu_graphs import GraphRunner, on_gpu
from generator.tokenizer.place import POSE
from generator.tokenizer.reproject import Reprojector, Views


class Gate:
    """A host buffer and the device buffer that it is copied to without waiting; pinned if asked and on a GPU."""

    def __init__(self, device: torch.device, dtype: torch.dtype, shape: tuple[int, ...], pinned: bool) -> None:
        self.inside = torch.zeros(shape, dtype=dtype, device=device)
        self.outside = torch.zeros(shape, dtype=dtype, pin_memory=pinned and on_gpu(device))
        self.copied = torch.cuda.Event() if on_gpu(device) else None

    def enter(self, array: Pixels | Float) -> None:
        """Send an array of the buffer's shape to the device."""
        if self.copied is not None:
            self.copied.synchronize()  # the last one has left the host's buffer; long since, as a rule
        self.outside.copy_(torch.from_numpy(array))
        self.inside.copy_(self.outside, non_blocking=True)
        if self.copied is not None:
            self.copied.record()

    def leave(self) -> Pixels:
        """What the device's buffer holds, once it stands."""
        self.outside.copy_(self.inside, non_blocking=True)
        if on_gpu(self.inside.device):
            torch.cuda.current_stream(self.inside.device).synchronize()
        return self.outside.numpy().copy()


class GpuReprojection(Reprojection):
    """See `backend.Reprojection`. Pictures are of the tokenizer's own size; actions have `fields` P.

    `pace` (1, Z) and what `views` holds after a call are buffers: the next call writes over them.
    """

    def __init__(self, turn: Reprojector, fields: int, pinned: bool, runner: GraphRunner) -> None:
        super().__init__(turn, eager_encoder(turn))
        config, device, runs = turn.vae.config, self.device, turn.parallax
        self.runner, ticks, size = runner, config.time, config.size
        self.pace = self.pace.to(device)
        self.picture = Gate(device, torch.uint8, (*size, 3), pinned)
        self.look = Gate(device, torch.float32, (ticks, 2), pinned)
        self.actions = Gate(device, torch.float32, (ticks, fields), pinned)
        self.decoded = Gate(device, torch.uint8, (ticks, *size, 3), pinned)
        self.shown = Gate(device, torch.uint8, (ticks, *size, 3), pinned)
        channels = config.latent_channels + (runs.place_channels if runs else 0)
        self.told = torch.zeros(1, channels, *config.latent_size, device=device)
        self.made = Views(
            torch.zeros(1, 1 + ticks, 3, *size, device=device),
            torch.zeros(1, ticks, 1, *size, device=device),
            torch.zeros(1, POSE, device=device) if runs and runs.place is not None else None,
            *(torch.zeros(1, ticks, 3, *size, device=device) if runs and runs.recalls else None for _ in range(2)),
        )

    @torch.no_grad()
    def ahead_body(self) -> None:
        """From `picture`, `look`, `actions` and `pace` to `told` and `made`; the pace goes on in place."""
        given = (self.look.inside[None], self.actions.inside[None])
        views, pace = self.turn.ahead(_video(self.picture.inside[None]), *given, self.pace)
        self.told.copy_(self.turn.told(self.encode(views.pictures).float(), views.pose))
        self.made.pictures.copy_(views.pictures)
        self.made.inside.copy_(views.inside)
        if self.made.pose is not None and views.pose is not None:
            self.made.pose.copy_(views.pose)
        if self.made.known is not None and views.known is not None:
            self.made.known.copy_(views.known)
        if self.made.moved is not None and views.moved is not None:
            self.made.moved.copy_(views.moved)
        if pace is not self.pace:
            self.pace.copy_(pace)

    @torch.no_grad()
    def compose_body(self) -> None:
        """From `decoded` and `made` to `shown`."""
        video = _video(self.decoded.inside)[None]
        self.shown.inside.copy_(to_bytes(self.turn.compose(self.made, video)))

    def __call__(self, picture: Pixels, look: Float, actions: Float) -> Tensor:
        """See `backend.Reprojection`."""
        for gate, array in ((self.picture, picture), (self.look, look), (self.actions, actions)):
            gate.enter(array)
        self.runner.run("ahead", self.ahead_body)
        self.views = self.made
        return self.told.clone()

    def compose(self, frames: Pixels) -> Pixels:
        """See `backend.Reprojection`."""
        assert self.views is not None, "what lies ahead comes before what is made of it"
        if not self.turn.composes:
            return frames
        self.decoded.enter(frames)
        self.runner.run("compose", self.compose_body)
        return self.shown.leave()

    @property
    def fine(self) -> bool:
        """No: a GPU has time to spare, and what it runs was captured as it is."""
        return False

    def lighten(self, light: bool) -> None:
        """Nothing."""

    def _go_on(self, pace: Tensor) -> None:
        self.pace.copy_(pace)


def _video(pictures: Tensor) -> Tensor:
    """uint8 (n, Y, X, 3) to (n, 3, Y, X) in [-1, 1]."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1
