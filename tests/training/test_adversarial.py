"""Stage 3's arithmetic: the parallel pass has the gradient of a rollout through its cache; losses; what a step does."""

import dataclasses
import itertools
import math
from types import SimpleNamespace

import pytest
import torch

from generator.data.latents import Batch, LatentClips
from generator.model.kv_cache import filled_slots, slot_of
from generator.rollout import continue_rollout, frame_noise, open_eye, rollout, start, with_ahead
from generator.training import adversarial
from generator.training.adversarial import AdversarialTraining, Clip, judge_loss, maker_loss, roll_segment, smoothness
from generator.training.helpers import step_generator, step_rng

HFOV, SEED = 90.0, 5
MODELS = [(0, True), (1, True), (0, False), (1, False)]
each_model = pytest.mark.parametrize(("sink", "reproject"), MODELS, ids=lambda v: str(v))


def windows(latents, count: int, frames: int, reproject: bool = True, use: str = "") -> Batch:
    """A few windows of the tiny data set."""
    batch = LatentClips(latents, "train").draw(count, frames, step_rng(0, 0, use))
    return batch if reproject else dataclasses.replace(batch, ahead=None, pace=None)


def part(batch: Batch, first: int, last: int) -> Batch:
    """Some of a batch's latent frames."""
    rows = {name: value[:, first:last] for name, value in vars(batch).items() if value is not None and value.dim() > 3}
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


# --- losses ---------------------------------------------------------------------------------------------------------
def test_the_losses_by_hand():
    real, fake = torch.tensor([[1.0, 3.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [4.0, -2.0]])
    plus = [math.log1p(math.exp(x)) for x in (-1, -3, 4, -2, 1, 3, -4, 2)]
    assert judge_loss(real, fake).item() == pytest.approx(sum(plus[:4]) / 4)
    assert maker_loss(real, fake).item() == pytest.approx(sum(plus[4:]) / 4)
    assert judge_loss(real[:, :1], fake[:, :1]).item() == pytest.approx(
        (math.log1p(math.exp(-1)) + math.log1p(math.exp(4))) / 2
    )


def test_smoothness_is_the_formula():
    frames, noise = torch.randn(2, 3, 1, 2, 2), torch.randn(2, 3, 1, 2, 2)
    clip = Clip(frames, torch.zeros(1), torch.zeros(1), torch.zeros(1))

    def judge(frames, recycled, t, actions, rays, checkpointed):
        return frames.square().sum((2, 3, 4))

    by_hand = (frames.square().sum((2, 3, 4)) - (frames + 0.1 * noise).square().sum((2, 3, 4))).square().mean()
    logits = judge(frames, None, None, None, None, False)
    torch.testing.assert_close(smoothness(judge, clip, logits, torch.zeros(2), noise, 0.1), by_hand)


def test_the_anchor_holds_what_was_foretold():
    """Error 4 on two latent frames: whole where the channels foretold the truth, half where they missed by FORETOLD."""
    ahead = torch.tensor([0.0, adversarial.FORETOLD**0.5]).view(1, 2, 1, 1, 1).expand(1, 2, 3, 2, 2)
    recycled = torch.cat([torch.full_like(ahead, 9.0), ahead], dim=2)
    real = Clip(torch.zeros(1, 2, 3, 2, 2), recycled, torch.zeros(1), torch.zeros(1))
    fake = dataclasses.replace(real, frames=torch.full((1, 2, 3, 2, 2), 2.0, requires_grad=True))
    loss = adversarial.anchor_loss(real, fake)
    assert loss.item() == pytest.approx((4.0 + 2.0) / 2) and adversarial.anchor_loss(real, real) == 0.0
    loss.backward()
    assert (fake.frames.grad > 0).all()


# --- one step -------------------------------------------------------------------------------------------------------
@pytest.fixture
def config(latents, tokenizer_run, world_folder) -> AdversarialTraining:
    """The settings of a tiny run."""
    return AdversarialTraining(
        latents=str(latents), tokenizer=str(tokenizer_run), start=str(world_folder), preset="debug", steps=4, batch=2,
        frames=5, overlap=2, lr=1e-3, warmup=1, checkpointed=False, bf16=False, device="cpu",
    )  # fmt: skip


def weights(network) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def seen(monkeypatch) -> list[SimpleNamespace]:
    """What every call of update_judge got, and the generator's gradients at that moment."""
    calls, update = [], adversarial.update_judge

    def spy(run, config, adversary, real, fake, t, generator):
        before = [None if p.grad is None else p.grad.clone() for p in run.dit.parameters()]
        figures = update(run, config, adversary, real, fake, t, generator)
        after = [None if p.grad is None else p.grad.clone() for p in run.dit.parameters()]
        judged = [None if p.grad is None else p.grad.clone() for p in adversary.judge.parameters()]
        calls.append(SimpleNamespace(real=real, fake=fake, t=t, before=before, after=after, judged=judged))
        return figures

    monkeypatch.setattr(adversarial, "update_judge", spy)
    return calls


@pytest.mark.parametrize("spared", [{"checkpointed": True}, {"bf16": True}, {"clip_level": True}], ids=str)
def test_a_step_teaches_both_and_each_its_own(config, tmp_path, seen, spared):
    run, adversary = adversarial.open_stage(dataclasses.replace(config, segments=2, **spared), tmp_path)
    maker, judge, average = weights(run.dit), weights(adversary.judge), dict(run.ema.weights)
    average = {name: value.clone() for name, value in average.items()}
    figures = adversarial.train_step(run, run.config, adversary)
    assert {"judge_loss", "maker_loss", "penalty", "gap", "motion", "judge_norm", "maker_norm", "saturated"} == set(
        figures
    )
    assert all(math.isfinite(value) for value in figures.values()) and figures["penalty"] > 0
    for network, before in ((run.dit, maker), (adversary.judge, judge)):
        still = [n for n, p in network.named_parameters() if p.requires_grad and torch.equal(p, before[n])]
        assert still == []
    assert [
        n for n, p in adversary.judge.named_parameters() if not p.requires_grad and not torch.equal(p, judge[n])
    ] == []
    assert not same(run.ema.weights, average)
    first, second = seen
    assert first.before == [None] * len(first.before) == first.after, "the judge's loss reached the generator"
    assert all(torch.equal(*pair) for pair in zip(second.before, second.after, strict=True))
    for parameter, judged in zip(adversary.judge.parameters(), second.judged, strict=True):
        assert (parameter.grad is None) == (judged is None)
        assert judged is None or torch.equal(parameter.grad, judged), "the generator's loss reached the judge"


@pytest.mark.parametrize("still", ["maker", "judge"])
def test_a_side_without_a_rate_stands_still(config, tmp_path, still):
    run, adversary = adversarial.open_stage(config, tmp_path)
    for optimiser in run.optimisers if still == "maker" else adversary.optimisers:
        for group in optimiser.param_groups:
            group["lr"] = 0.0
    maker, judge = weights(run.dit), weights(adversary.judge)
    adversarial.train_step(run, config, adversary)
    assert (same(weights(run.dit), maker), same(weights(adversary.judge), judge)) == (
        still == "maker",
        still == "judge",
    )


def test_the_first_steps_are_the_judges_and_the_anchor_is_told(config, tmp_path):
    run, adversary = adversarial.open_stage(dataclasses.replace(config, judge_first=1, anchor=1.0), tmp_path)
    for waits in (True, False):
        maker, judge, updates = weights(run.dit), weights(adversary.judge), run.ema.updates
        assert adversarial.train_step(run, run.config, adversary)["anchor"] > 0
        assert same(weights(run.dit), maker) == waits == (run.ema.updates == updates)
        assert not same(weights(adversary.judge), judge)
        run.step += 1


def test_a_generators_step_brings_its_loss_down(config, tmp_path):
    """With the judge still, the same clips and noise must please it more and more."""
    run, adversary = adversarial.open_stage(dataclasses.replace(config, penalty=0.0), tmp_path)
    for group in adversary.optimisers[0].param_groups:
        group["lr"] = 0.0
    losses = [adversarial.train_step(run, run.config, adversary)["maker_loss"] for _ in range(4)]
    assert losses[-1] < losses[0] - 1e-3


def test_a_judges_step_brings_its_loss_down(config, tmp_path):
    run, adversary = adversarial.open_stage(dataclasses.replace(config, penalty=0.0), tmp_path)
    for group in run.optimisers[0].param_groups:
        group["lr"] = 0.0
    figures = [adversarial.train_step(run, run.config, adversary) for _ in range(4)]
    assert figures[-1]["judge_loss"] < figures[0]["judge_loss"] - 1e-3 and figures[-1]["gap"] > figures[0]["gap"]


def test_the_penalty_is_taken_on_both_sides_and_on_its_steps(config, tmp_path, monkeypatch, seen):
    run, adversary = adversarial.open_stage(dataclasses.replace(config, penalty_every=2), tmp_path)
    found, plain = [], adversarial.smoothness

    def spy(judge, clip, logits, t, noise, sigma, checkpointed):
        found.append((clip, sigma, noise, plain(judge, clip, logits, t, noise, sigma, checkpointed)))
        return found[-1][-1]

    monkeypatch.setattr(adversarial, "smoothness", spy)
    assert adversarial.train_step(run, run.config, adversary)["penalty"] == 0.0 and found == []
    run.step = 1
    figures = adversarial.train_step(run, run.config, adversary)
    assert [clip for clip, *_ in found] == [seen[1].real, seen[1].fake] and {sigma for _, sigma, *_ in found} == {0.1}
    assert figures["penalty"] == pytest.approx(sum(value.item() for *_, value in found))
    assert found[0][2].std() == pytest.approx(1.0, abs=0.15) and not torch.equal(found[0][2], found[1][2])


def test_the_penalty_weighs_what_it_should(config, tmp_path):
    """The judge's gradient is that of loss + penalty x every x smoothness: linear in the penalty."""

    def gradient(**changes):
        run, adversary = adversarial.open_stage(dataclasses.replace(config, **changes), tmp_path / str(changes))
        batch = run.draw()
        run.step = run.config.penalty_every - 1
        real, fake = Clip.real(batch), Clip(batch.target.flip(0), batch.recycled, batch.actions, batch.rays)
        generator = step_generator(0, 0)
        adversarial.update_judge(run, run.config, adversary, real, fake, torch.rand(2, generator=generator), generator)
        return torch.cat([p.grad.flatten() for p in adversary.judge.parameters() if p.grad is not None])

    none, one, two = (gradient(penalty=value) for value in (0.0, 100.0, 200.0))
    torch.testing.assert_close(two - none, 2 * (one - none), atol=1e-5, rtol=1e-3)
    assert (one - none).abs().max() > 1e-3
    torch.testing.assert_close(gradient(penalty=100.0, penalty_every=2), two, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("reproject", [True, False], ids=["reproject", "last"])
def test_segments_overlap_in_the_judges_clips(config, make_world, tmp_path, seen, monkeypatch, reproject):
    config = dataclasses.replace(config, segments=3, start=str(make_world(reproject=reproject)))
    joined, then = [], Clip.then

    def spy(before, after):
        joined.append((before.frames.requires_grad, after.frames.requires_grad))
        return then(before, after)

    monkeypatch.setattr(Clip, "then", spy)
    run, adversary = adversarial.open_stage(config, tmp_path)
    adversarial.train_step(run, config, adversary)
    assert [call.fake.frames.shape[1] for call in seen] == [5, 7, 7] and joined == [(False, True)] * 2
    for call in seen:
        for mine, theirs in zip(vars(call.fake).values(), vars(call.real).values(), strict=True):
            assert mine.shape == theirs.shape and not mine.requires_grad and not theirs.requires_grad
        assert call.t.shape == (2,) and ((call.t >= 0) & (call.t < 1)).all()
    assert len({tuple(call.t.tolist()) for call in seen}) == 3
    channels = run.dit.config.latent_channels
    for one, other in itertools.pairwise(seen):
        assert torch.equal(other.fake.frames[:, :2], one.fake.frames[:, -2:])
        assert torch.equal(other.fake.actions[:, :2], one.fake.actions[:, -2:])
        shown = other.fake.recycled[:, 1:, :channels]  # the rollout goes on where it stood
        torch.testing.assert_close(shown, other.fake.frames[:, :-1], atol=1e-5, rtol=1e-5)
        assert not torch.equal(other.fake.actions[:, 2:], one.fake.actions[:, -5:])
    assert torch.equal(seen[0].fake.actions, seen[0].real.actions)
    assert torch.equal(seen[0].fake.recycled[:, 0, :channels], seen[0].real.recycled[:, 0, :channels])


def test_later_real_clips_begin_in_mid_video(config, tmp_path, latents):
    """Else a lone picture before the first frame, which no later segment has, would tell the judge which is which."""
    run, _ = adversarial.open_stage(dataclasses.replace(config, segments=4, frames=2, overlap=1), tmp_path)
    clips = [torch.from_numpy(clip["latents"]).float() for clip in LatentClips(latents, "train").clips]
    lone = []
    for number, (_, real) in enumerate(adversarial.segments(run, run.config)):
        assert real.frames.shape[1] == (3 if number else 2)
        for first in real.recycled[:, 0, : run.dit.config.latent_channels]:
            lone.append(not any((clip == first).flatten(1).all(1).any() for clip in clips))
    assert lone == [True, True, *[False] * 6]


def test_forced_steps_follow_the_truth(config, tmp_path, seen):
    config = dataclasses.replace(config, forced=True)
    run, adversary = adversarial.open_stage(config, tmp_path)
    (segment, real), *more = adversarial.segments(run, config)
    batch = run.draw()
    assert more == [] and segment.past is None and segment.start == 0
    assert torch.equal(segment.recycled, batch.recycled) and torch.equal(real.frames, batch.target)
    with torch.no_grad():
        by_hand = segment.noise - run.dit(segment.noise, batch.recycled, torch.ones(2), batch.actions, batch.rays)
    assert torch.equal(segment.again(run.dit).frames, by_hand)
    adversarial.train_step(run, config, adversary)
    torch.testing.assert_close(seen[0].fake.frames, by_hand, atol=1e-6, rtol=1e-6)
    assert torch.equal(seen[0].fake.recycled, batch.recycled)
    assert abs(segment.noise.mean()) < 0.1 and segment.noise.std() == pytest.approx(1.0, abs=0.1)
