"""The study of exact problems as Markdown: who is best, what LD3 gives each solver and each part of it, and all errors.

Does not know how figures are made or kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

from controls.files import write_atomic
from generator.evaluation.exact_study import ABLATED, HAND_MADE, LEARNED, Pieces, Study, read

NAMES = {
    "ld3": "LD3", "ld3_hard": "LD3, hard objective", "ld3_grid": "LD3, no decoupled times",
    "ld3_published": "LD3 from the uniform grid, published rates", "gs": "GS", "curve": "one curve for every NFE",
    "log_snr": "uniform log-SNR", "uniform": "uniform time", "edm": "EDM rho 7", "quadratic": "quadratic time",
    "dmn": "DMN", "gits": "GITS", "ays": "AYS-style",
}  # fmt: skip
Done = dict[str, Pieces]


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a Markdown table and an empty one."""
    lines = [head, ["---"] * len(head), *rows]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""]


def best(figures: dict[str, dict[str, float]], grids: tuple[str, ...]) -> tuple[float, str, str]:
    """The least error over all solvers on some grids, with its solver and grid; infinite where there is none."""
    found = [(errors[g], solver, g) for solver, errors in figures.items() for g in grids if g in errors]
    return min(found, default=(math.inf, "", ""))


def beside(done: Done, grid: str, solvers: tuple[str, ...], calls: int) -> list[tuple[str, str, float]]:
    """(problem, solver, error over that of the solver's best hand-made grid) wherever both are known."""
    made = []
    for problem, pieces in done.items():
        figures = pieces.get(str(calls), {})
        for solver in solvers:
            errors = figures.get(solver, {})
            rival = min((errors[g] for g in HAND_MADE if g in errors), default=math.inf)
            judged = figures.get("gs", {}).get("gs") if grid == "gs" else errors.get(grid)
            if judged is not None and math.isfinite(rival):
                made.append((problem, solver, judged / rival))
    return made


def summary(ratios: list[tuple[str, str, float]]) -> str:
    """The geometric mean of ratios and how many of them are below one."""
    if not ratios:
        return "-"
    mean = math.exp(sum(math.log(ratio) for *_, ratio in ratios) / len(ratios))
    return f"{mean:.2f} ({sum(ratio < 1 for *_, ratio in ratios)}/{len(ratios)})"


def winners(done: Done, study: Study) -> Iterator[str]:
    """Per problem: the best of the hand-made and fitted grids, of LD3's, GS and the curve, over all solvers."""
    kinds = {"hand-made or fitted": HAND_MADE, "LD3": ("ld3",), "GS": ("gs",), "curve (iPNDM-3)": ("curve",)}
    for problem, pieces in done.items():
        rows = []
        for kind, grids in kinds.items():
            cells = []
            for calls in study.calls:
                error, solver, grid = best(pieces.get(str(calls), {}), grids)
                by = (
                    f" {solver}"
                    if kind == "LD3"
                    else f" {solver}, {NAMES[grid]}"
                    if grids == HAND_MADE and grid
                    else ""
                )
                cells.append(f"{error:.4f}{by}" if solver else "-")
            rows.append([kind, *cells])
        yield from table([problem, *(f"NFE {n}" for n in study.calls)], rows)


def ratios(done: Done, study: Study, rows: list[tuple[str, str, tuple[str, ...]]]) -> list[str]:
    """A table of `summary` over problems; rows are (label, grid, solvers)."""
    body = [[label, *(summary(beside(done, grid, solvers, n)) for n in study.calls)] for label, grid, solvers in rows]
    return table(["", *(f"NFE {n}" for n in study.calls)], body)


def shortfalls(done: Done, study: Study) -> list[str]:
    """Where LD3 is not better than the best of the solver's other grids; and where no solver's LD3 is."""
    lines, overall = [], []
    for calls in study.calls:
        for problem, solver, ratio in beside(done, "ld3", study.solvers, calls):
            if ratio >= 1:
                lines.append(f"- {problem}, {solver}, NFE {calls}: {ratio:.3f} of the best other grid.")
        for problem, pieces in done.items():
            figures = pieces.get(str(calls), {})
            if figures and best(figures, ("ld3",))[0] >= best(figures, HAND_MADE)[0]:
                overall.append(f"- {problem}, NFE {calls}: of all solvers, none has an LD3 grid that beats all others.")
    return [*(lines or ["Nowhere."]), *overall, ""]


def everything(done: Done, study: Study) -> Iterator[str]:
    """Every error: a table per problem, a row per solver and grid."""
    for problem, pieces in done.items():
        rows = []
        for solver in (*study.solvers, "gs"):
            for grid in (*HAND_MADE, *LEARNED):
                errors = [pieces.get(str(n), {}).get(solver, {}).get(grid) for n in study.calls]
                if any(error is not None for error in errors):
                    cells = ["-" if error is None else f"{error:.4f}" for error in errors]
                    rows.append([solver, NAMES[grid], *cells])
        yield from table([problem, "grid", *(str(n) for n in study.calls)], rows)


def markdown(done: Done, study: Study) -> str:
    """The whole page."""
    learned = tuple(name for name in study.solvers if name not in study.unlearned)
    parts: list[tuple[str, str, Callable[[], list[str]]]] = [
        ("The best of each kind", "Over all solvers; which solver, and which grid.", lambda: [*winners(done, study)]),
        (
            "What LD3 gives each solver",
            "Its error over that of the solver's best hand-made or fitted grid, whichever it is: geometric mean over "
            "the problems, and on how many of them LD3 is better.",
            lambda: ratios(done, study, [(name, "ld3", (name,)) for name in learned]),
        ),
        (
            f"What each part gives ({', '.join(ABLATED)})",
            "Over the same. The named solver's rows, then GS and LD3 over the best other grid of DPM-Solver++(3M).",
            lambda: ratios(
                done,
                study,
                [
                    *((NAMES[grid], grid, ABLATED) for grid in LEARNED if grid != "gs"),
                    ("GS", "gs", ("dpmpp-3",)),
                    ("LD3 of DPM-Solver++(3M)", "ld3", ("dpmpp-3",)),
                ],
            ),
        ),
        ("Where LD3 is not better", "Of the same solver, on fresh noises:", lambda: shortfalls(done, study)),
        ("Every error", "", lambda: [*everything(done, study)]),
    ]
    lines = ["# Solvers and time grids on problems with a known end", "", *about(study)]
    for title, text, make in parts:
        lines += [f"## {title}", "", *([text, ""] if text else []), *make()]
    return "\n".join(lines).rstrip() + "\n"


def write(path: Path, study: Study) -> None:
    """The page beside the study's JSON file at `path`; UserError when that is another study's or cannot be written."""
    write_atomic(path.with_suffix(".md"), markdown(read(path, study), study))


def about(study: Study) -> list[str]:
    """What was done, in a paragraph with the study's own numbers."""
    text = (
        "`run.py study exact` made this page from `exact-problems.json`. Each problem is a mixture of 8 Gaussians in "
        "2, 64 or 1,024 dimensions with the exact prediction: a variance exploding path (ve, sigma 80 to 0.002), a "
        "variance preserving one (vp, t 1 to 0.001) and flow matching (t 1 to 0, pure noise to data). Figures are root "
        f"mean square errors per number to the exact end of the ODE (Runge-Kutta, float64), over {study.fresh} noises "
        f"that were neither learned from ({study.pairs}) nor chosen by ({study.held}); the data's variance is about 1. "
        f"LD3: squared error, {study.grid_rounds} rounds of the grid and {study.both_rounds} of both, batches of "
        f"{study.batch}, from the best other grid by validation, offsets' and noises' rates for a loss in units of its "
        f"first value. GS: {study.gs_pairs} pairs, {study.gs_updates} updates of 32, from LD3's grid. The curve: 32 "
        f"control points, {study.curve_updates} updates over all NFE in turn. GITS and AYS choose from {study.dense} "
        "times; they and DMN count as fitted. Two-point formulas are all that UniPC-bh1 changes; it, UniPC-1 and "
        "DPM-Solver++(1) (which is iPNDM-1, and Euler on flow matching) have no learned grids here."
    )
    return [text, ""]
