"""What a screen asks the program to do next.

Does not know who carries it out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Pick:
    """Walk from this scene."""

    scene: Any


@dataclass(frozen=True)
class Open:
    """Walk from a picture file, or show the scenes of a world pack (a folder or a zip)."""

    path: Path


@dataclass(frozen=True)
class Browse:
    """Choose a picture or a world pack from the folders of this machine."""


@dataclass(frozen=True)
class Paste:
    """Open what the clipboard holds."""


@dataclass(frozen=True)
class Forget:
    """Leave the picture or the world pack that a scene is of out of the menu."""

    scene: Any


@dataclass(frozen=True)
class Play:
    """The first frame is here: play."""


@dataclass(frozen=True)
class Pause:
    """Show the pause menu."""


@dataclass(frozen=True)
class Resume:
    """Go on playing."""


@dataclass(frozen=True)
class Restart:
    """The same scene from its first frame."""


@dataclass(frozen=True)
class Change:
    """Set the setting `name` to `value`."""

    name: str
    value: Any


@dataclass(frozen=True)
class Rebind:
    """Use these bindings (`controls.bindings.Bindings`) from now on."""

    bindings: Any


@dataclass(frozen=True)
class OpenSettings:
    """Show the settings."""


@dataclass(frozen=True)
class CloseSettings:
    """Back to where the settings were opened."""


@dataclass(frozen=True)
class SaveSlot:
    """Save this place in the current slot."""


@dataclass(frozen=True)
class LoadSlot:
    """Go to the place in the current slot."""


@dataclass(frozen=True)
class MoveSlot:
    """Make the slot `step` further on the current one."""

    step: int


@dataclass(frozen=True)
class BackTo:
    """Go on from an earlier latent frame of this walk."""

    index: int


@dataclass(frozen=True)
class SingleStep:
    """Show one latent frame more and hold."""


@dataclass(frozen=True)
class Screenshot:
    """Keep the picture."""


@dataclass(frozen=True)
class Reanchor:
    """The picture has drifted: begin anew from the scene that is most like it."""


@dataclass(frozen=True)
class Recover:
    """The generator has failed; a sentence says how."""

    words: str


@dataclass(frozen=True)
class ToMenu:
    """Back to the scenes, with a sentence when something went wrong."""

    notice: str = ""


@dataclass(frozen=True)
class Quit:
    """Leave the program."""


Command = (
    Pick
    | Open
    | Browse
    | Paste
    | Forget
    | Play
    | Pause
    | Resume
    | Restart
    | Change
    | Rebind
    | OpenSettings
    | CloseSettings
    | SaveSlot
    | LoadSlot
    | MoveSlot
    | BackTo
    | SingleStep
    | Screenshot
    | Reanchor
    | Recover
    | ToMenu
    | Quit
)
