"""Hand-made grids: uniform time, uniform log-SNR, EDM's rho, quadratic time.

Each returns times (steps + 1,) in float64 that fall from the path's t_max to its t_min, both exactly.

Does not know about solvers, networks or learning.
"""

from __future__ import annotations

import torch
from torch import Tensor

from generator.samplers.paths import NoisePath, log_snr_ends


def unit(steps: int) -> Tensor:
    """0 to 1 in equal steps."""
    assert steps >= 1, f"{steps} steps"
    return torch.linspace(0.0, 1.0, steps + 1, dtype=torch.float64)


def between_ends(path: NoisePath, times: Tensor) -> Tensor:
    """The times with both ends set exactly; gradients pass to the interior."""
    start, end = times.new_tensor([path.t_max]), times.new_tensor([path.t_min])
    return torch.cat([start, times[1:-1], end])


def finite_ends(path: NoisePath) -> tuple[float, float]:
    """lambda at t_max and t_min, which must be finite."""
    first, last = log_snr_ends(path)
    assert abs(first) != float("inf") and abs(last) != float("inf"), f"the log-SNR runs from {first} to {last}"
    return first, last


def uniform_time(path: NoisePath, steps: int) -> Tensor:
    return between_ends(path, path.t_max + unit(steps) * (path.t_min - path.t_max))


def uniform_log_snr(path: NoisePath, steps: int) -> Tensor:
    """Equal steps of lambda (DPM-Solver)."""
    first, last = finite_ends(path)
    return between_ends(path, path.time_of(first + unit(steps) * (last - first)))


def edm_rho(path: NoisePath, steps: int, rho: float = 7.0) -> Tensor:
    """Equal steps of (sigma / alpha)^(1 / rho) (EDM equation 5). rho = 1: equal steps of sigma / alpha.

    The end may be free of noise; the start may not be free of data.
    """
    first, last = log_snr_ends(path)
    assert first != -float("inf"), "sigma / alpha is infinite at t_max"
    ratios = torch.exp(-torch.tensor([first, last], dtype=torch.float64) / rho)
    levels = (ratios[0] + unit(steps) * (ratios[1] - ratios[0])) ** rho
    return between_ends(path, path.time_of(-torch.log(levels)))


def quadratic_time(path: NoisePath, steps: int, power: float = 2.0) -> Tensor:
    """Equal steps of t^(1 / power) (DDIM's quadratic steps)."""
    start, end = path.t_max ** (1 / power), path.t_min ** (1 / power)
    return between_ends(path, (start + unit(steps) * (end - start)) ** power)
