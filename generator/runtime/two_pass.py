"""What AAPT avoids: a second pass over every latent frame, which writes the keys and values of the clean frame.

Systems trained by diffusion forcing with a KV cache denoise a frame and then run the network once more on the result
at t = 0, because the keys that they keep are a clean frame's. AAPT keeps those written while generating. Here only for
the benchmark's comparison; one denoising call is the fewest that such a system can make. Source: AAPT section 3.2.

Shape key: C channels, H, W latent size. Batch is always one.

Does not know about decoders or other backends.
"""

from __future__ import annotations

import torch
from torch import Tensor

from generator.rollout import with_ahead
from generator.runtime.backend import Float, State
from generator.runtime.eager import EagerTransformer


class TwoPassTransformer:
    """An eager transformer that runs twice per latent frame, behind the backend's interface."""

    def __init__(self, inner: EagerTransformer) -> None:
        self.inner = inner

    def reset(self, first: Tensor, seed: int) -> None:
        """See `backend.Transformer.reset`."""
        self.inner.reset(first, seed)

    @property
    def frame_index(self) -> int:
        """Latent frames generated since reset."""
        return self.inner.frame_index

    @torch.inference_mode()
    def step(self, actions: Float, rays: Float, ahead: Tensor | None = None) -> Tensor:
        """See `backend.Transformer.step`; the cache then holds the clean frame's keys and values."""
        run = self.inner.run
        assert run is not None, "reset comes first"
        recycled, frame_index = with_ahead(run.recycled, ahead), run.frame_index
        made = self.inner.step(actions, rays, ahead)
        clean, dit = run.recycled, self.inner.dit
        given = (torch.from_numpy(actions)[None].to(clean), torch.from_numpy(rays)[None].to(clean))
        at_data = torch.zeros(1, device=clean.device)
        dit.step(clean, recycled, at_data, *given, run.cache, frame_index, run.prefix)
        return made

    def state(self) -> State:
        """See `backend.Transformer.state`."""
        return self.inner.state()

    def load(self, state: State) -> None:
        """See `backend.Transformer.load`."""
        self.inner.load(state)
