"""The causal video VAE: video <-> latents, whole clips at a time (AAPT section 3.1, the lighter decoder).

Shape key: B batch, T video frames, F latent frames, C latent channels, H, W latent size, Y, X video size. A clip of
T = 1 + 4F frames has 1 + F latents: the first frame is a latent alone. Video is in [-1, 1].

Does not know of streaming callers (see streaming.py), training, or where weights are kept.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from controls.errors import UserError
from generator.tokenizer.blocks import LAST, Block, CausalConv, Down, State, Up

FIRST_LOGVAR = -5.0
WIDEST = 8.0  # of a normalised latent's numbers; one in two million of recorded walks' is larger


@dataclass(frozen=True)
class TokenizerConfig:
    """One VAE. Tuples run from the finest scale to the coarsest; `halve_time` has one entry per step between two."""

    patch: int = 4  # space-to-depth at the pixel end; 1 is the paper's
    encoder_channels: tuple[int, ...] = (64, 128, 256)
    encoder_blocks: tuple[int, ...] = (1, 1, 2)
    decoder_channels: tuple[int, ...] = (64, 128, 256)
    decoder_blocks: tuple[int, ...] = (1, 1, 2)
    temporal_kernel: tuple[int, ...] = (
        1,
        2,
        3,
    )  # frames a block of that scale sees; 1 is 2-D
    halve_time: tuple[bool, ...] = (True, True)
    latent_channels: int = 32
    size: tuple[int, int] = (
        160,
        256,
    )  # Y, X at play time; other multiples of `space` work too

    @property
    def space(self) -> int:
        """Video pixels per latent, along one side."""
        return self.patch * 2 ** len(self.halve_time)

    @property
    def time(self) -> int:
        """Video frames per latent frame after the first."""
        return 2 ** sum(self.halve_time)

    @property
    def latent_size(self) -> tuple[int, int]:
        """H, W at play time."""
        return self.size[0] // self.space, self.size[1] // self.space

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TokenizerConfig:
        """Rebuild from `to_dict`; UserError on fields this version does not have."""
        try:
            plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
            return cls(**plain)
        except TypeError as error:
            raise UserError(
                f"The tokenizer's config {data!r} does not fit this version ({error}); train it again."
            ) from error


PRESETS: dict[str, TokenizerConfig] = {
    "debug": TokenizerConfig(
        encoder_channels=(8, 16, 16),
        decoder_channels=(8, 16, 16),
        latent_channels=8,
        size=(64, 64),
    ),
    "pocket": TokenizerConfig(),
    "paper": TokenizerConfig(
        patch=1,
        encoder_channels=(128, 256, 512, 512),
        encoder_blocks=(2, 2, 2, 2),
        decoder_channels=(64, 128, 256, 512),
        decoder_blocks=(2, 2, 2, 2),
        temporal_kernel=(3, 3, 3, 3),
        halve_time=(False, True, True),
        latent_channels=16,
        size=(416, 736),
    ),
}


class Encoder(nn.Module):
    """Video to the mean and log variance of its latents."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        channels, kernels = config.encoder_channels, config.temporal_kernel
        self.patch = config.patch
        self.stem = CausalConv(3 * config.patch**2, channels[0], 1)
        self.stages = nn.ModuleList(
            nn.ModuleList(Block(c, k) for _ in range(n))
            for c, k, n in zip(channels, kernels, config.encoder_blocks, strict=True)
        )
        self.downs = nn.ModuleList(
            Down(a, b, 2 if halve else 1) for (a, b), halve in zip(pairwise(channels), config.halve_time, strict=True)
        )
        self.head = CausalConv(channels[-1], 2 * config.latent_channels, 1, gain=0.7)
        with torch.no_grad():  # begin with little noise, or the decoder learns nothing until the encoder is loud
            self.head.conv.bias[config.latent_channels :] = FIRST_LOGVAR  # type: ignore[index]

    def forward(self, video: Tensor, last: bool = False) -> Tensor:
        """B T 3 Y X -> moments B 1+F 2C H W, or the `last` latent's alone, which is less work: B 1 2C H W."""
        batch = video.shape[0]
        x = video.transpose(0, 1).flatten(0, 1)
        x, _ = self.stem(
            functional.pixel_unshuffle(x, self.patch).contiguous(memory_format=LAST),
            batch,
            None,
        )
        for index, stage in enumerate(self.stages):
            if index:
                x = self.downs[index - 1](x, batch)
            ends = last and index == len(self.stages) - 1
            for number, block in enumerate(stage, 1):  # type: ignore[arg-type]
                x = block.opening(x, batch, ends and number == len(stage))  # type: ignore[arg-type]
        x, _ = self.head(functional.silu(x[-batch:] if last else x), batch, None)
        return x.unflatten(0, (-1, batch)).transpose(0, 1)


class Decoder(nn.Module):
    """Latents to video; `forward` continues from a state, so one latent frame at a time gives the same pictures."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        channels, kernels = config.decoder_channels[::-1], config.temporal_kernel[::-1]
        self.patch = config.patch
        self.stem = CausalConv(config.latent_channels, channels[0], 1)
        self.stages = nn.ModuleList(
            nn.ModuleList(Block(c, k) for _ in range(n))
            for c, k, n in zip(channels, kernels, config.decoder_blocks[::-1], strict=True)
        )
        self.ups = nn.ModuleList(
            Up(a, b, 2 if halve else 1)
            for (a, b), halve in zip(pairwise(channels), config.halve_time[::-1], strict=True)
        )
        self.head = CausalConv(channels[-1], 3 * config.patch**2, 1, gain=0.3)

    def init_state(self, batch: int, size: tuple[int, int], like: Tensor) -> State:
        """The memory before the first latent: one tensor ((kernel-1)*B) C H W per block that looks back."""
        state = []
        for index, stage in enumerate(self.stages):
            high, wide = (side * 2**index for side in size)
            for block in stage:  # type: ignore[attr-defined]
                if block.first.memory:
                    shape = (block.first.memory * batch, block.first.inputs, high, wide)
                    state.append(like.new_zeros(shape).contiguous(memory_format=LAST))
        return tuple(state)

    def forward(self, latents: Tensor, state: State, first: bool) -> tuple[Tensor, State]:
        """B F C H W -> video B T 3 Y X and the next state; `first`: latent 0 opens the clip and is one frame."""
        batch = latents.shape[0]
        memory, kept = iter(state), []
        x = latents.transpose(0, 1).flatten(0, 1).contiguous(memory_format=LAST)
        x, _ = self.stem(x, batch, None)
        for index, stage in enumerate(self.stages):
            if index:
                x = self.ups[index - 1](x, batch, first)
            for block in stage:  # type: ignore[attr-defined]
                x, new = block(x, batch, next(memory) if block.first.memory else None)
                if new is not None:
                    kept.append(new)
        x, _ = self.head(functional.silu(x), batch, None)
        x = functional.pixel_shuffle(x, self.patch)
        return x.unflatten(0, (-1, batch)).transpose(0, 1), tuple(kept)


class VideoVAE(nn.Module):
    """Causal video VAE; `shift` and `scale` make its latents unit-variance per channel for the transformer."""

    shift: Tensor
    scale: Tensor

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.register_buffer("shift", torch.zeros(config.latent_channels))
        self.register_buffer("scale", torch.ones(config.latent_channels))

    def encode(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Video B T 3 Y X in [-1, 1], T = 1 + time*F -> mean and log variance, each B 1+F C H W."""
        frames, sides = video.shape[1], video.shape[-2:]
        assert (frames - 1) % self.config.time == 0, f"{frames} video frames are not 1 + {self.config.time}F"
        assert not any(s % self.config.space for s in sides), f"{sides} is not a multiple of {self.config.space}"
        mean, logvar = self.encoder(video).chunk(2, dim=2)
        return mean, logvar.clamp(-20.0, 4.0)

    def encode_last(self, video: Tensor) -> Tensor:
        """The mean of the last latent alone, B C H W, of video as `encode` takes it."""
        return self.encoder(video, last=True)[:, -1].chunk(2, dim=1)[0]

    def decode(self, latents: Tensor) -> Tensor:
        """Latents B 1+F C H W (as `encode` gives them) -> video B T 3 Y X; a whole clip from its first frame."""
        size = (latents.shape[-2], latents.shape[-1])
        state = self.decoder.init_state(latents.shape[0], size, latents)
        return self.decoder(latents, state, True)[0]

    def normalise(self, latents: Tensor) -> Tensor:
        """B F C H W of the VAE -> unit variance per channel, for the transformer.

        Clipped to WIDEST: what pictures like none that were trained on become would carry a walk away for good.
        """
        return ((latents - self.shift[:, None, None]) * self.scale[:, None, None]).clamp(-WIDEST, WIDEST)

    def denormalise(self, latents: Tensor) -> Tensor:
        """The inverse of `normalise`."""
        return latents / self.scale[:, None, None] + self.shift[:, None, None]
