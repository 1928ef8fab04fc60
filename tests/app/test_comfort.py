"""A visit with the fake world: settings, keys, sound and the flash guard where the player meets them."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pygame
import pytest
from fake_world import make_door
from test_window import Visit, opened  # noqa: F401

from app import main, program
from app.hotkeys import HOTKEYS
from app.keeping import Keeper
from app.pacing import PacingConfig
from app.screens.menu import MenuScreen
from app.screens.pause import PauseScreen
from app.screens.play import PlayScreen
from app.screens.settings import SettingsScreen
from app.settings import Settings, load_settings
from app.sound.scape import Soundscape
from app.ticks import VideoFrame
from app.window import Window

LONG = 60.0  # seconds; the machine may be busy


class Heard(Soundscape):
    """Writes down what it is asked to play."""

    def __init__(self) -> None:
        super().__init__(module=None, in_thread=False)
        self.cues: list[str] = []
        self.frames = 0

    def interface(self, name: str) -> None:
        self.cues += [name] if name else []

    def frame(self, picture: np.ndarray) -> None:
        self.frames += 1


class ComfortVisit(Visit):
    """As a visit, with settings from a folder and a sound that can be asked."""

    def __init__(self, window: Window, folder: Path) -> None:
        parser = ArgumentParser()
        main.add_arguments(parser)
        door = make_door(folder)
        self.keeper = Keeper(folder / "home", HOTKEYS, folder / "nowhere")
        self.sound = Heard()
        args = parser.parse_args([])
        self.program = program.Program(
            args, door, window, self.keeper.settings, self.keeper.bindings, door.list_scenes(), self.keeper, self.sound
        )

    def keys(self, *codes: int) -> None:
        for code in codes:
            self.press(code)
        self.program.turn()

    def row(self, name: str) -> None:
        screen = self.program.screen
        assert isinstance(screen, SettingsScreen)
        while screen.rows()[screen.focus].name != name:
            self.keys(pygame.K_DOWN)


@pytest.fixture
def visit(opened: Window, tmp_path: Path) -> Iterator[ComfortVisit]:  # noqa: F811
    one = ComfortVisit(opened, tmp_path)
    yield one
    one.program.generator.close()


def test_settings_from_the_menu_by_keys_alone(visit: ComfortVisit, tmp_path: Path) -> None:
    visit.keys(pygame.K_F1)
    assert isinstance(visit.program.screen, SettingsScreen)
    visit.row("invert")
    visit.keys(pygame.K_RIGHT)
    visit.row("muted")
    visit.keys(pygame.K_RETURN)
    assert visit.program.settings.invert and visit.sound.muted
    saved = load_settings(tmp_path / "home" / "settings.yaml")
    assert saved == Settings(invert=True, muted=True)
    visit.keys(pygame.K_ESCAPE)
    assert isinstance(visit.program.screen, MenuScreen)
    assert visit.sound.cues[0] == "accept" and visit.sound.cues[-1] == "back"
    assert {"move", "change"} <= set(visit.sound.cues)


def test_settings_by_pad_alone(visit: ComfortVisit) -> None:
    def pad(name: str) -> None:
        code = getattr(pygame, f"CONTROLLER_BUTTON_{name}")
        pygame.event.post(pygame.event.Event(pygame.CONTROLLERBUTTONDOWN, button=code, instance_id=0))
        visit.program.turn()

    pad("Y")
    assert isinstance(visit.program.screen, SettingsScreen)
    pad("DPAD_DOWN")
    pad("A")
    assert visit.program.settings.invert
    screen = visit.program.screen
    while screen.rows()[screen.focus].name != "keys":
        pad("DPAD_UP")
    pad("A")
    pad("A")
    assert screen.listening
    pad("LEFTSHOULDER")
    assert screen.listening, "it runs already: once more to take it"
    pad("LEFTSHOULDER")
    assert visit.program.bindings.inputs["forward"] == ("w", "pad left shoulder")
    assert visit.keeper.bindings == visit.program.bindings
    pad("B")
    pad("B")
    assert isinstance(visit.program.screen, MenuScreen)


def test_settings_and_keys_while_playing(visit: ComfortVisit, monkeypatch: pytest.MonkeyPatch) -> None:
    one = visit.program
    visit.press(pygame.K_RETURN)
    visit.until(visit.on(PlayScreen), LONG)
    session = one.session
    assert session is not None and one.play is not None
    visit.until(lambda: visit.sound.frames > 4, LONG)
    assert visit.sound._place is not None and visit.sound._ducked == 1
    visit.press(pygame.K_F1)
    visit.until(visit.on(SettingsScreen), LONG)
    assert session.paused and visit.sound._ducked < 1
    one.screen.draw(one.window.surface)
    visit.row("flash_guard")
    visit.keys(pygame.K_RIGHT)
    assert not one.play.settings.flash_guard
    visit.row("reduced_motion")
    visit.keys(pygame.K_RIGHT)
    assert one.play.sampler.turning < 1
    visit.row("keys")
    visit.keys(pygame.K_RETURN)
    visit.row("bind forward")
    visit.keys(pygame.K_RETURN, pygame.K_g)
    visit.keys(pygame.K_ESCAPE, pygame.K_ESCAPE)
    visit.until(visit.on(PauseScreen), LONG)
    visit.press(pygame.K_ESCAPE)
    visit.until(visit.on(PlayScreen), LONG)
    visit.press(pygame.K_g)
    now = session.frame_index
    visit.until(lambda: session.frame_index > now + 2 and session.last_action is not None, LONG)
    assert session.last_action is not None and session.last_action.keys[:, 0].all(), "G walks forward now"
    visit.press(pygame.K_m)
    visit.until(lambda: visit.sound.muted, LONG)
    assert one.play._message is not None and one.play._message[0] == "Muted"


def test_a_generator_that_dies_under_the_settings_comes_back_to_a_paused_walk(visit: ComfortVisit) -> None:
    visit.press(pygame.K_RETURN)
    visit.until(visit.on(PlayScreen), LONG)
    visit.press(pygame.K_F1)
    visit.until(visit.on(SettingsScreen), LONG)
    assert visit.program.generator.pid is not None
    dead = visit.program.generator.pid
    os.kill(dead, 9)
    visit.until(visit.on(PauseScreen), LONG)
    assert visit.program.generator.alive and visit.program.generator.pid != dead


def test_a_bad_file_is_said_in_the_menu_and_so_is_silence(opened: Window, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "settings.yaml").write_text("volume: loud\n")
    visit = ComfortVisit(opened, tmp_path)
    try:
        visit.sound.problem = "No sound: there is no card."
        visit.program.turn()
        assert isinstance(visit.program.screen, MenuScreen)
        said = visit.program.menu.notice
        assert "volume is 'loud'" in said and "settings.bad-1.yaml" in said and "No sound" in said
        assert visit.program.settings == Settings()
    finally:
        visit.program.generator.close()


class Strobe:
    """A session that has a new frame at every turn, black and white in turn."""

    def __init__(self) -> None:
        self.time, self.number = 0.0, 0
        self.failure: str | None = None
        self.paused = self.rewinding = False
        self.looked = (0.0, 0.0)
        self.notices: deque[str] = deque()
        self.clock = SimpleNamespace(now=lambda: self.time)
        self.config = PacingConfig(24, 4)

    def poll(self) -> None: ...
    def sample(self) -> None: ...
    def waiting(self) -> float:
        return 0.0

    def until_due(self) -> float:
        return 1.0

    def due(self) -> VideoFrame:
        self.number += 1
        self.time += 1 / 24
        return VideoFrame(self.number, np.full((160, 256, 3), 255 * (self.number % 2), np.uint8), self.time)

    def shown(self, frame: VideoFrame) -> None: ...


@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize("ahead", [0.0, 0.5])
def test_a_strobing_world_is_softened_on_the_screen_only(
    opened: Window,  # noqa: F811
    on: bool,
    ahead: float,
) -> None:
    session: Any = Strobe()
    sampler: Any = SimpleNamespace(waiting=(0.0, 0.0), take=lambda name: False)
    sound = Heard()
    play = PlayScreen(opened, session, sampler, None, {}, Settings(flash_guard=on, ahead=ahead), sound)
    seen, kept = [], []
    for _ in range(48):
        play.update()
        play.draw_frame(opened.surface)
        assert play.last is not None
        kept.append(int(play.last.pixels.mean()))
        seen.append(opened.surface.get_at((640, 400))[0])
        play.drawn()
    assert kept == [255 * (n % 2) for n in range(1, 49)], "kept pictures are raw"
    assert sound.frames == 48
    jumps = int((np.abs(np.diff(seen[-24:])) > 60).sum())
    assert jumps == 0 if on else jumps == 23
    assert (play.guard.softened > 24) == on
