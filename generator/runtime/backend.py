"""What a backend is: a transformer that makes latents and a decoder that makes pictures, each with explicit state.

Shape key: C channels, H, W latent size, P action fields, R ray channels, Y, X video size. Batch is always one.

Does not know which backends exist, or about scenes and players.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from controls.errors import UserError
from generator.tokenizer.parallax import Seen
from generator.tokenizer.reproject import Reprojector, Standing, Views

Float = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
State = dict[str, npt.NDArray[Any]]


class Transformer(Protocol):
    """Generates latent frames, one evaluation each."""

    def reset(self, first: Tensor, seed: int) -> None:
        """Begin from the normalised latent of the first frame (1, C, H, W)."""

    def step(self, actions: Float, rays: Float, ahead: Tensor | None = None) -> Tensor:
        """The next latent frame (1, C, H, W) float32, from actions (ticks, P) and rays (R, H, W).

        `ahead` (1, C, H, W) is the reprojected last picture, for models that recycle one.
        """

    @property
    def frame_index(self) -> int:
        """Latent frames generated since reset."""

    def state(self) -> State:
        """Everything that the next step depends on, as arrays."""

    def load(self, state: State) -> None:
        """Continue from `state()`."""


class Decoder(Protocol):
    """Turns latents into pictures, one latent frame at a time."""

    def first(self, latent: Tensor) -> Pixels:
        """Begin with normalised latent 0 (1, C, H, W): one picture, uint8 (1, Y, X, 3). As for `next`, UserError
        when the picture's numbers are not finite.
        """

    def next(self, latent: Tensor) -> Pixels:
        """The pictures of a later latent frame, uint8 (4, Y, X, 3)."""

    def state(self) -> State:
        """Everything that the next decode depends on, as arrays."""

    def load(self, state: State) -> None:
        """Continue from `state()`."""


@runtime_checkable
class LaunchedDecoder(Protocol):
    """A decoder whose `next` is these two, so that another stream can work in between."""

    def launch(self, latent: Tensor) -> None:
        """Begin to decode a latent frame (1, C, H, W); returns at once."""

    def fetch(self) -> Pixels:
        """The pictures of the last launch, uint8 (4, Y, X, 3), once they stand."""


Encoder = Callable[[Tensor], Tensor]
Perceiver = Callable[[Tensor], Seen]
Finisher = Callable[[Pixels, Sequence[Tensor]], Pixels]


class Reprojection:
    """The last picture moved by the next action and encoded, and the pace of the walk.

    `encode` is `Reprojector.forward` and `perceive` is `Parallax.perceive`, however they are run; `refine` stands in
    for the refiner within `Reprojector.compose`, from and to bytes.
    """

    def __init__(
        self, turn: Reprojector, encode: Encoder, perceive: Perceiver | None = None, refine: Finisher | None = None
    ) -> None:
        self.turn, self.encode, self.perceive, self.refine = turn, encode, perceive, refine
        self.device = next(turn.vae.parameters()).device
        self.pace = turn.no_pace(1)
        self.views: Views | None = None

    @torch.no_grad()
    def reset(self, picture: Pixels) -> None:
        """Stand still where the picture, uint8 (Y, X, 3), shows."""
        self._go_on(self.turn.stand(self._video(picture)))
        self.views = None

    def _go_on(self, pace: Tensor) -> None:
        """At another pace (1, Z) from here on."""
        self.pace = pace

    @property
    def pose(self) -> Standing:
        """x, y in map units and yaw in degrees, where the world is one place."""
        return self.turn.standing(self.pace)

    @torch.no_grad()
    def stand_at(self, pose: Sequence[float] | npt.NDArray[Any]) -> None:
        """Go on from another pose (5,): x, y in map units, yaw and pitch in degrees, and the eye's height. What the
        ego-motion remembers stays; nothing changes where the world is no place.
        """
        given = torch.tensor([[float(value) for value in pose]], device=self.pace.device)
        self._go_on(self.turn.at(self.pace, given))

    @property
    def fine(self) -> bool:
        """Whether there is fine detail that `lighten` leaves out."""
        return self.turn.finer

    def lighten(self, light: bool) -> None:
        """Leave fine detail out from here on, or no longer (see `Reprojector`)."""
        self.turn.light = light

    def _video(self, picture: Pixels) -> Tensor:
        return torch.from_numpy(picture).to(self.device).permute(2, 0, 1)[None].float() / 127.5 - 1

    @torch.no_grad()  # not inference mode: a compiled encoder would be compiled again for it
    def __call__(self, picture: Pixels, look: Float, actions: Float) -> Tensor:
        """picture uint8 (Y, X, 3), look (ticks, 2) degrees and actions (ticks, P) to the normalised latent
        (1, C or C + K, H, W) float32; the pace goes on.
        """
        video = self._video(picture)
        given = [torch.from_numpy(array)[None].to(self.device) for array in (look, actions)]
        self.views, self.pace = self.turn.ahead(video, *given, self.pace, self.perceive)
        return self.turn.told(self.encode(self.views.pictures).float(), self.views.pose)

    @torch.no_grad()
    def compose(self, frames: Pixels) -> Pixels:
        """What is shown of the decoded frames (ticks, Y, X, 3) that follow the last call."""
        assert self.views is not None, "what lies ahead comes before what is made of it"
        if not self.turn.composes:
            return frames
        if self.refine is not None and self.turn.refines:
            return self.refine(frames, self.views.to_refine())
        video = torch.from_numpy(frames).to(self.device).permute(0, 3, 1, 2)[None].float() / 127.5 - 1
        return to_pixels(self.turn.compose(self.views, video))

    def state(self) -> State:
        """What the next call depends on beside its inputs, as arrays."""
        return {"pace": to_array(self.pace)}

    def load(self, state: State) -> None:
        """Continue from `state()`."""
        self._go_on(to_tensor(state["pace"], self.pace).reshape(self.pace.shape))


@dataclass
class Backend:
    """A transformer, a decoder and perhaps a reprojection under one name, as reports show it.

    `device` is where they run, `switches` what a backend with choices chose, by name.
    """

    name: str
    transformer: Transformer
    decoder: Decoder
    reprojection: Reprojection | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    switches: dict[str, Any] = field(default_factory=dict)


def level_of(video: Tensor) -> Tensor:
    """The mean square of decoded numbers of any shape, float32 (1,): NaN or infinite as soon as one of them is."""
    return video.float().square().mean().view(1)


def check_level(level: float) -> None:
    """UserError when a `level_of` decoded pictures is not finite: as bytes they would be any colour."""
    if not math.isfinite(level):
        raise UserError(f"The decoder's numbers are no longer finite ({level}); begin anew, or try another backend.")


def to_pixels(video: Tensor) -> Pixels:
    """Video (1, T, 3, Y, X) in [-1, 1] to uint8 (T, Y, X, 3)."""
    return np.asarray(to_bytes(video).contiguous().cpu().numpy())


def to_bytes(video: Tensor) -> Tensor:
    """As `to_pixels`, where the video is."""
    scaled = (video[0].float().clamp(-1, 1) + 1) * 127.5
    return scaled.round().to(torch.uint8).permute(0, 2, 3, 1)


def to_array(tensor: Tensor) -> npt.NDArray[Any]:
    """A tensor's own bits as an array; bfloat16 travels as uint16."""
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        return np.array(tensor.view(torch.uint16).numpy())
    return np.array(tensor.numpy())


def to_tensor(array: npt.NDArray[Any], like: Tensor) -> Tensor:
    """The inverse of `to_array`, in the type and place of `like`."""
    tensor = torch.from_numpy(np.array(array))
    if tensor.dtype == torch.uint16:
        tensor = tensor.view(torch.bfloat16)
    return tensor.to(like)
