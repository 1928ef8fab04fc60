"""The drift watch: statistics of pictures made for it, what it says when, and going back to the nearest scene."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pygame
import pytest
from fake_world import SIZE, make_door, paint
from PIL import Image
from test_window import Visit, opened, visit  # noqa: F401

from app.door import DEFAULT_WEIGHTS
from app.drift import (
    AWAY,
    BACK,
    FILE,
    DriftWatch,
    cross_fade,
    layout,
    load_range,
    nearest,
    range_of,
    range_of_many,
    save_range,
    statistics,
)
from app.screens.pause import PauseScreen
from app.screens.play import PlayScreen
from app.window import Window
from controls.action import ActionSpec
from controls.bindings import DEFAULT_BINDINGS, load_bindings
from controls.errors import UserError
from controls.sampler import InputSampler

RNG = np.random.default_rng(0)


def flat(colour: tuple[int, int, int] = (90, 90, 90)) -> np.ndarray:
    return np.full((SIZE[1], SIZE[0], 3), colour, np.uint8)


def noise() -> np.ndarray:
    return RNG.integers(0, 256, (SIZE[1], SIZE[0], 1), np.uint8).repeat(3, axis=2)


@pytest.fixture
def rooms(tmp_path: Path) -> list[np.ndarray]:
    made = []
    for hue in range(8):
        paint(tmp_path / f"{hue}.png", hue)
        made.append(np.asarray(Image.open(tmp_path / f"{hue}.png")))
    return made


def test_statistics_of_pictures_that_are_known() -> None:
    assert statistics(flat()) == {"saturation": 0.0, "sharpness": 0.0, "entropy": 0.0}
    assert statistics(flat((255, 0, 0)))["saturation"] == pytest.approx(1.0)
    halves = flat((0, 0, 0))
    halves[:, SIZE[0] // 2 :] = 255
    found = statistics(halves)
    assert found["entropy"] == pytest.approx(1.0) and found["saturation"] == 0
    assert found["sharpness"] == pytest.approx(2 / (SIZE[0] // 2 - 2)), "one edge, seen from both sides"
    busy = statistics(noise())
    assert busy["entropy"] > 5 and busy["sharpness"] > 0.5
    large = np.repeat(np.repeat(halves, 4, axis=0), 4, axis=1)
    assert statistics(large)["entropy"] == pytest.approx(1.0) and statistics(large)["sharpness"] < 0.05


def test_statistics_take_little_time(rooms: list[np.ndarray]) -> None:
    statistics(rooms[0])
    began = time.thread_time()
    for _ in range(100):
        statistics(rooms[0])
    assert (time.thread_time() - began) / 100 < 0.005, "1 ms on an idle core, with much room for a busy one"


def test_drift_is_said_after_a_while_and_over_after_a_while(rooms: list[np.ndarray]) -> None:
    watch = DriftWatch(range_of(rooms))
    for _ in range(3):
        for room in rooms:
            watch.look(room)
    assert watch.away == ""
    rough = (rooms[0].astype(int) + RNG.integers(-60, 60, (SIZE[1], SIZE[0], 1))).clip(0, 255).astype(np.uint8)
    for bad, words in ((flat(), "too grey"), (rough, "too noisy"), (flat((255, 0, 255)), "too colourful")):
        said = []
        for _ in range(AWAY + 3):
            watch.look(bad)
            said.append(watch.away)
        assert said == [""] * (AWAY - 1) + [words] * 4 and watch.since == 3 and words in watch.words()
        for _ in range(BACK):
            assert watch.away
            watch.look(rooms[0])
        assert watch.away == ""
    for number in range(10 * AWAY):
        watch.look(flat() if number % AWAY else rooms[1])
    assert watch.away == "", "never for long enough"


def test_a_slow_decay_is_noticed_while_it_goes_on(rooms: list[np.ndarray]) -> None:
    """The contrast and the colours of a room fade away, as they do in a world that is lost."""
    watch, when = DriftWatch(range_of(rooms)), None
    for step in range(120):
        share = max(0.0, 1 - step / 80)
        watch.look((rooms[2] * share + 90 * (1 - share)).astype(np.uint8))
        when = step if watch.away and when is None else when
    assert when is not None and 20 < when < 110
    assert DriftWatch({}).away == "" and range_of([]) == {}


def test_without_a_range_nothing_is_ever_wrong() -> None:
    watch = DriftWatch({})
    for _ in range(2 * AWAY):
        watch.look(noise())
    assert watch.away == "" and watch.words() == "not measured"


def test_a_range_comes_from_the_weights_folder_or_is_refused(tmp_path: Path) -> None:
    assert load_range(tmp_path) is None
    good = "saturation: [0.1, 0.4]\nsharpness: [0.02, 0.2]\nentropy: [3, 5.5]\n"
    (tmp_path / FILE).write_text(good)
    assert load_range(tmp_path) == {"saturation": (0.1, 0.4), "sharpness": (0.02, 0.2), "entropy": (3.0, 5.5)}
    for old, new, words in (
        ("[0.1, 0.4]", "[0.4, 0.1]", "smaller"), ("[0.1, 0.4]", "0.4", "lowest"),
        ("entropy", "entropie", "did you mean 'entropy'"), ("5.5", ".nan", "number"),
    ):  # fmt: skip
        (tmp_path / FILE).write_text(good.replace(old, new))
        with pytest.raises(UserError, match=words):
            load_range(tmp_path)


def test_a_range_of_recorded_pictures_is_kept_with_the_weights(rooms: list[np.ndarray], tmp_path: Path) -> None:
    """The rarest pictures do not stretch it, and what it says is read back."""
    many = [room for _ in range(80) for room in rooms]
    usual = range_of_many([*many, noise(), flat((255, 0, 0))])
    strange = range_of([*rooms, noise()])
    assert usual["sharpness"][1] < 0.5 * strange["sharpness"][1] and usual["saturation"][1] < 0.9
    for room in rooms:
        assert all(low <= statistics(room)[name] <= high for name, (low, high) in usual.items())
    path = save_range(usual, tmp_path)
    assert path.name == FILE
    assert load_range(tmp_path) == {name: (round(low, 4), round(high, 4)) for name, (low, high) in usual.items()}
    with pytest.raises(UserError, match="no recorded pictures"):
        save_range(range_of_many([]), tmp_path)


def test_the_nearest_scene_is_the_one_with_its_colours_where_they_were(rooms: list[np.ndarray]) -> None:
    for number, room in enumerate(rooms):
        blurred = np.asarray(Image.fromarray(room).resize((24, 15)).resize(SIZE)).astype(int)
        assert nearest((blurred * 0.9 + 12).clip(0, 255).astype(np.uint8), rooms) == number
    halves = np.concatenate([flat((200, 0, 0))[:, :128], flat((0, 0, 200))[:, :128]], axis=1)
    assert nearest(halves, [halves[:, ::-1], flat((100, 0, 100)), halves[:150, :250]]) == 2, "sizes may differ"
    assert np.allclose(layout(flat((10, 20, 30))), (10, 20, 30))


def test_a_fade_goes_all_the_way() -> None:
    before, after = flat((0, 100, 255)), flat((255, 100, 0))
    assert np.array_equal(cross_fade(before, after, -1), before) and np.array_equal(cross_fade(before, after, 2), after)
    assert cross_fade(before, after, 0.5)[0, 0].tolist() == [127, 100, 127]


def test_the_key_is_asked_of_the_window_and_not_of_the_world() -> None:
    sampler = InputSampler(ActionSpec(), load_bindings(DEFAULT_BINDINGS))
    sampler.press("t")
    assert not sampler.tick().keys.any() and sampler.take("reanchor") and not sampler.take("reanchor")
    sampler.press("t")
    assert not sampler.take("reanchor"), "held, not pressed again"
    sampler.rebind(load_bindings(DEFAULT_BINDINGS).assign("reanchor", "pad left trigger"))
    sampler.press("pad left trigger")
    assert sampler.take("reanchor")
    sampler.press("t")
    sampler.reset()
    assert not sampler.take("reanchor")


# --- in the window
def test_a_key_goes_back_to_the_nearest_scene_and_fades(visit: Visit, tmp_path: Path) -> None:  # noqa: F811
    one = visit.program
    visit.press(pygame.K_RIGHT)
    visit.press(pygame.K_RETURN)
    visit.until(visit.on(PlayScreen))
    session, play = one.session, one.play
    assert session is not None and play is not None and one.walk is not None
    visit.until(lambda: session.frame_index > 4)
    assert play.last is not None
    lost = np.asarray(Image.open(tmp_path / "scene5.png")).astype(int)
    play.last.pixels[:] = (lost * 0.8 + 20).astype(np.uint8)
    before = play._seen
    visit.press(pygame.K_t)
    visit.until(lambda: session.frame_index == 0 and one.walk.scene.name == "scene5")  # type: ignore[union-attr]
    assert play._message is not None and one.walk.scene.title in play._message[0]
    visit.until(lambda: session.started)
    assert play._fade is not None and before is not None and play.last is not None
    assert not np.array_equal(play._seen, play.last.pixels), "between the two"
    visit.until(lambda: play._fade is None)
    assert play._seen is not None and np.array_equal(play._seen, play.last.pixels)
    assert one.walk.origin()[0].name == "scene5"
    visit.press(pygame.K_ESCAPE)
    visit.until(visit.on(PauseScreen))
    pause = one.screen
    assert isinstance(pause, PauseScreen)
    pause.focus = [row.name for row in pause.rows()].index("reanchor")
    visit.press(pygame.K_RETURN)
    visit.until(lambda: visit.on(PlayScreen)() and session.frame_index <= 1)


def test_by_itself_only_when_it_is_set(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    one = visit.program
    visit.press(pygame.K_RETURN)
    visit.until(visit.on(PlayScreen))
    session, play = one.session, one.play
    assert session is not None and play is not None
    monkeypatch.setattr(play.watch, "usual", {"saturation": (2.0, 3.0)})  # nothing is as colourful as that
    visit.until(lambda: bool(play.watch.away), 40)
    assert play._message is not None and "too grey" in play._message[0] and "T: bring it back" in play._message[0]
    assert ("picture", play.watch.words()) in play._lines()
    then = session.frame_index
    visit.until(lambda: session.frame_index > then + 3)
    one._change("reanchor", True)
    visit.until(lambda: session.frame_index < then, 40)
    assert play.watch.away == ""


def test_the_range_is_that_of_the_scenes_or_of_the_weights(opened: Window, tmp_path: Path) -> None:  # noqa: F811
    door = make_door(tmp_path)
    first = Visit(opened, tmp_path, "--weights", str(tmp_path))
    assert first.program.usual == range_of(door.load_picture(s.picture, SIZE) for s in door.list_scenes())
    first.program.close()
    (tmp_path / FILE).write_text("saturation: [0, 1]\nsharpness: [0, 1]\nentropy: [0, 6]\n")
    other = Visit(opened, tmp_path, "--weights", str(tmp_path))
    assert other.program.usual["entropy"] == (0.0, 6.0)
    other.program.close()
    assert load_range(DEFAULT_WEIGHTS) is not None, "the shipped world has its own"
