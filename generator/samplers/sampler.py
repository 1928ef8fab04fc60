"""A sampler: a solver and the times that it runs through, hand-made or learned.

Shape key: S intervals of the grid; B samples.
Source: LD3 notes sections 3 and 6 (one memory per grid point).

Does not know about networks' caches, files or how times are chosen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import count

from torch import Tensor

from generator.samplers.generalised import generalised, step_weights
from generator.samplers.paths import FlowMatching, NoisePath, network_times_fault, times_fault
from generator.samplers.schedule import uniform_times
from generator.samplers.solvers import HIGHEST_ORDER, Solver, solver_named

PlacedNetwork = Callable[[int, Tensor, Tensor], Tensor]  # grid point, x (B, ...), 0-dim time
FEWEST, MOST = 2, 10  # network calls that the quality dial offers beside 1
FLOW = FlowMatching()
LEARNED = "gs"  # DPM-Solver++(3M) with learned corrections, which a file must bring


def solver_fault(name: str, order: int, nfe: int) -> str:
    """Why there is no sampler of this solver and order with `nfe` network calls, as a sentence; "" if there is."""
    known = {**HIGHEST_ORDER, LEARNED: 3}
    if name not in known:
        return f"There is no solver {name!r}; choose {', '.join(known)}."
    highest = known[name]
    fixed = name in ("euler", "heun", LEARNED)
    if not 1 <= order <= highest or (fixed and order != highest):
        return f"{name} has no order {order}; give {highest if fixed else f'1 to {highest}'}."
    if nfe < FEWEST:
        return f"{nfe} network calls leave no time to choose; give at least {FEWEST}."
    if order > nfe and name != LEARNED:  # whose weights on all that is past make up for a short one
        return f"{name} of order {order} needs at least {order} network calls, not {nfe}; lower the order or add calls."
    if name == "heun" and nfe % 2:
        return f"heun makes two network calls an interval, so {nfe} is none of its numbers; give an even one."
    return ""


def intervals(name: str, nfe: int) -> int:
    """S for a solver and its number of network calls."""
    return nfe // 2 if name == "heun" else nfe


@dataclass(frozen=True)
class Sampler:
    """`solver_named(name, order)` on times and network times (S + 1,) float64; AssertionError on a wrong grid.

    corrections: GS's weights on states and on outputs, each (S, S), for the solver "gs" and no other.
    """

    name: str
    order: int
    times: Tensor
    network_times: Tensor
    path: NoisePath = FLOW
    corrections: tuple[Tensor, Tensor] | None = None

    def __post_init__(self) -> None:
        fault = times_fault(self.times, self.path) or network_times_fault(self.network_times, self.times)
        assert not fault, fault
        assert (self.corrections is not None) == (self.name == LEARNED), f"corrections for the solver {self.name}"

    @cached_property
    def solver(self) -> Solver:
        """The integration rule."""
        if self.corrections is None:
            return solver_named(self.name, self.order)
        return generalised(*self.corrections, base=step_weights(self.times, self.path))

    @property
    def points(self) -> int:
        """Grid points at which the network is asked: all but the last, and that too for Heun."""
        return len(self.times) - (self.name != "heun")

    @property
    def nfe(self) -> int:
        """Network calls of one sample."""
        return (len(self.times) - 1) * (2 if self.name == "heun" else 1)

    @property
    def label(self) -> str:
        """A name that says all that a sample depends on beside the network: solver, order, calls, hash of the times."""
        listed = [*self.times.tolist(), *self.network_times.tolist()]
        for part in self.corrections or ():
            listed += part.flatten().tolist()
        digest = hashlib.sha256(" ".join(t.hex() for t in listed).encode()).hexdigest()
        return f"{self.name}-{self.order}-{self.nfe}-{digest[:8]}"

    def __call__(self, network: PlacedNetwork, noise: Tensor) -> Tensor:
        """The sample (B, ...) that noise leads to; the network also hears at which grid point it is asked."""
        calls = count()

        def asked(x: Tensor, t: Tensor) -> Tensor:
            call = next(calls)  # Heun asks at 0, 1, 1, 2, 2 ...; two network times may be equal, so they name no place
            return network((call + 1) // 2 if self.name == "heun" else call, x, t)

        return self.solver(asked, noise, self.times, self.path, self.network_times)


def shifted_sampler(name: str, order: int, nfe: int, shift: float) -> Sampler:
    """The sampler with nothing learned: uniform times, shifted as in training (AAPT section 3.3)."""
    times = uniform_times(intervals(name, nfe), shift)
    return Sampler(name, order, times, times)
