"""The settings of learn-times, their checks, and the three ways to learn: LD3, GS and one curve for every NFE.

Shape key: S intervals of the grid.
Source: LD3 notes sections 1, 2 and 4.

Does not know about weights, latents, clips or where a run stands.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from controls.errors import UserError
from controls.strict_yaml import did_you_mean
from generator.samplers.generalised import (
    Fit,
    FitConfig,
    as_corrections,
    begin_curve,
    begin_generalised,
    curve_times,
    product_grid,
)
from generator.samplers.grids import uniform_time
from generator.samplers.learned_times import Distance, LearnConfig, Learner, Pairs, logits_of
from generator.samplers.sampler import FEWEST, FLOW, LEARNED, MOST, Sampler, intervals, solver_fault
from generator.samplers.solvers import solver_named

DISTANCES = ("lpips", "l1", "l2")
CONTROLS = 31  # intervals between the control points of a curve
FREE = ("minutes", "out", "run", "device", "weights")  # what a resumed command may change


@dataclass(frozen=True)
class TimesTraining:
    """Settings of learn-times; `minutes` of learning over all starts (0: to the end of the rounds).

    LD3 unless the solver is gs, or `curve` asks for one curve that serves every number of calls. `updates`, `fit_batch`
    and `fit_rate` (0: the method's own) are those of GS and of the curve. `begin` is a learned grid to begin from, if
    it is better than the hand-made ones; GS also begins from all of its iPNDM, where that is better still.
    """

    weights: str
    out: str
    latents: str = "runs/latents/halls"
    run: str = ""
    solver: str = "ipndm"
    order: int = 3
    nfe: int = 4
    distance: str = "lpips"
    minutes: float = 0.0
    pairs: int = 24
    held: int = 12
    history: int = 3
    teacher_steps: int = 32
    soft: bool = True
    decoupled: bool = True
    recompute: bool = False
    fitted: bool = True  # begin from DMN's or GITS's grid too, where those are better
    grid_rounds: int = 2
    both_rounds: int = 3
    batch: int = 1
    rate: float = 5e-3
    offset_rate: float = 1e-3
    curve: bool = False
    updates: int = 300
    fit_batch: int = 4
    fit_rate: float = 0.0
    begin: str = ""
    seed: int = 0
    device: str = "auto"

    @property
    def base(self) -> tuple[str, int]:
        """The solver that hand-made grids are judged with: GS begins as DPM-Solver++(3M)."""
        return ("dpmpp", 3) if self.solver == LEARNED else (self.solver, self.order)

    @property
    def method(self) -> str:
        """ld3, gs or curve."""
        return "gs" if self.solver == LEARNED else "curve" if self.curve else "ld3"

    @property
    def served(self) -> tuple[int, ...]:
        """The numbers of calls that one curve is learned for."""
        return tuple(n for n in range(FEWEST, MOST + 1) if not times_missing(self.solver, self.order, n))

    def fitting(self) -> FitConfig:
        """The numbers of GS (its paper's rate) and of the curve."""
        rate = self.fit_rate or (1e-3 if self.method == "gs" else 2e-2)
        every = max(1, self.updates // 30)
        return FitConfig(
            self.updates, self.fit_batch, 4, rate, average=0.95, every=every, recompute=self.recompute, seed=self.seed
        )

    def learning(self, unit: float = 1.0) -> LearnConfig:
        """LD3's numbers for latent models (notes section 2); `unit` as in `LearnConfig`."""
        return LearnConfig(
            steps=intervals(self.solver, self.nfe),
            mode="time",
            soft=self.soft,
            decoupled=self.decoupled,
            grid_rounds=self.grid_rounds,
            both_rounds=self.both_rounds,
            batch=self.batch,
            held_batch=4,
            rate=self.rate,
            offset_rate=self.offset_rate,
            recompute=self.recompute,
            unit=unit,
            seed=self.seed,
        )


def check(config: TimesTraining) -> None:
    """UserError on settings that make no sense."""
    if fault := times_missing(config.solver, config.order, config.nfe):
        raise UserError(fault)
    if config.nfe > MOST:
        raise UserError(f"{config.nfe} network calls are more than the {MOST} that play offers; give fewer.")
    if config.minutes < 0:
        raise UserError(f"{config.minutes:g} minutes are no time; give more, or 0 to learn to the end.")
    if config.curve and config.solver == LEARNED:
        raise UserError(f"One curve serves solvers without corrections, not {LEARNED}; give another --solver.")
    if config.distance not in DISTANCES:
        raise UserError(f"There is no distance {config.distance!r}{did_you_mean(config.distance, DISTANCES)}.")
    least_of = dict.fromkeys(("pairs", "held", "history", "batch", "updates", "fit_batch"), 1)
    for name, least in (*least_of.items(), ("teacher_steps", config.nfe + 1)):
        if getattr(config, name) < least:
            raise UserError(f"{name} = {getattr(config, name)} is too few; give at least {least}.")
    for name in ("rate", "offset_rate", "fit_rate"):
        if not 0 <= getattr(config, name) < math.inf:
            raise UserError(f"{name} = {getattr(config, name):g} is no rate; give a number from 0.")
    if Path(config.out).is_dir():
        raise UserError(f"--out {config.out} is a folder; give the name of a file.")


def times_missing(solver: str, order: int, nfe: int) -> str:
    """Why so many calls leave no time to learn, as a sentence; "" if they leave one."""
    if fault := solver_fault(solver, order, nfe):
        return fault
    if intervals(solver, nfe) < 2:
        return f"{nfe} calls of {solver} are one interval, with no time to learn; give more."
    return ""


def settings_of(config: TimesTraining) -> dict[str, Any]:
    """The settings that a resumed run must share; one curve's run serves every number of calls."""
    free = (*FREE, "nfe") if config.method == "curve" else FREE
    return {name: value for name, value in asdict(config).items() if name not in free}


def run_folder(config: TimesTraining, name: str) -> Path:
    """Where the run's state lies: --run, or a folder named by the weights and the sampler."""
    calls = "curve" if config.method == "curve" else str(config.nfe)
    return Path(config.run or f"runs/times/{name[:8]}-{config.solver}-{config.order}-{calls}-{config.distance}")


@dataclass
class Method:
    """`work` goes on until it is done; `sampler` is the best so far."""

    work: Learner | Fit
    sampler: Callable[[], Sampler]


def open_method(
    config: TimesTraining,
    distance: Distance,
    train: Pairs,
    held: Pairs,
    start: Tensor | None,
    unit: float,
    whole: Sampler | None = None,
) -> Method:
    """A way to learn, before its first update. start (S + 1,): where it begins (S is CONTROLS for the curve), if
    nothing is restored into it; unit: see `LearnConfig`; whole: an iPNDM that GS begins from in place of that.
    """
    name, steps = config.method, CONTROLS if config.method == "curve" else intervals(config.solver, config.nfe)
    begin = uniform_time(FLOW, steps) if start is None else start
    if name == "gs":
        began = None if whole is None else as_corrections(whole.times, whole.network_times, whole.order, FLOW)
        fit = begin_generalised(FLOW, begin, distance, train, held, config.fitting(), began)
        return Method(fit, lambda: generalised_sampler(fit))
    solver = solver_named(config.solver, config.order)
    if name == "ld3":
        learner = Learner(config.learning(unit), FLOW, solver, distance, train, held, begin)
        return Method(learner, lambda: Sampler(config.solver, config.order, *learner.grid(best=True)))
    counts = tuple(intervals(config.solver, n) for n in config.served)
    logits = logits_of(FLOW, "time", begin)
    curve = begin_curve(FLOW, "time", solver, counts, distance, train, held, config.fitting(), logits)

    def of_nfe() -> Sampler:
        times = curve_times(FLOW, "time", curve.best["logits"], intervals(config.solver, config.nfe)).detach()
        return Sampler(config.solver, config.order, times, times)

    return Method(curve, of_nfe)


def generalised_sampler(fit: Fit) -> Sampler:
    """GS's best so far."""
    best = fit.best
    times, told = (part.detach() for part in product_grid(FLOW, best["theta"], best["offsets"]))
    return Sampler(LEARNED, 3, times, told, corrections=(best["states"].tril(), best["outputs"].tril()))


@torch.no_grad()
def held_loss(distance: Distance, held: Pairs, sampler: Sampler, at_once: int = 4) -> float:
    """Mean distance over held-out pairs from their noises as they were drawn, by which all grids are judged."""
    made = []
    for index in torch.arange(len(held.noise)).split(at_once):
        network, calls = held.network(index), sampler.solver
        sample = calls(network, held.noise[index], sampler.times, sampler.path, sampler.network_times)
        made.append(distance(held.view(sample, index), held.target[index]))
    return float(torch.cat(made).mean())
