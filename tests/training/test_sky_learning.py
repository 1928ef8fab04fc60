"""The sky is found in pixels that have nothing but sky around them; what none shows is like what is beside it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from controls.errors import UserError
from generator.data.clips import Dataset
from generator.data.latents import PLAN
from generator.tokenizer.camera_rays import Rays
from generator.tokenizer.parallax import Parallax, ParallaxConfig
from generator.tokenizer.place_sky import Sky
from generator.training.parallax import ParallaxTraining, load_parallax, train
from generator.training.place_sky import SkyFusion, sky_place, spread_out
from generator.training.windows import to_video

EDGE, STRETCH = 1.2, 1.2


def rays(yaw=0.0, pitch=20.0):
    return Rays(torch.tensor([[0.0, 0.0, yaw, pitch]]), EDGE, STRETCH, 40, 64)


def test_a_roof_does_not_smear_along_the_sky():
    """The bug: pixels beside a roof are of both, and each tower of the skyline had a shadow of all roofs before it."""
    sky, shows = Sky(), torch.ones(1, 40, 64, dtype=torch.bool)
    shows[:, 20:] = False
    colours = torch.full((1, 40, 64, 3), 0.5)
    colours[:, 19:] = -1.0  # the last row of the sky is half roof
    fusion = SkyFusion(sky)
    fusion.add(rays(), colours, shows)
    assert int(fusion.count.sum()) == 19 * 64
    fusion.finish()
    assert (sky.seen(rays().azimuth, rays().up) == 0.5).all()


def test_a_sky_that_no_picture_shows_stays_as_it_was():
    sky = Sky()
    sky.fill(torch.full((2, 2, 3), 0.25))
    fusion = SkyFusion(sky)
    fusion.add(rays(), torch.ones(1, 40, 64, 3), torch.zeros(1, 40, 64, dtype=torch.bool))
    fusion.finish()
    assert (sky.seen(rays().azimuth, rays().up) == 0.25).all()


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**16))
def test_cells_without_pictures_are_like_those_around(slopes, turns, seed):
    generator = torch.Generator().manual_seed(seed)
    count = torch.randint(3, (slopes, turns), generator=generator).float()
    colours = torch.rand(slopes, turns, 3, generator=generator) * 2 - 1
    count[0, 0] += 1
    made = spread_out(count, colours * count[..., None])
    assert made.shape == colours.shape and torch.allclose(made[count > 0], colours[count > 0], atol=1e-5)
    seen = colours[count > 0]
    assert (made >= seen.amin(0) - 1e-5).all() and (made <= seen.amax(0) + 1e-5).all()


def test_holes_take_the_nearest_square():
    count, total = torch.zeros(4, 8), torch.zeros(4, 8, 3)
    count[0, 0], total[0, 0] = 2.0, 1.0
    count[3, 7], total[3, 7] = 1.0, -0.25
    made = spread_out(count, total)
    assert (made[:2, :2] == 0.5).all() and (made[:, :4] == 0.5).all() and (made[2:, 6:] == -0.25).all()


def test_a_found_sky_is_more_like_the_recordings(houses):
    data = Dataset.open(houses)
    parallax = Parallax(ParallaxConfig(size=data.size, period=4096.0, levels=10)).requires_grad_(False)
    sky_place(parallax.place, STRETCH, data, 60, np.random.default_rng(0))
    edge, off, seen = float(np.tan(np.deg2rad(data.meta["hfov"]) / 2)), [], 0
    for index in data.select("train"):
        clip = data.clip(index)
        picture, pose = to_video(clip.frames(7, 1)), torch.from_numpy(clip.pose[7, PLAN]).float()[None]
        view = parallax.place.map.view(pose, edge, STRETCH, 160, 256)
        upper = (slice(None), slice(None), slice(0, 24))
        off.append(float((view[:, :3] - picture)[upper].abs().mean()))
        seen += view[:, :3].unique().numel() > 3
    assert seen and min(off) < 0.05, off


def test_the_stage_finds_the_sky(houses, tmp_path):
    config = ParallaxTraining(
        str(houses), preset="debug", steps=2, batch=2, walks=1, period=2048.0, levels=10, mapped=12, skies=12,
        pictures=2, ego_from=0.4,
    )  # fmt: skip
    place = load_parallax(str(train(config, tmp_path, quiet=True))).place
    assert place.map.sky.codes.unique().numel() > 3


def test_other_worlds_are_told_how_to_do_without(data_set):
    data = Dataset.open(data_set)
    parallax = Parallax(ParallaxConfig(size=data.size, period=4096.0, levels=10)).requires_grad_(False)
    with pytest.raises(UserError, match="skies=0"):
        sky_place(parallax.place, STRETCH, data, 4, np.random.default_rng(0))
