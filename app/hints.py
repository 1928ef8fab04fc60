"""Hints: what can be pressed here, named for the device that was used last, as it is bound now.

A hint that a device has nothing for is left out. In menus a pad's buttons stand for keys (`screens.navigation`); in
play they are the window's own (`hotkeys`) or the player's bindings. `pad` is everywhere the kind of the pad that was
used last (`gamepad.KINDS`), which says what is printed on its buttons, or "" when keys or mouse were.

Does not know how a hint is drawn, or what a screen does when a button is pressed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pygame

from app.glyphs import mark_of
from app.hotkeys import HOTKEYS
from app.names import name_of
from app.screens.navigation import KEYS
from controls.bindings import STICK_DIRECTIONS, Bindings, is_pad
from controls.devices import gamepad

ARROWS = (pygame.K_UP, pygame.K_DOWN, pygame.K_LEFT, pygame.K_RIGHT)
PUSHED = 0.5  # of the way to the rim: a stick that rests beside its middle is not in use
MOVED = 6  # pixels in one event: a table that is touched moves a mouse less
SHORT = {
    "left shift": "Shift", "left ctrl": "Ctrl", "left alt": "Alt",
    "left": "Left", "right": "Right", "up": "Up", "down": "Down",
}  # fmt: skip
WALK = ("forward", "left", "backward", "right")
LOOK = ("turn_left", "turn_right", "look_up", "look_down")


def by_pad(event: pygame.event.Event) -> bool | None:
    """Whether a pad was used, False: keyboard or mouse, None: the event is no sign of either."""
    if event.type == pygame.CONTROLLERBUTTONDOWN:
        return True
    if event.type == pygame.CONTROLLERAXISMOTION:
        return True if abs(event.value) > PUSHED * gamepad.AXIS_RANGE else None
    if event.type in (pygame.KEYDOWN, pygame.MOUSEBUTTONDOWN, pygame.MOUSEWHEEL):
        return False
    if event.type == pygame.MOUSEMOTION and max(map(abs, event.rel)) >= MOVED:
        return False
    return None


@dataclass(frozen=True)
class Hint:
    """In a menu: the `keys` in words, `what` they do, and the `codes` of keys that a pad's buttons stand for.

    `by_pad` is what those do where it is not quite the same.
    """

    keys: str
    what: str
    codes: tuple[int, ...] = ()
    by_pad: str = ""

    def words(self, pad: str) -> str:
        """The hint for a device, "" when it has nothing for it."""
        if not pad:
            return f"{self.keys}: {self.what}"
        marks = pad_marks(pad, *self.codes)
        return f"{marks} {self.by_pad or self.what}" if marks else ""


def said(hints: Iterable[Hint], pad: str) -> list[str]:
    """The hints that a device has something for, in words and marks."""
    return [words for hint in hints if (words := hint.words(pad))]


def pad_marks(pad: str, *codes: int) -> str:
    """The marks of the buttons of a kind of pad that stand for these keys, "" unless there is one for each."""
    found = [next((source for source, key in KEYS.items() if key == code), "") for code in codes]
    return _marks(found, pad) if found and all(found) else ""


def hotkey_hint(name: str, what: str, pad: str) -> str:
    """A hint about one of the window's own keys or buttons; "" when the device has none."""
    mine = [source for source, does in HOTKEYS.items() if does == name and is_pad(source) == bool(pad)]
    return _hint(mine[:1], what, pad)


def input_hint(bindings: Bindings, inputs: Sequence[str], what: str, pad: str) -> str:
    """A hint about the first source of each of these inputs; "" when the device drives none of them."""
    mine = [[s for s in bindings.inputs.get(name, ()) if is_pad(s) == bool(pad)][:1] for name in inputs]
    return _hint([source for sources in mine for source in sources], what, pad)


def play_hints(bindings: Bindings, pad: str) -> list[str]:
    """What a player is told first."""
    hints = [
        input_hint(bindings, WALK, "walk", pad),
        input_hint(bindings, LOOK, "look", pad) if pad else "Mouse: look",
        input_hint(bindings, ("run",), "run", pad),
        input_hint(bindings, ("jump",), "jump", pad),
        input_hint(bindings, ("use",), "use", pad),
        hotkey_hint("rewind", "back in time", pad),
        hotkey_hint("pause", "pause", pad),
    ]
    return [hint for hint in hints if hint]


def held_hints(pad: str) -> list[str]:
    """What can be done while the picture is held."""
    names = (("step", "one step"), ("freeze", "go on"), ("pause", "menu"))
    return ["Held", *(hint for name, what in names if (hint := hotkey_hint(name, what, pad)))]


def _hint(sources: Sequence[str], what: str, pad: str) -> str:
    if not sources:
        return ""
    return f"{_marks(sources, pad)} {what}" if pad else f"{_names(sources)}: {what}"


def _marks(sources: Sequence[str], pad: str) -> str:
    """One mark for a whole cross or stick, else one for each."""
    for whole in ("pad dpad", "pad left stick", "pad right stick"):
        if set(sources) == {f"{whole} {way}" for way in STICK_DIRECTIONS}:
            return mark_of(whole, pad)
    return "".join(mark_of(source, pad) for source in dict.fromkeys(sources))


def _names(sources: Sequence[str]) -> str:
    """Keys as they are called: letters together, others apart."""
    if set(sources) == set(STICK_DIRECTIONS):
        return "Arrows"
    names = [SHORT.get(source) or name_of(source) for source in sources]
    return ("" if all(len(name) == 1 for name in names) else ", ").join(names)
