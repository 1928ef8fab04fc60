"""Fine detail: left out when it is set so, or once a machine falls behind, by the process that plays."""

import time

import pygame
from fake_world import open_fake
from test_window import Visit, opened  # noqa: F401

from app import detail
from app.detail import SAID, SPAN, Detail
from app.figures import Figures
from app.protocol import Load
from app.screens.play import PlayScreen
from app.session import GeneratorProcess
from app.window import Window


def shown(figures: Figures, frames: int, rate: float = 24.0, late: float = 0.0, since: float = 0.0) -> float:
    """Show frames at a rate, a share of them late; returns when the last one was."""
    for number in range(frames):
        figures.frame(now := since + number / rate, late=(number % 100) < 100 * late)
    return now


def test_auto_leaves_detail_out_after_two_slow_spans_and_not_after_one():
    detail, figures = Detail(), Figures()
    now = shown(figures, 1)
    for rate, late, light in (
        (24, 0, False),
        (20, 0, False),
        (24, 0, False),
        (24, 0.3, False),
        (22, 0, True),
        (24, 0, True),
    ):
        now = shown(figures, SPAN, rate, late, now + 1 / rate)
        assert detail.follow("auto", figures, 24.0) == light
    assert detail.follow("full", figures, 24.0) is False and detail.follow("light", figures, 24.0) is True
    assert detail.follow("auto", figures, 24.0) is False, "set anew, it has the benefit of the doubt"


def test_pauses_are_not_slow():
    detail, figures = Detail(), Figures()
    now = 0.0
    for _ in range(12):
        now = shown(figures, SPAN // 2, since=now + 20.0)
        assert not detail.follow("auto", figures, 24.0)


def test_another_walk_begins_anew_but_does_not_forget():
    detail, first = Detail(), Figures()
    shown(first, SPAN // 2, 12)
    assert not detail.follow("auto", first, 24.0)
    second = Figures()
    now = 0.0
    assert not detail.follow("auto", second, 24.0)
    for _ in range(2):
        now = shown(second, SPAN, 12, since=now + 1 / 12)
        light = detail.follow("auto", second, 24.0)
    assert light and detail.follow("auto", Figures(), 24.0)


def wait_for(generator: GeneratorProcess) -> None:
    end = time.monotonic() + 60
    while generator.ready is None and time.monotonic() < end:
        generator.poll()
        generator.wait(0.05)
    assert generator.ready is not None


def test_the_child_is_told_once_and_its_successor_from_the_beginning(tmp_path, monkeypatch):
    generator = GeneratorProcess(Load(tmp_path), open_fake)
    try:
        wait_for(generator)
        sent = []
        monkeypatch.setattr(generator, "_send", sent.append)
        for light in (False, True, True):
            generator.lighten(light)
        assert [message.light for message in sent] == [True] and generator.light
        monkeypatch.undo()
        generator.restart()
        assert generator.light
    finally:
        generator.close(patience=0.1)


def test_a_world_that_has_none_is_not_followed(opened: Window, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(detail, "SPAN", 12)
    visit = Visit(opened, tmp_path, "--backend", "behind coarse")
    one = visit.program
    try:
        visit.press(pygame.K_RETURN)
        visit.until(visit.on(PlayScreen))
        session = one.session
        visit.until(lambda: session.figures.frames > 60)
        assert not one.generator.light and not session.notices
    finally:
        one.close()


def test_a_player_who_sets_it_and_a_machine_that_falls_behind(opened: Window, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(detail, "SPAN", 12)
    visit = Visit(opened, tmp_path, "--backend", "behind")
    one = visit.program
    try:
        one._change("detail", "full")
        visit.press(pygame.K_RETURN)
        visit.until(visit.on(PlayScreen))
        session, said = one.session, []
        monkeypatch.setattr(one.play, "tell", lambda words, picture=None: said.append(words))
        visit.until(lambda: session.figures.frames > 40)
        assert not one.generator.light and ("detail", "full") in one.play._lines()
        one._change("detail", "auto")
        visit.until(lambda: one.generator.light)
        visit.until(lambda: SAID in said)
        assert ("detail", "light") in one.play._lines()
        one._change("detail", "full")
        visit.until(lambda: not one.generator.light)
        one._change("detail", "light")
        visit.until(lambda: one.generator.light)
        assert said.count(SAID) == 1
    finally:
        one.close()
