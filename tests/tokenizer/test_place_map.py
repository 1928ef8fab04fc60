"""A place's map: blocks stand where they were put, views turn as cameras do, pictures fuse into what they showed."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from controls.errors import UserError
from generator.data.clips import Dataset
from generator.tokenizer import place_rays
from generator.tokenizer.camera_rays import SAMPLES, Rays, finer
from generator.tokenizer.place_faces import BEFORE, DEPTH, ROUGH, TEXELS
from generator.tokenizer.place_light import LEVELS as DARKS
from generator.tokenizer.place_map import (
    BELOW,
    CELL,
    CHANNELS,
    FAR,
    FINEST,
    KINDS,
    UNIT,
    PlaceMap,
    asked_at,
)
from generator.training.place_map import Fusion, map_place

PERIOD, EDGE, STRETCH = 512.0, 1.2, 1.2
RED, BLUE = torch.tensor([1.0, -1.0, -1.0]), torch.tensor([-1.0, -1.0, 1.0])
AHEAD = torch.tensor([[100.0, 100.0, 0.0, 0.0]])  # looks east


def put(place_map, x, y, up, colour):
    """A cube of CELL at a corner of the plan, its bottom `up` map units above the eye, among those that stand."""
    part = torch.arange(0, CELL, FINEST) + 1
    number, within = place_map.number(*torch.meshgrid(x + part, y + part, up + part, indexing="ij"))
    assert within.all()
    number = number.flatten()
    where = torch.cat([place_map.where.long(), number])
    place_map.fill(where, torch.cat([place_map.palette[place_map.what.long()], colour.expand(len(number), 3)]))


@pytest.fixture
def tower():
    """A red column east of the camera under a blue sky."""
    place_map = PlaceMap(PERIOD, 12)
    place_map.sky.fill(BLUE.expand(2, 2, 3))
    for level in range(7):
        put(place_map, 224, 96, level * CELL - BELOW, RED)
    return place_map


def test_a_map_may_begin_farther_below_the_eye(tower):
    """The same column from a map with four more levels under it."""
    deeper = PlaceMap(PERIOD, 16, below=BELOW + 4 * CELL)
    deeper.sky.fill(BLUE.expand(2, 2, 3))
    for level in range(7):
        put(deeper, 224, 96, level * CELL - BELOW, RED)
    assert len(deeper.where) == len(tower.where)
    for pose in (AHEAD, AHEAD + torch.tensor([[3.0, -5.0, 10.0, 4.0]])):
        assert torch.equal(deeper.view(pose, EDGE, STRETCH, 40, 64), tower.view(pose, EDGE, STRETCH, 40, 64))
    put(deeper, 160, 96, -BELOW - 4 * CELL, RED)
    assert tower.number(torch.tensor(160.0), torch.tensor(96.0), torch.tensor(-BELOW - 4 * CELL))[1].item() is False


def red(view):
    """Columns (of a row in the middle) in which the tower itself, not one that repeats it, is seen."""
    row = view[0, :, view.shape[2] // 2]
    return ((row[0] > 0) & (row[3] > UNIT / 300)).nonzero().flatten()


def test_a_block_is_seen_where_it_stands(tower):
    view = tower.view(AHEAD, EDGE, STRETCH, 40, 64)
    assert view.shape == (1, 4, 40, 64) and CHANNELS == 64
    columns = red(view)
    assert abs(float(columns.float().mean()) - 31.5) < 2.5 and 2 <= len(columns) <= 6
    near = view[0, 3, 20, columns]
    assert ((UNIT / near - 130).abs() < 16).all() and (view[0, 3, 20, :20] < UNIT / 300).all()
    assert torch.equal(view[0, :3, 20, 0], BLUE)


def test_a_view_turns_and_tilts_as_the_camera_does(tower):
    middle = red(tower.view(AHEAD, EDGE, STRETCH, 40, 64)).float().mean()
    right = red(tower.view(AHEAD + torch.tensor([0, 0, 20.0, 0]), EDGE, STRETCH, 40, 64)).float().mean()
    assert right < middle - 5, "what was ahead is to the left of who turned right"
    north = red(tower.view(AHEAD + torch.tensor([0, 40.0, 0, 0]), EDGE, STRETCH, 40, 64)).float().mean()
    assert north > middle + 3, "what was ahead is to the right of who stepped to the left"
    tops = []
    for pitch in (0.0, 10.0):
        view = tower.view(AHEAD + torch.tensor([0, 0, 0, pitch]), EDGE, STRETCH, 40, 64)
        tops.append(int((view[0, 0, :, 31:33] > 0).any(1).nonzero()[0]))
    assert tops[1] > tops[0], "who looks up sees the top lower"
    near = tower.view(AHEAD + torch.tensor([60.0, 0, 0, 0]), EDGE, STRETCH, 40, 64)
    assert len(red(near)) > len(red(tower.view(AHEAD, EDGE, STRETCH, 40, 64)))


def test_a_view_repeats_with_the_place(tower):
    here = tower.view(AHEAD, EDGE, STRETCH, 20, 32)
    assert torch.equal(tower.view(AHEAD + torch.tensor([PERIOD, -2 * PERIOD, 0, 0]), EDGE, STRETCH, 20, 32), here)
    other = tower.view(AHEAD + torch.tensor([PERIOD / 2, 0, 0, 0]), EDGE, STRETCH, 20, 32)
    assert not torch.equal(other, here)


def test_rays_are_asked_closely_enough_for_blocks():
    asked = asked_at(2 * EDGE / 128)
    assert len(asked) == KINDS and all(len(part) for part in asked)
    far = torch.cat(asked)
    assert (far.diff() > 0).all() and FAR * 0.97 < far[-1] < FAR and len(far) < 600
    for kind, part in enumerate(asked):
        assert (part.diff() <= 0.71 * FINEST * 2**kind).all()
    wide = 2 * EDGE / 128 * asked[1]
    assert (wide * 1.5 >= 2 * FINEST).all(), "a coarser block is not much wider than the ray"


@pytest.mark.parametrize("away", [60.0, 220.0, 450.0, 660.0])
@pytest.mark.parametrize("yaw", [-15.0, 0.0, 20.0])
def test_no_ray_slips_through_a_wall_that_is_one_block_thick(away, yaw):
    """They did from 400 map units on, in stripes: places where they ask were farther apart than a block is wide."""
    place_map = PlaceMap(8192.0, 12)
    place_map.sky.fill(BLUE.expand(2, 2, 3))
    along, up = torch.meshgrid(torch.arange(2000.0, 6000, FINEST), torch.arange(0, 190.0, FINEST), indexing="ij")
    wall = place_map.number(torch.full_like(along, 4001.0 + away), along + 1, up + 1 - BELOW)[0].flatten()
    place_map.fill(wall, RED.expand(len(wall), 3))
    view = place_map.view(torch.tensor([[4000.0, 4000.0, yaw, 0.0]]), EDGE, STRETCH, 160, 256)
    assert (view[0, 0, 78] > 0).all(), "of the row just above the middle"


def test_coarse_blocks_are_the_mean_of_fine_ones():
    place_map = PlaceMap(PERIOD, 2)
    part = torch.tensor([[0.0, 0, 0], [0, 0, 4], [100, 100, 0]]) + 1
    where = place_map.number(*(part - torch.tensor([0, 0, BELOW])).unbind(1))[0]
    place_map.fill(where, torch.stack([RED, BLUE, RED]))
    assert [int((getattr(place_map, f"codes{kind}") > 0).sum()) for kind in range(KINDS)] == [3, 1, 0]
    code = int(place_map.codes1[place_map.codes1 > 0])
    assert code in (1, 2), "of two colours there are, one of the nearest to their mean"


def test_a_map_comes_back_from_its_state(tower):
    """However many blocks there are, and wherever they are put."""
    other = PlaceMap(PERIOD, 12)
    other.load_state_dict(tower.state_dict())
    assert torch.equal(other.codes0, tower.codes0) and other.where.dtype == torch.int32
    assert torch.equal(other.view(AHEAD, EDGE, STRETCH, 20, 32), tower.view(AHEAD, EDGE, STRETCH, 20, 32))
    other.load_state_dict(PlaceMap(PERIOD, 12).state_dict())
    assert not other.codes0.any()
    state = tower.state_dict()
    for wrong in ({"where": state["where"][1:]}, {"where": state["where"] + tower.blocks}, {"where": -state["where"]}):
        with pytest.raises(RuntimeError, match="none of a map"):
            other.load_state_dict({**state, **wrong})


@pytest.mark.parametrize("fine", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("height", "width", "samples"), [(40, 64, 1), (96, 160, 1), (48, 80, 2), (24, 40, 4)])
@pytest.mark.parametrize("light", ["", "light", "tones"])
def test_rays_on_a_processor_meet_what_tensors_meet(height, width, samples, threads, fine, light):
    """Anywhere, in and above and below a map of blocks at random, half of them with faces; to the last bit."""
    generator = torch.Generator().manual_seed(height)
    place_map = PlaceMap(PERIOD, 12)
    where = torch.randint(place_map.blocks, (4000,), generator=generator).unique()
    place_map.fill(where, torch.rand(len(where), 3, generator=generator) * 2 - 1)
    faced = torch.cat([where[::2], where[::4], where[::8]])  # corners have more faces than one
    planes = torch.randint(ROUGH + 3, faced.shape, generator=generator)
    facing = torch.randint(3, faced.shape, generator=generator)
    what = torch.randint(256, (len(faced), TEXELS**2), generator=generator)
    place_map.faces.fill(faced, planes, what, facing)
    place_map.sky.fill(torch.rand(96, 720, 3, generator=generator))
    place_map.eye.fill_(105.0)
    place_map.lower = 0.003
    if light:
        cells = place_map.light.side**2 * place_map.light.levels
        place_map.light.fill(torch.rand(cells, generator=generator), 30.0)
    if light == "tones":
        place_map.light.tone(torch.rand(DARKS, 256, 3, generator=generator) * 0.4 - 0.2)
    pose = torch.rand(3, 5, generator=generator) * torch.tensor([2000.0, 2000.0, 720.0, 100.0, 400.0])
    pose -= torch.tensor([1000.0, 1000.0, 360.0, 50.0, 100.0])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = place_map.view(pose, EDGE, STRETCH, height, width, fine, samples)
    finally:
        torch.set_num_threads(before)
    rays = Rays(pose, EDGE, STRETCH, height, width, samples, 0.003)
    seen = place_map.view_of_tensors(rays, asked_at(2 * EDGE / width / finer(samples)), fine)
    assert torch.equal(found, seen.unflatten(0, (3, samples)).mean(1))
    assert torch.equal(found, place_map.view(pose, EDGE, STRETCH, height, width, False, samples)) is not fine
    assert (found[:, 3] > 0).any() and (found[:, 3] == 0).any()


@pytest.mark.parametrize("samples", [1, 2])
def test_rays_indoors_leap_over_what_is_empty_and_meet_what_tensors_meet(samples):
    """Rooms with floors at several heights, ceilings, pillars, a beam and a window; to the last bit."""
    place_map = PlaceMap(PERIOD, 12)
    side, generator = place_map.cells, torch.Generator().manual_seed(samples)
    solid = torch.zeros(side, side, place_map.heights, dtype=torch.bool)  # (y, x, up)
    solid[..., :9], solid[..., 33:36] = True, True
    solid[40:60, :, :12], solid[90:, 20:50, 26:36] = True, True
    solid[::32], solid[:, ::40] = True, True
    solid[::32, 4:12, 9:30], solid[6:14, ::40, 11:20] = False, False
    solid[torch.randint(side, (60,), generator=generator), torch.randint(side, (60,), generator=generator)] = True
    solid[16, :, 24:26] = True
    where = solid.flatten().nonzero()[:, 0]
    place_map.fill(where, torch.rand(len(where), 3, generator=generator) * 2 - 1)
    place_map.sky.fill(torch.rand(96, 720, 3, generator=generator))
    place_map.eye.fill_(float(BELOW))
    pose = torch.rand(12, 5, generator=generator) * torch.tensor([PERIOD, PERIOD, 360.0, 90.0, 60.0])
    pose += torch.tensor([0.0, 0.0, 0.0, -45.0, 40.0])
    found = place_map.view(pose, EDGE, STRETCH, 80, 128, True, samples)
    rays = Rays(pose, EDGE, STRETCH, 80, 128, samples, 0.0)
    seen = place_map.view_of_tensors(rays, asked_at(2 * EDGE / 128 / finer(samples)), True)
    assert torch.equal(found, seen.unflatten(0, (12, samples)).mean(1))
    assert (found[:, 3] > 0).float().mean() > 0.9


def test_samples_of_a_pixel_are_pixels_of_a_picture_twice_the_size(tower):
    """All four of them, or the two that lie aslant; and where rays are finer they ask more often."""
    pose = torch.tensor([[60.0, 130.0, 20.0, 3.0]])
    large = tower.view(pose, EDGE, STRETCH, 80, 128, fine=True)
    parts = {(down, right): large[..., down::2, right::2] for down in (0, 1) for right in (0, 1)}
    wanted = {4: sum(parts.values()) / 4, 2: (parts[1, 0] + parts[0, 1]) / 2}
    assert set(wanted) | {1} == set(SAMPLES)
    for samples, mean in wanted.items():
        found = tower.view(pose, EDGE, STRETCH, 40, 64, fine=True, samples=samples)
        assert (found - mean).abs().amax(1).lt(1e-4).float().mean() > 0.99, samples
    usual, twice = (torch.cat(asked_at(2 * EDGE / width)) for width in (256, 512))
    assert len(twice) > 1.7 * len(usual) and len(torch.cat(asked_at(2 * EDGE / 64))) <= len(usual)
    assert torch.cat(asked_at(2 * EDGE / 512)).max() < FAR


def test_rays_that_look_lower_are_those_of_a_camera_that_does():
    """Pitch is a shear: half a row lower everywhere is a smaller tangent of it."""
    pose = torch.tensor([[60.0, 130.0, 20.0, 3.0], [60.0, 130.0, 110.0, -8.0]])
    lower = EDGE / 512
    found, plain = Rays(pose, EDGE, STRETCH, 160, 256, 2, lower), Rays(pose, EDGE, STRETCH, 160, 256, 2)
    pose[:, 3] = torch.rad2deg((torch.deg2rad(pose[:, 3]).tan() - lower / STRETCH).atan())
    wanted = Rays(pose, EDGE, STRETCH, 160, 256, 2)
    torch.testing.assert_close(found.up, wanted.up)
    assert torch.equal(found.east, wanted.east) and torch.equal(found.north, wanted.north)
    row = plain.up[0, 0, 0] - plain.up[0, 1, 0]
    torch.testing.assert_close(plain.up - found.up, torch.full_like(plain.up, row / 4), atol=1e-6, rtol=1e-3)


def test_a_face_shows_its_texels_where_its_plane_is(tower):
    """The side of the tower that looks west gets a chequered face, 1 map unit to a texel, as it would be painted."""
    number = tower.where.long()[tower.number(*torch.tensor([[225.0], [105.0], [10.0]]))[0][0] == tower.where]
    assert len(number) == 1
    tower.palette[254] = torch.tensor([0.0, 1.0, 0.0])
    what = torch.where((torch.arange(16) // 4 + torch.arange(16) % 4) % 2 == 0, 254, 0)[None]
    tower.faces.fill(number, torch.tensor([round(BEFORE / DEPTH)]), what)
    pose = torch.tensor([[204.0, 105.0, 0.0, 0.0]])
    coarse, fine = (tower.view(pose, EDGE, STRETCH, 160, 256, fine=fine) for fine in (False, True))
    changed = (fine != coarse).any(1)[0] & (fine[0, 3] > UNIT / 300)  # of this tower, not of one that repeats it
    assert changed.any() and torch.equal(fine[:, 3], coarse[:, 3])
    rays = Rays(pose, EDGE, STRETCH, 160, 256)
    y, z = (v[0].expand(160, 256) for v in (105.0 + rays.north * 20.0, rays.up * 20.0))  # on the plane x = 224
    texel = (y.remainder(4.0).long() + (z + BELOW).remainder(4.0).long()) % 2 == 0
    inside = (y.remainder(4.0) - 2).abs().lt(1.9) & ((z + BELOW).remainder(4.0) - 2).abs().lt(1.9)
    block = (y >= 104) & (y < 108) & ((z + BELOW) // FINEST == (10 + BELOW) // FINEST)
    assert torch.equal(changed[block & inside], texel[block & inside]) and not changed[~block & inside].any()


def test_faces_come_back_from_a_state_and_maps_without_any_are_as_they_were(tower):
    other, count = PlaceMap(PERIOD, 12), 5
    tower.faces.fill(tower.where[:count], torch.arange(count), torch.randint(256, (count, TEXELS**2)))
    state = tower.state_dict()
    other.load_state_dict(state)
    assert torch.equal(other.faces.what, tower.faces.what) and torch.equal(other.faces.starts, tower.faces.starts)
    other.load_state_dict({name: value for name, value in state.items() if "faces" not in name})
    assert len(other.faces.at) == 0 and not other.faces.starts.any()
    for wrong in (
        {"faces.at": state["faces.at"].flip(0)}, {"faces.plane": state["faces.plane"] + 243},
        {"faces.what": state["faces.what"][:, 1:]}, {"faces.at": state["faces.at"] + tower.blocks},
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match="none of this map's"):
            other.load_state_dict({**state, **wrong})


def test_a_pose_that_is_not_finite_is_told(tower):
    with pytest.raises(UserError, match="no longer finite"):
        tower.view(torch.tensor([[100.0, math.nan, 0.0, 0.0]]), EDGE, STRETCH, 40, 64)


def test_a_view_is_that_of_every_ray_by_itself(tower):
    """Rows are looked along in bands, only as far as they stay within the map: that changes nothing."""
    tower.eye.fill_(105.0)
    pose = torch.tensor([[100.0, 100.0, 20.0, 8.0, 105.0], [60.0, 90.0, 340.0, -6.0, 131.0]])
    whole = tower.view(pose, EDGE, STRETCH, 40, 64)
    level = tower.view(pose[:, :4], EDGE, STRETCH, 40, 64)
    assert torch.equal(level[0], whole[0]) and not torch.equal(level[1], whole[1])
    rays, asked = Rays(pose, EDGE, STRETCH, 40, 64), asked_at(2 * EDGE / 64)
    for camera, row, column in [(0, 0, 3), (0, 21, 30), (1, 13, 40), (1, 39, 60), (0, 17, 28), (1, 20, 33)]:
        nearness = 0.0
        for kind in reversed(range(KINDS)):
            size, levels = FINEST * 2**kind, tower.heights // 2**kind
            for far in reversed(asked[kind].tolist()):
                x = float(pose[camera, 0] + rays.east[camera, 0, column] * far) % PERIOD
                y = float(pose[camera, 1] + rays.north[camera, 0, column] * far) % PERIOD
                above = BELOW + float(pose[camera, 4]) - 105.0
                level = math.floor((float(rays.up[camera, row, 0]) * far + above) / size)
                side = tower.cells // 2**kind
                codes = getattr(tower, f"codes{kind}").view(side, side, levels + 2)
                if 0 <= level < levels and codes[int(y / size), int(x / size), level + 1]:
                    nearness = UNIT / far
        assert float(whole[camera, 3, row, column]) == pytest.approx(nearness, rel=1e-5), (camera, row, column)


def test_pictures_fuse_into_what_they_showed(tower):
    """From views of one map and their distances another one is made, which looks the same from elsewhere."""
    floor = torch.arange(0, PERIOD, FINEST) + 1
    x, y = (v.flatten() for v in torch.meshgrid(floor, floor, indexing="ij"))
    colour = torch.stack([0.5 + 0 * x, 0.5 * ((x // CELL + y // CELL) % 2), 0 * x], dim=1)
    where = torch.cat([tower.where.long(), tower.number(x, y, 1 - BELOW + 0 * x)[0]])
    tower.fill(where, torch.cat([tower.palette[tower.what.long()], colour]))
    torch.manual_seed(0)
    made = PlaceMap(PERIOD, 12)
    fusion = Fusion(made, [[0.0, 0.0]])
    for _ in range(12):
        pose = torch.rand(8, 4) * torch.tensor([PERIOD, PERIOD, 360.0, 0.0])
        view = tower.view(pose, EDGE, STRETCH, 40, 64)
        fusion.add(view[:, :3], pose, view[:, 3:] / UNIT, EDGE, STRETCH)
    fusion.finish()
    pose = torch.tensor([[90.0, 100.0, 4.0, 0.0], [300.0, 120.0, 185.0, 0.0]])
    due, seen = (m.view(pose, EDGE, STRETCH, 40, 64) for m in (tower, made))
    assert (due[:, :3] - seen[:, :3]).abs().mean() < 0.15
    assert (tower.view(pose, EDGE, STRETCH, 40, 64)[:, :3] - BLUE[:, None, None]).abs().mean() > 0.5
    gap = (red(seen).float().mean() - red(due).float().mean()).abs()
    assert gap < 1.5
    assert PlaceMap(PERIOD, 12).view(pose, EDGE, STRETCH, 40, 64)[:, 3].max() == 0, "an empty map is all sky"


def test_blocks_that_rays_went_through_are_not_kept(tower):
    made = PlaceMap(PERIOD, 12)
    fusion = Fusion(made, [[0.0, 0.0]])
    pose = AHEAD.expand(4, -1)
    near, far = (torch.full((4, 1, 20, 32), 1 / v) for v in (100.0, 400.0))
    for nearness in (near, *[far] * 24):
        fusion.add(torch.zeros(4, 3, 40, 64), pose, nearness, EDGE, STRETCH)
    fusion.finish()
    assert not (made.view(AHEAD, EDGE, STRETCH, 20, 32)[0, 3, 8:12] > UNIT / 200).any()


def test_a_map_is_made_of_recordings(tiny_place, data_set):
    with torch.inference_mode():
        before = {name: tensor.clone() for name, tensor in tiny_place.place.map.state_dict().items()}
    try:
        found = []
        for _ in range(2):
            map_place(tiny_place, Dataset.open(data_set), 12, np.random.default_rng(1))
            found.append({name: tensor.clone() for name, tensor in tiny_place.place.map.state_dict().items()})
        assert all(torch.equal(found[0][name], found[1][name]) for name in before)
        assert len(found[0]["where"]) and not torch.equal(found[0]["what"], before["what"])
    finally:
        tiny_place.place.map.load_state_dict(before)


def test_clearance_is_how_far_a_body_gets(tower):
    """The tower begins 34 units to the east; above the head and below a step nothing is in the way."""
    plan, ways = torch.tensor([[190.0, 104.0], [490.0, 104.0]]), torch.tensor([[0.0, 90.0, 180.0, 5.0]]).expand(2, -1)
    far = tower.clearance(plan, ways)
    assert far.shape == (2, 4) and 30 <= far[0, 0] <= 38 and 30 <= far[0, 3] <= 38
    assert torch.isinf(far[0, 1:3]).all() and torch.isinf(far[1]).all()
    low = PlaceMap(PERIOD, 12)
    put(low, 224, 96, -BELOW, RED)
    put(low, 224, 96, 3 * CELL, RED)
    assert torch.isinf(low.clearance(plan, ways)).all()


def test_a_body_is_crowded_by_what_stands_beside_it(tower):
    """The tower begins 12 units to the east of the second plan position and holds the last."""
    plan = torch.tensor([[190.0, 104.0], [211.0, 104.0], [214.0, 104.0], [228.0, 104.0]])
    crowded = tower.crowded(plan, torch.zeros(4))
    assert (crowded[:2] == 0).all() and 0 < crowded[2] < crowded[3] <= 1
    assert (tower.crowded(plan, torch.full((4,), 200.0)) == 0).all(), "above its top"
    torch.testing.assert_close(tower.crowded(plan + PERIOD, torch.zeros(4)), crowded)


@given(value=st.floats(-2000, 4000, width=32), period=st.floats(16, 900, width=32))
@settings(max_examples=200, deadline=None)
def test_a_wrapped_position_is_the_remainder_to_the_last_bit(value, period):
    made = place_rays.wrapped(np.float32(value), np.float32(period))
    assert np.float32(made) == np.float32(value) % np.float32(period)
    cell = np.zeros(2, np.int32)
    far = np.float32([0.0, 1.0])
    place_rays.cells_along(
        far, np.float32(value), np.float32(8), np.float32(period), np.float32(4), np.int32(999), cell
    )
    moved = np.float32(np.float32(value) + np.float32(8))
    assert cell.tolist() == [int(np.float32(v) % np.float32(period) / np.float32(4)) for v in (value, moved)]
