"""`run.py doctor`: what this machine has, what is missing and how to get it, and how fast it would run.

Never raises: a check that fails says so and the others go on. Packages are looked up, not imported, except torch.

Does not know how anything else is done.
"""

from __future__ import annotations

import ctypes.util
import importlib.metadata
import importlib.util
import math
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controls.errors import UserError
from controls.machine import usable_cores

if TYPE_CHECKING:
    from generator.checkpoint import Weights

OLDEST_PYTHON = (3, 11)
TIMED = 20  # latent frames of the speed check
FLAGS = {
    "avx512_bf16": "AVX-512 bf16",
    "amx_bf16": "AMX bf16",
    "avx512f": "AVX-512",
    "avx2": "AVX2",
}
ROOT = Path(__file__).resolve().parents[2]


def examine(weights: Path, threads: int = 2) -> list[str]:
    """Every check's sentences, in order; never raises."""
    checks: list[tuple[str, Callable[[], list[str]]]] = [
        ("Python", python),
        ("torch", torch_and_gpu),
        ("processor", processor),
        ("memory", memory),
        ("backends", backends),
        ("window", window),
        ("sound", sound),
        ("engine", engine),
        ("scenes", scenes),
        ("weights", lambda: weights_and_speed(Path(weights), threads)),
    ]
    lines: list[str] = []
    for name, check in checks:
        try:
            lines += check()
        except Exception as error:  # the doctor's whole purpose is broken machines
            lines.append(f"The check of {name} failed: {type(error).__name__}: {error}.")
    return lines


def version(package: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def python() -> list[str]:
    """The interpreter."""
    line = f"Python {platform.python_version()} on {platform.system()} ({platform.machine()})."
    if sys.version_info[:2] < OLDEST_PYTHON:
        return [line, "Python 3.11 or newer is needed; install it and make a new environment."]
    return [line]


def torch_and_gpu() -> list[str]:
    """torch, and what it can compute on."""
    if importlib.util.find_spec("torch") is None:
        return ["torch is not installed, so nothing can be generated; run: pip install -e ."]
    import torch

    lines = [f"torch {torch.__version__} is installed."]
    if not torch.cuda.is_available():
        return [*lines, "There is no CUDA GPU that torch can use; the world runs on the processor."]
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        lines.append(f"CUDA GPU {index}: {about.name}, {about.total_memory / 2**30:.0f} GB.")
    return lines


def processor() -> list[str]:
    """Cores that this process may use and the instruction sets that matter."""
    usable = usable_cores()
    words: set[str] = set()
    info = Path("/proc/cpuinfo")
    if info.exists():
        words = set(next((x for x in info.read_text().splitlines() if x.startswith("flags")), "").split())
    found = [label for flag, label in FLAGS.items() if flag in words]
    line = f"{usable} processor cores can be used"
    if not words:
        return [f"{line}; this system does not list their instruction sets."]
    lines = [f"{line}, with {', '.join(found) or 'no instruction set that helps'}."]
    if not words & {"avx512_bf16", "amx_bf16"}:
        lines.append("They have no bf16 arithmetic, so bf16 backends will not be faster than torch-fp32.")
    if importlib.util.find_spec("torch") is None:
        return lines
    from generator.precision import WORTH, adds_int8_exactly, computes_bf16, gain_of_bf16

    if words & {"avx512_bf16", "amx_bf16"} and not computes_bf16("cpu"):
        gain = f"{gain_of_bf16():.1f} times as fast as in float32"
        lines.append(f"They multiply matrices in bf16 only {gain}, so nothing is computed in bf16 unless asked for.")
    if adds_int8_exactly():
        lines.append("They sum products of eight bits exactly, so worlds that bring ranges for it play in int8.")
    elif version("openvino") is not None:
        from generator.runtime.openvino import gain_of_int8

        gain, so = gain_of_int8(), "worlds that bring ranges for it play in int8"
        lines.append(f"They convolve in int8 {gain:.1f} times as fast as in float32; from {WORTH:g} on {so}.")
    return lines


def memory() -> list[str]:
    """Total and free memory."""
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        total, free = (int(fields[k].split()[0]) / 2**20 for k in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError, IndexError):
        return ["This system does not say how much memory it has; 2 GB free are enough for the pocket world."]
    line = f"{total:.1f} GB of memory, {free:.1f} GB free."
    return [line] if free >= 2 else [line, "Less than 2 GB are free; close other programs before playing."]


def backends() -> list[str]:
    """Each backend: installed, or how to get it."""
    lines = ["The backends torch-fp32 and torch-bf16 come with torch."]
    if (found := version("openvino")) is not None:
        return [*lines, f"OpenVINO {found} is installed (backend openvino)."]
    return [*lines, "OpenVINO is not installed (usually the fastest on a processor); run: pip install openvino"]


def window() -> list[str]:
    """pygame-ce against pygame, and a display."""
    community, other = version("pygame-ce"), version("pygame")
    if community and other:
        lines = [
            f"Both pygame-ce {community} and pygame {other} are installed and overwrite each other; "
            "run: pip uninstall -y pygame pygame-ce && pip install pygame-ce"
        ]
    elif other:
        lines = ["pygame is installed instead of pygame-ce; run: pip uninstall -y pygame && pip install pygame-ce"]
    elif community:
        lines = [f"pygame-ce {community} is installed."]
    else:
        lines = ["pygame-ce, which opens the window, is not installed; run: pip install pygame-ce"]
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return [*lines, "There is no display; only headless play is possible here (run.py play --headless)."]
    return [*lines, "There is a display."]


def sound() -> list[str]:
    """sounddevice and the PortAudio library beneath it."""
    if importlib.util.find_spec("sounddevice") is None:
        return ["sounddevice is not installed, so play is silent; run: pip install sounddevice"]
    bundled = not sys.platform.startswith("linux")  # the wheels of other systems bring PortAudio along
    if bundled or ctypes.util.find_library("portaudio"):
        return ["PortAudio is present, so there can be sound."]
    return ["PortAudio is missing, so play is silent; on Debian or Ubuntu: sudo apt install libportaudio2"]


def engine() -> list[str]:
    """ViZDoom, for recording clips."""
    if (found := version("vizdoom")) is not None:
        return [f"ViZDoom {found} is installed: clips can be recorded."]
    return ["ViZDoom is not installed: worlds can be played but no clips recorded; run: pip install -e '.[train]'"]


def scenes() -> list[str]:
    """Scenes to start from."""
    folder = ROOT / "assets" / "scenes"
    names = sorted(path.parent.name for path in folder.glob("*/scene.yaml"))
    if names:
        return [f"{len(names)} scenes to start from: {', '.join(names)}."]
    return [f"There are no scenes in {folder}; cut one out of recorded clips with: run.py worlds scene --help"]


def weights_and_speed(weights: Path, threads: int) -> list[str]:
    """Whether the weights are whole, which backend would run them, and how fast."""
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("safetensors") is None:
        return [f"The weights in {weights} cannot be checked without torch and safetensors; run: pip install -e ."]
    from generator.checkpoint import load_weights
    from generator.evaluation.latency import time_backend

    try:
        loaded = load_weights(weights)
    except UserError as error:
        return [str(error), "Without weights nothing can be played; train a world with run.py train all --help"]
    about = f"preset {loaded.config.preset}, stage {loaded.config.stage}, world {loaded.config.world}"
    lines = [f"The weights in {weights} are whole: {about}, hash {loaded.hash[:12]}."]
    report = time_backend(loaded, "auto", TIMED, threads=threads)
    took, times = report["total_ms"]["p50"], report["real_time_factor"]
    ticks = loaded.config.action_spec.ticks
    lines.append(
        f"The backend {report['backend']} would run, with {threads} threads: about {took:.0f} ms per {ticks} frames, "
        f"{times:.1f} times real time ({report['fps']:.0f} frames a second)."
    )
    if times < 1:
        lines.append("That is too slow for smooth play; close other programs, add threads, or take smaller weights.")
    return [*lines, *less_detail(loaded, threads), *quality_dial(weights, loaded, report, threads)]


def less_detail(loaded: Weights, threads: int) -> list[str]:
    """How fast it would run without fine detail, of worlds that have any."""
    from generator.evaluation.latency import time_opened
    from generator.runtime.select import open_backend

    opened = open_backend("auto", loaded, threads)
    if opened.reprojection is None or not opened.reprojection.fine:
        return []
    opened.reprojection.lighten(True)
    report = time_opened(opened, loaded, 0.0, TIMED, (), threads)
    took, times = report["total_ms"]["p50"], report["real_time_factor"]
    return [f"Without fine detail (--detail light): about {took:.0f} ms, {times:.1f} times real time."]


def quality_dial(folder: Path, loaded: Weights, report: dict[str, Any], threads: int) -> list[str]:
    """Which --nfe this machine holds in real time: one as timed, more by the time of one of the teacher's calls."""
    from generator.evaluation.latency import time_opened
    from generator.runtime.multistep import MANY_STEP, load_teacher, open_multistep
    from generator.samplers.sampler import FEWEST, MOST

    limit = 1e3 * loaded.config.action_spec.ticks / loaded.config.fps
    rate = f"{loaded.config.fps:g} frames a second"
    one = f"--nfe 1 {'holds' if report['total_ms']['p50'] <= limit else 'does not hold'} {rate} on this machine."
    if loaded.config.stage not in MANY_STEP and not (folder / "teacher").is_dir():
        return [f"{one} These weights have no many-step teacher, so there is no other setting."]
    teacher, sampler = load_teacher(folder, FEWEST)
    opened = open_multistep("auto", teacher, threads, sampler)
    report = time_opened(opened, teacher, 0.0, TIMED, (), threads)
    call = report["transformer_ms"]["p50"] / FEWEST
    rest = report["total_ms"]["p50"] - FEWEST * call
    most = calls_held(call, rest, limit)
    more = f"--nfe {FEWEST} to {min(most, MOST)} hold it too" if most > FEWEST else f"--nfe {FEWEST} holds it too"
    if most < FEWEST:
        more = f"--nfe {FEWEST} and more do not"
    about = (
        f"{call:.0f} ms a call and {rest:.0f} ms for the rest, of {limit:.0f} ms per {loaded.config.action_spec.ticks}"
    )
    return [f"{one} With the teacher, {more} ({report['backend']}: {about} frames)."]


def calls_held(call: float, rest: float, limit: float) -> int:
    """How many calls of `call` ms fit beside `rest` ms into `limit` ms."""
    return max(0, math.floor((limit - rest) / call))
