"""Solvers: integration rules for dx/dt = v(x, t) along a decreasing list of times.

A solver receives the velocity as a function and imports nothing of ours. Differentiable throughout.

Does not know about networks, caches or how times are chosen.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Velocity = Callable[[Tensor, float], Tensor]
Solver = Callable[[Velocity, Tensor, Tensor], Tensor]


def euler(velocity: Velocity, x: Tensor, times: Tensor) -> Tensor:
    """First order; one evaluation per interval. times (S + 1,), decreasing."""
    for now, after in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        x = x + (after - now) * velocity(x, now)
    return x


def heun(velocity: Velocity, x: Tensor, times: Tensor) -> Tensor:
    """Second order; two evaluations per interval."""
    for now, after in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        first = velocity(x, now)
        second = velocity(x + (after - now) * first, after)
        x = x + (after - now) * 0.5 * (first + second)
    return x
