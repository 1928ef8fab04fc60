"""The engine: exact looks, field of view measured on frames, determinism, errors."""

from pathlib import Path

import numpy as np
import pytest

from controls.action import KEYS
from controls.errors import UserError
from generator.data.doom_map import read_map, walk_grid
from generator.data.engine import HEIGHT, LOOK_STEP, WIDTH, Engine, EngineConfig, horizontal_fov, quantise
from generator.data.explorer import wrap

pytest.importorskip("vizdoom")
from generator.data.sources import wad_path

IDLE = np.zeros(len(KEYS), np.uint8)


def hold(*names: str) -> np.ndarray:
    return np.array([name in names for name in KEYS], np.uint8)


@pytest.fixture(scope="module")
def engine():
    with Engine(EngineConfig(wad_path("freedoom2.wad"), light=16)) as made:
        yield made


@pytest.fixture(scope="module")
def place():
    grid = walk_grid(read_map(wad_path("freedoom2.wad"), "MAP01"))
    return grid.centre(tuple(grid.places[194]))


def test_looks_are_applied_exactly(engine, place):
    engine.start("MAP01", 1)
    before = engine.warp(*place)
    for look in quantise([(3.3, 0.0), (-0.4, 2.5), (9.9, -7.25), (-120.0, 0.0), (0.0061, 0.0055)]):
        engine.step(IDLE, (look[0], look[1]))
        after = engine.pose()
        assert wrap(after.yaw - before.yaw) == pytest.approx(look[0], abs=LOOK_STEP / 10)
        assert after.pitch - before.pitch == pytest.approx(look[1], abs=LOOK_STEP / 10)
        before = after


def test_forward_walks_along_the_yaw_and_run_is_faster(engine, place):
    speeds = []
    for keys in (hold("forward"), hold("forward", "run")):
        engine.start("MAP01", 1)
        before = engine.warp(*place)
        for _ in range(8):
            engine.step(keys, (0.0, 0.0))
        after = engine.pose()
        step = np.array([after.x - before.x, after.y - before.y])
        angle = np.radians(-after.yaw)
        assert step @ (np.cos(angle), np.sin(angle)) == pytest.approx(np.hypot(*step), rel=1e-3)
        speeds.append(np.hypot(*step))
    assert speeds[1] > 1.7 * speeds[0]


def test_frames_have_the_standard_size(engine, place):
    engine.start("MAP01", 1)
    engine.warp(*place)
    picture, pose = engine.observe()
    assert picture.size == (WIDTH, HEIGHT)
    assert (pose.x, pose.y) == pytest.approx(place, abs=0.1)


def walk(engine, place):
    engine.start("MAP01", 9)
    engine.warp(*place)
    frames = []
    for i in range(20):
        engine.step(hold("forward", "run"), (float(quantise(2.0 * np.sin(i))), 0.0))
        frames.append(np.asarray(engine.observe()[0]))
    return np.stack(frames)


def test_same_seed_same_frames_whatever_came_before(engine, place):
    first = walk(engine, place)
    engine.start("MAP02", 4)
    engine.step(hold("forward"), (5.0, 5.0))
    np.testing.assert_array_equal(walk(engine, place), first)


def test_field_of_view(engine, place):
    """Turn by 20 degrees and find the width of view under which the columns of both frames agree."""
    engine.start("MAP01", 1)
    engine.warp(*place)
    for _ in range(20):
        engine.step(IDLE, (0.0, 0.0))
    rows = []
    for turn in (0.0, float(quantise(20.0))):
        engine.step(IDLE, (turn, 0.0))
        picture = np.asarray(engine.observe()[0].convert("L"), float)
        rows.append(picture[HEIGHT // 2 - 4 : HEIGHT // 2 + 4].mean(0))
    columns = np.arange(WIDTH)
    errors = {}
    for fov in np.arange(85, 115, 0.5):
        focal = WIDTH / 2 / np.tan(np.radians(fov / 2))
        seen = np.degrees(np.arctan((columns + 0.5 - WIDTH / 2) / focal)) + 20
        source = focal * np.tan(np.radians(seen)) + WIDTH / 2 - 0.5
        shared = (seen < 85) & (source < WIDTH - 3)
        errors[fov] = np.abs(np.interp(source[shared], columns, rows[0]) - rows[1][shared]).mean()
    assert min(errors, key=errors.__getitem__) == pytest.approx(horizontal_fov(), abs=1.0)


def test_missing_files_are_reported():
    with pytest.raises(UserError, match=r"nowhere\.wad"):
        Engine(EngineConfig(Path("nowhere.wad")))
    with pytest.raises(UserError, match=r"nowhere\.pk3"):
        Engine(EngineConfig(wad_path("freedoom2.wad"), Path("nowhere.pk3")))
