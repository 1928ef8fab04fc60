"""The OpenVINO backend for CPUs: both networks compiled to graphs that compute in bf16 where the processor can.

Shape key: as in explicit.py. Only the first frame's decode stays in torch (once a session).
Gain on two cores against eager torch in bf16: see README, Speed (`run.py benchmark --backend all`).

Does not know about scenes, players or other backends than eager.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import openvino as ov
import torch
from torch import Tensor, nn

from generator.checkpoint import Weights
from generator.model.dit import CausalDiT
from generator.model.kv_cache import slot_of
from generator.rollout import frame_noise
from generator.runtime.backend import Backend, Float, Pixels, State
from generator.runtime.eager import EagerDecoder, EagerTransformer
from generator.runtime.explicit import ExplicitDecode, ExplicitStep, clock_at
from generator.tokenizer.vae import VideoVAE


def compile_graph(module: nn.Module, example: tuple[Tensor, ...], threads: int, precision: str) -> Any:
    """Trace a module and compile it for the CPU; returns an infer request."""
    with torch.no_grad():
        graph = ov.convert_model(module.eval(), example_input=example)
    graph.reshape({port: list(value.shape) for port, value in zip(graph.inputs, example, strict=True)})
    options = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    return ov.Core().compile_model(graph, "CPU", options).create_infer_request()


class OpenVinoTransformer:
    """The explicit step compiled; the ring cache lives here as plain arrays that the graph reads in place."""

    def __init__(self, dit: CausalDiT, threads: int, precision: str) -> None:
        c = self.config = dit.config
        slots, head = c.sink + c.window + 1, c.model_width // c.heads
        self.tokens = c.tokens
        self.keys = np.zeros((c.depth, c.heads, slots * c.tokens, head), np.float32)
        self.values = np.zeros_like(self.keys)
        self.latent = np.zeros((1, c.latent_channels, c.height, c.width), np.float32)
        self.seed, self._index = 0, 0
        self.request = compile_graph(ExplicitStep(dit), self._example(), threads, precision)
        for port, array in ((8, self.keys), (9, self.values)):
            self.request.set_input_tensor(port, ov.Tensor(array, shared_memory=True))

    def _example(self) -> tuple[Tensor, ...]:
        c = self.config
        clock = clock_at(c, 0)
        actions = np.zeros((1, c.ticks, c.action_fields), np.float32)
        rays = np.zeros((1, c.ray_channels, c.height, c.width), np.float32)
        arrays = (self.latent, self.latent, actions, rays, clock.now, clock.store, clock.sinks, clock.mask)
        return tuple(torch.from_numpy(np.array(a)) for a in (*arrays, self.keys, self.values))

    def reset(self, first: Tensor, seed: int) -> None:
        """See `backend.Transformer.reset`."""
        self.latent[:] = first.numpy()
        self.seed, self._index = seed, 0

    @property
    def frame_index(self) -> int:
        """Latent frames generated since reset."""
        return self._index

    def step(self, actions: Float, rays: Float) -> Tensor:
        """See `backend.Transformer.step`."""
        clock = clock_at(self.config, self._index)
        noise = frame_noise(self.seed, self._index, self.latent.shape[1:])[None].numpy()
        inputs = (noise, self.latent, actions[None], rays[None], clock.now, clock.store, clock.sinks, clock.mask)
        for port, array in enumerate(inputs):
            self.request.set_input_tensor(port, ov.Tensor(np.ascontiguousarray(array, np.float32)))
        self.request.infer()
        clean, keys, values = (self.request.get_output_tensor(i).data for i in range(3))
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


class OpenVinoDecoder:
    """The explicit decode compiled; the first frame goes through eager torch."""

    def __init__(self, vae: VideoVAE, threads: int, precision: str) -> None:
        self.eager = EagerDecoder(vae)
        size = vae.config.latent_size
        latent = torch.zeros(1, vae.config.latent_channels, *size)
        self.memory = [m.numpy() for m in self.eager.memory]
        self.request = compile_graph(ExplicitDecode(vae), (latent, *self.eager.memory), threads, precision)

    def first(self, latent: Tensor) -> Pixels:
        """See `backend.Decoder.first`."""
        picture = self.eager.first(latent)
        self.memory = [m.contiguous().numpy() for m in self.eager.memory]
        return picture

    def next(self, latent: Tensor) -> Pixels:
        """See `backend.Decoder.next`."""
        for port, array in enumerate((latent.numpy(), *self.memory)):
            self.request.set_input_tensor(port, ov.Tensor(np.ascontiguousarray(array)))
        self.request.infer()
        self.memory = [np.array(self.request.get_output_tensor(1 + i).data) for i in range(len(self.memory))]
        return np.array(self.request.get_output_tensor(0).data)

    def state(self) -> State:
        """See `backend.Decoder.state`."""
        return {str(number): np.array(array) for number, array in enumerate(self.memory)}

    def load(self, state: State) -> None:
        """See `backend.Decoder.load`."""
        self.memory = [np.array(state[str(number)]) for number in range(len(self.memory))]


def open_openvino(name: str, weights: Weights, threads: int) -> Backend:
    """`openvino` compiles both networks; `mixed` keeps the transformer in torch bf16."""
    decoder = OpenVinoDecoder(weights.tokenizer, threads, "bf16")
    if name == "mixed":
        return Backend(name, EagerTransformer(copy.deepcopy(weights.dit).bfloat16()), decoder)
    return Backend(name, OpenVinoTransformer(weights.dit, threads, "bf16"), decoder)
