"""What is asked of a world on several processes, and starting those processes when torchrun has not.

Does not know about networks, or what the processes do.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from controls.strict_yaml import did_you_mean

TORCH = ("torch-fp32", "torch-bf16")
PROGRAM = Path(__file__).resolve().parents[2] / "run.py"


@dataclass(frozen=True)
class Request:
    """A world to be played by `parallel` processes (0: as many as torchrun started)."""

    weights: Path
    backend: str = "auto"
    threads: int = 2
    nfe: int = 1
    parallel: int = 0

    @property
    def dtype_name(self) -> str:
        """The backend that runs: bf16 unless another one is named."""
        return "torch-bf16" if self.backend == "auto" else self.backend

    def fault(self, size: int) -> str:
        """Why `size` processes cannot play this, whatever the weights; or nothing."""
        if self.parallel not in (0, size):
            return f"--parallel {self.parallel} is not the {size} processes that were started; leave it out."
        if self.dtype_name not in TORCH:
            meant = did_you_mean(self.backend, TORCH)
            names = " or ".join(TORCH)
            return f"The backend {self.backend!r} does not run on several processes{meant}; choose {names}."
        if self.nfe != 1:
            return f"Several processes make a latent frame in one network call, not {self.nfe}; give --nfe 1."
        local, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if torch.cuda.is_available() and local >= gpus:
            return f"Process {local} of this machine has none of its {gpus} GPUs to itself; start at most {gpus} here."
        return ""


def start_followers(request: Request, port: int) -> list[subprocess.Popen[bytes]]:
    """Start all processes but the first, which find the first at this port of this machine."""
    size = request.parallel
    words = [sys.executable, str(PROGRAM), "play", "--headless", "--weights", str(request.weights)]
    words += ["--backend", request.backend, "--threads", str(request.threads), "--nfe", str(request.nfe)]
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
