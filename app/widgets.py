"""The look of the program: colours, type, and the few parts that every screen is made of.

Dark and calm, so that the pictures are the brightest thing; text keeps a contrast of 4.5:1 or more on what it stands
on; what has the focus wears a ring, never a colour alone. Sizes are in units that follow the window.

Does not know about scenes, sessions or what a button does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import pygame

from app import glyphs

Colour = tuple[int, int, int]

GROUND: Colour = (16, 18, 23)
PANEL: Colour = (27, 31, 39)
LINE: Colour = (52, 58, 71)
TEXT: Colour = (236, 238, 243)
QUIET: Colour = (163, 171, 186)
ACCENT: Colour = (255, 190, 92)
WARNING: Colour = (255, 158, 138)
VEIL = 240  # of 255: how much a panel hides of a picture, so that quiet text can be read over a white one
FINE = 3  # text is drawn this much larger than it is shown


def contrast(one: Colour, other: Colour) -> float:
    """The WCAG contrast ratio of two colours, 1 to 21."""

    def light(colour: Colour) -> float:
        parts = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    high, low = sorted((light(one), light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def unit(size: tuple[int, int]) -> float:
    """The scale of the interface for a window of `size`: 1 at 1280x800."""
    return min(3.0, max(0.6, min(size[0] / 900, size[1] / 800)))


@lru_cache(maxsize=32)
def font(pixels: int) -> pygame.font.Font:
    """The program's typeface at a size in pixels."""
    return pygame.font.Font(None, max(8, pixels))


def forget() -> None:
    """Drop everything cached; call it before pygame is closed, which fonts do not outlive."""
    _line.cache_clear()
    font.cache_clear()


def text(
    surface: pygame.Surface,
    words: str,
    where: tuple[float, float],
    size: float,
    colour: Colour = TEXT,
    align: str = "left",
    width: float | None = None,
) -> pygame.Rect:
    """One line at `where` (its top edge; x by `align`: left, centre or right), shortened with ... to `width`.

    Marks of `glyphs` in it are drawn as the buttons they stand for; they reach a little above and below the line.
    """
    if width is not None:
        words = shorten(words, size, width)
    if not words:  # scaling a picture of no width ends the process
        return pygame.Rect(round(where[0]), round(where[1]), 0, 0)
    drawn = _line(words, round(size), colour)
    share = {"left": 0.0, "centre": 0.5, "right": 1.0}[align]
    above = (drawn.get_height() - text_size(words, size)[1]) / 2 if any(map(glyphs.is_mark, words)) else 0
    return surface.blit(drawn, (round(where[0] - share * drawn.get_width()), round(where[1] - above)))


@lru_cache(maxsize=256)
def _line(words: str, size: int, colour: Colour) -> pygame.Surface:
    """Drawn large and made small: at small sizes the renderer rounds the gaps between letters visibly."""
    face = font(FINE * size)
    parts = [
        glyphs.draw(part, face, colour, GROUND) if glyphs.is_mark(part[0]) else face.render(part, True, colour)
        for part in glyphs.runs(words)
    ]
    large = parts[0].convert_alpha() if len(parts) == 1 else _beside(parts, _gaps(words, face))
    small = (max(1, round(large.get_width() / FINE)), max(1, round(large.get_height() / FINE)))
    return pygame.transform.smoothscale(large, small)


def _gaps(words: str, face: pygame.font.Font) -> list[int]:
    """Pixels free before each of the runs of `words`: two marks do not touch."""
    marks = [glyphs.is_mark(part[0]) for part in glyphs.runs(words)]
    return [glyphs.gap(face) if mark and before else 0 for before, mark in zip([False, *marks], marks, strict=False)]


def _beside(parts: list[pygame.Surface], gaps: list[int]) -> pygame.Surface:
    """One picture of all, left to right, each in the middle of the height and after its gap."""
    high = max(part.get_height() for part in parts)
    whole = pygame.Surface((sum(part.get_width() for part in parts) + sum(gaps), high), pygame.SRCALPHA)
    left = 0
    for part, gap in zip(parts, gaps, strict=True):
        left += gap
        whole.blit(part.convert_alpha(), (left, (high - part.get_height()) // 2))
        left += part.get_width()
    return whole


def text_size(words: str, size: float) -> tuple[float, float]:
    """Width and height of one line in pixels."""
    face = font(FINE * round(size))
    if not any(map(glyphs.is_mark, words)):
        width, height = face.size(words)
        return width / FINE, height / FINE
    parts = glyphs.runs(words)
    wide = sum(glyphs.width_of(part, face) if glyphs.is_mark(part[0]) else face.size(part)[0] for part in parts)
    return (wide + sum(_gaps(words, face))) / FINE, face.size("")[1] / FINE


def shorten(words: str, size: float, width: float) -> str:
    """`words` cut with ... so that they fit `width` pixels."""
    if text_size(words, size)[0] <= width:
        return words
    while words and text_size(words + "...", size)[0] > width:
        words = words[:-1]
    return words.rstrip() + "..."


def wrap(words: str, size: float, width: float) -> list[str]:
    """`words` broken into lines of at most `width` pixels."""
    lines = [""]
    for word in words.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and text_size(longer, size)[0] > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def wrap_parts(parts: Sequence[str], size: float, width: float, gap: str = "     ") -> list[str]:
    """`parts` joined into lines of at most `width` pixels; only a part that alone is longer is broken within."""
    lines: list[str] = []
    for part in parts:
        if lines and text_size(lines[-1] + gap + part, size)[0] <= width:
            lines[-1] += gap + part
        else:
            lines += wrap(part, size, width)
    return lines


def ring(surface: pygame.Surface, rect: pygame.Rect, scale: float, radius: float = 10) -> None:
    """The focus ring around `rect`."""
    gap, thick = round(4 * scale), max(2, round(3 * scale))
    outer = rect.inflate(2 * (gap + thick), 2 * (gap + thick))
    pygame.draw.rect(surface, ACCENT, outer, thick, round((radius + gap + 3) * scale))


def rounded(picture: pygame.Surface, radius: int) -> pygame.Surface:
    """A copy of the picture with round corners."""
    mask = pygame.Surface(picture.get_size(), pygame.SRCALPHA)
    pygame.draw.rect(mask, (255, 255, 255, 255), mask.get_rect(), border_radius=radius)
    result = picture.convert_alpha()
    result.blit(mask, (0, 0), special_flags=pygame.BLEND_RGBA_MIN)
    return result


def shade(surface: pygame.Surface, rect: pygame.Rect, alpha: int, radius: int = 0) -> None:
    """Darken `rect` towards the ground colour; 255 hides what is there."""
    veil = pygame.Surface(rect.size, pygame.SRCALPHA)
    pygame.draw.rect(veil, (*GROUND, alpha), veil.get_rect(), border_radius=radius)
    surface.blit(veil, rect)


def progress_bar(surface: pygame.Surface, rect: pygame.Rect, fraction: float) -> None:
    """A bar filled from the left."""
    radius = rect.height // 2
    pygame.draw.rect(surface, LINE, rect, border_radius=radius)
    filled = rect.copy()
    filled.width = max(rect.height, round(rect.width * min(1.0, max(0.0, fraction))))
    pygame.draw.rect(surface, ACCENT, filled, border_radius=radius)


@dataclass
class Row:
    """A line of a list of choices: `name` for the program, `label`, and a `value` at the right where it has one."""

    name: str
    label: str
    value: str = ""


def draw_rows(
    surface: pygame.Surface, rows: list[Row], focus: int, box: pygame.Rect, scale: float
) -> list[pygame.Rect]:
    """The choices one below the other inside `box`, row `focus` with the ring; returns their rectangles."""
    height, gap = round(46 * scale), round(12 * scale)
    rects = []
    for i, row in enumerate(rows):
        rect = pygame.Rect(box.x, box.y + i * (height + gap), box.width, height)
        pygame.draw.rect(surface, PANEL, rect, border_radius=round(8 * scale))
        top = rect.y + (height - text_size(row.label, 26 * scale)[1]) / 2
        pad = 18 * scale
        text(surface, row.label, (rect.x + pad, top), 26 * scale)
        if row.value:
            words = f"<  {row.value}  >" if i == focus else row.value
            room = rect.width - text_size(row.label, 26 * scale)[0] - 3 * pad
            text(surface, words, (rect.right - pad, top), 26 * scale, ACCENT if i == focus else QUIET, "right", room)
        if i == focus:
            ring(surface, rect, scale, 8)
        rects.append(rect)
    return rects
