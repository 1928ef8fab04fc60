"""Farstep's command table. Every command imports what it needs when it is called.

    python run.py                      open the window
    python run.py COMMAND --help       what a command takes

Does not know how anything is done.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from controls.errors import UserError
from controls.machine import threads_of_use

Command = Callable[[argparse.Namespace], int]
# Several libraries compute in turn there, each with threads of its own: torch's then wait without keeping a core busy.
PATIENT = ("play", "benchmark", "evaluate")
STAGES = ("tokenizer", "parallax", "latents", "adaptation", "consistency", "adversarial", "decoder", "refiner", "all")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; exit code 2 and one sentence on bad input."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help")):
        words.insert(0, "play")
    if words[0] in PATIENT:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        args = parser_for(words[0]).parse_args(words)
        command: Command = args.command
        return command(args)
    except UserError as error:
        print(f"farstep: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("farstep: stopped.", file=sys.stderr)
        return 130


def parser_for(chosen: str) -> argparse.ArgumentParser:
    """The whole command line; only the chosen command's own arguments are filled in (imports are lazy)."""
    parser = argparse.ArgumentParser(prog="run.py", description="Walk through worlds that a neural network generates.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (about, fill, command) in COMMANDS.items():
        sub = commands.add_parser(name, help=about, description=about)
        sub.set_defaults(command=command)
        if name == chosen:
            fill(sub)
    return parser


def write_json(path: Path | None, report: dict[str, Any]) -> None:
    """Print a report, and write it when a path is given."""
    text = json.dumps(report, indent=1)
    print(text)
    if path is not None:
        from controls.files import write_atomic

        write_atomic(path, text)


# --- play -----------------------------------------------------------------------------------------------------------
def fill_play(parser: argparse.ArgumentParser) -> None:
    from app.main import add_arguments

    add_arguments(parser)


def play(args: argparse.Namespace) -> int:
    from app.main import play as run

    return run(args)


# --- worlds, collect ------------------------------------------------------------------------------------------------
def fill_worlds(parser: argparse.ArgumentParser) -> None:
    from generator.data.making import add_arguments

    add_arguments(parser)


def worlds(args: argparse.Namespace) -> int:
    from generator.data.making import make, recorded

    if args.what != "range":
        print(make(args))
        return 0
    from app.drift import range_of_many, save_range

    print(save_range(range_of_many(recorded(args.data, args.out)), args.out))
    return 0


def fill_collect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--world", choices=["halls", "freedoom"], default="halls")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--frames", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--maps", help="0-23 for halls, E1M1,MAP04 for freedoom")
    parser.add_argument(
        "--size",
        default="grand",
        help="of halls: grand (11+ rooms), small (5 to 8), endless (courts); of freedoom: still (one place)",
    )
    parser.add_argument("--workers", type=int, default=1)


def collect(args: argparse.Namespace) -> int:
    from generator.data.collect import collect as run

    made = run(args.world, args.out, args.frames, args.seed, args.maps, args.workers, size=args.size)
    write_json(None, made)
    return 0


# --- train ----------------------------------------------------------------------------------------------------------
def fill_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stage", metavar="STAGE", help=", ".join(STAGES))
    parser.add_argument("--preset", default="pocket")
    parser.add_argument("--run", type=Path, help="folder of this run (default runs/STAGE)")
    parser.add_argument("--data", type=Path, default=Path("runs/data/halls"), help="recorded clips")
    parser.add_argument("--latents", type=Path, default=Path("runs/latents/halls"), help="encoded clips")
    parser.add_argument("--tokenizer", type=Path, default=Path("runs/tokenizer"), help="the tokenizer's run")
    parser.add_argument("--parallax", type=Path, help="the parallax's run; without it recycled pictures only turn")
    parser.add_argument("--workers", type=int, default=1, help="latents: processes of one thread each")
    parser.add_argument("--start", default="", help="weights to begin from")
    parser.add_argument("--resume-discriminator-from", default="", metavar="FILE", help="adversarial: an earlier run's")
    parser.add_argument("--minutes", type=float, default=0.0, help="end cleanly after this much work")
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--hours", type=float, default=0.0, help="all: time for every stage together")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="any other setting")


def train(args: argparse.Namespace) -> int:
    import torch

    from controls.strict_yaml import did_you_mean
    from generator.training.stages import train_all, train_stage

    if args.stage not in STAGES:
        raise UserError(f"Unknown stage {args.stage!r}{did_you_mean(args.stage, STAGES)}.")
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.stage == "all":
        train_all(args)
    else:
        run = args.run or Path("runs") / args.stage
        train_stage(args, args.stage, run, args.minutes, args.steps, args.start, args.set)
    return 0


# --- learn-times ----------------------------------------------------------------------------------------------------
def fill_learn_times(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", type=Path, required=True, help="the many-step teacher: adaptation weights")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the grid, a YAML file")
    parser.add_argument(
        "--solver", default="ipndm", help="euler, heun, dpmpp, unipc, unipc-bh1 or ipndm; gs learns corrections too"
    )
    parser.add_argument("--curve", action="store_true", help="one curve for all numbers of calls; --out has this one's")
    parser.add_argument("--order", type=int, default=3)
    parser.add_argument("--nfe", type=int, default=4, help="network calls per latent frame, 2 to 10")
    parser.add_argument("--distance", default="lpips", help="lpips (decoded pictures), l1 or l2 (latents)")
    parser.add_argument("--latents", type=Path, default=Path("runs/latents/halls"), help="encoded clips")
    parser.add_argument("--minutes", type=float, default=0.0, help="end cleanly after this much work, over all starts")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="any other setting")


def learn_times(args: argparse.Namespace) -> int:
    import torch

    from generator.config import override
    from generator.training.learn_times import TimesTraining, train

    if args.threads:
        torch.set_num_threads(args.threads)
    names = ("weights", "out", "solver", "order", "nfe", "distance", "latents", "minutes", "curve")
    values = {name: getattr(args, name) for name in names}
    settings = TimesTraining(**{k: str(v) if isinstance(v, Path) else v for k, v in values.items()})
    learned = train(override(settings, args.set, "learn-times"))
    for name, loss in sorted(learned.losses.items(), key=lambda pair: pair[1]):
        print(f"{name:10} {loss:.6f}")
    print(args.out)
    return 0


# --- calibrate ------------------------------------------------------------------------------------------------------
def fill_calibrate(parser: argparse.ArgumentParser) -> None:
    from generator.evaluation import options

    options.calibrate(parser)


def calibrate(args: argparse.Namespace) -> int:
    from generator.evaluation.calibrate import calibrate_folder

    for line in calibrate_folder(args.weights, args.frames, args.threads):
        print(line)
    return 0


# --- study ----------------------------------------------------------------------------------------------------------
def fill_study(parser: argparse.ArgumentParser) -> None:
    from generator.evaluation import options

    options.study(parser)


def study(args: argparse.Namespace) -> int:
    import torch

    from generator.config import override
    from generator.evaluation import exact_study, exact_tables, teacher_films, teacher_page, teacher_table

    torch.set_num_threads(args.threads)

    def say(text: str) -> None:
        print(text, flush=True)

    if args.what == "exact":
        file, exact = args.out / "exact-problems.json", override(exact_study.Study(), args.set, "study")
        whole = exact_study.run(exact, file, args.minutes, say)
        exact_tables.write(file, exact)
    else:
        file = args.out / "teacher-times.json"
        asked = teacher_table.TeacherStudy(weights=str(args.weights), latents=str(args.latents))
        teacher = override(asked, args.set, "study")
        if args.fvd is None:
            whole = teacher_table.run(teacher, file, args.minutes, say)
        else:
            rows, calls = tuple(args.fvd_rows), tuple(args.fvd_calls)
            films = teacher_films.Films(args.fvd, args.windows, rows, calls, args.keep)
            whole = teacher_films.run(teacher, films, file, args.minutes, say)
        teacher_page.write(file, teacher)
    print(f"{file.with_suffix('.md')}: {'whole' if whole else 'not whole yet, the same command goes on'}")
    return 0


# --- evaluate, benchmark, doctor ------------------------------------------------------------------------------------
def fill_evaluate(parser: argparse.ArgumentParser) -> None:
    from generator.evaluation import options

    options.evaluate(parser)


def evaluate(args: argparse.Namespace) -> int:
    from generator.evaluation.report import Settings
    from generator.evaluation.report import evaluate as run

    names = ("clips", "split", "fvd", "windows", "fid", "drift", "rollouts", "place", "along")
    names += ("backend", "threads", "nfe", "fvd_frames", "keep")
    settings = Settings(**{name: getattr(args, name) for name in names})
    if args.png:
        from generator.evaluation.charts import check_matplotlib

        if not args.drift:
            raise UserError("--png draws the curves of --drift; add --drift FRAMES.")
        check_matplotlib()
    made = run(args.weights, args.data, settings, lambda text: print(text, file=sys.stderr, flush=True))
    write_json(args.json, made.report)
    if args.html or args.png:
        from generator.evaluation.page import write_pages

        write_pages(made, args.html, args.png)
    return 0


def fill_compare(parser: argparse.ArgumentParser) -> None:
    from generator.evaluation.compare import add_arguments

    add_arguments(parser)


def compare(args: argparse.Namespace) -> int:
    from generator.evaluation import compare as comparing

    made = comparing.compare(comparing.asked_of(args), lambda text: print(text, file=sys.stderr, flush=True))
    print(comparing.markdown(made["rows"]))
    return 0


def fill_benchmark(parser: argparse.ArgumentParser) -> None:
    from generator.evaluation import options

    options.benchmark(parser)


def benchmark(args: argparse.Namespace) -> int:
    if args.game:
        if args.parallel is not None:
            raise UserError("--game runs in one process; leave out --parallel, or leave out --game.")
        from app.door import DEFAULT_WEIGHTS, open_world
        from app.measure import measure_game
        from app.protocol import Load

        request = Load(args.weights or DEFAULT_WEIGHTS, args.backend, args.threads)
        write_json(args.json, measure_game(open_world(request)))
        return 0
    from generator.evaluation import benchmark_page as page
    from generator.evaluation.benchmark import Plan, benchmark, compared, parse_far, roofline_of, tricks_of

    names = ("preset", "weights", "resolution", "window", "backend", "dtype", "frames", "threads", "parallel")
    plan = Plan(**{name: getattr(args, name) for name in names}, text_tokens=args.text, far=parse_far(args.far))
    plan = dataclasses.replace(plan, sweep=tuple(args.sweep), switches=tuple(args.switch), beside=not args.alone)
    page.check_plot(args.plot)
    if args.roofline or args.counts:
        report = roofline_of(plan, measure=args.roofline)
    else:
        work = compared if args.compare else tricks_of if args.tricks else benchmark
        report = work(plan, lambda text: print(text, file=sys.stderr, flush=True))
    if report is not None:  # else this process did its share of what another one reports
        page.write(report, args.markdown, args.plot)
        write_json(args.json, report)
    return 0


def fill_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", type=Path, default=Path("assets/weights/pocket"))
    parser.add_argument("--part", default="decoder", help="decoder, decoder-first or transformer")
    parser.add_argument("--dtype", default="fp32", help="fp32, fp16 or bf16: what the graph computes in")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the ONNX file")


def export(args: argparse.Namespace) -> int:
    from generator.checkpoint import load_weights
    from generator.runtime.onnx_export import export as run
    from generator.runtime.onnx_export import require_onnx

    require_onnx()
    write_json(None, run(load_weights(args.weights), args.part, args.out, args.dtype))
    return 0


def fill_doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", type=Path, default=Path("assets/weights/pocket"))
    parser.add_argument("--threads", type=int, default=threads_of_use())


def doctor(args: argparse.Namespace) -> int:
    from generator.evaluation.doctor import examine

    for line in examine(args.weights, args.threads):
        print(line)
    return 0


COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None], Command]] = {
    "play": ("walk through a world, in a window or headless", fill_play, play),
    "worlds": ("build the Halls maps; of recorded clips a scene, or what pictures are like", fill_worlds, worlds),
    "collect": ("record clips of a world with the explorer", fill_collect, collect),
    "train": ("train a stage, or all of them", fill_train, train),
    "learn-times": ("learn the teacher's time steps for a number of network calls", fill_learn_times, learn_times),
    "calibrate": ("measure what int8 convolutions of a world must hold, once", fill_calibrate, calibrate),
    "study": ("compare solvers and time grids, in resumable pieces", fill_study, study),
    "evaluate": ("measure a world on held-out clips", fill_evaluate, evaluate),
    "compare": ("train and measure the paper's comparisons, one table", fill_compare, compare),
    "benchmark": ("time a world on this machine", fill_benchmark, benchmark),
    "export": ("write a part of a world as an ONNX graph with explicit state", fill_export, export),
    "doctor": ("say what this machine has and what would run", fill_doctor, doctor),
}


if __name__ == "__main__":
    sys.exit(main())
