"""What the player has chosen, and telling everyone whom a change concerns: window, sound, pads and the play screen.

Does not know how settings are shown or what else the program does.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from app.door import DEFAULT_SIZE
from app.keeping import Keeper
from app.screens.play import PlayScreen
from app.settings import Settings
from app.sound.scape import Soundscape
from app.window import Window
from controls.bindings import Bindings
from controls.devices import gamepad

SLOW_TURN = 0.5  # of keys and sticks, with reduced motion
UNSAVED = "What you chose cannot be saved; it lasts until the program ends."


class Choices:
    """`settings` as they are in use (the command line may have changed some) and as `keeper` saves them."""

    def __init__(
        self, keeper: Keeper, settings: Settings, window: Window, sound: Soundscape, pads: gamepad.Gamepads | None
    ) -> None:
        self.keeper = keeper
        self.settings = settings
        self._window = window
        self._sound = sound
        self._pads = pads
        self._fit(DEFAULT_SIZE)
        self.tell(None)

    def change(self, name: str, value: Any, size: tuple[int, int], play: PlayScreen | None) -> str:
        """Set one setting; `size` (X, Y) is that of the world's picture. Returns a sentence when it was not saved."""
        self.settings = replace(self.settings, **{name: value})
        if name == "fullscreen" and value != self._window.fullscreen:
            self._window.toggle_fullscreen()
        if name in ("fullscreen", "window_scale"):
            self._fit(size)
        self.tell(play)
        return "" if name == "fullscreen" or self.keeper.change(name, value) else UNSAVED

    def _fit(self, size: tuple[int, int]) -> None:
        """Make the window as large as the settings say, for a picture of `size` (X, Y)."""
        if factor := self.settings.window_scale:
            self._window.resize((size[0] * factor, size[1] * factor))

    def rebind(self, bindings: Bindings, play: PlayScreen | None) -> str:
        """Use other bindings; everything held is released. Returns a sentence when they were not saved."""
        if play is not None:
            play.sampler.rebind(bindings)
        return "" if self.keeper.rebind(bindings) else UNSAVED

    def tell(self, play: PlayScreen | None) -> None:
        """Say to everyone what the settings are."""
        s = self.settings
        self._sound.set_level(s.volume, s.muted)
        if self._pads is not None:
            self._pads.zone = s.dead_zone
        if play is not None:
            play.settings = s
            play.dirty = True
            play.sampler.sensitivity, play.sampler.invert = s.sensitivity, s.invert
            play.sampler.turning = SLOW_TURN if s.reduced_motion else 1.0
