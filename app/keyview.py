"""The action of a latent frame as the world receives it: each key tick by tick, and the look in degrees after clipping.

Not the keyboard: a tap between two ticks, a stick beyond its dead zone, a toggled key and the part of a fast turn that
had to wait for the next tick all look here as they look to the network.

Does not know about devices, bindings, sessions or how an action travels.
"""

from __future__ import annotations

import numpy as np
import pygame

from app.widgets import ACCENT, LINE, QUIET, TEXT, VEIL, shade, text, text_size
from controls.action import Action, ActionSpec, received

WIDE, PAD, LINE_HIGH = 250, 12, 22  # in units
ABOVE = 112  # units kept free below, for hints and the bar of a rewind
AT_LIMIT = "at the limit of a tick"


def key_rows(action: Action, spec: ActionSpec) -> list[tuple[str, list[bool], str]]:
    """For each key of `spec`: its name, in which ticks it was down, and how many that were."""
    keys = received(action, spec).keys.astype(bool)
    return [
        (name, keys[:, number].tolist(), f"{int(keys[:, number].sum())} / {spec.ticks}")
        for number, name in enumerate(spec.keys)
    ]


def look_rows(action: Action, spec: ActionSpec) -> list[tuple[str, str, bool]]:
    """Yaw and pitch of the whole latent frame in words, and whether a tick of it carries all that one can."""
    look = received(action, spec).look
    rows = []
    for number, (label, ways) in enumerate((("yaw", ("right", "left")), ("pitch", ("up", "down")))):
        turn = float(look[:, number].sum())
        way = f" {ways[turn < 0]}" if turn else ""
        clipped = bool((np.abs(look[:, number]) >= spec.max_look).any())
        rows.append((label, f"{abs(turn):.2f} deg{way}", clipped))
    return rows


def draw(surface: pygame.Surface, action: Action | None, index: int, spec: ActionSpec, scale: float) -> pygame.Rect:
    """A panel in the lower right corner about the action of latent frame `index`; returns the area it covers."""
    action = action or Action.idle(spec)
    rows, looks = key_rows(action, spec), look_rows(action, spec)
    high, pad = round(LINE_HIGH * scale), round(PAD * scale)
    box = pygame.Rect(0, 0, round(WIDE * scale), (len(rows) + len(looks) + 2) * high + 2 * pad)
    box.bottomright = (surface.get_width() - round(16 * scale), surface.get_height() - round(ABOVE * scale))
    box.top = max(box.top, round(8 * scale))
    shade(surface, box, VEIL, round(10 * scale))
    size, top = 20 * scale, box.y + pad
    text(surface, f"latent frame {index} receives", (box.x + pad, top), size, QUIET)
    for name, ticks, share in rows:
        top += high
        held = any(ticks)
        text(surface, name.replace("_", " "), (box.x + pad, top), size, TEXT if held else QUIET)
        text(surface, share, (box.right - pad, top), size, TEXT if held else QUIET, "right")
        _draw_ticks(surface, ticks, (box.right - pad - round(58 * scale), top), size)
    for label, words, clipped in looks:
        top += high
        text(surface, label, (box.x + pad, top), size, QUIET)
        text(surface, words, (box.right - pad, top), size, ACCENT if clipped else TEXT, "right")
    if any(clipped for _, _, clipped in looks):
        text(surface, f"{AT_LIMIT}: {spec.max_look:g} deg", (box.x + pad, top + high), size, ACCENT)
    return box


def _draw_ticks(surface: pygame.Surface, ticks: list[bool], where: tuple[int, int], size: float) -> None:
    """One square a tick, oldest at the left, ending at x = where[0]: full where the key was down."""
    side = round(text_size("0", size)[1] * 0.72)
    left = where[0] - len(ticks) * (side + max(2, side // 4))
    for number, down in enumerate(ticks):
        square = pygame.Rect(left + number * (side + max(2, side // 4)), where[1], side, side)
        pygame.draw.rect(surface, ACCENT if down else LINE, square, 0 if down else max(1, side // 8))
