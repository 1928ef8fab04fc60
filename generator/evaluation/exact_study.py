"""The study of solvers and grids on exact problems: every solver beside every grid, hand-made, fitted and learned.

Shape key: D dimensions of a problem, S intervals, M pairs.
A piece is one problem at one number of network calls (NFE), or one problem's curve for all of them; each is written
when it is done, and the same command goes on with those that are missing. Figures are root mean square errors to the
exact end of the ODE, over noises that were neither learned from nor chosen by, in units of the data (variance about 1).

Does not know about networks with weights, latents or how tables look.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from controls.errors import UserError
from controls.files import write_atomic
from generator.evaluation.exact_problems import PATHS, SHAPES, Problem, fine_times, problem
from generator.samplers.fitted_grids import ays, dmn, gits, on_cut
from generator.samplers.generalised import FitConfig, curve_times, fit_curve, fit_generalised
from generator.samplers.grids import edm_rho, quadratic_time, uniform_log_snr, uniform_time
from generator.samplers.learned_times import LearnConfig, Learner, Pairs, l2, learn, logits_of
from generator.samplers.paths import NoisePath
from generator.samplers.sampler import intervals, solver_fault
from generator.samplers.solvers import Solver, solver_named

# iPNDM of order 1 is DPM-Solver++ of order 1
SOLVERS = (
    "euler-1", "heun-2", "dpmpp-1", "dpmpp-2", "dpmpp-3", "unipc-1", "unipc-2", "unipc-3", "unipc-bh1-1",
    "unipc-bh1-2", "unipc-bh1-3", "ipndm-2", "ipndm-3", "ipndm-4",
)  # fmt: skip
ABLATED = ("ipndm-3",)  # what each part of LD3 gives, and one curve for every NFE
CALLS = tuple(range(3, 11))
HAND_MADE = ("uniform", "log_snr", "edm", "quadratic", "dmn", "gits", "ays")
LEARNED = ("ld3", "ld3_hard", "ld3_grid", "ld3_published", "gs", "curve")
Figures = dict[str, dict[str, float]]  # solver -> grid -> error
Pieces = dict[str, Figures]  # by number of calls; "curve" is empty and says that the curves are done
Clock = Callable[[], float]


@dataclass(frozen=True)
class Study:
    """How much each piece does. `unlearned` solvers are judged on hand-made and fitted grids only."""

    problems: tuple[str, ...] = tuple(f"{path}-{size}" for size in SHAPES for path in PATHS)
    solvers: tuple[str, ...] = SOLVERS
    calls: tuple[int, ...] = CALLS
    unlearned: tuple[str, ...] = ("dpmpp-1", "unipc-1", "unipc-bh1-1", "unipc-bh1-2", "unipc-bh1-3")
    pairs: int = 50
    held: int = 50
    fresh: int = 200
    batch: int = 5
    grid_rounds: int = 2
    both_rounds: int = 5
    gs_pairs: int = 400
    gs_updates: int = 200
    curve_updates: int = 160
    dense: int = 60
    dmn_rounds: int = 10


@dataclass(frozen=True)
class Bench:
    """One problem with its pairs: to learn from, to choose by, to judge by, and GS's many."""

    problem: Problem
    train: Pairs
    held: Pairs
    fresh: Pairs
    many: Pairs

    @torch.no_grad()
    def error(self, pairs: Pairs, solve: Solver, times: Tensor, told: Tensor | None = None) -> float:
        """Root mean square error of a solver on a grid."""
        asked = self.problem
        made = solve(asked.network, pairs.noise * asked.scale, times, asked.path, told)
        return float(l2(made, pairs.target).mean().sqrt())


def open_bench(name: str, study: Study) -> Bench:
    """The pairs of a problem; none is in two roles."""
    path, size = name.split("-")
    made = problem(path, int(size))
    counts = (study.pairs, study.held, study.fresh, study.gs_pairs)
    return Bench(made, *(made.pairs(count, seed) for seed, count in enumerate(counts)))


def finite(path: NoisePath, make: Callable[[Any, int], Tensor], steps: int) -> Tensor:
    """A grid that needs finite ends, also for flow matching from 1 to 0."""
    return on_cut(make, path, steps) if float(path.alpha(torch.tensor(path.t_max))) == 0 else make(path, steps)


@cache
def dmn_times(path: NoisePath, name: str, steps: int, rounds: int) -> Tensor:
    """DMN's grid, which depends on the path and the solver alone."""
    solve = solver_named(*split(name))
    return finite(path, lambda cut, n: dmn(cut, n, solve, rounds=rounds), steps)


def split(name: str) -> tuple[str, int]:
    """ "unipc-bh1-3" is unipc-bh1 of order 3."""
    solver, order = name.rsplit("-", 1)
    return solver, int(order)


def common_grids(bench: Bench, study: Study, steps: int) -> dict[str, Tensor]:
    """Grids that no solver has a say in, by name; GITS and AYS see the problem."""
    path, network = bench.problem.path, bench.problem.network
    data = bench.problem.mixture.draw(study.pairs, torch.Generator().manual_seed(7))

    def aligned(cut: NoisePath, n: int) -> Tensor:
        return ays(cut, n, network, data, fine_times(cut, study.dense), torch.Generator().manual_seed(8))

    start = bench.train.noise * bench.problem.scale
    return {
        "uniform": uniform_time(path, steps),
        "log_snr": finite(path, uniform_log_snr, steps),
        "edm": finite(path, edm_rho, steps),
        "quadratic": quadratic_time(path, steps),
        "gits": gits(path, steps, network, start, fine_times(path, study.dense)),
        "ays": finite(path, aligned, steps),
    }


def ld3(bench: Bench, study: Study, solve: Solver, start: Tensor | None, **changes: Any) -> tuple[Tensor, Tensor]:
    """LD3's times and network times; the rates' unit is the loss that it starts from, unless changed."""
    steps = changes.pop("steps")
    config = LearnConfig(
        steps, bench.problem.mode, grid_rounds=study.grid_rounds, both_rounds=study.both_rounds, batch=study.batch
    )
    if start is not None:
        config = replace(config, unit=bench.error(bench.held, solve, start) ** 2)
    config = replace(config, **changes)
    return learn(Learner(config, bench.problem.path, solve, l2, bench.train, bench.held, start))


def learned_grids(bench: Bench, study: Study, name: str, start: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """LD3 from the best other grid, and for some solvers with one part of it taken away.

    ld3_hard: noises stay. ld3_grid: no decoupled times, as many updates. ld3_published: from the uniform grid, with
    the published rates for a loss of any size.
    """
    solve, steps = solver_named(*split(name)), len(start) - 1
    made = {"ld3": ld3(bench, study, solve, start, steps=steps)}
    if name in ABLATED:
        rounds = study.grid_rounds + study.both_rounds
        made["ld3_hard"] = ld3(bench, study, solve, start, steps=steps, soft=False)
        made["ld3_grid"] = ld3(bench, study, solve, start, steps=steps, decoupled=False, grid_rounds=rounds)
        made["ld3_published"] = ld3(bench, study, solve, None, steps=steps)
    return made


def piece(bench: Bench, study: Study, calls: int) -> Figures:
    """The errors of every solver on every grid with so many network calls."""
    figures: Figures = {}
    common: dict[int, dict[str, Tensor]] = {}  # by intervals, of which Heun has half as many
    for name in study.solvers:
        solver, order = split(name)
        steps = intervals(solver, calls)
        if solver_fault(solver, order, calls) or steps < 2:
            continue
        solve = solver_named(solver, order)
        if steps not in common:
            common[steps] = common_grids(bench, study, steps)
        grids = dict(common[steps])
        if name != "heun-2":  # which DMN's bound is not made for
            grids["dmn"] = dmn_times(bench.problem.path, name, steps, study.dmn_rounds)
        figures[name] = {grid: bench.error(bench.fresh, solve, times) for grid, times in grids.items()}
        if name in study.unlearned:
            continue
        held = {grid: bench.error(bench.held, solve, times) for grid, times in grids.items()}
        learned = learned_grids(bench, study, name, grids[min(held, key=lambda grid: held[grid])])
        figures[name] |= {grid: bench.error(bench.fresh, solve, *pair) for grid, pair in learned.items()}
        if name == "dpmpp-3":
            figures["gs"] = {"gs": gs_error(bench, study, learned["ld3"][0])}
    return figures


def gs_error(bench: Bench, study: Study, start: Tensor) -> float:
    """GS, which goes on from the grid that LD3 found for its base solver."""
    config = FitConfig(updates=study.gs_updates, rate=3e-3, batch=32, every=20)
    return bench.error(bench.fresh, *fit_generalised(bench.problem.path, start, l2, bench.many, bench.held, config))


def curve_piece(bench: Bench, study: Study) -> Pieces:
    """One curve per ablated solver for every number of calls: its errors, by NFE."""
    path, mode = bench.problem.path, bench.problem.mode
    made: Pieces = {}
    for name in (n for n in ABLATED if n in study.solvers):
        solve = solver_named(*split(name))

        def error(pairs: Pairs, logits: Tensor, calls: int, solve: Solver = solve) -> float:
            return bench.error(pairs, solve, curve_times(path, mode, logits, calls))

        grids = [finite(path, make, 31) for make in (uniform_time, uniform_log_snr, edm_rho, quadratic_time)]
        sums = [sum(error(bench.held, logits_of(path, mode, grid), n) for n in study.calls) for grid in grids]
        start, config = grids[sums.index(min(sums))], FitConfig(study.curve_updates, rate=5e-2, every=20)
        logits = fit_curve(path, mode, solve, study.calls, l2, bench.train, bench.held, config, start)
        for n in study.calls:
            made.setdefault(str(n), {})[name] = {"curve": error(bench.fresh, logits, n)}
    return made


def read(path: Path, study: Study) -> dict[str, Pieces]:
    """Pieces that are done, by problem; UserError when the file is another study's or none at all."""
    if not path.exists():
        return {}
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        same = kept["settings"] == json.loads(json.dumps(asdict(study)))
        done: dict[str, Pieces] = kept["pieces"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no readable study ({error}); remove it or choose another --out.") from error
    if not same:
        raise UserError(f"{path} holds a study with other settings; remove it or choose another --out.")
    return done


def run(study: Study, path: Path, minutes: float, say: Callable[[str], None], clock: Clock = time.perf_counter) -> bool:
    """Do the pieces that are missing until the minutes end (0: to the end); whether all are done now.

    Every piece is written to `path` (JSON) as soon as it is done.
    """
    if minutes < 0:
        raise UserError(f"{minutes:g} minutes are no time; give more, or 0 to go to the end.")
    done, began, benches = read(path, study), clock(), cache(lambda name: open_bench(name, study))
    for name, key in due_pieces(study, done):
        if minutes and clock() - began > 60 * minutes:
            return False
        pieces = done.setdefault(name, {})
        if key == "curve":
            for calls, figures in curve_piece(benches(name), study).items():
                for solver, errors in figures.items():
                    pieces[calls].setdefault(solver, {}).update(errors)
            pieces[key] = {}
        else:
            pieces[key] = piece(benches(name), study, int(key))
        write_atomic(path, json.dumps({"settings": asdict(study), "pieces": done}, indent=1) + "\n")
        say(f"{name} {key}: {clock() - began:.0f} s")
    return True


def due_pieces(study: Study, done: dict[str, Pieces]) -> list[tuple[str, str]]:
    """(problem, number of calls) of the pieces that are missing: even numbers first, odd ones, then curves."""
    keys = [*(str(n) for n in sorted(study.calls, key=lambda n: (n % 2, n))), "curve"]
    return [(name, key) for key in keys for name in study.problems if key not in done.get(name, {})]
