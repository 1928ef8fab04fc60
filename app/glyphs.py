"""Pictures of gamepad buttons that stand in a line of text: one private character, a *mark*, for each source of a pad
of each kind (`gamepad.KINDS`).

A circle is a button, a ring a stick, a rounded box a shoulder, trigger or named button, a cross the cross. They wear
what is printed on that kind of pad, letters or shapes, and the colour of the text around them.

Does not know what a button does, or which device is in use.
"""

from __future__ import annotations

import itertools
import math

import pygame

from controls.bindings import STICK_DIRECTIONS, STICK_SIDES
from controls.devices.gamepad import KINDS, NINTENDO, NINTENDO_PLACES, PS3, PS4, PS5, XBOX

Colour = tuple[int, int, int]
_XBOX = {
    "a": "A", "b": "B", "x": "X", "y": "Y", "left stick press": "LS", "right stick press": "RS",
    "left shoulder": "LB", "right shoulder": "RB", "left trigger": "LT", "right trigger": "RT",
    "back": "Back", "start": "Start", "guide": "Guide",
}  # fmt: skip
_PLAYSTATION = {
    "a": "cross", "b": "circle", "x": "square", "y": "triangle", "left stick press": "L3", "right stick press": "R3",
    "left shoulder": "L1", "right shoulder": "R1", "left trigger": "L2", "right trigger": "R2",
    "back": "Create", "start": "Options", "guide": "PS",
}  # fmt: skip
_NINTENDO = {
    **_XBOX, "left shoulder": "L", "right shoulder": "R", "left trigger": "ZL", "right trigger": "ZR",
    "back": "minus", "start": "plus", "guide": "Home",
}  # fmt: skip
LABELS = {  # what is printed on a button, or the name of the shape that is
    XBOX: _XBOX, PS3: {**_PLAYSTATION, "back": "Select", "start": "Start"}, PS4: {**_PLAYSTATION, "back": "Share"},
    PS5: _PLAYSTATION, NINTENDO: _NINTENDO,
    NINTENDO_PLACES: {**_NINTENDO, "a": "B", "b": "A", "x": "Y", "y": "X"},
}  # fmt: skip
SHAPES = ("cross", "circle", "square", "triangle", "minus", "plus")
ROUND = ("a", "b", "x", "y")
CROSS = ("dpad", *(f"dpad {way}" for way in STICK_DIRECTIONS))
STICKS = tuple(f"{side} stick{way}" for side in STICK_SIDES for way in ("", *(f" {d}" for d in STICK_DIRECTIONS)))
NAMES = (*_XBOX, *CROSS, *STICKS)  # `pad` before each; `dpad` and `left stick` alone are all four ways of them
FIRST = 0xE000  # of the characters that Unicode leaves to everyone's own use
WAYS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
TALL = 1.4  # of a mark, in heights of the line it stands in
GAP = 0.36  # between two marks, of a mark's height
PALE = 90  # of 255: the arms of a cross that are not meant
BOX = 0.82  # height of a rounded box, of a mark's


def mark_of(source: str, kind: str = XBOX) -> str:
    """The mark of a kind of pad for a source such as `pad a`, or for all ways of `pad dpad` or `pad left stick`."""
    return chr(FIRST + KINDS.index(kind) * len(NAMES) + NAMES.index(source.removeprefix("pad ")))


def is_mark(letter: str) -> bool:
    """Whether a character is a mark."""
    return FIRST <= ord(letter) < FIRST + len(KINDS) * len(NAMES)


def source_of(mark: str) -> str:
    """The source that a mark stands for."""
    return "pad " + NAMES[(ord(mark) - FIRST) % len(NAMES)]


def kind_of(mark: str) -> str:
    """The kind of pad that a mark is of."""
    return KINDS[(ord(mark) - FIRST) // len(NAMES)]


def runs(words: str) -> list[str]:
    """`words` cut so that every mark stands alone."""
    parts: list[str] = []
    for letter in words:
        if parts and not is_mark(letter) and not is_mark(parts[-1][-1]):
            parts[-1] += letter
        else:
            parts.append(letter)
    return parts


def width_of(mark: str, face: pygame.font.Font) -> int:
    """How wide a mark is in a line of this typeface, in pixels."""
    side, label = _side(face), _label(mark)
    if not label or _is_round(mark):
        return side
    return max(side, _letters(face, label).get_width() + side // 2)


def gap(face: pygame.font.Font) -> int:
    """Pixels that are free between two marks in a line of this typeface."""
    return math.ceil(GAP * _side(face))


def draw(mark: str, face: pygame.font.Font, colour: Colour, ground: Colour) -> pygame.Surface:
    """The mark for a line of this typeface, `TALL` times as high; what is written in it has the colour `ground`."""
    side, name, label = _side(face), source_of(mark).removeprefix("pad "), _label(mark)
    picture = pygame.Surface((width_of(mark, face), side), pygame.SRCALPHA)
    picture.fill((*colour, 0))  # made small, edges then take the colour of what is beside them: this, not black
    area, centre = picture.get_rect(), picture.get_rect().center
    if name in CROSS:
        _draw_cross(picture, name.removeprefix("dpad").strip(), colour)
    elif name in STICKS:
        _draw_stick(picture, name, face, colour)
    else:
        if _is_round(mark):
            pygame.draw.circle(picture, colour, centre, side // 2)
        else:
            high = round(BOX * side)
            box = pygame.Rect(0, (side - high) // 2, area.width, high)
            pygame.draw.rect(picture, colour, box, border_radius=round(0.3 * high))
        if label in SHAPES:
            _draw_shape(picture, label, ground)
        else:
            written = _letters(face, label, ground)
            picture.blit(written, written.get_rect(center=centre))
    return picture


def _side(face: pygame.font.Font) -> int:
    return round(TALL * face.get_height())


def _label(mark: str) -> str:
    return LABELS[kind_of(mark)].get(source_of(mark).removeprefix("pad "), "")


def _is_round(mark: str) -> bool:
    return source_of(mark).removeprefix("pad ") in ROUND or _label(mark) in SHAPES


def _letters(face: pygame.font.Font, label: str, colour: Colour = (0, 0, 0)) -> pygame.Surface:
    """The label without what is empty around it, as much above capitals as below them, so that it can be centred."""
    drawn = face.render(label, True, colour)
    box, capital = drawn.get_bounding_rect(), face.render("O", True, colour).get_bounding_rect()
    room = max(0, box.bottom - capital.bottom)
    written = pygame.Surface((box.width, capital.height + 2 * room), pygame.SRCALPHA)
    written.fill((*colour, 0))
    written.blit(drawn, (-box.x, room - capital.y))
    return written


def _draw_shape(picture: pygame.Surface, shape: str, colour: Colour) -> None:
    """One of `SHAPES` in the middle of a round button."""
    side, middle = picture.get_height(), picture.get_height() / 2
    far, thick = 0.24 * side, max(2, round(0.11 * side))

    def line(*corners: tuple[float, float]) -> None:
        """From corner to corner, in shares of `far` from the middle, each line with round ends."""
        points = [(middle + x * far, middle + y * far) for x, y in corners]
        for start, end in itertools.pairwise(points):
            across = pygame.Vector2(end[1] - start[1], start[0] - end[0])
            across.scale_to_length(thick / 2)
            pygame.draw.polygon(picture, colour, [start + across, end + across, end - across, start - across])
        for point in points:
            pygame.draw.circle(picture, colour, point, thick / 2)

    if shape == "circle":
        pygame.draw.circle(picture, colour, (middle, middle), far + thick / 2, thick)
    elif shape == "square":
        line((-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85), (-0.85, -0.85))
    elif shape == "triangle":
        line((0, -1.1), (1, 0.65), (-1, 0.65), (0, -1.1))
    elif shape == "cross":
        line((-0.85, -0.85), (0.85, 0.85))
        line((-0.85, 0.85), (0.85, -0.85))
    else:
        line((-1, 0), (1, 0))
        if shape == "plus":
            line((0, -1), (0, 1))


def _draw_cross(picture: pygame.Surface, way: str, colour: Colour) -> None:
    """A cross; with a `way` only that arm is full, the others are pale."""
    side = picture.get_height()
    arm = round(0.32 * side)
    low, high = (side - arm) // 2, (side + arm) // 2
    edge = round(0.06 * side)
    far = side - edge
    outline = [
        (low, edge), (high, edge), (high, low), (far, low), (far, high), (high, high),
        (high, far), (low, far), (low, high), (edge, high), (edge, low), (low, low),
    ]  # fmt: skip
    pygame.draw.polygon(picture, (*colour, PALE) if way else colour, outline)
    if way:
        x, y = WAYS[way]
        full = pygame.Rect(0, 0, round(1.4 * arm), round(1.4 * arm))
        full.center = (side // 2 + x * (low - edge), side // 2 + y * (low - edge))
        pygame.draw.rect(picture, colour, full.clip(picture.get_rect()))


def _draw_stick(picture: pygame.Surface, name: str, face: pygame.font.Font, colour: Colour) -> None:
    """A ring with the letter of its side; with a way, an arrow head on that side of a smaller ring."""
    side = picture.get_height()
    thick, middle = max(2, side // 11), side / 2
    way = WAYS.get(name.split()[-1])
    radius, at = side / 2, (middle, middle)
    if way is not None:
        radius, at = 0.38 * side, (middle - way[0] * 0.12 * side, middle - way[1] * 0.12 * side)
        tip = (middle + way[0] * middle, middle + way[1] * middle)
        base = (tip[0] - way[0] * 0.2 * side, tip[1] - way[1] * 0.2 * side)
        across = (way[1] * 0.2 * side, way[0] * 0.2 * side)
        ends = [(base[0] + sign * across[0], base[1] + sign * across[1]) for sign in (1, -1)]
        pygame.draw.polygon(picture, colour, [tip, *ends])
    pygame.draw.circle(picture, colour, at, round(radius), thick)
    letter = _letters(face, name[0].upper(), colour)
    if way is not None:
        letter = pygame.transform.smoothscale_by(letter, 0.8)
    picture.blit(letter, letter.get_rect(center=(round(at[0]), round(at[1]))))
