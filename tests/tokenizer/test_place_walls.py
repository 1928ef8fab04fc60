"""Walls of a place stop whoever walks, and let out whoever stands in one."""

import pytest
import torch

from generator.tokenizer.place import Place
from generator.tokenizer.place_map import BELOW, FINEST

PERIOD = 512.0


@pytest.fixture
def walled():
    """A place whose ground is everywhere, with a wall of blocks 16 units thick along y = 96 to 112."""
    place = Place(PERIOD, False, 12)
    size = place.map.cells
    line = torch.arange(0, PERIOD, FINEST) + 1
    x, y, up = torch.meshgrid(line, torch.arange(96.0, 112.0, FINEST) + 1, line[:20] - BELOW, indexing="ij")
    number, within = place.map.number(x, y, up)
    place.map.fill(number[within].unique(), torch.ones(len(number[within].unique()), 3))
    assert size * FINEST == PERIOD and len(place.map.where)
    return place


def test_nobody_walks_into_what_stands_in_the_map(walled):
    """A bug: the ground is known by cells of 16 units, so the ego-motion's errors carried walkers into walls, where
    they saw blocks from inside.
    """
    look, south = torch.zeros(1, 8, 2), torch.tensor([[200.0, 60.0, 270.0, 0.0, 0.0]])
    pose, made = walled.advance(south, look, torch.tensor([[[10.0, 0.0, 0.0]] * 8]))
    assert 60 + 20 <= pose[0, 1] <= 96 - 12 and made[0, -1].abs().max() < 1e-6
    slant = torch.tensor([[200.0, 60.0, 315.0, 0.0, 0.0]])
    pose, _ = walled.advance(slant, look, torch.tensor([[[10.0, 0.0, 0.0]] * 8]))
    assert pose[0, 1] <= 96 - 12 and pose[0, 0] == pytest.approx(200 + 8 * 10 / 2**0.5, abs=0.01), "slides along"
    inside = torch.tensor([[200.0, 98.0, 90.0, 0.0, 0.0]])
    pose, _ = walled.advance(inside, look, torch.tensor([[[10.0, 0.0, 0.0]] * 8]))
    assert pose[0, 1] < 98 - 60, "who is in a wall can leave it"
    above = torch.tensor([[200.0, 60.0, 270.0, 0.0, 200.0]])
    pose, _ = walled.advance(above, look, torch.tensor([[[10.0, 0.0, 0.1]] * 8]))
    assert pose[0, 1] == pytest.approx(140, abs=0.01), "nothing stands there"


def test_one_could_stand_on_known_ground_clear_of_blocks(walled):
    plan = torch.tensor([[200.0, 60.0], [200.0, 90.0], [200.0, 104.0], [200.0, 130.0]])
    assert walled.walkable(plan).tolist() == [True, False, False, True]
    walled.ground[:, :4] = 0
    assert walled.walkable(torch.tensor([[20.0, 60.0], [200.0, 60.0]])).tolist() == [False, True]
    plain = Place(PERIOD, False)
    assert plain.walkable(plan).all()
