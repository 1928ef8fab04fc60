"""The loading screen: the picture to be walked into, a bar and the stage the generator is at.

Does not know how loading works; it is told a fraction and a stage.
"""

from __future__ import annotations

from collections.abc import Callable

import pygame

from app.door import Pixels
from app.hints import Hint
from app.pacing import Clock
from app.screens.commands import Command, ToMenu
from app.widgets import GROUND, QUIET, WARNING, progress_bar, rounded, shade, text, unit, wrap
from app.window import to_surface

Progress = Callable[[], tuple[float, str]]
AROUND = 260  # units above and below the picture for everything else
BACK = Hint("Esc", "back to the scenes", (pygame.K_ESCAPE,))
CREEP = 25.0  # seconds in which the bar goes most of the way to the next stage


class LoadingScreen:
    """`progress` tells (fraction, stage); the bar never goes back and creeps on while a stage takes its time.

    `plain`: it shows the fraction as it is, without moving by itself. `said` is a sentence about what has happened.
    """

    def __init__(
        self, title: str, picture: Pixels, progress: Progress, clock: Clock, plain: bool = False, said: str = ""
    ) -> None:
        self.title = title
        self.progress = progress
        self.clock = clock
        self.plain = plain
        self.said = said
        self.dirty, self.pad = True, ""
        self._picture = to_surface(picture)
        self._shown = 0.0
        self._then = clock.now()

    def handle(self, event: pygame.event.Event) -> Command | None:
        """Esc goes back."""
        if event.type == pygame.KEYDOWN and event.key == pygame.K_ESCAPE:
            return ToMenu()
        return None

    def update(self) -> Command | None:
        """Move the bar."""
        now = self.clock.now()
        passed, self._then = now - self._then, now
        fraction, _ = self.progress()
        goal = min(1.0, max(fraction, self._shown))
        self._shown += (goal - self._shown) * (1.0 if self.plain else min(1.0, passed * 6))
        if fraction < 1 and not self.plain:
            self._shown += (0.97 - self._shown) * min(1.0, passed / CREEP)
        self.dirty = True
        return None

    def draw(self, surface: pygame.Surface) -> None:
        """Picture, title, bar, stage."""
        width, height = surface.get_size()
        scale = unit(surface.get_size())
        surface.fill(GROUND)
        wide = round(560 * scale)
        aspect = self._picture.get_height() / self._picture.get_width()
        high = round(min(wide * aspect, height - AROUND * scale))
        size = (round(high / aspect), high)
        place = pygame.Rect((width - size[0]) // 2, round(height / 2 - size[1] / 2 - 70 * scale), *size)
        surface.blit(rounded(pygame.transform.smoothscale(self._picture, size), round(12 * scale)), place)
        shade(surface, place, round(150 * (1 - self._shown)), round(12 * scale))
        text(surface, self.title, (width / 2, place.bottom + 28 * scale), 40 * scale, align="centre")
        bar = pygame.Rect((width - wide) // 2, round(place.bottom + 88 * scale), wide, round(10 * scale))
        progress_bar(surface, bar, self._shown)
        text(surface, self.progress()[1], (bar.x, bar.bottom + 16 * scale), 22 * scale, QUIET)
        text(
            surface,
            f"{100 * self._shown:.0f} %",
            (bar.right, bar.bottom + 16 * scale),
            22 * scale,
            QUIET,
            "right",
        )
        for number, line in enumerate(wrap(self.said, 22 * scale, width - 96 * scale) if self.said else []):
            text(surface, line, (width / 2, (36 + 26 * number) * scale), 22 * scale, WARNING, "centre")
        text(surface, BACK.words(self.pad), (width / 2, height - 44 * scale), 21 * scale, QUIET, "centre")
        self.dirty = False
