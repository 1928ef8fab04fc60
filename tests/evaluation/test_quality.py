"""Quality: the shortcuts that evaluation takes give what playing would."""

import numpy as np
import pytest
import torch

from generator.checkpoint import load_weights
from generator.data.clips import Dataset
from generator.evaluation.motion import View
from generator.evaluation.quality import decoded, free_latents, next_latents, prepare, shifted
from generator.rollout import advance, open_eye, start
from generator.training.windows import to_frames


@pytest.fixture(scope="module")
def case(debug_world, turning_data):
    weights, clip = load_weights(debug_world), Dataset.open(turning_data).clip(0)
    frames = clip.frames(0, 29)
    return weights, prepare(weights, frames, clip.keys[:29], clip.look[:29])


def test_next_latents_are_what_a_step_gives_after_a_true_past(case):
    weights, inputs = case
    found = next_latents(weights, inputs, seed=3)
    state = start(weights.dit, inputs.latents[:1], 3)
    eye = open_eye(weights.dit, weights.tokenizer, weights.config.hfov, weights.parallax)
    assert eye is not None, "the debug preset recycles a reprojection"
    eye.open(inputs.latents[:1])
    with torch.no_grad():
        for k in range(len(found)):
            ahead = eye.ahead(inputs.look[None, k], inputs.actions[None, k])
            made = advance(weights.dit, state, inputs.actions[None, k], inputs.rays[None, k], ahead)
            state.recycled = inputs.latents[k + 1 : k + 2]
            eye.see(state.recycled)
            assert torch.allclose(found[k], made[0], atol=1e-3), k  # a byte of a picture may round either way


def test_the_first_free_frame_is_the_first_next_frame(case):
    weights, inputs = case
    assert torch.allclose(free_latents(weights, inputs, 3)[0], next_latents(weights, inputs, 3)[0], atol=1e-4)


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
