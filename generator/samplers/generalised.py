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
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from generator.samplers.grids import between_ends
from generator.samplers.learned_times import Distance, Mode, Pairs, clipped, ends, fractions, logits_of, recomputed
from generator.samplers.paths import NoisePath
from generator.samplers.solvers import ADAMS_BASHFORTH, FLOW, Network, Solver, dpm_solver_pp, lay

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


def ipndm_weights(times: Tensor, told: Tensor, order: int, path: NoisePath) -> tuple[Tensor, Tensor]:
    """What iPNDM of this order gives each new state on times (S + 1,) whose network is told others: the weights of all
    past states and of all past predictions of the data, both (S, S). Noise is what a state and its prediction leave.
    """
    grid = lay(times, path, told)
    states, outputs = (torch.zeros(grid.steps, grid.steps, dtype=torch.float64) for _ in range(2))
    alpha, sigma = path.alpha(grid.network_times), path.sigma(grid.network_times)
    for i in range(grid.steps):
        if grid.is_noise(i):
            outputs[i, i], share = grid.alpha[i + 1], grid.sigma[i + 1]
        else:
            ratio = grid.alpha[i + 1] / grid.alpha[i]
            states[i, i], share = ratio, grid.sigma[i + 1] - ratio * grid.sigma[i]
        for back, weight in enumerate(ADAMS_BASHFORTH[min(order, i + 1)]):
            j = i - back
            states[i, j] += share * weight / sigma[j]
            outputs[i, j] -= share * weight * alpha[j] / sigma[j]
    return states, outputs


def as_corrections(times: Tensor, told: Tensor, order: int, path: NoisePath) -> Parameters:
    """What `begin_generalised` begins from to be iPNDM of this order on times (S + 1,) with network times `told`."""
    decay, weights = step_weights(times.double(), path)
    states, outputs = ipndm_weights(times, told, order, path)
    offsets = (told.double() - times.double())[1:-1]
    theta = theta_of(path, times)
    return {"theta": theta, "offsets": offsets, "states": states - decay.diag(), "outputs": outputs - weights}


def generalised(states: Tensor, outputs: Tensor, base: tuple[Tensor, Tensor] | None = None) -> Solver:
    """DPM-Solver++(3M) whose step i adds states[i, j] x_j + outputs[i, j] D_j over j <= i to its result; both (S, S).

    With noughts it is that solver. One call per interval. base: `step_weights` of the times, where they never change.
    """
    assert states.shape == outputs.shape == (len(states), len(states)), f"{states.shape} and {outputs.shape}"

    def solve(
        network: Network, x: Tensor, times: Tensor, path: NoisePath = FLOW, network_times: Tensor | None = None
    ) -> Tensor:
        grid = lay(times, path, network_times)
        assert grid.steps == len(states), f"{grid.steps} intervals for corrections of {len(states)}"
        decay, weights = step_weights(grid.times, path) if base is None else base
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
    held_batch: int = 64
    rate: float = 1e-3
    clip: float = 1.0
    average: float = 0.99
    every: int = 10  # updates between two validations
    recompute: bool = False  # checkpoint every network call
    seed: int = 0


class Fit:
    """Parameters on the way to the least distance between `sample(parameters, network, noise, turn)` and targets.

    `turn` counts updates (a curve trains another number of steps at each turn); validation asks turn 0 .. turns - 1.
    `advance` until `done`; then `best`, or what it began from where nothing was better or losses were not finite.
    `state` and `restore` are all that a stopped run needs.
    """

    def __init__(
        self,
        config: FitConfig,
        distance: Distance,
        sample: Callable[[Parameters, Network, Tensor, int], Tensor],
        parameters: Parameters,
        train: Pairs,
        held: Pairs,
        turns: int = 1,
    ) -> None:
        self.config, self.distance, self.sample, self.turns = config, distance, sample, turns
        self.train, self.held = train, held
        zeros = {name: torch.zeros_like(tensor) for name, tensor in parameters.items()}
        self.kept = {"live": parameters, "average": parameters, "best": parameters, "first": zeros, "second": zeros}
        self.update, self.least, self.fault = 0, math.inf, ""
        self.losses: list[tuple[float, float]] = []  # training and the last validation, after each update

    @property
    def done(self) -> bool:
        return self.update >= self.config.updates or bool(self.fault)

    @property
    def best(self) -> Parameters:
        return self.kept["best"]

    def loss(self, parameters: Parameters, pairs: Pairs, index: Tensor, turn: int) -> Tensor:
        """Distances of some pairs (B,)."""
        network = pairs.network(index)
        asked = recomputed(network) if self.config.recompute and torch.is_grad_enabled() else network
        made = self.sample(parameters, asked, pairs.noise[index], turn)
        return self.distance(pairs.view(made, index), pairs.target[index])

    @torch.no_grad()
    def validate(self) -> float:
        """Mean distance of the averaged parameters over the held-out pairs and all turns."""
        parameters = self.kept["average"]
        parts = torch.arange(len(self.held.noise)).split(self.config.held_batch)
        turns = range(self.turns)
        return float(
            torch.cat([self.loss(parameters, self.held, part, turn) for turn in turns for part in parts]).mean()
        )

    def judge(self) -> float:
        """Keep the averaged parameters if they are the best on held-out pairs; their loss."""
        value = self.validate()
        if value < self.least:
            self.least, self.kept["best"] = value, self.kept["average"]
        return value

    def advance(self) -> None:
        """One update, and a validation when it is due."""
        config = self.config
        judged = self.judge() if self.update == 0 else self.losses[-1][1]
        order = random.Random(f"{config.seed}/{self.update}")
        count = len(self.train.noise)
        index = torch.tensor(order.sample(range(count), min(config.batch, count)))
        live = {name: tensor.detach().requires_grad_() for name, tensor in self.kept["live"].items()}
        loss = self.loss(live, self.train, index, self.update).mean()
        loss.backward()
        slopes = {name: tensor.grad for name, tensor in live.items()}
        if not all(slope is not None and torch.isfinite(slope).all() for slope in slopes.values()):
            self.fault = f"the loss was not finite (update {self.update})"
            return
        self._step({name: clipped(slope, config.clip) for name, slope in slopes.items()})
        self.update += 1
        if self.update % config.every == 0 or self.update == config.updates:
            judged = self.judge()
        self.losses.append((float(loss.detach()), judged))

    @torch.no_grad()
    def _step(self, slopes: Parameters) -> None:
        """Adam, and the average of what it passes through."""
        kept, count = self.kept, self.update + 1
        mixed = min(self.config.average, count / (count + 9))
        moved: dict[str, Parameters] = {"live": {}, "average": {}, "first": {}, "second": {}}
        for name, slope in slopes.items():
            first = 0.9 * kept["first"][name] + 0.1 * slope
            second = 0.999 * kept["second"][name] + 0.001 * slope.square()
            step = first / (1 - 0.9**count) / ((second / (1 - 0.999**count)).sqrt() + 1e-8)
            live = kept["live"][name] - self.config.rate * step
            average = mixed * kept["average"][name] + (1 - mixed) * live
            for where, tensor in zip(moved, (live, average, first, second), strict=True):
                moved[where][name] = tensor
        self.kept = {**kept, **moved}

    def run(self) -> Parameters:
        """To the end."""
        while not self.done:
            self.advance()
        return self.best

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors by name and plain numbers."""
        tensors = {
            f"{where}.{name}": tensor.clone() for where, kept in self.kept.items() for name, tensor in kept.items()
        }
        return tensors, {"update": self.update, "least": self.least, "fault": self.fault, "losses": list(self.losses)}

    def restore(self, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        self.kept = {where: {name: tensors[f"{where}.{name}"] for name in kept} for where, kept in self.kept.items()}
        self.update, self.least, self.fault = numbers["update"], numbers["least"], numbers["fault"]
        self.losses = [(t, v) for t, v in numbers["losses"]]


def begin_generalised(
    path: NoisePath,
    start: Tensor,
    distance: Distance,
    train: Pairs,
    held: Pairs,
    config: FitConfig,
    began: Parameters | None = None,
) -> Fit:
    """GS from the times to begin from (S + 1,), S >= 2, before its first update; DPM-Solver++(3M) there, unless it
    `began` otherwise (`as_corrections`).
    """
    steps, scale = len(start) - 1, start_scale(path)
    assert steps >= 2, f"{steps} steps leave no time to learn"
    zeros, theta = torch.zeros(steps, steps, dtype=torch.float64), theta_of(path, start)

    def sample(now: Parameters, network: Network, noise: Tensor, turn: int) -> Tensor:
        times, told = product_grid(path, now["theta"], now["offsets"])
        return generalised(now["states"], now["outputs"])(network, noise * scale, times, path, told)

    plain = {"theta": theta, "offsets": torch.zeros_like(theta), "states": zeros, "outputs": zeros.clone()}
    return Fit(config, distance, sample, began or plain, train, held)


def fit_generalised(
    path: NoisePath, start: Tensor, distance: Distance, train: Pairs, held: Pairs, config: FitConfig | None = None
) -> tuple[Solver, Tensor, Tensor]:
    """Learn GS from the times to begin from (S + 1,): its solver, times and network times."""
    best = begin_generalised(path, start, distance, train, held, config or FitConfig()).run()
    return generalised(best["states"], best["outputs"]), *product_grid(path, best["theta"], best["offsets"])


def begin_curve(
    path: NoisePath,
    mode: Mode,
    solver: Solver,
    steps: tuple[int, ...],
    distance: Distance,
    train: Pairs,
    held: Pairs,
    config: FitConfig,
    logits: Tensor,
) -> Fit:
    """One curve for several numbers of steps, before its first update; its logits (K + 1,) are for `curve_times`."""
    scale = start_scale(path)

    def sample(now: Parameters, network: Network, noise: Tensor, turn: int) -> Tensor:
        times = curve_times(path, mode, now["logits"], steps[turn % len(steps)])
        return solver(network, noise * scale, times, path)

    return Fit(config, distance, sample, {"logits": logits}, train, held, turns=len(steps))


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
    logits = torch.ones(controls, dtype=torch.float64) if start is None else logits_of(path, mode, start)
    chosen = config or FitConfig(rate=2e-2)
    return begin_curve(path, mode, solver, steps, distance, train, held, chosen, logits).run()["logits"]


def start_scale(path: NoisePath) -> float:
    """sigma at t_max: what unit noise is multiplied by."""
    return float(path.sigma(torch.tensor(path.t_max, dtype=torch.float64)))
