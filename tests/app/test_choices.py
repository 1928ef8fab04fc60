"""Settings and bindings: kept on disk, never lost, shown with when they take effect, changed by keys or pad alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path

import pygame
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app import keeping
from app.choices import SLOW_TURN, UNSAVED, Choices
from app.cues import cue
from app.hotkeys import HOTKEYS
from app.keeping import Keeper
from app.options import OPTIONS
from app.screens.commands import Change, CloseSettings, Command, Quit, Rebind
from app.screens.navigation import PadKeys
from app.screens.settings import SettingsScreen
from app.settings import CHOICES, LIMITS, Settings, load_settings, save_settings
from app.sound.ambience import INTERFACE
from app.sound.scape import Soundscape
from app.window import Window
from controls.action import ActionSpec
from controls.bindings import DEFAULT_BINDINGS, LOOK_INPUTS, load_bindings
from controls.errors import UserError
from controls.sampler import InputSampler


def key(code: int) -> pygame.event.Event:
    return pygame.event.Event(pygame.KEYDOWN, key=code, mod=0)


def button(code: int) -> pygame.event.Event:
    return pygame.event.Event(pygame.CONTROLLERBUTTONDOWN, instance_id=0, button=code)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FARSTEP_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def opened(folder: Path) -> Iterator[Window]:
    one = Window("test")
    yield one
    one.close()


def keeper(folder: Path) -> Keeper:
    return Keeper(folder, HOTKEYS, older=folder / "nowhere.yaml")


# --- on disk
def a_setting(name: str) -> st.SearchStrategy[object]:
    value = getattr(Settings(), name)
    if name in CHOICES:
        return st.sampled_from(CHOICES[name])
    if isinstance(value, bool):
        return st.booleans()
    low, high = LIMITS[name]
    return st.integers(int(low), int(high)) if isinstance(value, int) else st.floats(low, high)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.fixed_dictionaries({f.name: a_setting(f.name) for f in fields(Settings)}))
def test_every_settings_file_is_read_back_equal(tmp_path: Path, values: dict[str, object]) -> None:
    chosen = replace(Settings(), **values)  # type: ignore[arg-type]
    assert save_settings(chosen, tmp_path / "settings.yaml")
    assert load_settings(tmp_path / "settings.yaml") == chosen


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=120) | st.text(max_size=120).map(str.encode))
def test_whatever_a_file_holds_it_is_read_or_kept_aside_whole(tmp_path: Path, blob: bytes) -> None:
    for name in ("settings.yaml", "bindings.yaml"):
        (tmp_path / name).write_bytes(blob)
    before = set(tmp_path.iterdir())
    one = keeper(tmp_path)
    assert isinstance(one.settings, Settings) and set(one.bindings.inputs) >= {"forward", "look_up"}
    for name in ("settings", "bindings"):
        if not (tmp_path / f"{name}.yaml").exists():
            (aside,) = [p for p in set(tmp_path.iterdir()) - before if p.name.startswith(f"{name}.bad-")]
            assert aside.read_bytes() == blob
            assert any(f"kept as {aside.name}" in notice and "\n" not in notice for notice in one.notices)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("window_scale: 13", "window_scale is 13; give a value from 0 to 12"),
        ("window_scale: 2.5", "window_scale is 2.5"),
        ("window_scale: true", "window_scale is True"),
        ("muted: 1", "muted is 1; give a value such as False"),
        ("dead_zone: .nan", "dead_zone is nan"),
        ("hud: ful", "did you mean 'full'"),
        ("flash_gard: true", "did you mean 'flash_guard'"),
    ],
)
def test_a_wrong_value_is_a_sentence(tmp_path: Path, words: str, said: str) -> None:
    (tmp_path / "settings.yaml").write_text(f"{words}\n")
    with pytest.raises(UserError, match="line 1") as caught:
        load_settings(tmp_path / "settings.yaml")
    assert said in str(caught.value)


def test_bad_files_are_kept_aside_one_after_the_other_and_never_written_over(folder: Path) -> None:
    folder.mkdir()
    for number, words in enumerate(("volume: 7", "volume: 8"), start=1):
        (folder / "settings.yaml").write_text(words)
        one = keeper(folder)
        assert one.settings == Settings()
        assert f"settings.bad-{number}.yaml" in one.notices[0]
        assert one.change("invert", True)
    kept = [(folder / f"settings.bad-{n}.yaml").read_text() for n in (1, 2)]
    assert kept == ["volume: 7", "volume: 8"]
    assert keeper(folder).settings.invert and keeper(folder).notices == []


def test_a_bad_file_that_cannot_be_moved_is_not_written_over(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(13, "Permission denied")

    folder.mkdir()
    for name in ("settings", "bindings"):
        (folder / f"{name}.yaml").write_text("what: is this")
    monkeypatch.setattr(keeping.os, "rename", refuse)
    one = keeper(folder)
    assert len(one.notices) == 2 and all("nothing is saved" in n for n in one.notices)
    assert not one.change("invert", True) and not one.rebind(one.bindings)
    assert one.settings.invert, "it lasts until the end"
    assert all(p.read_text() == "what: is this" for p in folder.iterdir())


def test_a_link_to_nowhere_is_kept_aside_too(folder: Path) -> None:
    folder.mkdir()
    (folder / "settings.yaml").symlink_to("elsewhere.yaml")
    one = keeper(folder)
    assert "Cannot read" in one.notices[0] and one.change("invert", True)
    assert os.readlink(folder / "settings.bad-1.yaml") == "elsewhere.yaml"
    assert keeper(folder).settings.invert


def test_settings_of_an_older_version_are_taken_over_and_left_where_they_are(folder: Path) -> None:
    older = folder / "old" / "settings.yaml"
    save_settings(Settings(sensitivity=0.33), older)
    was = older.read_bytes()
    one = Keeper(folder, HOTKEYS, older)
    assert one.settings.sensitivity == 0.33
    one.change("invert", True)
    assert load_settings(folder / "settings.yaml") == Settings(sensitivity=0.33, invert=True)
    assert older.read_bytes() == was
    older.write_text("nonsense: 1")
    (folder / "settings.yaml").unlink()
    again = Keeper(folder, HOTKEYS, older)
    assert again.settings == Settings() and "nonsense" in again.notices[0]
    assert older.read_text() == "nonsense: 1"


def test_a_full_disk_loses_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = keeper(folder)
    assert one.change("volume", 0.5)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("controls.files.os.replace", full)
    assert not one.change("volume", 0.2)
    assert load_settings(folder / "settings.yaml").volume == 0.5
    assert [p.name for p in folder.iterdir()] == ["settings.yaml"]


def test_bindings_are_kept_and_reset(folder: Path) -> None:
    one = keeper(folder)
    changed = one.bindings.assign("use", "f", HOTKEYS).toggled("run")
    assert one.rebind(changed)
    assert keeper(folder).bindings == changed
    assert keeper(folder).default_bindings() == load_bindings(DEFAULT_BINDINGS)


def test_the_default_bindings_leave_the_windows_keys_alone() -> None:
    assert load_bindings(reserved=HOTKEYS).unbound(ActionSpec()) == ()


# --- in words
def test_every_setting_is_an_option_that_says_what_it_does_and_when() -> None:
    assert {option.name for option in OPTIONS} == {f.name for f in fields(Settings)}
    for option in OPTIONS:
        assert option.effect.startswith("Takes effect") and option.about.endswith((".", ")."))
        assert option.shown(Settings())


@pytest.mark.parametrize("option", OPTIONS, ids=lambda o: o.name)
@pytest.mark.parametrize("way", [1, -1])
def test_every_step_of_every_option_can_be_saved(option: object, way: int, tmp_path: Path) -> None:
    chosen, seen = Settings(), set()
    for _ in range(60):
        chosen = replace(chosen, **{option.name: option.moved(chosen, -way)})  # type: ignore[attr-defined]
    for _ in range(60):
        chosen = replace(chosen, **{option.name: option.moved(chosen, way)})  # type: ignore[attr-defined]
        seen.add(option.shown(chosen))  # type: ignore[attr-defined]
    assert len(seen) >= 2
    assert save_settings(chosen, tmp_path / "s.yaml") and load_settings(tmp_path / "s.yaml") == chosen


# --- the screen
def screen(folder: Path) -> SettingsScreen:
    one = keeper(folder)
    return SettingsScreen(one.settings, one.bindings, HOTKEYS, one.default_bindings)


def go_to(shown: SettingsScreen, name: str) -> None:
    for _ in range(40):
        if shown.rows()[shown.focus].name == name:
            return
        shown.handle(key(pygame.K_DOWN))
    raise AssertionError(f"{name} cannot be reached")


def test_every_setting_is_changed_with_keys_alone(opened: Window, folder: Path) -> None:
    shown = screen(folder)
    for option in OPTIONS:
        go_to(shown, option.name)
        wanted = option.moved(shown.settings, 1)
        assert shown.handle(key(pygame.K_RIGHT)) == Change(option.name, wanted)
        assert shown.handle(key(pygame.K_LEFT)) == Change(option.name, getattr(Settings(), option.name))
        assert shown.handle(key(pygame.K_RETURN)) == Change(option.name, wanted)
        assert getattr(shown.settings, option.name) == wanted
        shown.draw(opened.surface)
    assert shown.handle(key(pygame.K_ESCAPE)) == CloseSettings()
    go_to(shown, "back")
    assert shown.handle(key(pygame.K_RETURN)) == CloseSettings()


@pytest.mark.parametrize("size", [(480, 300), (1280, 720), (3840, 2160)])
def test_the_chosen_line_is_always_in_sight(opened: Window, folder: Path, size: tuple[int, int]) -> None:
    surface = pygame.Surface(size)
    shown = screen(folder)
    for page in ("main", "keys"):
        shown.page, shown.focus = page, 0
        for _ in shown.rows():
            shown.draw(surface)
            rect = shown._rects[shown.focus]
            assert rect.height > 0 and rect.top >= 0.1 * size[1] and rect.bottom <= 0.9 * size[1]
            shown.handle(key(pygame.K_DOWN))


def pressed(shown: SettingsScreen, *events: pygame.event.Event) -> Command | None:
    """What the program makes of pad and keyboard events: as keys, unless the screen listens."""
    pads, command = PadKeys(), None
    for event in events:
        command = shown.handle(event if shown.listening else pads.key_event(event) or event)
    return command


def test_an_input_is_bound_anew_and_conflicts_are_warned_of(opened: Window, folder: Path) -> None:
    shown = screen(folder)
    go_to(shown, "keys")
    shown.handle(key(pygame.K_RETURN))
    go_to(shown, "bind jump")
    shown.handle(key(pygame.K_RETURN))
    assert shown.listening
    command = shown.handle(key(pygame.K_g))
    assert isinstance(command, Rebind)
    assert command.bindings.inputs["jump"] == ("g", "pad a"), "the pad's button stays"
    shown.handle(key(pygame.K_RETURN))
    assert shown.handle(key(pygame.K_w)) is None and shown.listening
    assert "W already does 'Walk forward'" in shown.keys.about("bind jump")
    shown.draw(opened.surface)
    assert shown.handle(key(pygame.K_x)) is not None, "another key instead"
    shown.handle(key(pygame.K_RETURN))
    shown.handle(key(pygame.K_w))
    taken = shown.handle(key(pygame.K_w))
    assert isinstance(taken, Rebind) and taken.bindings.input_of("w") == "jump"
    assert taken.bindings.inputs["forward"] == ("pad left stick up",)
    shown.handle(key(pygame.K_RETURN))
    assert shown.handle(key(pygame.K_F2)) is None and shown.listening
    assert "F2 is one of the window's own keys" in shown.keys.said
    assert shown.handle(key(pygame.K_ESCAPE)) is None and not shown.listening
    go_to(shown, "bind attack")
    cleared = shown.handle(key(pygame.K_DELETE))
    assert isinstance(cleared, Rebind) and cleared.bindings.unbound(ActionSpec()) == ("attack",)
    go_to(shown, "reset")
    reset = shown.handle(key(pygame.K_RETURN))
    assert reset == Rebind(load_bindings())
    shown.handle(key(pygame.K_ESCAPE))
    assert shown.page == "main" and shown.rows()[shown.focus].name == "keys"


def test_a_pad_alone_changes_settings_and_bindings(opened: Window, folder: Path) -> None:
    shown = screen(folder)
    down, accept = button(pygame.CONTROLLER_BUTTON_DPAD_DOWN), button(pygame.CONTROLLER_BUTTON_A)
    assert pressed(shown, down, button(pygame.CONTROLLER_BUTTON_DPAD_RIGHT)) == Change("invert", True)
    go_to(shown, "keys")
    assert pressed(shown, accept) is None and shown.page == "keys"
    trigger = pygame.event.Event(
        pygame.CONTROLLERAXISMOTION, instance_id=0, axis=pygame.CONTROLLER_AXIS_TRIGGERLEFT, value=30000
    )
    changed = pressed(shown, accept, trigger)
    assert isinstance(changed, Rebind) and changed.bindings.inputs["forward"] == ("w", "pad left trigger")
    stick = pygame.event.Event(
        pygame.CONTROLLERAXISMOTION, instance_id=0, axis=pygame.CONTROLLER_AXIS_LEFTY, value=-30000
    )
    changed = pressed(shown, accept, stick)
    assert isinstance(changed, Rebind) and changed.bindings.inputs["forward"] == ("w", "pad left stick up")
    pressed(shown, down, down, down, down)
    toggled = pressed(shown, button(pygame.CONTROLLER_BUTTON_DPAD_LEFT))
    assert isinstance(toggled, Rebind) and toggled.bindings.toggle == ("run",)
    assert "each press switches" in shown.rows()[shown.focus].value
    pressed(shown, accept, button(pygame.CONTROLLER_BUTTON_START))
    assert not shown.listening, "Start leaves it as it was"
    assert pressed(shown, button(pygame.CONTROLLER_BUTTON_B)) is None and shown.page == "main"
    assert pressed(shown, button(pygame.CONTROLLER_BUTTON_B)) == CloseSettings()


def test_look_inputs_are_never_toggles(folder: Path) -> None:
    shown = screen(folder)
    for name in LOOK_INPUTS:
        assert shown.keys.change(f"bind {name}") is None


def test_the_mouse_points_and_changes(opened: Window, folder: Path) -> None:
    shown = screen(folder)
    shown.draw(opened.surface)
    where = shown._rects[1].center
    shown.handle(pygame.event.Event(pygame.MOUSEMOTION, pos=where, rel=(0, 0), buttons=(0, 0, 0)))
    assert shown.focus == 1
    click = pygame.event.Event(pygame.MOUSEBUTTONDOWN, button=1, pos=where)
    assert shown.handle(click) == Change("invert", True)


# --- what a change does
def test_settings_reach_those_whom_they_concern(opened: Window, folder: Path) -> None:
    class Play:
        def __init__(self) -> None:
            self.sampler = InputSampler(ActionSpec(), load_bindings())
            self.settings = Settings()
            self.dirty = False

    class Pads:
        zone = 0.0

    play, pads, sound = Play(), Pads(), Soundscape.silent()
    choices = Choices(keeper(folder), Settings(), opened, sound, pads)  # type: ignore[arg-type]
    assert pads.zone == Settings().dead_zone and sound.volume == Settings().volume
    for name, value in (("dead_zone", 0.3), ("volume", 0.2), ("muted", True), ("invert", True), ("sensitivity", 0.5)):
        assert choices.change(name, value, (256, 160), play) == ""  # type: ignore[arg-type]
    assert (pads.zone, sound.volume, sound.muted) == (0.3, 0.2, True)
    assert play.sampler.invert and play.sampler.sensitivity == 0.5 and play.settings == choices.settings
    play.sampler.press("right")
    usual = play.sampler.tick().look[0]
    choices.change("reduced_motion", True, (256, 160), play)  # type: ignore[arg-type]
    assert play.sampler.tick().look[0] == pytest.approx(SLOW_TURN * usual)
    choices.change("window_scale", 3, (256, 160), play)  # type: ignore[arg-type]
    assert opened.surface.get_size() == (768, 480)
    choices.change("fullscreen", True, (256, 160), play)  # type: ignore[arg-type]
    assert opened.fullscreen
    choices.change("fullscreen", False, (256, 160), play)  # type: ignore[arg-type]
    assert opened.surface.get_size() == (768, 480)
    saved = load_settings(folder / "settings.yaml")
    assert asdict(saved) == {**asdict(choices.settings), "fullscreen": False}
    choices.rebind(load_bindings().assign("jump", "g"), play)  # type: ignore[arg-type]
    play.sampler.press("g")
    assert play.sampler.held == {"jump"}


def test_the_window_opens_as_large_as_it_was_chosen(opened: Window, folder: Path) -> None:
    Choices(keeper(folder), Settings(window_scale=2), opened, Soundscape.silent(), None)
    assert opened.surface.get_size() == (512, 320)


def test_the_command_line_is_not_saved(opened: Window, folder: Path) -> None:
    one = keeper(folder)
    choices = Choices(one, replace(one.settings, scaling="integer"), opened, Soundscape.silent(), None)
    choices.change("invert", True, (256, 160), None)
    assert choices.settings.scaling == "integer" and load_settings(folder / "settings.yaml").scaling == "smooth"


def test_what_cannot_be_saved_is_said(opened: Window, folder: Path) -> None:
    one = keeper(folder)
    folder.write_text("a file where the folder should be")
    choices = Choices(one, one.settings, opened, Soundscape.silent(), None)
    assert choices.change("invert", True, (256, 160), None) == UNSAVED and choices.settings.invert
    assert choices.rebind(one.bindings, None) == UNSAVED
    os.unlink(folder)


def test_menus_have_their_sounds() -> None:
    cases = [
        (key(pygame.K_UP), None), (key(pygame.K_RETURN), Quit()), (key(pygame.K_LEFT), Change("invert", True)),
        (key(pygame.K_RETURN), None), (key(pygame.K_a), None),
    ]  # fmt: skip
    found = [cue(event, command) for event, command in cases]
    assert found == ["move", "back", "change", "accept", ""] and set(found) - {""} <= set(INTERFACE)
