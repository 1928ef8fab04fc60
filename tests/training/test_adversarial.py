"""Stage 3's arithmetic: the losses by hand, and what a step does to both networks."""

import dataclasses
import itertools
import math
from types import SimpleNamespace

import pytest
import torch

from generator.training import adversarial, judging
from generator.training.adversarial_settings import AdversarialTraining
from generator.training.helpers import step_generator
from generator.training.judging import Bench, Pair, drift_loss, judge_loss, maker_loss, smoothness
from generator.training.segments import Clip


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

    def judge(frames, recycled, t, actions, rays, checkpointed, shift):
        return frames.square().sum((2, 3, 4))

    by_hand = (frames.square().sum((2, 3, 4)) - (frames + 0.1 * noise).square().sum((2, 3, 4))).square().mean()
    bench = Bench(judge, torch.zeros(2))
    torch.testing.assert_close(smoothness(bench, clip, bench(clip), noise, 0.1), by_hand)


def test_drift_is_what_pairs_have_in_common():
    real, fake = torch.tensor([[1.0, 3.0]]), torch.tensor([[-1.0, 2.0]])
    assert drift_loss(real, fake).item() == pytest.approx((0.0 + 25.0) / 2)
    assert drift_loss(real + 7, fake - 7) == drift_loss(real, fake), "it leaves the difference alone"


def test_the_anchor_holds_what_was_foretold():
    """Error 4 on two latent frames: whole where the channels foretold the truth, half where they missed by FORETOLD."""
    ahead = torch.tensor([0.0, judging.FORETOLD**0.5]).view(1, 2, 1, 1, 1).expand(1, 2, 3, 2, 2)
    recycled = torch.cat([torch.full_like(ahead, 9.0), ahead], dim=2)
    real = Clip(torch.zeros(1, 2, 3, 2, 2), recycled, torch.zeros(1), torch.zeros(1))
    fake = dataclasses.replace(real, frames=torch.full((1, 2, 3, 2, 2), 2.0, requires_grad=True))
    loss = judging.anchor_loss(real, fake)
    assert loss.item() == pytest.approx((4.0 + 2.0) / 2) and judging.anchor_loss(real, real) == 0.0
    loss.backward()
    assert (fake.frames.grad > 0).all()
    told = dataclasses.replace(real, recycled=torch.cat([recycled, torch.full((1, 2, 5, 2, 2), 7.0)], dim=2))
    assert judging.anchor_loss(told, fake) == loss, "in a place the last channels are of it, and foretell nothing"
    alone = dataclasses.replace(real, recycled=ahead)
    assert judging.anchor_loss(alone, fake) == loss


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

    def spy(run, config, adversary, pairs, generator):
        before = [None if p.grad is None else p.grad.clone() for p in run.dit.parameters()]
        figures = update(run, config, adversary, pairs, generator)
        after = [None if p.grad is None else p.grad.clone() for p in run.dit.parameters()]
        judged = [None if p.grad is None else p.grad.clone() for p in adversary.judge.parameters()]
        one = pairs[0]
        calls.append(
            SimpleNamespace(
                real=one.real, fake=one.fake, t=one.t, pairs=pairs, before=before, after=after, judged=judged
            )
        )
        return figures

    monkeypatch.setattr(adversarial, "update_judge", spy)
    return calls


@pytest.mark.parametrize("spared", ["checkpointed", "bf16", "clip_level", "grid_shift"])
def test_a_step_teaches_both_and_each_its_own(config, tmp_path, seen, spared):
    run, adversary, drawer = adversarial.open_stage(dataclasses.replace(config, segments=2, **{spared: True}), tmp_path)
    maker, judge, average = weights(run.dit), weights(adversary.judge), dict(run.ema.weights)
    average = {name: value.clone() for name, value in average.items()}
    figures = adversarial.train_step(run, run.config, adversary, drawer)
    assert {
        "judge_loss",
        "maker_loss",
        "penalty",
        "gap",
        "motion",
        "judge_norm",
        "maker_norm",
        "saturated",
        "grid",
    } == set(figures)
    assert all(math.isfinite(value) for value in figures.values()) and figures["penalty"] > 0
    for network, before in ((run.dit, maker), (adversary.judge, judge)):
        still = [n for n, p in network.named_parameters() if p.requires_grad and torch.equal(p, before[n])]
        # one logit a clip: its differences do not depend on the bias, but for the rounding of bf16
        free = {"logit.bias"} if network is adversary.judge and run.config.clip_level else set()
        assert set(still) <= free
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
    run, adversary, drawer = adversarial.open_stage(config, tmp_path)
    for optimiser in run.optimisers if still == "maker" else adversary.optimisers:
        for group in optimiser.param_groups:
            group["lr"] = 0.0
    maker, judge = weights(run.dit), weights(adversary.judge)
    adversarial.train_step(run, config, adversary, drawer)
    assert (same(weights(run.dit), maker), same(weights(adversary.judge), judge)) == (
        still == "maker",
        still == "judge",
    )


def test_the_first_steps_are_the_judges_and_the_anchor_is_told(config, tmp_path):
    run, adversary, drawer = adversarial.open_stage(dataclasses.replace(config, judge_first=1, anchor=1.0), tmp_path)
    for waits in (True, False):
        maker, judge, updates = weights(run.dit), weights(adversary.judge), run.ema.updates
        assert adversarial.train_step(run, run.config, adversary, drawer)["anchor"] > 0
        assert same(weights(run.dit), maker) == waits == (run.ema.updates == updates)
        assert not same(weights(adversary.judge), judge)
        run.step += 1


def test_a_generators_step_brings_its_loss_down(config, tmp_path):
    """With the judge still, the same clips and noise must please it more and more."""
    run, adversary, drawer = adversarial.open_stage(dataclasses.replace(config, penalty=0.0), tmp_path)
    for group in adversary.optimisers[0].param_groups:
        group["lr"] = 0.0
    losses = [adversarial.train_step(run, run.config, adversary, drawer)["maker_loss"] for _ in range(4)]
    assert losses[-1] < losses[0] - 1e-3


def test_a_judges_step_brings_its_loss_down(config, tmp_path):
    run, adversary, drawer = adversarial.open_stage(dataclasses.replace(config, penalty=0.0), tmp_path)
    for group in run.optimisers[0].param_groups:
        group["lr"] = 0.0
    figures = [adversarial.train_step(run, run.config, adversary, drawer) for _ in range(4)]
    assert figures[-1]["judge_loss"] < figures[0]["judge_loss"] - 1e-3 and figures[-1]["gap"] > figures[0]["gap"]


def test_the_penalty_is_taken_on_both_sides_and_on_its_steps(config, tmp_path, monkeypatch, seen):
    run, adversary, drawer = adversarial.open_stage(dataclasses.replace(config, penalty_every=2), tmp_path)
    found, plain = [], judging.smoothness

    def spy(bench, clip, logits, noise, sigma):
        found.append((clip, sigma, noise, plain(bench, clip, logits, noise, sigma)))
        return found[-1][-1]

    monkeypatch.setattr(judging, "smoothness", spy)
    assert adversarial.train_step(run, run.config, adversary, drawer)["penalty"] == 0.0 and found == []
    run.step = 1
    figures = adversarial.train_step(run, run.config, adversary, drawer)
    assert [clip for clip, *_ in found] == [seen[1].real, seen[1].fake] and {sigma for _, sigma, *_ in found} == {0.1}
    assert figures["penalty"] == pytest.approx(sum(value.item() for *_, value in found))
    assert found[0][2].std() == pytest.approx(1.0, abs=0.15) and not torch.equal(found[0][2], found[1][2])


def test_the_penalty_weighs_what_it_should(config, tmp_path):
    """The judge's gradient is that of loss + penalty x every x smoothness: linear in the penalty."""

    def gradient(**changes):
        run, adversary, _ = adversarial.open_stage(dataclasses.replace(config, **changes), tmp_path / str(changes))
        batch = run.draw()
        run.step = run.config.penalty_every - 1
        real, fake = Clip.real(batch), Clip(batch.target.flip(0), batch.recycled, batch.actions, batch.rays)
        generator = step_generator(0, 0)
        pair = Pair(real, fake, torch.rand(2, generator=generator))
        judging.update_judge(run, run.config, adversary, [pair], generator)
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
    run, adversary, drawer = adversarial.open_stage(config, tmp_path)
    adversarial.train_step(run, config, adversary, drawer)
    assert [call.fake.frames.shape[1] for call in seen] == [5, 7, 7]
    assert joined == [(False, False), (False, True)] * 2  # as D is shown it, and again with G's gradient
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


# --- an update of several batches, another grid, logits that do not drift ---------------------------------------------
def after_a_step(config, folder):
    """Both networks' gradients and the figures of one step."""
    run, adversary, drawer = adversarial.open_stage(config, folder)
    figures = adversarial.train_step(run, config, adversary, drawer)
    nets = {"maker": run.dit, "judge": adversary.judge}
    grads = {name: [p.grad.flatten() for p in net.parameters() if p.grad is not None] for name, net in nets.items()}
    return {name: torch.cat(found) for name, found in grads.items()}, figures


@pytest.mark.parametrize("changes", [{}, {"segments": 2, "anchor": 1.0, "grid_shift": True, "centring": 0.1}], ids=str)
def test_two_batches_of_an_update_are_one_of_twice_the_size(config, make_world, tmp_path, changes):
    """Without pictures on the way, whose bytes are rounded by the last digits, and with updates of next to no size."""
    config = dataclasses.replace(config, lr=1e-9, start=str(make_world(reproject=False)), **changes)
    parted = after_a_step(dataclasses.replace(config, batch=2, accumulate=2), tmp_path / "parted")
    whole = after_a_step(dataclasses.replace(config, batch=4), tmp_path / "whole")
    half = after_a_step(dataclasses.replace(config, batch=2), tmp_path / "half")
    for name, value in whole[1].items():  # motion and grid are shares: a mean of two is not the share of the sums
        near = 5e-2 if name in ("motion", "grid") else 1e-3
        assert parted[1][name] == pytest.approx(value, rel=near, abs=1e-4), name
    for name, value in whole[0].items():
        unlike = [(other[0][name] - value).norm() / value.norm() for other in (parted, half)]
        assert unlike[0] < 1e-3 and unlike[1] > 0.1, name


def test_a_grid_shift_moves_pairs_alike_and_by_half_a_patch(config, tmp_path, seen):
    config = dataclasses.replace(config, grid_shift=True, accumulate=4)
    run, adversary, drawer = adversarial.open_stage(config, tmp_path)
    given, forward = [], adversary.judge.forward
    adversary.judge.forward = lambda *args: given.append(args[-1]) or forward(*args)
    for step in range(3):
        run.step = step
        adversarial.train_step(run, config, adversary, drawer)
    drawn = torch.cat([pair.shift for call in seen for pair in call.pairs])
    assert drawn.shape == (24, 2) and set(drawn.unique().tolist()) == {0, run.dit.config.patch // 2}
    assert all(0.2 < share < 0.8 for share in (drawn > 0).float().mean(0).tolist())
    expected = [[pair.shift] * 4 for pair in seen[0].pairs] + [[pair.shift] * 2 for pair in seen[0].pairs]
    assert all(one is other for one, other in zip(given, itertools.chain(*expected), strict=False))
    run, adversary, drawer = adversarial.open_stage(dataclasses.replace(config, grid_shift=False), tmp_path / "plain")
    adversarial.train_step(run, run.config, adversary, drawer)
    assert [pair.shift for pair in seen[-1].pairs] == [None] * 4


def test_centring_draws_the_logits_back(config, tmp_path):
    """Logits that stand at 5 on both sides come towards 0, and without centring stay there."""
    ends = {}
    for centring in (0.0, 1.0):
        changed = dataclasses.replace(config, centring=centring, penalty=0.0, judge_lr=1e-2)
        run, adversary, drawer = adversarial.open_stage(changed, tmp_path / str(centring))
        with torch.no_grad():
            adversary.judge.logit.bias.fill_(5.0)
        for group in run.optimisers[0].param_groups:
            group["lr"] = 0.0
        for _ in range(6):
            adversarial.train_step(run, changed, adversary, drawer)
        ends[centring] = adversary.judge.logit.bias.item()
    assert ends[1.0] < ends[0.0] - 0.02 and ends[0.0] == pytest.approx(5.0, abs=1e-2)
