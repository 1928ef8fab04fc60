"""Quality: the shortcuts that evaluation takes give what playing would."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from controls.action import Action
from generator.checkpoint import load_weights
from generator.data.clips import Dataset
from generator.evaluation.motion import View
from generator.evaluation.quality import decoded, free_pictures, next_latents, prepare, shifted
from generator.rollout import advance, open_eye, start
from generator.training.windows import to_frames
from generator.world import World


@pytest.fixture(scope="module")
def case(debug_world, turning_data):
    weights, clip = load_weights(debug_world), Dataset.open(turning_data).clip(0)
    frames = clip.frames(0, 29)
    return weights, prepare(weights, frames, clip.keys[:29], clip.look[:29])


def test_next_latents_are_what_a_step_gives_after_a_true_past(case):
    weights, inputs = case
    found = next_latents(weights, inputs, seed=3)
    state = start(weights.dit, inputs.latents[:1], 3)
    plain = copy.deepcopy(weights.parallax)  # shows what is decoded, as the truth is
    plain.config = dataclasses.replace(plain.config, agree=0.0)
    eye = open_eye(weights.dit, weights.tokenizer, weights.config.hfov, plain)
    assert eye is not None, "the debug preset recycles a reprojection"
    eye.open(inputs.latents[:1])
    with torch.no_grad():
        for k in range(len(found)):
            ahead = eye.ahead(inputs.look[None, k], inputs.actions[None, k])
            made = advance(weights.dit, state, inputs.actions[None, k], inputs.rays[None, k], ahead)
            state.recycled = inputs.latents[k + 1 : k + 2]
            eye.see(state.recycled)
            assert torch.allclose(found[k], made[0], atol=1e-3), k  # a byte of a picture may round either way


def test_free_pictures_are_what_a_world_shows(case, debug_world, turning_data):
    weights, inputs = case
    clip = Dataset.open(turning_data).clip(0)
    world, first = World(debug_world, backend="torch-fp32", threads=1), clip.frames(0, 1)[0]
    shown = [world.reset(first, 3)]
    for k in range(len(inputs.actions)):
        rows = slice(1 + 4 * k, 5 + 4 * k)
        shown.append(world.step(Action(clip.keys[rows], clip.look[rows])))
    made = free_pictures(weights, inputs, 3)
    error = np.abs(made.astype(int) - np.concatenate(shown))
    assert made.shape == (29, 64, 64, 3) and error.mean() < 0.05


def test_the_next_frames_pictures_are_composed_as_play_does(case):
    """After the true first picture both are the same latent frame, shown the same way."""
    weights, inputs = case
    pairs = list(decoded(weights, inputs.latents, next_latents(weights, inputs, 3), inputs))
    free = free_pictures(weights, inputs, 3)
    assert np.abs(pairs[1][1].astype(int) - free[1:5]).mean() < 0.05
    bare = list(decoded(weights, inputs.latents, next_latents(weights, inputs, 3)))
    assert not np.array_equal(bare[1][1], pairs[1][1]), "the debug world's moved picture shows through somewhere"


def test_decoding_true_latents_is_the_whole_clip_decode_and_a_true_branch_changes_nothing(case):
    weights, inputs = case
    vae = weights.tokenizer
    with torch.no_grad():
        whole = to_frames(vae.decode(vae.denormalise(inputs.latents[None])))[0]
    pairs = list(decoded(weights, inputs.latents, inputs.latents[1:]))
    assert np.abs(np.concatenate([a for a, _ in pairs]).astype(int) - whole).max() <= 1
    assert pairs[0][1] is None
    assert all(np.array_equal(a, b) for a, b in pairs[1:])


def test_shifted_gives_the_last_turns(rooms):
    frame, look = rooms.room(64, 64, 90.0, 0.0), np.tile(np.float32([2.0, 0.0]), (8, 1))
    made = shifted(frame, look, 0.0, View(64, 64, 90.0), 4)
    alone = shifted(frame, np.float32([[16.0, 0.0]]), 0.0, View(64, 64, 90.0), 1)
    assert made.shape == (4, 64, 64, 3)
    assert np.array_equal(made[-1], alone[0])
