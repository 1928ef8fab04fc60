"""What flows into a world's convolutions, on disk: a small YAML file with the range of each that may compute in int8.

A network is named by its explicit module (runtime/explicit.py) and a convolution by its place in that network's graph.

Does not know how ranges are measured or what computes with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from controls.files import write_atomic
from controls.strict_yaml import Document, load_file

FORMAT = 1
NAME = "int8.yaml"
MOST = 1000  # convolutions of a network
FIELDS = ("place", "low", "high", "kernel")
LARGEST = 1e6  # of what flows into one


@dataclass(frozen=True)
class Range:
    """The least and the greatest number that flows into convolution `place` of a graph; zero lies within. Of which
    shape its kernel is tells graphs apart that another version of a compiler has in another order.
    """

    place: int
    low: float
    high: float
    kernel: tuple[int, ...]


Ranges = Mapping[str, tuple[Range, ...]]  # by network


def save_ranges(folder: Path, weights: str, ranges: Ranges) -> Path:
    """Write the file of the weights of this hash, whole or not at all; UserError when the disk refuses."""
    lines = [
        "# What flows into the convolutions that may compute in int8; python run.py calibrate --help",
        f"format: {FORMAT}",
        f'weights: "{weights}"',
        "networks:",
    ]
    for network, rows in ranges.items():
        lines.append(f"  {network}:{'' if rows else ' []'}")
        for row in rows:
            ends = f"low: {row.low:.6f}, high: {row.high:.6f}"
            lines.append(f"    - {{place: {row.place}, {ends}, kernel: {list(row.kernel)}}}")
    path = folder / NAME
    write_atomic(path, "\n".join(lines) + "\n")
    return path


def load_ranges(folder: Path, weights: str) -> Ranges | None:
    """The ranges of the weights of this hash, if the folder has any; UserError says what is wrong and what to do."""
    path = folder / NAME
    if not path.is_file():
        return None
    document = load_file(path)
    data = document.mapping((), document.data, ("format", "weights", "networks"))
    for name in ("format", "weights", "networks"):
        if name not in data:
            raise document.error((), f"{name} is missing; make the file anew with run.py calibrate, or remove it.")
    document.whole(("format",), data["format"], FORMAT, FORMAT)
    if data["weights"] != weights:
        raise document.error(
            ("weights",),
            f"these ranges belong to the weights {str(data['weights'])[:12]!r}, not to {weights[:12]!r}; make the file "
            "anew with run.py calibrate, or remove it.",
        )
    networks = document.mapping(("networks",), data["networks"], list(data["networks"] or ()))
    return {str(name): _rows(document, str(name), rows) for name, rows in networks.items()}


def _rows(document: Document, network: str, rows: object) -> tuple[Range, ...]:
    path: tuple[str | int, ...] = ("networks", network)
    if not isinstance(rows, list) or not all(isinstance(row, dict) and set(row) == set(FIELDS) for row in rows):
        raise document.error(path, f"{network} must be a list of {{{', '.join(FIELDS)}}}; run run.py calibrate.")
    made: list[Range] = []
    for number, row in enumerate(rows):
        where = (*path, number)
        place = document.whole((*where, "place"), row["place"], made[-1].place + 1 if made else 0, MOST)
        low = document.number((*where, "low"), row["low"], -LARGEST, 0.0)
        high = document.number((*where, "high"), row["high"], 0.0, LARGEST)
        if low == high:
            raise document.error(where, f"{low} to {high} is no range; make the file anew with run.py calibrate.")
        kernel = row["kernel"]
        if not isinstance(kernel, list) or not all(isinstance(side, int) for side in kernel):
            raise document.error((*where, "kernel"), f"kernel must be a list of whole numbers, found {kernel!r}.")
        made.append(Range(place, low, high, tuple(kernel)))
    return tuple(made)
