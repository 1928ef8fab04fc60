"""Looking ahead: the shift's size and direction, what error it leaves, and that only the window ever shows it."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pygame
import pytest
from fake_world import SIZE
from test_history import walk
from test_rewind import PICTURE, Run
from test_window import opened  # noqa: F401

from app.reproject import MARGIN, far_view, residuals, shift_of, shifted
from app.screens.play import PlayScreen
from app.settings import Settings
from app.ticks import VideoFrame
from app.window import Window
from controls.action import ActionSpec
from controls.bindings import load_bindings
from controls.sampler import InputSampler

HFOV, ASPECT = 100.4, 1.6


def test_content_goes_against_the_turn_by_what_a_camera_shows() -> None:
    right, up = shift_of((1.0, 0.0), HFOV, ASPECT), shift_of((0.0, 1.0), HFOV, ASPECT)
    focal = 0.5 / math.tan(math.radians(HFOV / 2))  # in widths
    assert right == (pytest.approx(-focal * math.tan(math.radians(1)), rel=0.02), 0.0)
    assert up == (0.0, pytest.approx(focal * ASPECT * math.tan(math.radians(1)), rel=0.05))
    assert shift_of((0.0, 0.0), HFOV, ASPECT) == (0.0, 0.0) == shift_of((30.0, -20.0), HFOV, ASPECT, strength=0.0)
    half = shift_of((1.0, 0.0), HFOV, ASPECT, strength=0.5)
    assert half[0] == pytest.approx(right[0] / 2, rel=0.02)


def test_the_shift_never_leaves_the_hidden_margin_and_grows_steadily() -> None:
    across = [shift_of((yaw, yaw / 3), HFOV, ASPECT)[0] for yaw in np.linspace(-400, 400, 161)]
    assert max(map(abs, across)) <= MARGIN
    assert all(one >= other for one, other in itertools.pairwise(across))
    for turn in ((500.0, 500.0), (-500.0, -500.0)):
        assert all(abs(part) == pytest.approx(MARGIN, rel=1e-3) for part in shift_of(turn, HFOV, ASPECT))


def test_shifted_moves_content_and_nothing_else() -> None:
    picture = np.random.default_rng(0).random((40, 64))
    crop = shifted(picture, (0.0, 0.0), margin=0.0)
    assert np.allclose(crop, picture)
    moved = shifted(picture, (3 / 64, -2 / 40), margin=0.0)
    assert np.allclose(moved[:-2, 3:], picture[2:, :-3])


def test_far_scenery_turns_as_a_camera_would_show_it() -> None:
    """The heading at one column of a view is the heading at another column of the turned view."""
    size = (201, 121)
    edge = math.tan(math.radians(HFOV) / 2)
    plain, turned = (far_view((yaw, 0.0), HFOV, size, seed=3) for yaw in (0.0, 20.0))
    column = round((math.tan(math.radians(20)) / edge + 1) / 2 * 201 - 0.5)
    exact = (column + 0.5) / 201 * 2 - 1
    left = math.degrees(math.atan(exact * edge)) - 20
    assert abs(left) < 0.3
    assert np.abs(plain[60, column] - turned[60, 100]) < 0.05
    assert plain.std() > 0.1 and plain.min() > -0.5 and plain.max() < 1.5


def test_most_of_the_error_of_a_small_turn_is_taken_away() -> None:
    rows = {row["yaw"]: row for row in residuals([0.5, 1.0, 2.0, 4.0, 8.0], size=(128, 80))}
    assert rows[1.0]["share"] > 0.7 and rows[4.0]["share"] > 0.5
    assert all(row["shifted"] < row["still"] for row in rows.values())
    assert rows[8.0]["still"] > rows[1.0]["still"]
    weak = residuals([2.0], size=(128, 80), strength=0.5)[0]
    assert rows[2.0]["shifted"] < weak["shifted"] < weak["still"]


def test_every_frame_knows_the_look_up_to_its_own_tick() -> None:
    actions = walk(20)
    run = Run(actions)
    run.until_frame(60)
    total = np.cumsum(np.concatenate([action.look for action in actions]), axis=0)
    for _, frame in run.shown[1:]:
        assert frame.looked == pytest.approx(total[frame.number - 1].tolist(), abs=1e-3)
    assert run.shown[0][1].looked is None
    missing = np.subtract(run.session.looked, run.shown[-1][1].looked or (0, 0))
    assert np.abs(missing).max() > 0.5, "ticks are sampled before their frames are shown"


class Stage:
    """A play screen over a session on a fake clock."""

    def __init__(self, window: Window, ahead: float) -> None:
        self.run = Run([])
        self.run.generator.pid = None  # type: ignore[attr-defined]
        sampler = InputSampler(ActionSpec(), load_bindings(), sensitivity=0.1)
        self.run.hands.tick = sampler.tick  # type: ignore[method-assign]
        self.window = window
        self.screen = PlayScreen(window, self.run.session, sampler, None, {"hfov": HFOV}, Settings(ahead=ahead))
        self.screen.capture(True)

    def turn(self, seconds: float) -> list[float]:
        """Play on; returns the shift across after each round."""
        end, shifts = self.run.clock.now() + seconds, []
        while self.run.clock.now() < end:
            assert self.screen.update() is None
            if self.screen.dirty:
                self.screen.draw(self.window.surface)
                self.screen.drawn()
            shifts.append(self.screen._shift[0])
            self.run.clock.time += 1 / 240
        return shifts


def test_the_window_looks_ahead_at_once_and_eases_out_as_frames_arrive(opened: Window) -> None:  # noqa: F811
    stage = Stage(opened, ahead=1.0)
    assert set(stage.turn(1.0)) == {0.0}
    motion = pygame.event.Event(pygame.MOUSEMOTION, rel=(30, 0), pos=(0, 0), buttons=(0, 0, 0))
    assert stage.screen.handle(motion) is None
    shifts = stage.turn(1.5)
    wanted = shift_of((3.0, 0.0), HFOV, SIZE[0] / SIZE[1])[0]
    assert min(shifts) == pytest.approx(wanted, rel=0.05) and shifts[2] < 0.9 * wanted, "within a few rounds"
    assert shifts[-1] == pytest.approx(0.0, abs=1e-4)
    begun = next(i for i, shift in enumerate(shifts) if shift < 0)
    gone = next(i for i, shift in enumerate(shifts) if i > begun and abs(shift) < 1e-4)
    assert 0.1 < (gone - begun) / 240 < 0.6
    look = stage.run.session.figures.look_to_submit_ms.all()
    assert len(stage.run.session.figures.look_to_submit_ms) == 1 and look["max"] < 20
    kept = stage.screen.last
    assert isinstance(kept, VideoFrame) and kept.pixels.shape == PICTURE.shape


def test_strength_nothing_means_the_whole_picture_unshifted(opened: Window) -> None:  # noqa: F811
    stage = Stage(opened, ahead=0.0)
    stage.turn(0.5)
    stage.screen.handle(pygame.event.Event(pygame.MOUSEMOTION, rel=(90, 0), pos=(0, 0), buttons=(0, 0, 0)))
    assert set(stage.turn(0.6)) == {0.0} and not len(stage.run.session.figures.look_to_submit_ms)
    assert stage.screen.last is not None
    stage.screen._message, stage.run.session.figures.frames = None, 1000
    stage.screen.draw(opened.surface)
    drawn = pygame.surfarray.array3d(opened.surface)
    opened.draw_frame(stage.screen.last.pixels, "smooth")
    assert np.array_equal(drawn, pygame.surfarray.array3d(opened.surface))


@pytest.mark.parametrize("scaling", ["smooth", "integer"])
def test_a_shifted_picture_fills_its_view_and_moves_by_its_share(opened: Window, scaling: str) -> None:  # noqa: F811
    frame = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)
    frame[:, 126:130] = 255

    def bright(shift: float) -> float:
        view = opened.draw_ahead(frame, scaling, (shift, 0.0), MARGIN)
        drawn = pygame.surfarray.array3d(opened.surface)[:, opened.surface.get_height() // 2, 0].astype(float)
        assert drawn[view.left : view.right].min() >= 89, "no edge of the picture is ever in sight"
        return float(np.flatnonzero(drawn > 170).mean()) / (view.width / (1 - 2 * MARGIN))

    middle = bright(0.0)
    assert bright(0.03) - middle == pytest.approx(0.03, abs=0.002)
    assert bright(-0.05) - middle == pytest.approx(-0.05, abs=0.002)
    assert bright(0.4) - middle == pytest.approx(MARGIN, abs=0.002), "and never further than the margin"
