"""The window on SDL's dummy driver: letterbox, contrast, menu, and a whole visit with the fake world."""

from __future__ import annotations

import os
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pygame
import pytest
from fake_world import make_door

from app import main, program, widgets, window
from app.hints import said as said_hints
from app.screens.commands import (
    BackTo,
    Browse,
    LoadSlot,
    MoveSlot,
    Open,
    OpenSettings,
    Pause,
    Pick,
    Quit,
    Restart,
    Resume,
    SaveSlot,
    Screenshot,
    ToMenu,
)
from app.screens.loading import LoadingScreen
from app.screens.menu import HINTS, MenuScreen
from app.screens.navigation import PadKeys
from app.screens.pause import PauseScreen
from app.screens.play import PlayScreen
from app.settings import Settings, load_settings, save_settings
from app.slots import Slot
from app.window import Window, fitting, letterbox
from controls.bindings import load_bindings
from controls.errors import UserError

Key = Callable[[int], pygame.event.Event]


def key(code: int, mod: int = 0) -> pygame.event.Event:
    return pygame.event.Event(pygame.KEYDOWN, key=code, mod=mod)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Window]:
    monkeypatch.setenv("FARSTEP_HOME", str(tmp_path / "home"))
    one = Window("test")
    yield one
    one.close()


@pytest.mark.parametrize(
    ("room", "scaling", "wanted"),
    [
        ((1280, 800), "integer", (0, 0, 1280, 800)),
        ((1920, 1080), "integer", (192, 60, 1536, 960)),
        ((1920, 1080), "smooth", (96, 0, 1728, 1080)),
        ((200, 900), "integer", (0, 387, 200, 125)),
        ((700, 900), "smooth", (0, 231, 700, 438)),
    ],
)
def test_letterbox(room: tuple[int, int], scaling: str, wanted: tuple[int, int, int, int]) -> None:
    assert tuple(letterbox((256, 160), room, scaling)) == wanted


def test_integer_scaling_repeats_pixels_exactly(opened: Window) -> None:
    frame = np.random.default_rng(0).integers(0, 255, (160, 256, 3), np.uint8)
    opened.draw_frame(frame, "integer")
    drawn = pygame.surfarray.array3d(opened.surface).swapaxes(0, 1)
    assert np.array_equal(drawn, frame.repeat(5, axis=0).repeat(5, axis=1))


def test_text_keeps_its_contrast() -> None:
    for ground in (widgets.GROUND, widgets.PANEL):
        for colour in (widgets.TEXT, widgets.QUIET, widgets.ACCENT, widgets.WARNING):
            assert widgets.contrast(colour, ground) >= 4.5
    assert widgets.contrast((255, 255, 255), (0, 0, 0)) == pytest.approx(21)


def make_menu(tmp_path: Path, count: int = 7) -> MenuScreen:
    door = make_door(tmp_path, count)
    return MenuScreen(door.list_scenes(), lambda s: door.load_picture(s.picture, (256, 160)), lambda: "Ready")


def test_menu_navigation(opened: Window, tmp_path: Path) -> None:
    menu = make_menu(tmp_path)
    menu.update()
    menu.draw(opened.surface)
    plain = pygame.surfarray.array3d(opened.surface)
    for code, wanted in [
        (pygame.K_RIGHT, 1), (pygame.K_DOWN, 5), (pygame.K_RIGHT, 6), (pygame.K_RIGHT, 7), (pygame.K_RIGHT, 7),
        (pygame.K_LEFT, 6), (pygame.K_UP, 2), (pygame.K_UP, 2), (pygame.K_END, 7),
        (pygame.K_HOME, 0), (pygame.K_LEFT, 0), (pygame.K_TAB, 1),
    ]:  # fmt: skip
        assert menu.handle(key(code)) is None
        assert menu.focus == wanted
    menu.draw(opened.surface)
    assert not np.array_equal(plain, pygame.surfarray.array3d(opened.surface)), "the focus shows"
    assert menu.handle(key(pygame.K_RETURN)) == Pick(menu.scenes[1])
    assert menu.handle(key(pygame.K_ESCAPE)) == Quit()
    where = menu._rects[4].center
    menu.handle(pygame.event.Event(pygame.MOUSEMOTION, pos=where, rel=(0, 0), buttons=(0, 0, 0)))
    assert menu.focus == 4
    click = pygame.event.Event(pygame.MOUSEBUTTONDOWN, button=1, pos=where)
    assert menu.handle(click) == Pick(menu.scenes[4])
    assert menu.handle(pygame.event.Event(pygame.DROPFILE, file="a.png")) == Open(Path("a.png"))


@pytest.mark.parametrize("size", [(480, 300), (900, 500), (2560, 1440)])
def test_the_focused_scene_is_always_in_sight(opened: Window, tmp_path: Path, size: tuple[int, int]) -> None:
    menu = make_menu(tmp_path)
    surface = pygame.Surface(size)
    for focus in range(8):
        menu.focus = focus
        menu.draw(surface)
        rect = menu._rects[focus]
        assert rect.centery > 0
        assert rect.bottom <= size[1]


@pytest.mark.parametrize("size", [(480, 300), (640, 480), (900, 500), (1280, 720), (1920, 400), (3840, 2160)])
@pytest.mark.parametrize("pad", ["", "xbox", "playstation 5"])
@pytest.mark.parametrize("words", ["", "It was the failure number 3 in a row, so the walk has ended.", "a word " * 60])
def test_a_notice_and_the_hints_are_readable_at_once(
    opened: Window, tmp_path: Path, size: tuple[int, int], words: str, pad: str
) -> None:
    menu, surface, scale = make_menu(tmp_path), pygame.Surface(size), widgets.unit(size)
    menu.notice, menu.pad = words, pad
    menu.draw(surface)
    said, hints = menu.lines(size[0], scale)
    assert " ".join(" ".join(hints).split()) == " ".join(said_hints(HINTS, pad)), "every hint, whole"
    assert len(said) <= 4 and (" ".join(said) == words.strip() or said[-1].endswith("..."))
    lines = [widgets.text_size(line, 22 * scale) for line in said] + [widgets.text_size(h, 21 * scale) for h in hints]
    assert len(menu.places) == len(lines) == len(said) + len(hints)
    for number, (place, (wide, _)) in enumerate(zip(menu.places, lines, strict=True)):
        assert surface.get_rect().contains(place) and place.width >= wide - 2, "nothing is cut off"
        assert place.collidelist(menu.places[:number]) == -1
        drawn = pygame.surfarray.array3d(surface.subsurface(place)).max()
        assert drawn > 140, "the line can be seen"
    card = menu._rects[menu.focus]
    assert card.top < menu.places[0].top - 30 * scale, "the chosen scene is still to be seen"


def test_an_empty_menu_draws(opened: Window, tmp_path: Path) -> None:
    menu = make_menu(tmp_path, 0)
    menu.draw(opened.surface)
    assert menu.handle(key(pygame.K_RETURN)) == Browse() and menu.handle(key(pygame.K_DELETE)) is None


def test_pause_menu(opened: Window) -> None:
    pause = PauseScreen(lambda surface: None, lambda: Slot(4))
    pause.draw(opened.surface)

    def on(name: str) -> None:
        pause.focus = [row.name for row in pause.rows()].index(name)

    assert pause.handle(key(pygame.K_RETURN)) == Resume()
    assert pause.handle(key(pygame.K_h)) == Restart()
    for name, wanted in (("menu", ToMenu()), ("save", SaveSlot()), ("load", LoadSlot()), ("picture", Screenshot())):
        on(name)
        assert pause.handle(key(pygame.K_RETURN)) == wanted
    assert [pause.handle(key(code)) for code in (pygame.K_LEFT, pygame.K_F7)] == [None, MoveSlot(1)]
    on("load")
    assert pause.handle(key(pygame.K_LEFT)) == MoveSlot(-1) and pause.rows()[pause.focus].value == "slot 4: empty"
    on("timeline")
    assert pause.handle(key(pygame.K_RETURN)) is None, "there is no way yet"
    on("settings")
    assert pause.handle(key(pygame.K_RETURN)) == pause.handle(key(pygame.K_F1)) == OpenSettings()
    pause.focus = len(pause.rows()) - 1
    assert pause.handle(key(pygame.K_RETURN)) == Quit()


@pytest.mark.parametrize("size", [(480, 300), (640, 480), (1920, 400), (1280, 800), (1280, 720), (3840, 2160)])
def test_nothing_of_the_pause_menu_leaves_the_window_or_overlaps(opened: Window, size: tuple[int, int]) -> None:
    marks = [(20 + i, 3.0 - i, np.full((160, 256, 3), 40 * i, np.uint8)) for i in range(4)]
    pause = PauseScreen(lambda surface: None, lambda: Slot(4, picture=marks[0][2]), marks)
    surface = pygame.Surface(size)
    pause.draw(surface)
    assert all(rect.height >= 20 and rect.width >= 140 for rect in pause._rects), "large enough to be read"
    assert len(pause._rects) == len(pause.rows()) and pause._rects[0].y < pause._rects[1].y
    everything = pause._rects + pause._strip
    assert len(pause._strip) == 4
    assert all(surface.get_rect().contains(rect) for rect in everything)
    assert all(rect.collidelist(everything[:i]) == -1 for i, rect in enumerate(everything))


def test_the_timeline_is_chosen_by_keys_by_pad_and_by_mouse(opened: Window) -> None:
    marks = [(20 + i, 3.0 - i, np.zeros((160, 256, 3), np.uint8)) for i in range(4)]
    pause = PauseScreen(lambda surface: None, lambda: Slot(1), marks)
    pads = PadKeys()
    pause.draw(opened.surface)

    def pad(button: int) -> pygame.event.Event:
        event = pygame.event.Event(pygame.CONTROLLERBUTTONDOWN, button=button, instance_id=0)
        return pads.key_event(event) or event

    down, left, right = (getattr(pygame, f"CONTROLLER_BUTTON_DPAD_{side}") for side in ("DOWN", "LEFT", "RIGHT"))
    for _ in range(3):
        assert pause.handle(pad(down)) is None
    for button, chosen in ((right, 3), (left, 2), (left, 1), (left, 0), (left, 0), (right, 1)):
        assert pause.handle(pad(button)) is None
        assert pause.chosen == chosen
    assert pause.rows()[pause.focus].value == "2.0 s back"
    assert pause.handle(pad(pygame.CONTROLLER_BUTTON_A)) == BackTo(21)
    assert pause.handle(pad(pygame.CONTROLLER_BUTTON_B)) == Resume()
    pause.handle(key(pygame.K_LEFT))
    assert pause.handle(key(pygame.K_RETURN)) == BackTo(20)
    click = pygame.event.Event(pygame.MOUSEBUTTONDOWN, button=1, pos=pause._strip[2].center)
    assert pause.handle(click) == BackTo(22)


def test_a_stick_counts_once_until_it_is_let_go() -> None:
    pads, axis = PadKeys(), pygame.CONTROLLER_AXIS_LEFTY

    def push(value: float) -> int | None:
        event = pygame.event.Event(pygame.CONTROLLERAXISMOTION, axis=axis, value=round(value * 32767), instance_id=0)
        made = pads.key_event(event)
        return made.key if made is not None else None

    found = [push(value) for value in (0.3, 0.7, 0.9, 0.5, 0.8, 0.1, -0.7, -0.2, 0.7)]
    assert found == [None, pygame.K_DOWN, None, None, None, None, pygame.K_UP, None, pygame.K_DOWN]


class Visit:
    def __init__(self, opened: Window, tmp_path: Path, *words: str) -> None:
        parser = ArgumentParser()
        main.add_arguments(parser)
        door = make_door(tmp_path)
        bindings = load_bindings(reserved=program.WINDOW_KEYS)
        args = parser.parse_args(list(words))
        self.program = program.Program(args, door, opened, Settings(), bindings, door.list_scenes())

    def until(self, found: Callable[[], bool], seconds: float = 15) -> None:
        end = time.perf_counter() + seconds
        while not found():
            assert time.perf_counter() < end, f"still {type(self.program.screen).__name__}"
            self.program.turn()

    def on(self, kind: type) -> Callable[[], bool]:
        return lambda: isinstance(self.program.screen, kind)

    def press(self, code: int) -> None:
        pygame.event.post(key(code))

    def save_and_pause(self, seconds: float) -> PauseScreen:
        """Save the place that a walk stands at, also one that was just gone back to, and pause there."""
        one, session = self.program, self.program.session
        assert session is not None
        self.until(lambda: session.started and (session.owed or ("", 0))[0] != "jump", seconds)
        one.carry_out(SaveSlot())
        self.until(lambda: one.slots.look().about is not None, seconds)
        one.carry_out(Pause())
        assert isinstance(one.screen, PauseScreen)
        return one.screen


@pytest.fixture
def visit(opened: Window, tmp_path: Path) -> Iterator[Visit]:
    one = Visit(opened, tmp_path)
    yield one
    one.program.close()


def test_a_whole_visit(visit: Visit) -> None:
    one = visit.program
    visit.press(pygame.K_RIGHT)
    visit.press(pygame.K_RETURN)
    visit.until(visit.on(PlayScreen))
    session = one.session
    assert session is not None
    visit.press(pygame.K_w)
    visit.press(pygame.K_F3)
    visit.until(lambda: session.figures.frames > 12)
    assert len(session.figures.draw_ms) >= session.figures.frames - 1, "every frame that was shown was drawn"
    assert 0 < session.figures.draw_ms.all()["p50"] < 1000
    assert session.last_action is not None
    assert session.last_action.keys[:, 0].all(), "W walks forward"
    visit.press(pygame.K_ESCAPE)
    visit.until(visit.on(PauseScreen))
    assert session.paused
    assert not pygame.event.get_grab()
    visit.press(pygame.K_ESCAPE)
    visit.until(visit.on(PlayScreen))
    assert not session.paused
    visit.press(pygame.K_h)
    visit.until(lambda: session.frame_index <= 1)
    visit.until(lambda: session.frame_index >= 2)
    visit.press(pygame.K_F11)
    visit.until(lambda: one.window.fullscreen)
    visit.press(pygame.K_F11)
    visit.until(lambda: not one.window.fullscreen)
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    visit.until(lambda: not one.running)


@pytest.mark.parametrize("paused", [False, True])
def test_a_killed_generator_comes_back_to_where_the_player_was(visit: Visit, paused: bool) -> None:
    visit.press(pygame.K_RETURN)
    visit.until(visit.on(PlayScreen))
    if paused:
        visit.press(pygame.K_ESCAPE)
        visit.until(visit.on(PauseScreen))
    assert visit.program.generator.pid is not None
    os.kill(visit.program.generator.pid, 9)
    visit.until(visit.on(LoadingScreen), 5)
    assert isinstance(visit.program.screen, LoadingScreen) and "signal 9" in visit.program.screen.said
    visit.until(visit.on(PauseScreen if paused else PlayScreen))
    visit.press(pygame.K_ESCAPE)
    visit.until(visit.on(PlayScreen if paused else PauseScreen))


def test_a_bad_picture_is_a_notice_not_a_crash(visit: Visit, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("no picture")
    pygame.event.post(pygame.event.Event(pygame.DROPFILE, file=str(tmp_path / "bad.png")))
    visit.until(lambda: "not a readable picture" in visit.program.menu.notice)
    assert isinstance(visit.program.screen, MenuScreen)


def test_a_stalled_generator_leaves_the_window_alive_and_is_replaced(opened: Window, tmp_path: Path) -> None:
    visit = Visit(opened, tmp_path, "--backend", "stall")
    visit.press(pygame.K_RETURN)
    visit.until(visit.on(PlayScreen))
    pid = visit.program.generator.pid
    play = visit.program.screen
    assert isinstance(play, PlayScreen)
    visit.until(lambda: play.stalled)
    turns = [time.perf_counter()]
    for _ in range(10):
        visit.program.turn()
        turns.append(time.perf_counter())
    assert max(np.diff(turns)) < 0.2
    visit.press(pygame.K_ESCAPE)
    visit.until(visit.on(PauseScreen))
    visit.program.carry_out(ToMenu())
    assert visit.program.generator.pid != pid
    visit.program.generator.close(patience=0.1)


def test_losing_focus_pauses(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pygame.key, "get_focused", lambda: False)
    visit.press(pygame.K_RETURN)
    visit.until(visit.on(PlayScreen))
    pygame.event.post(pygame.event.Event(pygame.WINDOWFOCUSLOST))
    visit.until(visit.on(PauseScreen))


def test_no_display_and_the_wrong_pygame_are_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="no display"):
        Window("test")
    monkeypatch.setenv("SDL_VIDEODRIVER", "nonsense")
    with pytest.raises(UserError, match="Could not open a window"):
        Window("test")
    monkeypatch.setattr(window.pygame, "IS_CE", 0, raising=False)
    with pytest.raises(UserError, match="pip install pygame-ce"):
        Window("test")


def test_settings_round_trip_and_refuse_nonsense(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    assert load_settings(path) == Settings()
    chosen = Settings(sensitivity=0.2, invert=True, scaling="integer")
    assert save_settings(chosen, path)
    assert load_settings(path) == chosen
    for words, said in (
        ("scaling: blurry", "blurry"),
        ("volume: 7", "from 0"),
        ("hud: loud", "'loud'"),
        ("ahead: 1.5", "from 0"),
        ("invert: 3", "invert"),
        ("a: 1", "'a'"),
    ):
        path.write_text(words)
        with pytest.raises(UserError, match=said):
            load_settings(path)


def test_a_window_is_not_larger_than_the_screen() -> None:
    assert fitting((1280, 800), (1280, 720)) == (1280, 720)
    assert fitting((1280, 800), (3840, 2160)) == (1280, 800)
    assert fitting((10, 900), (1920, 1080)) == (480, 900)
