"""`run.py benchmark`: one backend or all, sweeps over window and resolution, and what AAPT saves, in one report.

Every request is checked, memory included, before anything is loaded. Beside the backend's own times stand those of
the eager path in the same type, and of two passes per latent frame, as diffusion forcing makes them.

Does not know how a latent frame is timed.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from controls.errors import UserError
from generator.checkpoint import Weights, load_weights
from generator.evaluation import counts, cpu_runtimes, roofline, tricks
from generator.evaluation.latency import Trace, time_backend, time_frames, trace
from generator.model.dit import DiTConfig
from generator.model.ranks import launched
from generator.runtime.backend import Backend
from generator.runtime.build import Size, check_memory, parse_size, random_weights, world_config
from generator.runtime.eager import EagerTransformer
from generator.runtime.gpu_attention import check_gpu
from generator.runtime.select import BACKENDS, EAGER, TYPES, backend_name, best_torch, open_backend
from generator.runtime.two_pass import TwoPassTransformer

REFERENCE = "torch-fp32"
BESIDE_FRAMES = 20  # latent frames of the eager path and of two passes, which are there to compare with
SWEPT = ("window", "resolution")


@dataclass(frozen=True)
class Plan:
    """What to time. `far` latent frames; `sweep` entries such as window=4,8 or resolution=256x160,512x320.

    `parallel` processes share the world (None: as many as torchrun started, or one); see benchmark_parallel.py.
    """

    preset: str = "pocket"
    weights: Path | None = None
    backend: str = "auto"
    dtype: str = ""
    resolution: str = ""
    window: int = 0
    frames: int = 120
    far: tuple[int, ...] = ()
    threads: int = 2
    sweep: tuple[str, ...] = ()
    beside: bool = True
    text_tokens: int = 128
    switches: tuple[str, ...] = ()
    parallel: int | None = None


def parse_far(text: str) -> tuple[int, ...]:
    """`400,4000` as latent frames; empty for none; UserError on anything else."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdecimal() for part in parts):
        raise UserError(f"--far {text!r} is not a list of latent frames; give 400,4000, for instance.")
    return tuple(int(part) for part in parts if int(part))


def parse_sweep(entries: tuple[str, ...]) -> list[tuple[str, str]]:
    """Each value of each entry as (window or resolution, value); UserError on anything else."""
    found = []
    for entry in entries:
        name, _, values = entry.partition("=")
        if name not in SWEPT or not values:
            raise UserError(f"--sweep {entry!r} is not window=N,N or resolution=WxH,WxH; give one of these.")
        for value in values.split(","):
            if name == "window" and not (value.isdecimal() and int(value)):
                raise UserError(f"--sweep {entry!r}: {value!r} is not a number of latent frames; give 4,8,16.")
            found.append((name, value))
    return found


def check(plan: Plan) -> None:
    """UserError on what cannot be timed in one process, before anything is loaded."""
    check_words(plan)
    check_alone(plan)
    for each in each_plan(plan):
        config = world_config(each.preset, size_of(each))
        if plan.weights is None:
            check_memory(config, device_of(each), dtype_of(each))
    if plan.backend != "all":
        backend_name(plan.backend, plan.dtype)


def check_alone(plan: Plan) -> None:
    """UserError when several processes are to do what one does by itself."""
    if shared(plan):
        raise UserError(
            "--roofline, --counts, --compare and --tricks run in one process; leave these out, or leave out --parallel "
            "and torchrun."
        )


def shared(plan: Plan) -> bool:
    """Whether several processes are asked for, or were started by something like torchrun."""
    started = launched()
    return (plan.parallel or 1) > 1 or (started is not None and started[1] > 1)


def check_words(plan: Plan) -> None:
    """UserError on numbers that cannot be meant, and on words that contradict one another."""
    if plan.parallel is not None and plan.parallel < 1:
        raise UserError(f"--parallel {plan.parallel} is below 1; give how many processes share the world, 1 or more.")
    if plan.frames < 1 or plan.threads < 1 or plan.text_tokens < 1:
        raise UserError(
            f"--frames {plan.frames}, --threads {plan.threads}, --text {plan.text_tokens}: each starts at 1."
        )
    if plan.weights and (plan.resolution or plan.window or plan.sweep):
        raise UserError(
            "--resolution, --window and --sweep build a preset anew; leave out --weights, or leave out these."
        )


def each_plan(plan: Plan) -> list[Plan]:
    """The plan itself, and one for each value of its sweeps."""
    swept = [
        replace(plan, sweep=(), far=(), beside=False, **{name: int(value) if name == "window" else value})
        for name, value in parse_sweep(plan.sweep)
    ]
    return [replace(plan, sweep=()), *swept]


def device_of(plan: Plan) -> torch.device:
    """Where a plan's weights are to lie; UserError where that is a GPU and torch sees none."""
    return check_gpu() if plan.backend.startswith("cuda") else torch.device("cpu")


def dtype_of(plan: Plan) -> torch.dtype:
    """The type in which random weights are made: the reference's on the host, the runtime's own on a GPU."""
    return torch.bfloat16 if device_of(plan).type == "cuda" else torch.float32


def weights_of(plan: Plan) -> Weights:
    """The plan's weights: those given, or the preset's size with random numbers."""
    if plan.weights:
        return load_weights(Path(plan.weights))
    return random_weights(plan.preset, size=size_of(plan), device=device_of(plan), dtype=dtype_of(plan))


def prompt_of(plan: Plan, weights: Weights) -> torch.Tensor | None:
    """A random text prefix (1, L, text_width) for models that read one, as the weights are."""
    made = random_prefix(weights.config.dit, plan.text_tokens)
    return None if made is None else made.to(weights.dit.embed.weight)


def random_prefix(dit: DiTConfig, tokens: int) -> torch.Tensor | None:
    """A random text prefix (1, L, text_width), the same everywhere, for models that read one."""
    if not dit.text_width:
        return None
    return torch.randn(1, tokens, dit.text_width, generator=torch.Generator().manual_seed(0))


def benchmark(plan: Plan, say: Callable[[str], None] = lambda text: None) -> dict[str, Any] | None:
    """The report of a plan: one backend, or with `all` each of them; UserError on what cannot be timed.

    None in a process that does a share of what another one times.
    """
    if shared(plan):
        from generator.evaluation.benchmark_parallel import benchmark_shared

        return benchmark_shared(plan, say)
    check(plan)
    if plan.backend == "all":
        return all_backends(plan, say)
    own, *swept = each_plan(plan)
    report = one(own)
    if swept:
        report["sweep"] = []
    for each in swept:
        gc.collect()
        say(f"window {each.window or 'own'}, resolution {each.resolution or 'own'}")
        report["sweep"].append(one(each))
    return report


def one(plan: Plan) -> dict[str, Any]:
    """One backend at one size, with the eager path and two passes beside it where the plan wants them."""
    weights, name = weights_of(plan), backend_name(plan.backend, plan.dtype)
    text = prompt_of(plan, weights)
    report = time_backend(weights, name, plan.frames, plan.far, plan.threads, text=text, switches=plan.switches)
    if plan.beside:
        gc.collect()
        report |= beside(weights, report["backend"], min(plan.frames, BESIDE_FRAMES), plan.threads, text)
    return report


def beside(weights: Weights, name: str, frames: int, threads: int, text: torch.Tensor | None) -> dict[str, Any]:
    """The eager path in the backend's type, and two passes per latent frame on the same path (see two_pass.py)."""
    eager = open_backend(eager_like(name), weights, threads, text)
    assert isinstance(eager.transformer, EagerTransformer) and eager.name in EAGER, eager.name
    found = {"eager": {"backend": eager.name, "passes": 1, **time_frames(eager, weights, frames)}}
    twice: Backend = replace(eager, transformer=TwoPassTransformer(eager.transformer))
    found["diffusion_forcing"] = {"backend": eager.name, "passes": 2, **time_frames(twice, weights, frames)}
    return found


def eager_like(name: str) -> str:
    """The eager backend of a backend's type, float32 for int8, whose sums between convolutions are float32.

    OpenVINO computes in bf16 where the processor has it, so eager torch does too, and does not imitate it elsewhere.
    """
    if name == "openvino":
        return best_torch()
    types = next(types for types in TYPES.values() if name in types.values())
    dtype = next(dtype for dtype, own in types.items() if own == name)
    alike = TYPES["torch"].get("fp32" if dtype == "int8" else dtype, "torch-bf16")
    assert alike in EAGER
    return alike


def all_backends(plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
    """Every backend in turn, held to the reference; one that cannot run here says so in its place."""
    weights = weights_of(plan)
    reference: Trace = trace(open_backend(REFERENCE, weights, plan.threads), weights)
    reports: dict[str, Any] = {}
    for each in (b for b in BACKENDS if b != "auto"):
        say(each)
        try:
            reports[each] = time_backend(weights, each, plan.frames, plan.far, plan.threads, reference)
        except UserError as error:
            reports[each] = {"missing": str(error)}
        gc.collect()
    named = {"preset": weights.config.preset, "weights_hash": weights.hash, "threads": plan.threads}
    return {**named, "backends": reports}


def roofline_of(plan: Plan, measure: bool) -> dict[str, Any]:
    """The counts of a plan's model, and with `measure` this machine's floors and times of each part beside them.

    On a GPU where there is one; in bf16 unless the plan says otherwise. UserError as in `benchmark`.
    """
    check_alone(plan)
    dtype = roofline.dtype_of(plan.dtype or "bf16")
    if not measure:
        config = weights_of(plan).config if plan.weights else world_config(plan.preset, size_of(plan))
        return counts.table(config, plan.text_tokens, dtype.itemsize)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(plan.threads)
    if plan.weights is None:
        return roofline.roofline(random_weights(plan.preset, 0, size_of(plan), device, dtype), plan.text_tokens)
    loaded = load_weights(Path(plan.weights), dtype)
    moved = replace(loaded, dit=loaded.dit.to(device), tokenizer=loaded.tokenizer.to(device))
    return roofline.roofline(moved, plan.text_tokens)


def size_of(plan: Plan) -> Size:
    """The plan's resolution and window."""
    return parse_size(plan.resolution, plan.window)


def compared(plan: Plan, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Every CPU runtime in every type on the plan's weights; UserError as in `benchmark`."""
    check(plan)
    return cpu_runtimes.compare(weights_of(plan), plan.frames, plan.threads, cpu_runtimes.JUDGED, say)


def tricks_of(plan: Plan, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """The GPU runtime with each of its switches turned; UserError without a GPU, and as in `benchmark`."""
    plan = replace(plan, backend=plan.backend if plan.backend.startswith("cuda") else "cuda")
    check(plan)
    weights, name = weights_of(plan), backend_name(plan.backend, plan.dtype)
    text = prompt_of(plan, weights)

    def open_with(switches: tuple[str, ...]) -> Backend:
        return open_backend(name, weights, plan.threads, text, (*plan.switches, *switches))

    return tricks.tricks(weights, plan.frames, open_with, text, say=say)
