"""Corners: a block has a face for each of its sides, found from pixels and shown to who looks at that side."""

import pytest
import torch

from generator.tokenizer.place_faces import BEFORE, DEPTH, RISING, ROUGH, SINKING, STEPS, TEXELS, Met
from generator.tokenizer.place_map import BELOW, PlaceMap
from generator.training.place_faces import FaceFusion
from generator.training.place_pixels import Ended

PERIOD, EDGE, STRETCH = 512.0, 1.2, 1.2
GREY, GREEN, RED = torch.tensor([[0.1, 0.1, 0.1], [-0.6, 0.7, -0.6], [0.7, -0.6, -0.6]])
FRONT = round(BEFORE / DEPTH)  # a plane at a block's begin
LEVEL = int(BELOW) // 4


def post(x: int = 224, y: int = 100) -> PlaceMap:
    """A grey post, one block wide, under a grey sky."""
    place_map = PlaceMap(PERIOD, 12)
    line = [torch.tensor([float(v)]) for v in (x + 1, y + 1)]
    numbers = [place_map.number(*line, torch.tensor([4.0 * k + 1 - BELOW]))[0] for k in range(48)]
    place_map.fill(torch.cat(numbers), GREY.expand(48, 3))
    place_map.sky.fill(GREY.expand(2, 2, 3))
    return place_map


def pixels(place_map: PlaceMap, level: int, count: int, seed: int) -> Ended:
    """What is seen of a block from the south-west: its western side is green, its southern one red."""
    generator = torch.Generator().manual_seed(seed)
    along, up = torch.rand(2, count, generator=generator) * 4
    west = torch.rand(count, generator=generator) < 0.7
    at = torch.stack([torch.where(west, 0.0, along), torch.where(west, along, 0.0), up])
    slopes = torch.rand(3, count, generator=generator) + 0.2
    met = Met(slopes[0], slopes[1], slopes[2] - 0.7, *at)
    block = torch.full((count,), int((place_map.where == place_map.where[level]).nonzero()))
    return Ended(block, torch.where(west[:, None], GREEN, RED), torch.full((count,), 0.02), met)


def faced() -> PlaceMap:
    """The post after its corners were found."""
    place_map = post()
    fusion = FaceFusion(place_map, 1000)
    for lay in (fusion.lie, fusion.paint):
        for level in range(48):
            lay(pixels(place_map, level, 400, level))
        if lay == fusion.lie:
            fusion.settle()
    fusion.finish()
    return place_map


def test_both_sides_of_a_corner_are_found():
    faces = faced().faces
    assert len(faces.at) == 96 and faces.most == 2
    assert faces.plane.tolist() == [FRONT, STEPS + FRONT] * 48 and (faces.facing == RISING).all()
    palette = faced().palette.float()
    for k, colour in enumerate((GREEN, RED)):
        told = palette[faces.what[k::2].long()]
        assert (faces.what[k::2] > 0).float().mean() > 0.99 and (told - colour).abs().max() < 0.1


def test_each_side_is_shown_to_who_looks_at_it():
    """Two bugs: a block had room for one face, so that near corners were stripes of what the other side shows; and of
    colours only those were kept that whole blocks have.
    """
    place_map = faced()
    for x, y, yaw, wanted in ((204.0, 102.0, 0.0, GREEN), (226.0, 80.0, 270.0, RED)):
        view = place_map.view(torch.tensor([[x, y, yaw, 0.0]]), EDGE, STRETCH, 40, 64, fine=True)[0, :3]
        assert (view[:, 18:22, 31:33] - wanted[:, None, None]).abs().max() < 0.15, "straight on"
    aslant = place_map.view(torch.tensor([[212.0, 88.0, 315.0, 0.0]]), EDGE, STRETCH, 160, 256, fine=True)[0, :3]
    row = aslant[:, 80, 100:156]  # elsewhere the place repeats
    green, red = ((row - colour[:, None]).abs().amax(0) < 0.15 for colour in (GREEN, RED))
    assert green.sum() > 5 and red.sum() > 5, "both from the corner"
    assert green.nonzero().max() < red.nonzero().min() and green.nonzero().max() + 2 >= red.nonzero().min()
    behind = place_map.view(torch.tensor([[248.0, 102.0, 180.0, 0.0]]), EDGE, STRETCH, 40, 64, fine=True)[0, :3]
    told = behind[:, 18:22, 31:33]
    assert min((told - colour[:, None, None]).abs().max() for colour in (GREEN, RED)) > 0.2, "its back shows neither"


def test_a_side_that_lies_flat_or_aslant_has_one_face_as_ever():
    place_map = post()
    fusion = FaceFusion(place_map, 1000)
    generator = torch.Generator().manual_seed(1)
    for level in range(48):
        met = pixels(place_map, level, 300, level).met
        along = torch.rand(300, generator=generator) * 4
        deep = along if level % 2 else torch.full((300,), 1.0)
        block = torch.full((300,), level)
        aslant = Met(met.east, met.north, met.up, deep, along, torch.rand(300, generator=generator) * 4)
        fusion.lie(Ended(block, GREEN.expand(300, 3), torch.full((300,), 0.02), aslant))
    fusion.settle()
    assert fusion.block.tolist() == list(range(48)) and (fusion.facing == 0).all()
    assert (fusion.plane[::2] == FRONT + round(1 / DEPTH)).all() and (fusion.plane[1::2] >= ROUGH).all()


def test_a_thin_wall_has_both_its_faces():
    place_map = post()
    fusion = FaceFusion(place_map, 1000)
    generator = torch.Generator().manual_seed(2)
    east = torch.where(torch.rand(400, generator=generator) < 0.5, 1.0, -1.0)
    x = torch.where(east > 0, 1.0, 3.0)
    y, z = torch.rand(2, 400, generator=generator) * 4
    met = Met(east, torch.full((400,), 0.1), torch.zeros(400), x, y, z)
    fusion.lie(Ended(torch.zeros(400, dtype=torch.int64), GREEN.expand(400, 3), torch.full((400,), 0.02), met))
    fusion.settle()
    assert sorted(zip(fusion.plane[:2].tolist(), fusion.facing[:2].tolist(), strict=True)) == [
        (FRONT + 10, RISING),
        (FRONT + 30, SINKING),
    ]


def test_maps_from_before_there_were_corners_open_and_damaged_ones_do_not():
    place_map, other = faced(), PlaceMap(PERIOD, 12)
    state = place_map.state_dict()
    other.load_state_dict(state)
    assert torch.equal(other.faces.facing, place_map.faces.facing) and other.faces.most == 2
    old = {name: value[::2] if "faces." in name else value for name, value in state.items() if "facing" not in name}
    other.load_state_dict(old)
    assert not other.faces.facing.any() and len(other.faces.at) == 48 and other.faces.most == 1
    assert other.faces.what.shape[1] == TEXELS**2
    for wrong in (
        {"faces.facing": state["faces.facing"] + 2},
        {"faces.facing": state["faces.facing"][1:]},
        {"faces.at": state["faces.at"] * 0 + state["faces.at"][0]},
    ):
        with pytest.raises(RuntimeError, match="none of this map"):
            other.load_state_dict({**state, **wrong})
