"""Mouse: pygame mouse events to sampler calls, while the window has captured the pointer.

Does not know what a button does, and nothing of sensitivity: motion goes on in pixels.
"""

from __future__ import annotations

import pygame

from controls.sampler import InputSampler

BUTTONS = {
    pygame.BUTTON_LEFT: "mouse left",
    pygame.BUTTON_MIDDLE: "mouse middle",
    pygame.BUTTON_RIGHT: "mouse right",
    pygame.BUTTON_X1: "mouse back",
    pygame.BUTTON_X2: "mouse forward",
}
WHEEL = {1: "mouse wheel up", -1: "mouse wheel down"}


def source_of(event: pygame.event.Event) -> str | None:
    """The source a button or wheel event speaks of, None for other events."""
    if event.type in (pygame.MOUSEBUTTONDOWN, pygame.MOUSEBUTTONUP):
        return BUTTONS.get(event.button)
    if event.type == pygame.MOUSEWHEEL and event.y:
        return WHEEL[1 if event.y > 0 else -1]
    return None


class Mouse:
    """The captured pointer: hidden, held in the window, relative motion only."""

    def __init__(self) -> None:
        self.captured = False

    def capture(self, on: bool) -> None:
        """Take the pointer or give it back; motion from before the change is thrown away."""
        self.captured = on
        pygame.mouse.set_visible(not on)
        pygame.event.set_grab(on)
        pygame.mouse.get_rel()
        pygame.event.clear(pygame.MOUSEMOTION)

    def handle(self, event: pygame.event.Event, sampler: InputSampler) -> bool:
        """Feed one event to the sampler; True when it was used. Releases always count."""
        source = source_of(event)
        if event.type == pygame.MOUSEBUTTONUP and source:
            sampler.release(source)
            return self.captured
        if not self.captured:
            return False
        if event.type == pygame.MOUSEMOTION:
            sampler.motion(*event.rel)
            return True
        if source is None:
            return False
        sampler.press(source)
        if event.type == pygame.MOUSEWHEEL:
            sampler.release(source)
        return True
