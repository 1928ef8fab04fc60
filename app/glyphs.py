"""Pictures of gamepad buttons that stand in a line of text: one private character, a *mark*, for each source of a pad.

A circle is a button, a ring a stick, a rounded box a shoulder, trigger or named button, a cross the cross. They wear
the letters that SDL gives every pad, and the colour of the text around them.

Does not know what a button does, or which device is in use.
"""

from __future__ import annotations

import pygame

from controls.bindings import STICK_DIRECTIONS, STICK_SIDES

Colour = tuple[int, int, int]
LABELS = {
    "a": "A", "b": "B", "x": "X", "y": "Y", "left stick press": "LS", "right stick press": "RS",
    "left shoulder": "LB", "right shoulder": "RB", "left trigger": "LT", "right trigger": "RT",
    "back": "Back", "start": "Start", "guide": "Guide",
}  # fmt: skip
ROUND = ("a", "b", "x", "y")
CROSS = ("dpad", *(f"dpad {way}" for way in STICK_DIRECTIONS))
STICKS = tuple(f"{side} stick{way}" for side in STICK_SIDES for way in ("", *(f" {d}" for d in STICK_DIRECTIONS)))
NAMES = (*LABELS, *CROSS, *STICKS)  # `pad` before each; `dpad` and `left stick` alone are all four ways of them
FIRST = 0xE000  # of the characters that Unicode leaves to everyone's own use
WAYS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
TALL = 1.4  # of a mark, in heights of the line it stands in
PALE = 90  # of 255: the arms of a cross that are not meant
BOX = 0.82  # height of a rounded box, of a mark's


def mark_of(source: str) -> str:
    """The mark for a pad's source such as `pad a`, or for all ways of `pad dpad` or `pad left stick`."""
    return chr(FIRST + NAMES.index(source.removeprefix("pad ")))


def is_mark(letter: str) -> bool:
    """Whether a character is a mark."""
    return FIRST <= ord(letter) < FIRST + len(NAMES)


def source_of(mark: str) -> str:
    """The source that a mark stands for."""
    return "pad " + NAMES[ord(mark) - FIRST]


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
    if not label or source_of(mark).removeprefix("pad ") in ROUND:
        return side
    return max(side, _letters(face, label).get_width() + side // 2)


def draw(mark: str, face: pygame.font.Font, colour: Colour, ground: Colour) -> pygame.Surface:
    """The mark for a line of this typeface, `TALL` times as high; what is written in it has the colour `ground`."""
    side, name = _side(face), source_of(mark).removeprefix("pad ")
    picture = pygame.Surface((width_of(mark, face), side), pygame.SRCALPHA)
    area, centre = picture.get_rect(), picture.get_rect().center
    if name in CROSS:
        _draw_cross(picture, name.removeprefix("dpad").strip(), colour)
    elif name in STICKS:
        _draw_stick(picture, name, face, colour)
    else:
        if name in ROUND:
            pygame.draw.circle(picture, colour, centre, side // 2)
        else:
            high = round(BOX * side)
            box = pygame.Rect(0, (side - high) // 2, area.width, high)
            pygame.draw.rect(picture, colour, box, border_radius=round(0.3 * high))
        written = _letters(face, _label(mark), ground)
        picture.blit(written, written.get_rect(center=centre))
    return picture


def _side(face: pygame.font.Font) -> int:
    return round(TALL * face.get_height())


def _label(mark: str) -> str:
    return LABELS.get(source_of(mark).removeprefix("pad "), "")


def _letters(face: pygame.font.Font, label: str, colour: Colour = (0, 0, 0)) -> pygame.Surface:
    """The label without the empty rows above and below it, so that it can be centred."""
    drawn = face.render(label, True, colour)
    return drawn.subsurface(drawn.get_bounding_rect())


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
