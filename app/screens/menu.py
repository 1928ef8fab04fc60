"""The scene picker: first frames as a grid of pictures, by mouse, keyboard or a picture dropped on the window.

Does not know how a scene is loaded or played.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pygame

from app.door import Pixels, SceneLike
from app.hints import ARROWS, Hint
from app.hints import said as in_words
from app.screens.commands import Browse, Command, Forget, LoadSlot, MoveSlot, Open, OpenSettings, Paste, Pick, Quit
from app.widgets import GROUND, PANEL, QUIET, TEXT, WARNING, ring, rounded, shorten, text, unit, wrap, wrap_parts
from app.window import to_surface

Thumbnail = Callable[[SceneLike], Pixels]
ASPECT = 0.625
HINTS = (
    Hint("Arrows or mouse", "choose", ARROWS), Hint("Enter", "walk", (pygame.K_RETURN,)),
    Hint("F1", "settings", (pygame.K_F1,)), Hint("F4", "saved place", (pygame.K_F4,)),
    Hint("F6, F7", "its slot", (pygame.K_PAGEUP, pygame.K_PAGEDOWN)), Hint("O", "your own picture", (pygame.K_o,)),
    Hint("Esc", "quit", (pygame.K_ESCAPE,)),
    Hint("Drop or paste (Ctrl+V)", "a picture or a world pack", (pygame.K_INSERT,), "paste"),
)  # fmt: skip
OWN = ("Your own picture ...", "Choose a file from this machine")
MOST_LINES = 4  # of a notice


class MenuScreen:
    """A grid of scenes, and a last card for a picture of one's own.

    `notice` is a sentence about what went wrong before, `news` one about what went well.
    """

    def __init__(self, scenes: Sequence[SceneLike], thumbnail: Thumbnail, status: Callable[[], str]) -> None:
        self.status = status
        self._thumbnail = thumbnail
        self.focus = 0
        self.notice = self.news = ""
        self.dirty, self.pad = True, ""
        self._cards: list[pygame.Surface] = []
        self._card_size = (0, 0)
        self._rects: list[pygame.Rect] = []
        self._columns = 4
        self._scroll = 0.0
        self._last_status = ""
        self.places: list[pygame.Rect] = []  # of the lines in the bar at the bottom, as drawn last
        self.refill(scenes)

    def refill(self, scenes: Sequence[SceneLike]) -> None:
        """Show other scenes, from the first one on."""
        self.scenes = list(scenes)
        self._originals = [to_surface(self._thumbnail(scene)) for scene in self.scenes]
        self._card_size = (0, 0)
        self.focus, self.dirty = 0, True

    def handle(self, event: pygame.event.Event) -> Command | None:
        """Keys move the focus and pick, the mouse points and picks, a dropped file is walked from."""
        self.dirty = True
        if event.type == pygame.KEYDOWN:
            self.notice = self.news = ""  # it was read
            if event.key == pygame.K_v and event.mod & (pygame.KMOD_CTRL | pygame.KMOD_META):
                return Paste()
            return self._key(event.key)
        if event.type == pygame.MOUSEMOTION:
            self.focus = next((i for i, r in enumerate(self._rects) if r.collidepoint(event.pos)), self.focus)
        elif event.type == pygame.MOUSEWHEEL:
            self._move(-event.y * self._columns)
        elif event.type == pygame.MOUSEBUTTONDOWN and event.button == pygame.BUTTON_LEFT:
            for scene, rect in zip(self.scenes, self._rects, strict=False):
                if rect.collidepoint(event.pos):
                    return Pick(scene)
            if self._rects and self._rects[-1].collidepoint(event.pos):
                return Browse()
        elif event.type == pygame.DROPFILE:
            return Open(Path(event.file))
        return None

    def _key(self, key: int) -> Command | None:
        steps = {
            pygame.K_LEFT: -1,
            pygame.K_RIGHT: 1,
            pygame.K_UP: -self._columns,
            pygame.K_DOWN: self._columns,
            pygame.K_TAB: 1,
        }
        if key == pygame.K_ESCAPE:
            return Quit()
        places: dict[int, Command] = {
            pygame.K_o: Browse(),
            pygame.K_F1: OpenSettings(),
            pygame.K_F4: LoadSlot(),
            pygame.K_F6: MoveSlot(-1),
            pygame.K_F7: MoveSlot(1),
            pygame.K_INSERT: Paste(),
            pygame.K_PAGEUP: MoveSlot(-1),  # a pad's shoulders
            pygame.K_PAGEDOWN: MoveSlot(1),
        }
        if key in places:
            return places[key]
        own = self.focus == len(self.scenes)
        if key in (pygame.K_RETURN, pygame.K_KP_ENTER, pygame.K_SPACE):
            return Browse() if own else Pick(self.scenes[self.focus])
        if key in (pygame.K_DELETE, pygame.K_BACKSPACE) and not own:
            return Forget(self.scenes[self.focus])
        if key == pygame.K_HOME:
            self.focus = 0
        elif key == pygame.K_END:
            self.focus = len(self.scenes)
        elif key == pygame.K_TAB and pygame.key.get_mods() & pygame.KMOD_SHIFT:
            self._move(-1)
        elif key in steps:
            self._move(steps[key])
        return None

    def _move(self, step: int) -> None:
        target = self.focus + step
        if 0 <= target <= len(self.scenes):
            self.focus = target
        elif abs(step) > 1 and step > 0 and self.focus // self._columns < len(self.scenes) // self._columns:
            self.focus = len(self.scenes)  # the last row is shorter

    def update(self) -> Command | None:
        """Redraw when the generator's status has changed."""
        status = self.status()
        self.dirty = self.dirty or status != self._last_status
        self._last_status = status
        return None

    def _layout(self, size: tuple[int, int], scale: float) -> None:
        width, height = size
        self._columns = max(1, min(4, int(width / (290 * scale)), len(self.scenes) + 1))
        margin, gap, top = 64 * scale, 28 * scale, 150 * scale
        card = round((width - 2 * margin - (self._columns - 1) * gap) / self._columns)
        card_size = (card, round(card * ASPECT))
        if card_size != self._card_size:
            self._card_size = card_size
            radius = round(10 * scale)
            self._cards = [rounded(pygame.transform.smoothscale(p, card_size), radius) for p in self._originals]
        pitch = card_size[1] + 78 * scale
        low = top + (self.focus // self._columns + 1) * pitch - (height - self._footer(size, scale) - 16 * scale)
        high = (self.focus // self._columns) * pitch
        self._scroll = min(max(self._scroll, low, 0.0), high)
        places = [divmod(i, self._columns) for i in range(len(self.scenes) + 1)]
        self._rects = [
            pygame.Rect(round(margin + col * (card + gap)), round(top + row * pitch - self._scroll), *card_size)
            for row, col in places
        ]

    def draw(self, surface: pygame.Surface) -> None:
        """The whole menu."""
        size = surface.get_size()
        scale = unit(size)
        surface.fill(GROUND)
        self._layout(size, scale)
        named = [(scene.title, scene.caption) for scene in self.scenes]
        for i, ((title, caption), rect) in enumerate(zip([*named, OWN], self._rects, strict=True)):
            if i < len(self._cards):
                surface.blit(self._cards[i], rect)
            else:
                _draw_plus(surface, rect, scale)
            below = rect.bottom + 14 * scale
            text(surface, title, (rect.x, below), 27 * scale, TEXT, width=rect.width)
            text(surface, caption, (rect.x, below + 27 * scale), 19 * scale, QUIET, width=rect.width)
            if i == self.focus:
                ring(surface, rect, scale)
        self._draw_frame(surface, scale)
        self.dirty = False

    def _draw_frame(self, surface: pygame.Surface, scale: float) -> None:
        width, height = surface.get_size()
        margin = 64 * scale
        surface.fill(GROUND, (0, 0, width, round(132 * scale)))
        text(surface, "Farstep", (margin, 40 * scale), 62 * scale)
        text(
            surface,
            "Worlds that are drawn while you walk. Where do you want to start?",
            (margin, 92 * scale),
            23 * scale,
            QUIET,
        )
        text(surface, self._last_status, (width - margin, 56 * scale), 21 * scale, QUIET, "right")
        top = height - self._footer(surface.get_size(), scale)
        surface.fill(PANEL, (0, round(top), width, height - round(top)))
        said, hints = self.lines(width, scale)
        top += 14 * scale
        self.places = []
        for line in said:
            colour = WARNING if self.notice else TEXT
            self.places.append(text(surface, line, (margin / 2, top), 22 * scale, colour))
            top += 24 * scale
        top += 8 * scale if said else 0
        for line in hints:
            self.places.append(text(surface, line, (margin / 2, top), 21 * scale, QUIET))
            top += 24 * scale

    def lines(self, width: int, scale: float) -> tuple[list[str], list[str]]:
        """What stands in the bar at the bottom: the notice or news, and the hints below it."""
        room = width - 64 * scale
        said = wrap(self.notice or self.news, 22 * scale, room) if self.notice or self.news else []
        if len(said) > MOST_LINES:
            said = [*said[: MOST_LINES - 1], shorten(" ".join(said[MOST_LINES - 1 :]), 22 * scale, room)]
        return said, wrap_parts(in_words(HINTS, self.pad), 21 * scale, room)

    def _footer(self, size: tuple[int, int], scale: float) -> float:
        """How high the bar at the bottom is."""
        said, hints = self.lines(size[0], scale)
        return (24 * (len(said) + len(hints)) + (8 if said else 0) + 22) * scale


def _draw_plus(surface: pygame.Surface, rect: pygame.Rect, scale: float) -> None:
    """The card that is no scene yet."""
    pygame.draw.rect(surface, PANEL, rect, border_radius=round(10 * scale))
    long, thick = round(rect.height * 0.3), max(2, round(5 * scale))
    for size in ((long, thick), (thick, long)):
        bar = pygame.Rect((0, 0), size)
        bar.center = rect.center
        pygame.draw.rect(surface, QUIET, bar, border_radius=thick // 2)
