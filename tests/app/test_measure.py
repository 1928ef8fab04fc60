"""The game's benchmark, on the fake world."""

from pathlib import Path

import pytest
from fake_world import SIZE, FakeWorld

from app.measure import ANGLES, measure_game


def test_the_report_is_of_this_world() -> None:
    report = measure_game(FakeWorld(Path("x")), steps=20, back=4)
    assert report["exact_after_load"] and report["exact_after_rewind"]
    assert report["state_mb"] == pytest.approx((2 * 3 * SIZE[0] * SIZE[1] + 32) / 1e6)
    assert report["history_mb"] == pytest.approx(21 * (3 * 3 * SIZE[0] * SIZE[1] + 32) / 1e6)
    assert report["state_mb"] < report["file_mb"] < 1.2 * report["state_mb"]
    assert report["reach_s"] == pytest.approx(20 * 4 / 24)
    assert 0 < report["rewind_ms_p50"] <= report["rewind_ms_max"]
    assert [row["yaw"] for row in report["look"]] == list(ANGLES)


def test_a_world_that_does_not_continue_exactly_is_found_out() -> None:
    world = FakeWorld(Path("x"))
    really = world.load_state

    def forgetful(state: dict) -> None:  # type: ignore[type-arg]
        really(state)
        world.pose += 7

    world.load_state = forgetful  # type: ignore[method-assign, assignment]
    report = measure_game(world, steps=20, back=4)
    assert not report["exact_after_load"] and not report["exact_after_rewind"]
