"""The page of keys and buttons: what drives each input, giving it another key or button, conflicts, reset.

Does not know about devices beyond the names of sources and what is printed on them, or how bindings are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import pygame

from app.hints import Hint, pad_marks
from app.names import name_of
from app.screens.commands import Command, Rebind
from app.widgets import Row
from controls.bindings import LOOK_INPUTS, WINDOW_INPUTS, Bindings
from controls.devices import gamepad, keyboard, mouse
from controls.errors import UserError

LABELS = {
    "forward": "Walk forward", "backward": "Walk back", "left": "Step left", "right": "Step right", "run": "Run",
    "jump": "Jump", "use": "Use", "attack": "Attack", "turn_left": "Turn left", "turn_right": "Turn right",
    "look_up": "Look up", "look_down": "Look down", "reanchor": "Bring the picture back",
}  # fmt: skip
PUSHED = 0.6
NEVER_HELD = (*LOOK_INPUTS, *WINDOW_INPUTS)
LEAVE, ANOTHER, SWITCH, NONE = (
    Hint("Esc", "leave it as it was", (pygame.K_ESCAPE,)), Hint("Enter", "another key or button", (pygame.K_RETURN,)),
    Hint("Left, right", "hold, or switch with each press", (pygame.K_LEFT, pygame.K_RIGHT)),
    Hint("Delete", "none", (pygame.K_DELETE,)),
)  # fmt: skip
CANCEL = ("escape", "pad start", "pad b")


def source_of(event: pygame.event.Event) -> str | None:
    """The source that an event would bind: a key, a mouse button or wheel, a pad button, trigger or stick."""
    if event.type in (pygame.KEYUP, pygame.MOUSEBUTTONUP, pygame.CONTROLLERBUTTONUP):
        return None
    if event.type != pygame.CONTROLLERAXISMOTION:
        return keyboard.source_of(event) or mouse.source_of(event) or gamepad.source_of(event)
    value = event.value / gamepad.AXIS_RANGE
    if event.axis in gamepad.TRIGGERS:
        return gamepad.TRIGGERS[event.axis] if value > PUSHED else None
    if event.axis in gamepad.STICKS and abs(value) > PUSHED:
        side, part = gamepad.STICKS[event.axis]
        return f"pad {side} stick {(('left', 'right'), ('up', 'down'))[part][value > 0]}"
    return None


class RebindPage:
    """Rows for every input; while `listening` the next key or button is given to that input.

    `reserved` are the window's own keys, `defaults` gives the bindings that the program comes with.
    """

    def __init__(self, bindings: Bindings, reserved: Collection[str], defaults: Callable[[], Bindings]) -> None:
        self.bindings = bindings
        self.reserved = reserved
        self.defaults = defaults
        self.listening: str | None = None
        self.said = ""
        self._offered: str | None = None  # a source that another input has; pressed again it is taken

    def rows(self, pad: str = "", kind: str = gamepad.XBOX) -> list[Row]:
        """Every input with its sources, then reset and back.

        What to press is named for a `pad` of that kind, for the keys when it is ""; what is bound for pads of `kind`.
        """
        rows = []
        press = pad_marks(pad, pygame.K_RETURN) if pad else "Enter"
        for name, sources in self.bindings.inputs.items():
            words = ", ".join(name_of(source, kind) for source in sources) or f"nothing: press {press}"
            if name in self.bindings.toggle:
                words += "  (each press switches)"
            if name == self.listening:
                words = "press a key or button ..."
            rows.append(Row(f"bind {name}", LABELS.get(name, name.replace("_", " ").capitalize()), words))
        return [*rows, Row("reset", "As they were in the beginning"), Row("back", "Back")]

    def about(self, row: str, pad: str = "") -> str:
        """A sentence about a row; what to press is named for a kind of `pad`, or for the keys."""
        if self.listening:
            return f"{self.said}  {LEAVE.words(pad)}.".strip()
        if row == "reset":
            return "All keys and buttons as the program comes with them."
        if row == "back":
            return "To the other settings."
        hold = "" if row.removeprefix("bind ") in NEVER_HELD else f"  {SWITCH.words(pad)}."
        return f"{self.said or ANOTHER.words(pad) + '.'}{hold}  {NONE.words(pad)}.  When you go on playing."

    def listen(self, event: pygame.event.Event, kind: str = gamepad.XBOX) -> Command | None:
        """While listening: take what was pressed, or say why not, in the words of a `kind` of pad."""
        source = source_of(event)
        name = self.listening
        if source is None or name is None:
            return None
        if source in CANCEL:
            self.listening = self._offered = None
            self.said = ""
            return None
        words = name_of(source, kind)
        words = words[0].upper() + words[1:]
        if source in self.reserved:
            self.said, self._offered = f"{words} is one of the window's own keys and buttons; choose another.", None
            return None
        owner = self.bindings.input_of(source)
        if owner is not None and owner != name and self._offered != source:
            self._offered = source
            self.said = f"{words} already does {LABELS.get(owner, owner)!r}. Press it again to take it from there."
            return None
        try:
            changed = self.bindings.assign(name, source, self.reserved)
        except UserError as error:
            self.said, self._offered = str(error), None
            return None
        self.listening = self._offered = None
        lost = [LABELS.get(key, key) for key, sources in changed.inputs.items() if not sources]
        self.said = f"Nothing does {lost[0]!r} now." if lost else ""
        return self._use(changed)

    def do(self, row: str) -> Command | None:
        """Enter on a row."""
        self.said = ""
        if row == "reset":
            return self._use(self.defaults())
        if row.startswith("bind "):
            self.listening, self._offered = row.removeprefix("bind "), None
        return None

    def change(self, row: str) -> Command | None:
        """Left or right on a row: held, or switched with each press."""
        name = row.removeprefix("bind ")
        if name in self.bindings.inputs and name not in NEVER_HELD:
            return self._use(self.bindings.toggled(name))
        return None

    def clear(self, row: str) -> Command | None:
        """No key or button at all for a row's input."""
        name = row.removeprefix("bind ")
        return self._use(self.bindings.without(name)) if name in self.bindings.inputs else None

    def _use(self, bindings: Bindings) -> Command:
        self.bindings = bindings
        return Rebind(bindings)
