"""What a place's map tells and shows: what lies ahead is taken from it, and how near walls are."""

import copy
import dataclasses
from dataclasses import replace

import numpy as np
import pytest
import torch

from controls.action import ActionSpec, encode_rows
from controls.errors import UserError
from generator.data.latents import Batch, parallax_hash
from generator.tokenizer.parallax import FADING, Parallax, Seen
from generator.tokenizer.reproject import Reprojector, Views
from generator.training.ego_learning import in_a_mirror
from generator.training.histories import foreseen
from generator.training.parallax_files import begin_with

PERIOD = 512.0  # of the tiny place


def test_what_lies_ahead_is_taken_from_the_map_where_the_picture_does_not_show_it(tiny_vae, tiny_place):
    """The map's own view stays as it is; what turns into view, and what the map contradicts, is the map's."""
    turn, stretch = Reprojector(tiny_vae, 100.0, tiny_place), float(tiny_place.stretch)
    pose = torch.tensor([[300.0, 77.0, 200.0, 4.0, 0.0]])
    true = tiny_place.place.map.view(pose, turn.edge, stretch, 64, 64, fine=True)[:, :3].clamp(-1, 1)
    right = torch.ones(1, 1, 1, 64, 64)
    right[..., 32:] = 0.0
    near = (true + 0.05 * torch.randn(true.shape)).clamp(-1, 1)
    views = Views(torch.stack([true, near], dim=1), right)
    told = turn.recalled(views, pose[:, None])
    assert torch.equal(told.pictures[:, 0], true) and torch.equal(told.inside, right)
    assert (told.pictures[0, 1, :, :, :32] - near[0, :, :, :32]).abs().mean() < 0.01, "what agrees is the picture's"
    torch.testing.assert_close(told.pictures[0, 1, :, :, 32:], true[0, :, :, 32:])
    wrong = replace(views, pictures=torch.stack([true, true + 1.2], dim=1))
    assert (turn.recalled(wrong, pose[:, None]).pictures[0, 1] - true[0]).abs().mean() < 0.01


def test_a_picture_of_another_world_dissolves_into_the_place(tiny_vae, tiny_place):
    """Its own view is familiar, noise is not: that stays at first, and what is strange fades frame by frame."""
    turn, pose = Reprojector(tiny_vae, 100.0, tiny_place), torch.tensor([[300.0, 77.0, 200.0, 4.0, 0.0]])
    given = (pose, turn.edge, float(tiny_place.stretch))
    view = tiny_place.place.map.view(*given, 64, 64, fine=True)[:, :3].clamp(-1, 1)
    other = -view
    coarse = tiny_place.place.map.view(*given, 20, 32)[:, :3].repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert tiny_place.place.unlike(coarse, *given) < 0.01 < 0.3 < tiny_place.place.unlike(-coarse, *given)
    views = Views(torch.stack([other, other], dim=1), torch.ones(1, 1, 1, 64, 64))
    left = [
        (turn.recalled(views, pose[:, None], torch.tensor([strange])).pictures[0, 1] - view[0]).abs().mean().item()
        for strange in (1.0, 0.3, 0.1, 0.0)
    ]
    assert sorted(left, reverse=True) == left and left[-1] < 0.5 * left[0]
    pace, strange = tiny_place.stand(other, turn.edge), []
    for _ in range(24):
        strange.append(tiny_place.strange(pace).item())
        pace = turn.ahead(other, torch.zeros(1, 4, 2), torch.zeros(1, 4, 10), pace)[1]
    assert strange == pytest.approx([FADING**k for k in range(24)], rel=1e-5)
    known = tiny_place.paced(tiny_place.hidden(pace), pose)
    assert tiny_place.strange(known) == 0.0, "a recorded pose is the place's own"


def test_recalling_changes_what_lies_ahead_and_names_another_parallax(tiny_vae, tiny_place):
    picture, look, actions = torch.rand(1, 3, 64, 64) * 2 - 1, torch.full((1, 4, 2), 9.0), torch.rand(1, 4, 10)
    without = copy.deepcopy(tiny_place)
    without.config = dataclasses.replace(without.config, recall=0.0)
    turns = [Reprojector(tiny_vae, 100.0, parallax) for parallax in (tiny_place, without)]
    stands = turns[0].stand(picture)
    stands[:, -2] = torch.rad2deg(tiny_place.perceive(picture).horizon.atan())  # as without views
    (views, pace), (plain, same) = (turn.ahead(picture, look, actions, stands) for turn in turns)
    assert torch.equal(pace, same) and torch.equal(views.inside, plain.inside)
    assert (views.pictures[:, 1:] - plain.pictures[:, 1:]).abs().mean() > 0.1
    assert parallax_hash(tiny_place) != parallax_hash(without)
    smooth = copy.deepcopy(tiny_place)
    smooth.config = dataclasses.replace(smooth.config, samples=2)
    pose = torch.tensor([[[300.0, 77.0, 200.0, 4.0, 0.0]]])
    one, two = (
        Reprojector(tiny_vae, 100.0, parallax).recalled(Views(plain.pictures[:, :2], plain.inside[:, :1]), pose).known
        for parallax in (tiny_place, smooth)
    )
    assert 0.5 * one.std() < two.std() < 0.95 * one.std(), "of a map like noise it is a softer one"
    assert parallax_hash(smooth) != parallax_hash(tiny_place), "and with other samples of a pixel, too"
    emptied = copy.deepcopy(tiny_place)
    emptied.place.map.fill(torch.zeros(0, dtype=torch.long), torch.zeros(0, 3))
    assert parallax_hash(emptied) != parallax_hash(tiny_place), "latents made with another map are others"
    blind = [copy.deepcopy(parallax) for parallax in (without, emptied)]
    blind[1].config = without.config
    assert parallax_hash(blind[0]) == parallax_hash(blind[1]), "a map that is only told does not make them"


def test_a_number_of_samples_that_there_is_not_is_a_sentence(tiny_place):
    with pytest.raises(UserError, match=r"samples = 3 .* none of 1, 2, 4"):
        Parallax(dataclasses.replace(tiny_place.config, samples=3))


def test_a_view_that_is_recalled_does_not_tremble_with_what_pictures_seem_to_show(tiny_place):
    """The pitch is read from the first picture and then added up: read again and again it shook the map's view."""
    pace = tiny_place.paced(tiny_place.hidden(tiny_place.no_pace(1)), torch.tensor([[300.0, 77.0, 200.0, 4.0, 0.0]]))
    seen, look = Seen(torch.rand(1, 1, 16, 16), torch.tensor([0.4])), torch.ones(1, 4, 2)
    moves, after = tiny_place.moves(seen, torch.zeros(1, 4, 10), pace, look)
    path = tiny_place.place.path(tiny_place.pose(pace), look, moves * tiny_place.config.unit)
    assert tiny_place.pose(after)[0, 3] == 8.0 and path[0, :, 3].tolist() == [5.0, 6.0, 7.0, 8.0]
    still = tiny_place.steady(seen, tiny_place.pose(pace))
    torch.testing.assert_close(torch.rad2deg(still.horizon.atan()), torch.tensor([4.0]))
    told = copy.deepcopy(tiny_place)
    told.config = dataclasses.replace(told.config, recall=0.0)
    assert told.steady(seen, told.pose(pace)) is seen
    assert told.pose(told.moves(seen, torch.zeros(1, 4, 10), pace, look)[1])[0, 3] == pytest.approx(25.8, abs=0.1)


def test_a_map_tells_the_ego_motion_of_walls(tiny_place, tiny_parallax):
    """All around, from straight ahead to the right: turning turns it. Only what is told counts, not the picture."""
    place, pose = tiny_place.place, torch.tensor([[300.0, 77.0, 200.0, 4.0, 0.0], [41.0, 470.0, 20.0, -3.0, 0.0]])
    told = place.known(pose)
    assert told.shape == (2, place.features) and told.min() >= 0 and told.max() > 0.05 and told.max() < 1
    turned = place.known(pose + torch.tensor([0, 0, 45.0, 0, 0]))
    torch.testing.assert_close(turned, told.roll(-3, dims=1), atol=1e-3, rtol=0)
    torch.testing.assert_close(place.known(pose + torch.tensor([PERIOD, 0, 0, 0, 0])), told)
    seen = [Seen(torch.rand(2, 1, 16, 16), torch.zeros(2)) for _ in range(2)]
    pace = tiny_place.paced(tiny_place.hidden(tiny_place.no_pace(2)), pose)
    moves = [tiny_place.moves(one, torch.ones(2, 4, 10), pace, torch.zeros(2, 4, 2))[0] for one in seen]
    assert torch.equal(moves[0], moves[1]) and moves[0].abs().max() > 0
    other = Parallax(dataclasses.replace(tiny_place.config, hidden=12))
    begin_with(other, tiny_parallax, "test")
    assert other.ego.out.weight.shape == (3, 12), "an ego-motion that is told other things begins anew"


def test_walks_in_a_mirror(tiny_place):
    """Who stands on the other side of the mirror and does all the other way around moves the other way around."""
    spec = ActionSpec()
    actions = torch.from_numpy(encode_rows(np.eye(8, dtype=np.uint8)[:6], np.full((6, 2), 4.0, np.float32), spec))
    told, moves = torch.rand(6, 24), torch.rand(6, 3)
    twice = in_a_mirror(*in_a_mirror(actions, told, moves, spec), spec)
    assert all(torch.equal(a, b) for a, b in zip(twice, (actions, told, moves), strict=True))
    mirrored, around, made = in_a_mirror(actions, told, moves, spec)
    left, right = spec.keys.index("left"), spec.keys.index("right")
    assert torch.equal(mirrored[:, left], actions[:, right]) and torch.equal(mirrored[:, 8], -actions[:, 8])
    assert torch.equal(mirrored[:, 9], actions[:, 9]) and torch.equal(made[:, 1], -moves[:, 1])
    assert torch.equal(around[:, 0], told[:, 0]) and torch.equal(around[:, 1], told[:, 23])


def test_own_histories_keep_the_horizon_as_play_does(tiny_vae, tiny_place, monkeypatch):
    """What lies ahead in a place that is recalled does not depend on the horizon read from a picture, as in play."""
    turn, views = Reprojector(tiny_vae, 100.0, tiny_place), []
    pose = torch.tensor([[[300.0, 77.0, 200.0, 4.0, 0.0]] * 2])
    kept, empty = torch.rand(1, 1, 3, 64, 64) * 2 - 1, torch.zeros(1, 1, 4)
    batch = Batch(empty, empty, empty, empty, torch.ones(1, 1, 4, 2), moves=torch.ones(1, 1, 4, 3), pose=pose)
    for horizon in (0.1, -0.3):
        seen = Seen(torch.full((1, 1, 16, 16), 0.2), torch.tensor([horizon]))
        monkeypatch.setattr(tiny_place, "perceive", lambda pictures, seen=seen: seen)
        views.append(foreseen(turn, kept, batch)[1].pictures)
    assert torch.equal(*views)
