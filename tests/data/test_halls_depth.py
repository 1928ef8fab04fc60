"""True nearness of Halls: exact in rooms that can be measured by hand, and what the parallax's warp expects."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from generator.config import build
from generator.data.halls.canvas import SKY, Canvas
from generator.data.halls.depth import STRETCH, exact_nearness, nearness, ray_slopes
from generator.tokenizer.parallax import Parallax, ParallaxConfig, Seen
from generator.tokenizer.reproject import Reprojector

HFOV = 100.39


def hall(ceiling: int = 128, sky: bool = False) -> Canvas:
    """A room of 640 x 320 units around (400, 240), floor 0."""
    c = Canvas(14, 8)
    c.solid[5:25, 5:45] = False
    c.ceil[5:25, 5:45] = ceiling
    c.sky[5:25, 5:45] = sky
    return c


def test_walls_floor_and_ceiling_are_as_far_as_they_are():
    c = hall()
    seen = nearness(c, np.array([[400.0, 240.0, 41.0, 0.0, 0.0]]), HFOV)[0]
    across, down = ray_slopes(HFOV, (256, 160), (64, 40))
    assert seen.shape == (40, 64)
    assert 1 / seen[20, 32] == pytest.approx(720 - 400, rel=0.02)  # the wall ahead, east
    for row in (34, 39):
        assert 1 / seen[row, 32] == pytest.approx(41 / down[row], rel=0.03)
    assert 1 / seen[0, 32] == pytest.approx((128 - 41) / -down[0], rel=0.03)
    assert 1 / seen[20, 63] == pytest.approx((240 - 80) / across[63], rel=0.03)  # the wall to the right, south


def test_looking_around_and_up():
    c = hall()
    poses = np.array([[400.0, 240.0, 41.0, yaw, 0.0] for yaw in (90.0, 180.0, 270.0)])
    ahead = 1 / nearness(c, poses, HFOV)[:, 20, 32]
    assert ahead == pytest.approx([160, 320, 160], rel=0.03)  # south, west, north
    up = nearness(c, np.array([[400.0, 240.0, 41.0, 0.0, 20.0]]), HFOV)[0]
    _, down = ray_slopes(HFOV, (256, 160), (64, 40))
    slope = down[39] - math.tan(math.radians(20.0))
    assert slope > 0 and 1 / up[39, 32] == pytest.approx(min(320, 41 / slope), rel=0.03)


def test_the_sky_is_nowhere():
    seen = nearness(hall(SKY, True), np.array([[400.0, 240.0, 41.0, 0.0, 30.0]]), HFOV)[0]
    assert seen[0, 32] > 0  # the wall goes on up to the sky
    low = hall(SKY, True)
    low.solid[:] = False
    low.sky[:], low.ceil[:] = True, np.where(low.ceil > 0, SKY, 60)
    low.floor[low.ceil == 60] = 58
    seen = nearness(low, np.array([[400.0, 240.0, 41.0, 0.0, 0.0]]), HFOV)[0]
    assert seen[0, 32] == 0 and 1 / seen[20, 32] == pytest.approx(320, rel=0.02)


def test_the_warp_finds_the_wall_where_the_map_has_it():
    """A step of 64 units toward a wall at 320: its picture grows by 320 / 256, by the parallax's own arithmetic."""
    parallax = Parallax(build(ParallaxConfig, {}, "parallax")).requires_grad_(False)
    parallax.log_stretch.fill_(math.log(STRETCH))
    seen = torch.from_numpy(nearness(hall(), np.array([[400.0, 240.0, 41.0, 0.0, 0.0]]), HFOV))[None] * 64.0
    turn = Reprojector(nn.Identity(), HFOV, parallax)
    grid = turn.walk(torch.zeros(1, 2), torch.tensor([[1.0, 0.0, 0.0]]), Seen(seen, torch.zeros(1)), (160, 256))
    column = 160  # right of the middle, on the wall before and after
    was = (grid[0, 80, column, 0] + 1) / 2 * 256
    assert (was - 128).item() == pytest.approx((column + 0.5 - 128) * 256 / 320, abs=0.6)


@pytest.mark.parametrize("pitch", [0.0, 20.0, -25.0])
def test_exact_rays_end_where_steps_find_something_or_just_before(pitch):
    """Steps go past a surface by up to one of them; from cell to cell the surface itself is met."""
    poses = np.array([[400.0, 240.0, 41.0, yaw, pitch] for yaw in (0.0, 37.0, 90.0, 200.0, 315.0)])
    for canvas in (hall(), hall(SKY, True)):
        stepped, exact = (find(canvas, poses, HFOV) for find in (nearness, exact_nearness))
        assert ((stepped > 0) != (exact > 0)).mean() < 0.01
        both = (stepped > 0) & (exact > 0)
        off = 1 / stepped[both] - 1 / exact[both]
        assert both.mean() > 0.3 and np.percentile(off, 1) > -0.01
        assert np.percentile(off, 99) < 2.0 + 0.01 / exact[both].min()


def test_an_exact_floor_is_as_far_below_as_it_is():
    found = exact_nearness(hall(), np.array([[400.0, 240.0, 41.0, 0.0, 0.0]]), HFOV, rays=(256, 160))[0]
    _, down = ray_slopes(HFOV, (256, 160), (256, 160))
    assert 1 / found[150, 128] == pytest.approx(41.0 / down[150], abs=1e-3)
