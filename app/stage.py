"""The stage: which screen is shown, what lies under the settings, and telling the player something wherever they are.

Does not know what a screen asks for, or about worlds and walks.
"""

from __future__ import annotations

import pygame

from app.door import Pixels
from app.hints import by_pad
from app.screens.browse import BrowseScreen
from app.screens.loading import LoadingScreen
from app.screens.menu import MenuScreen
from app.screens.pause import PauseScreen
from app.screens.play import PlayScreen
from app.screens.settings import SettingsScreen
from app.sound.scape import Soundscape
from controls.devices import gamepad

Screen = MenuScreen | BrowseScreen | LoadingScreen | PlayScreen | PauseScreen | SettingsScreen
REPEAT = (350, 60)  # ms: a key that is held in a menu counts again after the first, then every other


class Stage:
    """Begins with the menu; `under` is where the settings were opened.

    `pad` is the kind of the pad that was used last (`gamepad.KINDS`), "" after keys or mouse.
    """

    def __init__(self, menu: MenuScreen, sound: Soundscape, pads: gamepad.Gamepads | None = None) -> None:
        self.menu = menu
        self.screen: Screen = menu
        self.under: Screen = menu
        self.pad = ""
        self._pads = pads
        self._kind = ""  # of the pad that was used last, whatever was used since
        self._sound = sound
        pygame.key.set_repeat(*REPEAT)

    def show(self, screen: Screen) -> None:
        """Make a screen the present one."""
        self.screen = screen
        self._tell(screen)
        pygame.key.set_repeat(*(() if isinstance(screen, PlayScreen | PauseScreen) else REPEAT))
        self._sound.paused(not isinstance(screen, PlayScreen))

    def heard(self, event: pygame.event.Event) -> None:
        """Let the hints of the present screen name the device that an event came from."""
        used = by_pad(event)
        if used is None:
            return
        if used:
            self._kind = self._pads.kind(event.instance_id) if self._pads is not None else gamepad.XBOX
        pad = self._kind if used else ""
        if pad != self.pad:
            self.pad = pad
            self._tell(self.screen)

    def _tell(self, screen: Screen) -> None:
        """Say to a screen what was used last."""
        screen.pad, screen.dirty = self.pad, True
        if isinstance(screen, SettingsScreen):
            screen.kind = self._kind or (self._pads.kind() if self._pads is not None else gamepad.XBOX)

    def show_settings(self, screen: SettingsScreen) -> None:
        """The settings, over the present screen."""
        self.under = self.screen
        self.show(screen)

    def lower(self) -> Screen:
        """The present screen, or the one under the settings."""
        return self.under if isinstance(self.screen, SettingsScreen) else self.screen

    def say(self, words: str, picture: Pixels | None = None) -> None:
        """Tell the player something, beside a small picture uint8 (Y, X, 3) if there is one; nothing with no words."""
        if not words:
            return
        if isinstance(self.screen, PauseScreen | SettingsScreen | BrowseScreen):
            self.screen.said = words
        elif isinstance(self.screen, PlayScreen):
            self.screen.tell(words, picture)
        else:
            self.menu.notice = words
        self.screen.dirty = True
