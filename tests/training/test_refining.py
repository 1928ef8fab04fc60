"""The decoder stage with a refiner: it learns on what it will see in play, and its run goes on where it stopped."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from controls.errors import UserError
from generator.checkpoint import load_weights
from generator.tokenizer.refine import Refiner
from generator.tokenizer.reproject import Views
from generator.training.decoder import DecoderTraining, open_decoder_run, train
from generator.training.helpers import step_rng
from generator.training.refining import cut, refined

pytestmark = pytest.mark.usefixtures("plain_distance")


@pytest.fixture
def config(latents, data_set, world_folder):
    return DecoderTraining(
        latents=str(latents), data=str(data_set), start=str(world_folder), preset="debug", steps=4, batch=2, frames=3,
        own=1.0, rounds=2, reuse=1, crop=(2, 3), pictures=3, bf16=False, device="cpu", log_every=1, critic=0.0,
        own_critic=0.0, refine=8, hold=1.0,
    )  # fmt: skip


def refiner_of(folder) -> dict[str, torch.Tensor]:
    found = load_weights(folder / "snapshot").parallax
    assert found.config.refine == 8 and found.refiner is not None
    return found.refiner.state_dict()


def test_a_world_gets_a_refiner_that_learns_with_the_decoder(config, tmp_path):
    assert load_weights(Path(config.start)).parallax.refiner is None
    train(config, tmp_path / "run", quiet=True)
    assert all(value.abs().sum() > 0 for value in refiner_of(tmp_path / "run").values())
    assert "own_refiner_gradient" in (tmp_path / "run" / "metrics.jsonl").read_text()


def test_two_steps_and_two_more_are_four(config, tmp_path):
    config = dataclasses.replace(config, rounds=1)
    train(config, tmp_path / "whole", quiet=True)
    train(dataclasses.replace(config, steps=2), tmp_path / "parts", quiet=True)
    train(config, tmp_path / "parts", quiet=True)
    one, two = (refiner_of(tmp_path / name) for name in ("whole", "parts"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_a_refiner_that_is_there_learns_on_without_being_asked_for(config, tmp_path):
    train(config, tmp_path / "first", quiet=True)
    start = str(tmp_path / "first" / "snapshot")
    made = open_decoder_run(dataclasses.replace(config, start=start, refine=0), tmp_path / "second")
    kept = refiner_of(tmp_path / "first")
    assert all(torch.equal(value, kept[name]) for name, value in made.refining.refiner.state_dict().items())
    with pytest.raises(UserError, match="has a refiner of width 8, not 16"):
        open_decoder_run(dataclasses.replace(config, start=start, refine=16), tmp_path / "third")


def test_a_world_that_moves_no_pictures_has_nothing_to_refine_with(config, make_world, tmp_path):
    plain = str(make_world(reproject=False))
    with pytest.raises(UserError, match="wants a world that moves its pictures"):
        open_decoder_run(dataclasses.replace(config, start=plain), tmp_path / "run")


def test_clips_are_refined_as_play_does_it(config, tmp_path):
    """Pictures of a clip go with the views of their own tick, and the first picture is left alone."""
    made = open_decoder_run(config, tmp_path / "run")
    torch.nn.init.normal_(made.refining.refiner.out.weight, std=0.1)
    history = made.histories.history(step_rng(0, 0))
    views = history.views
    assert views.pictures.shape[2] == 5, "every tick's view"
    video = torch.rand(2, 13, 3, *views.pictures.shape[-2:]) * 2 - 1
    whole = refined(made.refining.refiner, video, views)
    assert torch.equal(whole[:, 0], video[:, 0])
    clip, frame, tick = 1, 2, 3
    parts = (views.pictures[clip, frame, 1 + tick], views.inside[clip, frame, tick])
    alone = made.refining.refiner(video[clip, 1 + 4 * frame + tick][None], *(part[None] for part in parts))
    torch.testing.assert_close(whole[clip, 1 + 4 * frame + tick], alone[0])


def test_crops_cut_views_as_they_cut_pictures():
    rng, scale = np.random.default_rng(0), 16
    latents = torch.arange(2 * 3 * 4 * 5).view(2, 3, 1, 4, 5).float()
    wide = latents.repeat_interleave(scale, 3).repeat_interleave(scale, 4)
    views = Views(wide[:, :, None], wide[:, :, None], known=wide[:, :, None])
    small, large, seen = cut(latents, wide, (2, 3), scale, rng, views)
    assert small.shape == (2, 3, 1, 2, 3) and large.shape == (2, 3, 1, 32, 48)
    assert torch.equal(large[..., ::scale, ::scale], small)
    assert all(torch.equal(part[:, :, 0], large) for part in (seen.pictures, seen.inside, seen.known))


def test_refiners_of_worlds_with_a_map_know_it(tiny_place):
    assert tiny_place.refiner.knows and not Refiner(8).knows
