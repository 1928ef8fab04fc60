"""Without the recycled frame (AAPT section 6): only the given picture is shown, in every way that a model is run."""

import dataclasses

import numpy as np
import pytest
import torch

from generator.rollout import advance, start
from generator.runtime.graph import GraphTransformer
from generator.training.adaptation import AdaptationTraining
from generator.training.dit_run import open_run

FRAMES = 11


def inputs_of(make_inputs, dit, seed=0):
    """A clip's inputs with one t, as `step` takes it."""
    return make_inputs(dit, FRAMES, batch=2, seed=seed)


@pytest.mark.parametrize("sink", [0, 1])
@torch.no_grad()
def test_frame_by_frame_is_the_whole_clip(make_dit, make_inputs, sink):
    dit = make_dit(recycle=False, sink=sink)
    noisy, recycled, t, actions, rays = inputs_of(make_inputs, dit)
    whole, cache = dit(noisy, recycled, t, actions, rays), dit.new_cache(2)
    for k in range(FRAMES):
        one = dit.step(noisy[:, k], recycled[:, k], t, actions[:, k], rays[:, k], cache, k)
        torch.testing.assert_close(one, whole[:, k], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_only_the_given_picture_counts(make_dit, make_inputs):
    dit, plain = make_dit(recycle=False), make_dit()
    given = inputs_of(make_inputs, dit)
    before, usual = dit(*given), plain(*given)
    changed = [v.clone() for v in given]
    changed[1][:, 1:] += 1.0
    assert torch.equal(dit(*changed), before) and not torch.allclose(plain(*changed), usual)
    changed[1][:, 0] += 1.0
    moved = (dit(*changed) - before).abs().amax((0, 2, 3, 4))
    assert (moved[: dit.config.window + 1] > 1e-6).all()
    torch.testing.assert_close(dit(*(v[:, :1] if v.dim() > 1 else v for v in given)), usual[:, :1])


@torch.no_grad()
def test_a_segment_of_a_longer_rollout_has_no_given_picture(make_dit, make_inputs):
    dit = make_dit(recycle=False)
    noisy, recycled, t, actions, rays = inputs_of(make_inputs, dit)
    past = dit.new_cache(2).past(0)
    one, other = (dit(noisy, again, t, actions, rays, past=past, start=4) for again in (recycled, recycled + 1))
    assert torch.equal(one, other)


@torch.no_grad()
def test_a_graph_plays_as_the_model_does(make_dit):
    def eagerly(module, example):
        return lambda arrays: [v.numpy() for v in module(*map(torch.from_numpy, arrays))]

    for recycle in (True, False):
        dit = make_dit(recycle=recycle, reproject=False)
        c, rng = dit.config, np.random.default_rng(0)
        first = torch.randn(1, c.latent_channels, c.height, c.width, generator=torch.Generator().manual_seed(0))
        graph, state = GraphTransformer(dit, eagerly), start(dit, first, 3)
        graph.reset(first, 3)
        for _ in range(6):
            actions = rng.normal(size=(c.ticks, c.action_fields)).astype(np.float32)
            rays = rng.normal(size=(c.ray_channels, c.height, c.width)).astype(np.float32)
            wanted = advance(dit, state, torch.from_numpy(actions)[None], torch.from_numpy(rays)[None])
            torch.testing.assert_close(graph.step(actions, rays), wanted, atol=1e-4, rtol=1e-4)


def test_a_stage_can_take_the_recycled_frame_away(latents, tokenizer_run, world_folder, make_world, tmp_path):
    config = AdaptationTraining(latents=str(latents), tokenizer=str(tokenizer_run), start=str(world_folder), steps=1)
    config = dataclasses.replace(config, preset="debug", frames=4, device="cpu", recycle=False)
    run = open_run(config, tmp_path / "away", "adaptation")
    assert not run.dit.config.recycle and not run.world.dit.recycle
    assert open_run(dataclasses.replace(config, recycle=True), tmp_path / "kept", "adaptation").dit.config.recycle
    without = dataclasses.replace(config, start=str(make_world(recycle=False)), recycle=True)
    assert not open_run(without, tmp_path / "still", "adaptation").dit.config.recycle
