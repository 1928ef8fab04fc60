"""Menus by gamepad: pad buttons, triggers and the left stick as the keys that menus know.

Does not know which screen is shown or what a key does there.
"""

from __future__ import annotations

import pygame

from controls.devices import gamepad

KEYS = {
    "pad dpad up": pygame.K_UP,
    "pad dpad down": pygame.K_DOWN,
    "pad dpad left": pygame.K_LEFT,
    "pad dpad right": pygame.K_RIGHT,
    "pad a": pygame.K_RETURN,
    "pad b": pygame.K_ESCAPE,
    "pad start": pygame.K_ESCAPE,
    "pad x": pygame.K_DELETE,
    "pad y": pygame.K_F1,
    "pad back": pygame.K_o,
    "pad left shoulder": pygame.K_PAGEUP,
    "pad right shoulder": pygame.K_PAGEDOWN,
    "pad right stick press": pygame.K_F4,
    "pad left stick press": pygame.K_INSERT,
    "pad left trigger": pygame.K_F9,
    "pad right trigger": pygame.K_F10,
}
PUSHED, LET_GO = 0.6, 0.4  # of the way to the rim
AXES = {  # the keys of their two ends; a trigger has only one
    pygame.CONTROLLER_AXIS_LEFTX: (pygame.K_LEFT, pygame.K_RIGHT),
    pygame.CONTROLLER_AXIS_LEFTY: (pygame.K_UP, pygame.K_DOWN),
    **{axis: (KEYS[source], KEYS[source]) for axis, source in gamepad.TRIGGERS.items()},
}


class PadKeys:
    """Turns pad events into key events; a stick or trigger that is pushed counts once until it is let go."""

    def __init__(self) -> None:
        self._pushed: set[int] = set()

    def key_event(self, event: pygame.event.Event) -> pygame.event.Event | None:
        """The key event that a pad event stands for, None when it stands for none."""
        if event.type == pygame.CONTROLLERBUTTONDOWN:
            key = KEYS.get(gamepad.source_of(event) or "")
            return pygame.event.Event(pygame.KEYDOWN, key=key, mod=0) if key is not None else None
        if event.type != pygame.CONTROLLERAXISMOTION or event.axis not in AXES:
            return None
        value = event.value / gamepad.AXIS_RANGE
        if abs(value) < LET_GO:
            self._pushed.discard(event.axis)
        if abs(value) < PUSHED or event.axis in self._pushed:
            return None
        self._pushed.add(event.axis)
        return pygame.event.Event(pygame.KEYDOWN, key=AXES[event.axis][value > 0], mod=0)
