"""The light of a place's map is found: how dim cells are, and what blocks look like at hand."""

import numpy as np
import pytest
import torch

from generator.data.clips import Dataset
from generator.data.latents import PLAN
from generator.tokenizer.parallax import Parallax, ParallaxConfig
from generator.tokenizer.place_faces import Met
from generator.tokenizer.place_light import darkness
from generator.tokenizer.place_map import PlaceMap
from generator.training.parallax import ParallaxTraining, train
from generator.training.parallax_files import load_parallax
from generator.training.place_light import FADE, LightFusion, ToneFusion, light_place, tone_place
from generator.training.place_map import map_place
from generator.training.place_pixels import Ended
from generator.training.windows import to_video


def made_up(colour, dim, block, generator, count=4000):
    """Pixels of blocks of these colours (N, 3) and darknesses (N,), from 40 to 1,000 map units, with some noise."""
    chosen = torch.randint(len(block), (count,), generator=generator)
    near = 1 / (40 + 960 * torch.rand(count, generator=generator))
    left = 1 - (dim[chosen] - FADE * near).clamp(min=0)
    seen = (colour[chosen] + 1) * left[:, None] - 1 + 0.03 * torch.randn(count, 3, generator=generator)
    nowhere = torch.zeros(count)
    return Ended(block[chosen], seen, near, Met(*[nowhere] * 6))


def test_it_finds_how_dim_cells_are_and_what_blocks_look_like_at_hand():
    """Of blocks in two dim cells and in one that is as bright from anywhere; a fourth, never seen, is as most are."""
    generator = torch.Generator().manual_seed(0)
    place_map = PlaceMap(512.0, 12)
    x, y = torch.tensor([8.0, 10.0, 100.0, 101.0, 200.0, 400.0]), torch.tensor([8.0, 9.0, 40.0, 40.0, 80.0, 300.0])
    number, _ = place_map.number(x, y, torch.zeros(6))
    number = number.unique()
    place_map.fill(number, torch.zeros(len(number), 3))
    cells = place_map.light.of(place_map.where.long())
    of_cell = dict(zip(cells.unique().tolist(), (0.12, 0.44, 0.0, 0.3), strict=False))
    dim = torch.tensor([of_cell[cell] for cell in cells.tolist()])
    colour = torch.rand(len(number), 3, generator=generator) - 0.2
    seen = torch.arange(len(number) - 1)
    fusion = LightFusion(place_map)
    fusion.tell(made_up(colour, dim, seen, generator))
    fusion.settle()
    found = place_map.light.dim[cells].float() / 255
    assert (found - dim)[:-1].abs().max() < 0.05, (found, dim)
    fusion.colour(made_up(colour, dim, seen, generator))
    fusion.finish()
    at_hand = place_map.palette[place_map.what.long()]
    assert (at_hand - colour)[:-1].abs().max() < 0.08, (at_hand, colour)
    assert at_hand[-1].abs().max() < 0.05, "what was not seen keeps its colour"


def test_it_finds_how_far_colours_are_off_and_leaves_edges_out():
    """Of two blocks in a dim cell, one of whose colours is off at some darkness; pixels of two colours say nothing."""
    generator = torch.Generator().manual_seed(0)
    place_map = PlaceMap(512.0, 12)
    number, _ = place_map.number(torch.tensor([8.0, 12.0]), torch.tensor([8.0, 8.0]), torch.zeros(2))
    colour = torch.tensor([[-0.2, 0.1, 0.3], [0.4, 0.2, 0.0]])
    place_map.fill(number.sort().values, colour)
    place_map.light.fill(torch.full((place_map.light.side**2 * place_map.light.levels,), 0.5), FADE)
    dim = float(place_map.light.dim[0]) / 255
    pixels = made_up(colour, torch.full((2,), dim), torch.arange(2), generator, 40000)
    dark = darkness(1 - (dim - FADE * pixels.near).clamp(min=0))
    off = (dark == 12) & (pixels.block == 1)
    pixels.colour[off] += torch.tensor([0.1, 0.0, -0.06])
    pixels.colour[::7] -= 0.5  # another colour's
    fusion = ToneFusion(place_map)
    fusion.tell(pixels)
    fusion.finish()
    tones = place_map.light.tones[:, place_map.what.long()].float() / 256
    assert off.sum() > 1000 and (tones[12, 1] - torch.tensor([0.1, 0.0, -0.06])).abs().max() < 0.01
    tones[12, 1] = 0
    seen = torch.bincount(dark * 2 + pixels.block, minlength=2 * len(tones)).view(-1, 2) > 500
    assert seen.sum() > 10 and tones[seen].abs().max() < 0.01 and tones[0].abs().max() < 0.01


def test_lit_views_are_no_less_like_the_recordings(houses):
    """Of the recordings themselves, and where they look far more so."""
    data = Dataset.open(houses)
    walked = np.concatenate([data.clip(index).pose for index in data.select("train")])
    period = 64.0 * np.ceil(np.ptp(walked[:, :2], axis=0).max() / 64) + 512
    parallax = Parallax(ParallaxConfig(size=data.size, period=float(period), levels=10)).requires_grad_(False)
    map_place(parallax, data, 60, np.random.default_rng(0), known=True)
    place_map, off = parallax.place.map, []
    where, edge = place_map.where.clone(), float(np.tan(np.deg2rad(data.meta["hfov"]) / 2))
    for find in (None, light_place, tone_place):
        if find is not None:
            find(parallax.place, 1.2, data, 40, np.random.default_rng(1))
        errors = []
        for index in data.select("train"):
            clip = data.clip(index)
            for frame in (5, 20, 35):
                picture, pose = to_video(clip.frames(frame, 1)), torch.from_numpy(clip.pose[frame, PLAN]).float()[None]
                view = place_map.view(pose, edge, 1.2, 160, 256)
                there = view[:, 3:] > 0
                errors.append(float(((view[:, :3] - picture).abs() * there).sum() / there.sum()))
        off.append(np.mean(errors))
    assert torch.equal(place_map.where, where) and place_map.light.known
    assert len(place_map.light.tones) and off[1] < off[0] and off[2] < off[1] + 0.002, off


def test_the_stage_finds_light_and_a_new_map_forgets_it(houses, tmp_path):
    config = ParallaxTraining(
        str(houses), preset="debug", steps=2, batch=2, walks=1, period=2048.0, levels=10, mapped=24, lights=12,
        pictures=2, ego_from=0.4,
    )  # fmt: skip
    place = load_parallax(str(train(config, tmp_path, quiet=True))).place
    assert place.map.light.known and place.map.light.tones.any()
    assert place.map.lower == pytest.approx(np.tan(np.deg2rad(Dataset.open(houses).meta["hfov"]) / 2) / 256 / 2)
    light = place.map.light.dim.clone()
    lit = Parallax(ParallaxConfig(size=Dataset.open(houses).size, period=2048.0, levels=10))
    lit.place.map.load_state_dict(place.map.state_dict())
    map_place(lit, Dataset.open(houses), 12, np.random.default_rng(0), known=True)
    assert len(light) and not lit.place.map.light.known and not len(lit.place.map.light.tones)
