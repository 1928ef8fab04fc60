"""Keyboard: pygame key and focus events to sampler calls.

Does not know what a key does; sources are pygame's key names (`w`, `left shift`, `up`).
"""

from __future__ import annotations

import pygame

from controls.sampler import InputSampler


def source_of(event: pygame.event.Event) -> str | None:
    """The source a key event speaks of, None for other events and unnamed keys."""
    if event.type not in (pygame.KEYDOWN, pygame.KEYUP):
        return None
    return pygame.key.name(event.key).lower() or None


def handle(event: pygame.event.Event, sampler: InputSampler) -> bool:
    """Feed one event to the sampler; True when it was a key or focus event."""
    if event.type == pygame.WINDOWFOCUSLOST:
        sampler.focus_lost()
        return True
    source = source_of(event)
    if source is None:
        return False
    if event.type == pygame.KEYDOWN:
        sampler.press(source)
    else:
        sampler.release(source)
    return True
