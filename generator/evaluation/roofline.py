"""`run.py benchmark --roofline`: the least time each part can take on this very machine, and how far it is from it.

Shape key: C channels, H, W latent size, N tokens, D width, K keys met, P text tokens, R ray channels. Times in ms.
The floor of a part is the larger of its operations over the measured rate of a large matrix product and its bytes over
the measured bandwidth of a large copy, both in the type and on the device that the parts run in (counts.py counts
them). The parts are timed as plain torch runs them, at the full window. Weights that fit a processor's cache move
faster than the copy says, so tiny parts may beat their floor.

Does not know about backends, sessions or pictures.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as nnf
from torch import Tensor

from controls.errors import UserError
from generator.checkpoint import Weights
from generator.evaluation import counts
from generator.evaluation.timing import synchronise
from generator.tokenizer.streaming import StreamingDecoder

COPY_BYTES = {"cuda": 2**30, "cpu": 2**27}  # far beyond any cache
MATRIX_SIDE = {"cuda": 8192, "cpu": 1024}
REPEATS = 5
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def roofline(weights: Weights, text_tokens: int, repeats: int = REPEATS) -> dict[str, Any]:
    """Floors and measured times of every part of these weights, in their own type and on their own device."""
    like = weights.dit.embed.weight
    machine = measure_machine(like.device, like.dtype, repeats)
    report = counts.table(weights.config, text_tokens, like.dtype.itemsize)
    took = {name: timed(run, like.device, repeats) for name, run in runners(weights, text_tokens).items()}
    report["parts"] = [row | floors(row, machine) | reached(row, machine, took) for row in report["parts"]]
    each = [row for row in report["parts"] if not row["once_a_session"]]
    step = timed(full_step(weights, text_tokens), like.device, repeats)
    return {
        "machine": machine,
        **report,
        "floor_ms": sum(row["floor_ms"] for row in each),
        "measured_ms": sum(row["measured_ms"] for row in each),
        "step_ms": step,
        "decode_ms": took["decoder"],
    }


def measure_machine(device: torch.device, dtype: torch.dtype, repeats: int = REPEATS) -> dict[str, Any]:
    """Bytes per second of a copy (read and written) and operations per second of a matrix product; the best of some."""
    size, side = COPY_BYTES[device.type], MATRIX_SIDE[device.type]
    copied = timed(copy_of(size, device), device, repeats, np.min)
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    multiplied = timed(lambda: left @ right, device, repeats, np.min)
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "dtype": str(dtype).removeprefix("torch."),
        "copy_bytes_per_s": 2 * size / copied * 1e3,
        "flops_per_s": 2 * side**3 / multiplied * 1e3,
    }


def copy_of(size: int, device: torch.device) -> Callable[[], Any]:
    """A copy of so many bytes."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


@torch.inference_mode()
def timed(run: Callable[[], Any], device: torch.device, repeats: int, choose: Callable[..., Any] = np.median) -> float:
    """ms of one call, the median (or another choice) of `repeats` after one that does not count."""
    spent = []
    for number in range(repeats + 1):
        synchronise(device)
        began = time.perf_counter()
        run()
        synchronise(device)
        if number:
            spent.append(1e3 * (time.perf_counter() - began))
    return float(choose(spent))


def floors(row: dict[str, Any], machine: dict[str, Any]) -> dict[str, float]:
    """The least ms that this machine needs for a part's operations, for its bytes, and for both."""
    compute = 1e3 * row["flops"] / machine["flops_per_s"]
    memory = 1e3 * row["bytes"] / machine["copy_bytes_per_s"]
    return {"compute_floor_ms": compute, "memory_floor_ms": memory, "floor_ms": max(compute, memory)}


def reached(row: dict[str, Any], machine: dict[str, Any], took: dict[str, float]) -> dict[str, float | None]:
    """What a part took, and how many times its floor that is; null where this model lacks the part."""
    measured, floor = took.get(row["part"]), floors(row, machine)["floor_ms"]
    return {"measured_ms": measured, "times_floor": measured / floor if measured and floor else None}


def runners(weights: Weights, text_tokens: int) -> dict[str, Callable[[], Any]]:
    """Each part as a call without arguments, on random inputs at the full window."""
    dit, c, like = weights.dit, weights.config.dit, weights.dit.embed.weight

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, device=like.device).to(like.dtype)

    x, wide = random(1, c.tokens, c.model_width), random(1, c.tokens, dit.embed.in_features)
    time_in, actions = torch.ones(1, device=like.device), random(1, 1, c.ticks, c.action_fields)
    cache, head = dit.new_cache(1), c.model_width // c.heads
    keys = counts.keys_met(c, text_tokens)
    query = random(1, c.heads, c.tokens, head)
    kept = random(2, 1, c.heads, keys, head) if keys != cache.keys.shape[3] * c.tokens else None

    def embedding() -> None:
        dit.embed(wide)
        dit.out(x)
        if dit.carry is not None:
            dit.carry(x)

    def linear() -> None:
        for block in dit.blocks:
            block.attention.video.qkv(x)
            block.attention.video.out(x)

    def scores() -> None:
        for layer in range(c.depth):
            pair = (cache.keys[layer].flatten(2, 3), cache.values[layer].flatten(2, 3)) if kept is None else kept
            nnf.scaled_dot_product_attention(query, pair[0], pair[1])

    def mlp() -> None:
        for block in dit.blocks:
            block.mlp(x)

    def modulation() -> None:
        shared = dit.conditioner(time_in, actions)[0]
        for block in dit.blocks:
            block.modulation(shared)

    made: dict[str, Callable[[], Any]] = {
        "embedding": embedding,
        "attention linear": linear,
        "attention scores": scores,
        "mlp": mlp,
        "modulation": modulation,
        "decoder": decode(weights),
    }
    if c.text_width:
        prompt = random(1, text_tokens, c.text_width)
        made["text"] = lambda: dit.prefill(prompt)
    return made


def decode(weights: Weights) -> Callable[[], Any]:
    """The streaming decoder on one random latent frame."""
    streaming, like = StreamingDecoder(weights.tokenizer), next(weights.tokenizer.decoder.parameters())
    config = weights.tokenizer.config
    latent = torch.randn(1, config.latent_channels, *config.latent_size, device=like.device).to(like.dtype)
    state = streaming.init_state()
    return lambda: streaming.decode_next(latent, state)


def full_step(weights: Weights, text_tokens: int) -> Callable[[], Any]:
    """One whole latent step of the transformer at the full window, text prefix included."""
    dit, c, like = weights.dit, weights.config.dit, weights.dit.embed.weight
    shapes = ((c.latent_channels,), (c.recycled_channels,), (c.ray_channels,))
    given = [torch.randn(1, *shape, c.height, c.width, device=like.device).to(like.dtype) for shape in shapes]
    actions = torch.randn(1, c.ticks, c.action_fields, device=like.device).to(like.dtype)
    prompt = torch.randn(1, text_tokens, c.text_width, device=like.device) if c.text_width else None
    with torch.inference_mode():
        prefix = None if prompt is None else dit.prefill(prompt)
    cache, late = dit.new_cache(1), 2 * (c.sink + c.window + 1)
    at_noise = torch.ones(1, device=like.device)
    return lambda: dit.step(given[0], given[1], at_noise, actions, given[2], cache, late, prefix)


def dtype_of(name: str) -> torch.dtype:
    """fp32 or bf16; UserError for what plain torch does not multiply."""
    if name not in DTYPES:
        raise UserError(f"--dtype {name} has no plain matrix product; choose {' or '.join(DTYPES)} for the roofline.")
    return DTYPES[name]


def to_markdown(report: dict[str, Any]) -> str:
    """The roofline, or bare counts, as a table."""
    about = (
        f"{report['preset']} at {'x'.join(map(str, report['resolution']))}, window {report['window']}: "
        f"{report['parameters'] / 1e6:,.1f} million parameters, {report['flops'] / 1e12:.3g} TFLOP and "
        f"{report['bytes'] / 1e9:.3g} GB per latent frame."
    )
    head = "| part | parameters, million | GFLOP | MB |"
    if machine := report.get("machine"):
        about += (
            f" {machine['device']}, {machine['dtype']}: {machine['flops_per_s'] / 1e12:.3g} TFLOP/s, "
            f"{machine['copy_bytes_per_s'] / 1e9:.3g} GB/s."
        )
        head += " floor ms | measured ms | times the floor |"
    lines = [about, "", head, "|" + "---|" * (head.count("|") - 1)]
    for row in report["parts"]:
        name = row["part"] + (" (once a session)" if row["once_a_session"] else "")
        cells = [name, f"{row['parameters'] / 1e6:,.2f}", f"{row['flops'] / 1e9:,.3g}", f"{row['bytes'] / 1e6:,.3g}"]
        if machine:
            took, times = row["measured_ms"], row["times_floor"]
            cells += [f"{row['floor_ms']:.3g}", f"{took:.3g}" if took else "", f"{times:.2f}" if times else ""]
        lines.append(f"| {' | '.join(cells)} |")
    if machine:
        lines.append(f"| all, per latent frame | | | | {report['floor_ms']:.3g} | {report['measured_ms']:.3g} | |")
    return "\n".join(lines) + "\n"
