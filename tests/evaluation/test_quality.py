"""Quality: the shortcuts that evaluation takes give what playing would."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from generator.checkpoint import load_weights
from generator.data.clips import Dataset
from generator.evaluation.motion import View
from generator.evaluation.quality import decoded, next_latents, prepare, shifted
from generator.evaluation.walker import Walker, led
from generator.model import multistep
from generator.rollout import advance, frame_noise, open_eye, start, with_ahead
from generator.samplers.sampler import shifted_sampler
from generator.training.windows import to_frames


@pytest.fixture(scope="module")
def case(debug_world, turning_data):
    weights, clip = load_weights(debug_world), Dataset.open(turning_data).clip(0)
    frames = clip.frames(0, 29)
    return weights, prepare(weights, frames, clip.keys[:29], clip.look[:29])


def eye_of(weights, inputs):
    """Shows what is decoded, as the truth is."""
    plain = copy.deepcopy(weights.parallax)
    plain.config = dataclasses.replace(plain.config, agree=0.0)
    eye = open_eye(weights.dit, weights.tokenizer, weights.config.hfov, plain)
    assert eye is not None, "the debug preset recycles a reprojection"
    eye.open(inputs.latents[:1])
    return eye


def test_next_latents_are_what_a_step_gives_after_a_true_past(case):
    weights, inputs = case
    found = next_latents(weights, inputs, seed=3)
    state = start(weights.dit, inputs.latents[:1], 3)
    eye = eye_of(weights, inputs)
    with torch.no_grad():
        for k in range(len(found)):
            ahead = eye.ahead(inputs.look[None, k], inputs.actions[None, k])
            made = advance(weights.dit, state, inputs.actions[None, k], inputs.rays[None, k], ahead)
            state.recycled = inputs.latents[k + 1 : k + 2]
            eye.see(state.recycled)
            assert torch.allclose(found[k], made[0], atol=1e-3), k  # a byte of a picture may round either way


def test_next_latents_of_several_calls_are_what_the_teacher_makes_after_a_true_past(case):
    weights, inputs = case
    sampler = shifted_sampler("dpmpp", 2, 3, 1.0)
    found = next_latents(weights, inputs, 3, sampler)
    eye, caches = eye_of(weights, inputs), multistep.begin(weights.dit, 1, sampler)
    with torch.no_grad():
        for k in range(len(found)):
            last, given = inputs.latents[k : k + 1], (inputs.actions[None, k], inputs.rays[None, k])
            ahead = eye.ahead(inputs.look[None, k], given[0])
            noise = frame_noise(3, k, tuple(last.shape[1:]))[None]
            made = multistep.sample_next(weights.dit, caches, sampler, noise, with_ahead(last, ahead), *given)
            eye.see(inputs.latents[k + 1 : k + 2])
            assert torch.allclose(found[k], made[0], atol=2e-3), k
    assert not torch.allclose(found, next_latents(weights, inputs, 3), atol=0.1)


def test_the_next_frames_pictures_are_composed_as_play_does(case, turning_data):
    """After the true first picture both are the same latent frame, shown the same way."""
    weights, inputs = case
    clip = Dataset.open(turning_data).clip(0)
    pairs = list(decoded(weights, inputs.latents, next_latents(weights, inputs, 3), inputs))
    free = led(Walker(weights), clip.frames(0, 1)[0], clip.keys[:5], clip.look[:5], 3)
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
