"""The eager backend in plain torch: it defines what is correct, and every other backend is held to it.

Shape key: C channels, H, W latent size, Y, X video size. Batch is always one.

Does not know about scenes, players or other backends.
"""

from __future__ import annotations

import torch
from torch import Tensor

from generator import rollout
from generator.model.dit import CausalDiT
from generator.runtime.backend import (
    Encoder,
    Float,
    Pixels,
    State,
    check_level,
    level_of,
    to_array,
    to_pixels,
    to_tensor,
)
from generator.tokenizer.reproject import Reprojector
from generator.tokenizer.streaming import StreamingDecoder
from generator.tokenizer.vae import VideoVAE


class EagerTransformer:
    """`rollout.advance` behind the backend's interface, after a text prefix (1, L, text_width) if one is given."""

    @torch.inference_mode()
    def __init__(self, dit: CausalDiT, text: Tensor | None = None) -> None:
        self.dit = dit
        self.prefix = None if text is None else dit.prefill(text)
        self.run: rollout.RolloutState | None = None

    def reset(self, first: Tensor, seed: int) -> None:
        """See `backend.Transformer.reset`."""
        self.run = rollout.start(self.dit, first, seed)
        self.run.prefix = self.prefix

    @property
    def frame_index(self) -> int:
        """Latent frames generated since reset."""
        return self.run.frame_index if self.run else 0

    @torch.inference_mode()
    def step(self, actions: Float, rays: Float, ahead: Tensor | None = None) -> Tensor:
        """See `backend.Transformer.step`."""
        assert self.run is not None, "reset comes first"
        latent = rollout.advance(
            self.dit,
            self.run,
            torch.from_numpy(actions)[None],
            torch.from_numpy(rays)[None],
            ahead,
        )
        return latent.float()

    def state(self) -> State:
        """See `backend.Transformer.state`."""
        assert self.run is not None, "reset comes first"
        scalars = torch.tensor([self.run.seed, self.run.frame_index])
        tensors = (
            self.run.recycled,
            self.run.cache.keys,
            self.run.cache.values,
            scalars,
        )
        return dict(
            zip(
                ("recycled", "keys", "values", "place"),
                map(to_array, tensors),
                strict=True,
            )
        )

    @torch.inference_mode()
    def load(self, state: State) -> None:
        """See `backend.Transformer.load`."""
        weight = self.dit.embed.weight
        recycled = to_tensor(state["recycled"], weight)
        self.run = rollout.start(self.dit, recycled, int(state["place"][0]))
        self.run.prefix = self.prefix
        self.run.cache.keys.copy_(to_tensor(state["keys"], weight))
        self.run.cache.values.copy_(to_tensor(state["values"], weight))
        self.run.frame_index = int(state["place"][1])


class EagerDecoder:
    """The streaming decoder behind the backend's interface."""

    def __init__(self, vae: VideoVAE) -> None:
        self.vae = vae
        self.streaming = StreamingDecoder(vae)
        self.memory = self.streaming.init_state()

    @torch.inference_mode()
    def first(self, latent: Tensor) -> Pixels:
        """See `backend.Decoder.first`."""
        return self._keep(*self.streaming.decode_first(self._input(latent), self.streaming.init_state()))

    @torch.inference_mode()
    def next(self, latent: Tensor) -> Pixels:
        """See `backend.Decoder.next`."""
        return self._keep(*self.streaming.decode_next(self._input(latent), self.memory))

    def _keep(self, video: Tensor, memory: tuple[Tensor, ...]) -> Pixels:
        """Hold the memory in one layout, as `load` does: other strides may round differently."""
        self.memory = tuple(m.contiguous(memory_format=torch.channels_last) for m in memory)
        check_level(float(level_of(video)))
        return to_pixels(video)

    def _input(self, latent: Tensor) -> Tensor:
        weight = next(self.vae.decoder.parameters())
        return self.vae.denormalise(latent.to(weight))

    def state(self) -> State:
        """See `backend.Decoder.state`."""
        return {str(number): to_array(tensor) for number, tensor in enumerate(self.memory)}

    @torch.inference_mode()
    def load(self, state: State) -> None:
        """See `backend.Decoder.load`."""
        like = self.streaming.init_state()
        self.memory = tuple(
            torch.empty_like(empty).copy_(to_tensor(state[str(n)], empty)) for n, empty in enumerate(like)
        )


def eager_encoder(turn: Reprojector) -> Encoder:
    """`Reprojector.forward` in the type of its own weights."""
    weight = next(turn.vae.parameters())

    @torch.inference_mode()
    def encode(views: Tensor) -> Tensor:
        return turn(views.to(weight))

    return encode
