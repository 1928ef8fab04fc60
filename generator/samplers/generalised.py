"""Beyond LD3: a solver with learned corrections (GS), and one learned curve that gives the grid of every NFE.

Shape key: S intervals (one network call each), K + 1 control points of a curve, B samples.
GS: a learned grid, learned additive corrections to the coefficients of DPM-Solver++(3M) and learned weights on all past
states and predictions, decoupled network times, hard loss (Oganov et al. 2025, "Generalized Solver"; LD3 notes
section 4). The curve: a Bezier curve from 0 to 1 whose value at i / S is how much of the way the i-th time has gone
(in the manner of BezierFlow, LD3 notes section 4; only its grid, not its scheduler path).

Does not know about networks' caches, decoders, files or which world it serves.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from generator.samplers.grids import between_ends
from generator.samplers.learned_times import Distance, Mode, Pairs, clipped, ends, fractions, logits_of
from generator.samplers.paths import NoisePath
from generator.samplers.solvers import FLOW, Network, Solver, dpm_solver_pp, lay

Parameters = dict[str, Tensor]


def step_weights(times: Tensor, path: Any) -> tuple[Tensor, Tensor]:
    """What DPM-Solver++(3M) gives each new state: the last state's weight (S,), the predictions' (S, S).

    Read off the solver: with unit vectors for predictions its states are their weights. Gradients reach the times.
    """
    steps, seen = len(times) - 1, []

    def unit_vector(x: Tensor, t: Tensor) -> Tensor:
        seen.append(x)
        return torch.eye(steps, dtype=torch.float64)[len(seen) - 1 : len(seen)]

    start = torch.zeros(1, steps, dtype=torch.float64)
    plain = replace(path, predicts="data")
    seen.append(dpm_solver_pp(3)(unit_vector, start, times, plain))
    grid = lay(times, plain, None)
    decay = torch.stack([grid.decay_and_gain(i)[0] for i in range(steps)])
    rows = torch.cat(seen)
    return decay, rows[1:] - decay[:, None] * rows[:-1]


def generalised(states: Tensor, outputs: Tensor) -> Solver:
    """DPM-Solver++(3M) whose step i adds states[i, j] x_j + outputs[i, j] D_j over j <= i to its result; both (S, S).

    With noughts it is that solver. One call per interval.
    """
    assert states.shape == outputs.shape == (len(states), len(states)), f"{states.shape} and {outputs.shape}"

    def solve(
        network: Network, x: Tensor, times: Tensor, path: NoisePath = FLOW, network_times: Tensor | None = None
    ) -> Tensor:
        grid = lay(times, path, network_times)
        assert grid.steps == len(states), f"{grid.steps} intervals for corrections of {len(states)}"
        decay, weights = step_weights(grid.times, path)
        passed, predicted = [x], []
        for i in range(grid.steps):
            predicted.append(grid.ask(network, passed[i], i)[0])
            made = decay[i] * passed[i]
            for j in range(i + 1):
                made = made + (weights[i, j] + outputs[i, j]) * predicted[j] + states[i, j] * passed[j]
            passed.append(made)
        return passed[-1]

    return solve


def product_grid(path: NoisePath, theta: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Times and network times (S + 1,): t_n = (t_max - t_min) prod sigmoid(theta_j) + t_min for 0 < n < S.

    theta, offsets (S - 1,); offsets move what the network is told by up to half the smallest gap, as in LD3.
    """
    inner = torch.cumprod(torch.sigmoid(theta), 0) * (path.t_max - path.t_min) + path.t_min
    times = between_ends(path, torch.cat([inner[:1], inner, inner[:1]]))
    margin = float(times.detach().diff().abs().min()) / 2
    return times, between_ends(path, torch.cat([inner[:1], inner + offsets.clamp(-margin, margin), inner[:1]]))


def theta_of(path: NoisePath, times: Tensor) -> Tensor:
    """The theta (S - 1,) whose grid is the given times (S + 1,)."""
    left = (times.double() - path.t_min)[:-1]
    return torch.logit(left[1:] / left[:-1])


def curve_times(path: NoisePath, mode: Mode, logits: Tensor, steps: int) -> Tensor:
    """The grid (S + 1,) of a curve with logits (K + 1,): Bernstein polynomials over rising control points.

    Equal logits give equal steps of t, or of lambda, for every S (the curve is then a straight line).
    """
    controls, degree = fractions(logits), len(logits) - 1
    along = torch.linspace(0.0, 1.0, steps + 1, dtype=torch.float64)[:, None]
    rank = torch.arange(degree + 1, dtype=torch.float64)
    choose = torch.tensor([math.comb(degree, k) for k in range(degree + 1)], dtype=torch.float64)
    first, last = ends(path, mode)
    places = first + (choose * along**rank * (1 - along) ** (degree - rank)) @ controls * (last - first)
    return between_ends(path, path.time_of(places) if mode == "lambda" else places)


@dataclass(frozen=True)
class FitConfig:
    """Plain descent on the hard loss: Adam, clipped, and an average of the parameters that validation judges."""

    updates: int = 400
    batch: int = 16
    rate: float = 1e-3
    clip: float = 1.0
    average: float = 0.99
    every: int = 10  # updates between two validations
    seed: int = 0


@dataclass
class Fit:
    """Parameters on the way to the least distance between `sample(parameters, network, noise, turn)` and targets.

    `turn` counts updates (a curve trains another number of steps at each turn); validation asks turn 0 .. turns - 1.
    """

    config: FitConfig
    distance: Distance
    sample: Callable[[Parameters, Network, Tensor, int], Tensor]
    parameters: Parameters
    turns: int = 1
    best: Parameters = field(default_factory=dict)
    least: float = math.inf
    losses: list[float] = field(default_factory=list)  # validation

    def loss(self, parameters: Parameters, pairs: Pairs, index: Tensor, turn: int) -> Tensor:
        """Mean distance over some pairs."""
        made = self.sample(parameters, pairs.network(index), pairs.noise[index], turn)
        return self.distance(pairs.view(made, index), pairs.target[index]).mean()

    @torch.no_grad()
    def judge(self, average: Parameters, held: Pairs) -> None:
        """Keep the averaged parameters if they are the best on held-out pairs."""
        index = torch.arange(len(held.noise))
        value = sum(float(self.loss(average, held, index, turn)) for turn in range(self.turns)) / self.turns
        self.losses.append(value)
        if value < self.least:
            self.least, self.best = value, {name: tensor.clone() for name, tensor in average.items()}

    def run(self, train: Pairs, held: Pairs) -> Parameters:
        """The best parameters; those it began from where nothing was better, or losses were not finite."""
        config, order = self.config, random.Random(self.config.seed)
        live = {name: tensor.clone().requires_grad_() for name, tensor in self.parameters.items()}
        average = {name: tensor.clone() for name, tensor in self.parameters.items()}
        optimiser = torch.optim.Adam(live.values(), config.rate)
        self.best = {name: tensor.clone() for name, tensor in self.parameters.items()}
        self.judge(average, held)
        for turn in range(config.updates):
            index = torch.tensor(order.sample(range(len(train.noise)), min(config.batch, len(train.noise))))
            optimiser.zero_grad()
            self.loss(live, train, index, turn).backward()
            if not all(torch.isfinite(t.grad).all() for t in live.values() if t.grad is not None):
                break
            for tensor in live.values():
                tensor.grad = clipped(tensor.grad, config.clip) if tensor.grad is not None else None
            optimiser.step()
            for name, tensor in live.items():
                average[name].lerp_(tensor.detach(), 1 - min(config.average, (turn + 1) / (turn + 10)))
            if (turn + 1) % config.every == 0:
                self.judge(average, held)
        return self.best


def fit_generalised(
    path: NoisePath, start: Tensor, distance: Distance, train: Pairs, held: Pairs, config: FitConfig | None = None
) -> tuple[Solver, Tensor, Tensor]:
    """Learn GS from the times to begin from (S + 1,): its solver, times and network times. S >= 2."""
    steps, scale = len(start) - 1, start_scale(path)
    assert steps >= 2, f"{steps} steps leave no time to learn"
    zeros = torch.zeros(steps, steps, dtype=torch.float64)
    theta = theta_of(path, start)
    began = {"theta": theta, "offsets": torch.zeros_like(theta), "states": zeros, "outputs": zeros.clone()}

    def sample(now: Parameters, network: Network, noise: Tensor, turn: int) -> Tensor:
        times, told = product_grid(path, now["theta"], now["offsets"])
        return generalised(now["states"], now["outputs"])(network, noise * scale, times, path, told)

    best = Fit(config or FitConfig(), distance, sample, began).run(train, held)
    return generalised(best["states"], best["outputs"]), *product_grid(path, best["theta"], best["offsets"])


def fit_curve(
    path: NoisePath,
    mode: Mode,
    solver: Solver,
    steps: tuple[int, ...],
    distance: Distance,
    train: Pairs,
    held: Pairs,
    config: FitConfig | None = None,
    start: Tensor | None = None,
    controls: int = 32,
) -> Tensor:
    """Learn one curve for several numbers of steps: its logits (K + 1,), for `curve_times`.

    start: times (K + 1,) that the control points begin at; a straight line without.
    """
    scale = start_scale(path)
    logits = torch.ones(controls, dtype=torch.float64) if start is None else logits_of(path, mode, start)

    def sample(now: Parameters, network: Network, noise: Tensor, turn: int) -> Tensor:
        times = curve_times(path, mode, now["logits"], steps[turn % len(steps)])
        return solver(network, noise * scale, times, path)

    fit = Fit(config or FitConfig(rate=2e-2), distance, sample, {"logits": logits}, turns=len(steps))
    return fit.run(train, held)["logits"]


def start_scale(path: NoisePath) -> float:
    """sigma at t_max: what unit noise is multiplied by."""
    return float(path.sigma(torch.tensor(path.t_max, dtype=torch.float64)))
