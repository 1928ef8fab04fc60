"""Parallax: a walking camera moves each part of the picture by its nearness, and play remembers its pace."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch

from controls.camera import advance
from generator.data.latents import LatentClips
from generator.rollout import Eye, continue_rollout, rollout, start
from generator.tokenizer.parallax import Seen
from generator.tokenizer.reproject import Reprojector

HFOV, TICKS = 90.0, 4
WIDE, HIGH = 96, 64


@pytest.fixture(scope="module")
def turn(tiny_vae, tiny_parallax) -> Reprojector:
    return Reprojector(tiny_vae, HFOV, tiny_parallax)


def spot(column: float, row: float) -> torch.Tensor:
    """(1, 3, Y, X): one soft bright spot in darkness, centred at pixel coordinates."""
    y, x = np.mgrid[:HIGH, :WIDE] + 0.5
    light = 2 * np.exp(-((x - column) ** 2 + (y - row) ** 2) / 8) - 1
    return torch.from_numpy(light).float().expand(1, 3, -1, -1)


def place(view: torch.Tensor) -> tuple[float, float]:
    """Column and row of the spot in a view (3, Y, X)."""
    light = (view[0] + 1).clamp(min=0).double()
    rows, columns = (torch.arange(n).double() + 0.5 for n in light.shape)
    return float((light.sum(0) * columns).sum() / light.sum()), float((light.sum(1) * rows).sum() / light.sum())


def flat(nearness: float, pitch: float = 0.0) -> Seen:
    """A world that is equally near everywhere, seen at a pitch in degrees."""
    grid = torch.full((1, 1, HIGH // 4, WIDE // 4), nearness)
    return Seen(grid, torch.tensor([math.tan(math.radians(pitch))]))


def pixel(point: np.ndarray, pose: np.ndarray, stretch: float) -> tuple[float, float]:
    """Where a point of the map (3,) is drawn from a pose (5,): column, row. By hand, as the engine draws."""
    yaw, pitch = np.radians(pose[3:])
    delta = point - pose[:3]
    forward = math.cos(yaw) * delta[0] - math.sin(yaw) * delta[1]
    right = -math.sin(yaw) * delta[0] - math.cos(yaw) * delta[1]
    focal = WIDE / 2 / math.tan(math.radians(HFOV / 2))
    down = -delta[2] / forward + math.tan(pitch)
    return WIDE / 2 + focal * right / forward, HIGH / 2 + stretch * focal * down


@pytest.mark.parametrize("move", [(0.2, 0, 0), (-0.2, 0, 0), (0, 0.15, 0), (0, 0, 0.1), (0.1, -0.1, 0.05)])
@pytest.mark.parametrize("look", [(0.0, 0.0), (4.0, 0.0), (-3.0, 2.0)])
@pytest.mark.parametrize("pitch", [0.0, 6.0])
def test_a_point_goes_where_the_engine_draws_it(turn, move, look, pitch):
    """A spot on a wall at distance 2, drawn by hand before and after one tick."""
    stretch = turn.parallax.stretch.item()
    start = np.array([0.0, 0.0, 0.0, 0.0, pitch])
    point = np.array([2.0, 0.3, 0.2])  # forward, left, up
    after = advance(start, look, move)
    column, row = pixel(point, start, stretch)
    views = turn.views(spot(column, row), torch.tensor([[look]]), torch.tensor([[move]]).float(), flat(0.5, pitch))
    assert place(views[0, 1]) == pytest.approx(pixel(point, after, stretch), abs=0.35)


def test_moves_of_several_ticks_add_up_in_the_turned_heading(turn):
    looks, moves = [(10.0, 0.0), (-20.0, 1.0), (5.0, 0.0), (8.0, -1.0)], [(0.1, 0.0, 0.0), (0.0, 0.1, 0.0)] * 2
    pose, stretch = np.zeros(5), turn.parallax.stretch.item()
    point = np.array([2.0, -0.2, 0.1])
    column, row = pixel(point, pose, stretch)
    views = turn.views(spot(column, row), torch.tensor([looks]), torch.tensor([moves]), flat(0.5))
    for k in range(TICKS):
        pose = advance(pose, looks[k], moves[k])
        assert place(views[0, k + 1]) == pytest.approx(pixel(point, pose, stretch), abs=0.6), k


def test_what_is_infinitely_far_only_turns(turn, tiny_vae):
    picture = spot(40, 30)
    look, moves = torch.tensor([[(5.0, 0.0)]]), torch.tensor([[(0.4, 0.2, 0.1)]])
    made = turn.views(picture, look, moves, flat(0.0))[0, 1]
    torch.testing.assert_close(made, Reprojector(tiny_vae, HFOV).views(picture, look)[0, 1], atol=1e-4, rtol=0)


def test_near_things_move_more_than_far_ones(turn):
    moves, still = torch.tensor([[(0.0, 0.2, 0.0)]]), torch.zeros(1, 1, 2)
    column = [place(turn.views(spot(48, 32), still, moves, flat(near))[0, 1])[0] for near in (0.1, 0.3, 0.6)]
    assert 48 > column[0] > column[1] > column[2]


def test_standing_changes_nothing(turn):
    picture = spot(30, 40)
    views = turn.views(picture, torch.zeros(1, TICKS, 2), torch.zeros(1, TICKS, 3), flat(0.7, 3.0))
    torch.testing.assert_close(views, picture[:, None].expand_as(views), atol=1e-4, rtol=0)


@pytest.mark.parametrize("move", [(5.0, 0.0, 0.0), (-5.0, 3.0, 1.0), (0.0, 0.0, 9.0)])
def test_walking_through_a_wall_gives_finite_views(turn, move):
    views = turn.views(spot(30, 40), torch.zeros(1, 1, 2), torch.tensor([[move]]), flat(4.0))
    assert views.isfinite().all() and views.abs().max() <= 1.0


def test_small_predicted_moves_are_none(tiny_parallax, monkeypatch):
    seen, actions = Seen(torch.ones(1, 1, 16, 16), torch.zeros(1)), torch.zeros(1, TICKS, 10)
    raw = torch.tensor([0.005, -0.005, 0.2]).expand(1, TICKS, 3)
    monkeypatch.setattr(tiny_parallax.ego, "forward", lambda a, h, p: (raw, p))
    moves, _ = tiny_parallax.moves(seen, actions, tiny_parallax.no_pace(1))
    assert torch.equal(moves[0, 0], torch.tensor([0.0, 0.0, 0.2]))


def test_the_pace_carries_over_latent_frames(tiny_parallax):
    """Two latent frames one after another are the same eight ticks."""
    seen = Seen(torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([0.1, -0.1]))
    actions = torch.randn(2, 2 * TICKS, 10, generator=torch.Generator().manual_seed(1))
    whole, end = tiny_parallax.moves(seen, actions, tiny_parallax.no_pace(2))
    first, pace = tiny_parallax.moves(seen, actions[:, :TICKS], tiny_parallax.no_pace(2))
    second, last = tiny_parallax.moves(seen, actions[:, TICKS:], pace)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)
    torch.testing.assert_close(last, end)
    fresh = tiny_parallax.moves(seen, actions[:, TICKS:], tiny_parallax.no_pace(2))[0]
    assert not torch.allclose(fresh, second), "the pace matters"


@torch.no_grad()
def test_an_eye_keeps_its_pace_and_a_new_walk_begins_standing(tiny_vae, tiny_parallax):
    latent = torch.randn(1, 8, 4, 4, generator=torch.Generator().manual_seed(3))
    look, keys = torch.zeros(1, TICKS, 2), torch.ones(1, TICKS, 10)
    eye = Eye(tiny_vae, HFOV, tiny_parallax)
    eye.open(latent)
    first = eye.ahead(look, keys)
    second = eye.ahead(look, keys)
    assert not torch.equal(first, second), "one walks faster in the second latent frame"
    pace = eye.pace
    eye.open(latent)
    assert torch.equal(eye.ahead(look, keys), first)
    eye.open(latent, pace)
    third = eye.ahead(look, keys)
    assert not torch.equal(third, first)


def test_a_rollout_in_two_parts_keeps_its_pace(make_dit, tiny_vae, tiny_parallax, latents):
    dit, batch = make_dit(reproject=True), LatentClips(latents, "train").gather([(0, 2), (1, 5)], 6)
    whole = rollout(dit, batch.first, batch, 3, Eye(tiny_vae, HFOV, tiny_parallax))
    eye = Eye(tiny_vae, HFOV, tiny_parallax)
    eye.open(batch.first, batch.pace)
    state, parts = start(dit, batch.first, 3), []
    for rows in (slice(0, 2), slice(2, 6)):
        one = dataclasses.replace(
            batch, actions=batch.actions[:, rows], rays=batch.rays[:, rows], look=batch.look[:, rows]
        )
        parts.append(continue_rollout(dit, state, one, eye)[0])
    assert torch.equal(torch.cat(parts, dim=1), whole)
    standing = rollout(dit, batch.first, dataclasses.replace(batch, pace=None), 3, Eye(tiny_vae, HFOV, tiny_parallax))
    assert not torch.equal(standing, whole), "the pace at which a window begins matters"


def test_what_both_pictures_show_is_shown_sharp(turn):
    """Where the moved picture and a softer decoded one agree the moved one is shown, elsewhere the decoded one."""
    generator = torch.Generator().manual_seed(5)
    picture = torch.rand(1, 3, HIGH, WIDE, generator=generator) * 0.2 - 0.1
    views = turn.moved(picture, torch.zeros(1, TICKS, 2), torch.zeros(1, TICKS, 3), flat(0.5))
    soft = torch.zeros(1, TICKS, 3, HIGH, WIDE)
    shown = turn.compose(views, soft)
    assert (shown[:, 0] - picture).abs().mean() < 0.25 * picture.abs().mean()
    soft[..., : WIDE // 2] = 0.9
    shown = turn.compose(views, soft)
    assert (shown[..., : WIDE // 2 - 12] - 0.9).abs().max() < 0.02, "something else was uncovered here"
    assert (
        shown[:, 0, ..., WIDE // 2 + 12 :] - picture[..., WIDE // 2 + 12 :]
    ).abs().mean() < 0.25 * picture.abs().mean()


def test_beyond_the_edge_the_decoded_picture_is_shown(turn):
    """However well a repeated edge would agree."""
    views = turn.moved(torch.zeros(1, 3, HIGH, WIDE), torch.tensor([[(20.0, 0.0)]]), torch.zeros(1, 1, 3), flat(0.5))
    decoded = torch.full((1, 1, 3, HIGH, WIDE), 0.1)
    shown = turn.compose(views, decoded)
    assert views.inside.shape == (1, 1, 1, HIGH, WIDE) and 0.5 < views.inside.mean() < 0.9
    assert (shown[..., -1] - 0.1).abs().max() < 0.01 and shown[..., 0].abs().max() < 0.09


def test_without_agreement_asked_for_the_decoded_picture_is_shown(turn, tiny_vae):
    frames = torch.rand(1, TICKS, 3, HIGH, WIDE)
    for other in (Reprojector(tiny_vae, HFOV), Reprojector(tiny_vae, HFOV, _plain(turn.parallax))):
        views = turn.moved(torch.zeros(1, 3, HIGH, WIDE), torch.zeros(1, TICKS, 2), torch.zeros(1, TICKS, 3), flat(0.5))
        assert torch.equal(other.compose(views, frames), frames)


def _plain(parallax):
    other = copy.deepcopy(parallax)
    other.config = dataclasses.replace(other.config, agree=0.0)
    return other
