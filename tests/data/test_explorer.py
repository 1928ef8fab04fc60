"""The explorer in a mock world without an engine: it goes places, smoothly, exactly and reproducibly."""

import math

import numpy as np
import pytest

from controls.action import KEYS
from generator.data.engine import LOOK_STEP, Pose, quantise
from generator.data.explorer import CARELESS, PITCH_HIGH, PITCH_LOW, RUNNING, Explorer, bearing, smooth, wrap
from generator.data.navigation import WalkGrid

KEY = {name: i for i, name in enumerate(KEYS)}


def room() -> WalkGrid:
    """Two halls of 40 x 30 cells joined by a gap."""
    cells = np.zeros((42, 62), bool)
    cells[1:41, 1:30] = cells[1:41, 32:61] = cells[18:24, 29:33] = True
    return WalkGrid(cells, np.zeros(cells.shape, np.int16))


def play(seed: int, ticks: int = 1500, careless: bool | None = None):
    """Walk with friction and walls: keys (T, K), look (T, 2), poses (T, 5)."""
    grid = room()
    explorer = Explorer(grid, np.random.default_rng(seed))
    explorer.careless = explorer.careless if careless is None else careless
    (x, y), yaw = explorer.spawn()
    pose = Pose(x, y, 41.0, yaw % 360, 0.0)
    speed = np.zeros(2)
    rows = []
    for _ in range(ticks):
        keys, look = explorer.tick(pose)
        ahead = keys[KEY["forward"]] * 1.0 - keys[KEY["backward"]]
        side = keys[KEY["right"]] * 1.0 - keys[KEY["left"]]
        yaw, pitch = (pose.yaw + look[0]) % 360, pose.pitch + look[1]
        a = math.radians(-yaw)
        push = (2.0 if keys[KEY["run"]] else 1.0) * np.array(
            [ahead * math.cos(a) + side * math.sin(a), ahead * math.sin(a) - side * math.cos(a)]
        )
        speed = 0.9 * speed + 0.6 * push
        there = (pose.x + speed[0], pose.y + speed[1])
        if not grid.is_open(grid.cell_at(*there)):
            speed[:] = 0
            there = (pose.x, pose.y)
        pose = Pose(*there, 41.0, yaw, pitch)
        rows.append((keys, look, pose.row()))
    keys, look, poses = zip(*rows, strict=True)
    return np.array(keys), np.array(look), np.array(poses)


def test_same_seed_same_walk():
    for a, b in zip(play(3, 300), play(3, 300), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(play(3, 300)[0], play(4, 300)[0])


@pytest.fixture(scope="module")
def walks():
    return [play(seed) for seed in range(6)]


def test_it_goes_places(walks):
    for _, _, poses in walks:
        assert np.ptp(poses[:, :2], axis=0).max() > 500
    assert any(poses[:, 0].min() < 28 * 32 and poses[:, 0].max() > 34 * 32 for _, _, poses in walks)


def test_it_does_what_people_do(walks):
    keys = np.concatenate([k for k, _, _ in walks]).astype(bool)
    look = np.concatenate([v for _, v, _ in walks])
    moving = keys[:, :4].any(1)
    assert 0.35 < keys[:, KEY["forward"]].mean() < 0.9
    assert 0.1 < (~moving).mean() < 0.6
    for name in ("backward", "left", "right", "jump"):
        assert 0.003 < keys[:, KEY[name]].mean() < 0.2, name
    assert not keys[:, KEY["attack"]].any() and not keys[:, KEY["use"]].any()
    turn = np.abs(look[:, 0])
    assert np.median(turn) < 3
    assert 3 < np.percentile(turn, 98) <= 11
    assert turn.max() < 13
    assert (turn == 0).mean() > 0.03


def test_it_mostly_walks_and_sometimes_runs(walks):
    """Walking dominates: over the six walks, and in what explorers start with (one walk rarely changes its pace)."""
    keys = np.concatenate([k for k, _, _ in walks]).astype(bool)
    moving = keys[:, :4].any(1)
    assert 0.1 < keys[moving, KEY["run"]].mean() < 0.5
    grid = room()
    start = np.mean([Explorer(grid, np.random.default_rng(seed)).runs for seed in range(400)])
    assert 0.8 * RUNNING < start < 1.2 * RUNNING
    assert 0.1 < RUNNING < 0.5


def test_there_is_stillness_to_learn_from(walks):
    """Ticks without look motion, and whole latent frames of 4 ticks without a key or look motion."""
    keys, look = (np.stack([walk[i] for walk in walks]) for i in (0, 1))
    still = (look == 0).all(-1)
    assert 0.08 < still.mean() < 0.30
    idle = (still & ~keys.any(-1)).reshape(len(walks), -1, 4).all(-1)
    assert 0.04 < idle.mean() < 0.25


def test_pitch_stays_in_bounds_and_near_level(walks):
    pitch = np.concatenate([p[:, 4] for _, _, p in walks])
    assert pitch.min() >= PITCH_LOW - LOOK_STEP
    assert pitch.max() <= PITCH_HIGH + LOOK_STEP
    assert np.abs(np.median(pitch)) < 5
    assert (np.abs(pitch) < 10).mean() > 0.7


def test_looks_are_whole_engine_steps_and_smooth(walks):
    look = np.concatenate([v for _, v, _ in walks])
    np.testing.assert_allclose(quantise(look), look, atol=1e-5)
    for _, v, _ in walks:
        assert np.percentile(np.abs(np.diff(v[:, 0])), 95) < 3


def test_it_keeps_off_walls(walks):
    grid = room()
    near = [grid.clearance[grid.cell_at(x, y)] < 2 for _, _, p in walks for x, y in p[:, :2]]
    assert np.mean(near) < 0.15


def test_the_careless_walk_into_walls_and_away_again():
    """What players do and careful explorers never show: pushing against a wall for a while, then turning from it."""
    grid, pushed, held = room(), [], []
    for careless in (False, True):
        walks = [play(seed, 900, careless) for seed in range(4)]
        still = [np.hypot(*np.diff(p[:, :2], axis=0, prepend=p[:1, :2]).T) < 0.5 for _, _, p in walks]
        ahead = [k[:, KEY["forward"]].astype(bool) for k, _, _ in walks]
        pushed.append(np.mean([(a & b).mean() for a, b in zip(still, ahead, strict=True)]))
        runs = [len(run) for a, b in zip(still, ahead, strict=True)
                for run in "".join("x" if v else " " for v in a & b).split()]  # fmt: skip
        held.append(max(runs, default=0))
        assert all(np.ptp(p[:, :2], axis=0).max() > 300 for _, _, p in walks)
    assert pushed[1] > 3 * pushed[0] and pushed[1] > 0.05
    assert 5 < held[1] < 250
    share = np.mean([Explorer(grid, np.random.default_rng(seed)).careless for seed in range(400)])
    assert abs(share - CARELESS) < 0.08


def test_smoothing_keeps_ends_and_rounds_corners():
    corner = np.array([(0.0, 32.0 * i) for i in range(10)] + [(32.0 * i, 288.0) for i in range(1, 10)])
    path = smooth(corner)
    np.testing.assert_array_equal(path[[0, -1]], corner[[0, -1]])
    assert np.hypot(*(path - (0, 288)).T).min() > 10
    turns = np.abs(np.diff(np.unwrap(np.arctan2(*np.diff(path, axis=0).T))))
    assert turns.max() < math.radians(25)


def test_angles():
    assert wrap(350) == -10
    assert wrap(-190) == 170
    assert bearing((0, 0), (0, 5)) == -90  # north is left of east
