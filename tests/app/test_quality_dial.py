"""The quality dial in the settings: what it may be, when it takes effect, and worlds that have no teacher."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

import pygame
import pytest
from fake_world import make_door
from test_window import Visit, opened  # noqa: F401

from app import launch
from app.main import add_arguments
from app.options import OPTIONS
from app.program import ONE_CALL
from app.screens.menu import MenuScreen
from app.screens.play import PlayScreen
from app.settings import LIMITS, Settings, load_settings, save_settings
from app.window import Window
from generator.world import MOST_CALLS


def test_the_dial_goes_as_far_as_the_world_does_and_says_when_it_counts() -> None:
    assert LIMITS["calls"] == (1, MOST_CALLS)
    option = next(option for option in OPTIONS if option.name == "calls")
    assert "choose a scene next" in option.effect
    assert option.shown(Settings()) == "1 call, the fast one" and option.shown(Settings(calls=4)) == "4 calls"
    assert option.moved(Settings(), 1) == 2 and option.moved(Settings(), -1) == 1
    assert option.moved(Settings(calls=MOST_CALLS), 1) == MOST_CALLS


def test_it_takes_effect_with_the_next_scene(opened: Window, tmp_path: Path) -> None:  # noqa: F811
    visit = Visit(opened, tmp_path)
    one = visit.program
    visit.press(pygame.K_RETURN)
    visit.until(visit.on(PlayScreen))
    pid, play = one.generator.pid, one.play
    one._change("calls", 4)
    assert one.generator.pid == pid and play is not None and "calls" not in play._backend
    assert load_settings(tmp_path / "home" / "settings.yaml").calls == 4
    one._to_menu("")
    visit.press(pygame.K_RETURN)
    visit.until(visit.on(PlayScreen))
    assert one.generator.pid != pid and one.generator.nfe == 4 and one.play is not None
    assert one.play._backend == "fake, 4 calls"
    pid, play = one.generator.pid, one.play
    visit.until(lambda: not play.stalled)  # a generator that does not answer is replaced on the way to the menu
    one._to_menu("")
    visit.press(pygame.K_RETURN)
    visit.until(visit.on(PlayScreen))
    assert one.generator.pid == pid, "the same calls need no other process"
    one.close()


def test_a_world_without_a_teacher_says_how_to_go_on(opened: Window, tmp_path: Path) -> None:  # noqa: F811
    visit = Visit(opened, tmp_path, "--backend", "one call")
    one = visit.program
    one._change("calls", 4)
    visit.press(pygame.K_RETURN)
    visit.until(lambda: isinstance(one.screen, MenuScreen) and bool(one.menu.notice))
    assert "no teacher" in one.menu.notice and ONE_CALL in one.menu.notice
    one._change("calls", 1)
    visit.press(pygame.K_RETURN)
    visit.until(visit.on(PlayScreen))
    one.close()


@pytest.mark.parametrize(("words", "calls"), [((), 3), (("--nfe", "2"), 2)])
def test_the_command_line_comes_before_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], calls: int
) -> None:
    monkeypatch.setenv("FARSTEP_HOME", str(tmp_path / "home"))
    save_settings(Settings(calls=3), tmp_path / "home" / "settings.yaml")
    seen: list[int] = []
    monkeypatch.setattr("app.program.Program.loop", lambda program: seen.append(program.generator.nfe))
    parser = ArgumentParser()
    add_arguments(parser)
    assert launch.run(parser.parse_args(["--weights", "x", *words]), make_door(tmp_path, 2)) == 0
    assert seen == [calls] and load_settings(tmp_path / "home" / "settings.yaml").calls == 3
