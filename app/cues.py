"""Which sound of the menus goes with what a player did there.

Does not know how a sound is made or who plays it.
"""

from __future__ import annotations

import pygame

from app.screens.commands import Change, CloseSettings, Command, MoveSlot, Quit, Rebind, Resume, Screenshot, ToMenu

MOVING = (pygame.K_UP, pygame.K_DOWN, pygame.K_LEFT, pygame.K_RIGHT, pygame.K_TAB, pygame.K_HOME, pygame.K_END)
ENTERING = (pygame.K_RETURN, pygame.K_KP_ENTER, pygame.K_SPACE)


def cue(event: pygame.event.Event, command: Command | None) -> str:
    """A name of `app.sound.ambience.INTERFACE` for an event and what a screen made of it; "" for none."""
    match command:
        case None:
            key = event.key if event.type == pygame.KEYDOWN else None
            return "move" if key in MOVING else "accept" if key in ENTERING else ""
        case Change() | Rebind() | MoveSlot():
            return "change"
        case ToMenu() | CloseSettings() | Quit() | Resume():
            return "back"
        case Screenshot():
            return "picture"
    return "accept"
