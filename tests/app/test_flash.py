"""The flash guard against strobes of every kind, and against pictures that it must leave alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.flash import FlashGuard, luminance

FPS = 24
SHAPE = (40, 60)


def field(grey: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    return np.full((*shape, 3), grey, np.uint8)


def quarters(greys: tuple[int, int, int, int]) -> np.ndarray:
    picture = field(0)
    for number, grey in enumerate(greys):
        y, x = divmod(number, 2)
        picture[20 * y : 20 * y + 20, 30 * x : 30 * x + 30] = grey
    return picture


def guarded(pictures: list[np.ndarray], fps: float = FPS, guard: FlashGuard | None = None) -> list[np.ndarray]:
    guard = guard or FlashGuard()
    return [guard.show(picture, k / fps) for k, picture in enumerate(pictures)]


def linear(grey: float) -> float:
    value = grey / 255
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def turns(greys: list[float]) -> list[tuple[int, int]]:
    """(frame, way) of every change of a tenth of luminance from the last turning point, darker end below 0.8."""
    values = [linear(g) for g in greys]
    found: list[tuple[int, int]] = []
    low = high = values[0]
    way = 0
    for k, value in enumerate(values):
        if way != 1 and value - low >= 0.1 and low < 0.8:
            way, high = 1, value
            found.append((k, 1))
        elif way != -1 and high - value >= 0.1 and value < 0.8:
            way, low = -1, value
            found.append((k, -1))
        low, high = min(low, value), max(high, value)
        if way == 1 and found[-1][0] == k:
            low = value
        if way == -1 and found[-1][0] == k:
            high = value
    return found


def flashes(greys: list[float], fps: float = FPS) -> int:
    """The most flashes (a rise and a fall, or a fall and a rise) in any second."""
    found = turns(greys)
    return max((sum(start <= k < start + fps for k, _ in found) // 2 for start, _ in found), default=0)


def greys_of(pictures: list[np.ndarray], y: int = 0, x: int = 0) -> list[float]:
    return [float(p[y, x].mean()) for p in pictures]


@pytest.mark.parametrize("period", [2, 3, 4, 5, 6])
@pytest.mark.parametrize(("dark", "light"), [(0, 255), (60, 160), (0, 120)])
def test_a_strobe_is_held_to_three_flashes_a_second(period: int, dark: int, light: int) -> None:
    strobe = [field(light if k % period < period // 2 else dark) for k in range(5 * FPS)]
    assert flashes(greys_of(strobe)) > 3
    shown = guarded(strobe)
    assert flashes(greys_of(shown)) <= 3
    assert shown[:4] == strobe[:4] or all(np.array_equal(a, b) for a, b in zip(shown[:4], strobe[:4], strict=True))


def test_a_fast_strobe_becomes_a_steady_picture_and_ends_with_the_strobe() -> None:
    strobe = [field(255 * (k % 2)) for k in range(4 * FPS)]
    calm = [field(200)] * (3 * FPS)
    guard = FlashGuard()
    shown = guarded(strobe + calm, guard=guard)
    late = greys_of(shown)[3 * FPS : 4 * FPS]
    assert max(late) - min(late) < 60 and 60 < np.mean(late) < 200
    assert guard.softened > 2 * FPS
    assert shown[-1] is calm[-1], "and then the picture itself"
    assert shown[4 * FPS + 40] is calm[40]


def crowded(pictures: list[np.ndarray], y: int = 0, x: int = 0) -> bool:
    """Whether more than three rises, or more than three falls, come within a second."""
    found = turns(greys_of(pictures, y, x))
    ways = [[k for k, w in found if w == way] for way in (1, -1)]
    return any(frames[i + 3] - frames[i] < FPS for frames in ways for i in range(len(frames) - 3))


def test_what_the_mean_itself_adds_is_counted_too() -> None:
    """Three flashes are allowed after a strobe, but the screen has just gone from the mean to black as well."""
    strobe = [field(255 * (k % 2)) for k in range(48)]
    flashing = 0
    for calm in range(14, 30):
        given = [*strobe, *[field(0)] * calm, *[field(255 * (k % 2)) for k in range(1, 7)], *[field(0)] * 24]
        shown = guarded(given)
        assert not crowded(shown), calm
        flashing += max(greys_of(shown)[48:]) > 200
    assert flashing, "some of the later flashes may be seen"


@pytest.mark.parametrize("fps", [24, 60])
def test_the_second_is_a_second_at_any_rate(fps: int) -> None:
    strobe = [field(255 * (k * 16 // fps % 2)) for k in range(4 * fps)]
    assert flashes(greys_of(strobe), fps) > 3
    assert flashes(greys_of(guarded(strobe, fps)), fps) <= 3


def test_ramps_flash_too() -> None:
    """A rise spread over three frames, and a rise that runs over the picture."""
    ramp = [field((0, 90, 180, 255, 170, 80)[k % 6]) for k in range(4 * FPS)]
    assert flashes(greys_of(ramp)) > 3 >= flashes(greys_of(guarded(ramp)))
    wipe = []
    for k in range(4 * FPS):
        part = field(255 if k % 6 < 3 else 0)
        part[:, : 20 * (2 - k % 3)] = 0 if k % 6 < 3 else 255
        wipe.append(part)
    shown = guarded(wipe)
    assert flashes(greys_of(wipe, x=55)) > 3
    assert sum(flashes(greys_of(shown, x=x)) > 3 for x in range(60)) < 0.25 * 60


def test_halves_in_counterphase_are_flashes() -> None:
    pictures = [quarters((255, 0, 255, 0) if k // 2 % 2 else (0, 255, 0, 255)) for k in range(4 * FPS)]
    shown = guarded(pictures)
    assert np.ptp([p.mean() for p in pictures]) < 1
    assert flashes(greys_of(shown)) <= 3 and flashes(greys_of(shown, x=40)) <= 3


@pytest.mark.parametrize(
    "pictures",
    [
        [field(255 if k % 16 < 8 else 0) for k in range(96)],  # 1.5 a second
        [field(130 if k % 2 else 118) for k in range(96)],  # hardly a difference
        [field(255 if k % 2 else 235) for k in range(96)],  # both ends bright
        [np.where(np.arange(60)[:, None] < 10, np.uint8(255 * (k % 2)), np.uint8(90)) * field(1) for k in range(96)],
        [field(k * 2) for k in range(96)],
    ],
    ids=["slow", "faint", "bright", "small", "dawn"],
)
def test_what_is_harmless_passes_untouched(pictures: list[np.ndarray]) -> None:
    guard = FlashGuard()
    shown = guarded(pictures, guard=guard)
    assert all(a is b for a, b in zip(shown, pictures, strict=True)) and guard.softened == 0


def test_walking_and_looking_around_pass_untouched() -> None:
    """The bundled recording, and a picture of it that is turned fast."""
    from generator.data.clips import Dataset

    data = Dataset.open(Path(__file__).parents[1] / "data" / "sample")
    for number in range(len(data)):
        pictures = list(data.clip(number).frames())
        turning = [np.roll(pictures[0], -20 * k, axis=1) for k in range(48)]
        for stream in (pictures, turning):
            assert all(a is b for a, b in zip(guarded(stream), stream, strict=True))


def test_switched_off_it_leaves_everything_and_switched_on_it_knows_what_was_shown() -> None:
    guard = FlashGuard(on=False)
    strobe = [field(255 * (k % 2)) for k in range(48)]
    assert all(a is b for a, b in zip(guarded(strobe, guard=guard), strobe, strict=True))
    guard.on = True
    shown = [guard.show(p, 2 + k / FPS) for k, p in enumerate(strobe)]
    assert turns(greys_of([strobe[-1], *shown[:20]])) == []


def test_the_given_pictures_are_never_written_to() -> None:
    strobe = [field(255 * (k % 2)) for k in range(72)]
    for picture in strobe:
        picture.setflags(write=False)
    guarded(strobe)


def test_another_size_and_another_scene_begin_anew() -> None:
    guard = FlashGuard()
    guarded([field(255 * (k % 2)) for k in range(48)], guard=guard)
    other = field(255, (160, 256))
    assert guard.show(other, 2.0) is other
    guard.forget()
    assert guard.show(other, 2.1) is other


def test_luminance_is_relative_luminance() -> None:
    assert luminance(field(255)).max() == pytest.approx(1) and luminance(field(0)).max() == 0
    assert luminance(field(188)).mean() == pytest.approx(0.5, abs=0.01)
    red = field(0)
    red[..., 0] = 255
    assert luminance(red).mean() == pytest.approx(0.2126, abs=1e-4)
    assert luminance(field(9, (163, 258))).shape == (8, 12)


levels = st.sampled_from([0, 40, 90, 128, 160, 200, 255])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(levels, levels, levels, levels), min_size=24, max_size=72))
def test_no_quarter_of_any_sequence_flashes_more_than_three_times_a_second(
    sequence: list[tuple[int, int, int, int]],
) -> None:
    shown = guarded([quarters(greys) for greys in sequence])
    for number in range(4):
        y, x = divmod(number, 2)
        assert not crowded(shown, 20 * y + 10, 30 * x + 15)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_random_noise_of_any_grain_flashes_no_more_than_three_times_over_the_whole_picture(
    seed: int, grain: int
) -> None:
    rng = np.random.default_rng(seed)
    block = 2**grain
    small = rng.integers(0, 256, (60, -(-40 // block), -(-60 // block)), np.uint8)
    pictures = [np.repeat(s.repeat(block, 0).repeat(block, 1)[:40, :60, None], 3, 2) for s in small]
    shown = guarded(pictures)
    assert flashes([float(p.mean()) for p in shown]) <= 3
