"""Presets with random numbers in them, at any resolution and window: as fast as trained ones, and as large.

A large transformer is laid out on the meta device, where tensors have shapes and no memory, and then filled shard by
shard (the parts around the blocks, then one block after another), each made where it stays and in the type that it
keeps: at no time does more than one shard exist in float32.

Shape key: C channels, H, W latent size, N tokens per latent frame.

Does not know about backends, benchmarks or trained weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from controls.action import ActionSpec
from controls.errors import UserError
from generator.checkpoint import Weights, WorldConfig
from generator.config import build, parallax_sizes, preset
from generator.model.dit import CausalDiT, DiTConfig, new_block
from generator.samplers.schedule import token_shift
from generator.tokenizer.parallax import Parallax, ParallaxConfig
from generator.tokenizer.vae import PRESETS as TOKENIZERS
from generator.tokenizer.vae import VideoVAE

HOST_COPIES = 3  # float32 weights on the host: as made, as a backend holds them, and as its compiler does meanwhile
GPU_COPIES = 1.1  # on the GPU there is one, and a shard of it in float32 while it is filled


@dataclasses.dataclass(frozen=True)
class Size:
    """How a preset is to be built: 0 keeps the preset's own resolution (pixels) or window (latent frames)."""

    width: int = 0
    height: int = 0
    window: int = 0


OWN = Size()


def parse_size(resolution: str, window: int = 0) -> Size:
    """`1280x720` (or nothing, for the preset's own) as a Size; UserError on any other text and on a window below 0."""
    if window < 0:
        raise UserError(f"--window {window} is below 0; give how many past latent frames are kept, 1 or more.")
    if not resolution:
        return Size(window=window)
    width, _, height = resolution.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise UserError(f"--resolution {resolution!r} is not of the form WIDTHxHEIGHT; give 736x416, for instance.")
    return Size(int(width), int(height), window)


def world_config(name: str, size: Size = OWN) -> WorldConfig:
    """The config of a preset at this size; UserError on an unknown preset or a side that does not divide.

    Spatial positions stretch with the resolution (AAPT section 3.1); the window of a resolution that the preset
    knows is its own.
    """
    table = preset(name)
    own = (table["picture"]["width"], table["picture"]["height"])
    plain = build(DiTConfig, table["dit"], "dit")
    picture = (size.width, size.height) if size.width else own
    pixels = own[0] // plain.columns
    if picture[0] % pixels or picture[1] % pixels:
        near = "x".join(str(max(round(side / pixels), 1) * pixels) for side in picture)
        raise UserError(
            f"--resolution {picture[0]}x{picture[1]} does not divide: the sides of {name} are multiples of {pixels}; "
            f"choose {near}."
        )
    dit = dataclasses.replace(
        plain,
        height=picture[1] // pixels * plain.patch,
        width=picture[0] // pixels * plain.patch,
        window=size.window or table.get("windows", {}).get(picture, plain.window),
        reference_rows=plain.reference[0],
        reference_columns=plain.reference[1],
    )
    parallax = build(ParallaxConfig, {**parallax_sizes(name), "size": picture}, "parallax") if dit.reproject else None
    return WorldConfig(
        preset=name,
        picture=picture,
        hfov=90.0,
        fps=24,
        shift=token_shift(dit.tokens),
        stage="random",
        world="none",
        tokenizer=dataclasses.replace(TOKENIZERS[table["tokenizer"]], size=picture[::-1]),
        dit=dit,
        action_spec=ActionSpec(),
        parallax=parallax,
    )


def on_meta(make: Callable[[], nn.Module]) -> nn.Module:
    """What `make` builds, with shapes and no memory."""
    with torch.device("meta"):
        return make()


def count_parameters(config: WorldConfig) -> int:
    """Numbers in the tokenizer and the transformer together."""
    parts = on_meta(lambda: nn.ModuleList([VideoVAE(config.tokenizer), CausalDiT(config.dit)]))
    return sum(p.numel() for p in parts.parameters())


def cache_numbers(dit: DiTConfig) -> int:
    """Numbers in the KV cache of one rollout: keys and values of every layer, slot and token."""
    return 2 * dit.depth * (dit.sink + dit.window + 1) * dit.tokens * dit.model_width


def needed_memory(config: WorldConfig, width: int, copies: float) -> float:
    """Bytes of `copies` of the weights and one KV cache, in numbers of `width` bytes."""
    return width * (copies * count_parameters(config) + cache_numbers(config.dit))


def available_memory(device: torch.device) -> float:
    """Bytes that a new program could use there, or infinity where the system does not say."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * float(next(line.split()[1] for line in lines if line.startswith("MemAvailable:")))
    except (OSError, StopIteration, ValueError, IndexError):
        return float("inf")


def check_memory(config: WorldConfig, device: torch.device, dtype: torch.dtype) -> None:
    """UserError, before anything is made, when this device cannot hold the preset in this type."""
    copies = GPU_COPIES if device.type == "cuda" else HOST_COPIES
    needed, free = needed_memory(config, dtype.itemsize, copies), available_memory(device)
    if needed > free:
        size = f"{config.picture[0]}x{config.picture[1]}, window {config.dit.window}"
        raise UserError(
            f"The preset {config.preset!r} ({size}) needs {needed / 1e9:.1f} GB here, but {free / 1e9:.1f} GB are free "
            f"on {device.type}; choose a smaller preset, resolution or window."
        )


def random_weights(
    name: str,
    seed: int = 0,
    size: Size = OWN,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Weights:
    """A preset with random numbers in it, on a device; UserError when its memory cannot hold it."""
    config, place = world_config(name, size), torch.device(device)
    check_memory(config, place, dtype)
    dit = materialise(config.dit, place, dtype, seed)
    torch.manual_seed(seed - 1)
    with place:
        tokenizer = VideoVAE(config.tokenizer).to(dtype).eval()
        parallax = Parallax(config.parallax).to(dtype).eval() if config.parallax else None
    return Weights(config, tokenizer, dit, "random", parallax)


def materialise(
    config: DiTConfig,
    device: torch.device,
    dtype: torch.dtype,
    seed: int = 0,
    on_shard: Callable[[str], Any] = lambda name: None,
) -> CausalDiT:
    """A transformer built on the meta device and filled shard by shard; `on_shard` hears of each that stands."""
    dit = on_meta(lambda: CausalDiT(config))
    assert isinstance(dit, CausalDiT)
    torch.manual_seed(seed)
    with device:
        around = in_type(CausalDiT(dataclasses.replace(config, depth=1)), dtype)
    for name, part in around.named_children():
        if name != "blocks":
            setattr(dit, name, part)
    for name, buffer in around.named_buffers(recurse=False):
        setattr(dit, name, buffer)
    on_shard("around")
    for number in range(config.depth):
        torch.manual_seed(seed + 1 + number)
        with device:
            dit.blocks[number] = in_type(new_block(config), dtype)
        on_shard(f"block {number}")
    torch.manual_seed(seed + 1 + config.depth)
    dit.initialise()
    return dit.eval()


def in_type(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The module with its parameters in this type; its buffers (the angles of positions) keep theirs."""
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype)
    return module
