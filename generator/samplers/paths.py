"""Noise paths x_t = alpha(t) data + sigma(t) noise: flow matching, variance preserving, variance exploding.

Every path runs from t_max (noise) to t_min (data) and says what its network predicts: "velocity" is dx_t/dt on the
path, alpha' data + sigma' noise (noise - data for flow matching); "noise" and "data" speak for themselves.
log_snr is lambda = log(alpha / sigma), half the log of the signal-to-noise power, as in DPM-Solver. It is infinite
where alpha or sigma is nought, as at both ends of flow matching.

Does not know about solvers, networks or how times are chosen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn.functional import softplus

Predicts = Literal["velocity", "noise", "data"]


class NoisePath(Protocol):
    """What a solver asks of a path. Times and log_snr are float64 tensors of any shape."""

    @property
    def t_max(self) -> float: ...
    @property
    def t_min(self) -> float: ...
    @property
    def predicts(self) -> Predicts: ...
    def alpha(self, t: Tensor) -> Tensor: ...
    def sigma(self, t: Tensor) -> Tensor: ...
    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]: ...  # d alpha / dt, d sigma / dt
    def time_of(self, log_snr: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class FlowMatching:
    """alpha = 1 - t, sigma = t (AAPT section 3.3)."""

    predicts: Predicts = "velocity"
    t_max: float = 1.0
    t_min: float = 0.0

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return -torch.ones_like(t), torch.ones_like(t)

    def time_of(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(-log_snr)


@dataclass(frozen=True)
class VariancePreserving:
    """alpha^2 + sigma^2 = 1 with a linear beta(t) (Song et al. 2021, appendix C). t_min > 0, for sigma'(0) = inf."""

    predicts: Predicts = "noise"
    t_max: float = 1.0
    t_min: float = 1e-3
    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        assert 0 < self.t_min < self.t_max, f"times from {self.t_max} to {self.t_min}"

    def log_alpha(self, t: Tensor) -> Tensor:
        return -(self.beta_max - self.beta_min) * t**2 / 4 - self.beta_min * t / 2

    def alpha(self, t: Tensor) -> Tensor:
        return self.log_alpha(t).exp()

    def sigma(self, t: Tensor) -> Tensor:
        return (-torch.expm1(2 * self.log_alpha(t))).sqrt()

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha' = -beta alpha / 2; sigma sigma' = -alpha alpha'."""
        beta = self.beta_min + (self.beta_max - self.beta_min) * t
        alpha = self.alpha(t)
        return -beta * alpha / 2, beta * alpha**2 / (2 * self.sigma(t))

    def time_of(self, log_snr: Tensor) -> Tensor:
        """-2 log alpha = log(1 + e^(-2 lambda)), then the positive root of the quadratic in t, free of cancellation."""
        doubled = softplus(-2 * log_snr)
        half, rise = self.beta_min / 2, self.beta_max - self.beta_min
        return doubled / (half + (half**2 + rise * doubled / 2).sqrt())


@dataclass(frozen=True)
class VarianceExploding:
    """alpha = 1, sigma = t (EDM, Karras et al. 2022, section 5: s = 1, sigma = t)."""

    predicts: Predicts = "data"
    t_max: float = 80.0
    t_min: float = 2e-3

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(t), torch.ones_like(t)

    def time_of(self, log_snr: Tensor) -> Tensor:
        return torch.exp(-log_snr)


def log_snr(path: NoisePath, t: Tensor) -> Tensor:
    """lambda = log(alpha / sigma); infinite where one of them is nought."""
    return torch.log(path.alpha(t) / path.sigma(t))


def log_snr_ends(path: NoisePath) -> tuple[float, float]:
    """lambda at t_max and at t_min."""
    at_max, at_min = log_snr(path, torch.tensor([path.t_max, path.t_min], dtype=torch.float64)).tolist()
    return at_max, at_min


def data_and_noise(path: NoisePath, x: Tensor, output: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """What the network's output at (x, t) says the data and the noise are: the path's equation, solved. t is 0-dim."""
    alpha, sigma = path.alpha(t), path.sigma(t)
    if path.predicts == "velocity":
        alpha_rate, sigma_rate = path.rates(t)
        turn = alpha * sigma_rate - alpha_rate * sigma
        return (sigma_rate * x - sigma * output) / turn, (alpha * output - alpha_rate * x) / turn
    if path.predicts == "noise":
        assert float(alpha.detach()) > 0, f"a noise prediction says nothing about the data at t = {t}"
        return (x - sigma * output) / alpha, output
    assert float(sigma.detach()) > 0, f"a data prediction says nothing about the noise at t = {t}"
    return output, (x - alpha * output) / sigma


def times_fault(times: Tensor, path: NoisePath) -> str:
    """What is wrong with a grid of times (S + 1,) for this path, as a sentence; "" if nothing is.

    A grid falls strictly from t_max to t_min. Ends may differ by a float32's rounding.
    """
    if times.dim() != 1 or len(times) < 2:
        return f"a grid is a list of at least two times, and this has the shape {tuple(times.shape)}"
    listed = times.detach().tolist()
    if not all(math.isfinite(t) for t in listed):
        return f"the grid has a time that is not finite: {listed}"
    if any(after >= now for now, after in pairwise(listed)):
        return f"the grid does not fall from each time to the next: {listed}"
    for end, due, name in ((listed[0], path.t_max, "starts"), (listed[-1], path.t_min, "ends")):
        if not math.isclose(end, due, rel_tol=1e-6, abs_tol=1e-9):
            return f"the grid {name} at {end}, and the path {name} at {due}"
    return ""


def network_times_fault(network_times: Tensor, times: Tensor) -> str:
    """What is wrong with decoupled network times for this grid, as a sentence; "" if nothing is."""
    if network_times.shape != times.shape:
        return f"{tuple(network_times.shape)} network times for {tuple(times.shape)} times"
    asked, listed = network_times.detach().tolist(), times.detach().tolist()
    if asked[0] != listed[0] or asked[-1] != listed[-1]:
        return f"network times run from {asked[0]} to {asked[-1]}, and the grid from {listed[0]} to {listed[-1]}"
    if not all(listed[-1] <= t <= listed[0] for t in asked):
        return f"a network time lies outside the grid: {asked}"
    return ""
