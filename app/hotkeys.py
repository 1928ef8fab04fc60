"""The window's own keys: which key or pad button asks the window, rather than the world, for something.

Names of sources are those of `controls.bindings`; they are reserved there. Pictures, saved places and rewinding
follow the habits of emulators: F2 and F4 save and load, F6 and F7 choose the slot, R goes back while it is held.

Does not know what is done when one is pressed.
"""

from __future__ import annotations

import pygame

HOTKEYS = {
    "escape": "pause",
    "tab": "inputs",
    "f1": "settings",
    "m": "mute",
    "p": "freeze",
    "k": "step",
    "h": "restart",
    "r": "rewind",
    "f2": "save",
    "f3": "figures",
    "f4": "load",
    "f6": "slot before",
    "f7": "slot after",
    "f8": "picture",
    "f11": "full screen",
    "pad start": "pause",
    "pad back": "freeze",
    "pad b": "step",
    "pad y": "rewind",
    "pad dpad up": "save",
    "pad dpad down": "load",
    "pad dpad left": "slot before",
    "pad dpad right": "slot after",
    "pad guide": "picture",
    "pad right stick press": "figures",
}


def is_fullscreen_key(event: pygame.event.Event) -> bool:
    """Whether a pressed key asks for the full screen, or for the window again."""
    return bool(event.key == pygame.K_F11 or (event.key == pygame.K_RETURN and event.mod & pygame.KMOD_ALT))
