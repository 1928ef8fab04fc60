"""Backends made of compiled graphs: everything around the graphs, written once for every compiler.

Shape key: as in explicit.py. A graph is a function from arrays to arrays; what it returns is only read until its next
call. Only the first frame's decode stays in torch (once a session).

Does not know which compiler made a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from generator.checkpoint import Weights
from generator.model.dit import CausalDiT
from generator.model.kv_cache import slot_of
from generator.rollout import frame_noise
from generator.runtime.backend import Backend, Float, Pixels, Reprojection, State, check_level
from generator.runtime.eager import EagerDecoder
from generator.runtime.explicit import (
    ExplicitDecode,
    ExplicitDepth,
    ExplicitEncode,
    ExplicitRefine,
    ExplicitStep,
    clock_at,
)
from generator.tokenizer.parallax import Seen
from generator.tokenizer.reproject import Reprojector
from generator.tokenizer.vae import VideoVAE

Arrays = Sequence[npt.NDArray[Any]]
Graph = Callable[[Arrays], Arrays]
Compiler = Callable[[nn.Module, tuple[Tensor, ...]], Graph]


class GraphTransformer:
    """The explicit step as a graph; the ring cache lives here as plain arrays that the graph reads in place."""

    def __init__(self, model: CausalDiT, compiler: Compiler) -> None:
        c = self.config = model.config
        slots, head = c.sink + c.window + 1, c.model_width // c.heads
        self.tokens = c.tokens
        self.keys = np.zeros((c.depth, c.heads, slots * c.tokens, head), np.float32)
        self.values = np.zeros_like(self.keys)
        self.latent = np.zeros((1, c.latent_channels, c.height, c.width), np.float32)
        self.seed, self._index = 0, 0
        actions = np.zeros((c.ticks, c.action_fields), np.float32)
        rays = np.zeros((c.ray_channels, c.height, c.width), np.float32)
        ahead = np.zeros((1, c.ahead_channels, c.height, c.width), np.float32) if c.reproject else None
        example = tuple(torch.from_numpy(np.array(a)) for a in self._inputs(actions, rays, ahead))
        self.graph = compiler(ExplicitStep(model), example)

    def _inputs(self, actions: Float, rays: Float, ahead: Float | None) -> list[Float]:
        clock = clock_at(self.config, self._index)
        noise = frame_noise(self.seed, self._index, self.latent.shape[1:])[None].numpy()
        recycled = self.latent if ahead is None else np.concatenate([self.latent, ahead], axis=1)
        if not self.config.recycle and self._index:
            recycled = recycled.copy()
            recycled[:, : self.config.carried_channels] = 0
        given = (each.reshape(1, *each.shape) for each in (actions, rays))  # [None] has other strides: compiled again
        channels = (noise, recycled, *given)
        arrays = (*channels, clock.now, clock.store, clock.sinks, clock.mask, self.keys, self.values)
        return [np.ascontiguousarray(array, np.float32) for array in arrays]

    def reset(self, first: Tensor, seed: int) -> None:
        """See `backend.Transformer.reset`."""
        self.latent[:] = first.numpy()
        self.seed, self._index = seed, 0

    @property
    def frame_index(self) -> int:
        """Latent frames generated since reset."""
        return self._index

    def step(self, actions: Float, rays: Float, ahead: Tensor | None = None) -> Tensor:
        """See `backend.Transformer.step`."""
        assert (ahead is not None) == self.config.reproject, "ahead goes with models that recycle a reprojection"
        given = None if ahead is None else ahead.numpy()
        clean, keys, values = self.graph(self._inputs(actions, rays, given))
        slot = slot_of(self._index, self.config.window, self.config.sink)
        place = slice(slot * self.tokens, (slot + 1) * self.tokens)
        self.keys[:, :, place] = keys
        self.values[:, :, place] = values
        self.latent[:] = clean
        self._index += 1
        return torch.from_numpy(self.latent.copy())

    def state(self) -> State:
        """See `backend.Transformer.state`."""
        place = np.array([self.seed, self._index])
        return {"keys": self.keys.copy(), "values": self.values.copy(), "recycled": self.latent.copy(), "place": place}

    def load(self, state: State) -> None:
        """See `backend.Transformer.load`."""
        self.keys[:], self.values[:], self.latent[:] = state["keys"], state["values"], state["recycled"]
        self.seed, self._index = (int(v) for v in state["place"])


class GraphDecoder:
    """The explicit decode as a graph; the first frame goes through eager torch."""

    def __init__(self, model: VideoVAE, compiler: Compiler) -> None:
        self.eager = EagerDecoder(model)
        latent = torch.zeros(1, model.config.latent_channels, *model.config.latent_size)
        self.memory: list[npt.NDArray[Any]] = [m.contiguous().numpy() for m in self.eager.memory]
        self.graph = compiler(ExplicitDecode(model, level=True), (latent, *self.eager.memory))

    def first(self, latent: Tensor) -> Pixels:
        """See `backend.Decoder.first`."""
        picture = self.eager.first(latent)
        self.memory = [m.contiguous().numpy() for m in self.eager.memory]
        return picture

    def next(self, latent: Tensor) -> Pixels:
        """See `backend.Decoder.next`."""
        frames, level, *memory = self.graph((latent.numpy(), *self.memory))
        check_level(float(level[0]))
        self.memory = [np.array(array) for array in memory]
        return np.array(frames)

    def state(self) -> State:
        """See `backend.Decoder.state`."""
        return {str(number): np.array(array) for number, array in enumerate(self.memory)}

    def load(self, state: State) -> None:
        """See `backend.Decoder.load`."""
        self.memory = [np.array(state[str(number)]) for number in range(len(self.memory))]


def graph_reprojection(turn: Reprojector, ticks: int, compiler: Compiler) -> Reprojection:
    """The reprojection with its encoder, what it reads depth with, and its refiner, as graphs."""
    high, wide = turn.vae.config.size
    graph = compiler(ExplicitEncode(turn), (torch.zeros(1, 1 + ticks, 3, high, wide),))

    def encode(views: Tensor) -> Tensor:
        return torch.from_numpy(np.array(graph((np.ascontiguousarray(views.numpy()),))[0]))

    if turn.parallax is None:
        return Reprojection(turn, encode)
    depth = compiler(ExplicitDepth(turn.parallax.depth), (torch.zeros(1, 3, high, wide),))

    def perceive(picture: Tensor) -> Seen:
        nearness, horizon = depth((np.ascontiguousarray(picture.numpy()),))
        return Seen(torch.from_numpy(np.array(nearness)), torch.from_numpy(np.array(horizon)))

    if turn.parallax.refiner is None:
        return Reprojection(turn, encode, perceive)
    channels = (3, 1, 3) if turn.parallax.refiner.knows else (3, 1)
    frames = torch.zeros(ticks, high, wide, 3, dtype=torch.uint8)
    example = (frames, *(torch.zeros(ticks, count, high, wide) for count in channels))
    refiner = compiler(ExplicitRefine(turn.parallax.refiner), example)

    def refine(frames: Pixels, views: Sequence[Tensor]) -> Pixels:
        return np.array(refiner([frames, *(part.numpy() for part in views)])[0])

    return Reprojection(turn, encode, perceive, refine)


def graph_backend(name: str, weights: Weights, compiler: Compiler) -> Backend:
    """Every network of a world as a graph of this compiler."""
    dit, vae = weights.dit, weights.tokenizer
    seen = None
    if turn := weights.reprojector():
        seen = graph_reprojection(turn, dit.config.ticks, compiler)
    return Backend(name, GraphTransformer(dit, compiler), GraphDecoder(vae, compiler), seen)
