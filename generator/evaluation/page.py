"""One page of HTML for an evaluation: aims, curves, pictures and tables, whole in itself (no script, nothing loaded).

Does not know how anything is measured.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from controls.files import write_atomic
from generator.evaluation.charts import Chart, mark, png, svg
from generator.evaluation.drift import Drift
from generator.evaluation.frechet import Pixels
from generator.evaluation.page_style import STYLE
from generator.evaluation.report import Evaluation
from generator.evaluation.sheets import Sheet

QUALITY = 78  # of WebP
Report = dict[str, Any]
NOTES = {
    "sharpness": "over real; 1 is as sharp",
    "saturation": "over real; 0 is grey",
    "motion": "over real; idle should be near 0",
}
TILES = {
    "fvd.16": "FVD, 16 frames",
    "fvd.32": "FVD, 32 frames",
    "fid.rollout": "FID of rollouts",
    "frechet_alexnet.rollout": "AlexNet distance of rollouts",
}
FAMILIES = {
    "tokenizer": "tokenizer alone",
    "next": "next latent frame, real history",
    "rollout_1s": "free rollout at 1 s",
    "rollout_4s": "free rollout at 4 s",
    "halves": "real, one half against the other",
}


@dataclass(frozen=True)
class Aim:
    """A figure with the range that it should be in."""

    title: str
    key: str
    low: float
    high: float

    def text(self) -> str:
        """The range in words."""
        if self.low == float("-inf"):
            return f"at most {self.high:g}"
        return f"at least {self.low:g}" if self.high == float("inf") else f"{self.low:g} to {self.high:g}"


AIMS = (
    Aim("Motion over real", "motion_energy.ratio", 0.7, 1.3),
    Aim("Yaw slope", "control.yaw.slope", 0.9, 1.1),
    Aim("Yaw correlation", "control.yaw.corr", 0.9, float("inf")),
    Aim("Drift, last over first", "drift.last_over_first", float("-inf"), 1.25),
)


def number(value: Any) -> str:
    """A figure as a reader wants it."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(number(one) for one in value)
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def render(evaluation: Evaluation) -> str:
    """The page."""
    report = evaluation.report
    title = f"{report['preset']} · {report['stage'] or 'untrained'}"
    parts = [
        head(report, title),
        warning(report),
        tiles(report),
        drift_section(evaluation.drift) if evaluation.drift else "",
        "".join(sheet_section(sheet) for sheet in evaluation.sheets),
        *(table for of, part in by_split(report) for table in split_tables(part, of)),
        everything(report),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)} · Farstep</title><style>{STYLE}</style></head>\n"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def by_split(report: Report) -> list[tuple[str, Report]]:
    """The report, and of every split but the first what to say of it and its figures under their plain names."""
    found = [("", report)]
    for split in (name.strip() for name in str(report["split"]).split(",")[1:]):
        names = [key for key in report if key.startswith(split + ".")]
        found.append((f", {split}", {key.removeprefix(split + "."): report[key] for key in names}))
    return found


def split_tables(report: Report, of: str) -> list[str]:
    """The tables of one split."""
    return [quality_table(report, of), distance_table(report, of), control_table(report, of)]


def write_pages(evaluation: Evaluation, html: Path | None, picture: Path | None) -> None:
    """Write the page, and the curves of a drift as a PNG, where a path is given."""
    if html:
        write_atomic(html, render(evaluation))
    if picture:
        assert evaluation.drift, "no drift was measured"
        write_atomic(picture, png(drift_charts(evaluation.drift)))


def head(report: Report, title: str) -> str:
    """Whose figures these are."""
    facts = [
        f"world {report['world']}",
        f"weights {str(report['weights_hash'])[:12]}",
        f"{report['clips']} {'clip' if report['clips'] == 1 else 'clips'} of {report['split']}",
        *([f"played by {report['drift.backend']}"] if "drift.backend" in report else []),
        f"measured in {number(float(report['seconds']))} s",
    ]
    listed = "".join(f"<li>{escape(fact)}</li>" for fact in facts)
    return f'<header><p class="mark">Farstep</p><h1>{escape(title)}</h1><ul class="facts">{listed}</ul></header>'


def warning(report: Report) -> str:
    """The known failure, said first."""
    if report.get("drift.static") or report.get("motion_energy.static"):
        return (
            '<p class="warning"><b>Static.</b> Under actions that move, rollouts hardly change: see motion below.</p>'
        )
    return ""


def tiles(report: Report) -> str:
    """Aims and whether they are met; distances without one beside their floor and ceiling."""
    made = []
    for aim in AIMS:
        value = report.get(aim.key)
        if value is None:
            continue
        met = aim.low <= value <= aim.high
        state = f'<span class="{"met" if met else "missed"}">{"✓ met" if met else "✕ not met"}</span>'
        made.append(tile(aim.title, number(value), f"{state}<br>aim {aim.text()}"))
    for key, title in TILES.items():
        if report.get(key) is not None:
            base = key.removesuffix(".rollout")
            ends = (f"{end} {number(report[f'{base}.{end}'])}" for end in ("floor", "ceiling"))
            made.append(tile(title, number(report[key]), "<br>".join(ends)))
    return f'<section class="tiles">{"".join(made)}</section>' if made else ""


def tile(title: str, value: str, below: str) -> str:
    """One figure, large."""
    return f'<div class="tile"><p>{escape(title)}</p><p class="value">{value}</p><p class="below">{below}</p></div>'


def drift_charts(drift: Drift) -> list[Chart]:
    """Curves of every measure, a line for each drive."""
    report, charts = drift.report, []
    name = report["drift.measure"]
    for measure in next(iter(drift.curves.values())):
        lines = {drive: curves[measure] for drive, curves in drift.curves.items()}
        if measure == name:
            levels = {end: report[f"drift.{name}.{end}"] for end in ("floor", "ceiling")}
            charts.append(
                Chart(name, "distance to real; lower is better", report["drift.stretch_seconds"], lines, levels)
            )
        else:
            charts.append(Chart(measure, NOTES[measure], report["drift.stretch_seconds"], lines, {"real": 1.0}))
    return charts


def drift_section(drift: Drift) -> str:
    """Curves over the length of the rollouts."""
    report, name = drift.report, drift.report["drift.measure"]
    keys = "".join(
        f'<li><svg class="key" viewBox="0 0 28 12"><path class="line s{i}" d="M1 6H27"/>'
        f'<g class="dot s{i}">{mark(i, 14, 6, 3.2)}</g></svg>{escape(drive)}</li>'
        for i, drive in enumerate(drift.curves)
    )
    charts = "".join(
        f'<figure class="chart"><figcaption><b>{escape(chart.title)}</b> {escape(chart.note)}</figcaption>'
        f"{svg(chart)}</figure>"
        for chart in drift_charts(drift)
    )
    rows = [
        [drive, number(curves[name][0]), number(curves[name][-1]), number(report[f"drift.{drive}.last_over_first"])]
        for drive, curves in drift.curves.items()
    ]
    said = (
        f"{report['drift.rollouts']} rollouts of {report['drift.frames']:,} frames for each drive, in stretches of "
        f"{report['drift.stretch_seconds']:g} s. Floor: real clips; ceiling: real clips through the tokenizer."
    )
    first_last = table(["", "first", "last", "last over first"], rows)
    return (
        f'<section><h2>Drift</h2><p class="said">{said}</p><ul class="keys">{keys}</ul>'
        f'<div class="charts">{charts}</div>{first_last}</section>'
    )


def sheet_section(sheet: Sheet) -> str:
    """Pictures in a grid, those of one moment above one another."""
    cells = []
    for place, seconds in enumerate(sheet.seconds):
        shown = "".join(
            f'<img src="{inline(pictures[place])}" alt="{escape(name)} at {seconds:g} s" loading="lazy">'
            for name, pictures in sheet.rows
        )
        cells.append(f"<figure>{shown}<figcaption>{clock(seconds)}</figcaption></figure>")
    names = [name for name, _ in sheet.rows]
    said = f'<p class="said">{escape(" above ".join(names))}</p>' if len(names) > 1 else ""
    return f'<section><h2>{escape(sheet.title)}</h2>{said}<div class="sheet">{"".join(cells)}</div></section>'


def clock(seconds: float) -> str:
    """3.5 s, or 2:05 from a minute on."""
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds // 60)}:{int(seconds % 60):02d}"


def inline(picture: Pixels) -> str:
    """A picture (Y, X, 3) as a WebP data address."""
    held = io.BytesIO()
    Image.fromarray(picture).save(held, "WEBP", quality=QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(held.getvalue()).decode()}"


def table(heads: list[str], rows: Iterable[list[str]]) -> str:
    """A table whose first column names its rows; cells are HTML."""
    top = "".join(f'<th scope="col">{head}</th>' for head in heads)
    lines = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    return f'<div class="table"><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>'


def quality_table(report: Report, of: str = "") -> str:
    """PSNR and LPIPS beside the baselines; bold where the world beats both."""
    rows = []
    for family, title in FAMILIES.items():
        row = [title]
        for measure, sign in (("psnr", 1), ("lpips", -1)):
            keys = [f"{prefix}{family}.{measure}" for prefix in ("", "baseline.repeat.", "baseline.shift.")]
            own, *others = (report.get(key) for key in keys)
            known = [sign * other for other in others if other is not None]
            best = own is not None and len(known) == len(others) and sign * own > max(known)
            row += [f"<b>{number(own)}</b>" if best else number(own), *(number(other) for other in others)]
        rows.append(row)
    heads = ["", "PSNR dB", "repeat", "shift", "LPIPS", "repeat", "shift"]
    said = (
        "PSNR: higher is better; LPIPS: lower. Baselines: the last known picture again, or shifted by the look. "
        "Bold: better than both."
    )
    return f'<section><h2>Picture by picture{escape(of)}</h2><p class="said">{said}</p>{table(heads, rows)}</section>'


def distance_table(report: Report, of: str = "") -> str:
    """Distances between their floor and ceiling."""
    rows = []
    for name in ("fvd.16", "fvd.32"):
        if name in report:
            ends = [number(report[f"{name}.{end}"]) for end in ("floor", "ceiling")]
            rows.append(
                [f"{name}, free rollouts", f"<b>{number(report[name])}</b>", *ends, number(report[f"{name}.windows"])]
            )
    for name in ("fid", "frechet_alexnet"):
        ends = [number(report.get(f"{name}.{end}")) for end in ("floor", "ceiling", "pictures")]
        for kind, title in (("next", "real history"), ("rollout", "free rollouts")):
            if f"{name}.{kind}" in report:
                rows.append([f"{name}, {title}", f"<b>{number(report[f'{name}.{kind}'])}</b>", *ends])
    said = (
        "Lower is better. Floor: real against real; ceiling: real through the tokenizer alone. "
        "Figures compare at the same count only."
    )
    if report.get("fvd.few"):
        said += " FVD is of fewer than 256 windows here, which makes it larger than it is."
    heads = ["", "world", "floor", "ceiling", "count"]
    return (
        f'<section><h2>Distances{escape(of)}</h2><p class="said">{said}</p>{table(heads, rows)}</section>'
        if rows
        else ""
    )


def control_table(report: Report, of: str = "") -> str:
    """Response to the mouse and keys beside that of the game itself."""
    rows = []
    for name in ("yaw", "pitch", "forward"):
        cells = [number(report.get(f"{c}.{name}.{k}")) for k in ("corr", "slope") for c in ("control", "control.real")]
        rows.append([name, *cells])
    said = (
        "Measured in the pictures against what was commanded. Yaw and pitch: degrees per degree; forward: eye heights "
        "a tick at a steady walk."
    )
    heads = ["", "correlation", "real clips", "slope", "real clips"]
    return f'<section><h2>Control{escape(of)}</h2><p class="said">{said}</p>{table(heads, rows)}</section>'


def everything(report: Report) -> str:
    """The whole report."""
    text = json.dumps(report, indent=1)
    return f"<details><summary>All figures</summary><pre>{escape(text)}</pre></details>"
