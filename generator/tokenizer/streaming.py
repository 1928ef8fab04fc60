"""The VAE's decoder one latent frame at a time, its memory in the caller's hands.

Shape key: B batch, C latent channels, H, W latent size, T video frames, Y, X video size. The state is a tuple of
tensors whose shapes never change, so `decode_next` can be traced, captured or exported; the same numbers come out as
from `VideoVAE.decode` on the whole clip.

Does not know where latents come from, or when a frame is due.
"""

from __future__ import annotations

import torch
from torch import Tensor

from generator.tokenizer.blocks import State
from generator.tokenizer.vae import VideoVAE


class StreamingDecoder:
    """Decode latents as they appear. Latents are as `VideoVAE.encode` gives them (not normalised)."""

    def __init__(self, vae: VideoVAE, latent_size: tuple[int, int] | None = None) -> None:
        self.vae = vae
        self.latent_size = latent_size or vae.config.latent_size

    def init_state(self, batch: int = 1) -> State:
        """The memory before the first latent frame, in the weights' own type and place."""
        return self.vae.decoder.init_state(batch, self.latent_size, next(self.vae.decoder.parameters()))

    @torch.no_grad()
    def decode_first(self, z: Tensor, state: State) -> tuple[Tensor, State]:
        """Latent 0, B C H W -> its one frame B 1 3 Y X, and the next state."""
        return self.vae.decoder(z.unsqueeze(1), state, True)

    @torch.no_grad()
    def decode_next(self, z: Tensor, state: State) -> tuple[Tensor, State]:
        """A later latent, B C H W -> its frames B 4 3 Y X, and the next state."""
        return self.vae.decoder(z.unsqueeze(1), state, False)
