"""The visitor: walks where there is ground, turns where there is none, and never stays before a wall."""

import numpy as np
import torch

from controls.action import ActionSpec
from controls.replay import stroll
from generator.evaluation.visitor import Visitor
from generator.tokenizer.place import Place

PERIOD, STRIDE = 512.0, 6.0


class Floor:
    """A world of ground alone: keys walk, walls stop."""

    def __init__(self, place, x, y, yaw):
        self.place, self.at = place, torch.tensor([[x, y, yaw, 0.0, 0.0]])

    @property
    def pose(self):
        return tuple(float(v) for v in self.at[0, :3])

    def step(self, action):
        moves = torch.zeros(1, 4, 3)
        moves[0, :, 0] = STRIDE * torch.from_numpy(action.keys[:, 0].astype(np.float32))
        before = self.at
        self.at = self.place.advance(self.at, torch.from_numpy(action.look)[None].float(), moves)[0]
        return float((self.at[0, :2] - before[0, :2]).norm())


def court():
    place = Place(PERIOD, False)
    line = torch.arange(100.0, 400.0, 8.0)
    place.remember(torch.cartesian_prod(line, line))
    return place


def test_a_visitor_keeps_walking_between_walls():
    place, spec = court(), ActionSpec()
    world = Floor(place, 200.0, 200.0, 0.0)
    visitor, gone, seen = Visitor(world, place, spec, 0), [], set()
    for _ in range(300):
        gone.append(world.step(visitor.next()))
        seen.add((round(world.pose[0] / 64), round(world.pose[1] / 64)))
        assert place.stands(torch.tensor([world.pose[:2]])).all()
    assert np.mean(gone) > 5 and len(seen) >= 8
    blind = Floor(place, 200.0, 200.0, 0.0)
    assert sum(blind.step(stroll(spec, 0, k)) for k in range(1, 301)) != sum(gone)


def test_a_visitor_before_a_wall_turns_one_way_until_it_is_free():
    place, spec = court(), ActionSpec()
    world = Floor(place, 396.0, 250.0, 0.0)  # looks east at the wall
    visitor, turns = Visitor(world, place, spec, 0), []
    for _ in range(12):
        turns.append(float(visitor.next().look[0, 0]))
        world.at = place.advance(
            world.at, torch.full((1, 4, 2), turns[-1]) * torch.tensor([1.0, 0.0]), torch.zeros(1, 4, 3)
        )[0]
    turning = turns[: next(k for k, turn in enumerate(turns) if abs(turn) != 4.0)]
    assert 3 <= len(turning) < 12 and len(set(turning)) == 1


def test_a_visitor_leaves_what_only_its_feet_find():
    """The bug: a corner nearer than where a visitor looks stopped it, and it walked into that for the last two minutes
    of ten.
    """
    place, spec = court(), ActionSpec()
    world = Floor(place, 200.0, 200.0, 0.0)
    visitor, gone, against = Visitor(world, place, spec, 0), 0.0, ""
    for _ in range(200):
        action = visitor.next()
        walks = action.keys[:, 0].any()
        heading = torch.deg2rad(world.at[0, 2] + torch.from_numpy(action.look)[:, 0].sum())
        if float(heading.cos()) > 0.7:  # a thin wall to the east of wherever one is
            action.keys[:] = 0
        step = world.step(action)
        gone, against = gone + step, against + ("x" if walks and step == 0 else " ")
    assert "xxx" in against and "xxxx" not in against and gone > 50 * STRIDE


def test_a_visitor_who_sees_no_way_out_leaps():
    """The bug: on a ledge with nothing to walk on around it, one turned for the last two minutes of ten."""
    place, spec = court(), ActionSpec()
    place.ground.zero_()
    visitor, walked, headings = Visitor(Floor(place, 200.0, 200.0, 0.0), place, spec, 0), [], set()
    for _ in range(100):
        action = visitor.next()
        visitor.world.at[0, 2] = (visitor.world.at[0, 2] + float(action.look[:, 0].sum())) % 360
        if action.keys[:, spec.keys.index("forward")].all() and action.keys[:, spec.keys.index("jump")].all():
            walked.append(action)
            headings.add(round(visitor.world.pose[2]))
    assert len(walked) == 3 * 4 and len(headings) == 3, "each time another way"


def test_without_a_pose_it_is_the_plain_stroll():
    spec = ActionSpec()
    visitor = Visitor(object(), court(), spec, 3)
    for k in range(1, 5):
        made, due = visitor.next(), stroll(spec, 3, k)
        assert np.array_equal(made.keys, due.keys) and np.array_equal(made.look, due.look)


def test_a_visitor_looks_level_again():
    """The bug: the stroll's waves went on while the visitor turned, and after a minute it looked at the sky."""
    place, spec = court(), ActionSpec()
    for seed in range(4):
        world, pitch = Floor(place, 200.0, 200.0, 0.0), []
        visitor = Visitor(world, place, spec, seed)
        for _ in range(360):
            action = visitor.next()
            world.step(action)
            pitch.append(float(action.look[:, 1].sum()) + (pitch[-1] if pitch else 0.0))
        assert max(map(abs, pitch)) < 15 and abs(np.mean(pitch)) < 4 and np.std(pitch) > 1
