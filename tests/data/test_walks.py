"""Fresh walks: the explorer's behaviour without an engine."""

import math

import numpy as np
import pytest

from controls.action import KEYS
from generator.data.engine import LOOK_STEP
from generator.data.navigation import WalkGrid
from generator.data.walks import WALK, Body, fresh_walk, hall

FORWARD, LEFT, RUN = (KEYS.index(name) for name in ("forward", "left", "run"))


def pressed(*names: int) -> np.ndarray:
    keys = np.zeros(len(KEYS), np.uint8)
    keys[list(names)] = 1
    return keys


@pytest.fixture
def field():
    """A square of 40 x 40 cells with a wall around it."""
    free = np.zeros((42, 42), bool)
    free[1:-1, 1:-1] = True
    return WalkGrid(free, np.zeros((42, 42), np.int16))


def test_a_walk_is_that_of_an_explorer():
    """Shares as in recordings: mostly forward, some standing and strafing, a hand that turns in whole engine steps."""
    walks = [fresh_walk(96, np.random.default_rng(seed)) for seed in range(24)]
    keys, look = (np.concatenate(part) for part in zip(*walks, strict=True))
    assert keys.shape == (24 * 96, len(KEYS)) and keys.dtype == np.uint8 and look.dtype == np.float32
    shares = dict(zip(KEYS, keys.mean(0), strict=True))
    assert 0.5 < shares["forward"] < 0.85 and 0.02 < shares["left"] + shares["right"] < 0.35
    assert 0.02 < shares["run"] < 0.4 and shares["attack"] == 0 and shares["use"] == 0
    still = (np.abs(look).max(1) < 0.05).mean()
    assert 0.1 < still < 0.45 and 0.5 < np.abs(look[:, 0]).mean() < 2.5
    steps = look.astype(np.float64) / LOOK_STEP
    assert np.abs(steps - np.rint(steps)).max() < 1e-2
    assert 0.2 < np.sign(look[:, 0][look[:, 0] != 0]).clip(0).mean() < 0.8, "one side alone"


def test_walks_follow_their_generator():
    one, same, other = (fresh_walk(40, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not np.array_equal(one[1], other[1])
    rng = np.random.default_rng(1)
    first, second = fresh_walk(40, rng), fresh_walk(40, rng)
    assert np.array_equal(first[1], one[1]) and not np.array_equal(second[1], one[1])


def test_a_body_walks_runs_turns_and_comes_to_rest(field):
    body = Body(field, 600.0, 600.0, 0.0)
    for _ in range(24):
        body.step(pressed(FORWARD), (0.0, 0.0))
    before = body.pose
    body.step(pressed(FORWARD), (0.0, 0.0))
    assert body.pose.x - before.x == pytest.approx(WALK, rel=0.05) and body.pose.y == before.y
    for _ in range(24):
        body.step(pressed(FORWARD, RUN), (90.0 / 24, 0.0))
    assert body.pose.yaw == pytest.approx(90.0)
    before = body.pose
    body.step(pressed(FORWARD, RUN), (0.0, 0.0))
    assert before.y - body.pose.y > 1.4 * WALK, "a turn to the right leads to smaller y"
    for _ in range(40):
        body.step(pressed(), (0.0, 0.0))
    before = body.pose
    body.step(pressed(), (0.0, 3.0))
    assert math.hypot(body.pose.x - before.x, body.pose.y - before.y) < 0.1 and body.pose.pitch == 3.0


def test_walls_stop_a_body_and_let_it_slide(field):
    body = Body(field, 600.0, 50.0, 45.0)
    for _ in range(60):
        body.step(pressed(FORWARD), (0.0, 0.0))
    assert 32 <= body.pose.y < 34 + WALK and body.pose.x > 800
    assert field.is_open(field.cell_at(body.pose.x, body.pose.y))


def test_halls_are_large_enough_to_walk_in():
    grids = [hall(number) for number in range(2)]
    assert all(len(grid.places) > 50 for grid in grids) and hall(0) is grids[0]
    assert not np.array_equal(grids[0].open, grids[1].open)
