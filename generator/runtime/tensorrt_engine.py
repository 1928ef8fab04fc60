"""The streaming decoder as a TensorRT engine (version 11: networks are strongly typed, so the graph's types decide).

Shape key: C channels, H, W latent size, Y, X video size. The graph is exported in bf16, so no builder flag asks for a
precision. Engines are kept in the user's cache by GPU, TensorRT version, weights hash and code; one from another GPU or
version is never read. Never run on hardware yet: see README, Speed.

Does not know about transformers, scenes or other backends.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from controls.errors import UserError
from generator.checkpoint import Weights
from generator.runtime import graph_cache
from generator.runtime.backend import Pixels, State, check_level, level_of, to_array, to_tensor
from generator.runtime.eager import EagerDecoder
from generator.runtime.onnx_export import decoder_part, to_onnx

OLDEST = 11
WORKSPACE = 2**32  # bytes that a kernel may use beside its tensors


def load_tensorrt() -> Any:
    """The tensorrt package; UserError when it is missing, older than 11, or there is no GPU."""
    if importlib.util.find_spec("tensorrt") is None:
        raise UserError("The TensorRT decoder needs the package tensorrt; run: pip install -e '.[tensorrt]'")
    trt = importlib.import_module("tensorrt")
    if int(trt.__version__.split(".")[0]) < OLDEST:
        raise UserError(f"TensorRT {trt.__version__} is older than {OLDEST}; run: pip install -U 'tensorrt>={OLDEST}'")
    if not torch.cuda.is_available():
        raise UserError("The TensorRT decoder needs an NVIDIA GPU, and torch sees none; choose another backend.")
    return trt


def engine_path(gpu: str, version: str, weights_hash: str, size: tuple[int, int]) -> Path:
    """Where the engine of these weights for this GPU and this TensorRT is kept; size is Y, X."""
    return graph_cache.cache_path("tensorrt", ".engine", gpu, version, weights_hash, size)


def build_engine(trt: Any, onnx: bytes) -> bytes:
    """An ONNX graph as a serialized engine; UserError with the parser's words when it cannot be built."""
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network()
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx):
        said = "; ".join(str(parser.get_error(number)) for number in range(parser.num_errors))
        raise UserError(f"TensorRT {trt.__version__} cannot read the decoder's graph ({said}); choose another backend.")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE)
    blob = builder.build_serialized_network(network, config)
    if blob is None:
        raise UserError(f"TensorRT {trt.__version__} built no engine of the decoder; choose another backend.")
    return bytes(blob)


def engine_of(trt: Any, weights: Weights, gpu: str) -> bytes:
    """The engine for these weights on this GPU: the one that is kept, or a new one, which is kept."""
    path = engine_path(gpu, trt.__version__, weights.hash, weights.tokenizer.config.size)
    named = weights.hash != "random"
    if named and (kept := graph_cache.read(path)) is not None:
        return kept
    half = copy.deepcopy(weights.tokenizer).to("cpu", torch.bfloat16)
    blob = build_engine(trt, to_onnx(decoder_part(Weights(weights.config, half, weights.dit, weights.hash))))
    if named:
        graph_cache.keep(path, blob)
    return blob


class TensorRTDecoder:
    """The decoder as an engine on static GPU buffers; the first frame goes through eager torch."""

    def __init__(self, weights: Weights, device: torch.device) -> None:
        trt = load_tensorrt()
        self.eager = EagerDecoder(copy.deepcopy(weights.tokenizer).to(device, torch.bfloat16))
        blob = engine_of(trt, weights, torch.cuda.get_device_name(device))
        self.runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        engine = self.runtime.deserialize_cuda_engine(blob)
        if engine is None:
            raise UserError(
                "The kept TensorRT engine cannot be read; remove it from the cache folder, farstep/tensorrt."
            )
        self.context, config = engine.create_execution_context(), weights.tokenizer.config
        self.memory = [m.contiguous() for m in self.eager.memory]
        self.later = [torch.empty_like(m) for m in self.memory]
        self.latent = self.memory[0].new_zeros(1, config.latent_channels, *config.latent_size)
        self.frames = torch.zeros(config.time, *config.size, 3, dtype=torch.uint8, device=device)
        self.shown = torch.empty(self.frames.shape, dtype=torch.uint8, pin_memory=True)
        named = {"latent": self.latent, "frames": self.frames}
        named |= {f"memory_{n}": m for n, m in enumerate(self.memory)}
        named |= {f"next_memory_{n}": m for n, m in enumerate(self.later)}
        for name, tensor in named.items():
            self.context.set_tensor_address(name, tensor.data_ptr())

    def first(self, latent: Tensor) -> Pixels:
        """See `backend.Decoder.first`."""
        picture = self.eager.first(latent)
        for own, made in zip(self.memory, self.eager.memory, strict=True):
            own.copy_(made)
        return picture

    def launch(self, latent: Tensor) -> None:
        """See `backend.LaunchedDecoder.launch`."""
        self.latent.copy_(latent, non_blocking=True)
        stream = torch.cuda.current_stream()
        if not self.context.execute_async_v3(stream.cuda_stream):
            raise RuntimeError("TensorRT could not run the decoder")
        for own, made in zip(self.memory, self.later, strict=True):
            own.copy_(made)

    def fetch(self) -> Pixels:
        """See `backend.LaunchedDecoder.fetch`."""
        self.shown.copy_(self.frames, non_blocking=True)
        torch.cuda.current_stream().synchronize()
        check_level(float(sum(level_of(m) for m in self.memory)))  # the engine tells nothing of its pictures
        return self.shown.numpy().copy()

    def next(self, latent: Tensor) -> Pixels:
        """See `backend.Decoder.next`."""
        self.launch(latent)
        return self.fetch()

    def state(self) -> State:
        """See `backend.Decoder.state`."""
        return {str(number): to_array(tensor) for number, tensor in enumerate(self.memory)}

    def load(self, state: State) -> None:
        """See `backend.Decoder.load`."""
        for number, own in enumerate(self.memory):
            own.copy_(to_tensor(state[str(number)], own))
