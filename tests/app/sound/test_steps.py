"""Motion read from the bundled recording and from made floors, and the footsteps that follow it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from made_floor import floor

from app.sound.motion import NOTHING, FloorMotion, Motion, correlation
from app.sound.steps import FASTEST, SLOWEST, START, Stride, cadence
from generator.data.clips import Clip, Dataset

SAMPLE = Path(__file__).parents[2] / "data" / "sample"
EYE = 41.0  # map units
FPS = 24.0


def sample_clips() -> Iterator[Clip]:
    data = Dataset.open(SAMPLE)
    return (data.clip(i) for i in range(len(data)))


def walked(clip: Clip) -> np.ndarray:
    """The truth: eye heights per tick over the floor, (T - 1,)."""
    return np.hypot(*np.diff(clip.pose[:, :2].astype(float), axis=0).T) / EYE


def measured(clip: Clip) -> list[Motion]:
    frames = clip.frames()
    estimate = FloorMotion((frames.shape[2], frames.shape[1]), Dataset.open(SAMPLE).meta["hfov"])
    return [estimate.measure(frame) for frame in frames]


@pytest.fixture(scope="module")
def recording() -> list[tuple[Clip, list[Motion]]]:
    return [(clip, measured(clip)) for clip in sample_clips()]


def test_the_speed_is_that_of_the_recording(recording: list[tuple[Clip, list[Motion]]]) -> None:
    truth = np.concatenate([walked(clip) for clip, _ in recording])
    found = np.concatenate([[m.speed for m in motions[1:]] for _, motions in recording])
    assert np.corrcoef(truth, found)[0, 1] > 0.8
    assert np.polyfit(truth, found, 1)[0] == pytest.approx(1, abs=0.2)
    assert np.mean(found[truth < 0.01]) < START / 2
    assert np.mean(found[truth > 0.15] > START) > 0.9
    assert recording[0][1][0] == NOTHING


def test_the_turn_is_that_of_the_recording(recording: list[tuple[Clip, list[Motion]]]) -> None:
    truth = np.concatenate([clip.look[1:, 0] for clip, _ in recording])
    found = np.concatenate([[m.turn for m in motions[1:]] for _, motions in recording])
    assert np.corrcoef(truth, found)[0, 1] > 0.8
    assert np.median(np.abs(truth - found)) < 0.3


@pytest.mark.parametrize(
    ("step", "drift", "size"),
    [
        (0.0, 0.0, (256, 160)),
        (0.2, 0.0, (256, 160)),
        (0.4, 0.0, (256, 160)),
        (0.1, 0.2, (256, 160)),
        (-0.3, 0.0, (320, 176)),
    ],
)
def test_a_made_floor_moves_as_it_was_made(step: float, drift: float, size: tuple[int, int]) -> None:
    estimate = FloorMotion(size)
    found = [estimate.measure(picture) for picture in floor(step, 4, size, drift)][1:]
    assert [m.speed for m in found] == pytest.approx([np.hypot(step, drift)] * 3, abs=0.03)
    assert all(m.sure for m in found)


def test_a_blank_floor_and_noise_measure_nothing_sure() -> None:
    estimate = FloorMotion((256, 160))
    grey = np.full((160, 256, 3), 90, np.uint8)
    assert not any(estimate.measure(grey).sure for _ in range(3))
    rng = np.random.default_rng(0)
    noise = [estimate.measure(rng.integers(0, 255, grey.shape, np.uint8)) for _ in range(12)]
    assert sum(m.sure for m in noise) < 3
    estimate.forget()
    assert estimate.measure(grey) == NOTHING


def test_correlation_is_that_of_numpy() -> None:
    rng = np.random.default_rng(1)
    search, piece = rng.normal(size=(9, 11)).astype(np.float32), rng.normal(size=(4, 5)).astype(np.float32)
    scores = correlation(search, piece)
    assert scores.shape == (6, 7)
    for i, j in itertools.product(range(6), range(7)):
        window = search[i : i + 4, j : j + 5].ravel()
        assert scores[i, j] == pytest.approx(np.corrcoef(window, piece.ravel())[0, 1], abs=1e-4)


def steps(speed: float, seconds: float, sure: bool = True) -> int:
    stride = Stride(FPS)
    return sum(stride.step(Motion(speed, 0.0, sure)) for _ in range(round(seconds * FPS)))


def test_the_cadence_follows_the_speed_and_standing_is_silent() -> None:
    assert steps(0.0, 20) == 0 and steps(0.02, 20) == 0 and steps(0.3, 20, sure=False) == 0
    counts = [steps(speed, 20) for speed in (0.06, 0.2, 0.3, 0.6)]
    assert counts == sorted(counts) and counts[0] < counts[1]
    assert counts[1] == pytest.approx(20 * cadence(0.2, FPS), abs=2)
    assert counts[0] >= 20 * SLOWEST - 2 and counts[-1] <= 20 * FASTEST + 1


def test_steps_stop_soon_after_the_walk_and_one_wrong_measurement_is_not_heard() -> None:
    stride = Stride(FPS)
    for _ in range(48):
        stride.step(Motion(0.2, 0.0, True))
    assert stride.speed == pytest.approx(0.2)
    after = [stride.step(Motion(0.0, 0.0, True)) for _ in range(48)]
    assert not any(after[6:]) and stride.speed == 0
    assert not any(stride.step(Motion(0.5 * (k == 5), 0.0, True)) for k in range(24))


def test_losing_sight_of_the_floor_ends_the_walk_after_a_moment() -> None:
    stride = Stride(FPS)
    for _ in range(24):
        stride.step(Motion(0.2, 0.0, True))
    blind = [stride.step(Motion(0.0, 0.0, False)) for _ in range(48)]
    assert any(blind[:12]) and not any(blind[24:])


def test_the_recording_is_heard_where_it_walks(recording: list[tuple[Clip, list[Motion]]]) -> None:
    """Clip 0 stands and then sets off, clip 1 runs, clip 2 walks."""
    heard = []
    for clip, motions in recording:
        stride = Stride(FPS)
        down = [stride.step(motion) for motion in motions]
        still = np.flatnonzero(walked(clip) > 0.01)[0]
        assert not any(down[: still + 1])
        heard.append(sum(down))
    assert 0 < heard[0] < heard[2] <= heard[1]
