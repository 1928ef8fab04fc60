"""Waiting for a device, percentiles, and memory: what every timing needs.

Does not know what is timed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def percentiles(values: npt.ArrayLike) -> dict[str, float]:
    """p50 and p99."""
    p50, p99 = np.percentile(np.asarray(values), [50, 99])
    return {"p50": float(p50), "p99": float(p99)}


def forget_peak(device: torch.device | None = None) -> None:
    """Start the peak memory afresh: the GPU's, and the process's where the system can (Linux)."""
    if device is not None and device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_memory_mb() -> float | None:
    """Most memory that this process has held since `forget_peak`, in MB; None where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith("VmHWM:"))) / 1024
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def peak_device_mb(device: torch.device) -> float | None:
    """Most memory that torch has held on the GPU since `forget_peak`, in MB; None on the host."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
