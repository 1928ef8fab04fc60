"""Figures of a run: a JSON-lines file, a picture of its curves, and contact sheets.

Does not know what the figures mean.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from controls.errors import UserError
from controls.files import write_atomic


class Metrics:
    """`metrics.jsonl` in a run's folder; with `step`, lines of later steps are dropped."""

    def __init__(self, folder: Path, step: int | None = None) -> None:
        self.path = folder / "metrics.jsonl"
        kept = [row for row in read_metrics(self.path) if step is None or row["step"] <= step]
        write_atomic(self.path, "".join(json.dumps(row) + "\n" for row in kept))

    def add(self, step: int, **figures: float) -> None:
        """Append one line."""
        row = {
            "step": step,
            **{name: float(f"{value:.6g}") for name, value in figures.items()},
        }
        try:
            with self.path.open("a") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise UserError(f"Cannot write {self.path} ({error.strerror}); free space and run again.") from error


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Every whole line of a metrics file; a line cut off by a crash is passed over."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def draw_metrics(folder: Path) -> Path:
    """Draw every figure of `metrics.jsonl` against its step into `metrics.png`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = read_metrics(folder / "metrics.jsonl")
    names = sorted({name for row in rows for name in row} - {"step"})
    columns = min(4, max(1, len(names)))
    height = max(1, -(-len(names) // columns))
    figure = Figure(figsize=(3.6 * columns, 2.4 * height), layout="constrained")
    for index, name in enumerate(names):
        axes = figure.add_subplot(height, columns, index + 1)
        points = [(row["step"], row[name]) for row in rows if name in row]
        axes.plot([p[0] for p in points], [p[1] for p in points], linewidth=1)
        axes.set_title(name, fontsize=9)
    path, picture = folder / "metrics.png", io.BytesIO()
    FigureCanvasAgg(figure).print_png(picture)
    write_atomic(path, picture.getvalue())
    return path


def contact_sheet(path: Path, rows: list[np.ndarray]) -> None:
    """Write rows of pictures (each uint8 T Y X 3) under one another, pictures side by side, as one PNG."""
    wide = max(len(row) for row in rows)
    lines = []
    for row in rows:
        line = np.concatenate(list(row), axis=1)
        missing = (wide - len(row)) * row.shape[2]
        lines.append(np.pad(line, ((0, 0), (0, missing), (0, 0))))
    picture = io.BytesIO()
    Image.fromarray(np.concatenate(lines, axis=0)).save(picture, format="PNG")
    write_atomic(path, picture.getvalue())
