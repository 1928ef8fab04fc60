"""What is dim from afar in a place's map: how dark it is shown, and what is kept of it."""

import copy
import dataclasses

import pytest
import torch

from generator.data.latents import parallax_hash
from generator.tokenizer.place_light import LEVELS
from generator.tokenizer.place_map import CELL, FINEST, PlaceMap

PERIOD, EDGE, STRETCH, FADE = 2048.0, 1.2, 1.2, 30.0


@pytest.fixture
def wall():
    """A white wall across the way at x = 1024, and no sky to speak of."""
    place_map = PlaceMap(PERIOD, 12)
    y = torch.arange(0, PERIOD, FINEST)
    up = torch.arange(-40.0, 60.0, FINEST)
    number, _ = place_map.number(
        torch.full((len(y), len(up)), 1025.0), y[:, None].expand(-1, len(up)), up[None].expand(len(y), -1)
    )
    place_map.fill(number.flatten(), torch.full((number.numel(), 3), 0.6))
    place_map.eye.fill_(105.0)
    return place_map


def dims(place_map, dim):
    """Cells that are all that dim."""
    return torch.full((place_map.light.side**2 * place_map.light.levels,), dim)


def middle(place_map, away):
    """The colour in the middle of a view from so far before the wall."""
    pose = torch.tensor([[1024.0 - away, 700.0, 0.0, 0.0, 105.0]])
    return place_map.view(pose, EDGE, STRETCH, 5, 5, fine=True)[0, 0, 2, 2].item()


def test_it_is_darker_the_farther_away(wall):
    near, far = middle(wall, 80.0), middle(wall, 800.0)
    assert near == far == pytest.approx(0.6, abs=0.02), "without light all is as bright from anywhere"
    wall.light.fill(dims(wall, 0.4), FADE)
    for away in (40.0, 60.0, 150.0, 400.0, 900.0):
        left = 1 - max(0.0, round(0.4 * 255) / 255 - FADE / away)
        assert middle(wall, away) == pytest.approx((near + 1) * left - 1, abs=0.02), away
    assert middle(wall, 60.0) == near, "at hand it is as it was"


def test_only_cells_that_are_dim_are_darker(wall):
    dim = dims(wall, 0.0).view(wall.light.side, wall.light.side, wall.light.levels)
    row = int(700 / CELL)
    dim[row - 1 : row + 2] = 0.5
    wall.light.fill(dim.flatten(), FADE)
    pose = torch.tensor([[624.0, 700.0, 0.0, 0.0, 105.0]])
    line = wall.view(pose, EDGE, STRETCH, 5, 255)[0, 0, 2]
    dark = line < 0.3
    assert dark[127] and not dark[:110].any() and not dark[145:].any() and 8 < int(dark.sum()) < 17


def test_a_colour_is_off_by_its_tone_where_it_is_that_dark(wall):
    wall.light.fill(dims(wall, 0.5), FADE)
    plain = {away: middle(wall, away) for away in (60.0, 120.0, 900.0)}
    code = int(wall.what[0])
    off = torch.zeros(LEVELS, 256, 3)
    off[int(LEVELS * (0.5 - FADE / 120)), code] = 0.125
    off[:, code - 1] = off[:, code + 1] = -0.25
    wall.light.tone(off)
    assert middle(wall, 120.0) == pytest.approx(plain[120.0] + 0.125, abs=1e-3)
    assert all(middle(wall, away) == plain[away] for away in (60.0, 900.0))
    wall.fill(wall.where.long(), torch.full((len(wall.where), 3), 0.6))
    assert middle(wall, 120.0) == plain[120.0] and wall.light.known, "another palette has no tones yet"


def test_it_comes_back_from_a_state_and_maps_without_any_are_as_they_were(wall):
    wall.light.fill(torch.rand(len(dims(wall, 0.0))), FADE)
    wall.light.tone(torch.rand(LEVELS, 256, 3) - 0.5)
    state = copy.deepcopy(wall.state_dict())
    other = PlaceMap(PERIOD, 12)
    other.load_state_dict(state)
    assert torch.equal(other.light.dim, wall.light.dim) and other.light.fade.item() == FADE
    assert torch.equal(other.light.tones, wall.light.tones) and len(other.light.tones) == LEVELS
    other.load_state_dict({name: value for name, value in state.items() if "tones" not in name})
    assert other.light.known and not len(other.light.tones), "maps of before there were tones"
    other.load_state_dict({name: value for name, value in state.items() if "light" not in name})
    assert not other.light.known and middle(other, 800.0) == middle(other, 80.0)
    for bad in ({"light.dim": state["light.dim"][:-1]}, {"light.fade": state["light.fade"][:0]}):
        with pytest.raises(RuntimeError, match=r"light of .* cells"):
            other.load_state_dict(state | bad)
    for bad in (
        {"light.tones": state["light.tones"][1:]},
        {"light.dim": state["light.dim"][:0], "light.fade": state["light.fade"][:0]},
    ):
        with pytest.raises(RuntimeError, match="tones are not 32 times 256 colours of a map with light"):
            other.load_state_dict(state | bad)
    wall.light.forget()
    assert not wall.light.known and middle(wall, 800.0) == middle(wall, 80.0)


def test_light_names_another_parallax_and_none_the_one_before_there_was_any(tiny_place):
    lit = copy.deepcopy(tiny_place)
    lit.place.map.light.fill(dims(lit.place.map, 0.3), FADE)
    assert parallax_hash(lit) != parallax_hash(tiny_place)
    plain = parallax_hash(lit)
    lit.place.map.light.tone(torch.full((LEVELS, 256, 3), 0.1))
    assert parallax_hash(lit) not in (plain, parallax_hash(tiny_place))
    lit.place.map.light.forget()
    assert parallax_hash(lit) == parallax_hash(tiny_place)
    del lit.place.map.light.dim, lit.place.map.light.fade
    assert parallax_hash(lit) == parallax_hash(tiny_place)
    lit.config = dataclasses.replace(lit.config, lower=0.002)
    assert parallax_hash(lit) != parallax_hash(tiny_place)
