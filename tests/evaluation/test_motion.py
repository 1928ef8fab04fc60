"""Motion read from pictures: exact where the motion is known, and true to the engine's clips."""

from pathlib import Path

import numpy as np
import pytest

from controls.camera import Camera
from generator.data.clips import Dataset
from generator.evaluation.motion import (
    MAX_YAW,
    View,
    masked_correlation,
    peak,
    pitch_per_tick,
    turned,
    walk_per_tick,
    yaw_per_tick,
)

SAMPLE = Path(__file__).parents[1] / "data" / "sample"
HFOV, EYE = 100.0, 41.0  # map units of the engine's eye height
WIDTH, HEIGHT = 192, 120


def film(rooms, yaws, pitches, steps):
    return np.stack([rooms.room(WIDTH, HEIGHT, HFOV, y, p, a) for y, p, a in zip(yaws, pitches, steps, strict=True)])


@pytest.mark.parametrize("step", [-11.0, -3.0, -0.5, 0.0, 1.25, 6.0, 12.5])
def test_yaw_of_a_panorama_is_found_to_a_fraction_of_a_pixel(rooms, step):
    yaws = np.arange(4) * step
    frames = film(rooms, yaws, [0, 0, 0, 0], [0, 0, 0, 0])
    assert np.allclose(yaw_per_tick(frames, Camera(HFOV), np.zeros(4)), step, atol=0.3)


def test_a_change_of_pitch_does_not_disturb_yaw(rooms):
    pitches = np.array([0.0, 4.0, -6.0, 2.0])
    frames = film(rooms, np.arange(4) * 5.0, pitches, np.zeros(4))
    assert np.allclose(yaw_per_tick(frames, Camera(HFOV), pitches), 5.0, atol=0.4)


@pytest.mark.parametrize("step", [-0.3, 0.0, 0.2, 0.4])
def test_steps_over_the_floor_are_found_in_eye_heights(rooms, step):
    frames = film(rooms, np.zeros(5), np.zeros(5), np.arange(5) * step)
    moved = walk_per_tick(frames, Camera(HFOV), np.zeros(5), np.zeros(4))
    assert np.allclose(moved[:, 0], step, atol=0.05)
    assert np.allclose(moved[:, 1], 0, atol=0.05)


@pytest.mark.parametrize("step", [-6.0, -1.0, 0.0, 0.5, 3.0])
def test_a_nod_is_found_while_turning_and_walking(rooms, step):
    pitches = np.array([0.0, step, 2 * step])
    frames = film(rooms, [0.0, 4.0, 8.0], pitches, [0.0, 0.2, 0.4])
    assert np.allclose(pitch_per_tick(frames, Camera(HFOV), pitches, np.full(2, 4.0)), step, atol=0.35)


def test_turning_on_the_spot_is_not_walking(rooms):
    yaws = np.arange(4) * 7.0
    moved = walk_per_tick(film(rooms, yaws, np.zeros(4), np.zeros(4)), Camera(HFOV), np.zeros(4), np.full(3, 7.0))
    assert np.abs(moved).max() < 0.06


def test_nothing_is_measured_where_nothing_is_seen():
    frames = np.full((3, HEIGHT, WIDTH, 3), 128, np.uint8)
    assert np.isnan(yaw_per_tick(frames, Camera(HFOV), np.zeros(3))).all()
    assert np.isnan(pitch_per_tick(frames, Camera(HFOV), np.zeros(3), np.zeros(2))).all()
    assert np.isnan(pitch_per_tick(frames, Camera(HFOV), np.zeros(3), np.full(2, np.nan))).all()
    assert np.isnan(walk_per_tick(frames, Camera(HFOV), np.zeros(3), np.zeros(2))).all()


def test_masked_correlation_ignores_what_is_masked():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(20, 30))
    second = np.roll(first, (3, -4), (0, 1))
    mask = np.ones_like(first, bool)
    first[:6], mask[:6] = 50.0, False
    shift, score = peak(masked_correlation(first, second, (mask, np.ones_like(mask)), (0, 1)), (8, 8))
    assert np.allclose(shift, (-3, 4), atol=0.2)
    assert score > 0.9


def test_turned_cuts_the_new_view_out_of_the_old_one(rooms):
    view = View(WIDTH, HEIGHT, HFOV)
    before, after = film(rooms, [0, 6], [0, 3], [0, 0])
    guess = turned(before, view, 6.0, 0.0, 3.0)
    middle = np.s_[20:90, 30:140]
    error = np.abs(guess[middle].astype(int) - after[middle]).mean()
    assert error < 0.5 * np.abs(before[middle].astype(int) - after[middle]).mean()
    assert np.array_equal(turned(before, view, 0.0, 0.0, 0.0), before)


def test_the_estimators_agree_with_the_engine_on_real_clips():
    data = Dataset.open(SAMPLE)
    camera = Camera(data.meta["hfov"], data.size[0] / data.size[1])
    errors, nods, speeds = [], [], []
    for index in range(len(data)):
        clip = data.clip(index)
        yaw = yaw_per_tick(clip.frames(), camera, clip.pose[:, 4])
        assert np.abs(clip.look[1:, 0]).max() < MAX_YAW
        errors.append(np.abs(yaw - clip.look[1:, 0]))
        nod = pitch_per_tick(clip.frames(), camera, clip.pose[:, 4], yaw)
        nods.append(np.abs(nod - np.diff(clip.pose[:, 4]))[np.diff(clip.pose[:, 2]) == 0])
        moved = np.diff(clip.pose[:, :2], axis=0)
        heading = np.radians(clip.pose[1:, 3])
        real = (np.cos(heading) * moved[:, 0] - np.sin(heading) * moved[:, 1]) / EYE
        found = walk_per_tick(clip.frames(), camera, clip.pose[:, 4], yaw)[:, 0]
        speeds.append(np.stack([real, found]))
    assert np.nanmedian(np.concatenate(errors)) < 0.3
    assert np.nanmedian(np.concatenate(nods)) < 0.1
    real, found = np.concatenate(speeds, axis=1)
    known = ~np.isnan(found)
    assert np.median(np.abs(found - real)[known]) < 0.05
    assert np.corrcoef(real[known], found[known])[0, 1] > 0.6
