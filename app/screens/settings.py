"""The settings screen: every setting with what it does and when it takes effect, and the page of keys and buttons.

Up and down choose, left and right change, Enter does, Esc goes back: by keyboard, by a gamepad's cross, A and B, or by
mouse. The list scrolls so that the chosen line is always in sight.

Does not know how settings are kept or carried out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

import pygame

from app.hints import ARROWS, Hint, hotkey_hint
from app.hints import said as in_words
from app.options import OPTIONS, Option
from app.screens.commands import Change, CloseSettings, Command
from app.screens.rebind import RebindPage
from app.settings import Settings
from app.widgets import (
    ACCENT,
    GROUND,
    LINE,
    PANEL,
    QUIET,
    VEIL,
    Row,
    ring,
    shade,
    text,
    text_size,
    unit,
    wrap,
    wrap_parts,
)
from controls.bindings import Bindings
from controls.devices import gamepad

HINTS = (
    Hint("Arrows", "choose and change", ARROWS),
    Hint("Enter", "do", (pygame.K_RETURN,)),
    Hint("Esc", "back", (pygame.K_ESCAPE,)),
)
HEIGHT, GAP, SECTION = 40, 8, 34  # of a row, between rows, and above a section, in units
BY_NAME = {option.name: option for option in OPTIONS}


class SettingsScreen:
    """`behind` draws what the screen lies over, None: nothing; `said` is a sentence about what went wrong."""

    def __init__(
        self,
        settings: Settings,
        bindings: Bindings,
        reserved: Collection[str],
        defaults: Callable[[], Bindings],
        behind: Callable[[pygame.Surface], None] | None = None,
    ) -> None:
        self.settings = settings
        self.keys = RebindPage(bindings, reserved, defaults)
        self.behind = behind
        self.said = ""
        self.page = "main"
        self.focus = 0
        self.dirty, self.pad = True, ""
        self.kind = gamepad.XBOX  # of the pad whose buttons are named, also while keys are used
        self._scroll = 0.0
        self._rects: list[pygame.Rect] = []

    @property
    def listening(self) -> bool:
        """Whether the next key or button is to be bound, whatever it means otherwise."""
        return self.keys.listening is not None

    def rows(self) -> list[Row]:
        """The lines of this page."""
        if self.page == "keys":
            return self.keys.rows(self.pad, self.pad or self.kind)
        rows = [Row(option.name, option.label, option.shown(self.settings)) for option in OPTIONS]
        return [*rows, Row("keys", "Keys and buttons ..."), Row("back", "Back")]

    def _about(self, row: str) -> list[str]:
        """What stands in the panel at the bottom."""
        if self.page == "keys":
            return [self.keys.about(row, self.pad)]
        option = BY_NAME.get(row)
        if option is None:
            return [{"keys": "What each key, button and stick does.", "back": "To where you came from."}[row]]
        hint = hotkey_hint(option.hotkey, "the same while playing", self.pad)
        return [f"{option.about}  {hint}".strip(), option.effect]

    def handle(self, event: pygame.event.Event) -> Command | None:
        """Keys, mouse and wheel; while listening, anything that can be bound."""
        self.dirty = True
        if self.listening:
            return self.keys.listen(event, self.pad or self.kind)
        if event.type == pygame.KEYDOWN:
            return self._key(event.key)
        if event.type == pygame.MOUSEMOTION:
            self.focus = next((i for i, r in enumerate(self._rects) if r.collidepoint(event.pos)), self.focus)
        elif event.type == pygame.MOUSEWHEEL:
            self._move(-event.y, around=False)
        elif event.type == pygame.MOUSEBUTTONDOWN and event.button == pygame.BUTTON_LEFT:
            for number, rect in enumerate(self._rects):
                if rect.collidepoint(event.pos):
                    self.focus = number
                    return self._do(self.rows()[number].name)
        return None

    def _key(self, key: int) -> Command | None:
        row = self.rows()[self.focus].name
        if key in (pygame.K_ESCAPE, pygame.K_F1):
            return self._back()
        if key in (pygame.K_RETURN, pygame.K_KP_ENTER, pygame.K_SPACE):
            return self._do(row)
        if key in (pygame.K_LEFT, pygame.K_RIGHT):
            way = 1 if key == pygame.K_RIGHT else -1
            return self.keys.change(row) if self.page == "keys" else self._change(row, way)
        if key in (pygame.K_DELETE, pygame.K_BACKSPACE) and self.page == "keys":
            return self.keys.clear(row)
        back = key == pygame.K_UP or (key == pygame.K_TAB and bool(pygame.key.get_mods() & pygame.KMOD_SHIFT))
        if key in (pygame.K_UP, pygame.K_DOWN, pygame.K_TAB):
            self._move(-1 if back else 1)
        elif key in (pygame.K_HOME, pygame.K_END):
            self.focus = 0 if key == pygame.K_HOME else len(self.rows()) - 1
        return None

    def _move(self, step: int, around: bool = True) -> None:
        count = len(self.rows())
        self.focus = (self.focus + step) % count if around else min(max(self.focus + step, 0), count - 1)
        self.said = self.keys.said = ""

    def _back(self) -> Command | None:
        if self.page == "main":
            return CloseSettings()
        self.page, self._scroll = "main", 0.0
        self.focus = [row.name for row in self.rows()].index("keys")
        return None

    def _do(self, row: str) -> Command | None:
        if row == "back":
            return self._back()
        if row == "keys":
            self.page, self.focus, self._scroll = "keys", 0, 0.0
            return None
        return self.keys.do(row) if self.page == "keys" else self._change(row, 1)

    def _change(self, row: str, way: int) -> Command | None:
        option: Option | None = BY_NAME.get(row)
        if option is None:
            return None
        value = option.moved(self.settings, way)
        if value == getattr(self.settings, row):
            return None
        self.settings = replace(self.settings, **{row: value})
        return Change(row, value)

    def update(self) -> Command | None:
        """Nothing moves here."""
        return None

    # --- drawing
    def draw(self, surface: pygame.Surface) -> None:
        """Title, list, and the panel about the chosen line."""
        if self.behind is not None:
            self.behind(surface)
            shade(surface, surface.get_rect(), VEIL)
        else:
            surface.fill(GROUND)
        width, height = surface.get_size()
        scale = unit((width, height))
        rows, wide = self.rows(), min(round(760 * scale), width - round(48 * scale))
        top, panel = round(104 * scale), round(104 * scale)
        room = pygame.Rect((width - wide) // 2, top, wide, height - top - panel - round(16 * scale))
        places = self._places(rows, scale)
        self._follow(places, room.height, scale)
        surface.set_clip(room.inflate(round(24 * scale), round(20 * scale)))
        self._rects = []
        for number, (row, (y, heading)) in enumerate(zip(rows, places, strict=True)):
            rect = pygame.Rect(room.x, round(room.y + y - self._scroll), wide, round(HEIGHT * scale))
            if heading:
                text(surface, heading, (rect.x, rect.y - 25 * scale), 20 * scale, QUIET)
            self._draw_row(surface, row, rect, number == self.focus, scale)
            self._rects.append(rect if room.colliderect(rect) else pygame.Rect(0, 0, 0, 0))
        surface.set_clip(None)
        title = "Keys and buttons" if self.page == "keys" else "Settings"
        text(surface, title, (room.x, 34 * scale), 52 * scale)
        said = wrap(self.said, 20 * scale, 0.6 * room.width - 8 * scale) if self.said else []
        for number, line in enumerate(said[:3]):
            where = (room.right, (24 + 22 * number) * scale)
            text(surface, line, where, 20 * scale, ACCENT, "right")
        end = places[-1][0] + HEIGHT * scale
        if end > room.height:
            self._draw_bar(surface, room, end, scale)
        self._draw_about(surface, rows[self.focus].name, pygame.Rect(0, height - panel, width, panel), room, scale)
        self.dirty = False

    def _places(self, rows: list[Row], scale: float) -> list[tuple[float, str]]:
        """Where each row begins below the top of the list, and the heading above it."""
        places, y, section = [], 0.0, ""
        for row in rows:
            option = BY_NAME.get(row.name) if self.page == "main" else None
            heading = option.section if option is not None and option.section != section else ""
            section = option.section if option is not None else section
            y += (SECTION if heading else 18 if row.name in ("keys", "reset") else 0) * scale
            places.append((y, heading))
            y += (HEIGHT + GAP) * scale
        return places

    def _follow(self, places: list[tuple[float, str]], room: float, scale: float) -> None:
        """Scroll so that the chosen row is in sight, with its heading."""
        y, heading = places[self.focus]
        first = y - (SECTION if heading or self.focus == 0 else 12) * scale
        low = y + (HEIGHT + 12) * scale - room
        self._scroll = max(0.0, min(max(self._scroll, low), max(first, 0.0)))

    def _draw_row(self, surface: pygame.Surface, row: Row, rect: pygame.Rect, chosen: bool, scale: float) -> None:
        pygame.draw.rect(surface, PANEL, rect, border_radius=round(8 * scale))
        size, pad = 24 * scale, 16 * scale
        top = rect.y + (rect.height - text_size(row.label, size)[1]) / 2
        text(surface, row.label, (rect.x + pad, top), size)
        if row.value:
            plain = row.name.startswith("bind ")
            words = f"<  {row.value}  >" if chosen and not plain else row.value
            room = rect.width - text_size(row.label, size)[0] - 4 * pad
            text(surface, words, (rect.right - pad, top), size, ACCENT if chosen else QUIET, "right", room)
        if chosen:
            ring(surface, rect, scale * 0.8, 8)

    def _draw_bar(self, surface: pygame.Surface, room: pygame.Rect, end: float, scale: float) -> None:
        """How much of the list is in sight."""
        track = pygame.Rect(room.right + round(14 * scale), room.y, max(3, round(5 * scale)), room.height)
        pygame.draw.rect(surface, LINE, track, border_radius=3)
        seen = track.move(0, round(track.height * self._scroll / end))
        seen.height = min(round(track.height * room.height / end), track.bottom - seen.y)
        pygame.draw.rect(surface, QUIET, seen, border_radius=3)

    def _draw_about(
        self, surface: pygame.Surface, row: str, panel: pygame.Rect, room: pygame.Rect, scale: float
    ) -> None:
        surface.fill(PANEL, panel)
        (hint,) = wrap_parts(in_words(HINTS, self.pad), 19 * scale, float("inf"))
        text(surface, hint, (room.x, panel.bottom - 28 * scale), 19 * scale, QUIET)
        lines = [line for part in self._about(row) for line in wrap(part, 22 * scale, room.width)]
        for number, line in enumerate(lines[:3]):
            text(surface, line, (room.x, panel.y + (10 + 22 * number) * scale), 22 * scale)
