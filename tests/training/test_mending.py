"""Holes of a map are closed by what is known to stand there, in colours from beside them; nothing stands in the air."""

import numpy as np
import pytest
import torch

from controls.errors import UserError
from generator.data.clips import Dataset
from generator.tokenizer.parallax import Parallax, ParallaxConfig
from generator.tokenizer.place_map import BELOW, FINEST, PlaceMap
from generator.training.known_depth import known_ground, known_solids
from generator.training.parallax import ParallaxTraining, train
from generator.training.place_map import map_place
from generator.training.place_mending import ROUNDS, mend, mend_place

PERIOD = 64.0


def wall():
    """A map of 16 x 16 x 16 blocks whose floor and a wall along x = 8 are known, red where they were seen."""
    place_map = PlaceMap(PERIOD, 4)
    solid = torch.zeros(place_map.cells, place_map.cells, place_map.heights, dtype=torch.bool)
    solid[..., 0] = True
    solid[:, 8, :10] = True
    return place_map, solid


def numbers(of):
    return of.flatten().nonzero().flatten()


def test_a_notch_is_closed_in_the_colour_beside_it():
    """The bug: corners of walls, which few rays end in, were notches against the sky."""
    place_map, solid = wall()
    seen = solid.clone()
    seen[3, 8, 9] = seen[12, 8, 9] = False  # at the top of the wall
    colours = torch.where(numbers(seen)[:, None] % place_map.heights > 0, torch.tensor([0.8, 0.0, 0.0]), -0.5)
    place_map.fill(numbers(seen), colours)
    assert mend(place_map, solid, ~solid) == (2, 0)
    assert torch.equal(place_map.where.long(), numbers(solid))
    code = torch.zeros(place_map.blocks, dtype=torch.uint8)
    code[place_map.where.long()] = place_map.what
    assert len(code.view(solid.shape)[:, 8, 1:10].unique()) == 1, "a wall has one colour, also where it was not seen"


def test_blocks_in_the_air_go_and_what_is_not_known_stays():
    place_map, solid = wall()
    seen, air = solid.clone(), ~solid
    seen[2, 2, 12] = seen[4, 3, 12] = True
    air[4, 3] = solid[4, 3] = False  # nothing is known there
    place_map.fill(numbers(seen), torch.zeros(int(seen.sum()), 3))
    assert mend(place_map, solid, air) == (0, 1)
    seen[2, 2, 12] = False
    assert torch.equal(place_map.where.long(), numbers(seen))


def test_what_nobody_saw_at_all_stays_open():
    """The tops of high walls: from the ground they are not seen, and they would only cost room."""
    place_map, solid = wall()
    place_map.fill(numbers(solid)[:1], torch.zeros(1, 3))
    came, _ = mend(place_map, solid, ~solid)
    assert 0 < came <= (2 * ROUNDS + 1) ** 3 and len(place_map.where) < int(solid.sum()) / 2
    empty = PlaceMap(PERIOD, 4)
    assert mend(empty, solid, ~solid) == (0, 0) and not len(empty.where)


def test_what_is_inside_of_something_is_not_seen():
    place_map, solid = wall()
    solid[:, 4:13, :10] = True
    seen = solid.clone()
    seen[5, 8, 5] = False
    place_map.fill(numbers(seen), torch.zeros(int(seen.sum()), 3))
    assert mend(place_map, solid, ~solid) == (0, 0)


def test_a_map_of_recordings_is_mended(houses):
    data = Dataset.open(houses)
    parallax = Parallax(ParallaxConfig(size=data.size, period=2048.0, levels=10)).requires_grad_(False)
    map_place(parallax, data, 60, np.random.default_rng(0), known=True)
    place_map = parallax.place.map
    before = len(place_map.where)
    figures = mend_place(parallax.place, data)
    assert (
        figures["blocks_came"] > 0 and len(place_map.where) == before + figures["blocks_came"] - figures["blocks_went"]
    )
    heights = float(place_map.eye) - BELOW + FINEST * (np.arange(place_map.heights) + 0.5)
    solid, air = known_solids(data, place_map.period, place_map.cells, heights)
    assert not (solid & air).any() and not air.reshape(-1)[place_map.where.long().numpy()].any()
    again = mend_place(parallax.place, data)
    assert again["blocks_went"] == 0


def test_ground_and_solids_are_of_one_map(houses):
    data = Dataset.open(houses)
    ground = known_ground(data, 4096.0, 1024)
    solid, air = known_solids(data, 4096.0, 1024, np.array([-500.0, 0.5]) + np.nanmin(ground))
    assert solid[~np.isnan(ground)][:, 0].all() and not (solid | air)[np.isnan(ground)].any()
    lowest = ground == np.nanmin(ground)
    assert air[lowest][:, 1].all()


def test_the_stage_mends_its_map_unless_it_is_told_not_to(houses, tmp_path):
    counts = []
    for mended in (True, False):
        config = ParallaxTraining(
            str(houses), preset="debug", steps=2, batch=2, walks=1, period=2048.0, levels=10, mapped=12, pictures=2,
            ego_from=0.4, mend=mended,
        )  # fmt: skip
        train(config, tmp_path / str(mended), quiet=True)
        counts.append((tmp_path / str(mended) / "metrics.jsonl").read_text().count("blocks_came"))
    assert counts == [1, 0]


def test_other_worlds_cannot_be_mended(data_set):
    parallax = Parallax(ParallaxConfig(size=(64, 40), period=4096.0, levels=10)).requires_grad_(False)
    with pytest.raises(UserError, match="mend=false"):
        mend_place(parallax.place, Dataset.open(data_set))
