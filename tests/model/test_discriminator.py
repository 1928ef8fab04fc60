"""Discriminator: a logit per latent frame that knows no later one, gradients where they belong, no generator noise."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.config import PRESETS, build
from generator.data.latents import Batch
from generator.model.discriminator import Discriminator, moved
from generator.model.dit import CausalDiT, DiTConfig
from generator.training.judging import judge_loss
from generator.training.segments import Segment

FRAMES = 6  # within reach of one another: two layers of three latent frames each
GIVEN = {0: "frames", 1: "recycled", 3: "actions", 4: "rays"}
FROZEN = ("body.out.", "body.carry.", "body.conditioner.final.")


@pytest.fixture(scope="session")
def make_judge(make_dit):
    """A function that builds a tiny discriminator on a shaken body."""

    def make(clip_level: bool = False, seed: int = 0, **changes) -> Discriminator:
        body = make_dit(seed, **changes)
        return Discriminator(body, clip_level)

    return make


def gradients(judge, inputs, **options):
    """The parameters' gradients of one loss, by name."""
    judge.zero_grad(set_to_none=True)
    judge(*inputs, **options).square().mean().backward()
    return {name: p.grad for name, p in judge.named_parameters() if p.grad is not None}


@given(frame=st.integers(0, FRAMES - 1), what=st.sampled_from(sorted(GIVEN)), seed=st.integers(0, 99))
@settings(max_examples=10, deadline=None)
@torch.no_grad()
def test_a_logit_knows_its_own_latent_frame_and_earlier_ones_only(make_judge, make_inputs, frame, what, seed):
    judge = make_judge()
    inputs = make_inputs(judge.body, FRAMES, batch=2, seed=seed)
    before = judge(*inputs)
    assert before.shape == (2, FRAMES) and before.dtype == torch.float32
    inputs[what] = inputs[what].clone()
    inputs[what][:, frame] += 1.0
    moved = (judge(*inputs) - before).abs()
    assert torch.equal(moved[:, :frame], torch.zeros(2, frame)), f"an earlier logit saw later {GIVEN[what]}"
    assert (moved[:, frame:] > 1e-7).all(), f"a logit is blind for {GIVEN[what]}"


@pytest.mark.parametrize("what", sorted(GIVEN), ids=GIVEN.get)
@torch.no_grad()
def test_the_clip_level_logit_depends_on_every_latent_frame(make_judge, make_inputs, what):
    judge = make_judge(clip_level=True)
    inputs = make_inputs(judge.body, 12, batch=2)
    before = judge(*inputs)
    assert before.shape == (2, 1) and before.dtype == torch.float32
    for frame in range(12):
        changed = [v.clone() for v in inputs]
        changed[what][:, frame] += 1.0
        assert ((judge(*changed) - before).abs() > 1e-7).all(), f"blind for {GIVEN[what]} of latent frame {frame}"


@torch.no_grad()
def test_clips_of_a_batch_do_not_touch_and_the_time_is_heard(make_judge, make_inputs):
    judge = make_judge()
    inputs = make_inputs(judge.body, FRAMES, batch=3)
    logits = judge(*inputs)
    torch.testing.assert_close(judge(*(v[1:2] for v in inputs)), logits[1:2], atol=1e-5, rtol=1e-5)
    inputs[2] = inputs[2] / 2
    assert ((judge(*inputs) - logits).abs() > 1e-6).all()


@pytest.mark.parametrize("clip_level", [False, True])
@pytest.mark.parametrize("seed", range(4))
@torch.no_grad()
def test_the_first_logits_are_moderate(make_judge, make_inputs, seed, clip_level):
    torch.manual_seed(seed)
    fresh = Discriminator(CausalDiT(build(DiTConfig, PRESETS["debug"]["dit"], "dit")), clip_level)
    for judge in (fresh, make_judge(clip_level, seed)):
        logits = judge(*make_inputs(judge.body, 9, batch=4, seed=seed))
        assert logits.isfinite().all() and logits.abs().max() < 3
        assert judge_loss(logits, logits).item() == pytest.approx(math.log(2))


def test_the_depths_are_those_of_apt(make_dit):
    assert Discriminator(make_dit(depth=36)).depths == (16, 26, 36)


@pytest.mark.parametrize("clip_level", [False, True])
@pytest.mark.parametrize("reproject", [True, False], ids=["reproject", "last"])
def test_every_parameter_learns_but_the_generators_own(make_judge, make_inputs, clip_level, reproject):
    judge = make_judge(clip_level, depth=5, reproject=reproject)
    found = gradients(judge, make_inputs(judge.body, FRAMES, batch=2))
    names = dict(judge.named_parameters())
    frozen = {name for name in names if name.startswith(FROZEN)}
    assert {name for name, p in names.items() if not p.requires_grad} == frozen
    assert len(frozen) == (6 if reproject else 4)
    assert found.keys() == names.keys() - frozen
    assert [name for name, value in found.items() if not value.abs().max() > 0] == []


def test_a_frozen_judge_still_leads_the_frames(make_judge, make_inputs):
    judge = make_judge()
    inputs = make_inputs(judge.body, FRAMES, batch=2)
    inputs[0].requires_grad_()
    judge.freeze(True)
    assert gradients(judge, inputs, checkpointed=True) == {}
    led = inputs[0].grad
    assert led is not None and (led.abs().amax((0, 2, 3, 4)) > 0).all()
    judge.freeze(False)
    found = gradients(judge, inputs)
    assert len(found) == len(list(judge.parameters())) - 6 and not any(name.startswith(FROZEN) for name in found)


@pytest.mark.parametrize("clip_level", [False, True])
def test_checkpoints_change_nothing(make_judge, make_inputs, clip_level):
    judge = make_judge(clip_level)
    inputs = make_inputs(judge.body, FRAMES, batch=2)
    inputs[0].requires_grad_()
    plain = judge(*inputs), gradients(judge, inputs), inputs[0].grad
    inputs[0].grad = None
    spared = judge(*inputs, checkpointed=True), gradients(judge, inputs, checkpointed=True), inputs[0].grad
    torch.testing.assert_close(spared, plain, atol=1e-7, rtol=1e-6)


def test_nothing_of_the_generators_noise_reaches_the_judge(make_judge, make_inputs):
    """Two passes from other noise that end in equal frames are one clip to the judge."""
    judge = make_judge()
    drawn, recycled, t, actions, rays = make_inputs(judge.body, FRAMES, batch=2)
    noise = (9 * drawn).round()  # sums and differences of these numbers are exact
    frames = noise.flip(1) / 16
    conditions = Batch(frames[:, 0], frames, actions, rays, actions[..., :2])

    def maker(noise, *rest, **options):
        return noise - frames

    noises = (noise, noise.flip(0) + 1)
    clips = [Segment(noise, recycled, conditions, None, 0).again(maker) for noise in noises]
    for one, other in zip(*(vars(clip).values() for clip in clips), strict=True):
        assert torch.equal(one, other)
    with torch.no_grad():
        one, other = (judge(clip.frames, clip.recycled, t, clip.actions, clip.rays) for clip in clips)
    assert torch.equal(one, other)


@torch.no_grad()
def test_logits_keep_their_precision_under_autocast(make_judge, make_inputs):
    judge = make_judge()
    inputs = make_inputs(judge.body, FRAMES, batch=2)
    with torch.autocast("cpu", torch.bfloat16):
        logits = judge(*inputs)
    assert logits.dtype == torch.float32 and not torch.equal(logits, logits.bfloat16().float())
    torch.testing.assert_close(logits, judge(*inputs), atol=0.1, rtol=0.1)


@torch.no_grad()
def test_a_judge_does_not_read_what_lay_ahead(make_judge, make_inputs):
    """A reprojection of a worn history would give every fake away, whatever frame was made of it."""
    judge = make_judge(reproject=True)
    inputs, own = make_inputs(judge.body, FRAMES, batch=2), judge.body.config.latent_channels
    before = judge(*inputs)
    inputs[1] = inputs[1].clone()
    inputs[1][:, :, own:] += 1.0
    assert torch.equal(judge(*inputs), before)
    inputs[1][:, :, :own] += 1.0
    assert not torch.allclose(judge(*inputs), before)


# --- another grid ---------------------------------------------------------------------------------------------------
def test_moved_by_hand():
    x = torch.arange(2 * 3 * 4).float().reshape(1, 1, 2, 3, 4).expand(4, 2, 2, 3, 4)
    shift = torch.tensor([[0, 0], [1, 0], [0, 2], [1, 1]])
    out = moved(x, shift)
    assert out.shape == x.shape and torch.equal(out[0], x[0])
    assert torch.equal(out[1, :, :, 1:], x[1, :, :, :-1]) and torch.equal(out[1, :, :, 0], x[1, :, :, 0])
    assert torch.equal(out[2, ..., 2:], x[2, ..., :-2]) and torch.equal(out[2, ..., 0], x[2, ..., 0])
    assert torch.equal(out[3, :, :, 1:, 1:], x[3, :, :, :-1, :-1])


def test_a_shift_moves_everything_that_lies_in_the_picture_and_leads_all_frames(make_judge, make_inputs):
    judge = make_judge()
    frames, recycled, t, actions, rays = make_inputs(judge.body, FRAMES, batch=2)
    shift = torch.tensor([[0, 1], [1, 1]])
    frames.requires_grad_()
    logits = judge(frames, recycled, t, actions, rays, False, shift)
    with torch.no_grad():
        by_hand = judge(moved(frames, shift), moved(recycled, shift), t, actions, moved(rays, shift))
        plain = judge(frames, recycled, t, actions, rays)
        assert torch.equal(judge(frames, recycled, t, actions, rays, False, torch.zeros(2, 2, dtype=int)), plain)
    assert torch.equal(logits, by_hand) and (logits - plain).abs().min() > 1e-7
    logits.sum().backward()
    blind = frames.grad.abs().amax((1, 2)) == 0  # what left at the bottom and the right, and only that
    assert not blind[0, :, :-1].any() and blind[0, :, -1].all()
    assert not blind[1, :-1, :-1].any() and blind[1, -1].all() and blind[1, :, -1].all()


@torch.no_grad()
def test_a_grid_between_the_patches_shows_as_its_own_edges(make_judge, make_inputs):
    """Cells that alternate from patch to patch look alike inside every patch until the grid is moved."""
    size = make_judge().body.config
    step = torch.arange(size.width) // size.patch % 2
    stripes = step.float().expand(1, 1, 1, size.height, size.width)
    inside = stripes.unfold(-1, size.patch, size.patch)
    assert (inside.amax(-1) == inside.amin(-1)).all(), "no edge lies inside a patch"
    shifted = moved(stripes, torch.tensor([[0, size.patch // 2]])).unfold(-1, size.patch, size.patch)
    assert (shifted.amax(-1) > shifted.amin(-1)).any()
