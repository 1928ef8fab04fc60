"""Control: agreement of measured and commanded motion."""

import numpy as np
import pytest

from controls.action import ActionSpec
from controls.camera import Camera
from generator.evaluation.control import (
    Walk,
    after_jump,
    agreement,
    commanded_speed,
    measure_control,
    running_median,
)

SPEC = ActionSpec()


def test_agreement_gives_slope_correlation_and_what_was_measured():
    asked = np.arange(10.0)
    measured = 2 * asked + 1
    measured[3] = np.nan
    assert agreement(measured, asked) == pytest.approx({"corr": 1.0, "slope": 2.0, "measured": 0.9})


def test_agreement_with_a_constant_is_undefined():
    assert agreement(np.ones(5), np.arange(5.0))["corr"] is None
    assert agreement(np.full(5, np.nan), np.arange(5.0)) == {"corr": None, "slope": None, "measured": 0.0}


def test_commanded_speed_rises_to_the_run_and_falls_back():
    keys = np.zeros((120, len(SPEC.keys)), np.uint8)
    keys[:60, SPEC.keys.index("forward")] = keys[:60, SPEC.keys.index("run")] = 1
    speed = commanded_speed(keys, SPEC, 24)
    assert speed[59] == pytest.approx(2, abs=0.01)
    assert (np.diff(speed[:60]) > 0).all()
    assert speed[-1] == pytest.approx(0, abs=0.01)


def test_running_median_skips_what_was_not_measured():
    values = np.array([1.0, 1.0, np.nan, 9.0, 1.0, 1.0])
    assert np.array_equal(running_median(values), np.ones(6))
    assert np.isnan(running_median(np.full(3, np.nan))).all()


def test_a_world_that_obeys_scores_one_and_one_that_turns_half_as_far_a_slope_of_half(rooms):
    look = np.zeros((25, 2), np.float32)
    look[1:, 0] = 5 * np.sin(np.arange(24) / 3)
    keys = np.zeros((25, len(SPEC.keys)), np.uint8)
    for share in (1.0, 0.5):
        yaws = np.cumsum(look[:, 0]) * share
        frames = np.stack([rooms.room(160, 100, 100.0, yaw) for yaw in yaws])
        figures = measure_control([Walk(frames, keys, look, np.zeros(25))], SPEC, Camera(100.0), 24)
        assert figures["yaw.corr"] > 0.98
        assert figures["yaw.slope"] == pytest.approx(share, abs=0.05)
        assert figures["forward.corr"] is None


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_pitch_is_compared_with_what_was_asked(rooms, share):
    look = np.zeros((25, 2), np.float32)
    look[1:, 1] = 2 * np.sin(np.arange(24) / 3)
    pitch = np.cumsum(look[:, 1].astype(np.float64))
    frames = np.stack([rooms.room(192, 120, 100.0, 0.0, share * up) for up in pitch])
    keys = np.zeros((25, len(SPEC.keys)), np.uint8)
    figures = measure_control([Walk(frames, keys, look, pitch)], SPEC, Camera(100.0), 24)
    assert figures["pitch.corr"] > 0.95 and figures["pitch.measured"] > 0.8
    assert figures["pitch.slope"] == pytest.approx(share, abs=0.1)


def test_a_second_after_a_jump_is_left_out():
    keys = np.zeros((60, len(SPEC.keys)), np.uint8)
    keys[10:12, SPEC.keys.index("jump")] = 1
    assert np.flatnonzero(after_jump(keys, SPEC, 24)).tolist() == list(range(10, 36))
    assert not after_jump(keys, ActionSpec(keys=("forward",)), 24).any()
