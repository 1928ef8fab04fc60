"""The refiner: a new one shows what was made, it is given what really moved, and graphs refine as tensors do."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from generator.data.latents import parallax_hash
from generator.runtime.backend import to_pixels
from generator.runtime.explicit import ExplicitRefine
from generator.tokenizer.refine import FOLD, Refiner
from generator.tokenizer.reproject import Reprojector, Views, to_picture

POSE = torch.tensor([[300.0, 77.0, 200.0, 4.0, 0.0]])


def pictures(count, channels=3, seed=0):
    return torch.rand(count, channels, 64, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("knows", [False, True])
def test_a_new_refiner_shows_what_was_made_and_learns_from_there(knows):
    refiner, made = Refiner(8, knows), pictures(2)
    given = (made, pictures(2, seed=1), torch.ones(2, 1, 64, 64), *((pictures(2, seed=2),) if knows else ()))
    assert torch.equal(refiner(*given), made)
    refiner(*given).square().mean().backward()
    assert refiner.out.weight.grad.abs().sum() > 0
    torch.nn.init.normal_(refiner.out.weight, std=0.1)
    refiner(*given).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in refiner.parameters())
    with pytest.raises(AssertionError, match="goes with"):
        refiner(*given[:3], *(() if knows else (made,)))


def test_how_much_is_taken_of_each_picture_is_told_by_pixel():
    """Biases alone: a share of the moved picture, one of the map's view, and something to add."""
    refiner = Refiner(8, True)
    shares = torch.tensor([0.1, 0.0, -0.1, 0.25, 0.5])
    refiner.out.bias.data.copy_(shares.repeat_interleave(FOLD**2))
    made, moved, known = (pictures(1, seed=seed) for seed in range(3))
    want = made + 0.25 * (moved - made) + 0.5 * (known - made) + shares[:3, None, None]
    torch.testing.assert_close(refiner(made, moved, torch.ones(1, 1, 64, 64), known), want)


def test_a_refiner_is_given_what_moved_before_the_map_was_put_in_its_place(tiny_vae, tiny_place):
    turn, look = Reprojector(tiny_vae, 100.0, tiny_place), torch.full((1, 4, 2), 5.0)
    picture, pace = pictures(1), tiny_place.paced(tiny_place.hidden(tiny_place.no_pace(1)), POSE)
    views, _ = turn.ahead(picture, look, torch.rand(1, 4, 10), pace)
    moved, inside, known = views.to_refine()
    assert torch.equal(moved, views.moved[0]) and not torch.equal(moved, views.pictures[0, 1:])
    assert torch.equal(inside, views.inside[0]) and torch.equal(known, views.known[0])
    video = to_picture(pictures(4, seed=3))[None]
    shown = turn.compose(views, video)
    assert torch.equal(shown[0], to_picture(tiny_place.refiner(video[0], moved, inside, known)))
    assert (shown - video).abs().mean() > 0.01


def test_what_is_strange_to_a_place_is_not_refined_away_at_once(tiny_vae, tiny_place):
    """A player's own picture: the map's view is shown to the refiner only as the strangeness fades."""
    turn = Reprojector(tiny_vae, 100.0, tiny_place)
    views = Views(torch.stack([pictures(1), pictures(1, seed=1)], dim=1), torch.ones(1, 1, 1, 64, 64))
    foreign, half, own = (turn.recalled(views, POSE[:, None], torch.tensor([s])).known for s in (1.0, 0.5, 0.0))
    torch.testing.assert_close(foreign, views.pictures[:, 1:])
    torch.testing.assert_close(half, (foreign + own) / 2)
    assert torch.equal(own, turn.recalled(views, POSE[:, None]).known) and not torch.equal(own, foreign)


def test_a_graph_refines_as_tensors_do(tiny_vae, tiny_place):
    turn, pace = Reprojector(tiny_vae, 100.0, tiny_place), tiny_place.no_pace(1)
    views, _ = turn.ahead(pictures(1), torch.full((1, 4, 2), 3.0), torch.rand(1, 4, 10), pace)
    frames = torch.randint(256, (4, 64, 64, 3), dtype=torch.uint8)
    (made,) = ExplicitRefine(tiny_place.refiner)(frames, *views.to_refine())
    video = frames.permute(0, 3, 1, 2)[None].float() / 127.5 - 1
    assert made.dtype == torch.uint8
    assert np.array_equal(made.numpy(), to_pixels(turn.compose(views, video)))


def test_latents_do_not_depend_on_the_refiner(tiny_place):
    other = copy.deepcopy(tiny_place)
    other.config, other.refiner = dataclasses.replace(other.config, refine=0), None
    assert parallax_hash(other) == parallax_hash(tiny_place)
