"""The pause menu over the standing picture: go on, start again, and the few settings that matter while playing.

Does not know how settings are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pygame

from app.screens.commands import Change, Command, Quit, Restart, Resume, ToMenu
from app.settings import LIMITS, SCALINGS, Settings
from app.widgets import QUIET, Row, draw_rows, shade, text, unit

Draw = Callable[[pygame.Surface], None]
STEP = 1.15  # one press changes the mouse sensitivity by this factor


class PauseScreen:
    """A list of choices; `behind` draws the standing picture."""

    def __init__(self, settings: Settings, behind: Draw) -> None:
        self.settings = settings
        self.behind = behind
        self.focus = 0
        self.dirty = True
        self._rects: list[pygame.Rect] = []

    def rows(self) -> list[Row]:
        """The choices with their present values."""
        s = self.settings
        return [
            Row("resume", "Go on"),
            Row("restart", "Start this scene again"),
            Row("sensitivity", "Mouse sensitivity", f"{s.sensitivity:.3f} degrees / pixel"),
            Row("invert", "Invert look", "on" if s.invert else "off"),
            Row("scaling", "Scaling", s.scaling),
            Row("fullscreen", "Full screen", "on" if s.fullscreen else "off"),
            Row("menu", "Choose another scene"),
            Row("quit", "Quit"),
        ]

    def handle(self, event: pygame.event.Event) -> Command | None:
        """Up and down choose, Enter does, left and right change a value; Esc goes on."""
        self.dirty = True
        rows = self.rows()
        if event.type == pygame.KEYDOWN:
            if event.key in (pygame.K_ESCAPE, pygame.K_p):
                return Resume()
            if event.key == pygame.K_h:
                return Restart()
            if event.key in (pygame.K_UP, pygame.K_DOWN, pygame.K_TAB):
                back = event.key == pygame.K_UP or bool(pygame.key.get_mods() & pygame.KMOD_SHIFT)
                self.focus = (self.focus + (-1 if back else 1)) % len(rows)
            elif event.key in (pygame.K_LEFT, pygame.K_RIGHT):
                return self._change(rows[self.focus].name, 1 if event.key == pygame.K_RIGHT else -1)
            elif event.key in (pygame.K_RETURN, pygame.K_KP_ENTER, pygame.K_SPACE):
                return self._do(rows[self.focus].name)
        elif event.type == pygame.MOUSEMOTION:
            self.focus = next((i for i, r in enumerate(self._rects) if r.collidepoint(event.pos)), self.focus)
        elif event.type == pygame.MOUSEBUTTONDOWN and event.button == pygame.BUTTON_LEFT:
            for row, rect in zip(rows, self._rects, strict=False):
                if rect.collidepoint(event.pos):
                    return self._do(row.name)
        return None

    def _do(self, name: str) -> Command | None:
        commands: dict[str, Command] = {
            "resume": Resume(),
            "restart": Restart(),
            "menu": ToMenu(),
            "quit": Quit(),
        }
        return commands.get(name) or self._change(name, 1)

    def _change(self, name: str, step: int) -> Command | None:
        s = self.settings
        values: dict[str, Any] = {
            "sensitivity": round(min(max(s.sensitivity * STEP**step, LIMITS["sensitivity"][0]), 2.0), 4),
            "invert": not s.invert,
            "scaling": SCALINGS[1 - SCALINGS.index(s.scaling)],
            "fullscreen": not s.fullscreen,
        }
        if name not in values:
            return None
        self.settings = replace(s, **{name: values[name]})
        return Change(name, values[name])

    def update(self) -> Command | None:
        """Nothing moves here."""
        return None

    def draw(self, surface: pygame.Surface) -> None:
        """The picture, darkened, and the choices over it."""
        self.behind(surface)
        scale = unit(surface.get_size())
        shade(surface, surface.get_rect(), 190)
        rows = self.rows()
        width = round(520 * scale)
        box = pygame.Rect(0, 0, width, round(len(rows) * 58 * scale))
        box.center = (surface.get_width() // 2, surface.get_height() // 2 + round(34 * scale))
        text(surface, "Paused", (box.x, box.y - 78 * scale), 56 * scale)
        self._rects = draw_rows(surface, rows, self.focus, box, scale)
        hint = "Arrows: choose and change     Enter: do     H: start again     Esc: go on"
        middle = (surface.get_width() / 2, surface.get_height() - 44 * scale)
        text(surface, hint, middle, 21 * scale, QUIET, "centre")
        self.dirty = False
