"""What `run.py worlds` makes: maps to record, scenes to play, and pictures to tell what a world looks like.

Does not know about networks, training or windows.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from controls.errors import UserError

Pixels = npt.NDArray[np.uint8]
EVERY = 12  # video frames between the pictures that a range is taken from


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run.py worlds` takes."""
    parser.add_argument(
        "what",
        choices=["halls", "scene", "range"],
        help="build the Halls maps, cut a scene out of a data set, or write what its pictures are like for the drift "
        "watch",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--maps", type=int, default=24, help="how many maps (halls)")
    parser.add_argument("--size", choices=["grand", "small", "endless"], default="grand", help="of each map (halls)")
    parser.add_argument("--out", type=Path, required=True, help="the PK3 file, the folder of scenes, or the weights'")
    parser.add_argument("--data", type=Path, help="data set (scene, range)")
    parser.add_argument("--clip", type=int, default=0)
    parser.add_argument("--frame", type=int, default=0)
    parser.add_argument("--name", default="", help="folder name of the scene")
    parser.add_argument("--title", default="")
    parser.add_argument("--caption", default="")
    parser.add_argument("--weights", default="", help="name of the weights that the scene is walked with (scene)")


def make(args: argparse.Namespace) -> str:
    """Do what the arguments ask for; returns what to say of it. UserError on arguments that do not fit."""
    if args.what == "halls":
        from generator.data.halls.pk3 import build

        if not 1 <= args.maps <= 99:
            raise UserError(f"--maps {args.maps} is not between 1 and 99; choose how many maps to build.")
        infos = build(args.seed, args.maps, args.out, size=args.size)
        return f"{args.out}: {len(infos)} maps, themes {', '.join(sorted({info.theme for info in infos}))}"
    from generator.data.clips import Dataset
    from generator.data.scenes import export_scene

    if args.data is None or not args.name:
        raise UserError("A scene needs --data DIR and --name NAME; add them.")
    title = args.title or args.name
    texts = args.name, title, args.caption
    return str(export_scene(Dataset.open(args.data), args.clip, args.frame, *texts, args.out, args.weights))


def recorded(folder: Path | None, out: Path) -> Iterator[Pixels]:
    """Every EVERY-th picture uint8 (Y, X, 3) of a data set's training clips, for the weights in `out`; UserError
    without either.
    """
    from generator.data.clips import Dataset

    if folder is None:
        raise UserError("A range needs --data DIR, whose pictures it is taken from; add it.")
    if not (out / "config.json").is_file():
        raise UserError(f"There are no weights in {str(out)!r} (no config.json); give their folder as --out.")
    dataset = Dataset.open(folder)
    for index in dataset.select("train"):
        clip = dataset.clip(index)
        for frame in range(0, len(clip), EVERY):
            yield clip.frames(frame, 1)[0]
