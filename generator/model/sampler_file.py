"""A learned sampler on disk: a small YAML file with the times, the solver, the weights it belongs to, and its losses.

Shape key: S intervals of the grid; times and network times are S + 1 numbers; GS's states and outputs are S rows of S.
Numbers are written without exponents, which YAML 1.1 readers take for text. Source: LD3 notes section 1.

Does not know how times are learned or what samples with them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import torch
from torch import Tensor

from controls.errors import UserError
from controls.files import write_atomic
from controls.strict_yaml import Document, load_file
from generator.samplers.paths import network_times_fault, times_fault
from generator.samplers.sampler import FLOW, LEARNED, MOST, Sampler, intervals, solver_fault

FORMAT = 1
CORRECTIONS = ("states", "outputs")  # fields that only the solver gs has
LARGEST = 1e3  # of a correction
FIELDS = ("format", "weights", "solver", "order", "nfe", "distance", "times", "network_times", "losses", "curve")
LONGEST_CURVE = 500


@dataclass(frozen=True)
class LearnedSampler:
    """What the file holds. `losses`: validation loss by grid name, the learned one among them, from unmoved noises;
    `curve`: training and validation loss after each update.
    """

    weights: str
    sampler: Sampler
    distance: str
    losses: dict[str, float]
    curve: list[tuple[float, float]]


def save_sampler(path: Path, learned: LearnedSampler) -> None:
    """Write the file, whole or not at all; UserError when the disk refuses. A long curve is thinned evenly."""
    thin = -(-len(learned.curve) // LONGEST_CURVE) or 1
    sampler = learned.sampler
    lines = [
        "# Times for the many-step teacher; python run.py learn-times --help",
        f"format: {FORMAT}",
        f'weights: "{learned.weights}"',
        f"solver: {sampler.name}",
        f"order: {sampler.order}",
        f"nfe: {sampler.nfe}",
        f"distance: {learned.distance}",
        f"times: [{', '.join(plain(t) for t in sampler.times.tolist())}]",
        f"network_times: [{', '.join(plain(t) for t in sampler.network_times.tolist())}]",
        *corrections_of(sampler),
        "losses:",
        *(f"  {name}: {plain(loss)}" for name, loss in learned.losses.items()),
        "curve:  # training and validation loss",
        *(f"  - [{plain(round(t, 8))}, {plain(round(v, 8))}]" for t, v in learned.curve[::thin]),
    ]
    write_atomic(path, "\n".join(lines if learned.curve else [*lines[:-1], "curve: []"]) + "\n")


def corrections_of(sampler: Sampler) -> list[str]:
    """GS's weights as lines of the file; none for other solvers."""
    lines = []
    for name, rows in zip(CORRECTIONS, sampler.corrections or (), strict=False):
        lines.append(f"{name}:")
        lines += [f"  - [{', '.join(plain(v) for v in row)}]" for row in rows.tolist()]
    return lines


def plain(number: float) -> str:
    """The shortest text that reads back as the same number, without an exponent; `.nan` and `.inf` as YAML has them."""
    if not math.isfinite(number):
        return {"nan": ".nan", "inf": ".inf", "-inf": "-.inf"}[str(number)]
    return f"{Decimal(repr(number)):f}"


def load_sampler(path: Path, weights: str) -> LearnedSampler:
    """Read and check a file for the weights of a given hash; UserError says what is wrong and what to do."""
    document = load_file(path)
    data = document.mapping((), document.data, (*FIELDS, *CORRECTIONS))
    missing = [name for name in FIELDS if name not in data]
    if missing:
        raise document.error((), f"{missing[0]} is missing, so this is no learned grid; make one with learn-times.")
    document.whole(("format",), data["format"], FORMAT, FORMAT)
    if data["weights"] != weights:
        raise document.error(
            ("weights",),
            f"this grid belongs to the weights {str(data['weights'])[:12]!r}, not to {weights[:12]!r}; "
            "learn one for these with run.py learn-times.",
        )
    if not isinstance(data["distance"], str):
        raise document.error(("distance",), f"distance must be a name, found {data['distance']!r}.")
    sampler = _sampler(document)
    losses = document.mapping(("losses",), data["losses"], list(data["losses"] or ()))
    kept = {name: _loss(document, ("losses", name), value) for name, value in losses.items()}
    return LearnedSampler(weights, sampler, data["distance"], kept, _curve(document))


def _sampler(document: Document) -> Sampler:
    data = document.data
    order, nfe = (document.whole((name,), data[name], 1, MOST) for name in ("order", "nfe"))
    name = data["solver"]
    fault = solver_fault(name, order, nfe) if isinstance(name, str) else f"solver must be a name, found {name!r}."
    if fault:
        raise document.error(("solver",), fault)
    times, told = (_times(document, field) for field in ("times", "network_times"))
    fault = times_fault(times, FLOW)
    if not fault and len(times) != intervals(name, nfe) + 1:
        fault = f"{len(times)} times are not {nfe} network calls of {name}"
    if fault:
        raise document.error(("times",), f"{fault}; learn the grid again.")
    fault = network_times_fault(told, times)
    if fault:
        raise document.error(("network_times",), f"{fault}; learn the grid again.")
    return Sampler(name, order, times, told, corrections=_corrections(document, name, len(times) - 1))


def _corrections(document: Document, solver: str, steps: int) -> tuple[Tensor, Tensor] | None:
    found = [name for name in CORRECTIONS if name in document.data]
    if solver != LEARNED:
        if found:
            raise document.error(
                (found[0],), f"{found[0]} belong to the solver {LEARNED}, not to {solver}; remove them."
            )
        return None
    made = []
    for name in CORRECTIONS:
        rows = document.data.get(name)
        if not isinstance(rows, list) or [len(r) if isinstance(r, list) else 0 for r in rows] != [steps] * steps:
            place = (name,) if name in document.data else ("solver",)
            raise document.error(place, f"the solver {LEARNED} needs {name}: {steps} rows of {steps} numbers.")
        checked = [
            [document.number((name, i, j), value, -LARGEST, LARGEST) for j, value in enumerate(row)]
            for i, row in enumerate(rows)
        ]
        made.append(torch.tensor(checked, dtype=torch.float64))
    return made[0], made[1]


def _times(document: Document, field: str) -> Tensor:
    values = document.data[field]
    if not isinstance(values, list):
        raise document.error((field,), f"{field} must be a list of numbers, found {values!r}.")
    checked = [document.number((field, n), value, 0.0, 1.0) for n, value in enumerate(values)]
    return torch.tensor(checked, dtype=torch.float64)


def _curve(document: Document) -> list[tuple[float, float]]:
    rows = document.data["curve"]
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == 2 for row in rows):
        raise document.error(("curve",), "curve must be a list of pairs of losses; learn the grid again.")
    return [(_loss(document, ("curve", n), t), _loss(document, ("curve", n), v)) for n, (t, v) in enumerate(rows)]


def _loss(document: Document, path: tuple[str | int, ...], value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise document.error(path, f"a loss must be a number, found {value!r}.")
    return float(value)


def expect_sampler(learned: LearnedSampler, path: Path, solver: str = "", order: int = 0, nfe: int = 0) -> Sampler:
    """The sampler, if it is of the solver, order and calls that were asked for (empty: any); UserError otherwise."""
    sampler = learned.sampler
    for what, asked, has in (
        ("solver", solver, sampler.name),
        ("order", order, sampler.order),
        ("nfe", nfe, sampler.nfe),
    ):
        if asked and asked != has:
            raise UserError(f"The grid {str(path)!r} was learned for {what} {has}, not {asked}; learn one for {asked}.")
    return sampler
