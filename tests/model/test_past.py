"""A segment behind what the cache holds is the rest of the whole clip, and the cache says rightly what it holds."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.model.kv_cache import filled_slots, slot_frame, slot_of

WINDOW = 3  # that of make_dit
SPLITS = (0, 1, WINDOW, WINDOW + 1, 3 * WINDOW)
TOLERANCE = 1e-5


@torch.no_grad()
def cache_after(dit, inputs, frames: int):
    """The cache once the first latent frames of a clip have gone through it."""
    noisy, recycled, t, actions, rays = inputs
    cache = dit.new_cache(len(noisy))
    for k in range(frames):
        dit.step(noisy[:, k], recycled[:, k], t, actions[:, k], rays[:, k], cache, k)
    return cache


def from_frame(inputs, start: int):
    """A clip's inputs from one latent frame on."""
    return [v if v.ndim == 1 else v[:, start:] for v in inputs]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("sink", [0, 1, 2])
@torch.no_grad()
def test_a_segment_behind_its_past_is_the_rest_of_the_clip(make_dit, make_inputs, sink, split):
    dit = make_dit(sink=sink)
    for length in (1, WINDOW + sink + 3):
        inputs = make_inputs(dit, split + length, batch=2)
        past = cache_after(dit, inputs, split).past(split)
        rest = dit(*from_frame(inputs, split), past=past, start=split)
        torch.testing.assert_close(rest, dit(*inputs)[:, split:], atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("sink", [0, 1])
def test_checkpoints_change_nothing_behind_a_past(make_dit, make_inputs, sink):
    dit = make_dit(sink=sink)
    inputs = make_inputs(dit, 9)
    past = cache_after(dit, inputs, 5).past(5)

    def made(checkpointed):
        dit.zero_grad(set_to_none=True)
        velocity = dit(*from_frame(inputs, 5), past=past, start=5, checkpointed=checkpointed)
        velocity.square().mean().backward()
        return velocity, [p.grad for p in dit.parameters()]

    torch.testing.assert_close(made(True), made(False), atol=1e-7, rtol=1e-6)


@torch.no_grad()
def test_a_segment_without_its_past_is_another(make_dit, make_inputs):
    dit = make_dit()
    inputs = make_inputs(dit, 7)
    alone = dit(*from_frame(inputs, 4))
    assert not torch.allclose(alone, dit(*inputs)[:, 4:], atol=1e-3)


def test_the_past_is_a_copy_without_gradient(make_dit, make_inputs):
    dit = make_dit()
    inputs = make_inputs(dit, 3 * WINDOW)
    cache = cache_after(dit, inputs, 6)
    past = cache.past(6)
    before = [(layer.keys.clone(), layer.values.clone()) for layer in past]
    assert len(past) == dit.config.depth and past[0].keys.shape[2] == WINDOW + 2
    assert sorted(past[0].frame_index.tolist()) == [0, 2, 3, 4, 5] and past[0].sinks == 1
    cache.keys.add_(1.0)
    cache.values.zero_()
    for layer, (keys, values) in zip(past, before, strict=True):
        assert torch.equal(layer.keys, keys) and torch.equal(layer.values, values)
        assert not layer.keys.requires_grad and not layer.values.requires_grad
        assert values.abs().max() > 0


@given(frame_index=st.integers(0, 60), window=st.integers(0, 8), sink=st.integers(0, 4))
@settings(max_examples=200, deadline=None)
def test_slots_hold_what_a_hand_simulation_holds(frame_index, window, sink):
    held = {}
    for k in range(frame_index):
        held[slot_of(k, window, sink)] = k
    filled = filled_slots(frame_index - 1, window, sink) if frame_index else 0
    assert sorted(held) == list(range(filled))
    assert {slot: slot_frame(slot, frame_index, window, sink) for slot in held} == held
    seen = {k for k in range(frame_index) if k < sink or frame_index - k <= window}
    assert seen <= set(held.values()), "a frame that the next one sees is gone"
