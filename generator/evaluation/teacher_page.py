"""The study of the teacher's times as Markdown: every sampler's LPIPS and PSNR, and what learning gives.

Does not know how figures are made.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from controls.files import write_atomic
from generator.evaluation.exact_tables import table
from generator.evaluation.teacher_table import Figures, TeacherStudy

NAMES = {
    "ipndm": "iPNDM-3", "dpmpp": "DPM-Solver++(3M)", "ld3": "LD3 (iPNDM-3)", "gs": "GS", "curve": "one curve (iPNDM-2)",
    "uniform": "uniform", "shifted": "training shift", "half_shifted": "root of the shift", "quadratic": "quadratic",
    "log_snr": "log-SNR", "edm": "EDM rho 7", "gits": "GITS", "dmn": "DMN",
}  # fmt: skip
LEARNED = ("ld3", "gs", "curve")
GRIDS = ("uniform", "shifted", "half_shifted", "quadratic", "log_snr", "edm", "gits", "dmn")
Row = tuple[str, str]  # solver and grid, the same word for learned ones


def name_of(row: Row) -> str:
    """A row's name on the command line and in the part of films: of the first solver the grid alone."""
    solver, grid = row
    return grid if solver in (grid, "ipndm") else f"{solver}-{grid}"


UNTAUGHT = tuple((solver, grid) for solver in ("ipndm", "dpmpp") for grid in GRIDS)
ROWS = {name_of(row): row for row in (*UNTAUGHT, *((name, name) for name in LEARNED))}


def label(row: Row) -> str:
    """A row's name on the page."""
    solver, grid = row
    return NAMES[solver] if solver == grid else f"{NAMES[solver]}, {NAMES[grid]}"


def row_names(figures: dict[str, Figures]) -> list[Row]:
    """(solver, grid) of every row, in the order of their first appearance, the learned ones last."""
    found = [(solver, grid) for made in figures.values() for solver, grids in made.items() for grid in grids]
    rows = dict.fromkeys(found)
    return [row for row in rows if row[0] not in LEARNED] + [(name, name) for name in LEARNED if (name, name) in rows]


def measure(figures: dict[str, Figures], calls: list[int], name: str, digits: int) -> list[str]:
    """A table of one measure."""
    rows = []
    for solver, grid in row_names(figures):
        cells = [figures.get(str(n), {}).get(solver, {}).get(grid, {}).get(name) for n in calls]
        rows.append([label((solver, grid)), *("-" if cell is None else f"{cell:.{digits}f}" for cell in cells)])
    return table(["", *(f"NFE {n}" for n in calls)], rows)


def ratio(made: Figures, of: str) -> str:
    """LPIPS of LD3, GS or the curve over that of the best grid that is not learned; GS also over LD3 (in brackets)."""
    plain = [one["lpips"] for solver, grids in made.items() if solver not in LEARNED for one in grids.values()]
    if of not in made or not plain:
        return "-"
    value = made[of][of]["lpips"]
    text = f"{value / max(min(plain), 1e-12):.2f}"
    if of == "gs" and "ld3" in made:
        text += f" ({value / max(made['ld3']['ld3']['lpips'], 1e-12):.2f})"
    return text


def goals(figures: dict[str, Figures]) -> list[str]:
    """Whether LD3 at 4 calls is at most 0.6 of the best hand-made grid, and GS at most 0.85 of LD3 (LPIPS)."""
    made = figures.get("4", {})
    if "ld3" not in made or "gs" not in made:
        return []
    plain = min(one["lpips"] for name, grids in made.items() if name not in LEARNED for one in grids.values())
    ld3, gs = made["ld3"]["ld3"]["lpips"], made["gs"]["gs"]["lpips"]
    lines = []
    for what, value, goal in (
        ("LD3 over the best hand-made or fitted grid", ld3 / max(plain, 1e-12), 0.6),
        ("GS over LD3", gs / max(ld3, 1e-12), 0.85),
    ):
        met = "met" if value <= goal else "missed"
        lines.append(f"- 4 calls, {what}: {value:.2f} (goal {goal:g}: {met}).")
    return [*lines, ""]


def films(part: dict[str, Any] | None, calls: list[int]) -> list[str]:
    """FVD of free rollouts, as far as it was asked for; nothing where it was not."""
    if part is None or not part["figures"]:
        return []
    about, made = part["about"], part["figures"]
    intro = (
        f"Free rollouts of {about['windows']} windows of {about['frames']} frames against as many other real ones; "
        f"real ones among themselves {part['floor']:.1f}, what the tokenizer makes of them {part['ceiling']:.1f}. "
        "Empty cells were not asked for."
    )
    rows = []
    for name, row in ROWS.items():
        cells = [made.get(str(n), {}).get(name) for n in calls]
        if any(cell is not None for cell in cells):
            rows.append([label(row), *("" if cell is None else f"{cell:.1f}" for cell in cells)])
    return [f"## FVD of {about['frames']} frames", "", intro, "", *table(["", *(f"NFE {n}" for n in calls)], rows)]


def markdown(kept: dict[str, Any], study: TeacherStudy) -> str:
    """The whole page."""
    figures, calls = kept["figures"], sorted(study.calls)
    about = (
        f"`run.py study teacher` made this page from `teacher-times.json` (weights {kept['settings']['weights'][:8]}). "
        f"{study.judged} single latent frames after {study.history} real ones, of windows and noises that nothing was "
        f"learned from ({study.pairs} pairs) or chosen by ({study.held}); distances to the same teacher in "
        f"{study.target_steps} uniform steps. Learned by {study.distance}; LD3 in {study.grid_rounds} + "
        f"{study.both_rounds} rounds from the best other grid, GS and the curve in {study.updates} updates."
    )
    ratios = [[NAMES[name], *(ratio(figures.get(str(n), {}), name) for n in calls)] for name in LEARNED]
    head = ["", *(f"NFE {n}" for n in calls)]
    lines = ["# The teacher's times", "", about, "", *goals(figures)]
    lines += ["## LPIPS", "", *measure(figures, calls, "lpips", 4)]
    lines += ["## PSNR, dB", "", *measure(figures, calls, "psnr", 2)]
    lines += ["## LPIPS over the best grid that is not learned", "", "GS over LD3 in brackets."]
    lines += ["", *table(head, ratios)]
    lines += ["## Mean squared distance of latents", "", *measure(figures, calls, "latent", 5)]
    lines += films(kept.get("fvd"), calls)
    if kept["seconds"]:
        rows = [[name, f"{seconds:.0f}"] for name, seconds in kept["seconds"].items()]
        lines += ["## Seconds to learn each grid", "", *table(["grid", "s"], rows)]
    return "\n".join(lines).rstrip() + "\n"


def write(path: Path, study: TeacherStudy) -> None:
    """The page beside the study's JSON file at `path`, where there is one; UserError when the disk refuses."""
    if path.exists():
        write_atomic(path.with_suffix(".md"), markdown(json.loads(path.read_text(encoding="utf-8")), study))
