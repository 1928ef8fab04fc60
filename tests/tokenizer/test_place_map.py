"""A place's map: blocks stand where they were put, views turn as cameras do, pictures fuse into what they showed."""

import numpy as np
import pytest
import torch

from generator.data.clips import Dataset
from generator.tokenizer.place_map import BELOW, CELL, CHANNELS, UNIT, PlaceMap, distances
from generator.training.place_map import Fusion, map_place

PERIOD, EDGE, STRETCH = 512.0, 1.2, 1.2
RED, BLUE = torch.tensor([1.0, -1.0, -1.0]), torch.tensor([-1.0, -1.0, 1.0])
AHEAD = torch.tensor([[100.0, 100.0, 0.0, 0.0]])  # looks east


def put(place_map, x, y, up, colour):
    """A block at a spot of the plan, `up` map units above the eye."""
    number, within = place_map.blocks(*(torch.tensor([float(v)]) for v in (x, y, up)))
    assert within.all()
    place_map.solid.view(-1)[number] = 1.0
    place_map.colour.view(-1, 3)[number] = colour


@pytest.fixture
def tower():
    """A red column east of the camera under a blue sky."""
    place_map = PlaceMap(PERIOD, 12)
    place_map.sky[:] = BLUE
    for level in range(7):
        put(place_map, 230, 100, level * CELL - BELOW + 1, RED)
    return place_map


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


def test_the_sky_depends_on_where_one_looks():
    place_map = PlaceMap(PERIOD, 2)
    place_map.sky[:, :90] = RED  # azimuth from 0 to 180
    for yaw, colour in ((90.0, 1.0), (270.0, 0.0)):
        assert (place_map.view(torch.tensor([[0, 0, yaw, 30.0]]), EDGE, STRETCH, 4, 4)[:, 0] == colour).all()


def test_rays_are_asked_closely_enough_for_blocks():
    far = distances(torch.device("cpu"))
    steps = far.diff()
    assert (steps[far[:-1] < 300] < CELL).all() and far[-1] >= 1600 and len(far) < 120


def test_pictures_fuse_into_what_they_showed(tower):
    """From views of one map and their distances another one is made, which looks the same from elsewhere."""
    floor = torch.arange(0, PERIOD, CELL)
    for x in floor.tolist():
        for y in floor.tolist():
            put(tower, x + 1, y + 1, 1 - BELOW, torch.tensor([0.5, 0.5 * ((x + y) % 32 == 0), 0.0]))
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
    for nearness in (near, far, far, far, far):
        fusion.add(torch.zeros(4, 3, 40, 64), pose, nearness, EDGE, STRETCH)
    fusion.finish()
    assert not (made.view(AHEAD, EDGE, STRETCH, 20, 32)[0, 3, 8:12] > UNIT / 200).any()


def test_a_map_is_made_of_recordings(tiny_place, data_set):
    with torch.inference_mode():
        before = [buffer.clone() for buffer in tiny_place.place.map.buffers()]
    try:
        found = []
        for _ in range(2):
            map_place(tiny_place, Dataset.open(data_set), 12, np.random.default_rng(1))
            found.append([buffer.clone() for buffer in tiny_place.place.map.buffers()])
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
        assert not torch.equal(found[0][0], before[0]) and not torch.equal(found[0][2], before[2])
    finally:
        for buffer, value in zip(tiny_place.place.map.buffers(), before, strict=True):
            buffer.copy_(value)
