"""Slots: the numbered saved places of a player, each one file in the data folder.

Does not know about worlds, keys or screens.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from app.statefile import About, Pixels, StateFile
from controls.errors import UserError

COUNT = 10


@dataclass(frozen=True)
class Slot:
    """One slot as shown: `about` and `picture` uint8 (Y, X, 3) are None when it is empty, or damaged: see `problem`."""

    number: int
    about: About | None = None
    picture: Pixels | None = None
    problem: str = ""

    def words(self, now: datetime | None = None, short: bool = False) -> str:
        """What the slot holds, in a few words; in `short` without the place's name."""
        if self.problem:
            return f"slot {self.number}: cannot be read"
        if self.about is None:
            return f"slot {self.number}: empty"
        name = "" if short else f"{self.about.title or 'a place'}, "
        return f"slot {self.number}: {name}{age(self.about.saved, now)}"


def age(saved: str, now: datetime | None = None) -> str:
    """How long ago a time (ISO 8601, UTC) was, in words; empty when it cannot be read."""
    try:
        passed = ((now or datetime.now(UTC)) - datetime.fromisoformat(saved)).total_seconds()
    except (ValueError, TypeError):
        return ""
    for size, word in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if passed >= size:
            return f"{passed // size:.0f} {word} ago"
    return "just now"


class Slots:
    """Slots 1 to COUNT below `folder`; `current` is the one that saving and loading mean."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.current = 1
        self._seen: dict[int, tuple[tuple[int, int] | None, Slot]] = {}

    def path(self, number: int | None = None) -> Path:
        """The file of a slot (None: the current one)."""
        return self.folder / f"slot-{self.current if number is None else number}.farstep"

    def move(self, step: int) -> Slot:
        """Make a slot further on, or back, the current one, round and round."""
        self.current = (self.current - 1 + step) % COUNT + 1
        return self.look()

    def look(self, number: int | None = None) -> Slot:
        """What a slot holds; read again only when its file has changed. Never raises."""
        number = self.current if number is None else number
        stamp = self._stamp(self.path(number))
        known = self._seen.get(number)
        if known is None or known[0] != stamp:
            known = (stamp, self._read(number) if stamp is not None else Slot(number))
            self._seen[number] = known
        return known[1]

    @staticmethod
    def _stamp(path: Path) -> tuple[int, int] | None:
        try:
            status = path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size

    def _read(self, number: int) -> Slot:
        try:
            with StateFile(self.path(number)) as file:
                return Slot(number, file.about, file.picture())
        except UserError as error:
            return Slot(number, problem=str(error))
