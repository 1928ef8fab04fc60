"""Networks as ONNX graphs, with all state as named inputs and outputs.

Shape key: as in explicit.py. Parts: `decoder` (latent and memory to four pictures and the next memory), `decoder-first`
(the clip's first latent to its one picture and the first memory) and `transformer` (one latent step; the caller writes
the ring). The graph says which weights it holds: metadata `weights`, `part`, `preset`.
The memory lies in rows and columns as PyTorch's contiguous tensors do.

Does not know what runs a graph.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from controls.errors import UserError
from controls.files import write_atomic
from generator.checkpoint import Weights
from generator.runtime.explicit import ExplicitDecode, ExplicitStep, clock_at
from generator.tokenizer.streaming import StreamingDecoder
from generator.tokenizer.vae import VideoVAE

PACKAGES = ("onnx", "onnxscript")
OPSET = 20
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
LARGEST = 2**31 - 2**20  # bytes of one protobuf file
STEP_INPUTS = ("noise", "recycled", "actions", "rays", "now", "store", "sinks", "mask", "keys", "values")


@dataclass(frozen=True)
class Exported:
    """A module, an example of its inputs, and the names of what goes in and out."""

    module: nn.Module
    example: tuple[Tensor, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class DecodeFirst(nn.Module):
    """The decode of a clip's first latent: one picture, and the memory that later ones continue from."""

    def __init__(self, vae: VideoVAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latent: Tensor) -> tuple[Tensor, ...]:
        """latent (1, C, H, W) -> uint8 (1, Y, X, 3), then the memory."""
        latents = self.vae.denormalise(latent)
        empty = self.vae.decoder.init_state(1, (latent.shape[-2], latent.shape[-1]), latents)
        video, kept = self.vae.decoder(latents[:, None], empty, True)
        scaled = ((video[0].clamp(-1, 1) + 1) * 127.5).round()
        return (scaled.permute(0, 2, 3, 1).to(torch.uint8), *kept)


def memory_of(vae: VideoVAE) -> tuple[Tensor, ...]:
    """The decoder's memory before the first latent, contiguous."""
    return tuple(m.contiguous() for m in StreamingDecoder(vae).init_state())


def decoder_part(weights: Weights) -> Exported:
    """The streaming decode of a later latent."""
    vae, memory = weights.tokenizer, memory_of(weights.tokenizer)
    names = tuple(f"memory_{number}" for number in range(len(memory)))
    example = (latent_of(vae), *memory)
    return Exported(ExplicitDecode(vae), example, ("latent", *names), ("frames", *(f"next_{n}" for n in names)))


def first_part(weights: Weights) -> Exported:
    """The decode of the first latent."""
    vae = weights.tokenizer
    names = tuple(f"next_memory_{number}" for number in range(len(memory_of(vae))))
    return Exported(DecodeFirst(vae), (latent_of(vae),), ("latent",), ("frames", *names))


def latent_of(vae: VideoVAE) -> Tensor:
    """A latent of zeros (1, C, H, W) in the decoder's type."""
    like = next(vae.decoder.parameters())
    return like.new_zeros(1, vae.config.latent_channels, *vae.config.latent_size)


def transformer_part(weights: Weights) -> Exported:
    """One latent step at t = 1."""
    c, like = weights.dit.config, weights.dit.embed.weight
    clock = clock_at(c, 0)
    slots, head = c.sink + c.window + 1, c.model_width // c.heads
    sizes = ((c.latent_channels,), (c.recycled_channels,))
    channels = [like.new_zeros(1, *size, c.height, c.width) for size in sizes]
    given = [like.new_zeros(1, c.ticks, c.action_fields), like.new_zeros(1, c.ray_channels, c.height, c.width)]
    times = [torch.from_numpy(array.copy()).to(like) for array in (clock.now, clock.store, clock.sinks, clock.mask)]
    kept = [like.new_zeros(c.depth, c.heads, slots * c.tokens, head) for _ in range(2)]
    example = tuple(part.detach() for part in (*channels, *given, *times, *kept))
    return Exported(ExplicitStep(weights.dit), example, STEP_INPUTS, ("clean", "new_keys", "new_values"))


PARTS = {"decoder": decoder_part, "decoder-first": first_part, "transformer": transformer_part}


def numbered(count: int) -> tuple[str, ...]:
    """Names of a graph's inputs that say where each stands."""
    return tuple(f"in_{n}" for n in range(count))


def places(names: Iterable[str]) -> list[int]:
    """Where each of these inputs of `numbered` stands; a compiler drops those that nothing reads."""
    return [int(name.removeprefix("in_")) for name in names]


def require_onnx() -> None:
    """UserError, naming the command that installs it, when a package of the exporter is missing."""
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise UserError(f"Exporting to ONNX needs the package {package}; run: pip install -e '.[onnx]'")


def to_onnx(exported: Exported, notes: dict[str, str] | None = None) -> bytes:
    """The graph as bytes; UserError when the package is missing or the graph is too large for one file."""
    require_onnx()
    size = sum(t.numel() * t.element_size() for t in exported.module.state_dict().values())
    if size > LARGEST:
        raise UserError(f"This part holds {size / 1e9:.1f} GB, but an ONNX file takes 2 GB; export a smaller preset.")
    with torch.no_grad(), quiet():
        program = torch.onnx.export(
            exported.module.eval(),
            exported.example,
            input_names=list(exported.inputs),
            output_names=list(exported.outputs),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for key, value in (notes or {}).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    return bytes(model.SerializeToString())


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The exporter's own remarks kept from a player's terminal; its errors still come as exceptions."""
    logger, before = logging.getLogger("torch.onnx"), logging.getLogger("torch.onnx").level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def export(weights: Weights, part: str, path: Path, dtype: str = "fp32") -> dict[str, object]:
    """Write one part of a world as an ONNX file; what was written. UserError on an unknown part or type."""
    if part not in PARTS:
        raise UserError(f"There is no part {part!r} to export; choose {', '.join(PARTS)}.")
    if dtype not in DTYPES:
        raise UserError(f"--dtype {dtype} is not exported; choose {', '.join(DTYPES)}.")
    weights.tokenizer.to(DTYPES[dtype])
    weights.dit.to(DTYPES[dtype])
    exported = PARTS[part](weights)
    notes = {"weights": weights.hash, "part": part, "preset": weights.config.preset}
    blob = to_onnx(exported, notes)
    write_atomic(path, blob)
    shapes = {name: list(value.shape) for name, value in zip(exported.inputs, exported.example, strict=True)}
    return {**notes, "file": os.fspath(path), "bytes": len(blob), "dtype": dtype, "opset": OPSET, "inputs": shapes}
