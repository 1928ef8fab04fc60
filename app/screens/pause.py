"""The pause menu over the standing picture: go on, saved places, the way so far as a strip of pictures.

The strip shows the last half minute; left and right choose a picture of it, Enter walks on from there. Everything works
with arrows, Enter and Esc, which a gamepad's cross, stick, A and B stand for; its right shoulder is a single step.

Does not know how settings and places are kept, or how going back is done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pygame

from app.hints import ARROWS, Hint
from app.hints import said as in_words
from app.screens.commands import (
    BackTo,
    Command,
    LoadSlot,
    MoveSlot,
    OpenSettings,
    Quit,
    Reanchor,
    Restart,
    Resume,
    SaveSlot,
    Screenshot,
    SingleStep,
    ToMenu,
)
from app.slots import Slot
from app.widgets import ACCENT, LINE, QUIET, TEXT, Row, draw_rows, ring, shade, text, unit, wrap_parts
from app.window import Pixels, to_surface

Draw = Callable[[pygame.Surface], None]
Mark = tuple[int, float, Pixels]  # latent frame, seconds back, picture uint8 (Y, X, 3)
STRIP = 9  # pictures in the strip
ASPECT = 0.625
VEIL = 225  # of 255: how dark the picture is under the choices; text is to be read over a white one too
TIGHT = 0.75  # of the usual height of a row: where there is less, the choices stand in two columns
NARROW = 700  # pixels of the window below which a slot is told without its place's name
HINTS = (
    Hint("Arrows", "choose and change", ARROWS), Hint("Enter", "do", (pygame.K_RETURN,)),
    Hint("F1", "settings", (pygame.K_F1,)), Hint("K", "one step", (pygame.K_PAGEDOWN,)),
    Hint("Esc", "go on", (pygame.K_ESCAPE,)),
)  # fmt: skip


class PauseScreen:
    """A list of choices; `behind` draws the standing picture, `marks` are the pictures of the way, oldest first.

    `slot` tells what the current slot holds; `said` is a sentence about what was done last.
    """

    def __init__(self, behind: Draw, slot: Callable[[], Slot], marks: Sequence[Mark] = ()) -> None:
        self.behind = behind
        self.slot = slot
        self.marks = list(marks)
        self.said = ""
        self.focus = 0
        self.chosen = max(0, len(self.marks) - 1)  # the mark that the strip stands on
        self.dirty, self.pad = True, ""
        self._rects: list[pygame.Rect] = []
        self._strip: list[pygame.Rect] = []
        self._small: list[pygame.Surface] = [to_surface(picture) for _, _, picture in self.marks]
        self._thumb: tuple[Pixels, pygame.Surface] | None = None

    def rows(self, short: bool = False) -> list[Row]:
        """The choices with their present values, `short` where there is little room."""
        holds = self.slot().words(short=short)
        back = f"{self.marks[self.chosen][1]:.1f} s back" if len(self.marks) > 1 else "nothing yet"
        return [
            Row("resume", "Go on"),
            Row("save", "Save this place", holds),
            Row("load", "Go to a saved place", holds),
            Row("timeline", "Go back along the way", back),
            Row("reanchor", "Bring the picture back"),
            Row("restart", "Start this scene again"),
            Row("picture", "Keep this picture"),
            Row("settings", "Settings ..."),
            Row("menu", "Choose another scene"),
            Row("quit", "Quit"),
        ]

    def handle(self, event: pygame.event.Event) -> Command | None:
        """Up and down choose, Enter does, left and right change a value; Esc goes back, or on."""
        self.dirty = True
        if event.type == pygame.KEYDOWN:
            return self._key(event.key)
        if event.type == pygame.MOUSEMOTION:
            self.focus = next((i for i, r in enumerate(self._rects) if r.collidepoint(event.pos)), self.focus)
        elif event.type == pygame.MOUSEBUTTONDOWN and event.button == pygame.BUTTON_LEFT:
            for row, rect in zip(self.rows(), self._rects, strict=False):
                if rect.collidepoint(event.pos):
                    return self._do(row.name)
            for number, rect in enumerate(self._strip):
                if rect.collidepoint(event.pos):
                    self.chosen = number
                    return self._do("timeline")
        return None

    def _key(self, key: int) -> Command | None:
        rows = self.rows()
        keys: dict[int, Command] = {
            pygame.K_F1: OpenSettings(),
            pygame.K_p: Resume(),
            pygame.K_h: Restart(),
            pygame.K_k: SingleStep(),
            pygame.K_PAGEDOWN: SingleStep(),
            pygame.K_F2: SaveSlot(),
            pygame.K_F4: LoadSlot(),
            pygame.K_F6: MoveSlot(-1),
            pygame.K_F7: MoveSlot(1),
            pygame.K_F8: Screenshot(),
        }
        if key == pygame.K_ESCAPE:
            return Resume()
        if key in (pygame.K_UP, pygame.K_DOWN, pygame.K_TAB):
            back = key == pygame.K_UP or bool(pygame.key.get_mods() & pygame.KMOD_SHIFT)
            self.focus = (self.focus + (-1 if back else 1)) % len(rows)
        elif key in (pygame.K_LEFT, pygame.K_RIGHT):
            return self._change(rows[self.focus].name, 1 if key == pygame.K_RIGHT else -1)
        elif key in (pygame.K_RETURN, pygame.K_KP_ENTER, pygame.K_SPACE):
            return self._do(rows[self.focus].name)
        return keys.get(key)

    def _do(self, name: str) -> Command | None:
        if name == "timeline":
            return BackTo(self.marks[self.chosen][0]) if len(self.marks) > 1 else None
        commands: dict[str, Command] = {
            "resume": Resume(),
            "save": SaveSlot(),
            "load": LoadSlot(),
            "reanchor": Reanchor(),
            "restart": Restart(),
            "picture": Screenshot(),
            "settings": OpenSettings(),
            "menu": ToMenu(),
            "quit": Quit(),
        }
        return commands.get(name) or self._change(name, 1)

    def _change(self, name: str, step: int) -> Command | None:
        if name in ("save", "load"):
            return MoveSlot(step)
        if name == "timeline":
            self.chosen = min(max(self.chosen + step, 0), max(0, len(self.marks) - 1))
        return None

    def update(self) -> Command | None:
        """Nothing moves here."""
        return None

    def draw(self, surface: pygame.Surface) -> None:
        """The picture, darkened, and the choices over it."""
        self.behind(surface)
        width, height = surface.get_size()
        scale = unit(surface.get_size())
        shade(surface, surface.get_rect(), VEIL)
        rows = self.rows(short=width < NARROW)
        self._draw_list(surface, rows, scale)
        self._strip = []
        self._draw_slot(surface, rows, scale)
        self._draw_strip(surface, rows[self.focus].name == "timeline", scale)
        lines = wrap_parts(in_words(HINTS, self.pad), 21 * scale, width - 32 * scale)
        for number, line in enumerate(lines, start=-len(lines)):
            text(surface, line, (width / 2, height + (22 * number - 14) * scale), 21 * scale, QUIET, "centre")
        self.dirty = False

    def _draw_list(self, surface: pygame.Surface, rows: list[Row], scale: float) -> None:
        """The title, what was done last, and the choices: in one column, or in two where one would be too small."""
        width, height = surface.get_size()
        low = (180 if len(self.marks) > 1 else 60) * scale
        room, step = height - low - 100 * scale, 58 * scale
        split = len(rows) if room >= TIGHT * len(rows) * step else (len(rows) + 1) // 2
        squeeze = min(1.0, room / (split * step))
        box = pygame.Rect(0, round(92 * scale), round(560 * scale), round(split * step))
        if split < len(rows):
            box.width = min(width - round(48 * scale), round(900 * scale))
        box.centerx = width // 2
        text(surface, "Paused", (box.x, 34 * scale), 52 * scale)
        if self.said:
            text(surface, self.said, (box.right, 50 * scale), 22 * scale, ACCENT, "right", box.width * 0.62)
        left = box.copy()
        left.width = box.width if split == len(rows) else round(0.64 * box.width)
        right = pygame.Rect(
            left.right + round(16 * scale), box.y, box.right - left.right - round(16 * scale), box.height
        )
        self._rects = draw_rows(surface, rows[:split], self.focus, left, scale * squeeze)
        self._rects += draw_rows(surface, rows[split:], self.focus - split, right, scale * squeeze)

    def _draw_slot(self, surface: pygame.Surface, rows: list[Row], scale: float) -> None:
        """The picture of the current slot beside its rows."""
        picture = self.slot().picture
        where = self._rects[[row.name for row in rows].index("save")]
        room = surface.get_width() - max(rect.right for rect in self._rects) - 56 * scale
        if picture is None or room < 90 * scale:
            return
        if self._thumb is None or self._thumb[0] is not picture:
            self._thumb = (picture, to_surface(picture))
        wide = round(min(220 * scale, room))
        rect = pygame.Rect(where.right + round(28 * scale), where.y, wide, round(wide * ASPECT))
        surface.blit(pygame.transform.smoothscale(self._thumb[1], rect.size), rect)
        pygame.draw.rect(surface, LINE, rect, max(1, round(2 * scale)))

    def _draw_strip(self, surface: pygame.Surface, focused: bool, scale: float) -> None:
        """The way so far, oldest picture at the left, seconds back below each."""
        if len(self.marks) < 2:
            return
        width, height = surface.get_size()
        gap = round(12 * scale)
        wide = min(round(124 * scale), round((width - 40 * scale) / len(self.marks)) - gap)
        high = round(wide * ASPECT)
        left = (width - len(self.marks) * (wide + gap) + gap) // 2
        top = height - round(82 * scale) - high
        for number, ((_, seconds, _), picture) in enumerate(zip(self.marks, self._small, strict=True)):
            rect = pygame.Rect(left + number * (wide + gap), top, wide, high)
            surface.blit(pygame.transform.smoothscale(picture, rect.size), rect)
            here = number == self.chosen
            words = "now" if seconds == 0 else f"-{seconds:.1f} s"
            text(surface, words, (rect.centerx, rect.bottom + 10 * scale), 19 * scale, TEXT, "centre")
            if here and focused:
                ring(surface, rect, scale, 2)
            elif here:
                pygame.draw.rect(surface, TEXT, rect.inflate(4, 4), max(1, round(2 * scale)))
            self._strip.append(rect)
