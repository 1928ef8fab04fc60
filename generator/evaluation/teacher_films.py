"""FVD of the study's samplers: free rollouts of the many-step teacher on some of its grids, all from the same windows.

Nearness to the teacher in many steps is not yet a better picture, and this says what it is worth. A cell (one grid at
one number of calls) is written when it is done; the same command goes on with those that are missing.

Does not know how grids are learned or how tables look.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from controls.errors import UserError
from controls.files import write_atomic
from generator.checkpoint import Weights
from generator.data.clips import Dataset
from generator.evaluation.film_memory import FilmMemory, recorded
from generator.evaluation.fvd import I3D
from generator.evaluation.teacher_page import LEARNED, ROWS, Row
from generator.evaluation.teacher_table import Clock, TeacherStudy, hand_made, judged_split, learning_pairs, read
from generator.evaluation.video_distance import Window, deal, fvd_figures
from generator.evaluation.walker import Walker
from generator.model.sampler_file import load_sampler
from generator.samplers.learned_times import Pairs
from generator.samplers.sampler import Sampler
from generator.training.learn_times import load_teacher

LENGTH = 16  # video frames of a window
FITTED = ("gits", "dmn")  # grids that are made for a solver, or from pairs


@dataclass(frozen=True)
class Films:
    """What is judged: recordings `data`, at most `windows` of their held-out windows, the study's rows (some of `ROWS`,
    or "all"), each at `calls` (none: all of the study). What I3D sees of real windows is kept in the folder `keep`.
    """

    data: Path
    windows: int = 64
    rows: tuple[str, ...] = ("uniform", "quadratic", *LEARNED)
    calls: tuple[int, ...] = ()
    keep: Path | None = None

    def check(self, study: TeacherStudy) -> None:
        """UserError on rows or calls that the study has not."""
        for row in self.rows:
            if row not in (*ROWS, "all"):
                raise UserError(f"The study has no grid {row!r} to film; give all, or some of {', '.join(ROWS)}.")
        for nfe in self.calls:
            if nfe not in study.calls:
                known = ", ".join(map(str, sorted(study.calls)))
                raise UserError(f"The study has no grids of {nfe} calls; give --fvd-calls some of {known}.")


class Samplers:
    """The study's sampler of a row and a number of calls; UserError when it is to be learned first."""

    def __init__(self, study: TeacherStudy, weights: Weights, say: Callable[[str], None] = lambda text: None) -> None:
        self.study, self.weights, self.say = study, weights, say
        self.made: dict[tuple[int, bool], dict[Row, Sampler]] = {}

    def __call__(self, name: str, nfe: int) -> Sampler:
        row = ROWS[name]
        if name in LEARNED:
            path = self.study.file(name, nfe)
            if not path.is_file():
                raise UserError(f"There is no {path} yet; let the study learn it first, without --fvd.")
            return load_sampler(path, self.weights.hash).sampler
        key = (nfe, row[1] in FITTED)
        if key not in self.made:
            made = hand_made(self.study, self.weights, self.pairs if key[1] else None, nfe)
            self.made[key] = {(solver, grid): sampler for solver, grid, sampler in made}
        return self.made[key][row]

    @cached_property
    def pairs(self) -> Pairs:
        """What the study fitted its grids to."""
        return learning_pairs(self.study, self.weights, self.say)[1]


def missing(films: Films, study: TeacherStudy, figures: dict[str, dict[str, float]]) -> Iterator[tuple[int, str]]:
    """(calls, row) of the cells that are not there yet."""
    rows = tuple(ROWS) if "all" in films.rows else films.rows
    for nfe in films.calls or study.calls:
        for row in rows:
            if row not in figures.get(str(nfe), {}):
                yield nfe, row


def begin(kept: dict[str, Any], films: Films, dataset: Dataset, windows: list[Window]) -> dict[str, Any]:
    """The part of the study's file that is about films; UserError when it is of other windows."""
    clips = sorted({window.clip for window in windows})
    films_of = recorded(dataset, clips).removeprefix(str(dataset.folder))
    about = {
        "frames": LENGTH, "windows": len(windows) // 2, "clips": len(clips),
        "recordings": sha256(films_of.encode()).hexdigest()[:16],
    }  # fmt: skip
    part: dict[str, Any] = kept.setdefault("fvd", {"about": about, "figures": {}})
    if part["about"] != about:
        raise UserError(
            f"The study has films of other windows than those of {str(films.data)!r}; give the same recordings and "
            "--windows, or remove its part \"fvd\"."
        )  # fmt: skip
    return part


def run(
    study: TeacherStudy,
    films: Films,
    path: Path,
    minutes: float,
    say: Callable[[str], None],
    clock: Clock = time.perf_counter,
) -> bool:
    """Do the cells that are missing until the minutes end (0: to the end); whether all are done now.

    UserError when the study's file is another's, a grid is not learned yet, or the recordings are too few.
    """
    began = clock()
    films.check(study)
    weights = load_teacher(replace(study.learning("ld3", study.calls[0]), device="cpu"))  # where walkers walk
    kept = read(path, study, weights.hash)
    dataset = Dataset.open(films.data)
    windows = deal(dataset, dataset.select(judged_split(Path(study.latents))), LENGTH, films.windows)
    part = begin(kept, films, dataset, windows)
    cells = list(missing(films, study, part["figures"]))
    find = Samplers(study, weights, say)
    samplers = [find(row, nfe) for nfe, row in cells]
    network, memory = I3D(), FilmMemory(films.keep)
    for (nfe, row), sampler in zip(cells, samplers, strict=True):
        if minutes > 0 and clock() - began > 60 * minutes:
            return False
        found = fvd_figures(Walker(weights, sampler), dataset, windows, network, lambda text: None, memory)
        name = f"fvd.{LENGTH}"
        part["figures"].setdefault(str(nfe), {})[row] = round(found[name], 2)
        part |= {"floor": round(found[f"{name}.floor"], 2), "ceiling": round(found[f"{name}.ceiling"], 2)}
        write_atomic(path, json.dumps(kept, indent=1) + "\n")
        say(f"{row} {nfe}: FVD {found[name]:.1f}")
    return True
