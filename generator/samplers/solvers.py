"""Solvers: integration rules for the probability-flow ODE along a decreasing list of times.

One signature: solver(network, x, times, path, network_times) -> the sample at times[-1]. The network is a function of
x (B, ...) and a 0-dim float64 time, and predicts what the path says (`NoisePath.predicts`; a velocity by default).
Coefficients are float64 functions of the times and pass gradients to them; x keeps its dtype (`in_double` widens it).
Network times (LD3's decoupled times) are what the network is told and what its output is read with; the coefficients
still come from the times.

Ends where the log-SNR is infinite (flow matching at 1 and 0) cost no special care from callers: the interval there is
of first order, and a prediction made at lambda = -inf leaves no trace in the differences of later steps.
A multistep solver starts with a first-order step. Orders above 2 show where that step lies in nearly pure noise.

Does not know about network layers, caches or how times are chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from generator.samplers.paths import FlowMatching, NoisePath, data_and_noise, network_times_fault, times_fault

Network = Callable[[Tensor, Tensor], Tensor]
Variant = Literal["bh1", "bh2"]
FLOW = FlowMatching()


class Solver(Protocol):
    """Carries x (B, ...) from times[0] to times[-1]; times and network_times (S + 1,)."""

    def __call__(
        self, network: Network, x: Tensor, times: Tensor, path: NoisePath = FLOW, network_times: Tensor | None = None
    ) -> Tensor: ...


@dataclass(frozen=True)
class Grid:
    """The path's coefficients at the times, each (S + 1,) float64."""

    path: NoisePath
    times: Tensor
    network_times: Tensor
    alpha: Tensor
    sigma: Tensor

    @property
    def steps(self) -> int:
        return len(self.times) - 1

    def ask(self, network: Network, x: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """One network call: the data and the noise at grid point `index`."""
        t = self.network_times[index]
        return data_and_noise(self.path, x, network(x, t), t)

    def slope(self, index: int, data: Tensor, noise: Tensor) -> Tensor:
        """dx/dt = alpha' data + sigma' noise at grid point `index`."""
        alpha_rate, sigma_rate = self.path.rates(self.times[index])
        return alpha_rate * data + sigma_rate * noise

    def gap(self, index: int) -> Tensor:
        return self.times[index + 1] - self.times[index]

    def is_data(self, index: int) -> bool:
        """Whether lambda is +inf at a grid point."""
        return float(self.sigma[index].detach()) == 0

    def is_noise(self, index: int) -> bool:
        """Whether lambda is -inf at a grid point."""
        return float(self.alpha[index].detach()) == 0

    def log_snr(self, index: int) -> Tensor:
        """lambda, DPM-Solver section 3.1; asked only where it is finite."""
        return torch.log(self.alpha[index]) - torch.log(self.sigma[index])

    def decay_and_gain(self, index: int) -> tuple[Tensor, Tensor]:
        """sigma_t / sigma_s and alpha_t (1 - e^-h): DPM-Solver++'s first order, written to be finite at both ends."""
        decay = self.sigma[index + 1] / self.sigma[index]
        return decay, self.alpha[index + 1] - self.alpha[index] * decay


def lay(times: Tensor, path: NoisePath, network_times: Tensor | None) -> Grid:
    """The grid of one call to a solver."""
    wide = times.to(torch.float64)
    asked = wide if network_times is None else network_times.to(torch.float64)
    fault = times_fault(wide, path) or network_times_fault(asked, wide)
    assert not fault, fault
    return Grid(path, wide, asked, path.alpha(wide), path.sigma(wide))


def euler(
    network: Network, x: Tensor, times: Tensor, path: NoisePath = FLOW, network_times: Tensor | None = None
) -> Tensor:
    """First order in t; one call per interval."""
    grid = lay(times, path, network_times)
    for i in range(grid.steps):
        x = x + grid.gap(i) * grid.slope(i, *grid.ask(network, x, i))
    return x


def heun(
    network: Network, x: Tensor, times: Tensor, path: NoisePath = FLOW, network_times: Tensor | None = None
) -> Tensor:
    """Second order in t; two calls per interval (EDM algorithm 1).

    As there, one call for an interval that ends without noise, unless the network predicts a velocity.
    """
    grid = lay(times, path, network_times)
    for i in range(grid.steps):
        first = grid.slope(i, *grid.ask(network, x, i))
        ahead = x + grid.gap(i) * first
        if grid.is_data(i + 1) and path.predicts != "velocity":
            return ahead
        x = x + grid.gap(i) * 0.5 * (first + grid.slope(i + 1, *grid.ask(network, ahead, i + 1)))
    return x


ADAMS_BASHFORTH = {
    1: (1.0,),
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}


def ipndm(order: int) -> Solver:
    """Adams-Bashforth on the noise with the weights of equal steps (iPNDM; LD3 notes section 3). One call per interval.

    Of its order on grids uniform in sigma / alpha, of second order on other smooth grids.
    """
    assert order in ADAMS_BASHFORTH, f"iPNDM of order {order}"

    def solve(
        network: Network, x: Tensor, times: Tensor, path: NoisePath = FLOW, network_times: Tensor | None = None
    ) -> Tensor:
        grid = lay(times, path, network_times)
        past: list[Tensor] = []
        for i in range(grid.steps):
            data, noise = grid.ask(network, x, i)
            past = [noise, *past][:order]
            mean = torch.stack([w * e for w, e in zip(ADAMS_BASHFORTH[len(past)], past, strict=True)]).sum(0)
            alpha, sigma = grid.alpha[i + 1], grid.sigma[i + 1]
            if grid.is_noise(i):  # the first step: alpha_t / alpha_s is infinite, and the data are known directly
                x = alpha * data + sigma * mean
            else:
                ratio = alpha / grid.alpha[i]
                x = ratio * x - (ratio * grid.sigma[i] - sigma) * mean
        return x

    return solve


TERMS = 20
SERIES = torch.tensor([[1 / math.factorial(n + k) for n in range(TERMS)] for k in range(1, 5)], dtype=torch.float64)


def phi_functions(z: Tensor) -> Tensor:
    """phi_1 .. phi_4 of a 0-dim z: phi_1 = (e^z - 1) / z, phi_(k+1) = (phi_k - 1/k!) / z.

    A power series for |z| < 1, where the recurrence cancels. The recurrence: UniPC, DPM-Solver appendix.
    """
    near = z.detach().abs() < 1
    small, large = torch.where(near, z, 0.5), torch.where(near, 1.0, z)
    values = [torch.expm1(large) / large]
    for k in range(1, len(SERIES)):
        values.append((values[-1] - 1 / math.factorial(k)) / large)
    powers = small ** torch.arange(TERMS, dtype=z.dtype, device=z.device)
    return torch.where(near, SERIES.to(z.device) @ powers, torch.stack(values))


def difference_weights(grid: Grid, index: int, places: list[Tensor], variant: Variant) -> Tensor:
    """Weights of (D_m - D_0) / r_m that turn the constant prediction D_0 into one through all D_m (n,).

    UniPC section 3.1: sum_m w_m r_m^(j-1) = alpha_t h j! phi_(j+1)(-h), j = 1..n, which no longer contains B(h).
    A single weight is simplified to alpha_t B(h) / 2 with B = h (bh1) or 1 - e^-h (bh2, and DPM-Solver++(2M)).
    places: r_m = (lambda_m - lambda_s) / h.
    """
    if len(places) == 1:
        endless = grid.is_noise(index) or grid.is_data(index + 1)  # B(h) of bh1 is infinite: take that of bh2
        if variant == "bh2" or endless:
            return 0.5 * grid.decay_and_gain(index)[1][None]
        return 0.5 * (grid.alpha[index + 1] * (grid.log_snr(index + 1) - grid.log_snr(index)))[None]
    h = grid.log_snr(index + 1) - grid.log_snr(index)
    count = torch.arange(len(places), dtype=h.dtype, device=h.device)
    moments = torch.cumprod(count + 1, 0) * h * phi_functions(-h)[1 : len(places) + 1]
    return torch.linalg.solve(torch.stack(places) ** count[:, None], grid.alpha[index + 1] * moments)


@dataclass(frozen=True)
class Past:
    """One prediction of the data and the grid point it was made at."""

    index: int
    data: Tensor


def differences(grid: Grid, index: int, past: list[Past]) -> tuple[list[Tensor], list[Tensor]]:
    """r_m and (D_m - D_0) / r_m of the predictions before past[0]; those made at lambda = -inf are dropped."""
    places, slopes = [], []
    for old in past[1:]:
        if grid.is_noise(old.index):
            break
        h = grid.log_snr(index + 1) - grid.log_snr(index)
        places.append((grid.log_snr(old.index) - grid.log_snr(index)) / h)
        slopes.append((old.data - past[0].data) / places[-1])
    return places, slopes


def weighted(weights: Tensor, slopes: list[Tensor]) -> Tensor:
    return torch.stack([w * s for w, s in zip(weights, slopes, strict=True)]).sum(0)


def multistep(order: int, variant: Variant, correct: bool) -> Solver:
    """The exponential integrator in lambda behind DPM-Solver++ multistep and UniPC; one call per interval.

    The order climbs from 1 and comes down to 1 in the last interval, as in the released code of both.
    """
    assert order in (1, 2, 3), f"order {order}"

    def solve(
        network: Network, x: Tensor, times: Tensor, path: NoisePath = FLOW, network_times: Tensor | None = None
    ) -> Tensor:
        grid = lay(times, path, network_times)
        past = [Past(0, grid.ask(network, x, 0)[0])]
        for i in range(grid.steps):
            decay, gain = grid.decay_and_gain(i)
            base = decay * x + gain * past[0].data
            places, slopes = differences(grid, i, past[: min(order, grid.steps - i)])
            ahead = base
            if places:
                ahead = base + weighted(difference_weights(grid, i, places, variant), slopes)
            if i == grid.steps - 1:
                return ahead
            data = grid.ask(network, ahead, i + 1)[0]
            x = ahead
            if correct:  # UniC: the new prediction joins the differences at r = 1, and is kept for the next interval
                slopes = [*slopes, data - past[0].data]
                places = [*places, torch.ones_like(gain)]
                x = base + weighted(difference_weights(grid, i, places, variant), slopes)
            past = [Past(i + 1, data), *past][:order]
        raise AssertionError("a grid has at least one interval")

    return solve


def dpm_solver_pp(order: int) -> Solver:
    """DPM-Solver++ multistep of orders 1 to 3, data prediction (Lu et al. 2022; algorithm 2 is the second).

    The third order takes the polynomial through three predictions exactly. Released code halves its curvature term,
    which is a second-order method.
    """
    return multistep(order, "bh2", correct=False)


def unipc(order: int, variant: Variant = "bh2") -> Solver:
    """UniPC-p (Zhao et al. 2023): DPM-Solver++'s predictor of order p and a corrector, together of order p + 1.

    No corrector in the last interval: its call would serve nothing else. Variants differ only in two-point formulas.
    """
    assert variant in ("bh1", "bh2"), variant
    return multistep(order, variant, correct=True)


HIGHEST_ORDER = {"euler": 1, "heun": 2, "dpmpp": 3, "unipc": 3, "unipc-bh1": 3, "ipndm": 4}


def solver_named(name: str, order: int) -> Solver:
    """The solver that a command line or a grid file names; Euler and Heun have one order each."""
    assert name in HIGHEST_ORDER and 1 <= order <= HIGHEST_ORDER[name], f"{name} of order {order}"
    if name in ("euler", "heun"):
        assert order == HIGHEST_ORDER[name], f"{name} of order {order}"
        return euler if name == "euler" else heun
    if name == "ipndm":
        return ipndm(order)
    return dpm_solver_pp(order) if name == "dpmpp" else unipc(order, "bh1" if name == "unipc-bh1" else "bh2")


def in_double(solver: Solver) -> Solver:
    """The same solver with its state in float64; the network sees and answers in the dtype of x."""

    def solve(
        network: Network, x: Tensor, times: Tensor, path: NoisePath = FLOW, network_times: Tensor | None = None
    ) -> Tensor:
        def widened(y: Tensor, t: Tensor) -> Tensor:
            return network(y.to(x.dtype), t).double()

        return solver(widened, x.double(), times, path, network_times).to(x.dtype)

    return solve
