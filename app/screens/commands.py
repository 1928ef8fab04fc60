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
class PickPicture:
    """Walk from a picture file."""

    path: Path


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
class ToMenu:
    """Back to the scenes, with a sentence when something went wrong."""

    notice: str = ""


@dataclass(frozen=True)
class Quit:
    """Leave the program."""


Command = Pick | PickPicture | Play | Pause | Resume | Restart | Change | ToMenu | Quit
