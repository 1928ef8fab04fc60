"""What there is to see of an evaluation: pictures in rows, as its page shows them.

Does not know how they were made or measured.
"""

from __future__ import annotations

from dataclasses import dataclass

from generator.evaluation import along
from generator.evaluation.frechet import Pixels

SHEET_SECONDS = 0.5  # between a sheet's pictures of a clip


@dataclass(frozen=True)
class Sheet:
    """Pictures to look at: rows (label, one picture for each of `seconds`)."""

    title: str
    seconds: list[float]
    rows: list[tuple[str, list[Pixels]]]


def clip_sheet(title: str, real: Pixels, made: Pixels, fps: float) -> Sheet:
    """A real clip above the free rollout from its first frame under its actions."""
    step = max(1, round(SHEET_SECONDS * fps))
    seconds = [at / fps for at in range(0, len(real), step)]
    rows = [("real", list(real[::step])), ("generated", list(made[::step]))]
    return Sheet(title, seconds, rows)


def drift_sheet(drive: str, shown: list[tuple[float, Pixels]]) -> Sheet:
    """A long rollout."""
    return Sheet(f"Free rollout, {drive}", [at for at, _ in shown], [(drive, [picture for _, picture in shown])])


def place_sheet(shown: list[tuple[float, Pixels, Pixels]]) -> Sheet:
    """A walk above the recorded pictures that were taken nearest to where it is."""
    kept = shown[:: max(1, len(shown) // 12)]
    rows = [("generated", [made for _, made, _ in kept]), ("recorded nearest", [real for _, _, real in kept])]
    return Sheet("The place on a long walk", [seconds for seconds, _, _ in kept], rows)


def along_sheet(clip: int, shown: along.Shown) -> Sheet:
    """A rollout along a clip's recorded poses above the recorded pictures."""
    rows = [("generated", [made for _, made, _ in shown]), ("recorded", [real for _, _, real in shown])]
    return Sheet(f"Along recorded poses, clip {clip}", [seconds for seconds, _, _ in shown], rows)
