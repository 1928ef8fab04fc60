"""What moves as keys say is found from recordings: speeds, jumps, and what one stands on."""

import numpy as np
import pytest
import torch

from controls.action import encode_rows
from controls.camera import relative_pose
from controls.errors import UserError
from generator.data.clips import Dataset
from generator.data.collect import collect
from generator.data.latents import PLAN
from generator.tokenizer.body import CLIMB, HIGHEST, RADIUS, UNKNOWN
from generator.tokenizer.place import Place
from generator.tokenizer.place_map import BELOW, FINEST
from generator.training.body_learning import Walked, filled, lay_known, learn_body, stood_on, tops_in_the_way
from generator.training.known_depth import known_ground

PERIOD, EYE, STATURE, KEYS = 512.0, 105.0, 41.0, 4
STANDING = torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]])
CARRY, PUSH, LIFT = (0.88, 1.0), 0.7, 8.0  # forward; right is key 1, running key 2, jumping key 3


def built(keys: int = KEYS) -> Place:
    """A place with a floor, a wall along y = 200 to 216, and something 16 high to step on."""
    place = Place(PERIOD, False, 12, keys)
    place.map.eye.fill_(EYE)
    line = torch.arange(0, PERIOD, FINEST) + 1
    solid = [torch.meshgrid(line, line, torch.tensor([-STATURE - 1]), indexing="ij")]
    solid.append(
        torch.meshgrid(line, torch.arange(200.0, 216, FINEST), torch.arange(-STATURE, 60, FINEST), indexing="ij")
    )
    step = torch.arange(300.0, 380, FINEST)
    solid.append(torch.meshgrid(step, step, torch.arange(-STATURE, -STATURE + 16, FINEST), indexing="ij"))
    numbers = torch.cat([number[within] for number, within in (place.map.number(*part) for part in solid)]).unique()
    place.map.fill(numbers, torch.ones(len(numbers), 3))
    return place


def recorded(seeds: range, ticks: int = 120) -> list[Walked]:
    """Walks by a body whose numbers are known."""
    place = built()
    body = place.body
    body.relief.copy_(tops_in_the_way(place.map))
    body.stature.fill_(STATURE)
    body.carry.copy_(torch.tensor(CARRY))
    body.fall.copy_(torch.tensor([1.125, -2.0, 1.0, -1.0]))
    push = body.push.view(2, 2, -1)
    push[0, 0, 0] = push[0, 0, KEYS + 1] = PUSH  # forward, and forward while running
    push[0, 1, 1] = 0.5 * PUSH
    push[1] = push[0] / 200
    body.lift[3] = LIFT
    body.changed()
    walks = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        held = rng.random((ticks // 12, KEYS)) < (0.8, 0.3, 0.4, 0.3)
        keys = held.repeat(12, 0).astype(np.uint8)
        look = np.stack([rng.normal(0, 3, ticks // 12).repeat(12), np.zeros(ticks)], axis=-1).astype(np.float32)
        start = [*rng.uniform(20, 180, 2), rng.uniform(0, 360), 0.0, EYE]
        actions = torch.from_numpy(np.concatenate([keys, look / 8], axis=-1)).float()
        pose, state, poses = torch.tensor([start]).float(), STANDING, [start]
        for tick in range(ticks):
            now = slice(tick, tick + 1)
            pose, _, state = body.walk(place, pose, torch.from_numpy(look[None, now]), actions[None, now], state)
            poses.append(pose[0].tolist())
        rows = np.array(poses, np.float32)[:, [0, 1, 4, 2, 3]]
        rows[:, :2] = np.unwrap(rows[:, :2], axis=0, period=PERIOD)
        walks.append(Walked(np.concatenate([keys[:1] * 0, keys]), rows))
    return walks


@pytest.fixture(scope="module")
def walks():
    return recorded(range(24))


def test_the_numbers_of_a_body_are_found_through_walls_and_jumps(walks):
    place = built()
    figures = learn_body(place, walks)
    body = place.body
    assert figures["body_off"] < 0.02 and 0.5 < figures["body_free"] <= 1
    assert body.carry.tolist() == pytest.approx(CARRY, abs=2e-3) and body.stature == STATURE
    push = body.push.view(2, 2, -1)
    assert [push[0, 0, 0].item(), push[0, 0, KEYS + 1].item(), push[0, 1, 1].item()] == pytest.approx(
        [PUSH, PUSH, PUSH / 2], abs=0.01
    )
    assert push[1].abs().max() < 0.05 and push[0, 1, 0].abs() < 0.01
    assert body.lift.tolist() == [0, 0, 0, pytest.approx(LIFT)]
    assert body.fall[2:].tolist() == pytest.approx([1, -1], abs=1e-2)
    assert (8 * body.fall[0] + body.fall[1]).item() == pytest.approx(7, abs=0.2)


def test_a_body_that_was_found_walks_as_the_recorded_one(walks):
    place, fresh = built(), recorded(range(100, 108), 48)
    learn_body(place, walks)
    for walk in fresh:
        rows = torch.from_numpy(walk.pose[:, [0, 1, 3, 4, 2]])
        look = torch.zeros(1, len(walk.pose) - 1, 2)
        look[0, :, 0] = (rows[1:, 2] - rows[:-1, 2] + 180) % 360 - 180
        actions = torch.cat([torch.from_numpy(walk.keys[1:]).float()[None], look / 8], dim=-1)
        end, made, _ = place.body.walk(place, rows[:1], look, actions, STANDING)
        away = (end[0, :2] - rows[-1, :2] + PERIOD / 2) % PERIOD - PERIOD / 2
        assert away.norm() < 4, f"after {made[0, :, :2].norm(dim=-1).sum():.0f} map units"


def test_where_somebody_stood_nothing_stands_and_what_nobody_saw_is_as_beside_it(walks):
    place = built()
    number, _ = place.map.number(torch.tensor([150.0]), torch.tensor([150.0]), torch.tensor([0.0]))
    empty = place.map.number(torch.tensor([490.0]), torch.tensor([490.0]), torch.tensor([-STATURE - 1]))[0]
    where = place.map.where.long()
    where = torch.cat([where[where != empty], number])  # a speck in the air where everybody walks, and a hole
    place.map.fill(where, torch.ones(len(where), 3))
    row = column = int(150 / FINEST)
    assert tops_in_the_way(place.map)[row, column] > BELOW
    still = [Walked(np.zeros((9, KEYS), np.uint8), np.tile(np.float32([[150, 150, EYE, 0, 0]]), (9, 1)))]
    learn_body(place, [*walks, *still])
    assert place.body.relief[row, column] == BELOW - STATURE
    assert place.body.relief[int(490 / FINEST), int(490 / FINEST)] == BELOW - STATURE, "as it is beside the hole"
    assert place.body.relief[int(204 / FINEST), 10] > BELOW, "the wall is still there"


def test_what_is_higher_than_a_head_is_no_platform(walks):
    """The bug: walls were as high as what was looked at of them, and who jumped beside one stood on it."""
    place = built()
    learn_body(place, walks)
    start = torch.tensor([[100.0, 150.0, 270.0, 0.0, EYE]])
    actions = torch.zeros(1, 60, KEYS + 2)
    actions[..., 0] = actions[..., 2] = actions[..., 3] = 1.0  # runs at the wall and jumps
    end, made, _ = place.body.walk(place, start, torch.zeros(1, 60, 2), actions, STANDING)
    assert end[0, 1] <= 200 - 16 and made[0, :, 2].max() == LIFT
    assert place.body.relief[int(204 / FINEST), 10] == HIGHEST


def test_holes_are_filled_from_beside_and_walls_stay_walls():
    relief = np.full((40, 40), 24.0)
    relief[:, 10:20] = 200
    relief[3:6, 30:33] = relief[8:30, 12:18] = UNKNOWN
    full = filled(relief)
    assert (full[:, 10:20] == 200).all() and (full[:, 20:] == 24).all()


def test_what_was_never_recorded_stays_as_it_was():
    place = built()
    still = [Walked(np.zeros((9, KEYS), np.uint8), np.tile(np.float32([[150, 150, EYE, 0, 0]]), (9, 1)))]
    learn_body(place, still)
    assert place.body.carry.tolist() == pytest.approx([0.9, 1.0]) and (place.body.push == 0).all()
    assert place.body.fall.tolist() == [1, -1, 1, -1] and (place.body.lift == 0).all()


def test_the_engine_of_halls_moves_as_a_body_does(tmp_path):
    """ViZDoom keeps 29/32 of a walker's speed each tick and adds 25/32 map units for a key held."""
    collect("halls", tmp_path, 4 * 121, seed=4, maps="0-0", clip_frames=121, size="small")
    data = Dataset.open(tmp_path)
    walks = [Walked(clip.keys, clip.pose) for clip in map(data.clip, range(len(data)))]
    span = np.ptp(np.concatenate([walk.pose[:, :2] for walk in walks]), axis=0).max()
    place = Place(64.0 * float(np.ceil(span / 64)) + 512, False, 12, len(data.spec.keys))
    floor = np.median(np.concatenate([walk.pose[:, 2] for walk in walks]))
    place.map.eye.fill_(float(floor))
    line = torch.arange(0, place.period, FINEST) + 1
    number = place.map.number(*torch.meshgrid(line, line, torch.tensor([-42.0]), indexing="ij"))[0]
    place.map.fill(number.flatten().unique(), torch.ones(number.numel(), 3)[: len(number.flatten().unique())])
    assert learn_body(place, walks)["body_off"] < 0.01
    forward = data.spec.keys.index("forward")
    assert place.body.carry[0].item() == pytest.approx(29 / 32, abs=2e-3)
    assert place.body.push.view(2, 2, -1)[0, 0, forward].item() == pytest.approx(25 / 32, abs=5e-3)
    place.map.eye.fill_(float(min(walk.pose[:, 2].min() for walk in walks)) + 24)  # the lowest floor is within the map
    learn_body(place, walks, known_ground(data, place.period, len(place.body.relief)))
    assert place.body.carry[0].item() == pytest.approx(29 / 32, abs=2e-3), "also of the true ground"
    pose = np.concatenate([stood_on(walk.pose) for walk in walks])
    pose = torch.from_numpy(pose[np.isfinite(pose[:, 2])]).float()
    assert ((place.body.standing(place, pose[:, :2]) - pose[:, 2]).abs() < 1).float().mean() > 0.9
    off = astray(place, data, ticks=24)
    assert np.median(off) < 0.05 and (np.array(off) < 1).mean() > 0.85, off


def astray(place: Place, data: Dataset, ticks: int) -> list[float]:
    """How far a body is from recorded walks after so many ticks with the same keys, from the same places and speeds."""
    off = []
    for clip in map(data.clip, range(len(data))):
        rows = torch.from_numpy(encode_rows(clip.keys, clip.look, data.spec))[None]
        pose = torch.from_numpy(clip.pose[:, PLAN].astype(np.float64))
        look = torch.from_numpy(relative_pose(clip.pose[:-1].astype(np.float64), clip.pose[1:])[0]).float()[None]
        for start in range(2, len(clip) - ticks, 5):
            state = STANDING.clone()
            state[0, :2] = pose[start, :2] - pose[start - 1, :2]
            if pose[start - 1 : start + 2, 4].std() > 0:
                continue  # it rises or falls
            now = slice(start, start + ticks)
            end, _, _ = place.body.walk(
                place, pose[start : start + 1].float(), look[:, now], rows[:, start + 1 : start + ticks + 1], state
            )
            there = pose[start + ticks : start + ticks + 1].float()
            off.append(float(place.apart(there, end)[0, :2].norm()))
    return off


def test_the_true_ground_is_as_the_map_has_it(houses):
    data = Dataset.open(houses)
    ground = known_ground(data, 4096.0, 1024)
    assert np.isnan(ground).any() and np.isinf(ground).any() and np.isfinite(ground).any()
    walked = np.concatenate([stood_on(data.clip(index).pose) for index in data.select("train")])
    walked = walked[np.isfinite(walked[:, 2])]
    column, row = (np.floor(walked[:, :2] / FINEST).astype(int) % 1024).T
    assert np.median(np.abs(walked[:, 2] - ground[row, column] - STATURE)) < 1


def test_the_true_ground_of_other_worlds_is_not_known(data_set):
    with pytest.raises(UserError, match="ground=false"):
        known_ground(Dataset.open(data_set), 4096.0, 64)


def test_nobody_steps_onto_what_ends_a_relief_of_high_and_low_floors():
    """In the station's first walk a floor 240 map units above the lowest level led up the walls and out of the map."""
    place = Place(PERIOD, False, 24, KEYS, below=300.0)
    place.map.eye.fill_(EYE)
    ground = np.full((128, 128), EYE - 300.0 + 240.0)  # the highest floor
    ground[:, 64:] = np.inf
    ground[:20] = EYE - 300.0 + 8.0  # the lowest
    walk = np.zeros((40, 5), np.float32)
    walk[:, 0], walk[:, 1], walk[:, 2] = 100, 300, 240.0 + EYE - 300.0 + STATURE
    body, walks = place.body, [Walked(np.zeros((40, KEYS), np.uint8), walk)]
    lay_known(body, place, walks, ground)
    assert body.low % FINEST == 0 and float(body.low) >= 240 + 24 - HIGHEST
    levels = body.levels(place)
    highest = walk[0, 2]
    assert levels[75, 20] == pytest.approx(highest) and levels[75, 100] > highest + CLIMB
    after, _ = body.slide(
        place, torch.tensor([[200.0, 300.0]]), torch.tensor([[14.0, 0.0]]), torch.tensor([float(highest) + CLIMB])
    )
    for _ in range(12):
        after, _ = body.slide(place, after, torch.tensor([[14.0, 0.0]]), torch.tensor([float(highest) + CLIMB]))
    assert after[0, 0] <= 256 - RADIUS, "the wall stops it"
    kept = {name: tensor for name, tensor in body.state_dict().items() if name != "low"}
    older = Place(PERIOD, False, 24, KEYS).body
    older.load_state_dict(kept)
    assert older.low == 0, "reliefs of earlier worlds begin at the lowest level"
