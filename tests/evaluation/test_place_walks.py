"""Places: a walk that shows what was recorded where it is scores near nothing, one that shows other things does not."""

import dataclasses

import numpy as np
import pytest
import torch

from controls.action import ActionSpec
from controls.errors import UserError
from generator.data.clips import Dataset
from generator.evaluation.place_walks import Plan, Recorded, measure_place
from generator.evaluation.quality import Scores
from generator.evaluation.report import Settings, evaluate
from generator.tokenizer.place import Place

PERIOD = 512.0


class Difference(torch.nn.Module):
    """In LPIPS's place: the mean difference of two pictures."""

    def forward(self, one, two):
        return (one - two).abs().mean((-3, -2, -1))


@pytest.fixture(scope="module")
def recorded(data_set):
    return Recorded(Dataset.open(data_set), Place(PERIOD, True))


class Guide:
    """A world that walks along a recorded clip and shows it, or the clip `lag` latent frames later."""

    def __init__(self, recorded, lag=0):
        self.recorded, self.lag, self.spec, self.fps, self.pose = recorded, lag, ActionSpec(), 24.0, None

    def reset(self, picture, seed):
        self.k = 0
        self.pose = self._pose()
        return picture[None]

    def _pose(self):
        row = self.recorded.poses[self.k * 4]
        return float(row[0]) + PERIOD / 2, float(row[1]) - PERIOD / 2, float(row[3]) + 360

    def step(self, action):
        self.k = (self.k + 1) % 15
        self.pose = self._pose()
        return np.repeat(self.recorded.picture(self.k * 4 + self.lag)[None], 4, 0)


def spread(recorded):
    """The same recordings at poses that all differ."""
    other = Recorded.__new__(Recorded)
    other.__dict__.update(recorded.__dict__)
    poses = recorded.poses.copy()
    poses[:, 0], poses[:, 3:] = np.arange(len(poses)) * 30.0, 0.0
    other.poses = poses
    return other


def test_the_nearest_picture_is_found_wherever_the_place_repeats(recorded):
    there = spread(recorded)
    there.poses = there.poses[:8]
    there.places = there.places[:8]
    x, y = there.poses[5, :2]
    for pose in ((x, y, 0.0), (x + 256, y + 256, 2.0), (x - 512, y, -2.0)):
        assert there.nearest(pose) == 5
    for pose in ((x, y, 5.0), (x + 256, y, 0.0), (x, y + 25, 0.0)):
        assert there.nearest(pose) is None
    assert there.nearest((x, y, 0.0), without=0) is None


def test_what_is_not_level_is_another_view(recorded):
    there = spread(recorded)
    x, y = there.poses[5, :2]
    there.poses[5, 4] = 20.0
    assert there.nearest((x, y, 0.0)) != 5


def test_a_walk_that_shows_the_place_scores_as_near(recorded, data_set, monkeypatch):
    there = spread(recorded)
    monkeypatch.setattr("generator.evaluation.place_walks.Recorded", lambda dataset, place: there)
    figures = []
    for lag in (0, 3):
        scores, said = Scores(Difference()), []
        world = Guide(there, lag)
        made = measure_place(world, there.place, Dataset.open(data_set), "train", scores, Plan(20, 1), said.append)
        figures.append(made.report)
        assert said and len(made.shown) == 10 and made.shown[0][0] == 2.0
    exact, late = figures
    assert exact["place.found"] == 1.0 and exact["place.lpips"] == [0.0, 0.0] and min(exact["place.other"]) > 0.01
    assert min(late["place.lpips"]) > 0.001 and len(late["place.lpips"]) == 2


def test_a_world_is_walked_and_measured(place_folder, data_set):
    settings = Settings(clips=1, split="train", place=10, rollouts=1, backend="torch-fp32", threads=1)
    made = evaluate(place_folder, data_set, settings)
    assert 0 <= made.report["place.found"] <= 1 and len(made.report["place.lpips"]) == 1
    assert made.sheets[-1].title == "The place on a long walk"


@pytest.mark.parametrize(
    ("changes", "words"), [({"place": 3}, "too short"), ({"place": 10, "rollouts": 0}, "1 rollout")]
)
def test_plans_that_measure_nothing_are_refused(place_folder, data_set, changes, words):
    settings = dataclasses.replace(Settings(clips=1, split="train", threads=1), **changes)
    with pytest.raises(UserError, match=words):
        evaluate(place_folder, data_set, settings)


def test_a_world_that_is_no_place_is_refused(world_folder, data_set):
    with pytest.raises(UserError, match="not; leave it out"):
        evaluate(world_folder, data_set, Settings(clips=1, split="train", place=10, threads=1))
