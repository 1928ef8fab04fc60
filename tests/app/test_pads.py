"""Pads as SDL itself announces them: virtual ones of several makers, whose buttons go the whole way to the hints.

They are made with SDL's own calls in the library that pygame has loaded, so that names, GUIDs and events are real.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pygame
import pytest
from test_hints import Drawn, drawn, marks_in, names_of  # noqa: F401
from test_window import Visit, key, opened  # noqa: F401

from app import glyphs
from app.screens import commands
from app.screens.commands import OpenSettings
from app.screens.menu import MenuScreen
from app.screens.pause import PauseScreen
from app.screens.play import PlayScreen
from app.screens.settings import SettingsScreen
from app.window import Window
from controls.devices import gamepad

LONG = 60.0
SDL_TYPES = {1: gamepad.XBOX, 2: gamepad.XBOX, 3: gamepad.PS3, 4: gamepad.PS4, 5: gamepad.NINTENDO, 7: gamepad.PS5}
MAKES = {
    gamepad.XBOX: (0x045E, 0x02EA, b"Xbox One S Controller"),
    gamepad.PS3: (0x054C, 0x0268, b"PLAYSTATION(R)3 Controller"),
    gamepad.PS4: (0x054C, 0x09CC, b"Wireless Controller"),
    gamepad.PS5: (0x054C, 0x0CE6, b"DualSense Wireless Controller"),
    gamepad.NINTENDO: (0x057E, 0x2009, b"Pro Controller"),
    "other": (0x0F0D, 0x00EE, b"HORIPAD mini4 for PS4"),
}
WORDS = ("version", "kind", "axes", "buttons", "hats", "maker", "product", "padding")
SDL_PADS, SDL_JOYSTICKS = 0x2000, 0x200
LONGS = ("button_mask", "axis_mask")
CALLS = ("userdata", "update", "player", "rumble", "triggers", "light", "effect")


class Description(ctypes.Structure):
    """SDL_VirtualJoystickDesc of SDL 2.24 and later."""

    _fields_ = (
        *((name, ctypes.c_uint16) for name in WORDS),
        *((name, ctypes.c_uint32) for name in LONGS),
        ("name", ctypes.c_char_p),
        *((name, ctypes.c_void_p) for name in CALLS),
    )


class Pads:
    """Virtual pads in the running SDL; `press` moves a button down and up as a hand would."""

    def __init__(self, sdl: Any) -> None:
        self.sdl = sdl
        self.sdl.SDL_JoystickFromInstanceID.restype = ctypes.c_void_p
        self.count = 0

    def attach(self, make: str) -> int:
        """Its device index, which is its place among those that are attached."""
        maker, product, name = MAKES[make]
        about = Description(1, 1, 6, 15, 0, maker, product, 0, 0, 0, name)
        index = int(self.sdl.SDL_JoystickAttachVirtualEx(ctypes.byref(about)))
        assert index >= 0
        self.count += 1
        return index

    def press(self, index: int, button: int) -> None:
        instance = self.sdl.SDL_JoystickGetDeviceInstanceID(index)
        stick = ctypes.c_void_p(self.sdl.SDL_JoystickFromInstanceID(instance))
        for down in (1, 0):
            assert self.sdl.SDL_JoystickSetVirtualButton(stick, button, down) == 0
            self.sdl.SDL_JoystickUpdate()

    def detach(self) -> None:
        for index in reversed(range(self.count)):
            self.sdl.SDL_JoystickDetachVirtual(index)
        self.quit()

    def quit(self) -> None:
        """End SDL's pads wholly: pygame, when it quits, leaves them half begun, and then announces none."""
        pygame.joystick.quit()
        for part in (SDL_PADS, SDL_JOYSTICKS):
            while self.sdl.SDL_WasInit(part):
                self.sdl.SDL_QuitSubSystem(part)


@pytest.fixture
def pads(opened: Window) -> Iterator[Pads]:  # noqa: F811
    maps = Path("/proc/self/maps")
    found = [line.split()[-1] for line in maps.read_text().splitlines() if "libSDL2-2" in line] if maps.exists() else []
    if not found:
        pytest.skip("SDL's library is not to be found here")
    one = Pads(ctypes.CDLL(found[0]))
    if not hasattr(one.sdl, "SDL_JoystickAttachVirtualEx"):
        pytest.skip("this SDL has no virtual pads")
    one.quit()
    yield one
    one.detach()


@pytest.fixture
def visit(opened: Window, pads: Pads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Visit]:  # noqa: F811
    monkeypatch.delenv(gamepad.LETTERS, raising=False)
    one = Visit(opened, tmp_path)
    yield one
    one.program.close()


def kinds_in(lines: list[str]) -> set[str]:
    return {glyphs.kind_of(letter) for words in lines for letter in words if glyphs.is_mark(letter)}


@pytest.mark.parametrize("make", MAKES)
def test_the_kind_is_the_one_that_sdl_knows(visit: Visit, pads: Pads, make: str) -> None:
    index = pads.attach(make)
    known = pads.sdl.SDL_GameControllerTypeForIndex(index)
    visit.program.turn()
    assert visit.program.pads is not None and len(visit.program.pads.names) == 1
    assert visit.program.pads.kind() == SDL_TYPES[known] and (make == "other" or SDL_TYPES[known] == make)


def test_hints_wear_the_letters_of_the_pad_used_last(visit: Visit, pads: Pads, drawn: Drawn) -> None:  # noqa: F811
    one = visit.program
    sony, nintendo, xbox = (pads.attach(make) for make in (gamepad.PS5, gamepad.NINTENDO, gamepad.XBOX))
    visit.until(lambda: one.pads is not None and len(one.pads.names) == 3, LONG)
    assert kinds_in(names_of(visit, drawn)) == set(), "nothing has been pressed yet"
    for index, kind in ((sony, gamepad.PS5), (nintendo, gamepad.NINTENDO), (xbox, gamepad.XBOX), (sony, gamepad.PS5)):
        pads.press(index, pygame.CONTROLLER_BUTTON_DPAD_RIGHT)
        one.screen.dirty = False
        one.turn()
        assert kinds_in(names_of(visit, drawn)) == {kind}
    assert isinstance(one.screen, MenuScreen) and one.menu.focus == 4, "each press went one scene on"
    visit.press(pygame.K_LEFT)
    one.turn()
    assert kinds_in(names_of(visit, drawn)) == set()
    one.carry_out(OpenSettings())
    assert isinstance(one.screen, SettingsScreen)
    one.screen._do("keys")
    values = {row.name: row.value for row in one.screen.rows()}
    assert values["bind jump"] == "Space, cross button", "the pad at hand, though keys are used"
    pads.press(nintendo, pygame.CONTROLLER_BUTTON_DPAD_DOWN)
    one.turn()
    assert {row.name: row.value for row in one.screen.rows()}["bind jump"] == "Space, A button"
    pads.press(nintendo, pygame.CONTROLLER_BUTTON_B)
    pads.press(nintendo, pygame.CONTROLLER_BUTTON_B)
    visit.until(visit.on(MenuScreen), LONG)
    pads.press(sony, pygame.CONTROLLER_BUTTON_A)
    visit.until(visit.on(PlayScreen), LONG)
    assert kinds_in(names_of(visit, drawn)) == {gamepad.PS5}


def test_the_page_of_keys_names_the_pad_that_is_attached(visit: Visit, pads: Pads) -> None:
    pads.attach(gamepad.PS4)
    visit.program.turn()
    visit.program.carry_out(OpenSettings())
    assert isinstance(visit.program.screen, SettingsScreen)
    visit.program.screen._do("keys")
    assert "L1 button" in {row.name: row.value for row in visit.program.screen.rows()}["bind run"]


def test_a_pad_alone_steps_from_the_pause_menu(visit: Visit, pads: Pads, drawn: Drawn) -> None:  # noqa: F811
    one, index = visit.program, pads.attach(gamepad.PS5)
    one.turn()
    pads.press(index, pygame.CONTROLLER_BUTTON_A)
    visit.until(visit.on(PlayScreen), LONG)
    session = one.session
    assert session is not None
    visit.until(lambda: session.frame_index >= 2, LONG)
    pads.press(index, pygame.CONTROLLER_BUTTON_START)
    visit.until(visit.on(PauseScreen), LONG)
    line = next(words for words in names_of(visit, drawn) if "one step" in words)
    assert glyphs.mark_of("pad right shoulder", gamepad.PS5) + " one step" in line
    assert one.play is not None and one.play.last is not None
    ticks = session.config.ticks
    for _ in range(3):
        before = one.play.last.number
        pads.press(index, pygame.CONTROLLER_BUTTON_RIGHTSHOULDER)
        visit.until(lambda: not session.paused, LONG)
        visit.until(lambda: session.paused, LONG)
        assert one.play.last.number == (before // ticks + 1) * ticks, "to the end of the next latent frame"
        assert isinstance(one.screen, PlayScreen) and one.screen.frozen
        one.carry_out(commands.Pause())


def test_everything_that_the_menus_can_do_a_pad_can_do(visit: Visit, pads: Pads) -> None:
    """Every command of the keys that a hint names is given by some button of a pad, on the same screen."""
    from app.hints import ARROWS
    from app.screens import browse, menu, pause
    from app.screens.navigation import KEYS

    for hints in (menu.HINTS, browse.HINTS, pause.HINTS):
        for hint in hints:
            assert hint.codes and set(hint.codes) <= set(KEYS.values()), hint
    assert set(ARROWS) <= set(KEYS.values())
    pairs = ((pygame.K_v, pygame.KMOD_CTRL, pygame.K_INSERT), (pygame.K_F6, 0, pygame.K_PAGEUP))
    for code, mod, same in pairs:
        assert visit.program.menu.handle(key(code, mod)) == visit.program.menu.handle(key(same))
