"""LD3: learn the times of a sampler so that few steps land where a teacher's many steps do (papers/ld3.md).

The student starts within a small ball around the teacher's noise (soft objective) and is differentiated as a whole.
Logits give the grid; offsets give the times that the network is told. Everything random comes from (seed, round), and
`Learner.state` holds all that a stopped run needs to go on as if it had not stopped.

Where the notes are silent and the choice is ours, the docstring says "ours".

Does not know about networks, decoders, perceptual distances, files or which world it serves.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from generator.samplers.grids import between_ends, finite_ends
from generator.samplers.paths import NoisePath, log_snr
from generator.samplers.solvers import Network, Solver

Mode = Literal["time", "lambda"]
TRACE = 1e-9
Distance = Callable[[Tensor, Tensor], Tensor]  # samples and targets (B, ...) to (B,)


def l2(sample: Tensor, target: Tensor) -> Tensor:
    """Mean square over a sample (B,)."""
    return (sample - target).square().flatten(1).mean(1)


def l1(sample: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference over a sample (B,)."""
    return (sample - target).abs().flatten(1).mean(1)


def fractions(logits: Tensor) -> Tensor:
    """n = (c - c_0) / (c_N - c_0) with c = cumsum(softmax(logits)): rises from 0 to 1 (LD3, notes section 1).

    A trace of the uniform grid keeps it rising where a softmax would round to nought (ours).
    """
    shares = (1 - TRACE) * torch.softmax(logits[1:], 0) + TRACE / (len(logits) - 1)  # the first logit cancels
    summed = torch.cumsum(torch.cat([torch.zeros_like(shares[:1]), shares]), 0)
    return summed / summed[-1]


def ends(path: NoisePath, mode: Mode) -> tuple[float, float]:
    """The coordinate of the grid at t_max and at t_min: t itself or lambda."""
    return (path.t_max, path.t_min) if mode == "time" else finite_ends(path)


def grid_of(path: NoisePath, mode: Mode, logits: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Times and network times (N + 1,) of logits and offsets (N + 1,).

    Offsets act in the grid's own coordinate, not at the ends, and up to half the smallest gap of the grid: the margin
    is measured on the grid, without gradient (the released code measures it on the logits in lambda mode).
    """
    first, last = ends(path, mode)
    places = first + fractions(logits) * (last - first)
    margin = float(places.detach().diff().abs().min()) / 2
    asked = places + offsets.clamp(-margin, margin)
    if mode == "lambda":
        places, asked = path.time_of(places), path.time_of(asked)
    return between_ends(path, places), between_ends(path, asked)


def logits_of(path: NoisePath, mode: Mode, times: Tensor) -> Tensor:
    """Logits whose grid is the given times: the log of each gap (ours; LD3 starts at ones, the uniform grid)."""
    places = times.to(torch.float64)
    if mode == "lambda":
        places = log_snr(path, places)
    gaps = places.diff().abs().log()
    return torch.cat([gaps.mean()[None], gaps])  # the first logit cancels


def as_it_is(sample: Tensor, index: Tensor) -> Tensor:
    """Samples compared as they are."""
    return sample


@dataclass(frozen=True)
class Pairs:
    """Unit noises (M, ...) and what is to be seen of the teacher's outputs for them (M, ...).

    `network` serves the samples of given indices; `view` turns samples of given indices into what is compared with
    the targets, decoded pictures say.
    """

    noise: Tensor
    target: Tensor
    network: Callable[[Tensor], Network]
    view: Callable[[Tensor, Tensor], Tensor] = as_it_is


def project(noise: Tensor, centre: Tensor, radius: float) -> Tensor:
    """The nearest point of the L2 ball around each centre (B, ...), in unit-noise coordinates."""
    away = (noise - centre).flatten(1)
    length = away.norm(dim=1, keepdim=True)
    return centre + (away * (radius / length.clamp(min=radius))).view_as(centre)


@dataclass(frozen=True)
class LearnConfig:
    """LD3's numbers for pixels; latent models take mode "time", both_rounds 3, batch 1 and offset_rate 1e-3."""

    steps: int  # N intervals: the NFE, twice that for Heun
    mode: Mode = "lambda"
    soft: bool = True
    decoupled: bool = True
    grid_rounds: int = 2  # over all pairs, logits alone
    both_rounds: int = 5  # logits and offsets
    batch: int = 2
    held_batch: int = 50
    rate: float = 5e-3  # RMSprop on the logits
    momentum: float = 0.9
    offset_rate: float = 0.1  # SGD, over N
    noise_rate: float = 12.0  # SGD, over N
    clip: float = 1.0
    ball: float = 1e-3  # radius = ball x numbers in a sample / N^2
    patience: int = 5  # validations without progress
    decay: float = 0.8
    recompute: bool = False  # checkpoint every network call: one call's activations at a time
    unit: float = 1.0  # the size of the loss that the rates are meant for: about LPIPS's. Ours for other distances
    seed: int = 0

    def __post_init__(self) -> None:
        assert self.steps >= 2, f"{self.steps} steps leave no time to learn"
        assert self.unit > 0, f"a loss in units of {self.unit}"
        assert self.ball > 0, f"a ball of {self.ball}; the hard objective is soft=False"


@dataclass
class Progress:
    """Where a run stands, in plain numbers."""

    round: int = 0
    position: int = 0  # batches done in this round
    rate: float = 1.0  # factor on both learning rates
    noise_rate: float = 1.0
    best: float = math.inf
    chosen: float = math.inf  # validation loss of the chosen parameters from unmoved noises
    stale: int = 0
    broken: int = 0  # losses that were not finite
    losses: list[tuple[float, float]] = field(default_factory=list)  # training, validation; one pair per update


class Learner:
    """One run of LD3: `advance` until `done`, then `result`. Tensors of coefficients are float64."""

    def __init__(
        self,
        config: LearnConfig,
        path: NoisePath,
        solver: Solver,
        distance: Distance,
        train: Pairs,
        held: Pairs,
        start: Tensor | None = None,
    ) -> None:
        """start: times (N + 1,) to begin from; the uniform grid of the mode without."""
        assert start is None or len(start) == config.steps + 1, f"{start} for {config.steps} steps"
        self.config, self.path, self.solver, self.distance = config, path, solver, distance
        self.pairs = {"train": train, "held": held}
        ones = torch.ones(config.steps + 1, dtype=torch.float64)
        logits = ones if start is None else logits_of(path, config.mode, start)
        zeros = torch.zeros_like(ones)
        self.tensors = {"logits": logits, "offsets": zeros.clone(), "square": zeros.clone(), "momentum": zeros.clone()}
        self.tensors |= {name: pairs.noise.clone() for name, pairs in self.pairs.items()}
        self.best = {name: tensor.clone() for name, tensor in self.tensors.items()}
        self.chosen = {name: self.tensors[name].clone() for name in ("logits", "offsets")}
        self.progress = Progress()
        t_max = torch.tensor(path.t_max, dtype=torch.float64)
        self.scale = float(path.sigma(t_max))  # the network's start is alpha(t_max) 0 + sigma(t_max) noise
        self.radius = config.ball * train.noise[0].numel() / config.steps**2

    @property
    def done(self) -> bool:
        rounds = self.config.grid_rounds + (self.config.both_rounds if self.config.decoupled else 0)
        return self.progress.round >= rounds or bool(self.fault)

    @property
    def fault(self) -> str:
        """Why the run cannot go on, as a sentence; the best grid so far stays valid. Ours."""
        if self.progress.broken < self.config.patience:
            return ""
        return f"the loss was not finite {self.progress.broken} times (round {self.progress.round})"

    @property
    def losses(self) -> list[tuple[float, float]]:
        """Training and validation loss after each update."""
        return self.progress.losses

    def grid(self, best: bool = False) -> tuple[Tensor, Tensor]:
        """Times and network times of the current parameters, or of those that are `best` from unmoved noises."""
        if best:
            self.choose()
        return self._grid(self.chosen if best else self.tensors)

    def _grid(self, among: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return grid_of(self.path, self.config.mode, among["logits"].detach(), among["offsets"].detach())

    def distances(self, which: str, index: Tensor, noise: Tensor, grid: tuple[Tensor, Tensor]) -> Tensor:
        """d(student(noise), teacher) for some samples (B,): the objective of LD3, notes section 2."""
        pairs = self.pairs[which]
        network = pairs.network(index)
        asked = recomputed(network) if self.config.recompute and torch.is_grad_enabled() else network
        sample = self.solver(asked, noise * self.scale, grid[0], self.path, grid[1])
        return self.distance(pairs.view(sample, index), pairs.target[index])

    @torch.no_grad()
    def validate(self) -> float:
        """Mean distance over the held-out pairs from their relaxed noises."""
        return self._held_loss(self.tensors["held"], self.grid())

    def _held_loss(self, held: Tensor, grid: tuple[Tensor, Tensor]) -> float:
        batches = torch.arange(len(held)).split(self.config.held_batch)
        return float(torch.cat([self.distances("held", index, held[index], grid) for index in batches]).mean())

    @torch.no_grad()
    def choose(self) -> None:
        """Choose the best parameters if they are better than those chosen before, from the held-out noises as drawn.

        Ours: noises that have moved to suit some parameters praise them. In 1,024 dimensions, where the ball is wide,
        that chose grids for three calls that were 1.2 to 1.8 times as far off as the one begun from (LOG.md).
        """
        loss = self._held_loss(self.pairs["held"].noise, self._grid(self.best))
        if loss < self.progress.chosen:
            self.progress.chosen = loss
            self.chosen = {name: self.best[name].clone() for name in self.chosen}

    def batches(self) -> list[Tensor]:
        """The order of this round, from (seed, round)."""
        order = list(range(len(self.tensors["train"])))
        random.Random(f"{self.config.seed}/{self.progress.round}").shuffle(order)
        return list(torch.tensor(order).split(self.config.batch))

    def advance(self) -> None:
        """One update, with what begins and ends a round around it."""
        at = self.progress
        if at.position == 0:
            self.begin_round()
        batches = self.batches()
        self.update(batches[at.position])
        at.position += 1
        if at.position == len(batches):
            self.end_round()
            at.round, at.position = at.round + 1, 0

    def begin_round(self) -> None:
        """From the best parameters, judged by the noises as they are now; the noises of the run stay."""
        for name in ("logits", "offsets"):
            self.tensors[name] = self.best[name].clone()
        self.choose()
        self.progress.stale, self.progress.best = 0, math.inf
        self.judge(self.validate())

    def update(self, index: Tensor) -> None:
        """Step the parameters and the noise, validate, then keep the moved noise where the loss fell."""
        logits, offsets = (self.tensors[name].detach().requires_grad_() for name in ("logits", "offsets"))
        noise = self.tensors["train"][index].requires_grad_(self.config.soft)
        grid = grid_of(self.path, self.config.mode, logits, offsets)
        before = self.distances("train", index, noise, grid)
        (before.mean() / self.config.unit).backward()
        gradients = [part.grad for part in (logits, offsets)]
        if not all(part is not None and torch.isfinite(part).all() for part in (before, *gradients)):
            self.progress.broken += 1
            self.progress.losses.append((math.nan, math.nan))
            self.back_to_best()
            return
        self.step_parameters(*(clipped(gradient, self.config.clip) for gradient in gradients))
        judged = self.validate()
        self.progress.losses.append((float(before.detach().mean()), judged))
        self.judge(judged)
        if noise.grad is not None:
            self.relax("train", index, noise, before.detach())

    @torch.no_grad()
    def step_parameters(self, logits: Tensor, offsets: Tensor) -> None:
        """RMSprop with momentum on the logits, plain descent on the offsets once their rounds have come."""
        config, at, now = self.config, self.progress, self.tensors
        now["square"] = 0.99 * now["square"] + 0.01 * logits.square()
        now["momentum"] = config.momentum * now["momentum"] + logits / (now["square"].sqrt() + 1e-8)
        now["logits"] = now["logits"] - config.rate * at.rate * now["momentum"]
        if config.decoupled and at.round >= config.grid_rounds:
            now["offsets"] = now["offsets"] - config.offset_rate / config.steps * at.rate * offsets

    def judge(self, loss: float) -> None:
        """Keep the best by validation; after `patience` without progress go back to it with a lower rate."""
        at = self.progress
        at.broken += not math.isfinite(loss)
        if loss < at.best:
            at.best, at.stale = loss, 0
            self.best = {name: tensor.clone() for name, tensor in self.tensors.items()}
            return
        at.stale += 1
        if at.stale >= self.config.patience:
            self.back_to_best()

    def back_to_best(self) -> None:
        """Parameters and noises of the best validation; the optimiser's averages stay (ours)."""
        for name in ("logits", "offsets", *self.pairs):
            self.tensors[name] = self.best[name].clone()
        self.progress.rate *= self.config.decay
        self.progress.stale = 0

    @torch.no_grad()
    def relax(self, which: str, index: Tensor, noise: Tensor, before: Tensor) -> bool:
        """The soft objective: noises move down their gradient within the ball where that lowers the loss (any did)."""
        assert noise.grad is not None, "a noise without a gradient"
        step = self.config.noise_rate / self.config.steps * self.progress.noise_rate
        moved = project(noise - step * noise.grad, self.pairs[which].noise[index], self.radius)
        fell = self.distances(which, index, moved, self.grid()) < before
        self.tensors[which][index[fell]] = moved[fell]
        return bool(fell.any())

    def end_round(self) -> None:
        """Relax the held-out noises too. Where none moved, the noise step halves (released code)."""
        if not self.config.soft:
            return
        any_moved = False
        for index in torch.arange(len(self.tensors["held"])).split(self.config.batch):
            noise = self.tensors["held"][index].requires_grad_()
            before = self.distances("held", index, noise, self.grid())
            (before.mean() / self.config.unit).backward()
            any_moved |= self.relax("held", index, noise, before.detach())
        if not any_moved:
            self.progress.noise_rate *= 0.5

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors by name and plain numbers; `restore` takes them back."""
        best = {f"best.{name}": tensor for name, tensor in self.best.items()}
        best |= {f"chosen.{name}": tensor for name, tensor in self.chosen.items()}
        tensors = {name: tensor.clone() for name, tensor in {**self.tensors, **best}.items()}
        return tensors, {**vars(self.progress), "losses": list(self.progress.losses)}

    def restore(self, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        for name in self.tensors:
            self.tensors[name], self.best[name] = tensors[name].clone(), tensors[f"best.{name}"].clone()
        for name in self.chosen:
            self.chosen[name] = tensors.get(f"chosen.{name}", tensors[f"best.{name}"]).clone()
        self.progress = Progress(**{**numbers, "losses": [(t, v) for t, v in numbers["losses"]]})


def clipped(gradient: Tensor | None, limit: float) -> Tensor:
    """A gradient of at most a given length."""
    assert gradient is not None, "no gradient reached the parameters"
    return gradient * (limit / gradient.norm().clamp(min=limit))


def recomputed(network: Network) -> Network:
    """The network without stored activations: its calls run again in the backward pass."""

    def call(x: Tensor, t: Tensor) -> Tensor:
        made: Tensor = checkpoint(network, x, t, use_reentrant=False)
        return made

    return call


def learn(learner: Learner, after: Callable[[Learner], None] = lambda learner: None) -> tuple[Tensor, Tensor]:
    """Run to the end; `after` hears of every update (progress bars, resume files). The best times and network times."""
    while not learner.done:
        learner.advance()
        after(learner)
    return learner.grid(best=True)
