"""The OpenVINO backend for CPUs: both networks compiled to graphs that compute in bf16 where the processor can.

Shape key: as in explicit.py. Only the first frame's decode stays in torch (once a session).
Gain on two cores against eager torch in bf16: see README, Speed (`run.py benchmark --backend all`).

Does not know about scenes, players or other backends than eager.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import inspect
import io
import os
import sys
from pathlib import Path
from typing import Any

# OpenVINO's converter reports its use to its maker unless this package is absent; a player's machine reports nothing
sys.modules["openvino_telemetry"] = None  # type: ignore[arg-type]

import numpy as np
import openvino as ov
import torch
from torch import Tensor, nn

from controls.errors import UserError
from controls.files import write_atomic
from generator.checkpoint import Weights
from generator.model import dit
from generator.model.dit import CausalDiT
from generator.model.kv_cache import slot_of
from generator.rollout import frame_noise
from generator.runtime import explicit
from generator.runtime.backend import Backend, Float, Pixels, State
from generator.runtime.eager import EagerDecoder, EagerTransformer
from generator.runtime.explicit import ExplicitDecode, ExplicitStep, clock_at
from generator.tokenizer import blocks, vae
from generator.tokenizer.vae import VideoVAE


def compile_graph(module: nn.Module, example: tuple[Tensor, ...], threads: int, precision: str, key: str = "") -> Any:
    """Trace a module and compile it for the CPU; returns an infer request.

    With a `key` that names the weights, the compiled graph is kept in the user's cache, which saves seconds at the
    next start; a cache that cannot be read or written changes nothing else.
    """
    core = ov.Core()
    options = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    path = cached_graph(module, threads, precision, key) if key else None
    if path is not None and path.is_file():
        with contextlib.suppress(RuntimeError, OSError):
            return core.import_model(path.read_bytes(), "CPU", options).create_infer_request()
    with torch.no_grad():
        graph = ov.convert_model(module.eval(), example_input=example)
    graph.reshape({port: list(value.shape) for port, value in zip(graph.inputs, example, strict=True)})
    compiled = core.compile_model(graph, "CPU", options)
    if path is not None:
        with contextlib.suppress(RuntimeError, UserError):
            blob = compiled.export_model()
            write_atomic(path, blob.getvalue() if isinstance(blob, io.BytesIO) else bytes(blob))
            forget_old(path.parent)
    return compiled.create_infer_request()


def cached_graph(module: nn.Module, threads: int, precision: str, key: str) -> Path:
    """Where the compiled graph of these weights, this code, this OpenVINO and this processor is kept."""
    core = ov.Core()
    source = inspect.getsource(explicit) + inspect.getsource(dit) + inspect.getsource(vae) + inspect.getsource(blocks)
    parts = (
        key,
        type(module).__name__,
        threads,
        precision,
        ov.__version__,
        core.get_property("CPU", "FULL_DEVICE_NAME"),
    )
    name = hashlib.sha256("|".join([*map(str, parts), source]).encode()).hexdigest()[:32]
    root = Path(os.environ.get("FARSTEP_CACHE") or Path.home() / ".cache" / "farstep")
    return root / "openvino" / f"{name}.blob"


def forget_old(folder: Path, keep: int = 6) -> None:
    """Remove all but the newest compiled graphs; each is tens of megabytes."""
    for stale in sorted(folder.glob("*.blob"), key=lambda path: path.stat().st_mtime)[:-keep]:
        stale.unlink(missing_ok=True)


class OpenVinoTransformer:
    """The explicit step compiled; the ring cache lives here as plain arrays that the graph reads in place."""

    def __init__(self, model: CausalDiT, threads: int, precision: str, key: str = "") -> None:
        c = self.config = model.config
        slots, head = c.sink + c.window + 1, c.model_width // c.heads
        self.tokens = c.tokens
        self.keys = np.zeros((c.depth, c.heads, slots * c.tokens, head), np.float32)
        self.values = np.zeros_like(self.keys)
        self.latent = np.zeros((1, c.latent_channels, c.height, c.width), np.float32)
        self.seed, self._index = 0, 0
        self.request = compile_graph(ExplicitStep(model), self._example(), threads, precision, key)
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

    def __init__(self, model: VideoVAE, threads: int, precision: str, key: str = "") -> None:
        self.eager = EagerDecoder(model)
        size = model.config.latent_size
        latent = torch.zeros(1, model.config.latent_channels, *size)
        self.memory = [m.numpy() for m in self.eager.memory]
        self.request = compile_graph(ExplicitDecode(model), (latent, *self.eager.memory), threads, precision, key)

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
    decoder = OpenVinoDecoder(weights.tokenizer, threads, "bf16", weights.hash)
    if name == "mixed":
        return Backend(name, EagerTransformer(copy.deepcopy(weights.dit).bfloat16()), decoder)
    return Backend(name, OpenVinoTransformer(weights.dit, threads, "bf16", weights.hash), decoder)
