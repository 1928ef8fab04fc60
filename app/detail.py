"""Whether a world leaves fine detail out: as the player has set it, or once this machine falls behind.

Does not know how detail is left out, or what is shown.
"""

from __future__ import annotations

from app.figures import Figures

SPAN = 120  # video frames that are looked at together
LATE = 0.1  # of them; more is behind
TWICE = 2  # spans in a row: one may be another program's fault
SAID = "This machine falls behind: fine detail is left out. (Detail, in the settings)"


class Detail:
    """Follows what is set, from walk to walk: `auto` is full until frames came late, or the generator was overloaded,
    in two spans in a row, and light from then on until something else is set.

    Gaps between frames say less: a restart, a rewind and a saved place leave some on any machine.
    """

    def __init__(self) -> None:
        self._set, self._behind = "full", False
        self._figures: Figures | None = None
        self._frames, self._late, self._slow = 0, 0, 0

    def follow(self, wanted: str, figures: Figures, overloaded: bool) -> bool:
        """Whether to be light from here on: `wanted` is one of `settings.DETAILS`, `figures` what a session has shown
        until now, and `overloaded` whether its generator is.
        """
        if wanted != self._set:
            self._set, self._behind, self._slow = wanted, False, 0
        self._look(figures, overloaded)
        return wanted == "light" or (wanted == "auto" and self._behind)

    def _look(self, figures: Figures, overloaded: bool) -> None:
        if figures is not self._figures:
            self._figures, self._frames, self._late, self._slow = figures, figures.frames, figures.late_frames, 0
        shown = figures.frames - self._frames
        if shown < SPAN:
            return
        slow = overloaded or figures.late_frames - self._late > LATE * shown
        self._slow = self._slow + 1 if slow else 0
        self._frames, self._late = figures.frames, figures.late_frames
        self._behind = self._behind or self._slow >= TWICE
