"""Fine detail: left out when it is set so, or once a machine falls behind, by the process that plays."""

import time

import pygame
import pytest
from fake_world import open_fake
from test_window import Visit, opened  # noqa: F401

from app import detail
from app.detail import SAID, SPAN, Detail
from app.figures import Figures
from app.protocol import Load
from app.screens.play import PlayScreen
from app.session import GeneratorProcess
from app.window import Window


def shown(figures: Figures, frames: int, late: float = 0.0) -> None:
    """Show frames, a share of them late."""
    for number in range(frames):
        figures.frame(float(figures.frames), late=(number % 100) < 100 * late)


def test_auto_leaves_detail_out_after_two_slow_spans_and_not_after_one():
    detail, figures = Detail(), Figures()
    assert not detail.follow("auto", figures, True)
    spans = [(False, 0), (True, 0), (False, 0.05), (False, 0.3), (True, 0), (False, 0)]
    for (slow, late), light in zip(spans, (False, False, False, False, True, True), strict=True):
        shown(figures, SPAN, late)
        assert detail.follow("auto", figures, slow) == light
    assert detail.follow("full", figures, False) is False and detail.follow("light", figures, False) is True
    assert detail.follow("auto", figures, True) is False, "set anew, it has the benefit of the doubt"


def test_gaps_between_frames_are_not_slow():
    """Restarts, rewinds and saved places leave gaps of half a second on any machine, and once made a fast one light."""
    detail, figures, now = Detail(), Figures(), 0.0
    for number in range(20 * SPAN):
        now += 0.6 if number % 40 == 0 else 1 / 24
        figures.frame(now, late=False)
        assert not detail.follow("auto", figures, False)


def test_another_walk_begins_anew_but_does_not_forget():
    detail, first = Detail(), Figures()
    detail.follow("auto", first, True)
    shown(first, SPAN + SPAN // 2)
    assert not detail.follow("auto", first, True)
    second = Figures()
    assert not detail.follow("auto", second, True)
    for _ in range(2):
        shown(second, SPAN)
        light = detail.follow("auto", second, True)
    assert light and detail.follow("auto", Figures(), False)


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


@pytest.fixture
def begin(opened: Window, tmp_path, monkeypatch):  # noqa: F811
    """A walk on a backend with detail set, closed afterwards."""
    visits = []

    def made(backend: str, wanted: str) -> Visit:
        monkeypatch.setattr(detail, "SPAN", 12)
        visits.append(visit := Visit(opened, tmp_path, "--backend", backend))
        visit.program._change("detail", wanted)
        visit.press(pygame.K_RETURN)
        visit.until(visit.on(PlayScreen))
        return visit

    yield made
    for visit in visits:
        visit.program.close()


def test_a_world_that_has_none_is_not_followed(begin):
    visit = begin("behind coarse", "auto")
    session = visit.program.session
    visit.until(lambda: session.figures.frames > 60)
    assert not visit.program.generator.light and not session.notices


def test_a_player_who_sets_it_and_a_machine_that_falls_behind(begin, monkeypatch):
    visit = begin("behind", "full")
    one, said = visit.program, []
    session = one.session
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
