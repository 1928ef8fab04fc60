"""Flow-matching times: x_t = (1 - t) data + t noise, velocity v = noise - data, and the time shift.

Times are decreasing lists of t; 0 is data, 1 is noise. Source: AAPT section 3.3 (uniform t, then shifted by s).

Does not know about networks, latents' layout or stages.
"""

from __future__ import annotations

import torch
from torch import Tensor


def shift_time(t: Tensor, shift: float) -> Tensor:
    """Move times towards noise: s t / (1 + (s - 1) t). Keeps 0 and 1."""
    return shift * t / (1 + (shift - 1) * t)


def mix(data: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """x_t for data and noise (B, ...) at t (B,)."""
    at = t.view(-1, *[1] * (data.dim() - 1)).to(data.dtype)
    return (1 - at) * data + at * noise


def clean_from_velocity(x: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
    """The data that x at time t (B,) points to: x - t v."""
    return x - t.view(-1, *[1] * (x.dim() - 1)).to(x.dtype) * velocity


def uniform_times(steps: int, shift: float = 1.0) -> Tensor:
    """float64 (steps + 1,) decreasing from 1 to 0, both exactly, uniform, then shifted."""
    assert steps >= 1, f"{steps} steps"
    times = shift_time(torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64), shift)
    times[0] = 1.0  # some shifts round it up
    return times


def token_shift(tokens: int, reference_tokens: int = 1196, reference_shift: float = 24.0) -> float:
    """The shift for N tokens per latent frame, scaled with the square root of the token count.

    The paper uses 24 at 1,196 tokens (736x416); 40 tokens give 4.4.
    """
    return reference_shift * (tokens / reference_tokens) ** 0.5
