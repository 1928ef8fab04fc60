"""The overlay of what the world receives: from the encoded, clipped action, never from the keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pygame
import pytest
from test_window import Visit, opened  # noqa: F401

from app import keyview, overlay, widgets
from app.hints import play_hints
from app.screens.play import PlayScreen
from app.settings import load_settings
from app.window import Window
from controls.action import Action, ActionSpec
from controls.bindings import load_bindings
from controls.devices import gamepad

SPEC = ActionSpec()


@pytest.fixture
def visit(opened: Window, tmp_path: Path) -> Iterator[Visit]:  # noqa: F811
    one = Visit(opened, tmp_path)
    yield one
    one.program.close()


def test_keys_are_shown_tick_by_tick_and_look_after_clipping() -> None:
    action = Action.idle(SPEC)
    action.keys[1:, SPEC.keys.index("forward")] = 1
    action.keys[2, SPEC.keys.index("jump")] = 1
    action.look[:] = [[300.0, 0.5], [-1.0, 0.25], [0.0, -1.5], [0.0, 0.0]]
    rows = {name: (ticks, share) for name, ticks, share in keyview.key_rows(action, SPEC)}
    assert list(rows) == list(SPEC.keys)
    assert rows["forward"] == ([False, True, True, True], "3 / 4") and rows["jump"][1] == "1 / 4"
    assert all(rows[name] == ([False] * 4, "0 / 4") for name in SPEC.keys if name not in ("forward", "jump"))
    assert keyview.look_rows(action, SPEC) == [("yaw", "44.00 deg right", True), ("pitch", "0.75 deg down", False)]
    assert keyview.look_rows(Action.idle(SPEC), SPEC)[0] == ("yaw", "0.00 deg", False)


@pytest.mark.parametrize("size", [(480, 300), (900, 500), (1280, 720), (3840, 2160)])
def test_the_panel_lies_in_the_window_and_on_nothing_else(opened: Window, size: tuple[int, int]) -> None:  # noqa: F811
    surface, scale = pygame.Surface(size), widgets.unit(size)
    action = Action.hold(SPEC, "forward", yaw=90.0)
    box = keyview.draw(surface, action, 12345, SPEC, scale)
    others = [
        overlay.draw(surface, [("a", "b")] * 15, scale, [40.0], 41.7),
        *(overlay.banner(surface, play_hints(load_bindings(), pad), scale) for pad in ("", *gamepad.KINDS)),
        overlay.rewind_bar(surface, 1.0, 30.0, 210.0, scale),
    ]
    assert surface.get_rect().contains(box) and box.collidelist(others) == -1


@pytest.mark.parametrize("size", [(480, 300), (900, 500), (1280, 720), (3840, 2160)])
@pytest.mark.parametrize("picture", [None, pygame.Surface((256, 160))])
def test_a_message_does_not_cover_the_figures(opened: Window, size: tuple[int, int], picture: pygame.Surface) -> None:  # noqa: F811
    """It lay on two of their lines."""
    surface, scale = pygame.Surface(size), widgets.unit(size)
    figures = overlay.draw(surface, [("a", "b")] * 11, scale, [40.0], 41.7)
    for words in ("Saved in slot 1", "The generator has stopped; it is started again and goes on from 3 s ago. " * 2):
        box = overlay.message(surface, words, picture, scale, figures.right)
        assert surface.get_rect().contains(box) and not box.colliderect(figures)
        alone = overlay.message(surface, words, picture, scale)
        assert surface.get_rect().contains(alone) and abs(alone.centerx - size[0] / 2) <= 1


def test_a_key_that_is_down_is_drawn_full(opened: Window) -> None:  # noqa: F811
    def accent(action: Action) -> int:
        surface = pygame.Surface((1280, 720))
        keyview.draw(surface, action, 1, SPEC, 1.0)
        shown = pygame.surfarray.array3d(surface).astype(int)
        return int((np.abs(shown - np.array(widgets.ACCENT)).max(axis=2) < 4).sum())

    assert accent(Action.idle(SPEC)) == 0
    one, four = accent(Action.hold(SPEC, "forward")), accent(Action.hold(SPEC, "forward", "run", "jump", "use"))
    assert four == 4 * one > 400


def test_tab_shows_what_the_generator_was_sent(visit: Visit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent, shown = [], []
    visit.press(pygame.K_RETURN)
    visit.until(visit.on(PlayScreen), 60)
    step, draw = visit.program.generator.step, keyview.draw
    monkeypatch.setattr(visit.program.generator, "step", lambda k, a: (sent.append((k, a)), step(k, a))[1])
    monkeypatch.setattr(keyview, "draw", lambda *given: (shown.append((given[2], given[1])), draw(*given))[1])
    visit.press(pygame.K_w)
    visit.press(pygame.K_TAB)
    pygame.event.post(pygame.event.Event(pygame.MOUSEMOTION, rel=(2000, 0), pos=(0, 0), buttons=(0, 0, 0)))
    visit.until(lambda: bool(sent) and sent[-1][0] > 2 and bool(shown) and shown[-1][0] == sent[-1][0], 60)
    assert visit.program.settings.inputs and load_settings(tmp_path / "home" / "settings.yaml").inputs
    by_index = dict(sent)
    assert all(by_index[index] is action for index, action in shown if index in by_index)
    turned = [a for _, a in sent if a.look.any()]
    assert turned and keyview.look_rows(turned[0], SPEC)[0][2], "2000 pixels are more than one tick carries"
    assert sum(float(a.look[:, 0].sum()) for a in turned) == pytest.approx(240, abs=0.01)
    assert sent[-1][1].keys[:, SPEC.keys.index("forward")].all()
    visit.press(pygame.K_TAB)
    visit.until(lambda: not visit.program.settings.inputs, 60)
