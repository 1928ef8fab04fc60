"""What several processes are to share: whether it can be shared, and its networks, from a folder or random.

Random numbers are those that `build.random_weights` makes; each process makes all of them by itself, where they run.
What a process needs is said before anything is made: its weights, and its heads' part of the KV cache.

Does not know how networks are shared, or what the processes do.
"""

from __future__ import annotations

import dataclasses
import os

import torch

from controls.errors import UserError
from generator.checkpoint import Weights, WorldConfig, config_from_dict, load_weights, read_manifest
from generator.model.share import share_fault
from generator.runtime.build import (
    GPU_COPIES,
    available_memory,
    cache_numbers,
    count_parameters,
    materialise,
    world_config,
)
from generator.runtime.parallel_decoder import rows_fault
from generator.runtime.parallel_start import Request
from generator.tokenizer.parallax import Parallax
from generator.tokenizer.vae import VideoVAE

DTYPES = {"torch-fp32": torch.float32, "torch-bf16": torch.bfloat16}
RANDOM = "random"  # the hash of weights that nobody has trained


def config_of(request: Request) -> tuple[WorldConfig, str]:
    """The config of what is asked for, and the hash of its weights; UserError when there is none that can be read."""
    if request.weights is None:
        return world_config(request.preset, request.size), RANDOM
    manifest = read_manifest(request.weights)
    return config_from_dict(manifest["config"]), str(manifest["hash"])


def request_fault(request: Request, size: int) -> tuple[str, dict[str, str]]:
    """What cannot be done by so many processes, as a sentence or nothing, and what they have to agree on.

    UserError when the weights have no readable config, or there is no such preset or size of it.
    """
    config, digest = config_of(request)
    about = {
        "preset": config.preset,
        "weights": digest[:16],
        "resolution": "x".join(map(str, config.picture)),
        "window": str(config.dit.window),
        "text prefix": str(0 if request.text is None else request.text.shape[1]),
        "backend": request.backend,
        "network calls per latent frame": str(request.nfe),
    }
    fault = request.fault(size)
    fault = fault or share_fault(config.dit.heads, config.dit.tokens, size)
    fault = fault or rows_fault(config.tokenizer.latent_size[0], size)
    return fault or (memory_fault(config, request, size) if request.weights is None else ""), about


def memory_fault(config: WorldConfig, request: Request, size: int) -> str:
    """Why this machine's memory cannot hold a preset on so many processes, or nothing."""
    host = request.device.type == "cpu"
    # those that share one memory
    together = int(os.environ.get("LOCAL_WORLD_SIZE", str(size))) if host and size > 1 else 1
    numbers = GPU_COPIES * count_parameters(config) + cache_numbers(config.dit) / size  # one copy, on a host too
    each = DTYPES[request.dtype_name].itemsize * numbers
    free = available_memory(request.device)
    if together * each <= free:
        return ""
    what = f"{config.preset!r} ({'x'.join(map(str, config.picture))}, window {config.dit.window})"
    holders = f"each of {size} processes" if size > 1 else "one process"
    held = f"on {request.device.type}" + (f" for {together} of them" if together > 1 else "")
    return (
        f"The preset {what} needs {each / 1e9:.3g} GB in {holders}, but {free / 1e9:.3g} GB are free {held}; choose a "
        "smaller preset, resolution or window."
    )


def load(request: Request) -> Weights:
    """The transformer where it runs and in its type; the rest in float32 on the host, as first pictures need it.

    UserError when the weights are missing or damaged.
    """
    dtype = DTYPES[request.dtype_name]
    if request.weights is not None:
        loaded = load_weights(request.weights)
        return dataclasses.replace(loaded, dit=loaded.dit.to(request.device, dtype))
    config = world_config(request.preset, request.size)
    dit = materialise(config.dit, request.device, dtype)
    torch.manual_seed(-1)  # as `random_weights` does
    tokenizer = VideoVAE(config.tokenizer).eval()
    return Weights(config, tokenizer, dit, RANDOM, Parallax(config.parallax).eval() if config.parallax else None)


def check(request: Request, size: int) -> None:
    """UserError, before any process is started, on what so many cannot share."""
    fault, _ = request_fault(request, size)
    if fault:
        raise UserError(fault)
