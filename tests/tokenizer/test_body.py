"""A body keeps its speed, is pushed by keys, stands, steps, jumps and falls, and slides along what it cannot climb."""

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from generator.tokenizer import body_steps
from generator.tokenizer.body import CLIMB, NOWHERE, RADIUS, STATE, UNKNOWN, both, pairs_of
from generator.tokenizer.parallax import Parallax, ParallaxConfig
from generator.tokenizer.place import Place
from generator.tokenizer.place_map import BELOW, FINEST

PERIOD, EYE, STATURE, EDGE = 512.0, 105.0, 41.0, 1.2
FLOOR = int(BELOW - STATURE)  # of the relief, so that the eye is at EYE
STANDING = torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]])
FORWARD, JUMP = 0, 2  # keys of this engine; 1 runs


def ground(keys: int = 3) -> Place:
    """A flat place of 512 units with the speeds of Doom."""
    place = Place(PERIOD, False, 12, keys)
    place.map.eye.fill_(EYE)
    body = place.body
    body.relief.fill_(FLOOR)
    body.stature.fill_(STATURE)
    body.carry.copy_(torch.tensor([0.90625, 1.0]))
    body.fall.copy_(torch.tensor([1.125, -2.0, 1.0, -1.0]))
    push = body.push.view(2, 2, -1)
    push[0, 0, FORWARD] = push[0, 0, keys + 0] = 0.78125  # and as much again with the second key held as well
    push[1] = push[0] / 256
    body.lift[JUMP] = 8.0
    body.changed()
    return place


def block(place: Place, columns: tuple[float, float], rows: tuple[float, float], height: float) -> Place:
    """Something stands there, so high above the floor."""
    x, y = (slice(int(a / FINEST), int(b / FINEST)) for a, b in (columns, rows))
    place.body.relief[y, x] = int(FLOOR + height)
    place.body.changed()
    return place


def walk(place, pose, ticks, keys=(1, 0, 0), turn=0.0, state=None):
    """Poses and moves of one who holds keys."""
    actions = torch.tensor([[*keys, turn / 8, 0.0]]).float().expand(1, ticks, -1)
    look = torch.tensor([turn, 0.0]).expand(1, ticks, 2)
    state = STANDING if state is None else state
    return place.body.walk(place, torch.tensor([pose]), look, actions, state)


def test_speed_grows_to_where_what_is_lost_is_what_is_pushed():
    place, way = ground(), (100.0, 200.0, 0.0, 0.0, EYE)
    _, made, state = walk(place, way, 120)
    assert made[0, -1].tolist() == pytest.approx([0.78125 / 0.09375, 0, 0], abs=1e-3)
    assert made[0, 0, 0] == pytest.approx(0.78125) and state[0].tolist() == pytest.approx(
        [8.333, 0, 0, 0, 0, 1, 0], abs=1e-3
    )
    _, ran, _ = walk(place, way, 120, (1, 1, 0))
    assert ran[0, -1, 0] == pytest.approx(2 * 0.78125 / 0.09375, abs=1e-3), "two keys at once have a push of their own"
    _, made, state = walk(place, way, 80, (0, 0, 0), state=state)
    assert made[0, 0, 0] == pytest.approx(8.333 * 0.90625, abs=1e-3) and (made[0, -1] == 0).all(), (
        "and it comes to rest"
    )


def test_speed_keeps_its_direction_when_one_turns():
    place = ground()
    _, _, state = walk(place, (100.0, 200.0, 0.0, 0.0, EYE), 60)
    end, made, _ = walk(place, (100.0, 200.0, 0.0, 0.0, EYE), 1, (0, 0, 0), turn=90.0, state=state)
    assert end[0, 2] == 90 and made[0, 0].tolist() == pytest.approx([0, -8.3 * 0.90625, 0], abs=0.02), "to the left"


@given(st.floats(0, 360), st.floats(60, 150), st.booleans())
def test_a_wall_stops_a_body_and_lets_it_slide(yaw, start, runs):
    place = block(ground(), (0, PERIOD), (200, 216), 100)  # all along y = 200
    pose = (250.0, start, yaw, 0.0, EYE)
    end, made, state = walk(place, pose, 40, (1, int(runs), 0))
    assert end[0, 1] <= 200 - RADIUS + 0.01 or yaw < 180, (
        "not through it; its back is met by who walks north far enough"
    )
    free, _, _ = walk(ground(), pose, 40, (1, int(runs), 0))
    if abs(float(free[0, 1] - start)) < 1:
        torch.testing.assert_close(end, free), "along it nothing is in the way"
    assert torch.isfinite(end).all() and torch.isfinite(state).all() and made.shape == (1, 40, 3)


def test_a_body_touches_the_wall_and_goes_along_it_with_what_is_left():
    place = block(ground(), (0, PERIOD), (300, 316), 100)
    end, made, _ = walk(place, (100.0, 200.0, 315.0, 0.0, EYE), 60)
    assert 300 - RADIUS - 1 < end[0, 1] <= 300 - RADIUS
    left = 31 / 32  # of its speed, each time it slides
    assert made[0, -1, :2].norm() == pytest.approx(0.5524 * left / (1 - 0.90625 * left), rel=0.02)
    head_on, made, _ = walk(place, (100.0, 200.0, 270.0, 0.0, EYE), 60)
    assert 300 - RADIUS - 1 < head_on[0, 1] <= 300 - RADIUS and made[0, -1, :2].norm() < 0.1


S = 1 / 32
SLID = {  # what ZDoom made of steps, in recordings: walls (columns, rows), where it began, its step, where it ended
    "along what is left": (((0, 512), (100, 116)), (300.0, 135.5789), (-10.9237, -7.2160), (-10.5825, -3.3533)),
    "nearer than a 32nd": (((100, 116), (0, 512)), (132.1504, 250.0), (-12.7971, -6.0647), (0.0, -5.9934)),
    "in two parts": (((0, 512), (300, 316)), (250.0, 270.9658), (2.0119, 16.8716), (1.9800, 12.7705)),
    "in two parts, head on": (((300, 316), (0, 512)), (275.0864, 200.0), (15.7109, -1.8068), (8.6680, -1.7783)),
    "a corner of it": (((84, 116), (176, 208)), (134.4961, 197.1282), (-3.9640, -0.2292), (-2.3723, -0.2222)),
    "its end is hardly met": (((84, 116), (176, 240)), (136.6069, 186.6736), (-4.6121, -6.8097), (0.0, -6.8097)),
    "too near to be met": (((200, 216), (100, 164)), (183.9956, 133.8708), (0.0573, 3.7128), (0.0, 3.7128)),
}  # fmt: skip


@pytest.mark.parametrize("name", SLID)
def test_steps_end_where_the_engine_ended_them(name):
    """A bug: a step was tried in 32nds, so bodies stopped up to that much too early, and after some seconds by a wall
    one walk in three was farther off than 4 map units.
    """
    wall, plan, step, there = SLID[name]
    place = block(ground(), *wall, 160)
    end, speed = place.body.slide(place, torch.tensor([plan]), torch.tensor([step]), torch.tensor([EYE + CLIMB]))
    assert (end[0] - torch.tensor(plan)).tolist() == pytest.approx(there, abs=2e-3)
    kept = (speed[0] / torch.tensor(step)).tolist()
    if name in ("its end is hardly met", "too near to be met"):
        assert kept == pytest.approx([1.0, 1.0]), "of a line that is not met the speed knows nothing"
    else:
        assert min(kept) == 0.0 and 0.08 < max(kept) < 1.0


def test_the_extension_of_a_line_holds_a_corner_up():
    """As in the engine, which asks only on which side of a line's endless extension a short step begins and ends."""
    step, plan, share = (4.2182, -3.2448), (284.0 - 0.6 * 4.2182, 134.6850), 0.6
    for piece, there in (
        ((300, 316), (1 - 2 * S + S * share, share - S + S * share)),
        ((400, 416), (1 - S, 2.6850 / 3.2448 - S)),  # of another block of 128 units
    ):
        place = block(block(ground(), (0, PERIOD), (100, 116), 160), piece, (180, 196), 160)
        end, _ = place.body.slide(place, torch.tensor([plan]), torch.tensor([step]), torch.tensor([EYE + CLIMB]))
        assert ((end[0] - torch.tensor(plan)) / torch.tensor(step)).tolist() == pytest.approx(there, abs=1e-3)


def test_who_is_slow_and_unpushed_makes_one_more_step_and_stands():
    slow = torch.tensor([[0.0624, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]])
    _, made, state = walk(ground(), (100.0, 200.0, 0.0, 0.0, EYE), 2, (0, 0, 0), state=slow)
    assert made[0, :, 0].tolist() == pytest.approx([0.0624 * 0.90625, 0.0], abs=1e-5) and (state[0, :2] == 0).all()
    air = torch.tensor([[0.05, 0.0, -1.0, 1.0, 1.0, 1.0, 0.0]])
    _, made, _ = walk(ground(), (100.0, 200.0, 0.0, 0.0, EYE + 60), 3, (0, 0, 0), state=air)
    assert made[0, :, 0].tolist() == pytest.approx([0.05] * 3, abs=1e-3), "in the air nothing stops it"


@given(st.integers(0, 2**16), st.booleans())
def test_no_step_ends_within_a_wall(seed, whole):
    """Anywhere among blocks of any height, also in a place that is no whole number of blocks of lines."""
    generator = torch.Generator().manual_seed(seed)
    place = Place(512.0 if whole else 496.0, False, 12, 3)
    place.map.eye.fill_(EYE)
    body = place.body
    body.stature.fill_(STATURE)
    cells = len(body.relief) // 4 + 1
    heights = torch.randint(FLOOR, FLOOR + 60, (cells, cells), generator=generator)
    heights *= torch.rand(cells, cells, generator=generator) < 0.1
    relief = (heights + FLOOR * (heights == 0)).repeat_interleave(4, 0).repeat_interleave(4, 1)
    body.relief.copy_(relief[: len(body.relief), : len(body.relief)].to(torch.uint8))
    body.changed()
    plan = torch.rand(64, 2, generator=generator) * 700 - 100
    step = torch.rand(64, 2, generator=generator) * 60 - 30
    highest = torch.full((64,), EYE + CLIMB)
    free = body.standing(place, plan) <= highest
    end, speed = body.slide(place, plan, step, highest)
    assert (body.standing(place, end[free]) <= EYE + CLIMB).all()
    assert ((end - plan).abs() <= step.abs() * (1 + 1e-4) + 1e-3)[free].all()
    assert (speed.abs() <= step.abs() * (1 + 1e-5)).all() and (speed * step >= 0).all()
    for k in range(0, 64, 8):
        alone = body.slide(place, plan[k : k + 1], step[k : k + 1], highest[:1])
        torch.testing.assert_close(alone[0][0], end[k])
        torch.testing.assert_close(alone[1][0], speed[k])


@given(st.integers(0, 2**16), st.booleans())
def test_bodies_on_a_processor_walk_as_those_of_tensors(seed, whole):
    """Standing, sliding, stepping, jumping and falling among blocks of any height, some of them where nobody can be."""
    generator = torch.Generator().manual_seed(seed)
    place = Place(512.0 if whole else 496.0, False, 12, 3)
    known = ground()
    place.map.eye.fill_(EYE)
    for name in ("stature", "carry", "fall", "push", "lift"):
        getattr(place.body, name).copy_(getattr(known.body, name))
    cells = len(place.body.relief) // 4
    heights = torch.randint(FLOOR - 20, FLOOR + 50, (cells, cells), generator=generator)
    heights = torch.where(torch.rand(cells, cells, generator=generator) < 0.3, heights, FLOOR)
    heights = torch.where(torch.rand(cells, cells, generator=generator) < 0.05, UNKNOWN, heights)
    place.body.relief.copy_(heights.repeat_interleave(4, 0).repeat_interleave(4, 1).to(torch.uint8))
    place.body.changed()
    many = 16
    scale = torch.tensor([700.0, 700.0, 720.0, 120.0, 60.0])
    pose = torch.rand(many, 5, generator=generator) * scale - torch.tensor([100.0, 100.0, 360.0, 60.0, -90.0])
    look = torch.randn(many, 6, 2, generator=generator) * 10
    keys = (torch.rand(many, 1, 3, generator=generator) < 0.5).float().expand(-1, 6, -1)
    state = torch.zeros(many, STATE)
    state[::2, 5], state[::2, :2] = 1, torch.rand(many // 2, 2, generator=generator) * 70 - 35
    state[::4, 6] = 3
    given = (pose, look, place.body.pushes(keys), (keys * place.body.lift).sum(-1), state)
    want, made = place.body.walk_of_tensors(place, given), place.body.walk_of_steps(place, given)
    alike = torch.ones(many, dtype=torch.bool)
    for one, other in zip(want, made, strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype
        alike &= torch.isclose(one, other, atol=2e-3).flatten(1).all(-1)
    assert alike.float().mean() > 0.9, "a rounding may tell one cell from another"
    assert torch.equal(given[0], pose) and (state[:, 5] == 1).sum() == many // 2, "what was given stays as it was"


def test_a_low_step_is_climbed_and_a_high_one_jumped_on():
    for height, there in ((16, True), (24, True), (28, False), (40, False)):
        place = block(ground(), (200, 400), (100, 300), height)
        end, _, _ = walk(place, (120.0, 200.0, 0.0, 0.0, EYE), 40)
        assert (end[0, 0] > 200 and end[0, 4] == EYE + height) == there, height
        assert there or 200 - RADIUS - 1 < end[0, 0] <= 200 - RADIUS
    place = block(ground(), (200, 400), (100, 300), 40)
    _, _, state = walk(ground(), (100.0, 200.0, 0.0, 0.0, EYE), 60)
    end, _, state = walk(place, (140.0, 200.0, 0.0, 0.0, EYE), 1, (1, 0, 1), state=state)
    end, _, _ = walk(place, end[0].tolist(), 14, state=state)
    assert end[0, 0] > 200 and end[0, 4] == EYE + 40
    end, _, state = walk(place, (170.0, 200.0, 0.0, 0.0, EYE), 1, (1, 0, 1))
    _, made, _ = walk(ground(), end[0].tolist(), 19, (0, 0, 0), state=state)
    assert made[0, :, 2].tolist() == [8, 7, 6, 5, 4, 3, 2, 1, 0, -1, -2, -3, -4, -5, -6, -7, -8, 0, 0], "one tick late"


def test_who_holds_the_key_jumps_again_after_a_while():
    """A bug: it was thrown up again the moment it stood, where the engine has it wait."""
    _, made, state = walk(ground(), (100.0, 200.0, 0.0, 0.0, EYE), 60, (0, 0, 1))
    begun = [t for t in range(1, 60) if made[0, t, 2] == 8]
    assert begun == [1, 24, 47] and state[0, -1] > 0
    unknown = torch.zeros(1, STATE)
    assert walk(ground(), (100.0, 200.0, 0.0, 0.0, EYE), 2, (0, 0, 1), state=unknown)[1][0, 1, 2] == 8


def test_who_walks_off_an_edge_falls_and_keeps_the_speed():
    place = block(ground(), (0, 200), (0, PERIOD), 40)
    speed = torch.tensor([[8.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]])
    end, made, _ = walk(place, (210.0, 200.0, 0.0, 0.0, EYE + 40), 14, (0, 0, 0), state=speed)
    assert made[0, :10, 2].tolist() == [0, 0, -2, -3, -4, -5, -6, -7, -8, -5] and end[0, 4] == EYE
    assert made[0, 2:9, 0].std() < 1e-3 and made[0, -1, 0] < 0.8 * made[0, 5, 0], "until the ground has it again"


def test_nobody_walks_where_nobody_knows_the_ground_and_who_is_inside_may_leave():
    place = ground()
    place.body.relief[:, 60:] = UNKNOWN
    place.body.changed()
    assert place.body.standing(place, torch.tensor([245.0, 100.0])) == NOWHERE
    end, _, _ = walk(place, (200.0, 200.0, 0.0, 0.0, EYE), 40)
    assert 240 - RADIUS - 1 < end[0, 0] <= 240 - RADIUS
    out, _, _ = walk(place, (260.0, 200.0, 180.0, 0.0, EYE), 60)
    assert out[0, 0] < 240 - RADIUS and out[0, 4] == EYE


def test_a_walk_begins_as_fast_as_the_keys_are_in_the_end():
    """Pictures do not tell how fast one is; a recorded walk is under way, and who has pressed nothing yet stands."""
    place, pose, unknown = ground(), (100.0, 200.0, 30.0, 0.0, EYE), torch.zeros(1, STATE)
    _, made, state = walk(place, pose, 2, state=unknown)
    assert made[0, :, 0].tolist() == pytest.approx([8.333, 8.333], abs=1e-3) and state[0, 5] == 1
    _, made, state = walk(place, pose, 1, (0, 0, 0), state=unknown)
    assert (made == 0).all()
    assert walk(place, pose, 1, state=state)[1][0, 0, 0] == pytest.approx(0.78125)


def test_a_place_goes_on_beyond_its_period():
    place = block(ground(), (100, 116), (0, PERIOD), 100)
    one = walk(place, (500.0, 40.0, 0.0, 0.0, EYE), 60)[0]
    assert 100 - RADIUS - 1 < one[0, 0] <= 100 - RADIUS
    torch.testing.assert_close(walk(place, (-12.0, 40.0 + PERIOD, 0.0, 0.0, EYE), 60)[0], one)


def test_many_walk_as_one_and_in_parts_as_in_whole():
    place = block(ground(), (180, 240), (90, 260), 48)
    generator = torch.Generator().manual_seed(3)
    pose = torch.rand(6, 5, generator=generator) * torch.tensor([512, 512, 360, 10, 0]) + torch.tensor(
        [0, 0, 0, 0, EYE]
    )
    actions = (torch.rand(6, 16, 5, generator=generator) < 0.6).float()
    look = torch.rand(6, 16, 2, generator=generator) * 8 - 4
    whole = place.body.walk(place, pose, look, actions, torch.zeros(6, STATE))
    for k in range(6):
        alone = place.body.walk(place, pose[k : k + 1], look[k : k + 1], actions[k : k + 1], torch.zeros(1, STATE))
        for one, many in zip(alone, whole, strict=True):
            torch.testing.assert_close(one[0], many[k])
    first = place.body.walk(place, pose, look[:, :8], actions[:, :8], torch.zeros(6, STATE))
    second = place.body.walk(place, first[0], look[:, 8:], actions[:, 8:], first[2])
    torch.testing.assert_close(second[0], whole[0], atol=1e-3, rtol=0)
    torch.testing.assert_close(second[2], whole[2], atol=1e-3, rtol=0)


def test_where_it_is_tells_how_fast_a_body_was():
    place = ground()
    speed, pose = torch.tensor([[9.0, -5.0, 0.0, 0.0, 0.0, 1.0, 0.0]]), (500.0, 300.0, 30.0, 0.0, EYE)
    true, _, after = walk(place, pose, 4, state=speed)
    taken, _, wrong = walk(place, pose, 4)
    found = place.body.corrected(place, wrong, taken, true)
    torch.testing.assert_close(found, after, atol=1e-3, rtol=0)
    assert torch.equal(place.body.corrected(place, after, true, true), after)
    high = (500.0, 300.0, 30.0, 0.0, EYE + 90)
    falling = torch.tensor([[3.0, 0.0, -5.0, 1.0, 1.0, 1.0, 0.0]])
    true, _, after = walk(place, high, 4, state=falling)
    taken, _, wrong = walk(place, high, 4, state=falling * torch.tensor([1.0, 1, 0, 1, 1, 1, 1]))
    assert true[0, 4] == EYE + 90 - 26 and taken[0, 4] == EYE + 90 - 6
    torch.testing.assert_close(place.body.corrected(place, wrong, taken, true), after, atol=1e-3, rtol=0)
    elsewhere = torch.tensor([[100.0, 100.0, 0.0, 0.0, EYE]])
    assert (place.body.corrected(place, after, true, elsewhere) == 0).all(), "a new walk"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_pace_on_the_processor_is_corrected_by_a_body_on_a_gpu():
    """The bug: a clip's first pace, drawn on the processor, met the body's carry on the GPU."""
    place = ground()
    given = (STANDING.clone(), torch.zeros(1, 5), torch.ones(1, 5))
    want = place.body.corrected(place, *given)
    place.body.cuda()
    torch.testing.assert_close(place.body.corrected(place, *given), want)


def test_clips_that_are_encoded_in_bf16_walk_as_exactly():
    """The bug: within autocast the pushes were bf16."""
    place, pose = ground(), (100.0, 200.0, 30.0, 0.0, EYE)
    due = walk(place, pose, 8, (1, 1, 1))
    with torch.autocast("cpu", torch.bfloat16):
        made = walk(place, pose, 8, (1, 1, 1))
    assert all(torch.equal(one, other) for one, other in zip(made, due, strict=True))


def test_a_body_is_in_float32_wherever_its_world_goes_and_knows_what_it_was_loaded_with():
    place = ground()
    half = copy.deepcopy(place).to(torch.bfloat16)
    assert half.body.push.dtype == torch.float32 and half.ground.dtype == torch.bfloat16
    assert torch.equal(half.body.push, place.body.push) and half.body.relief.dtype == torch.uint8
    other = block(ground(), (0, PERIOD), (200, 216), 100)
    at = torch.tensor([250.0, 205.0])
    assert place.body.standing(place, at) == EYE
    place.load_state_dict(other.state_dict())
    assert place.body.standing(place, at) == EYE + 100, "not what it was before"
    assert place.walkable(torch.tensor([[250.0, 205.0], [250.0, 150.0]])).tolist() == [False, True]


def test_pairs_are_of_keys_held_at_once():
    told = both(torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]]))
    assert told.shape == (2, pairs_of(3)) and told.tolist() == [[1, 0, 1, 0, 1, 0], [1, 1, 1, 1, 1, 1]]


def test_a_body_can_be_given_to_a_worker():
    """It could not be pickled: several workers encode clips by a copy of the world that it belongs to."""
    body = pickle.loads(pickle.dumps(ground().body))
    place = ground()
    assert torch.equal(body.levels(place), place.body.levels(place))
    body.load_state_dict({**body.state_dict(), "stature": torch.tensor(STATURE + 1.0)})
    assert not torch.equal(body.levels(place), place.body.levels(place)), "the copy notices other values"


def test_bodies_are_compiled_before_a_walk_begins(monkeypatch):
    """A bug: at the very first start the first step took five seconds, in which play stood still."""
    parallax = (
        Parallax(ParallaxConfig(size=(64, 40), period=PERIOD, levels=6, bodily=True)).requires_grad_(False).eval()
    )
    walked = []
    monkeypatch.setattr(body_steps, "walk_all", lambda *given: walked.append(len(given[0])))
    parallax.stand(torch.zeros(1, 3, 40, 64), EDGE)
    assert walked == [1]
