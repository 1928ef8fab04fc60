"""The benchmark's report as Markdown tables and as one picture.

Does not know how anything was timed.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from controls.errors import UserError
from controls.files import write_atomic
from generator.evaluation import cpu_runtimes, roofline, tricks
from generator.evaluation.latency import PARTS

MISSING = "The package matplotlib, which --plot draws with, is not installed; run pip install matplotlib."
HEAD = ("case", "reproject", "transformer", "decode", "copy-out", "total p50 / p99", "fps", "peak memory MB")
COLOURS = {"reproject": "#8a6d1d", "transformer": "#c4501b", "decode": "#13756b", "copy_out": "#6650c9"}


def rows_of(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every timed case of a report by a name that says what it is."""
    if "backends" in report:
        return {name: row for name, row in report["backends"].items() if "total_ms" in row}
    shared = report.get("parallel", 1) > 1
    where = f"{report['parallel']} processes, {report['device']}" if shared else report["device"]
    rows = {f"{report['backend']} ({where})": report}
    for name, label in (("eager", "eager"), ("diffusion_forcing", "two passes per latent frame, eager")):
        if "total_ms" in report.get(name, ()):
            alone = ", one process" if shared else ""
            rows[f"{label}{alone} ({report[name]['backend']})"] = report[name]
    for row in report.get("sweep", ()):
        rows[f"{'x'.join(map(str, row['resolution']))}, window {row['window']}"] = row
    return rows


def to_markdown(report: dict[str, Any]) -> str:
    """Tables: every case, and the cost against session length where it was measured. Times in ms per latent frame.

    Of a roofline or of counts, its own table.
    """
    if "parts" in report:
        return roofline.to_markdown(report)
    if "rows" in report:
        return cpu_runtimes.to_markdown(report)
    if "tricks" in report:
        return tricks.to_markdown(report)
    lines = [f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
    for name, row in rows_of(report).items():
        parts = ["" if row.get(f"{part}_ms") is None else f"{row[f'{part}_ms']['p50']:.2f}" for part in PARTS]
        total = f"{row['total_ms']['p50']:.2f} / {row['total_ms']['p99']:.2f}"
        memory = row.get("peak_device_mb") or row.get("peak_rss_mb")
        cells = [name, *parts, total, f"{row['fps']:.1f}", f"{memory:,.0f}" if memory else ""]
        lines.append(f"| {' | '.join(cells)} |")
    for name, row in rows_of(report).items():
        if row.get("step_ms_at"):
            steps = ", ".join(f"{took:.2f} ms at {frame}" for frame, took in row["step_ms_at"].items())
            lines += ["", f"{name}: a step takes {steps}; last over first {row['far_ratio']:.3f}."]
    return "\n".join(lines) + "\n"


def write(report: dict[str, Any], markdown: Path | None, plot: Path | None) -> None:
    """The tables and the picture of a report, each where a path is given; UserError as in `write_plot`."""
    if markdown:
        write_atomic(markdown, to_markdown(report))
    if plot:
        write_plot(report, plot)


def check_plot(plot: Path | None) -> None:
    """UserError when a picture is asked for and there is nothing to draw with."""
    if plot:
        check_matplotlib()


def check_matplotlib() -> None:
    """UserError when there is nothing to draw with."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError(MISSING) from error


def write_plot(report: dict[str, Any], path: Path) -> None:
    """Each case as a bar of its parts, and where steps were timed at several places a line; UserError as above."""
    check_matplotlib()
    if {"parts", "rows", "tricks"} & report.keys():
        raise UserError("--plot draws timed backends; leave it out with --roofline, --counts, --compare and --tricks.")
    from matplotlib.figure import Figure

    rows = rows_of(report)
    far = {name: row["step_ms_at"] for name, row in rows.items() if row.get("step_ms_at")}
    figure = Figure(figsize=(9, 1.6 + 0.45 * len(rows) + (2.6 if far else 0)), layout="constrained")
    axes = figure.subplots(2 if far else 1, 1, squeeze=False)[:, 0]
    left = [0.0] * len(rows)
    for part, colour in COLOURS.items():
        wide = [(row.get(f"{part}_ms") or {"p50": 0.0})["p50"] for row in rows.values()]
        axes[0].barh(list(rows), wide, left=left, color=colour, label=part.replace("_", "-"))
        left = [a + b for a, b in zip(left, wide, strict=True)]
    axes[0].invert_yaxis()
    axes[0].set_xlabel("ms per latent frame, p50")
    axes[0].legend()
    for name, steps in far.items():
        axes[1].plot([int(frame) for frame in steps], list(steps.values()), marker="o", label=name)
        axes[1].set(xscale="log", xlabel="latent frame", ylabel="step, ms", ylim=(0, None))
    blob = io.BytesIO()
    figure.savefig(blob, format="png", dpi=120)
    write_atomic(path, blob.getvalue())
