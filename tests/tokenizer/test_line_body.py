"""A body among lines: walls at any angle, stairs that the eye follows, low ceilings; as the engine recorded them."""

import copy
import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from generator.tokenizer.body import CLIMB, NOWHERE, RADIUS
from generator.tokenizer.line_body import BARRED, STATE, LineBody
from generator.tokenizer.place import Place

PERIOD, STATURE, KEYS = 2432.0, 41.0, 3
FORWARD, RUN, JUMP = 0, 1, 2
STANDING = torch.tensor([[0.0, 0, 0, 0, 0, 0, 0, 1, 0]])
WALL = BARRED, -BARRED, 1


def among(lines, floor=0, ceiling=BARRED, window=(-260.0, -1824.0)) -> Place:
    """A place whose floor is flat but for lines of ends, higher floor, lower ceiling and whether they have one side."""
    place = Place(PERIOD, False, 4, KEYS, lines=len(lines))
    body = place.body
    assert isinstance(body, LineBody)
    for name, part in zip(("ends", "bottom", "top", "single"), zip(*lines, strict=True), strict=True):
        getattr(body, name).copy_(torch.tensor(part))
    body.relief.fill_(floor)
    body.ceiling.fill_(ceiling)
    body.window.copy_(torch.tensor(window))
    body.blocks.copy_(torch.tensor([-256.0, -1808.0]))
    body.stature.fill_(STATURE)
    body.carry.copy_(torch.tensor([0.90625, 1.0]))
    push = body.push.view(2, 2, -1)
    push[0, 0, FORWARD] = push[0, 0, KEYS] = 0.78125  # and as much again while running
    push[1] = push[0] / 256
    body.lift[JUMP] = 8.0
    body.changed()
    return place


def raised(place: Place, begin: float, height: int, end: float = 2000.0) -> Place:
    """The floor is so high from `begin` to `end` along x."""
    place.body.relief[:, int((begin + 260) / 4) : int((end + 260) / 4)] = height
    place.body.changed()
    return place


def walk(place, pose, ticks, keys=(1, 0, 0), turn=0.0, state=STANDING):
    """Poses, moves and state of one who holds keys."""
    actions = torch.tensor([[*keys, turn / 8, 0.0]]).float().expand(1, ticks, -1)
    look = torch.tensor([turn, 0.0]).expand(1, ticks, 2)
    return place.body.walk(place, torch.tensor([pose]).float(), look, actions, state)


def heights(place, pose, ticks, keys=(1, 0, 0), state=STANDING):
    """How high the eye is after each tick."""
    return [round(pose[4] + z, 2) for z in walk(place, pose, ticks, keys, state=state)[1][0, :, 2].cumsum(0).tolist()]


SLID = {  # what ZDoom made of steps, in recordings: lines, feet, where it began, its step, where it ended
    "a wall aslant": (
        [((1280, -864, 1216, -800), *WALL)], -96, (1284.8746, -823.3456), (-10.8562, -4.3849), (-9.6622, -3.3907)
    ),
    "one of three": (
        [((760, -896, 824, -896), *WALL), ((717, -1024, 760, -896), -88, 8, 0), ((696, -960, 760, -896), *WALL)],
        -88, (770.2801, -917.7467), (1.8034, 2.8098), (2.2457, 2.2457),
    ),
    "a gentle slope": (
        [((712, 32, 580, 64), *WALL), ((684, 96, 704, 116), -64, 32, 0), ((660, 96, 684, 96), -64, 32, 0)],
        -64, (668.8861, 62.3468), (3.0371, -1.1507), (3.0329, -0.7385),
    ),
    "stairs that are too high from here": (
        [((1808, -910, 1768, -912), 16, 160, 0), ((1776, -798, 1808, -910), -32, 160, 0),
         ((1768, -912, 1728, -912), 16, 160, 0), ((1752, -800, 1768, -912), -44, 160, 0)],
        -34, (1766.5194, -895.0193), (-7.8683, -2.5145), (-7.7162, -0.5743),
    ),
    "a wall along an axis": (
        [((176, -1296, 64, -1296), *WALL), ((64, -1312, 176, -1312), *WALL)],
        -128, (104.1003, -1279.973), (6.2089, -0.7843), (6.014, -0.0024),
    ),
    "a high step": ([((448, 256, 448, 64), -32, 64, 0)], -64, (428.0245, 154.5418), (5.6703, 8.3542), (3.7982, 8.0917)),
    "its back": ([((1216, -800, 1280, -864), *WALL)], -96, (1284.8746, -823.3456), (-10.8562, -4.3849), (0, -4.3849)),
}  # fmt: skip


@pytest.mark.parametrize("name", SLID)
def test_steps_end_where_the_engine_ended_them(name):
    """All but the last were recorded; the back of a line that has one side is not met, but nobody stands across it."""
    lines, feet, plan, step, there = SLID[name]
    place = among(lines, feet)
    given = (torch.tensor([part]).double() for part in (plan, step))
    end, left = place.body.go(place, *given, torch.tensor([feet]).double())
    assert (end[0] - torch.tensor(plan)).tolist() == pytest.approx(there, abs=4e-3)
    assert left.norm() <= torch.tensor(step).norm() + 1e-6


def test_an_eye_follows_stairs_as_the_recorded_one_did():
    """A bug: it jumped up with every step, by 16 map units and more at once."""
    stairs = [((100 + 40 * k, -200, 100 + 40 * k, 200), 16 * (k + 1), BARRED, 0) for k in range(4)]
    place = among(stairs)
    for k in range(4):
        raised(place, 100 + 40 * k, 16 * (k + 1))
    state = torch.tensor([[8.3333, 0, 0, 0, 0, 0, 0, 1, 0]])
    made = heights(place, (60.0, 0.0, 0.0, 0.0, STATURE), 30, state=state)
    assert max(b - a for a, b in itertools.pairwise(made)) < 7 and made[-1] > STATURE + 50
    one = raised(among(stairs[:1]), 100, 16)
    made = heights(one, (75.0, 0.0, 0.0, 0.0, STATURE), 14, state=state)
    # of 16 map units an eighth in the first tick, then a quarter more in each
    assert made[:9] == pytest.approx([41, 41, 43, 45.25, 47.75, 50.5, 53.5, 56.75, 57], abs=0.01), made


def test_a_hard_landing_bends_the_knees_and_a_soft_one_does_not():
    place = among([((0, 0, 8, 0), *WALL)])
    made = heights(place, (100.0, 0.0, 0.0, 0.0, STATURE + 90), 30, (0, 0, 0))
    low = min(made)
    assert STATURE / 2 <= low < STATURE - 3 and made[-1] == STATURE
    jumped = heights(place, (100.0, 0.0, 0.0, 0.0, STATURE), 24, (0, 0, 1), STANDING)
    assert (
        jumped[:19] == [41, 49, 56, 62, 67, 71, 74, 76, 77, 77, 76, 74, 71, 67, 62, 56, 49, 41, 41]
        and min(jumped) == 41
    )


def test_who_walks_off_an_edge_falls_twice_as_fast_at_first():
    place = raised(among([((200, -100, 200, 100), 40, BARRED, 0)]), -260, 40, 200)
    state = torch.tensor([[8.0, 0, 0, 0, 0, 0, 0, 1, 0]])
    made = heights(place, (210.0, 0.0, 0.0, 0.0, STATURE + 40), 14, (0, 0, 0), state)
    falls = [round(b - a, 3) for a, b in zip([81.0, *made], made, strict=False)]
    assert falls[:10] == [0, 0, -2, -3, -4, -5, -6, -7, -8, pytest.approx(-5 - 9 / 8, abs=0.01)], (
        "a fall at more than eight map units a tick is a hard landing"
    )


def test_a_head_is_bumped_and_a_low_door_stays_shut():
    low = among([((200, -200, 200, 200), 0, 48, 0)], ceiling=72)
    made = heights(low, (100.0, 0.0, 0.0, 0.0, STATURE), 8, (0, 0, 1))
    assert max(made) == 72 - 56 + STATURE and made[2:5] == [56, 57, 57]
    end, _, _ = walk(low, (150.0, 0.0, 0.0, 0.0, STATURE), 40)
    assert 200 - RADIUS - 1 < end[0, 0] <= 200 - RADIUS
    assert walk(among([((200, -200, 200, 200), 0, 56, 0)]), (150.0, 0.0, 0.0, 0.0, STATURE), 60)[0][0, 0] > 220


def test_steps_of_a_climb_and_no_higher():
    for high, there in ((CLIMB, True), (CLIMB + 1, False)):
        place = raised(among([((200, -200, 200, 200), int(high), BARRED, 0)]), 200, int(high))
        end, _, _ = walk(place, (120.0, 0.0, 0.0, 0.0, STATURE), 60)
        assert (end[0, 0] > 220 and end[0, 4] == STATURE + high) == there


def test_one_stands_on_the_highest_floor_that_one_touches():
    place = among([((200, -200, 200, 200), 16, BARRED, 0), ((400, -200, 400, 200), *WALL)])
    plan = torch.tensor([[183.0, 0], [184.5, 0], [216.5, 0], [390.0, 0], [184.5 + PERIOD, -PERIOD]])
    assert place.body.standing(place, plan).tolist() == [STATURE, STATURE + 16, STATURE, NOWHERE, STATURE + 16]
    assert place.body.standing(place, plan.view(1, 5, 2)).shape == (1, 5)
    stood = place.body._stood(place, plan.double())
    assert stood.tolist() == [0, 16, 0, NOWHERE, 16], "as with tensors"


def around(generator: torch.Generator, count: int = 60) -> Place:
    """A place full of lines in every direction, some of them steps, some with one side."""
    first = torch.randint(-200, 400, (count, 2), generator=generator)
    ends = torch.cat([first, first + torch.randint(-90, 90, (count, 2), generator=generator)], dim=1)
    bottom = torch.randint(0, 60, (count,), generator=generator)
    top = torch.randint(60, 200, (count,), generator=generator)
    single = (torch.rand(count, generator=generator) < 0.3).long()
    bottom, top = torch.where(single > 0, BARRED, bottom), torch.where(single > 0, -BARRED, top)
    return among([*zip(ends.tolist(), bottom.tolist(), top.tolist(), single.tolist(), strict=True)])


@given(st.integers(0, 2**16))
def test_bodies_on_a_processor_walk_as_those_of_tensors(seed):
    generator = torch.Generator().manual_seed(seed)
    place, many = around(generator), 16
    scale = torch.tensor([600.0, 600.0, 720.0, 120.0, 60.0])
    pose = torch.rand(many, 5, generator=generator) * scale - torch.tensor([200.0, 200.0, 360.0, 60.0, -30.0])
    look = torch.randn(many, 6, 2, generator=generator) * 10
    keys = (torch.rand(many, 1, 3, generator=generator) < 0.5).float().expand(-1, 6, -1)
    state = torch.zeros(many, STATE)
    state[::2, 7], state[::2, :2] = 1, torch.rand(many // 2, 2, generator=generator) * 50 - 25
    state[::4, 4] = 6.0
    given = (pose, look, place.body.pushes(keys), (keys * place.body.lift).sum(-1), state)
    want, made = place.body.walk_of_tensors(place, given), place.body.walk_of_steps(place, given)
    alike = torch.ones(many, dtype=torch.bool)
    for one, other in zip(want, made, strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype and one.isfinite().all()
        alike &= torch.isclose(one, other, atol=2e-3).flatten(1).all(-1)
    assert alike.float().mean() > 0.9, "a rounding may tell one side of a line from another"


ROOM = [(0, 0), (300, -40), (520, 120), (430, 380), (180, 420), (-60, 240)]


@given(st.integers(0, 2**16))
def test_nobody_leaves_a_closed_room(seed):
    """The walls of a room of six sides, none of them along an axis, seen from within."""
    generator = torch.Generator().manual_seed(seed)
    corners = [*ROOM, ROOM[0]]
    place = among([((*b, *a), *WALL) for a, b in itertools.pairwise(corners)])
    pose, state = (220.0, 180.0, 0.0, 0.0, STATURE), STANDING
    for _ in range(40):
        turn = float(torch.randn((), generator=generator) * 12)
        end, _, state = walk(place, pose, 4, (1, 1, 0), turn, state)
        pose = tuple(end[0].tolist())
        x, y = (pose[0] + PERIOD / 2) % PERIOD - PERIOD / 2, (pose[1] + PERIOD / 2) % PERIOD - PERIOD / 2
        for (ax, ay), (bx, by) in itertools.pairwise(corners):
            length = ((bx - ax) ** 2 + (by - ay) ** 2) ** 0.5
            assert ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / length > RADIUS - 1, "a body is as wide as ever"


def test_who_is_inside_of_something_may_leave_it():
    place = among([((200, -200, 200, 200), *WALL)])
    end, _, _ = walk(place, (205.0, 0.0, 0.0, 0.0, STATURE), 40)
    assert end[0, 0] > 230 and end[0, 4] == STATURE
    held, _, _ = walk(place, (200 - RADIUS + 0.004, 0.0, 0.0, 0.0, STATURE), 40)
    assert held[0, 0] < 200, "but not who is off by a rounding"


def test_a_walk_goes_on_in_parts_as_in_whole():
    generator = torch.Generator().manual_seed(5)
    place = around(generator)
    pose = torch.tensor([[100.0, 100.0, 30.0, 0.0, 90.0], [-50.0, 200.0, 200.0, 0.0, 41.0]])
    actions = (torch.rand(2, 16, 5, generator=generator) < 0.6).float()
    look = torch.rand(2, 16, 2, generator=generator) * 8 - 4
    whole = place.body.walk(place, pose, look, actions, torch.zeros(2, STATE))
    first = place.body.walk(place, pose, look[:, :8], actions[:, :8], torch.zeros(2, STATE))
    second = place.body.walk(place, first[0], look[:, 8:], actions[:, 8:], first[2])
    torch.testing.assert_close(second[0], whole[0], atol=2e-3, rtol=0)
    torch.testing.assert_close(second[2], whole[2], atol=2e-3, rtol=0)


def test_where_it_is_tells_how_fast_a_body_was_and_how_high():
    place, pose = among([((0, 0, 8, 0), *WALL)]), (500.0, 300.0, 30.0, 0.0, STATURE)
    speed = torch.tensor([[9.0, -5.0, 0, 0, 0, 0, 0, 1, 0]])
    true, _, after = walk(place, pose, 4, state=speed)
    taken, _, wrong = walk(place, pose, 4)
    torch.testing.assert_close(place.body.corrected(place, wrong, taken, true), after, atol=1e-3, rtol=0)
    assert torch.equal(place.body.corrected(place, after, true, true), after)
    sunk = true + torch.tensor([0, 0, 0, 0, -5.0])
    found = place.body.corrected(place, after, true, sunk)
    eyes = heights(place, tuple(sunk[0].tolist()), 16, (0, 0, 0), found)
    assert eyes[0] > STATURE - 5 and eyes[-1] == STATURE and sorted(eyes) == eyes, "it rises from there"
    away = true + torch.tensor([200.0, 0, 0, 0, 0])
    assert (place.body.corrected(place, after, true, away) == 0).all()


def test_lines_stay_where_they_are_when_a_body_goes_elsewhere():
    place = among([((200, -200, 200, 200), *WALL)])
    place.body.drawn()
    other = copy.deepcopy(place).to(torch.bfloat16)
    assert torch.equal(other.body.ends, place.body.ends) and other.body.window.dtype == torch.float32
    moved = among([((300, 200, 300, -200), *WALL)])
    other.body.load_state_dict(moved.body.state_dict())
    end, _, _ = walk(other, (150.0, 0.0, 0.0, 0.0, STATURE), 60)
    assert 300 - RADIUS - 1 < end[0, 0] <= 300 - RADIUS, "what was drawn before is forgotten"
