"""Along recorded poses: the world is put where the clip was, and pictures alone decide what it scores."""

import dataclasses

import numpy as np
import pytest
import torch

import run
from controls.action import Action, ActionSpec
from controls.errors import UserError
from generator.checkpoint import load_weights
from generator.data.clips import Dataset
from generator.data.latents import PLAN
from generator.evaluation import along
from generator.evaluation.along import Plan, measure_along, second_differences
from generator.evaluation.page import render
from generator.evaluation.quality import Scores, sharpness
from generator.evaluation.report import Settings, evaluate
from generator.evaluation.walker import Walker, led
from generator.runtime.gpu_graphs import GraphRunner
from generator.runtime.gpu_reprojection import GpuReprojection
from generator.world import World

POSE = (700.0, -40.0, 370.0, 5.0, 41.0)
WITHIN = (188.0, 472.0, 10.0, 5.0, 41.0)  # the tiny place repeats every 512 map units


class Difference(torch.nn.Module):
    """In LPIPS's place: the mean difference of two pictures."""

    def forward(self, one, two):
        return (one - two).abs().mean((-3, -2, -1))


@pytest.fixture
def walked(data_set, monkeypatch):
    """The data set, its clips at poses that all differ, by clip and frame."""
    dataset, read = Dataset.open(data_set), Dataset.clip

    def clip(self, index):
        found = read(self, index)
        pose = np.arange(len(found), dtype=np.float32)[:, None] + 100 * np.arange(5, dtype=np.float32) + 1000 * index
        return dataclasses.replace(found, pose=pose)

    monkeypatch.setattr(Dataset, "clip", clip)
    return dataset


class Guide:
    """A world that shows the recorded pictures, `changed` (pictures, latent frame); keeps where it was put."""

    def __init__(self, dataset, clips, changed=lambda pictures, k: pictures):
        self.dataset, self.clips, self.changed = dataset, iter(clips), changed
        self.spec, self.fps, self.stood, self.actions = ActionSpec(), 24.0, [], []

    def reset(self, picture, seed):
        self.clip, self.k = self.dataset.clip(next(self.clips)), 0
        assert np.array_equal(picture, self.clip.frames(0, 1)[0])
        return picture[None]

    def stand_at(self, pose):
        self.stood.append(pose.copy())

    def step(self, action):
        assert len(self.stood) == len(self.actions) + 1, "once before every step"
        self.actions.append(action)
        pictures = self.clip.frames(1 + 4 * self.k, 4)
        self.k += 1
        return self.changed(pictures, self.k)


def measured(dataset, changed, plan=None, split="train"):
    said, plan = [], plan or Plan(2, 1)
    world = Guide(dataset, dataset.select(split), changed)
    return measure_along(world, dataset, split, Scores(Difference()), plan, said.append), world, said


def blurred(pictures, k):
    padded = np.pad(pictures.astype(np.float32), ((0, 0), (1, 1), (1, 1), (0, 0)), "edge")
    rows = sum(padded[:, i : i + pictures.shape[1]] for i in range(3))
    return np.rint(sum(rows[:, :, i : i + pictures.shape[2]] for i in range(3)) / 9).astype(np.uint8)


def alternating(pictures, k):
    return np.clip(pictures.astype(np.int16) + (20 if k % 2 else -20), 0, 255).astype(np.uint8)


def test_a_world_that_shows_what_was_recorded_scores_as_it(walked):
    made, _, said = measured(walked, lambda pictures, k: pictures, Plan(2, 2))
    report = made.report
    assert (report["along.seconds"], report["along.clips"], report["along.short"]) == (2, 2, 0)
    assert report["along.lpips"] == [0.0] * 4 and report["along.psnr"] == [pytest.approx(106.02, abs=0.01)] * 4
    for name in ("sharpness", "join", "inside"):
        assert report[f"along.{name}"] == [pytest.approx(1.0)] * 4 and report[f"along.{name}.mean"] == pytest.approx(1)
    assert said == ["along: clip 1 of 2", "along: clip 2 of 2"]
    assert list(made.shown) == walked.select("train") and all(len(shown) == 12 for shown in made.shown.values())
    seconds, picture, real = made.shown[0][-1]
    assert seconds == 2.0 and np.array_equal(picture, real) and np.array_equal(real, walked.clip(0).frames(48, 1)[0])


def test_blurred_pictures_are_less_sharp(walked):
    report = measured(walked, blurred)[0].report
    assert max(report["along.sharpness"]) < 0.9 and report["along.sharpness.mean"] < 0.9
    assert min(report["along.lpips"]) > 0.001 and report["along.psnr.mean"] < 60


def test_latent_frames_that_go_their_own_ways_flicker_at_the_joins(walked):
    report = measured(walked, alternating)[0].report
    assert min(report["along.join"]) > 2 * max(report["along.inside"])
    assert report["along.join.mean"] > 2 > report["along.inside.mean"]


def test_what_gets_worse_is_seen_in_its_quarter(walked):
    """Latent frames 10 to 12 of 12 are the last quarter."""
    report = measured(walked, lambda pictures, k: blurred(pictures, k) if k > 9 else pictures)[0].report
    assert report["along.lpips"][:3] == [0.0] * 3 and report["along.lpips"][3] > 0.001
    assert report["along.lpips.mean"] == pytest.approx(report["along.lpips"][3] / 4)
    assert report["along.sharpness"][2] == pytest.approx(1) and report["along.sharpness"][3] < 0.9


def test_the_world_is_put_where_the_clip_was_and_given_its_actions(walked):
    _, world, _ = measured(walked, lambda pictures, k: pictures)
    clip = walked.clip(0)
    assert len(world.stood) == 12
    for k, (pose, action) in enumerate(zip(world.stood, world.actions, strict=True)):
        assert np.array_equal(pose, clip.pose[4 * k, PLAN]) and pose[4] == clip.pose[4 * k, 2]
        assert action == Action(clip.keys[1 + 4 * k : 5 + 4 * k], clip.look[1 + 4 * k : 5 + 4 * k])


def test_short_clips_are_left_out_and_told(walked, monkeypatch):
    entry = Dataset.entry
    monkeypatch.setattr(Dataset, "entry", lambda self, index: entry(self, index) | ({"frames": 48} if index else {}))
    made, _, said = measured(walked, lambda pictures, k: pictures, Plan(2, 2))
    assert said[0] == "along: clips shorter than 2 s are left out: 1 of the split 'train'"
    assert (made.report["along.clips"], made.report["along.short"]) == (1, 1)


def test_nothing_recorded_to_divide_by_gives_no_ratio():
    tally, grey = along.Tally(), np.full((4, 8, 8, 3), 90, np.uint8)
    tally.add(0, grey, grey, [])
    assert tally.ratios()["join"] == [None] * 4 and tally.ratios()["sharpness.mean"] is None


def test_sharpness_and_second_differences_of_known_pictures():
    dot = np.zeros((2, 5, 5, 3), np.uint8)
    dot[1, 2, 2] = 9
    assert sharpness(dot).tolist() == [0.0, pytest.approx((4 * 9 + 4 * 9) / 9)]
    levels = np.array([0, 10, 20, 200, 10], np.uint8)[:, None, None, None].repeat(3, 3)
    assert second_differences(levels).tolist() == [0.0, 170.0, 370.0]


def reprojection_on(folder, kind):
    """A world whose reprojection is the plain one, or that of the GPU backend, on a processor."""
    world = World(folder, backend="torch-fp32", threads=1)
    if kind == "buffers":
        turn = load_weights(folder).reprojector()
        world._backend.reprojection = GpuReprojection(turn, world.spec.fields, False, GraphRunner(None))
    return world


@pytest.mark.parametrize("kind", ["plain", "buffers"])
def test_a_world_stands_where_it_is_put_and_goes_on_from_there(place_folder, first_picture, kind):
    world = reprojection_on(place_folder, kind)
    action = Action.hold(world.spec, "forward", yaw=2.0)
    world.reset(first_picture, 0)
    world.step(action)
    pace = world._backend.reprojection.pace
    state = world.save_state()
    elsewhere = world.step(action)
    world.load_state(state)
    world.stand_at(POSE)
    assert (world._backend.reprojection.pace is pace) == (kind == "buffers"), "graphs read a buffer that stays"
    assert world.pose == pytest.approx((*WITHIN[:2], WITHIN[2]))
    assert world._backend.reprojection.pace[0, -5:].tolist() == pytest.approx(WITHIN)
    stood = world.save_state()
    assert stood["reprojection.pace"].shape == state["reprojection.pace"].shape
    changed = np.flatnonzero(stood["reprojection.pace"] != state["reprojection.pace"])
    assert len(changed) and changed.min() >= state["reprojection.pace"].size - 6, "what the walk remembers stays"
    frames = world.step(action)
    assert frames.shape == (4, 64, 64, 3) and not np.array_equal(frames, elsewhere)
    assert world.pose[2] == pytest.approx(WITHIN[2] + 8), "two degrees a tick"
    for again in (lambda: world.load_state(stood), lambda: (world.load_state(state), world.stand_at(WITHIN))):
        again()
        assert world.pose == pytest.approx(WITHIN[:3]) and np.array_equal(world.step(action), frames)


def test_both_reprojections_stand_alike(place_folder, first_picture):
    worlds = [reprojection_on(place_folder, kind) for kind in ("plain", "buffers")]
    for world in worlds:
        world.reset(first_picture, 0)
        world.stand_at(np.array(POSE, np.float32))
    assert np.array_equal(*(world.save_state()["reprojection.pace"] for world in worlds))
    assert np.array_equal(*(world.step(Action.hold(world.spec, "forward")) for world in worlds))


@pytest.mark.parametrize("reproject", [True, False])
def test_nobody_is_put_anywhere_in_a_world_that_is_no_place(make_world, first_picture, reproject):
    world = World(make_world(reproject=reproject), backend="torch-fp32", threads=1)
    world.reset(first_picture, 0)
    with pytest.raises(UserError, match="not one place"):
        world.stand_at(POSE)


def test_a_world_is_measured_and_shown(place_folder, data_set, monkeypatch):
    put, stand = [], World.stand_at

    def stand_at(self, pose):
        stand(self, pose)
        put.append((pose.tolist(), self.pose))

    monkeypatch.setattr(World, "stand_at", stand_at)
    settings = Settings(clips=1, split="train,held_map", along=2, backend="torch-fp32", threads=1)
    made = evaluate(place_folder, data_set, settings)
    assert put == [([0.0] * 5, (0.0, 0.0, 0.0))] * 12, "the tiny data set stands still"
    for name in ("psnr", "lpips", "sharpness", "join", "inside"):
        assert len(made.report[f"along.{name}"]) == 4 and made.report[f"along.{name}.mean"] > 0
    assert made.report["along.clips"] == 1 and "held_map.along.psnr" not in made.report
    sheet = made.sheets[-1]
    assert sheet.title == "Along recorded poses, clip 0"
    assert [name for name, _ in sheet.rows] == ["generated", "recorded"]
    assert "Along recorded poses, clip 0" in render(made) and "along.join.mean" in render(made)


def test_the_command_has_the_option(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "generator.evaluation.report.evaluate", lambda weights, data, settings, say: asked.append(settings) or exit(0)
    )
    with pytest.raises(SystemExit):
        run.main(["evaluate", "--weights", "w", "--data", "d", "--along", "8", "--clips", "3"])
    assert (asked[0].along, asked[0].clips) == (8, 3)


@pytest.mark.parametrize(
    ("changes", "words"), [({"along": 1}, "too short"), ({"along": -4}, "too short"), ({"along": 3}, "longest 2.83 s")]
)
def test_plans_that_measure_nothing_are_refused(place_folder, data_set, changes, words):
    settings = dataclasses.replace(Settings(clips=1, split="train", threads=1), **changes)
    with pytest.raises(UserError, match=words):
        evaluate(place_folder, data_set, settings)
    with pytest.raises(UserError, match="1 clip or more"):
        Plan(4, 0).check()


def test_a_world_that_is_no_place_is_refused(world_folder, data_set):
    with pytest.raises(UserError, match="--along is for worlds that are one place"):
        evaluate(world_folder, data_set, Settings(clips=1, split="train", along=2, threads=1))


def test_a_rollout_that_is_led_by_poses_begins_where_and_as_fast_as_the_recorded_walk(place_folder, embodied, walked):
    """It is put there before its first two latent frames and free after them; nobody had told it how fast it was."""
    weights = load_weights(place_folder)
    weights = dataclasses.replace(weights, parallax=embodied(weights.parallax))
    place, body = weights.parallax.place, weights.parallax.body
    body.relief.fill_(24)
    body.changed()
    keys, look = np.zeros((13, 8), np.uint8), np.zeros((13, 2), np.float32)
    recorded, state = (
        [torch.tensor([[100.0, 200.0, 30.0, 0.0, 0.0]])],
        torch.tensor([[9.0, -5.0, 0.0, 0.0, 0.0, 1.0, 0.0]]),
    )
    for _ in range(3):
        end, _, state = body.walk(place, recorded[-1], torch.zeros(1, 4, 2), torch.zeros(1, 4, 10), state)
        recorded.append(end)
    poses = torch.cat(recorded).repeat_interleave(4, 0).numpy()[:13]
    walker, picture = Walker(weights), walked.clip(0).frames(0, 1)[0]
    led(walker, picture, keys, look, 0, poses)
    torch.testing.assert_close(weights.parallax.pose(walker.eye.pace), recorded[-1], atol=1e-2, rtol=0)
    led(walker, picture, keys, look, 0)
    assert (weights.parallax.pose(walker.eye.pace) - recorded[-1])[0, :2].norm() > 5


def test_a_walker_and_a_world_that_are_put_somewhere_see_the_same(place_folder, walked):
    walker, world = Walker(load_weights(place_folder)), World(place_folder, "torch-fp32", 1)
    picture, action = walked.clip(0).frames(0, 1)[0], Action(np.ones((4, 8), np.uint8), np.ones((4, 2), np.float32))
    for each in (walker, world):
        each.reset(picture, 4)
        each.stand_at(np.float32(POSE))
    assert np.array_equal(walker.step(action), world.step(action))
