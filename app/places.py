"""Places a player comes back to: opening a saved one, the strip of the way so far, and pictures that are kept.

Does not know about screens, keys or how a session is paced.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.player import PlaySession
from app.protocol import Ready
from app.recording import write_screenshot
from app.slots import Slots
from app.statefile import About, StateFile, check_fits
from app.ticks import Pixels, VideoFrame
from controls.errors import UserError


@dataclass(frozen=True)
class Place:
    """A saved place that can be gone to; has a scene's `name` and `title`. Pictures uint8 (Y, X, 3)."""

    path: Path
    about: About
    picture: Pixels
    first: Pixels

    @property
    def name(self) -> str:
        """The scene's name."""
        return self.about.scene

    @property
    def title(self) -> str:
        """The scene's title."""
        return self.about.title

    @property
    def seed(self) -> int:
        """The random seed of the walk."""
        return self.about.seed

    def check(self, ready: Ready) -> None:
        """UserError when this place belongs to another world than the one that runs."""
        info, (wide, high) = ready.info, ready.size
        check_fits(self.about, str(info.get("weights_hash", "")), str(info.get("backend", "")))
        for picture in (self.picture, self.first):
            if picture.shape != (high, wide, 3):
                raise UserError(
                    f"The saved place {self.path} is damaged (its picture is {picture.shape}); choose another."
                )


def open_place(slots: Slots) -> Place:
    """What the current slot holds; UserError when it is empty or damaged."""
    slot = slots.look()
    if slot.problem:
        raise UserError(slot.problem)
    if slot.about is None:
        raise UserError(f"Slot {slot.number} is empty; save a place in it first.")
    with StateFile(slots.path()) as file:
        return Place(slots.path(), file.about, file.picture(), file.picture(first=True))


def walk_of(session: PlaySession, count: int) -> list[tuple[int, float, Pixels]]:
    """The way so far: up to `count` of (latent frame, seconds back, picture uint8 (Y, X, 3)), oldest first."""
    film = session.film
    if not len(film):
        return []
    period, pictures = session.config.latent_period, []
    for index in film.marks(count, session.reach):
        picture = film.get(index)
        assert picture is not None, f"latent frame {index} is not on the film"
        pictures.append((index, (film.newest - index) * period, picture))
    return pictures


def keep_picture(folder: Path, frame: VideoFrame, ticks: int, walk: tuple[str, int], info: Mapping[str, Any]) -> Path:
    """A frame as the generator made it, as a PNG that says what it shows; `walk` is (scene, seed).

    Returns its path; UserError when it cannot be written.
    """
    scene, seed = walk
    notes = {
        "Software": "Farstep",
        "Scene": scene,
        "Seed": str(seed),
        "Frame index": str(-(-frame.number // ticks)),
        "Video frame": str(frame.number),
        "Weights hash": str(info.get("weights_hash", "")),
        "Backend": str(info.get("backend", "")),
    }
    return write_screenshot(frame.pixels, folder, f"{scene}-{seed}-{frame.number:06d}", notes)
