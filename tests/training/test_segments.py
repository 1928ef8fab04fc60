"""Segments of stage 3: the parallel pass has the gradient of a rollout through its cache; what is drawn and paired."""

import dataclasses
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from controls.errors import UserError
from generator.data.latents import Batch, LatentClips
from generator.model.kv_cache import filled_slots, slot_of
from generator.rollout import continue_rollout, frame_noise, open_eye, rollout, start, with_ahead
from generator.training import adversarial
from generator.training.adversarial_settings import AdversarialTraining
from generator.training.helpers import step_rng
from generator.training.segments import roll_segment, segments, still_places

HFOV, SEED = 90.0, 5
MODELS = [(0, True), (1, True), (0, False), (1, False)]
each_model = pytest.mark.parametrize(("sink", "reproject"), MODELS, ids=lambda v: str(v))


def windows(latents, count: int, frames: int, reproject: bool = True, use: str = "") -> Batch:
    """A few windows of the tiny data set."""
    batch = LatentClips(latents, "train").draw(count, frames, step_rng(0, 0, use))
    return batch if reproject else dataclasses.replace(batch, ahead=None, pace=None)


def part(batch: Batch, first: int, last: int) -> Batch:
    """Some of a batch's latent frames."""
    rows = {
        name: value[:, first:last]
        for name, value in vars(batch).items()
        if isinstance(value, torch.Tensor) and value.dim() > 3
    }
    return dataclasses.replace(batch, **(rows | {"first": batch.first}))


def begin(dit, vae, first):
    """A rollout that has not begun, and its eye."""
    eye = open_eye(dit, vae, HFOV)
    if eye:
        eye.open(first)
    return start(dit, first, SEED), eye


class AutogradCache:
    """As KVCache, slow and plain: every slot is a tensor in a list, so a backward pass goes through it."""

    def __init__(self, like, frame_index: int) -> None:
        self.shape = like.shape
        filled = filled_slots(frame_index - 1, like.shape.window, like.shape.sink) if frame_index else 0
        layers = range(len(like.keys))
        self.keys, self.values = (
            [[held[layer, :, :, slot].clone() for slot in range(filled)] for layer in layers]
            for held in (like.keys, like.values)
        )

    def write(self, layer, frame_index, key, value):
        slot = slot_of(frame_index, self.shape.window, self.shape.sink)
        for slots, fresh in ((self.keys[layer], key), (self.values[layer], value)):
            slots[slot : slot + 1] = [self.keep(fresh)]
        return torch.cat(self.keys[layer], dim=2), torch.cat(self.values[layer], dim=2)

    def keep(self, fresh):
        return fresh


class Forgetful(AutogradCache):
    """The same without gradient to the past."""

    def write(self, layer, frame_index, key, value):
        for slots in (self.keys[layer], self.values[layer]):
            slots[:] = [held.detach() for held in slots]
        return super().write(layer, frame_index, key, value)


def slow_frames(dit, cache, batch, looks, recycled, begin: int, cut: bool = True):
    """A rollout with gradient, one latent frame after another; `looks` are the reprojections of each, or Nones."""
    made, t = [], torch.ones(len(recycled))
    for k, ahead in enumerate(looks):
        shape = tuple(recycled.shape[1:])
        noise = torch.stack([frame_noise(SEED + b, begin + k, shape) for b in range(len(recycled))])
        given = with_ahead(recycled.detach() if cut else recycled, ahead)
        velocity = dit.step(noise, given, t, batch.actions[:, k], batch.rays[:, k], cache, begin + k)
        recycled = noise - velocity
        made.append(recycled)
    return torch.stack(made, dim=1)


def gradients(dit, frames):
    """The gradients of all parameters for one loss that tells every number of the frames apart."""
    weight = torch.randn(frames.shape, generator=torch.Generator().manual_seed(1))
    dit.zero_grad(set_to_none=True)
    (frames * weight + 0.1 * frames.square()).mean().backward()
    return {name: p.grad for name, p in dit.named_parameters()}


def apart(one, other) -> float:
    """The largest difference of two sets of gradients, each measured by its own size."""
    assert one.keys() == other.keys() and all(value is not None for value in one.values())
    return max(((one[n] - other[n]).abs().max() / other[n].abs().max().clamp_min(1e-8)).item() for n in one)


# --- the rollout, and the same again with a gradient ---------------------------------------------------------------
@each_model
def test_a_rollout_in_two_parts_is_the_rollout_in_one(make_dit, tiny_vae, latents, sink, reproject):
    dit, batch = make_dit(sink=sink, reproject=reproject), windows(latents, 2, 9)
    whole = rollout(dit, batch.first, batch, SEED, open_eye(dit, tiny_vae, HFOV))
    state, eye = begin(dit, tiny_vae, batch.first)
    parts = [continue_rollout(dit, state, part(batch, *ends), eye)[0] for ends in ((0, 5), (5, 9))]
    assert torch.equal(torch.cat(parts, dim=1), whole) and state.frame_index == 9


@each_model
@torch.no_grad()
def test_again_gives_the_rollouts_frames(make_dit, tiny_vae, latents, sink, reproject):
    dit, batch = make_dit(sink=sink, reproject=reproject), windows(latents, 2, 14)
    whole = rollout(dit, batch.first, batch, SEED, open_eye(dit, tiny_vae, HFOV))
    state, eye = begin(dit, tiny_vae, batch.first)
    for first, last in ((0, 1), (1, 6), (6, 10), (10, 14)):
        segment = roll_segment(dit, state, eye, part(batch, first, last))
        clip = segment.again(dit)
        torch.testing.assert_close(clip.frames, whole[:, first:last], atol=1e-5, rtol=1e-5)
        before = torch.cat([batch.first[:, None], whole], dim=1)[:, first:last]
        torch.testing.assert_close(clip.recycled[:, :, : whole.shape[2]], before, atol=1e-5, rtol=1e-5)
        assert clip.recycled.shape[2] == dit.config.recycled_channels
        assert torch.equal(clip.actions, batch.actions[:, first:last])
    assert whole.std() > 0.3


@each_model
@pytest.mark.parametrize("begins", [0, 2, 7], ids=lambda k: f"from{k}")
def test_its_gradient_is_that_of_a_rollout_through_the_cache(make_dit, tiny_vae, latents, sink, reproject, begins):
    """The equality that the stage stands on: one parallel pass, or a frame at a time through keys with a history."""
    dit, batch = make_dit(sink=sink, reproject=reproject), windows(latents, 2, begins + 6)
    state, eye = begin(dit, tiny_vae, batch.first)
    if begins:
        roll_segment(dit, state, eye, part(batch, 0, begins))
    first, rest = state.recycled, part(batch, begins, begins + 6)
    caches = [kind(state.cache, begins) for kind in (AutogradCache, Forgetful)]
    segment = roll_segment(dit, state, eye, rest)
    channels = dit.config.latent_channels
    looks = list(segment.recycled[:, :, channels:].unbind(1)) if reproject else [None] * 6
    clip = segment.again(dit)
    mine = gradients(dit, clip.frames)
    slow = slow_frames(dit, caches[0], rest, looks, first, begins)
    torch.testing.assert_close(slow, clip.frames, atol=1e-5, rtol=1e-5)
    reference = gradients(dit, slow)
    assert apart(mine, reference) < 1e-4
    assert apart(gradients(dit, slow_frames(dit, caches[1], rest, looks, first, begins)), reference) > 1e-2


def test_the_recycled_frame_carries_no_gradient(make_dit, latents):
    dit, batch = make_dit(reproject=False), windows(latents, 2, 6, reproject=False)
    state, _ = begin(dit, None, batch.first)
    cache = [AutogradCache(state.cache, 0) for _ in range(2)]
    segment = roll_segment(dit, state, None, batch)
    clip = segment.again(dit)
    assert not clip.recycled.requires_grad and clip.frames.requires_grad
    mine = gradients(dit, clip.frames)
    cut, whole = (
        gradients(dit, slow_frames(dit, held, batch, [None] * 6, batch.first, 0, cut))
        for held, cut in zip(cache, (True, False), strict=True)
    )
    assert apart(mine, cut) < 1e-4 < 1e-2 < apart(whole, cut)


@pytest.mark.parametrize("checkpointed", [True, False])
def test_gradients_flow_back_through_the_cache_within_the_window(make_dit, tiny_vae, latents, checkpointed):
    dit, batch = make_dit(depth=1, window=2, sink=0), windows(latents, 1, 6)
    segment = roll_segment(dit, *begin(dit, tiny_vae, batch.first), batch)
    segment.noise.requires_grad_()
    segment.again(dit, checkpointed).frames[:, 3].square().sum().backward()
    reached = segment.noise.grad.abs().amax((0, 2, 3, 4)) > 0
    assert reached.tolist() == [False, True, True, True, False, False]


# --- what is drawn ---------------------------------------------------------------------------------------------------
@pytest.fixture
def config(latents, tokenizer_run, world_folder) -> AdversarialTraining:
    """The settings of a tiny run."""
    return AdversarialTraining(
        latents=str(latents), tokenizer=str(tokenizer_run), start=str(world_folder), preset="debug", steps=4, batch=2,
        frames=5, overlap=2, lr=1e-3, warmup=1, checkpointed=False, bf16=False, device="cpu",
    )  # fmt: skip


def test_later_real_clips_begin_in_mid_video(config, tmp_path, latents):
    """Else a lone picture before the first frame, which no later segment has, would tell the judge which is which."""
    run, _, drawer = adversarial.open_stage(dataclasses.replace(config, segments=4, frames=2, overlap=1), tmp_path)
    clips = [torch.from_numpy(clip["latents"]).float() for clip in LatentClips(latents, "train").clips]
    lone = []
    for number, (_, real) in enumerate(one for (one,) in segments(run, run.config, drawer)):
        assert real.frames.shape[1] == (3 if number else 2)
        for first in real.recycled[:, 0, : run.dit.config.latent_channels]:
            lone.append(not any((clip == first).flatten(1).all(1).any() for clip in clips))
    assert lone == [True, True, *[False] * 6]


def test_forced_steps_follow_the_truth(config, tmp_path):
    config = dataclasses.replace(config, forced=True)
    run, _, drawer = adversarial.open_stage(config, tmp_path)
    ((segment, real),), *more = segments(run, config, drawer)
    (batch,) = drawer.rolled()
    assert more == [] and segment.past is None and segment.start == 0
    assert torch.equal(segment.recycled, batch.recycled) and torch.equal(real.frames, batch.target)
    with torch.no_grad():
        by_hand = segment.noise - run.dit(segment.noise, batch.recycled, torch.ones(2), batch.actions, batch.rays)
    assert torch.equal(segment.again(run.dit).frames, by_hand) and torch.equal(segment.frames, by_hand)
    assert torch.equal(segment.rolled.recycled, batch.recycled)
    assert abs(segment.noise.mean()) < 0.1 and segment.noise.std() == pytest.approx(1.0, abs=0.1)


def test_own_histories_in_the_place_of_rollouts(config, tmp_path):
    """One pass after guesses of the student's own; what is judged was made after its own frames, as a real clip was."""
    config = dataclasses.replace(config, rounds=3, reuse=2, accumulate=2)
    run, _, drawer = adversarial.open_stage(config, tmp_path)
    channels, ages = run.dit.config.latent_channels, []
    for step in range(4):
        run.step = step
        (parts,) = segments(run, config, drawer)
        ages.append([held.age for held in drawer.histories])
        assert len(parts) == 2 and not torch.equal(parts[0][0].noise, parts[1][0].noise)
        for segment, real in parts:
            made, again = segment.rolled, segment.again(run.dit)
            assert torch.equal(made.frames, again.frames) and again.frames.requires_grad
            for clip in (made, again):
                assert torch.equal(clip.recycled[:, 1:, :channels], clip.frames[:, :-1])
                assert (
                    torch.equal(clip.recycled[:, 0, :channels], real.recycled[:, 0, :channels])
                    and not clip.recycled.requires_grad
                )
            assert not torch.equal(segment.recycled[:, 1:, :channels], real.recycled[:, 1:, :channels])
            assert torch.equal(segment.conditions.target, real.frames)
    assert ages == [[1, 1], [1, 1], [2, 2], [2, 2]]


def test_what_is_judged_is_the_rollout_itself(config, tmp_path, latents):
    """Bit for bit what play makes from the same first pictures, actions and seed."""
    config = dataclasses.replace(config, accumulate=2, segments=2)
    run, _, drawer = adversarial.open_stage(config, tmp_path)
    parts, more = drawer.rolled(), drawer.steering(1)
    seed = int(step_rng(config.seed, 0, "rollout").integers(2**31))
    rolled = [[segment.rolled.frames for segment, _ in parts] for parts in segments(run, config, drawer)]
    for number, (first, after) in enumerate(zip(parts, more, strict=True)):
        state = start(run.dit, first.first, seed + 2 * number)
        eye = open_eye(run.dit, run.tokenizer, run.world.hfov, run.parallax)
        eye.open(first.first, first.pace)
        for part, conditions in zip(rolled, (first, after), strict=True):
            assert torch.equal(part[number], continue_rollout(run.dit, state, conditions, eye)[0])


def test_rollouts_begin_from_lone_pictures(config, tmp_path, latents):
    run, _, drawer = adversarial.open_stage(dataclasses.replace(config, batch=16), tmp_path)
    alone = [torch.from_numpy(clip["alone"]).float() for clip in LatentClips(latents, "train").clips]
    for step in range(3):
        run.step = step
        (batch,) = drawer.rolled()
        assert all(any((clip == first).flatten(1).all(1).any() for clip in alone) for first in batch.first)


def test_still_places_are_those_without_key_or_look():
    """Ten latent frames; only the fifth and the last two move, by a key and by a look."""
    keys, look = np.zeros((41, 2), np.uint8), np.full((41, 2), 0.01, np.float32)
    keys[0], look[0] = 1, 9.0  # of the first picture, which nothing leads to
    keys[1 + 4 * 4 + 3, 1] = 1
    look[1 + 8 * 4 :, 0] = -0.5
    clips = SimpleNamespace(clips=[{"keys": keys, "look": look}, {"keys": keys[:9], "look": look[:9]}], ticks=4)
    assert still_places(clips, 4) == [(0, k) for k in range(6)]  # of (0, 5) the last frame moves
    assert still_places(clips, 3) == [(0, 0), (0, 1), (0, 5)]
    assert still_places(clips, 2) == [(0, 0), (0, 1), (0, 2), (0, 5), (0, 6), (1, 0)]


@pytest.fixture
def part_still(latents, tmp_path_factory):
    """The latents, whose second training clip stands still for its last twelve latent frames."""
    folder = tmp_path_factory.mktemp("part_still")
    shutil.copytree(latents, folder, dirs_exist_ok=True)
    with np.load(folder / "000001.npz") as stored:
        arrays = dict(stored)
    arrays["keys"][-48:], arrays["look"][-48:] = 0, 0.0
    np.savez(folder / "000001.npz", **arrays)
    return folder


def test_every_update_has_its_share_of_standing_still(config, tmp_path, part_still):
    config = dataclasses.replace(config, latents=str(part_still), batch=4, accumulate=2, still=0.3, frames=4)
    run, _, drawer = adversarial.open_stage(config, tmp_path)
    seen = set()
    for step in range(4):
        run.step = step
        parts = drawer.rolled()
        assert [len(batch.first) for batch in parts] == [4, 4]
        looks = torch.cat([batch.look for batch in parts]).abs().amax((2, 3))
        still = (looks < 0.05).float().mean(1) >= 0.75
        assert still[:3].all(), "a share of 0.3 of eight clips is three"
        seen |= {tuple(first.flatten()[:4].tolist()) for first in torch.cat([b.first for b in parts])[:3]}
        again = drawer.rolled()
        assert all(torch.equal(a.target, b.target) for a, b in zip(parts, again, strict=True))
    assert len(seen) > 4, "always the same places"


def test_clips_without_rest_are_a_sentence(config, tmp_path):
    with pytest.raises(UserError, match=r"no 5 latent frames of standing still; give --set still=0") as caught:
        adversarial.open_stage(dataclasses.replace(config, still=0.1), tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fresh", [True, False])
def test_extensions_are_led_by_fresh_walks_or_other_clips(config, tmp_path, fresh):
    config = dataclasses.replace(config, accumulate=2, segments=3, fresh=fresh)
    run, _, drawer = adversarial.open_stage(config, tmp_path)
    recorded = [clip["look"] for clip in run.clips.clips]
    steered = [drawer.steering(number) for number in (1, 2)]
    for parts in steered:
        assert [part.look.shape for part in parts] == [(2, 5, 4, 2)] * 2
        for part in parts:
            rows = part.look.flatten(1, 2).numpy()
            for row in rows:
                found = [(look[k : k + 20] == row).all() for look in recorded for k in range(len(look) - 19)]
                assert any(found) != fresh
            by_hand = run.clips.camera.ray_map(rows, 4, 4).reshape(2, 5, -1, 4, 4)
            assert np.array_equal(part.rays.numpy(), by_hand)
            keys = part.actions[..., : len(run.clips.spec.keys)]
            assert set(keys.unique().tolist()) <= {0.0, 1.0} and part.actions.shape[-1] == run.clips.spec.fields
            torch.testing.assert_close(part.actions[..., -2:], part.look / run.clips.spec.look_scale)
    assert not torch.equal(steered[0][0].actions, steered[1][0].actions)
    assert torch.equal(drawer.steering(1)[1].look, steered[0][1].look), "a step draws the same again"
    segment = list(segments(run, config, drawer))[1][0][0]
    assert torch.equal(segment.rolled.actions, steered[0][0].actions)


def test_a_schedule_of_extensions(config):
    config = dataclasses.replace(config, extensions=(0, 1, 5))
    assert [config.at(p).segments for p in (0.0, 0.32, 0.34, 0.66, 0.67, 1.0)] == [1, 1, 2, 2, 6, 6]
    assert config.longest.segments == 6 and config.at(0.5).frames == config.frames
    plain = dataclasses.replace(config, extensions=(), segments=3)
    assert plain.at(0.9) is plain and plain.longest.segments == 3
