"""Problems whose sampling ODE is known: mixtures of Gaussians with the exact prediction, on every noise path.

Shape key: K parts of a mixture, D dimensions, B samples, S + 1 times.
What a network would have to learn is given by a formula, so an error here is the solver's and its grid's alone. The
end of the ODE is found by classical Runge-Kutta in float64, which is none of the solvers under test.

Does not know about solvers, grids, learning or tables.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from generator.samplers.grids import edm_rho, quadratic_time, uniform_time
from generator.samplers.learned_times import Mode, Pairs
from generator.samplers.paths import FlowMatching, NoisePath, VarianceExploding, VariancePreserving, log_snr_ends
from generator.samplers.solvers import Network

WIDE = torch.float64
PARTS = 8
# dimensions: root mean square of the parts' means, and the spreads of a part, falling from the first to the last
SHAPES = {2: (0.95, 0.3, 0.1), 64: (0.8, 1.0, 0.2), 1024: (0.8, 1.0, 0.05)}
PATHS: dict[str, tuple[NoisePath, Mode]] = {
    "ve": (VarianceExploding(), "lambda"),
    "vp": (VariancePreserving(), "lambda"),
    "flow": (FlowMatching(), "time"),  # from pure noise to the data: lambda is infinite at both ends
}
FINE = 100  # Runge-Kutta steps of the exact solution, four evaluations each


@dataclass(frozen=True)
class Mixture:
    """Equal parts of N(mean_k, diag spread^2): means (K, D), spread (D,), which all parts share."""

    means: Tensor
    spread: Tensor

    def clean_and_noise(self, path: NoisePath, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """E[data | x_t = x] and E[noise | x_t = x] for x (B, D), each by its own formula, finite where sigma is 0."""
        alpha, sigma = path.alpha(t), path.sigma(t)
        variance = alpha**2 * self.spread**2 + sigma**2
        scaled = x / variance
        fit = alpha * scaled @ self.means.T - alpha**2 / 2 * (self.means**2 / variance).sum(1)
        mean = torch.softmax(fit, 1) @ self.means
        data = alpha * self.spread**2 * scaled + sigma**2 / variance * mean
        return data, sigma * (scaled - alpha * mean / variance)

    def network(self, path: NoisePath) -> Network:
        """The perfect network, in the terms that the path's network predicts."""

        def predict(x: Tensor, t: Tensor) -> Tensor:
            data, noise = self.clean_and_noise(path, x, t)
            if path.predicts == "velocity":
                alpha_rate, sigma_rate = path.rates(t)
                return alpha_rate * data + sigma_rate * noise
            return data if path.predicts == "data" else noise

        return predict

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Data (count, D), for grids that are fitted to data."""
        part = torch.randint(len(self.means), (count,), generator=generator)
        noise = torch.randn(count, len(self.spread), dtype=WIDE, generator=generator)
        return self.means[part] + self.spread * noise


def runge_kutta(mixture: Mixture, path: NoisePath, x: Tensor, times: Tensor) -> Tensor:
    """The classical fourth-order rule along times (S + 1,), on dx/dt = alpha' data + sigma' noise."""

    def slope(y: Tensor, t: Tensor) -> Tensor:
        alpha_rate, sigma_rate = path.rates(t)
        data, noise = mixture.clean_and_noise(path, y, t)
        return alpha_rate * data + sigma_rate * noise

    for now, after in pairwise(times):
        gap, middle = after - now, (now + after) / 2
        first = slope(x, now)
        second = slope(x + gap / 2 * first, middle)
        third = slope(x + gap / 2 * second, middle)
        last = slope(x + gap * third, after)
        x = x + gap / 6 * (first + 2 * second + 2 * third + last)
    return x


def fine_times(path: NoisePath, steps: int = FINE) -> Tensor:
    """Times on which the path's ODE is smooth: EDM's where the end is a small sigma, else equal or quadratic in t."""
    if isinstance(path, VarianceExploding):
        return edm_rho(path, steps)
    return uniform_time(path, steps) if math.isinf(log_snr_ends(path)[0]) else quadratic_time(path, steps)


@dataclass(frozen=True)
class Problem:
    """A mixture on a path: `mode` is the coordinate in which LD3 learns there."""

    name: str
    path: NoisePath
    mode: Mode
    mixture: Mixture

    @cached_property
    def network(self) -> Network:
        """The exact prediction."""
        return self.mixture.network(self.path)

    @property
    def scale(self) -> float:
        """sigma at t_max: what unit noise is multiplied by."""
        return float(self.path.sigma(torch.tensor(self.path.t_max, dtype=WIDE)))

    @torch.no_grad()
    def pairs(self, count: int, seed: int) -> Pairs:
        """Unit noises (count, D) and the exact ends of their paths."""
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(count, len(self.mixture.spread), dtype=WIDE, generator=generator)
        ends = runge_kutta(self.mixture, self.path, noise * self.scale, fine_times(self.path))
        return Pairs(noise, ends, lambda index: self.network)


def problem(path: str, size: int) -> Problem:
    """One of the study's problems: a path of PATHS and a number of dimensions of SHAPES."""
    between, widest, narrowest = SHAPES[size]
    means = between * torch.randn(PARTS, size, dtype=WIDE, generator=torch.Generator().manual_seed(size))
    along = torch.linspace(0.0, 1.0, size, dtype=WIDE)
    spread = widest * (narrowest / widest) ** along
    taken, mode = PATHS[path]
    return Problem(f"{path}-{size}", taken, mode, Mixture(means, spread))
