"""Hints follow the device that was used last, name what is bound, and overlap nothing, on every screen.

FARSTEP_SHOTS=DIR keeps a picture of each screen as a pad player sees it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pygame
import pytest
from test_window import Visit, key, opened  # noqa: F401

from app import glyphs, hints, overlay, widgets
from app.hints import Hint
from app.hotkeys import HOTKEYS
from app.screens import browse, commands, loading, menu, pause, play, rebind, settings
from app.screens.menu import MenuScreen
from app.screens.navigation import PadKeys
from app.screens.pause import PauseScreen
from app.screens.play import PlayScreen
from app.screens.settings import SettingsScreen
from app.window import Window
from controls.bindings import SOURCES, is_pad, load_bindings
from controls.devices import gamepad

SIZES = ((480, 300), (1280, 720), (3840, 2160))
WINDOWS = (*SIZES, (640, 480), (900, 500), (1280, 800), (1920, 1080), (2560, 1440))
PADS = ("", gamepad.XBOX, gamepad.PS5, gamepad.NINTENDO)
LONG = 60.0
KEY_NAMES = re.compile(r"\b(Esc|Enter|Arrows?|Left|F\d+|Ctrl|WASD|Shift|Space|Delete|Tab|PgUp)\b|\b[A-Z]:|[Mm]ouse:")
BUTTON = {source: number for number, source in gamepad.BUTTONS.items()}
TRIGGER = {source: axis for axis, source in gamepad.TRIGGERS.items()}
Drawn = list[tuple[str, pygame.Rect]]


def button(source: str) -> pygame.event.Event:
    if source in TRIGGER:
        return moved(TRIGGER[source], 1.0)
    return pygame.event.Event(pygame.CONTROLLERBUTTONDOWN, button=BUTTON[source], instance_id=0)


def moved(axis: int, value: float) -> pygame.event.Event:
    return pygame.event.Event(pygame.CONTROLLERAXISMOTION, axis=axis, value=round(value * 32767), instance_id=0)


@pytest.fixture
def visit(opened: Window, tmp_path: Path) -> Iterator[Visit]:  # noqa: F811
    one = Visit(opened, tmp_path)
    yield one
    one.program.close()


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """Every line of text that a screen draws, and where; what is clipped away is not there."""
    found: Drawn = []

    def record(surface: pygame.Surface, words: str, *rest: Any, **more: Any) -> pygame.Rect:
        rect = widgets.text(surface, words, *rest, **more)
        seen = rect.clip(surface.get_clip())
        if seen.size == rect.size and rect.width:
            found.append((words, rect))
        return rect

    def bar(surface: pygame.Surface, rect: pygame.Rect, fraction: float) -> None:
        widgets.progress_bar(surface, rect, fraction)
        found.append(("", rect))

    monkeypatch.setattr(loading, "progress_bar", bar)
    for module in (browse, loading, menu, pause, settings, overlay):
        monkeypatch.setattr(module, "text", record)
    return found


def has_mark(words: str) -> bool:
    return any(map(glyphs.is_mark, words))


def marks_in(lines: list[str]) -> set[str]:
    return {glyphs.source_of(letter) for words in lines for letter in words if glyphs.is_mark(letter)}


@pytest.mark.parametrize("kind", gamepad.KINDS)
def test_every_source_of_a_pad_has_a_mark_of_its_own(opened: Window, kind: str) -> None:  # noqa: F811
    sources = sorted(filter(is_pad, SOURCES))
    marks = [glyphs.mark_of(source, kind) for source in sources]
    assert len(set(marks)) == len(sources) and [glyphs.source_of(mark) for mark in marks] == sources
    assert {glyphs.kind_of(mark) for mark in marks} == {kind} and all(map(glyphs.is_mark, marks))
    face = widgets.font(66)
    pictures = [glyphs.draw(mark, face, widgets.TEXT, widgets.GROUND) for mark in marks]
    alpha = [pygame.surfarray.array_alpha(p).tobytes() + pygame.image.tobytes(p, "RGBA") for p in pictures]
    assert len(set(alpha)) == len(sources), "no two look alike"
    for mark, picture in zip(marks, pictures, strict=True):
        assert picture.get_size() == (glyphs.width_of(mark, face), round(glyphs.TALL * face.get_height()))
        assert not any(map(glyphs.is_mark, glyphs.source_of(mark)))
    assert glyphs.runs("ab\ue000\ue001 c") == ["ab", "\ue000", "\ue001", " c"] and glyphs.runs("") == []


def test_kinds_of_pads_wear_what_is_printed_on_them(opened: Window) -> None:  # noqa: F811
    face = widgets.font(66)

    def drawn(source: str, kind: str) -> bytes:
        return pygame.image.tobytes(
            glyphs.draw(glyphs.mark_of(source, kind), face, widgets.TEXT, widgets.GROUND), "RGBA"
        )

    def different(source: str, one: str, other: str) -> bool:
        return drawn(source, one) != drawn(source, other)

    for source in (
        "pad a",
        "pad b",
        "pad x",
        "pad y",
        "pad left shoulder",
        "pad right trigger",
        "pad back",
        "pad start",
    ):
        assert different(source, gamepad.XBOX, gamepad.PS5)
    for source in ("pad left shoulder", "pad right shoulder", "pad left trigger", "pad right trigger", "pad start"):
        assert different(source, gamepad.XBOX, gamepad.NINTENDO)
    assert different("pad back", gamepad.PS4, gamepad.PS5), "Share became Create"
    for one, other in ("ab", "ba", "xy", "yx"):
        assert not different(f"pad {one}", gamepad.XBOX, gamepad.NINTENDO), "SDL goes by the letter"
        assert drawn(f"pad {one}", gamepad.NINTENDO_PLACES) == drawn(f"pad {other}", gamepad.NINTENDO)
    for source in ("pad dpad left", "pad left stick up"):
        assert len({drawn(source, kind) for kind in gamepad.KINDS}) == 1


@pytest.mark.parametrize("kind", gamepad.KINDS)
def test_two_marks_never_touch_in_a_window_of_any_size(opened: Window, kind: str) -> None:  # noqa: F811
    """In the line as it is drawn: empty columns between two that fill their whole width."""
    for window in WINDOWS:
        for units in (19, 21, 22):
            size = units * widgets.unit(window)
            for source in sorted(filter(is_pad, SOURCES)):
                line = widgets._line(2 * glyphs.mark_of(source, kind), round(size), widgets.TEXT)
                seen = np.flatnonzero(pygame.surfarray.array_alpha(line).max(axis=1) > 48)
                free = int(np.diff(seen).max()) - 1
                assert free >= max(3, 0.2 * line.get_height()), (window, units, source, free)
                assert line.get_width() == pytest.approx(
                    widgets.text_size(2 * glyphs.mark_of(source, kind), size)[0], abs=1
                )


def test_a_line_with_marks_is_as_wide_as_it_says(opened: Window) -> None:  # noqa: F811
    surface = pygame.Surface((900, 100))
    for words in ("\ue000 walk     \ue006 run", "\ue00a", "menu \ue00b", "\ue006\ue007\ue00a its slot"):
        rect = widgets.text(surface, words, (20, 40), 30)
        wide, high = widgets.text_size(words, 30)
        assert abs(rect.width - wide) <= 1 and abs(rect.centery - (40 + high / 2)) <= 1
        assert rect.height == pytest.approx(glyphs.TALL * high, abs=1.5)
        assert pygame.surfarray.array3d(surface.subsurface(rect)).max() > 230


@pytest.mark.parametrize(
    ("event", "wanted"),
    [
        (button("pad a"), True), (moved(0, 0.9), True), (moved(0, 0.2), None), (moved(3, -0.8), True),
        (key(pygame.K_w), False), (pygame.event.Event(pygame.MOUSEBUTTONDOWN, button=1, pos=(0, 0)), False),
        (pygame.event.Event(pygame.MOUSEMOTION, pos=(0, 0), rel=(1, 0), buttons=(0, 0, 0)), None),
        (pygame.event.Event(pygame.MOUSEMOTION, pos=(0, 0), rel=(0, -9), buttons=(0, 0, 0)), False),
        (pygame.event.Event(pygame.WINDOWFOCUSLOST), None),
        (pygame.event.Event(pygame.CONTROLLERBUTTONUP, button=0, instance_id=0), None),
    ],
)  # fmt: skip
def test_what_tells_which_device_is_used(event: pygame.event.Event, wanted: bool | None) -> None:
    assert hints.by_pad(event) is wanted


def test_every_hint_of_the_menus_has_buttons_that_do_it() -> None:
    rebinding = (rebind.LEAVE, rebind.ANOTHER, rebind.SWITCH, rebind.NONE)
    for hint in (*menu.HINTS, *pause.HINTS, *settings.HINTS, *browse.HINTS, *rebinding, loading.BACK):
        assert hint.words("") == f"{hint.keys}: {hint.what}"
        words = hint.words(gamepad.XBOX)
        assert words, f"{hint.what}: a pad has nothing for it"
        found = list(marks_in([words]))
        ways = [f"pad dpad {way}" for way in ("up", "down", "left", "right")] if found == ["pad dpad"] else found
        pads = PadKeys()
        made = [event.key for source in ways if (event := pads.key_event(button(source)))]
        assert sorted(made) == sorted(hint.codes) and words.endswith(hint.by_pad or hint.what)
        for kind in gamepad.KINDS:
            letters = [letter for letter in hint.words(kind) if glyphs.is_mark(letter)]
            assert {glyphs.kind_of(letter) for letter in letters} == {kind} and marks_in(letters) == set(found)
    assert Hint("F5", "nothing", (pygame.K_F5,)).words(gamepad.XBOX) == "", "what a pad has nothing for is left out"


def test_saved_places_are_within_reach_of_a_pad_in_the_menu(visit: Visit) -> None:
    pads, words = PadKeys(), " ".join(hints.said(menu.HINTS, gamepad.XBOX))
    wanted = {
        "pad left shoulder": commands.MoveSlot(-1),
        "pad right shoulder": commands.MoveSlot(1),
        "pad right stick press": commands.LoadSlot(),
    }
    for source, command in wanted.items():
        event = pads.key_event(button(source))
        assert event is not None and visit.program.menu.handle(event) == command
        assert glyphs.mark_of(source) in words


def test_hints_of_play_name_what_is_bound() -> None:
    bindings = load_bindings()
    lines = hints.play_hints(bindings, "")
    assert [line.split(":")[0] for line in lines] == ["WASD", "Mouse", "Shift", "Space", "E", "R", "Esc"]
    stick = ["pad left stick", "pad right stick", "pad left shoulder", "pad a", "pad x", "pad y", "pad start"]
    lines = hints.play_hints(bindings, gamepad.PS4)
    assert [glyphs.source_of(line[0]) for line in lines] == stick
    other = bindings.assign("jump", "pad right trigger").assign("use", "g").without("run")
    other = other.assign("forward", "pad left trigger").assign("left", "up")
    lines = hints.play_hints(other, gamepad.XBOX)
    assert glyphs.mark_of("pad right trigger") + " jump" in lines
    assert not any(glyphs.mark_of("pad a") in line or "run" in line for line in lines)
    assert lines[0].startswith(glyphs.mark_of("pad left trigger") + glyphs.mark_of("pad left stick left"))
    lines = hints.play_hints(other, "")
    assert lines[0] == "W, Up, S, D: walk" and "G: use" in lines and not any("run" in line for line in lines)


def test_hints_while_held_name_the_windows_own_buttons() -> None:
    for pad in PADS:
        held = hints.held_hints(pad)
        assert held[0] == "Held" and len(held) == 4
        assert any(map(has_mark, held)) == bool(pad)
        assert bool(KEY_NAMES.search(" ".join(held))) != bool(pad)
    for name in ("step", "freeze", "pause"):
        assert any(HOTKEYS[source] == name for source in marks_in(hints.held_hints(gamepad.XBOX)))


def names_of(visit: Visit, drawn: Drawn) -> list[str]:
    drawn.clear()
    visit.program.screen.draw(visit.program.window.surface)
    return [words for words, _ in drawn]


def test_hints_follow_the_device_used_last(visit: Visit, drawn: Drawn) -> None:
    one = visit.program
    post = pygame.event.post

    def named(pad: bool) -> None:
        lines = names_of(visit, drawn)
        keys = [words for words in lines if KEY_NAMES.search(words)]
        assert bool(marks_in(lines)) == pad and bool(keys) != pad, (pad, keys)

    named(False)
    one.screen.dirty = False
    post(button("pad dpad right"))
    one.turn()
    assert isinstance(one.screen, MenuScreen) and one.menu.focus == 1
    named(True)
    post(pygame.event.Event(pygame.MOUSEMOTION, pos=(1, 1), rel=(1, 0), buttons=(0, 0, 0)))
    one.turn()
    named(True)
    visit.press(pygame.K_LEFT)
    one.turn()
    named(False)
    post(button("pad a"))
    visit.until(visit.on(PlayScreen), LONG)
    named(True)
    assert marks_in([w for w, _ in drawn]) >= {"pad left stick", "pad right stick", "pad start"}
    visit.press(pygame.K_w)
    one.turn()
    named(False)
    assert one.play is not None
    one.carry_out(commands.Rebind(one.bindings.assign("jump", "pad right shoulder")))
    post(moved(pygame.CONTROLLER_AXIS_LEFTX, 0.9))
    one.turn()
    named(True)
    assert "pad right shoulder" in marks_in([w for w, _ in drawn]) and "pad a" not in marks_in([w for w, _ in drawn])
    post(button("pad start"))
    visit.until(visit.on(PauseScreen))
    named(True)
    visit.press(pygame.K_DOWN)
    one.turn()
    named(False)


def check(one: Visit, drawn: Drawn, name: str, folder: Path) -> None:
    """At all sizes: a pad's buttons and no keys, every hint inside the window and on nothing else."""
    for pad in PADS:
        for size in SIZES:
            screen = one.program.screen
            screen.pad = pad
            surface = one.program.window.surface = pygame.display.set_mode(size)
            drawn.clear()
            screen.draw(surface)
            if size[0] < 3000:
                pygame.image.save(
                    surface, str(folder / f"hints-{name}-{pad.replace(' ', '-') or 'keys'}-{size[0]}.png")
                )
            lines = [words for words, _ in drawn]
            assert {glyphs.kind_of(x) for words in lines for x in words if glyphs.is_mark(x)} == {pad} - {""}, name
            bound = {row.value for row in screen.rows()} if isinstance(screen, SettingsScreen) else set()
            keyed = [bool(KEY_NAMES.search(words)) and words not in bound for words in lines]
            told = [i for i, words in enumerate(lines) if has_mark(words) or keyed[i]]
            assert told and not (pad and any(keyed)), (name, lines)
            cards = [rect for rect in getattr(screen, "_rects", []) if isinstance(screen, PauseScreen)]
            for i in told:
                rect = drawn[i][1]
                assert surface.get_rect().contains(rect), (name, size, lines[i])
                others = [other for j, (_, other) in enumerate(drawn) if j != i] + cards
                assert (hit := rect.collidelist(others)) == -1, (name, size, lines[i], rect, others[hit])


def test_no_hint_of_any_screen_overlaps_anything(
    visit: Visit, drawn: Drawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(os.environ.get("FARSTEP_SHOTS") or tmp_path)
    one = visit.program
    look: Callable[[str], None] = lambda name: check(visit, drawn, name, folder)  # noqa: E731
    visit.until(lambda: one.generator.ready is not None, LONG)
    one.screen.update()
    look("menu")
    one.carry_out(commands.Browse())
    look("browse")
    one.carry_out(commands.ToMenu(""))
    one.carry_out(commands.OpenSettings())
    assert isinstance(one.screen, SettingsScreen)
    one.screen.focus = [row.name for row in one.screen.rows()].index("hud")
    look("settings")
    one.screen._do("keys")
    look("settings-keys")
    one.screen.keys.do("bind jump")
    look("settings-listening")
    one.screen.keys.listening = None
    one.carry_out(commands.CloseSettings())
    one.carry_out(commands.Pick(one.menu.scenes[0]))
    look("loading")
    visit.until(visit.on(PlayScreen), LONG)
    assert one.play is not None and one.session is not None
    session = one.session
    visit.until(lambda: session.frame_index > 4, LONG)
    session.figures.frames = 1
    look("play")
    one.play.freeze(True)
    look("play-held")
    one.play.freeze(False)
    monkeypatch.setattr(play.PlayScreen, "stalled", True)
    one.play._told = True
    look("play-stalled")
    monkeypatch.undo()


def test_the_pause_menu_with_its_strip(opened: Window, drawn: Drawn, tmp_path: Path) -> None:  # noqa: F811
    folder = Path(os.environ.get("FARSTEP_SHOTS") or tmp_path)
    marks = [(20 + i, 3.0 - i, np.full((160, 256, 3), 40 * i, np.uint8)) for i in range(4)]

    class Alone:
        class program:
            window = opened
            screen = PauseScreen(lambda surface: surface.fill((90, 90, 90)) and None, lambda: pause.Slot(4), marks)

    check(Alone, drawn, "pause", folder)  # type: ignore[arg-type]
