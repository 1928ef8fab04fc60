"""`run.py benchmark --tricks`: the GPU runtime with each switch turned in turn: what it gains and what it loses.

Every variant starts from the runtime's own choices. `gain_ms` is how much longer a latent frame takes with the switch
turned; errors are relative, of the latent after 1 and after 60 frames, against eager in bf16 and in fp32 on the same
walk (null where the weights do not fit a second time in fp32).

Does not know how any trick works.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import torch

from controls.errors import UserError
from generator.checkpoint import Weights
from generator.evaluation.latency import Trace, pipelined, relative_error, time_frames, trace
from generator.runtime.backend import Backend, LaunchedDecoder
from generator.runtime.build import available_memory, needed_memory
from generator.runtime.select import open_backend

JUDGED = (1, 60)
REFERENCES = ("torch-bf16", "torch-fp32")
VARIANTS: dict[str, tuple[str, ...]] = {
    "own choices": (),
    "no graphs": ("graph=off",),
    "reprojection kernel by kernel": ("reproject=off",),
    "step and decoder in one graph": ("whole=on", "overlap=off"),
    "decoder on the step's stream": ("overlap=off",),
    "memory of the host not pinned": ("pinned=off",),
    "offsets added block by block": ("fuse=off",),
    "torch.compile": ("compiled=on",),
    "attention: sdpa-cudnn": ("attention=sdpa-cudnn",),
    "attention: sdpa-flash": ("attention=sdpa-flash",),
    "attention: flash-attn-4": ("attention=flash-attn-4",),
    "cache in fp8": ("cache=fp8",),
    "linear layers in fp8": ("linear=fp8",),
    "both in fp8": ("cache=fp8", "linear=fp8"),
}
Opener = Callable[[tuple[str, ...]], Backend]


def tricks(
    weights: Weights,
    frames: int,
    open_with: Opener,
    text: torch.Tensor | None = None,
    judged: tuple[int, ...] = JUDGED,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """One row a variant; `open_with` opens the GPU runtime with switches."""
    references = {name: reference(name, weights, text, max(judged)) for name in REFERENCES}
    rows: list[dict[str, Any]] = []
    for name, switches in VARIANTS.items():
        say(name)
        try:
            rows.append({"variant": name, **variant(open_with(switches), weights, frames, judged, references)})
        except (UserError, RuntimeError) as error:  # a pinned kernel that this GPU lacks says so as a RuntimeError
            rows.append({"variant": name, "switches": list(switches), "missing": str(error).splitlines()[0]})
        gc.collect()
    own = rows[0].get("total_ms", {}).get("p50")
    for row in rows[1:]:
        row["gain_ms"] = row["total_ms"]["p50"] - own if own and "total_ms" in row else None
    return {"preset": weights.config.preset, "frames": frames, "judged": list(judged), "tricks": rows}


def reference(name: str, weights: Weights, text: torch.Tensor | None, frames: int) -> Trace | None:
    """Eager's walk; None where this type does not fit beside the weights."""
    device = weights.dit.embed.weight.device
    if name == "torch-fp32" and needed_memory(weights.config, 4, 1) > available_memory(device):
        return None
    return trace(open_backend(name, weights, torch.get_num_threads(), text), weights, frames)


def variant(
    backend: Backend, weights: Weights, frames: int, judged: tuple[int, ...], references: dict[str, Trace | None]
) -> dict[str, Any]:
    """Times and errors of one choice of switches."""
    timed = time_frames(backend, weights, frames)
    overlaps = isinstance(backend.decoder, LaunchedDecoder) and backend.reprojection is None
    keys = ("transformer_ms", "decode_ms", "copy_out_ms", "total_ms", "fps")
    found: dict[str, Any] = {"switches": backend.switches, **{key: timed[key] for key in keys}}
    found["pipelined_ms"] = pipelined(backend, weights, frames) if overlaps else None
    made = trace(backend, weights, max(judged))
    for name, right in references.items():
        errors = {str(n): right and relative_error(made[n - 1][0], right[n - 1][0]) for n in judged}
        found[f"latent_error_{name.removeprefix('torch-')}"] = errors
    return found


def to_markdown(report: dict[str, Any]) -> str:
    """The rows as a table."""
    after = [str(number) for number in report["judged"]]
    head = ["variant", "transformer", "decode", "total p50 / p99", "pipelined", "gain"]
    head += [f"error to eager {kind}, {n}" for kind in ("bf16", "fp32") for n in after]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in report["tricks"]:
        cells = [row["variant"]]
        if "missing" in row:
            cells += [row["missing"], *[""] * (len(head) - 2)]
        else:
            cells += [f"{row[f'{part}_ms']['p50']:.2f}" for part in ("transformer", "decode")]
            cells.append(f"{row['total_ms']['p50']:.2f} / {row['total_ms']['p99']:.2f}")
            cells.append(number_or_blank(row["pipelined_ms"], 2))
            cells.append(number_or_blank(row.get("gain_ms"), 2))
            cells += [number_or_blank(row[f"latent_error_{kind}"][n], 4) for kind in ("bf16", "fp32") for n in after]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def number_or_blank(value: float | None, digits: int) -> str:
    """A number with so many digits, or nothing."""
    return "" if value is None else f"{value:.{digits}f}"
