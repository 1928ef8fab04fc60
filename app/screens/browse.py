"""Choosing a picture of one's own: folders and pictures as a list, beside them the picture as the world crops it.

Arrows choose, Enter or right opens, left goes up, Esc goes back; a gamepad's cross, A, X and B stand for these. Letters
jump to a name, a pad's triggers to the letter before and after, its shoulders turn pages. The preview is read beside
the window by a thread of its own, because a large photo takes a second.

Does not know what opening a picture does, or how files are read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pygame

from app.door import Pixels
from app.folders import Entry, list_folder, places, printable
from app.hints import Hint, pad_marks
from app.hints import said as in_words
from app.screens.commands import Command, Open, Paste, ToMenu
from app.widgets import (
    ACCENT,
    GROUND,
    LINE,
    PANEL,
    QUIET,
    TEXT,
    WARNING,
    ring,
    shorten,
    text,
    text_size,
    unit,
    wrap,
    wrap_parts,
)
from app.window import to_surface
from controls.errors import UserError

LoadPicture = Callable[[Path], Pixels]
HINTS = (
    Hint("Arrows", "choose", (pygame.K_UP, pygame.K_DOWN)), Hint("Enter", "open", (pygame.K_RETURN,)),
    Hint("Left", "folder above", (pygame.K_LEFT,)),
    Hint("A letter", "jump", (pygame.K_F9, pygame.K_F10), "letter before, after"),
    Hint("PgUp, PgDn", "a page", (pygame.K_PAGEUP, pygame.K_PAGEDOWN)),
    Hint("Ctrl+V", "paste a path", (pygame.K_INSERT,)), Hint("Esc", "back", (pygame.K_ESCAPE,)),
)  # fmt: skip
KINDS = {"up": "folder above", "folder": "folder", "picture": "", "pack": "world pack"}
HIGH, PAGE = 34, 10  # of a line in units, lines of a page


class Preview:
    """Reads pictures one after the other in a thread; only the last one that was asked for matters."""

    def __init__(self, load: LoadPicture) -> None:
        self._load = load
        self._thread: threading.Thread | None = None
        self._wanted: Path | None = None
        self._made: tuple[Path, Pixels | str] | None = None

    def ask(self, path: Path | None) -> Pixels | str | None:
        """What is known of `path`: its picture uint8 (Y, X, 3), a sentence about why not, None while it is read."""
        self._wanted = path
        if path is None or (self._made is not None and self._made[0] == path):
            return self._made[1] if path is not None and self._made is not None else None
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._read, args=(path,), name="farstep-preview", daemon=True)
            self._thread.start()
        return None

    def _read(self, path: Path) -> None:
        try:
            made: Pixels | str = self._load(path)
        except UserError as error:
            made = str(error)
        except MemoryError:
            made = f"The picture {path.name} is too large for this machine; use a smaller one."
        self._made = (path, made)


class BrowseScreen:
    """Begins in `folder`; `load` gives a picture cropped as the world would; `said` is a sentence about what failed."""

    def __init__(self, folder: Path, load: LoadPicture) -> None:
        self.folder: Path | None = None
        self.entries: list[Entry] = []
        self.focus = 0
        self.said = ""
        self.dirty, self.pad = True, ""
        self.shown: Pixels | str | None = None  # of the chosen line, see `Preview.ask`
        self._preview = Preview(load)
        self._scroll = 0.0
        self._rects: list[pygame.Rect] = []
        self.go(folder)

    @property
    def chosen(self) -> Entry | None:
        """The line that has the focus."""
        return self.entries[self.focus] if self.entries else None

    def go(self, folder: Path | None) -> None:
        """Show a folder, None: the places. One that cannot be read is a sentence, and the list stays."""
        try:
            entries = list_folder(folder) if folder is not None else places()
        except UserError as error:
            self.said = str(error)
            if self.entries:
                return
            folder, entries = None, places()
        came_from, self.folder, self.entries = self.folder, folder, entries
        self.focus = next((i for i, entry in enumerate(entries) if entry.path == came_from and came_from), 0)
        if self.focus == 0 and len(entries) > 1 and entries[0].kind == "up":
            self.focus = 1
        self._scroll, self.dirty = 0.0, True

    def handle(self, event: pygame.event.Event) -> Command | None:
        """Keys, mouse, wheel; a dropped file is opened."""
        self.dirty = True
        if event.type == pygame.KEYDOWN:
            self.said = ""
            if event.key == pygame.K_v and event.mod & (pygame.KMOD_CTRL | pygame.KMOD_META):
                return Paste()
            return self._key(event.key, getattr(event, "unicode", ""))
        if event.type == pygame.MOUSEMOTION:
            self.focus = next((i for i, r in enumerate(self._rects) if r.collidepoint(event.pos)), self.focus)
        elif event.type == pygame.MOUSEWHEEL:
            self._move(-3 * event.y)
        elif event.type == pygame.MOUSEBUTTONDOWN and event.button == pygame.BUTTON_LEFT:
            for number, rect in enumerate(self._rects):
                if rect.collidepoint(event.pos):
                    self.focus = number
                    return self._open()
        elif event.type == pygame.DROPFILE:
            return Open(Path(event.file))
        return None

    def _key(self, key: int, letter: str) -> Command | None:
        steps = {pygame.K_UP: -1, pygame.K_DOWN: 1, pygame.K_PAGEUP: -PAGE, pygame.K_PAGEDOWN: PAGE}
        if key in (pygame.K_ESCAPE, pygame.K_INSERT):
            return ToMenu() if key == pygame.K_ESCAPE else Paste()
        if key in (pygame.K_RETURN, pygame.K_KP_ENTER, pygame.K_RIGHT):
            folder = self.chosen is not None and self.chosen.kind == "folder"
            return self._open() if key != pygame.K_RIGHT or folder else None
        if key in (pygame.K_LEFT, pygame.K_BACKSPACE, pygame.K_DELETE):
            if self.folder is not None:
                self.go(self.folder.parent if self.folder.parent != self.folder else None)
        elif key in steps:
            self._move(steps[key])
        elif key in (pygame.K_HOME, pygame.K_END):
            self._move(-len(self.entries) if key == pygame.K_HOME else len(self.entries))
        elif key in (pygame.K_F9, pygame.K_F10):
            self._turn(1 if key == pygame.K_F10 else -1)
        elif letter.strip():
            self._jump(letter.casefold())
        return None

    def _move(self, step: int) -> None:
        self.focus = min(max(self.focus + step, 0), max(0, len(self.entries) - 1))

    def _jump(self, letter: str) -> None:
        """To the next name that begins with a letter."""
        count = len(self.entries)
        order = [(self.focus + 1 + i) % count for i in range(count)]
        self.focus = next((i for i in order if self.entries[i].name.casefold().startswith(letter)), self.focus)

    def _turn(self, way: int) -> None:
        """To where the next letter begins, or back to where this one or the one before did; the ends hold."""
        heads = [(entry.kind == "folder", entry.name[:1].casefold()) for entry in self.entries]
        begins = [i for i, head in enumerate(heads) if not i or head != heads[i - 1]]
        if way > 0:
            self.focus = min((i for i in begins if i > self.focus), default=max(0, len(heads) - 1))
        else:
            self.focus = max((i for i in begins if i < self.focus), default=0)

    def _open(self) -> Command | None:
        entry = self.chosen
        if entry is None:
            return None
        if entry.kind in ("folder", "up"):
            self.go(entry.path)
            return None
        return Open(entry.path) if entry.path is not None else None

    def update(self) -> Command | None:
        """Ask for the preview of the chosen line."""
        entry = self.chosen
        shown = self._preview.ask(entry.path if entry is not None and entry.kind == "picture" else None)
        if shown is not self.shown:
            self.shown, self.dirty = shown, True
        return None

    # --- drawing
    def draw(self, surface: pygame.Surface) -> None:
        """Title, list, preview, hints."""
        surface.fill(GROUND)
        width, height = surface.get_size()
        scale = unit((width, height))
        margin = round(32 * scale)
        hints = wrap_parts(in_words(HINTS, self.pad), 21 * scale, width - 2 * margin)
        foot = round((24 * len(hints) + 20) * scale)
        text(surface, "Your own picture", (margin, 24 * scale), 44 * scale)
        where = printable(str(self.folder)) if self.folder is not None else "Where is it?"
        text(surface, _tail(where, 20 * scale, width - 2 * margin), (margin, 66 * scale), 20 * scale, QUIET)
        room = pygame.Rect(margin, round(96 * scale), round((width - 3 * margin) * 0.52), 0)
        room.height = height - foot - room.y - round(8 * scale)
        self._draw_list(surface, room, scale)
        aside = pygame.Rect(room.right + margin, room.y, width - room.right - 2 * margin, room.height)
        self._draw_preview(surface, aside, scale)
        surface.fill(PANEL, (0, height - foot, width, foot))
        for number, line in enumerate(hints):
            text(surface, line, (margin, height - foot + (12 + 24 * number) * scale), 21 * scale, QUIET)
        self.dirty = False

    def _draw_list(self, surface: pygame.Surface, room: pygame.Rect, scale: float) -> None:
        high = round(HIGH * scale)
        self._scroll = min(max(self._scroll, (self.focus + 2) * high - room.height), max(0, self.focus - 1) * high)
        self._scroll = max(0.0, self._scroll)
        self._rects, size = [], 22 * scale
        surface.set_clip(room.inflate(round(12 * scale), 0))
        for number, entry in enumerate(self.entries):
            rect = pygame.Rect(room.x, round(room.y + number * high - self._scroll), room.width, high - 3)
            inside = room.contains(rect)
            self._rects.append(rect if inside else pygame.Rect(0, 0, 0, 0))
            if not room.colliderect(rect):
                continue
            pygame.draw.rect(surface, PANEL, rect, border_radius=round(6 * scale))
            kind, top = KINDS[entry.kind], rect.y + (rect.height - text_size("0", size)[1]) / 2
            left, aside = rect.x + 12 * scale, text_size(kind, 18 * scale)[0] + 16 * scale
            colour = ACCENT if entry.kind in ("folder", "up") else TEXT
            text(surface, entry.name, (left, top), size, colour, width=rect.width - 24 * scale - aside)
            text(surface, kind, (rect.right - 12 * scale, top), 18 * scale, QUIET, "right")
            if number == self.focus:
                ring(surface, rect.inflate(-round(10 * scale), -round(8 * scale)), scale * 0.8, 5)
        surface.set_clip(None)
        if len(self.entries) <= 1:
            text(
                surface, "No pictures or folders here", (room.x, room.y + 2 * high), 20 * scale, QUIET, width=room.width
            )

    def _draw_preview(self, surface: pygame.Surface, room: pygame.Rect, scale: float) -> None:
        entry, top = self.chosen, float(room.y)
        words, colour = self.said, WARNING
        if isinstance(self.shown, str):
            words = words or self.shown
        elif self.shown is not None and entry is not None:
            picture = to_surface(self.shown)
            factor = min(room.width / picture.get_width(), 0.75 * room.height / picture.get_height())
            size = (round(picture.get_width() * factor), round(picture.get_height() * factor))
            surface.blit(pygame.transform.smoothscale(picture, size), room.topleft)
            pygame.draw.rect(surface, LINE, (*room.topleft, *size), max(1, round(2 * scale)))
            top += size[1] + 12 * scale
            if not words:
                words, colour = "What the world begins with: the middle of the picture.", QUIET
        elif not words and entry is not None:
            colour = QUIET
            enter = pad_marks(self.pad, pygame.K_RETURN) if self.pad else "Enter"
            words = "Reading the picture ..." if entry.kind == "picture" else f"Folders open with {enter}."
            words = "A world pack: its scenes are shown in the menu." if entry.kind == "pack" else words
        lines = wrap(words, 20 * scale, room.width) if words else []
        fits = max(1, int((room.bottom - top) / (23 * scale)))
        if len(lines) > fits:
            lines = [*lines[: fits - 1], shorten(" ".join(lines[fits - 1 :]), 20 * scale, room.width)]
        for number, line in enumerate(lines):
            text(surface, line, (room.x, top + 23 * number * scale), 20 * scale, colour, width=room.width)


def _tail(words: str, size: float, width: float) -> str:
    """The end of a path that fits `width` pixels: that is what tells folders apart."""
    if text_size(words, size)[0] <= width:
        return words
    while words and text_size("..." + words, size)[0] > width:
        words = words[1:]
    return "..." + words
