"""Drift on worlds whose fate is known: one that plays the real clip, one that stands still, one that fades to grey."""

import json
import tracemalloc

import numpy as np
import pytest

from controls.action import ActionSpec
from controls.errors import UserError
from generator.checkpoint import load_weights
from generator.data.clips import Dataset
from generator.evaluation import drift
from generator.evaluation.drift import MEASURES, Plan, measure_drift, starting_clips
from generator.evaluation.frechet import AlexNet
from generator.training.perceptual import Lpips
from generator.world import World

PLAN = Plan(frames=96, rollouts=1, seconds=2.0)


class Contrast:
    """A network that is quick: how much the colours of each quarter of a picture vary."""

    name, every = "contrast", 1

    def features(self, pictures):
        count, height, width, _ = pictures.shape
        quarters = pictures.reshape(count, 2, height // 2, 2, width // 2, 3)
        return quarters.std((2, 4)).reshape(count, -1)


class Film:
    """A world that shows given pictures, whatever is done; `fade` of each latent frame is taken to grey."""

    fps = 24.0

    def __init__(self, frames, fade=0.0):
        self.spec, self.frames, self.fade, self.k = ActionSpec(), frames, fade, 0

    def reset(self, picture, seed):
        self.k = 0
        return self.frames[:1]

    def step(self, action):
        at = 1 + self.k * self.spec.ticks + np.arange(self.spec.ticks)
        self.k += 1
        shown = self.frames[at % len(self.frames)].astype(np.float64)
        share = min(1.0, self.fade * self.k)
        return (shown + share * (128 - shown)).astype(np.uint8)

    def save_state(self):
        return {"k": np.array(self.k)}

    def load_state(self, state):
        self.k = int(state["k"])


@pytest.fixture(scope="module")
def case(debug_world, rolling_data):
    return load_weights(debug_world), Dataset.open(rolling_data)


def measured(world, case, plan=PLAN, network=None):
    weights, dataset = case
    return measure_drift(world, weights, dataset, "held_seed", network or Contrast(), plan, lambda text: None)


def test_the_real_clip_is_as_far_as_the_floor_and_as_lively_as_real(case):
    found = measured(Film(case[1].clip(0).frames()), case)
    report = found.report
    assert json.loads(json.dumps(report)) == report
    for name in drift.DRIVES:
        curve = found.curves[name]
        assert all(len(values) == 2 for values in curve.values())
        assert curve["contrast"][0] == pytest.approx(report["drift.contrast.floor"])
        assert np.allclose([curve[m] for m in MEASURES], 1, atol=0.25)
        assert report[f"drift.{name}.motion"] == curve["motion"]
    assert report["drift.last_over_first"] == report["drift.stroll.last_over_first"] < 2
    assert report["drift.static"] is False and report["drift.frames"] == 96 and report["drift.rollouts"] == 1
    assert report["drift.contrast.ceiling"] != report["drift.contrast.floor"], "the debug tokenizer is random"


def test_alexnet_agrees_about_real_clips_and_a_fade(case):
    try:
        network = AlexNet(Lpips("alexnet"))
    except UserError as error:
        pytest.skip(str(error))
    frames = case[1].clip(0).frames()
    real, faded = (measured(Film(frames, fade), case, network=network) for fade in (0.0, 0.05))
    floor = real.report["drift.frechet_alexnet.floor"]
    assert real.curves["stroll"]["frechet_alexnet"][0] == pytest.approx(floor, rel=1e-3)
    assert faded.report["drift.last_over_first"] > max(1.1, real.report["drift.last_over_first"])


def test_a_frozen_world_is_flagged(case):
    found = measured(Film(case[1].clip(0).frames(0, 1)), case)
    assert found.report["drift.static"] is True
    assert all(found.curves[name]["motion"] == [0, 0] for name in drift.DRIVES)
    assert found.curves["idle"]["sharpness"][0] == pytest.approx(1, abs=0.3), "a still is as sharp as ever"


def test_a_world_that_freezes_later_is_flagged_too(case):
    frames = case[1].clip(0).frames(0, 97)
    frames[49:] = frames[48]
    found = measured(Film(frames), case)
    assert found.report["drift.static"] is True and found.curves["spin"]["motion"][0] > 0.5


def test_a_fade_to_grey_is_drift(case):
    found = measured(Film(case[1].clip(0).frames(), fade=1 / 24), case)
    assert found.report["drift.last_over_first"] > 2
    for name in ("sharpness", "saturation", "motion"):
        first, last = found.curves["stroll"][name]
        assert last < 0.4 * first


def test_rollouts_take_turns_without_disturbing_each_other(case, debug_world):
    """Two rollouts in stretches, their states set aside, are what each is when it is played alone in one go."""
    plan = Plan(frames=48, rollouts=2, seconds=1.0)
    found = measured(World(debug_world, "torch-fp32", 1), (case[0], Twice(case[1])), plan)
    world = World(debug_world, "torch-fp32", 1)
    world.reset(case[1].clip(0).frames(0, 1)[0], 0)
    player = drift.built_in("stroll", world.spec, 0)
    alone = [world.step(player.next())[-1] for _ in range(12)]
    seconds, pictures = zip(*found.shown["stroll"][1:], strict=True)
    assert [round(at * 6) for at in seconds] == sorted({round(at * 6) for at in seconds}) and seconds[-1] == 2.0
    for at, picture in zip(seconds, pictures, strict=True):
        assert np.array_equal(picture, alone[round(at * 6) - 1])
    assert found.report["drift.rollouts"] == 2


class Twice:
    """A data set with every clip twice, so that two rollouts leave something to compare with."""

    def __init__(self, dataset):
        self.dataset, self.folder = dataset, dataset.folder

    def select(self, split):
        return [0, 1, 2, 3]

    def clip(self, index):
        return self.dataset.clip(index // 2 % 2)

    def entry(self, index):
        return self.dataset.entry(index // 2 % 2)


def test_starting_clips_leave_half_to_compare_with(case, still_data):
    assert starting_clips(case[1], "held_seed", 8) == ([0], [1])
    assert starting_clips(Twice(case[1]), "held_seed", 2) == ([0, 2], [1, 3])
    assert starting_clips(Dataset.open(still_data), "held_seed", 8) == ([0], [0])
    with pytest.raises(UserError, match="no clips"):
        starting_clips(case[1], "held_map", 8)


def test_a_plan_that_is_too_short_says_how_long_it_must_be():
    assert Plan(1440).cut(24, 4) == (6, 60) and Plan(14400).cut(24, 4) == (60, 60)
    with pytest.raises(UserError, match="give 480 frames"):
        Plan(479).cut(24, 4)
    with pytest.raises(UserError, match="--rollouts 0"):
        Plan(480, 0).cut(24, 4)


def test_the_tokenizer_is_fed_in_pieces_of_the_same_length_as_the_video(case, monkeypatch):
    frames = case[1].clip(0).frames(0, 33)
    whole = drift.rebuilt(case[0], frames)
    assert whole.shape == frames.shape
    monkeypatch.setattr(drift, "PIECE", 16)
    pieces = drift.rebuilt(case[0], frames)
    assert pieces.shape == frames.shape and np.array_equal(pieces[:17], whole[:17])


def test_ten_minutes_take_no_more_memory_than_one(case, monkeypatch):
    """14,400 frames in 60 stretches: what is kept of a stretch is its features, not its pictures."""
    monkeypatch.setattr(drift, "DRIVES", ("stroll",))
    monkeypatch.setattr(drift, "MOVING", ("stroll",))
    frames, most = case[1].clip(0).frames()[:, ::4, ::4].copy(), {}
    for length in (1440, 14400):
        tracemalloc.start()
        found = measured(Film(frames), case, Plan(length, rollouts=1, seconds=10.0))
        most[length] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(found.curves["stroll"]["contrast"]) == length // 240
        assert found.report["drift.frames"] == length and len(found.shown["stroll"]) == drift.SHOWN
    assert most[14400] < most[1440] + 2e6
