"""What is asked of a world on several processes, and starting those processes when torchrun has not.

Does not know about networks, or what the processes do.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from generator.runtime.build import OWN, Size
from generator.runtime.select import best_torch

TORCH = ("torch-fp32", "torch-bf16")
PROGRAM = Path(__file__).resolve().parents[2] / "run.py"


@dataclass(frozen=True)
class Request:
    """A world to be shared by `parallel` processes (0: as many as torchrun started).

    Its weights are a folder's or, without one, random ones of a `preset` at a `size`. Models that read one are given
    the `text` prefix (1, L, text_width). `words` make another process of run.py take part (none: those of play).
    """

    weights: Path | None
    backend: str = "auto"
    threads: int = 2
    nfe: int = 1
    parallel: int = 0
    preset: str = ""
    size: Size = OWN
    text: Tensor | None = None
    words: tuple[str, ...] = ()

    @property
    def dtype_name(self) -> str:
        """The backend that runs: bf16 where the device has it, unless another one is named."""
        return best_torch(self.device.type) if self.backend == "auto" else self.backend

    @property
    def device(self) -> torch.device:
        """Where this process computes: its own GPU when there are any."""
        local = int(os.environ.get("LOCAL_RANK", "0"))
        return torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")

    def fault(self, size: int) -> str:
        """Why `size` processes cannot play this, whatever the weights; or nothing."""
        if self.parallel not in (0, size):
            return f"--parallel {self.parallel} is not the {size} processes that were started; leave it out."
        if self.dtype_name not in TORCH:
            names = " or ".join(TORCH)
            return f"The backend {self.backend!r} does not run on several processes; choose {names}."
        if self.nfe != 1:
            return f"Several processes make a latent frame in one network call, not {self.nfe}; give --nfe 1."
        local, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        last = local if "RANK" in os.environ else max(local, self.parallel - 1)  # of those that this process starts
        if torch.cuda.is_available() and last >= gpus:
            return f"Process {last} of this machine has none of its {gpus} GPUs to itself; start at most {gpus} here."
        return ""


def start_followers(request: Request, port: int) -> list[subprocess.Popen[bytes]]:
    """Start all processes but the first, which find the first at this port of this machine."""
    size = request.parallel
    words = [sys.executable, str(PROGRAM), *(request.words or play_words(request))]
    place = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        subprocess.Popen(
            words,
            env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        for rank in range(1, size)
    ]


def play_words(request: Request) -> list[str]:
    """The words of run.py with which a process takes part in play."""
    words = ["play", "--headless", "--weights", str(request.weights), "--backend", request.backend]
    return [*words, "--threads", str(request.threads), "--nfe", str(request.nfe)]


def end_followers(followers: Sequence[subprocess.Popen[bytes]], patience: float) -> None:
    """Wait for processes that were started here, each for so many seconds; those that stay longer are killed."""
    for follower in followers:
        try:
            follower.wait(patience)
        except subprocess.TimeoutExpired:
            follower.kill()
            follower.wait()
