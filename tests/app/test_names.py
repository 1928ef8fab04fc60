"""Every source that bindings allow has a name in words, for every kind of pad; the page of keys shows them whole."""

from __future__ import annotations

import sys

import pygame
import pytest
from test_window import opened  # noqa: F401

from app import glyphs, hints, names, widgets
from app.hotkeys import HOTKEYS
from app.names import name_of
from app.screens.rebind import RebindPage
from app.screens.settings import SettingsScreen
from app.settings import Settings
from app.window import Window
from controls.bindings import SOURCES, Bindings, is_pad, is_source, load_bindings
from controls.devices import gamepad

TYPED = [chr(code) for code in range(0x250) if is_source(chr(code))]
KEYPAD = [f"[{letter}]" for letter in "0123456789+-*/.="]
EVERY = [*sorted(SOURCES), *TYPED, *KEYPAD]


@pytest.mark.parametrize("kind", gamepad.KINDS)
def test_every_source_has_a_name_of_its_own_in_words(kind: str) -> None:
    assert len(TYPED) > 250 and all(map(is_source, EVERY))
    called = {source: name_of(source, kind) for source in EVERY}
    assert len(set(called.values())) == len(EVERY)
    for source, words in called.items():
        assert words and words == words.strip() and words.isprintable()
        assert not words.startswith("pad ") and "dpad" not in words and "[" not in words.removeprefix("["), source
        assert is_pad(source) or words == name_of(source), "what is no pad's does not depend on the kind"


@pytest.mark.parametrize(
    ("source", "kind", "words"),
    [
        ("pad left stick up", "xbox", "left stick up"), ("pad a", "xbox", "A button"),
        ("pad a", "playstation 5", "cross button"), ("pad y", "playstation 4", "triangle button"),
        ("pad a", "nintendo", "A button"), ("pad a", "nintendo by place", "B button"),
        ("pad left shoulder", "xbox", "LB button"), ("pad left shoulder", "playstation 3", "L1 button"),
        ("pad right trigger", "nintendo", "ZR button"), ("pad start", "playstation 5", "Options button"),
        ("pad back", "playstation 5", "Create button"), ("pad back", "nintendo", "minus button"),
        ("pad left stick press", "xbox", "left stick pressed"), ("pad dpad left", "playstation 5", "D-pad left"),
        ("mouse left", "xbox", "left mouse button"), ("mouse wheel up", "xbox", "mouse wheel up"),
        ("left", "xbox", "Left arrow"), ("left shift", "xbox", "Left Shift"), ("w", "xbox", "W"), ("é", "xbox", "É"),
        ("ß", "xbox", "ß"), ("return", "xbox", "Enter"), ("enter", "xbox", "keypad Enter"), ("[4]", "xbox", "keypad 4"),
        ("f11", "xbox", "F11"), (",", "xbox", "comma"), ("-", "xbox", "minus"),
    ],
)  # fmt: skip
def test_what_things_are_called(source: str, kind: str, words: str) -> None:
    assert name_of(source, kind) == words


def test_no_two_characters_of_all_that_can_be_bound_share_a_name() -> None:
    letters = [chr(code) for code in range(sys.maxunicode + 1) if is_source(chr(code))]
    assert len(letters) > 100_000 and len({name_of(letter) for letter in letters}) == len(letters)
    assert set(names.KEYS) <= {*SOURCES, *letters}


@pytest.mark.parametrize("source", sorted(SOURCES))
def test_the_page_of_keys_names_each_source_in_words(source: str) -> None:
    for kind in gamepad.KINDS:
        page = RebindPage(Bindings({"jump": (source,), "use": ()}), HOTKEYS, load_bindings)
        jump, use, *_ = page.rows(kind, kind)
        assert jump.value == name_of(source, kind)
        assert use.value.startswith("nothing: press ") and glyphs.kind_of(use.value[-1]) == kind


def test_what_is_said_about_a_source_is_in_words_too() -> None:
    page = RebindPage(load_bindings(reserved=HOTKEYS), HOTKEYS, load_bindings)
    for number, kind, wanted in (
        (pygame.CONTROLLER_BUTTON_A, gamepad.PS5, "Cross button already does 'Jump'"),
        (pygame.CONTROLLER_BUTTON_LEFTSHOULDER, gamepad.XBOX, "LB button already does 'Run'"),
        (pygame.CONTROLLER_BUTTON_Y, gamepad.NINTENDO, "Y button is one of the window's own keys and buttons"),
        (pygame.CONTROLLER_BUTTON_DPAD_UP, gamepad.PS4, "D-pad up is one of the window's own keys and buttons"),
    ):
        page.do("bind use")
        event = pygame.event.Event(pygame.CONTROLLERBUTTONDOWN, button=number, instance_id=0)
        assert page.listen(event, kind) is None and page.listening == "use"
        assert page.said.startswith(wanted) and "'pad " not in page.said


def test_hints_call_keys_as_the_page_does(opened: Window) -> None:  # noqa: F811
    bindings = load_bindings().assign("use", "mouse right").assign("jump", ",")
    said = hints.play_hints(bindings, "")
    assert "right mouse button: use" in said and "comma: jump" in said


@pytest.mark.parametrize("size", [(480, 300), (1280, 720), (3840, 2160)])
@pytest.mark.parametrize("kind", gamepad.KINDS)
def test_no_name_on_the_page_is_cut_off(
    opened: Window,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, int],
    kind: str,
) -> None:
    shown: list[str] = []
    shorten = widgets.shorten

    def record(words: str, letters: float, width: float) -> str:
        shown.append(words)
        short = shorten(words, letters, width)
        assert short == words, f"{words} became {short}"
        return short

    monkeypatch.setattr(widgets, "shorten", record)
    screen = SettingsScreen(Settings(), load_bindings(reserved=HOTKEYS), HOTKEYS, load_bindings)
    screen.kind, screen.page = kind, "keys"
    for number in range(len(screen.rows())):
        screen.focus = number
        screen.draw(pygame.Surface(size))
    assert {row.value for row in screen.rows()} - {""} <= set(shown)
