"""CausalDiT: a whole clip under the mask is what the rolling cache makes frame by frame, and nothing looks ahead."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.config import PRESETS, build
from generator.model.attention import block_causal_mask
from generator.model.conditioning import patchify, unpatchify
from generator.model.dit import CausalDiT, DiTConfig

TOLERANCE = 1e-5  # float32, outputs of size 1
TEXT = 12  # text width of the models that have a text stream


def by_steps(dit, noisy, recycled, t, actions, rays, text=None):
    """The clip, one latent frame after another through the cache."""
    cache = dit.new_cache(len(noisy))
    prefix = None if text is None else dit.prefill(text)
    parts = zip(*(v.unbind(1) for v in (noisy, recycled, actions, rays)), strict=True)
    made = [dit.step(n, r, t, a, ray, cache, k, prefix) for k, (n, r, a, ray) in enumerate(parts)]
    return torch.stack(made, dim=1)


def text_for(dit, batch):
    if not dit.config.text_width:
        return None
    return torch.randn(batch, 5, TEXT, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("reproject", [True, False], ids=["reproject", "last"])
@pytest.mark.parametrize("text_width", [0, TEXT], ids=["plain", "text"])
@pytest.mark.parametrize("sink", [0, 1, 2])
@torch.no_grad()
def test_a_whole_clip_is_its_frames_through_the_cache(make_dit, make_inputs, sink, text_width, reproject):
    dit = make_dit(sink=sink, text_width=text_width, reproject=reproject)
    window = dit.config.window
    for frames in (2, window + 1, window + 1 + sink, window + 2 + sink, 3 * (window + 1) + sink + 1):
        inputs = make_inputs(dit, frames, batch=2)
        text = text_for(dit, 2)
        whole = dit(*inputs, text)
        torch.testing.assert_close(by_steps(dit, *inputs, text), whole, atol=TOLERANCE, rtol=TOLERANCE)
    assert whole.std() > 0.3


@torch.no_grad()
def test_a_window_as_long_as_the_clip_is_plain_causal_attention(make_dit, make_inputs):
    short, long = make_dit(window=7, sink=1), make_dit(window=50, sink=0)
    inputs = make_inputs(short, 8)
    torch.testing.assert_close(short(*inputs), long(*inputs), atol=TOLERANCE, rtol=TOLERANCE)


@given(frame=st.integers(0, 9), what=st.sampled_from([0, 1, 3, 4]), sink=st.integers(0, 2), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
@torch.no_grad()
def test_the_past_does_not_depend_on_the_future(make_dit, make_inputs, frame, what, sink, seed):
    dit = make_dit(sink=sink)
    inputs = make_inputs(dit, 10, seed=seed)
    before = dit(*inputs)
    inputs[what] = inputs[what].clone()
    inputs[what][:, frame] += 1.0
    after = dit(*inputs)
    assert torch.equal(before[:, :frame], after[:, :frame])
    assert not torch.allclose(before[:, frame], after[:, frame], atol=1e-4)


@pytest.mark.parametrize("whole", [True, False], ids=["clip", "cache"])
@torch.no_grad()
def test_the_window_forgets_and_the_sink_does_not(make_dit, make_inputs, whole):
    dit = make_dit(depth=1, window=3, sink=1)
    run = dit if whole else lambda *inputs: by_steps(dit, *inputs)

    def touched(frame):
        inputs = make_inputs(dit, 12)
        before = run(*inputs)
        inputs[0][:, frame] += 1.0
        moved = (run(*inputs) - before).abs().amax((0, 2, 3, 4))
        return (moved > 0).tolist()

    assert touched(2) == [2 <= k <= 5 for k in range(12)]
    assert touched(7) == [7 <= k <= 10 for k in range(12)]
    assert touched(0) == [True] * 12


@torch.no_grad()
def test_clips_of_a_batch_do_not_touch(make_dit, make_inputs):
    dit = make_dit()
    inputs = make_inputs(dit, 6, batch=3)
    alone = dit(*(v[1:2] for v in inputs))
    torch.testing.assert_close(dit(*inputs)[1:2], alone, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("text_width", [0, TEXT], ids=["plain", "text"])
def test_every_parameter_gets_a_gradient(make_dit, make_inputs, text_width):
    dit = make_dit(text_width=text_width)
    made = dit(*make_inputs(dit, 6, batch=2), text_for(dit, 2))
    made.square().mean().backward()
    without = {name for name, p in dit.named_parameters() if p.grad is None or not p.grad.abs().max() > 0}
    assert {"carry.weight", "carry.bias"} <= dict(dit.named_parameters()).keys()
    last = dit.config.depth - 1  # nobody reads the text after the last block
    unread = (f"blocks.{last}.text_mlp.", f"blocks.{last}.attention.text.out", f"blocks.{last}.attention.text.norm_q")
    assert [name for name in without if not name.startswith(unread)] == []


@torch.no_grad()
def test_with_open_gates_a_step_from_noise_carries_the_reprojection_over(make_dit, make_inputs):
    """At t = 1 the clean frame is what the network adds plus gate x channels; at t = 0 nothing is carried."""
    dit = make_dit()
    noisy, recycled, _, actions, rays = make_inputs(dit, 3)
    for part in (dit.out, dit.carry):
        part.weight.zero_()
        part.bias.zero_()
    last, ahead = recycled.chunk(2, dim=2)
    dit.carry.bias.unflatten(0, (2, -1))[1] = 1.0  # the second half of the gates is the reprojection's
    one, zero = torch.ones(1), torch.zeros(1)
    torch.testing.assert_close(noisy - dit(noisy, recycled, one, actions, rays), ahead, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(dit(noisy, recycled, zero, actions, rays), -noisy, atol=1e-5, rtol=1e-5)
    dit.carry.bias.unflatten(0, (2, -1))[0] = 1.0
    torch.testing.assert_close(noisy - dit(noisy, recycled, one, actions, rays), last + ahead, atol=1e-5, rtol=1e-5)


def test_memory_is_the_same_after_a_thousand_frames_as_after_one(make_dit, make_inputs):
    dit = make_dit(depth=1)
    noisy, recycled, t, actions, rays = make_inputs(dit, 1)
    cache = dit.new_cache(1)
    bytes_held, places = cache.nbytes, (cache.keys.data_ptr(), cache.values.data_ptr())
    with torch.no_grad():
        for k in range(1000):
            made = dit.step(noisy[:, 0], recycled[:, 0], t, actions[:, 0], rays[:, 0], cache, k)
    assert cache.nbytes == bytes_held and (cache.keys.data_ptr(), cache.values.data_ptr()) == places
    c = dit.config
    slots = c.sink + c.window + 1
    assert bytes_held == 2 * 4 * c.depth * slots * c.tokens * c.model_width
    assert made.isfinite().all()


@torch.no_grad()
def test_a_step_a_million_frames_in_is_the_step_it_would_have_been(make_dit, make_inputs):
    """Only distances count, so a rollout that begins at a late frame_index (past the sink) makes the same frames."""
    dit = make_dit(sink=0)
    noisy, recycled, t, actions, rays = make_inputs(dit, 6)
    period = dit.config.window + 1
    caches, made = [dit.new_cache(1), dit.new_cache(1)], []
    for cache, start in zip(caches, (period, 250_000 * period), strict=True):
        frames = [
            dit.step(noisy[:, k], recycled[:, k], t, actions[:, k], rays[:, k], cache, start + k) for k in range(6)
        ]
        made.append(torch.stack(frames))
    assert made[1].isfinite().all()
    torch.testing.assert_close(made[0], made[1], atol=TOLERANCE, rtol=TOLERANCE)


def test_the_mask_by_hand():
    mask = block_causal_mask(4, 1, window=1, sink=1)
    assert mask.int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 1, 1]]
    mask = block_causal_mask(2, 2, window=0, sink=0, prefix=1)
    assert mask.int().tolist() == [
        [1, 0, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [1, 0, 0, 1, 1], [1, 0, 0, 1, 1]
    ]  # fmt: skip


@pytest.mark.parametrize("patch", [1, 2])
def test_patches_and_back(patch):
    x = torch.randn(2, 3, 5, 4, 6)
    tokens = patchify(x, patch)
    assert tokens.shape == (2, 3, 24 // patch**2, 5 * patch**2)
    assert torch.equal(unpatchify(tokens, patch, 4, 6), x)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_build(name):
    with torch.device("meta"):
        dit = CausalDiT(build(DiTConfig, PRESETS[name]["dit"], "dit"))
    count = sum(p.numel() for p in dit.parameters())
    low, high = {
        "debug": (1e4, 1e6),
        "pocket": (1e7, 3e7),
        "aapt-pocket": (1e7, 3e7),
        "base": (1e8, 5e8),
        "aapt-8b": (7.5e9, 9e9),
    }[name]
    assert low < count < high, f"{name} has {count:,} parameters"
