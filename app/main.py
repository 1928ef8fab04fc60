"""The play command: its arguments, and the choice between the window and a run without a display.

Does not know how frames are made, shown or paced.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from app.door import Door, default_door, follow_leader, home_of
from app.protocol import Load
from app.settings import DETAILS
from controls.errors import UserError
from controls.machine import threads_of_use


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of `run.py play`, for the window and for --headless."""
    parser.add_argument(
        "--weights", type=Path, metavar="DIR", help="folder with the weights (default: each scene's own)"
    )
    parser.add_argument(
        "--scene", metavar="NAME", help="a scene's name, a picture or a world pack; the window asks without it"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed (default 0)")
    parser.add_argument("--backend", default="auto", help="what runs the network (default: the fastest that works)")
    parser.add_argument(
        "--nfe", type=int, help="network calls per latent frame: 1, or 2 to 10 of the slower teacher (default: as set)"
    )
    parser.add_argument(
        "--detail", choices=DETAILS, help="light: less fine detail in less time (default: as set, full with --headless)"
    )
    parser.add_argument(
        "--threads", type=int, default=threads_of_use(), help="CPU threads of the generator (default: 2 to 4, by cores)"
    )
    parser.add_argument(
        "--parallel", type=int, default=0, metavar="P", help="processes that share the network (default: torchrun's)"
    )
    parser.add_argument("--scale", choices=("smooth", "integer"), help="how the window enlarges a frame")
    parser.add_argument("--fullscreen", action="store_true", help="start with the whole screen")
    parser.add_argument("--headless", action="store_true", help="play without a display and print a report")
    group = parser.add_argument_group("with --headless")
    group.add_argument("--frames", type=int, default=240, metavar="N", help="video frames to play (default 240)")
    group.add_argument(
        "--actions",
        metavar="FILE",
        help="idle, forward, spin, stroll (default), a .jsonl recording or a .yaml script",
    )
    group.add_argument(
        "--out", type=Path, metavar="DIR", help="write PNG frames to a folder, or a video to a .mp4 file"
    )
    group.add_argument("--json", type=Path, metavar="FILE", help="write the report there instead of printing it")
    group.add_argument("--no-pacing", action="store_true", help="as fast as it can, not at 24 frames a second")


def play(args: Namespace, door: Door | None = None) -> int:
    """Run the play command; returns the exit code (130 after Ctrl-C). UserError on bad input."""
    from generator.world import MOST_CALLS

    for name, least in (("frames", 1), ("threads", 1), ("seed", 0), ("parallel", 0)):
        if getattr(args, name) < least:
            raise UserError(f"--{name} is {getattr(args, name)}; give {least} or more.")
    if args.nfe is not None and not 1 <= args.nfe <= MOST_CALLS:
        raise UserError(f"--nfe is {args.nfe}; give 1, or 2 to {MOST_CALLS} network calls per latent frame.")
    try:
        if door is None and follow_leader(
            Load(_home(args), args.backend, args.threads, nfe=args.nfe or 1, parallel=args.parallel)
        ):
            return 0
        door = door or default_door()
        return _headless(args, door) if args.headless else _window(args, door)
    except KeyboardInterrupt:
        return 130


def _home(args: Namespace) -> Path:
    """The weights of the world that is walked first."""
    named = {scene.name: scene for scene in default_door().list_scenes()} if args.scene else {}
    return home_of(args.weights, named.get(args.scene))


def _headless(args: Namespace, door: Door) -> int:
    from app import headless

    headless.run(args, door)
    return 0


def _window(args: Namespace, door: Door) -> int:
    try:
        from app.window import check_pygame

        check_pygame()
        from app import launch
    except ImportError as error:
        raise UserError(f"The window needs pygame-ce ({error}); run `pip install pygame-ce`.") from error
    return launch.run(args, door)
