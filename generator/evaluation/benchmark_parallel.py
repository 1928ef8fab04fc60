"""`run.py benchmark` of a world that several processes share: torchrun's, or ones that are started here.

Every process goes through the same sizes of the same plan: the first one times, the others do their share and then tell
the most memory that they have held. Beside the shared world stand, as ever, the eager path and two passes per latent
frame: both in one process, so that what sharing gains or costs can be read off.

Does not know how a network is shared, or how a latent frame is timed.
"""

from __future__ import annotations

import copy
import gc
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist

from controls.errors import UserError
from generator.evaluation.benchmark import (
    BESIDE_FRAMES,
    Plan,
    beside,
    check_words,
    each_plan,
    random_prefix,
    size_of,
)
from generator.evaluation.latency import time_opened
from generator.evaluation.timing import forget_peak, peak_device_mb, peak_memory_mb
from generator.model.ranks import Meeting, launched
from generator.runtime.parallel import assemble, lead
from generator.runtime.parallel_load import DTYPES, check, config_of, load, memory_fault
from generator.runtime.parallel_start import Request, end_followers, start_followers
from generator.runtime.select import backend_name

GRACE = 30.0  # seconds that the others have to end once all is timed


def request_of(plan: Plan) -> Request:
    """What the processes are to share at one size; UserError when the weights have no readable config."""
    backend = plan.backend
    if plan.dtype and backend != "all":
        backend = backend_name("torch" if backend == "auto" else backend, plan.dtype)
    elif backend not in ("auto", "all"):
        backend = backend_name(backend)
    named = "" if plan.weights else plan.preset
    made = Request(plan.weights, backend, plan.threads, parallel=plan.parallel or 0, preset=named, size=size_of(plan))
    return replace(made, text=random_prefix(config_of(made)[0].dit, plan.text_tokens))


def words_of(plan: Plan) -> tuple[str, ...]:
    """The words of run.py with which another process takes part in a plan."""
    words = ["benchmark", "--alone", "--backend", plan.backend, "--parallel", str(plan.parallel)]
    words += ["--weights", str(plan.weights)] if plan.weights else ["--preset", plan.preset]
    words += ["--threads", str(plan.threads), "--text", str(plan.text_tokens), "--window", str(plan.window)]
    for name, value in (("--dtype", plan.dtype), ("--resolution", plan.resolution)):
        words += [name, value] if value else []
    for entry in plan.sweep:
        words += ["--sweep", entry]
    return tuple(words)


def benchmark_shared(plan: Plan, say: Callable[[str], None] = lambda text: None) -> dict[str, Any] | None:
    """The report of a plan, as `benchmark.benchmark` makes it; None in a process that does not lead.

    UserError, the same in every process, on what they cannot share.
    """
    began = time.perf_counter()
    check_words(plan)
    if plan.switches:
        raise UserError("Several processes run on no backend with switches; leave out --switch, or --parallel.")
    plans = each_plan(plan)
    requests = [replace(request_of(each), words=words_of(plan)) for each in plans]
    others = []
    if launched() is not None:
        meeting = Meeting.arranged()
    else:
        for request in requests:
            check(request, request.parallel)
        meeting, port = Meeting.hosted(requests[0].parallel)
        others = start_followers(requests[0], port)
    reports = []
    try:
        for number, (each, request) in enumerate(zip(plans, requests, strict=True)):
            if number and meeting.rank == 0:
                say(f"window {each.window or 'own'}, resolution {each.resolution or 'own'}")
            reports.append(one_size(meeting, number, each, request, began))
            began = time.perf_counter()
            gc.collect()
    except BaseException as error:
        gone = [rank for rank, other in enumerate(others, start=1) if other.poll()]
        end_followers(others, 0.0)
        if gone and isinstance(error, RuntimeError):
            raise UserError(f"Process {gone[0]} of {meeting.size} ended too early; see what it said.") from error
        raise
    end_followers(others, GRACE)
    report, *swept = reports
    if report is None:
        return None
    if plan.sweep:
        report["sweep"] = swept
    return report | (alone(plan, requests[0]) if plan.beside else {})


def one_size(meeting: Meeting, number: int, plan: Plan, request: Request, began: float) -> dict[str, Any] | None:
    """Share the world at one size and time it since `began`; None in a process that does not lead."""
    place = Meeting(meeting.rank, meeting.size, dist.PrefixStore(f"size {number}", meeting.store), meeting.patience)
    forget_peak(request.device)
    crew = assemble(place, request)
    if meeting.rank:
        crew.follow()
        tell_peak(place, request.device)
        return None
    try:
        backend = lead(crew, request.dtype_name)
        opened = time.perf_counter() - began
        report = time_opened(backend, crew.weights, opened, plan.frames, plan.far, plan.threads, meeting.size)
    finally:
        crew.stop()
    tell_peak(place, request.device)
    return report | peaks(place)


def tell_peak(place: Meeting, device: torch.device) -> None:
    """Leave the most memory that this process has held, in MB, where the first one reads it."""
    place.store.set(f"peak/{place.rank}", json.dumps([peak_memory_mb(), peak_device_mb(device)]))


def peaks(place: Meeting) -> dict[str, Any]:
    """The most memory in MB, of all processes together and of each; None where a system does not say."""
    try:
        told = [json.loads(place.store.get(f"peak/{rank}")) for rank in range(place.size)]
    except (RuntimeError, OSError) as error:
        raise UserError("Not all processes told how much memory they held; see what the others say.") from error
    found: dict[str, Any] = {}
    for name, each in zip(("peak_rss_mb", "peak_device_mb"), zip(*told, strict=True), strict=True):
        found |= {name: None if None in each else sum(each), f"{name}_each": list(each)}
    return found


def alone(plan: Plan, request: Request) -> dict[str, Any]:
    """The eager path and two passes in this process alone, where it computed its share; or why they cannot run."""
    device, dtype = request.device, DTYPES[request.dtype_name]
    fault = memory_fault(config_of(request)[0], replace(request, parallel=1), 1)
    if fault:
        return {name: {"missing": fault} for name in ("eager", "diffusion_forcing")}
    weights = load(request)
    tokenizer = weights.tokenizer
    if device.type == "cuda":
        torch.cuda.empty_cache()
        moved = copy.deepcopy(tokenizer).to(device, dtype)
        weights = replace(weights, tokenizer=moved, parallax=weights.parallax and weights.parallax.to(device))
    text = None if request.text is None else request.text.to(weights.dit.embed.weight)
    return beside(weights, request.dtype_name, min(plan.frames, BESIDE_FRAMES), plan.threads, text)
