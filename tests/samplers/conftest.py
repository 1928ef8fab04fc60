"""Data distributions whose exact predictions are known: one Gaussian (with the exact ODE solution), and mixtures."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from generator.samplers.grids import edm_rho, uniform_time
from generator.samplers.learned_times import Pairs
from generator.samplers.paths import FlowMatching, NoisePath, VarianceExploding, VariancePreserving
from generator.samplers.solvers import dpm_solver_pp

WIDE = torch.float64
PATHS = {"flow": FlowMatching(), "vp": VariancePreserving(), "ve": VarianceExploding()}


def spanning(name: str, start: float, end: float) -> NoisePath:
    """A path cut to sigma / alpha from `start` to `end`."""
    t_max, t_min = PATHS[name].time_of(-torch.tensor([start, end], dtype=WIDE).log()).tolist()
    return replace(PATHS[name], t_max=t_max, t_min=t_min)


@dataclass(frozen=True)
class Mixture:
    """Equal parts of N(mean_k, spread^2), means (K, D), spread (D,)."""

    means: Tensor
    spread: Tensor

    def clean(self, path: NoisePath, x: Tensor, t: Tensor) -> Tensor:
        """E[data | x_t = x] for x (B, D)."""
        alpha, sigma = path.alpha(t), path.sigma(t)
        variance = alpha**2 * self.spread**2 + sigma**2
        away = x[:, None] - alpha * self.means
        share = torch.softmax(-(away**2 / variance).sum(-1) / 2, 1)
        return (share[..., None] * (self.means + alpha * self.spread**2 / variance * away)).sum(1)

    def network(self, path: NoisePath) -> Callable[[Tensor, Tensor], Tensor]:
        """The perfect network, in the terms that the path's network predicts; noise by Tweedie, finite at sigma 0."""

        def predict(x: Tensor, t: Tensor) -> Tensor:
            data = self.clean(path, x, t)
            if path.predicts == "data":
                return data
            if len(self.means) == 1:
                alpha, sigma = path.alpha(t), path.sigma(t)
                noise = sigma / (alpha**2 * self.spread**2 + sigma**2) * (x - alpha * self.means[0])
            else:
                noise = (x - path.alpha(t) * data) / path.sigma(t)
            alpha_rate, sigma_rate = path.rates(t)
            return noise if path.predicts == "noise" else alpha_rate * data + sigma_rate * noise

        return predict

    def start(self, path: NoisePath, unit_noise: Tensor) -> Tensor:
        return float(path.sigma(torch.tensor(path.t_max, dtype=WIDE))) * unit_noise

    def end(self, path: NoisePath, x: Tensor) -> Tensor:
        """The exact solution at t_min from x at t_max, for one Gaussian: (x - alpha mean) / std is constant."""
        assert len(self.means) == 1
        t = torch.tensor([path.t_max, path.t_min], dtype=WIDE)[:, None]
        alpha, sigma = path.alpha(t), path.sigma(t)
        std = (alpha**2 * self.spread**2 + sigma**2).sqrt()
        return alpha[1] * self.means[0] + std[1] / std[0] * (x - alpha[0] * self.means[0])

    def pairs(self, path: NoisePath, count: int, seed: int) -> Pairs:
        """Noises and what hundreds of steps of third order make of them."""
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(count, self.means.shape[1], dtype=WIDE, generator=generator)
        network = self.network(path)
        with torch.no_grad():
            times = edm_rho(path, 200) if path.alpha(torch.tensor(path.t_max)) > 0 else uniform_time(path, 400)
            target = dpm_solver_pp(3)(network, self.start(path, noise), times, path)
        return Pairs(noise, target, lambda index: network)


@pytest.fixture(scope="session")
def paths():
    return PATHS


@pytest.fixture(scope="session")
def make_span():
    return spanning


@pytest.fixture(scope="session")
def gaussian() -> Mixture:
    return Mixture(torch.tensor([[0.7, -0.3, 0.1]], dtype=WIDE), torch.tensor([0.5, 1.0, 1.4], dtype=WIDE))


@pytest.fixture(scope="session")
def make_mixture():
    def make(parts: int, size: int, spread: float, seed: int = 1) -> Mixture:
        means = torch.randn(parts, size, dtype=WIDE, generator=torch.Generator().manual_seed(seed))
        return Mixture(means, torch.full((size,), spread, dtype=WIDE))

    return make


@pytest.fixture(scope="session")
def slope() -> Callable[[list[int], list[float]], float]:
    """Minus the least-squares slope of log error against log steps."""

    def fit(steps: list[int], errors: list[float]) -> float:
        x = [math.log(s) for s in steps]
        y = [math.log(e) for e in errors]
        mx, my = sum(x) / len(x), sum(y) / len(y)
        return -sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / sum((a - mx) ** 2 for a in x)

    return fit
