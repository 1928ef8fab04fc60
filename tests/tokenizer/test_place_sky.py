"""The sky of a place's map: it depends on where one looks, and maps of any age have one."""

import pytest
import torch

from generator.tokenizer.place_map import PlaceMap
from generator.tokenizer.place_sky import HIGHEST, LOWEST, SLOPES, TURNS, Sky

PERIOD, EDGE, STRETCH = 512.0, 1.2, 1.2
RED, BLUE = torch.tensor([1.0, -1.0, -1.0]), torch.tensor([-1.0, -1.0, 1.0])


def halves():
    """Red from azimuth 0 to 180, blue from there on."""
    return torch.stack([RED, BLUE]).repeat_interleave(360, 0).expand(96, -1, -1)


def test_the_sky_depends_on_where_one_looks():
    place_map = PlaceMap(PERIOD, 2)
    place_map.sky.fill(halves())
    for yaw, colour in ((90.0, RED), (270.0, BLUE)):
        seen = place_map.view(torch.tensor([[0, 0, yaw, 30.0]]), EDGE, STRETCH, 4, 4)[:, :3]
        assert torch.equal(seen, colour[:, None, None].expand(1, -1, 4, 4))


def test_an_empty_map_has_a_sky():
    assert PlaceMap(PERIOD, 2).view(torch.zeros(1, 4), EDGE, STRETCH, 4, 4).isfinite().all()


def test_cells_are_where_their_numbers_say():
    sky = Sky()
    up = LOWEST + (torch.arange(SLOPES) + 0.5) / SLOPES * (HIGHEST - LOWEST)
    azimuth = (torch.arange(TURNS) + 0.5) / TURNS * 360
    numbers = sky.cells(azimuth[None, None], up[None, :, None])
    assert torch.equal(numbers.flatten(), torch.arange(SLOPES * TURNS))
    assert torch.equal(sky.turn(azimuth - 720), torch.arange(TURNS)), "it goes round"
    assert sky.slope(torch.tensor([-9.0, 9.0])).tolist() == [0, SLOPES - 1], "the lowest and highest go on"


def test_it_is_kept_in_a_byte_a_cell():
    place_map, other = PlaceMap(PERIOD, 2), PlaceMap(PERIOD, 2)
    place_map.sky.fill(torch.rand(30, 40, 3))
    state = place_map.state_dict()
    assert state["sky.codes"].dtype == torch.uint8 and state["sky.codes"].shape == (30, 40)
    other.load_state_dict(state)
    pose = torch.rand(3, 4) * 300
    assert torch.equal(other.view(pose, EDGE, STRETCH, 9, 9), place_map.view(pose, EDGE, STRETCH, 9, 9))


def test_a_map_that_kept_the_colours_themselves_still_loads():
    """Worlds shipped before kept 96 x 720 colours as `sky`."""
    state = PlaceMap(PERIOD, 2).state_dict()
    for name in ("sky.codes", "sky.palette"):
        del state[name]
    place_map = PlaceMap(PERIOD, 2)
    place_map.load_state_dict({**state, "sky": halves().to(torch.bfloat16)})
    assert place_map.sky.codes.shape == (96, 720) and place_map.sky.palette.dtype == torch.float32
    seen = place_map.view(torch.tensor([[0, 0, 270.0, 30.0]]), EDGE, STRETCH, 4, 4)[0, :3]
    assert torch.equal(seen, BLUE[:, None, None].expand(-1, 4, 4))


@pytest.mark.parametrize("wrong", [torch.zeros(4, 5), torch.zeros(7, dtype=torch.uint8)])
def test_a_sky_that_is_none_is_refused(wrong):
    place_map = PlaceMap(PERIOD, 2)
    with pytest.raises(RuntimeError, match="are not bytes of slopes and turns"):
        place_map.load_state_dict({**place_map.state_dict(), "sky.codes": wrong})
