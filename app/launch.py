"""Opening the window and the sound, playing until the player leaves, and closing both whatever happens.

Does not know what is shown or played.
"""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from app.door import Door, home_of, scenes_of
from app.keeping import Keeper
from app.packs import is_pack
from app.program import WINDOW_KEYS, Program
from app.screens import commands
from app.sound.scape import Soundscape
from app.window import Window


def run(args: Namespace, door: Door) -> int:
    """Open the window and play until it is closed; returns the exit code. UserError when it cannot start."""
    keeper = Keeper(reserved=WINDOW_KEYS)
    kept = keeper.settings
    settings = replace(
        kept, scaling=args.scale or kept.scaling, fullscreen=args.fullscreen, calls=args.nfe or kept.calls,
        detail=args.detail or kept.detail,
    )  # fmt: skip
    given = Path(args.scene) if args.scene else None
    pack = given if given is not None and is_pack(given) else None
    first = door.find_scene(args.scene) if args.scene and pack is None else None
    scenes = scenes_of(args.weights, door.list_scenes())
    door.check_weights(home_of(args.weights, first))
    window = Window("Farstep", settings.fullscreen)
    try:
        sound = Soundscape(settings.volume, settings.muted)
        program = Program(args, door, window, settings, keeper.bindings, scenes, keeper, sound, first)
        try:
            if pack is not None:
                program.carry_out(commands.Open(pack))
            elif first is not None:
                program.carry_out(commands.Pick(first))
            program.loop()
        finally:
            sound.close()
            program.close()
    finally:
        window.close()
    return 0
