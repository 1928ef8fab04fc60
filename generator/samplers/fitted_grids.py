"""Grids fitted to a solver or to a network without learning: DMN, GITS and AYS.

Shape key: S intervals, M intervals of a dense grid to choose from, B samples.
Each returns times (steps + 1,) in float64 that fall from the path's t_max to its t_min, both exactly. Paths whose
log-SNR is infinite at an end, such as flow matching from 1 to 0, go through `on_cut`.

Does not know about latents, caches, files or learning from a teacher's outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from generator.samplers.grids import between_ends, edm_rho, finite_ends, uniform_log_snr, uniform_time
from generator.samplers.learned_times import fractions, logits_of
from generator.samplers.paths import NoisePath, data_and_noise, log_snr, times_fault
from generator.samplers.solvers import Network, Solver, ipndm

GridMaker = Callable[[NoisePath, int], Tensor]


def on_cut(make: GridMaker, path: Any, steps: int, edge: float = 1e-3) -> Tensor:
    """A grid of a path with infinite ends: made on the path without `edge` of time at either end, then stretched to it.

    Where the paths end is a convention of each model family (ours: a thousandth, as VP models take).
    """
    span = path.t_max - path.t_min
    cut = replace(path, t_max=path.t_max - edge * span, t_min=path.t_min + edge * span)
    return between_ends(path, make(cut, steps))


# --- DMN -------------------------------------------------------------------------------------------------------------
def prediction_weights(solver: Solver, times: Tensor, path: Any) -> Tensor:
    """What each prediction of the data weighs in the solver's result (S,): solvers are linear in them.

    Read off the solver itself, by a network whose call number i answers with the i-th unit vector.
    """
    steps, asked = len(times) - 1, []

    def unit_vector(x: Tensor, t: Tensor) -> Tensor:
        asked.append(t)
        return torch.eye(steps, dtype=torch.float64)[len(asked) - 1 : len(asked)]

    weights = solver(unit_vector, torch.zeros(1, steps, dtype=torch.float64), times, replace(path, predicts="data"))
    assert len(asked) == steps, f"{len(asked)} network calls for {steps} intervals"
    return weights[0]


def dmn_bound(solver: Solver, times: Tensor, path: NoisePath, power: float = 1.0) -> Tensor:
    """The bound on the error of the sample that DMN minimises: sum of |weight| x sigma^power / alpha (a scalar).

    sigma^power / alpha bounds the error of the prediction made at a time; power 1 for pixels and 2 for latents
    (Xue et al. 2024, "Accelerating Diffusion Sampling with Optimized Time Steps", section 3).
    """
    start = times[:-1]
    return (prediction_weights(solver, times, path).abs() * path.sigma(start) ** power / path.alpha(start)).sum()


def dmn(path: NoisePath, steps: int, solver: Solver, power: float = 1.0, rounds: int = 40) -> Tensor:
    """The grid with the least `dmn_bound` for a solver of one call per interval, by quasi-Newton steps on the gaps.

    From three hand-made grids, the best of all points visited (the released code takes a trust region from one).
    The path's log-SNR must be finite at both ends.
    """
    first, last = finite_ends(path)
    if steps == 1:
        return uniform_time(path, 1)
    best, found = uniform_log_snr(path, steps), math.inf
    for make in (uniform_log_snr, edm_rho, uniform_time):
        logits = logits_of(path, "lambda", make(path, steps)).requires_grad_()
        optimiser = torch.optim.LBFGS([logits], lr=1.0, max_iter=rounds, line_search_fn="strong_wolfe")

        def bound(logits: Tensor = logits, optimiser: torch.optim.Optimizer = optimiser) -> Tensor:
            nonlocal best, found
            optimiser.zero_grad()
            times = between_ends(path, path.time_of(first + fractions(logits) * (last - first)))
            if times_fault(times, path):  # a step of the line search that went too far
                return (logits - logits.detach()).sum() + math.inf
            value = dmn_bound(solver, times, path, power)
            value.backward()
            if float(value.detach()) < found:
                best, found = times.detach().clone(), float(value.detach())
            return value

        optimiser.step(bound)  # type: ignore[no-untyped-call]
    return best


# --- GITS ------------------------------------------------------------------------------------------------------------
def cheapest(costs: Tensor, steps: int, gamma: float = 1.0) -> list[int]:
    """The `steps` jumps from point 0 to point M that cost least: M's and 0's indices and those between, rising.

    costs (M + 1, M + 1): row i, column j > i is the jump from i to j. Every jump weighs gamma times what the one
    before it weighs. Dynamic programming from the end (GITS algorithm 1).
    """
    points = len(costs)
    assert 1 <= steps < points, f"{steps} jumps over {points} points"
    forward = torch.ones(points, points, dtype=torch.bool).triu(1)
    jump = torch.where(forward, costs.double(), math.inf)
    to_go, choices = jump[:, -1], []
    for _ in range(steps - 1):
        to_go, choice = (jump + gamma * to_go).min(1)
        choices.append(choice.tolist())
    chosen = [0]
    for choice in reversed(choices):
        chosen.append(choice[chosen[-1]])
    return [*chosen, points - 1]


@dataclass(frozen=True)
class Trajectory:
    """States (M + 1, B, ...) of a sampler at its times, and the data and noise predicted at the first M of them."""

    times: Tensor
    states: Tensor
    data: Tensor
    noise: Tensor


@torch.no_grad()
def trajectory(network: Network, start: Tensor, dense: Tensor, path: NoisePath, solver: Solver) -> Trajectory:
    """What a solver of one call per interval passes through from start (B, ...) along dense times (M + 1,)."""
    states: list[Tensor] = []
    data: list[Tensor] = []
    noise: list[Tensor] = []

    def watched(x: Tensor, t: Tensor) -> Tensor:
        output = network(x, t)
        for kept, part in zip((states, data, noise), (x, *data_and_noise(path, x, output, t)), strict=True):
            kept.append(part)
        return output

    states.append(solver(watched, start, dense, path))
    assert len(data) == len(dense) - 1, f"{len(data)} network calls for {len(dense) - 1} intervals"
    return Trajectory(dense, torch.stack(states), torch.stack(data), torch.stack(noise))


def jump_costs(path: NoisePath, seen: Trajectory) -> Tensor:
    """How far one Euler jump from each state lands from the trajectory (M + 1, M + 1), mean L2 over samples.

    The jump keeps data and noise as predicted: Euler's in sigma / alpha, DDIM's (GITS section 4.1).
    """
    size = len(seen.states)
    costs = torch.zeros(size, size, dtype=torch.float64)
    scale = [v.to(seen.states.dtype).view(-1, *[1] * (seen.states.dim() - 1)) for v in coefficients(path, seen.times)]
    for i in range(size - 1):
        landed = scale[0][i + 1 :] * seen.data[i] + scale[1][i + 1 :] * seen.noise[i]
        costs[i, i + 1 :] = (landed - seen.states[i + 1 :]).flatten(2).norm(dim=2).mean(1)
    return costs


def coefficients(path: NoisePath, times: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma at times."""
    return path.alpha(times), path.sigma(times)


def gits(
    path: NoisePath,
    steps: int,
    network: Network,
    start: Tensor,
    dense: Tensor,
    gamma: float = 1.15,
    solver: Solver | None = None,
) -> Tensor:
    """Times chosen from dense ones (60 intervals in the paper) along a sampler's trajectories from start (B, ...).

    Source: Chen et al. 2024, "On the Trajectory Regularity of ODE-based Diffusion Sampling". `solver` makes the
    trajectories (iPNDM of order 2 unless given: ours).
    """
    seen = trajectory(network, start, dense.double(), path, solver or ipndm(2))
    return dense.double()[cheapest(jump_costs(path, seen), steps, gamma)]


# --- AYS -------------------------------------------------------------------------------------------------------------
@torch.no_grad()
def ays_costs(path: NoisePath, network: Network, data: Tensor, dense: Tensor, generator: torch.Generator) -> Tensor:
    """Each interval's part of AYS's bound on the divergence from the true reverse SDE (M + 1, M + 1).

    The interval from t_i to t_j: integral of e^(2 lambda) E|D(x_t, t) - D(x_i, t_i)|^2 d lambda, where x_t and x_i
    lie on one path of the forward process from real data (B, ...). Trapezoids on the dense times. Source: Sabour et
    al. 2024, "Align Your Steps", theorem 3.1, with sigma / alpha for their noise level.
    """
    levels = log_snr(path, dense.double())
    assert bool(levels.isfinite().all()), f"the log-SNR of dense times runs from {levels[0]} to {levels[-1]}"
    ratio = torch.exp(-levels)  # sigma / alpha, falling
    walk = torch.zeros_like(data)
    predicted: list[Tensor] = []
    for i in range(len(dense) - 1, -1, -1):  # from data to noise, as the forward process goes
        before = ratio[i + 1] if i + 1 < len(dense) else torch.zeros_like(ratio[i])
        step = (ratio[i] ** 2 - before**2).sqrt()
        walk = walk + step.to(data.dtype) * torch.randn(data.shape, dtype=data.dtype, generator=generator)
        x = path.alpha(dense.double()[i]).to(data.dtype) * (data + walk)
        predicted.append(data_and_noise(path, x, network(x, dense.double()[i]), dense.double()[i])[0].flatten(1))
    made = torch.stack(predicted[::-1]).double()
    apart = torch.stack([(made - made[i]).square().sum(2).mean(1) for i in range(len(made))])  # row: the held one
    density = apart * torch.exp(2 * levels)
    pieces = (density[:, 1:] + density[:, :-1]) / 2 * levels.diff()
    return torch.cat([torch.zeros_like(apart[:, :1]), pieces.triu().cumsum(1)], 1).triu(1)


def ays(
    path: NoisePath, steps: int, network: Network, data: Tensor, dense: Tensor, generator: torch.Generator
) -> Tensor:
    """Times chosen from dense ones that minimise `ays_costs`: the exact choice (ours; AYS moves one time at a time)."""
    return dense.double()[cheapest(ays_costs(path, network, data, dense, generator), steps)]
