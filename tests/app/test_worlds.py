"""Several worlds in one menu: a scene is walked with the weights of the world that it is of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fake_world import make_door
from test_window import Visit, opened  # noqa: F401

from app import program
from app.door import DEFAULT_WEIGHTS, Door, home_of, scenes_of
from app.screens.commands import LoadSlot, Pause, Pick, Play, SaveSlot, ToMenu
from app.screens.play import PlayScreen
from app.window import Window


def two_worlds(folder: Path) -> Door:
    """A door whose first scenes are of the world that ships, the last of another, and one of none."""
    door = make_door(folder, 4)
    first, second, other, loose = door.list_scenes()
    homes = {first: DEFAULT_WEIGHTS, second: DEFAULT_WEIGHTS, other: folder / "other"}
    scenes = [replace(scene, home=home) for scene, home in homes.items()]
    return replace(door, list_scenes=lambda: [*scenes, loose], check_weights=lambda weights: None)


@pytest.fixture
def visit(opened: Window, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Visit]:  # noqa: F811
    monkeypatch.setattr("test_window.make_door", two_worlds)
    one = Visit(opened, tmp_path)
    yield one
    one.program.close()


def walk(visit: Visit, number: int) -> program.Program:
    one = visit.program
    one.carry_out(Pick(one.library.scenes[number]))
    visit.until(visit.on(PlayScreen))
    return one


def test_a_scene_of_another_world_is_walked_with_its_weights(visit: Visit, tmp_path: Path) -> None:
    assert visit.program.generator.weights == DEFAULT_WEIGHTS
    one, first = walk(visit, 1), visit.program.generator.pid
    assert one.generator.weights == DEFAULT_WEIGHTS, "no other process for the world that is loaded"
    one.carry_out(ToMenu(""))
    walk(visit, 2)
    assert one.generator.weights == tmp_path / "other" and one.generator.pid != first
    visit.until(lambda: one.session is not None and one.session.frame_index >= 2)
    one.carry_out(ToMenu(""))
    walk(visit, 3)
    assert one.generator.weights == tmp_path / "other", "a picture of one's own is walked with what is loaded"
    one.carry_out(ToMenu(""))
    walk(visit, 0)
    assert one.generator.weights == DEFAULT_WEIGHTS


def test_weights_that_are_missing_are_a_notice_and_nothing_changes(visit: Visit, tmp_path: Path) -> None:
    one = visit.program
    one.door = replace(one.door, check_weights=make_door(tmp_path).check_weights)
    missing = replace(one.library.scenes[2], name="nowhere", home=Path("missing"))
    pid = one.generator.pid
    one.carry_out(Pick(missing))
    assert one.screen is one.menu and "There are no weights at missing" in one.menu.notice
    assert one.generator.pid == pid and one.generator.alive


def test_a_saved_place_opens_the_world_it_is_of(visit: Visit, tmp_path: Path) -> None:
    one = walk(visit, 2)
    visit.save_and_pause(15)
    one.carry_out(ToMenu(""))
    walk(visit, 0)
    one.carry_out(Pause())
    one.carry_out(LoadSlot())
    visit.until(visit.on(PlayScreen))
    assert one.generator.weights == tmp_path / "other"
    one.carry_out(SaveSlot())
    one.carry_out(Play())
    assert one.library.nearest(one.library.picture(one.library.scenes[0]), None, one.generator.weights).name == "scene2"


def test_the_first_scene_s_world_is_the_only_one_that_is_loaded(visit: Visit, tmp_path: Path) -> None:
    old = visit.program
    scene, given = old.library.scenes[2], (old.args, old.door, old.window, old.settings, old.bindings)
    one = program.Program(*given, old.library.shipped, first=scene)
    try:
        pid = one.generator.pid
        one.carry_out(Pick(scene))
        assert (one.generator.pid, one.generator.weights) == (pid, tmp_path / "other")
    finally:
        one.close()


def test_given_weights_are_those_of_every_scene(opened: Window, tmp_path: Path, monkeypatch) -> None:  # noqa: F811
    monkeypatch.setattr("test_window.make_door", two_worlds)
    visit = Visit(opened, tmp_path, "--weights", str(tmp_path / "given"))
    try:
        walk(visit, 2)
        assert visit.program.generator.weights == tmp_path / "given"
    finally:
        visit.program.close()


def test_scenes_of_given_weights_are_shown_if_there_are_any(tmp_path: Path) -> None:
    scenes = two_worlds(tmp_path).list_scenes()
    assert [s.name for s in scenes_of(tmp_path / "other", scenes)] == ["scene2"]
    assert scenes_of(None, scenes) == scenes == scenes_of(tmp_path / "of nobody", scenes)
    assert home_of(None) == DEFAULT_WEIGHTS == home_of(None, scenes[3])
    assert home_of(tmp_path, scenes[2]) == tmp_path
