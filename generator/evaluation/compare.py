"""`run.py compare`: the paper's comparisons in kind (AAPT sections 5 and 6), one row a world, in one table.

Rows stand in the order in which they are worth their time. Those whose weights are given are only measured; the others
are trained first, from the given stage 1 and stage 2 weights, as long as the command says. What is done is kept: every
run resumes, every measured row has its file in OUT/rows, and the table (JSON and Markdown) is written after each row.
A row that cannot be had stays in the table with the reason, and so does what ended a row's training early.

Does not know how a stage trains or how a figure is measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from controls.errors import UserError
from controls.files import write_atomic
from controls.strict_yaml import did_you_mean
from generator.checkpoint import load_weights
from generator.config import override
from generator.data.clips import Dataset
from generator.evaluation.frechet import AlexNet, PictureNetwork
from generator.evaluation.fvd import I3D
from generator.evaluation.walker import Walker
from generator.evaluation.yardstick import Measure, Yardstick
from generator.runtime.multistep import sampler_in
from generator.training import adaptation, adversarial
from generator.training.adversarial_settings import AdversarialTraining
from generator.training.perceptual import Lpips

Say = Callable[[str], None]
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Kind:
    """A row of the table: what it shows, whose weights it takes, with how many network calls, and how they are made.

    `source` names given weights or another row to begin from; `changes` are settings of stage 3 and None for rows that
    are not trained; `relearn` is stage 1 again first, without the recycled frame.
    """

    title: str
    source: str
    changes: Mapping[str, Any] | None = None
    nfe: int = 1
    relearn: bool = False


KINDS: dict[str, Kind] = {
    "consistency": Kind("stage 2 only", "student"),
    "adversarial": Kind("stage 3, not extended", "student", {"segments": 1}),
    "teacher-4": Kind("stage 1, 4 calls", "teacher", nfe=4),
    "teacher-8": Kind("stage 1, 8 calls", "teacher", nfe=8),
    "teacher-32": Kind("stage 1, 32 calls", "teacher", nfe=32),
    "forced": Kind("stage 3, teacher forced", "student", {"segments": 1, "forced": True}),
    "no-recycled": Kind("stages 1 and 3, no recycled frame", "teacher", {"segments": 1}, relearn=True),
    "extended-1": Kind("stage 3, extended x1", "adversarial", {"segments": 2}),
    "extended-5": Kind("stage 3, extended x5", "extended-1", {"segments": 6}),
}
OWN = {"lr", "ema", "history_noise", "hold", "warmup"}  # settings of stage 3 that mean other values in stage 1
COLUMNS = {
    "fvd.16.first": "FVD, first 10 s",
    "fvd.16.last": "FVD, last 10 s",
    "DISTANCE.first": "DISTANCE, first 10 s",
    "DISTANCE.last": "DISTANCE, last 10 s",
    "last_over_first": "last over first",
    "motion_energy": "motion over real",
    "yaw.slope": "yaw slope",
    "yaw.corr": "yaw correlation",
}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What is compared: stage 1 weights (`teacher`), stage 2's (`student`) and rows' own (`given`); where and how long.

    `minutes` and `steps` are those of each trained run (both 0: nothing is trained); `settings` are stage 3's.
    """

    teacher: Path
    student: Path
    data: Path
    latents: Path
    out: Path
    given: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    rows: Sequence[str] = tuple(KINDS)
    minutes: float = 0.0
    steps: int = 0
    settings: Sequence[str] = ()
    measure: Measure = dataclasses.field(default_factory=Measure)


class LeftOut(Exception):
    """A row that cannot be had, and why."""


def compare(asked: Comparison, say: Say, network: PictureNetwork | None = None) -> dict[str, Any]:
    """Train and measure row by row; returns the table. UserError on what no row could do without."""
    for name in (*asked.rows, *asked.given):
        if name not in KINDS:
            raise UserError(f"Unknown row {name!r}{did_you_mean(name, KINDS)}.")
    dataset, config = Dataset.open(asked.data), load_weights(asked.teacher).config
    if load_weights(asked.student).config.dit != config.dit:
        raise UserError(f"The weights {str(asked.student)!r} are of another model than {str(asked.teacher)!r}.")
    if config.action_spec != dataset.spec or tuple(config.picture) != dataset.size:
        raise UserError(f"The weights {str(asked.teacher)!r} play other pictures or actions than {str(asked.data)!r}.")
    override(AdversarialTraining(), asked.settings, "adversarial")
    (asked.out / "rows").mkdir(parents=True, exist_ok=True)
    held: list[Yardstick] = []

    def yardstick() -> Yardstick:
        if not held:
            say("the real clips")
            held.append(open_yardstick(dataset, asked, network))
        return held[0]

    made: dict[str, Row] = {}
    for name in (name for name in KINDS if name in asked.rows):
        made[name] = row_of(asked, name, yardstick, say)
        write_table(asked, made)
    return table_of(asked, made)


def open_yardstick(dataset: Dataset, asked: Comparison, network: PictureNetwork | None) -> Yardstick:
    """The real side with the networks that are asked for; UserError when a package is missing."""
    measure = asked.measure
    if network is None and measure.fid:
        from generator.evaluation.fid import Inception

        network = Inception()
    seen = network or AlexNet(Lpips("alexnet"))
    return Yardstick(dataset, measure, seen, I3D() if measure.fvd else None, asked.out / "rows")


def row_of(asked: Comparison, name: str, yardstick: Callable[[], Yardstick], say: Say) -> Row:
    """One row: its figures, kept or measured now, or why there are none."""
    kind = KINDS[name]
    try:
        folder, note = weights_of(asked, name, say)
    except LeftOut as reason:
        say(f"{name}: left out, {reason}")
        return {"title": kind.title, "left_out": str(reason)}
    weights = load_weights(folder)
    sampler = sampler_in(folder, weights, kind.nfe) if kind.nfe > 1 else None
    key = {
        "weights": weights.hash,
        "sampler": sampler.label if sampler else "",
        "data": str(asked.data),
        "measure": dataclasses.asdict(asked.measure),
    }
    kept = read_row(asked.out / "rows" / f"{name}.json")
    if kept is None or kept.get("key") != key:
        found = yardstick().figures(Walker(weights, sampler), lambda text: say(f"{name}: {text}"))
        distance = yardstick().network.name
        kept = {"key": key, "figures": found, "distance": distance, "nfe": kind.nfe, "weights": str(folder)}
        write_atomic(asked.out / "rows" / f"{name}.json", json.dumps(kept, indent=1).encode())
    return {"title": kind.title, **kept, **({"note": note} if note else {})}


def read_row(path: Path) -> Row | None:
    """A row's file; None when there is none that can be read."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def weights_of(asked: Comparison, name: str, say: Say) -> tuple[Path, str]:
    """The weights folder of a row, trained if need be, and what is to be said of it; LeftOut when there are none."""
    kind = KINDS[name]
    if name in asked.given:
        return asked.given[name], ""
    if kind.changes is None:
        return {"teacher": asked.teacher, "student": asked.student}[kind.source], ""
    if asked.minutes <= 0 and asked.steps <= 0:
        raise LeftOut(f"not trained: give --minutes, or its weights with --snapshot {name}=DIR")
    start, before = {"teacher": asked.teacher, "student": asked.student}.get(kind.source), ""
    if start is None:
        start, before = weights_of(asked, kind.source, say)
    folder = asked.out / "runs" / name
    stages = recipe(asked, kind, start, folder)
    plan = [dataclasses.asdict(config) for config in stages.values()]
    kept = read_row(folder / "finished.json")
    if kept is None or kept.get("plan") != json.loads(json.dumps(plan)):
        say(f"{name}: training")
        kept = {"plan": plan, "note": train_all(stages)}
        write_atomic(folder / "finished.json", json.dumps(kept, indent=1))
    if not (folder / "snapshot").is_dir():
        raise LeftOut(kept["note"])
    return folder / "snapshot", kept["note"] or before


def recipe(asked: Comparison, kind: Kind, start: Path, folder: Path) -> dict[Path, Any]:
    """The stages that make a row's weights from those in `start`: folder and settings, in turn."""
    stages: dict[Path, Any] = {}
    how = {"latents": str(asked.latents), "minutes": asked.minutes, "steps": asked.steps}
    how["preset"] = load_weights(start).config.preset
    changes, teacher = dict(kind.changes or {}), asked.teacher
    judge = start.parent / "discriminator.safetensors"
    changes |= {"discriminator": str(judge)} if kind.source in KINDS and judge.is_file() else {}
    if kind.relearn:
        stage1 = adaptation.AdaptationTraining(start=str(start), recycle=False, **how)
        shared = {f.name for f in dataclasses.fields(stage1)} - OWN
        chosen = [setting for setting in asked.settings if setting.partition("=")[0] in shared]
        stages[folder / "adaptation"] = override(stage1, chosen, "adaptation")
        start = teacher = folder / "adaptation" / "snapshot"
    stage3 = override(AdversarialTraining(start=str(start), teacher=str(teacher), **how), asked.settings, "adversarial")
    return stages | {folder: dataclasses.replace(stage3, **changes)}


def train_all(stages: Mapping[Path, Any]) -> str:
    """Train one stage after another; returns what ended them early, or nothing."""
    for folder, config in stages.items():
        stage = adversarial if isinstance(config, AdversarialTraining) else adaptation
        try:
            stage.train(config, folder)
        except UserError as error:
            return f"training ended early: {error}"
    return ""


def table_of(asked: Comparison, made: Mapping[str, Row]) -> dict[str, Any]:
    """The whole table as plain data."""
    about = {"minutes": asked.minutes, "steps": asked.steps, "settings": list(asked.settings)}
    return {"measure": dataclasses.asdict(asked.measure), "training": about, "rows": dict(made)}


def write_table(asked: Comparison, made: Mapping[str, Row]) -> None:
    """OUT/table.json and OUT/table.md."""
    write_atomic(asked.out / "table.json", json.dumps(table_of(asked, made), indent=1).encode())
    write_atomic(asked.out / "table.md", markdown(made).encode())


def markdown(made: Mapping[str, Row]) -> str:
    """The table for a README; figures that no row has get no column, reasons stand below."""
    measured = [row for row in made.values() if "figures" in row]
    distance = measured[0]["distance"] if measured else "distance"
    columns = {key.replace("DISTANCE", distance): head.replace("DISTANCE", distance) for key, head in COLUMNS.items()}
    columns = {key: head for key, head in columns.items() if any(key in row["figures"] for row in measured)}
    lines = [f"| {' | '.join(['world', 'calls', *columns.values()])} |", "|---" * (len(columns) + 2) + "|"]
    for row in measured:
        cells = [_cell(row["figures"].get(key)) for key in columns]
        lines.append(f"| {' | '.join([row['title'], str(row['nfe']), *cells])} |")
    floors = {name: measured[0]["figures"].get(f"{key}.floor") if measured else None
              for name, key in ((distance, distance), ("FVD", "fvd.16"))}  # fmt: skip
    notes = [f"Real clips against one another ({name}): {_cell(v)}." for name, v in floors.items() if v is not None]
    notes += [f"{row['title']}: {row['note']}" for row in measured if "note" in row]
    notes += [f"Left out: {row['title']} ({row['left_out']})." for row in made.values() if "left_out" in row]
    return "\n".join([*lines, "", *notes]) + "\n"


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run.py compare` takes."""
    for name, about in (
        ("teacher", "stage 1 weights"),
        ("student", "stage 2 weights"),
        ("data", "recorded clips, some of them held out"),
        ("latents", "the same clips, encoded"),
        ("out", "folder of runs, rows and the table; the same command goes on in it"),
    ):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="DIR", help=about)
    parser.add_argument("--rows", default="", help=f"some of {', '.join(KINDS)}, with commas (default: all)")
    parser.add_argument("--snapshot", action="append", default=[], metavar="ROW=DIR", help="weights of a row")
    parser.add_argument("--minutes", type=float, default=0.0, help="training of each row that has no weights")
    parser.add_argument("--steps", type=int, default=0, help="the same in steps")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of stage 3")
    parser.add_argument("--frames", type=int, default=1440, help="video frames of a rollout, 1440 a minute")
    parser.add_argument("--rollouts", type=int, default=4)
    parser.add_argument("--clips", type=int, default=16, help="clips for motion and yaw")
    parser.add_argument("--split", default="held_seed")
    parser.add_argument("--fid", action="store_true", help="FID in place of the distance by AlexNet (slow)")
    parser.add_argument("--fvd", action="store_true", help="also FVD of the first and last 10 s (slow)")


def asked_of(args: argparse.Namespace) -> Comparison:
    """The comparison that a command line asks for; UserError on a --snapshot without a folder."""
    given = {}
    for text in args.snapshot:
        name, sign, folder = text.partition("=")
        if not sign or not folder:
            raise UserError(f"--snapshot {text} names no folder; give --snapshot ROW=DIR.")
        given[name] = Path(folder)
    names = ("frames", "rollouts", "clips", "split", "fid", "fvd")
    measure = Measure(**{name: getattr(args, name) for name in names})
    rows = tuple(name.strip() for name in args.rows.split(",")) if args.rows else tuple(KINDS)
    places = {name: getattr(args, name) for name in ("teacher", "student", "data", "latents", "out")}
    return Comparison(
        **places, given=given, rows=rows, minutes=args.minutes, steps=args.steps, settings=args.set, measure=measure
    )
