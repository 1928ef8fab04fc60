"""Charts of curves over a rollout: as SVG for the page (page.py has its colours), and as one PNG.

Does not know what is measured.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, field
from html import escape

from controls.errors import UserError

WIDTH, HEIGHT = 360, 220
LEFT, RIGHT, TOP, BOTTOM = 44, 14, 12, 30
COLOURS = ("#c4501b", "#13756b", "#6650c9", "#8a6d1d")  # on paper; readable to the colour blind with MARKS
MARKS = ("circle", "square", "triangle", "circle")
MISSING = "The package matplotlib, which --png draws with, is not installed; run pip install -e '.[evaluate]'."


@dataclass(frozen=True)
class Chart:
    """Lines of one value a stretch, the centre of stretch i at (i + 1/2) `step` seconds; `levels` are dashed."""

    title: str
    note: str
    step: float
    lines: dict[str, list[float]]
    levels: dict[str, float] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Stretches."""
        return max(len(values) for values in self.lines.values())

    @property
    def top(self) -> float:
        """The highest value that is drawn."""
        return max([*self.levels.values(), *(value for values in self.lines.values() for value in values), 1e-9]) * 1.08


def nice_step(top: float, parts: int = 4) -> float:
    """The distance of at most `parts` round numbers up to `top`: 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(top / parts))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if top <= m * power * parts * (1 + 1e-9))


def label(value: float) -> str:
    """A short number."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def svg(chart: Chart) -> str:
    """The chart as an SVG element whose colours are the classes s0, s1, ... (lines), grid and level."""
    wide, tall, top = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM, chart.top
    span = chart.count * chart.step

    def x(seconds: float) -> float:
        return round(LEFT + wide * seconds / span, 1)

    def y(value: float) -> float:
        return round(TOP + tall * (1 - value / top), 1)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(chart.title)}">']
    step = nice_step(top)
    for i in range(int(top / step + 1e-9) + 1):
        at = y(i * step)
        parts.append(f'<path class="grid" d="M{LEFT} {at}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{at + 4}" text-anchor="end">{label(i * step)}</text>')
    minutes = span > 180
    unit = 60.0 if minutes else 1.0
    step = nice_step(span / unit, 6) * unit
    for i in range(int(span / step + 1e-9) + 1):
        text = f"{i * step / unit:g}" + (" min" if minutes else " s")
        anchor = "end" if span - i * step < 0.05 * span else "middle"
        parts.append(f'<text class="tick" x="{x(i * step)}" y="{HEIGHT - 10}" text-anchor="{anchor}">{text}</text>')
    lowest = min(chart.levels.values(), default=0.0)
    for name, value in chart.levels.items():
        below = len(chart.levels) > 1 and value == lowest
        parts.append(f'<path class="level" d="M{LEFT} {y(value)}H{WIDTH - RIGHT}"/>')
        at = y(value) + (12 if below else -4)
        parts.append(f'<text class="tick" x="{WIDTH - RIGHT}" y="{at}" text-anchor="end">{escape(name)}</text>')
    for number, (name, values) in enumerate(chart.lines.items()):
        points = [(x((i + 0.5) * chart.step), y(value)) for i, value in enumerate(values)]
        drawn = " ".join(f"{a},{b}" for a, b in points)
        parts.append(f'<polyline class="line s{number}" points="{drawn}"/>')
        size = 3.2 if len(points) <= 24 else 1.8
        for i, (a, b) in enumerate(points):
            said = f"{name}, {i * chart.step:g} to {(i + 1) * chart.step:g} s: {values[i]:.4g}"
            parts.append(f'<g class="dot s{number}"><title>{escape(said)}</title>{mark(number, a, b, size)}</g>')
    return "".join([*parts, "</svg>"])


def mark(number: int, x: float, y: float, size: float) -> str:
    """The mark of line `number` at a point, about `size` to each side."""
    kind = MARKS[number % len(MARKS)]
    if kind == "circle":
        return f'<circle cx="{x}" cy="{y}" r="{size}"/>'
    if kind == "square":
        return f'<rect x="{x - size:.1f}" y="{y - size:.1f}" width="{2 * size:.1f}" height="{2 * size:.1f}"/>'
    top, low = y - 1.2 * size, y + size
    return f'<path d="M{x} {top:.1f}L{x + 1.2 * size:.1f} {low:.1f}L{x - 1.2 * size:.1f} {low:.1f}Z"/>'


def check_matplotlib() -> None:
    """UserError when `png` could not draw."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError(MISSING) from error


def png(charts: list[Chart]) -> bytes:
    """All charts as one picture; UserError without matplotlib."""
    check_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = -(-len(charts) // 2)
    figure = Figure(figsize=(10, 3.4 * height), dpi=120, layout="constrained", facecolor="#fbfaf7")
    for place, chart in enumerate(charts, start=1):
        axes = figure.add_subplot(height, 2, place, facecolor="#fbfaf7")
        for number, (name, values) in enumerate(chart.lines.items()):
            seconds = [(i + 0.5) * chart.step for i in range(len(values))]
            kind = {"circle": "o", "square": "s", "triangle": "^"}[MARKS[number % len(MARKS)]]
            axes.plot(seconds, values, color=COLOURS[number % len(COLOURS)], marker=kind, markersize=4, label=name)
        lowest = min(chart.levels.values(), default=0.0)
        for name, value in chart.levels.items():
            below = len(chart.levels) > 1 and value == lowest
            axes.axhline(value, color="#8b877d", linestyle=(0, (4, 3)), linewidth=1)
            axes.annotate(
                name, (1, value), (-3, -9 if below else 3), ("axes fraction", "data"), textcoords="offset points",
                ha="right", fontsize=8, color="#6d6a62",
            )  # fmt: skip
        axes.set_title(f"{chart.title}  ({chart.note})", fontsize=10, loc="left")
        axes.set_xlim(0, chart.count * chart.step)
        axes.set_ylim(0, chart.top)
        axes.set_xlabel("seconds", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(color="#e6e2d8", linewidth=0.6)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        if place == 1:
            axes.legend(fontsize=8, frameon=False)
    held = io.BytesIO()
    FigureCanvasAgg(figure).print_png(held)
    return held.getvalue()
