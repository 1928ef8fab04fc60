"""LD3 on the whole teacher: its history is play's, its pictures are the decoder's, and a stop is no interruption."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import pytest
import torch

import run
from controls.errors import UserError
from generator.checkpoint import load_weights, save_weights
from generator.data.latents import LatentClips
from generator.model.sampler_file import LearnedSampler, load_sampler, save_sampler
from generator.samplers.generalised import Fit, curve_times
from generator.samplers.learned_times import Learner
from generator.samplers.sampler import FLOW, Sampler
from generator.samplers.schedule import mix
from generator.training import learn_times
from generator.training.helpers import load_tensors
from generator.training.teacher_pairs import Eyes, make_context
from generator.training.times_methods import TimesTraining


@pytest.fixture(scope="module")
def settings(world_folder, latents, tmp_path_factory):
    """A quick run: hard objective in latents."""
    folder = tmp_path_factory.mktemp("times")
    return TimesTraining(
        weights=str(world_folder), latents=str(latents), run=str(folder / "run"), out=str(folder / "grid.yaml"),
        distance="l2", nfe=3, pairs=4, held=3, history=2, teacher_steps=8, soft=False, grid_rounds=1, both_rounds=1,
        batch=2, device="cpu", fitted=False,
    )  # fmt: skip


@pytest.fixture
def fresh(settings, tmp_path):
    """The same settings in a folder of their own."""
    return dataclasses.replace(settings, run=str(tmp_path / "run"), out=str(tmp_path / "grid.yaml"))


@pytest.fixture(scope="module")
def context(make_dit, latents):
    return make_context(LatentClips(latents, "train"), make_dit(), 3, 4, seed=1, use="test")


@torch.no_grad()
def test_the_history_is_that_of_the_rolling_cache(make_dit, context):
    """What the solver hears is what play's cache of that grid point makes of the same past."""
    dit, index, batch = make_dit(), torch.tensor([2, 0]), context.batch
    for time in (1.0, 0.7, 0.05):
        t = torch.tensor(time, dtype=torch.float64)
        x = torch.randn(2, *batch.target.shape[2:], generator=torch.Generator().manual_seed(3))
        cache, frames = dit.new_cache(2), batch.target.shape[1]
        clip = torch.cat([mix(batch.target[index], context.noise[index], t.expand(2))[:, :-1], x[:, None]], 1)
        for k in range(frames):
            given = (v[index, k] for v in (batch.recycled, batch.actions, batch.rays))
            recycled, actions, rays = given
            stepped = dit.step(clip[:, k], recycled, t.float().expand(2), actions, rays, cache, k)
        torch.testing.assert_close(context.network(dit, index)(x, t), stepped, atol=1e-5, rtol=1e-5)


def test_gradients_reach_time_and_noise(make_dit, context):
    dit, index = make_dit().double(), torch.tensor([1])
    wide = dataclasses.replace(context, noise=context.noise.double())
    wide.batch.target = wide.batch.target.double()
    network = wide.network(dit, index)
    x, t = wide.noise[index, -1].clone().requires_grad_(), torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    slopes = torch.autograd.grad(network(x, t).square().sum(), (x, t))
    with torch.no_grad():
        ends = [network(x, t + d).square().sum() for d in (1e-4, -1e-4)]
    assert float(slopes[1]) == pytest.approx(float(ends[0] - ends[1]) / 2e-4, rel=1e-2)  # time features are float32
    assert slopes[0].abs().max() > 0


def test_eyes_see_what_the_decoder_makes_of_the_whole_clip(tiny_vae, latents):
    batch = LatentClips(latents, "train").gather([(0, 1), (1, 4)], 3)
    whole = tiny_vae.decode(tiny_vae.denormalise(torch.cat([batch.first[:, None], batch.target], 1)))
    seen = Eyes(tiny_vae, batch)(batch.target[[1, 0], -1], torch.tensor([1, 0]))
    torch.testing.assert_close(seen, whole[[1, 0]][:, -3::2], atol=1e-5, rtol=1e-5)
    latent = batch.target[:1, -1].clone().requires_grad_()
    Eyes(tiny_vae, batch)(latent, torch.tensor([0])).sum().backward()
    assert latent.grad is not None and latent.grad.abs().max() > 0


@pytest.fixture(scope="module")
def smooth_folder(world_folder, tmp_path_factory):
    """The tiny world, deaf to fast changes of t as a trained one is; random weights are mostly those."""
    weights, folder = load_weights(world_folder), tmp_path_factory.mktemp("smooth")
    heard = weights.dit.conditioner.time[0].weight
    with torch.no_grad():
        heard.view(len(heard), 2, -1)[:, :, heard.shape[1] // 6 :] = 0  # cosines, then sines, slow ones first
    save_weights(folder, weights.config, weights.tokenizer, weights.dit.state_dict(), parallax=weights.parallax)
    return folder


def test_what_is_learned_is_written_and_beats_what_it_began_from(fresh, smooth_folder):
    config = dataclasses.replace(fresh, weights=str(smooth_folder), grid_rounds=4, both_rounds=2)
    learned = learn_times.train(config, quiet=True)
    back = load_sampler(Path(fresh.out), load_weights(smooth_folder).hash)
    assert torch.equal(back.sampler.times, learned.sampler.times) and back.sampler.nfe == 3
    hand_made = {name: loss for name, loss in learned.losses.items() if name != "learned"}
    assert set(hand_made) == {"uniform", "shifted", "half_shifted", "quadratic", "log_snr", "edm"}
    assert learned.losses["learned"] < 0.99 * min(hand_made.values()) and len(learned.curve) == 12


@pytest.mark.parametrize(("name", "order", "nfe"), [("heun", 2, 4), ("dpmpp", 2, 3)])
def test_every_solver_learns_beside_every_grid(fresh, name, order, nfe):
    """With grids fitted to the solver and the teacher among those that it may begin from."""
    config = dataclasses.replace(fresh, fitted=True, solver=name, order=order, nfe=nfe, grid_rounds=1, both_rounds=0)
    learned = learn_times.train(config, quiet=True)
    assert {"gits", "dmn"} & set(learned.losses) == ({"gits"} if name == "heun" else {"gits", "dmn"})
    assert learned.sampler.nfe == nfe and learned.losses["learned"] <= 1.001 * min(learned.losses.values())


WAYS = {
    "soft": (Learner, {"soft": True}),
    "hard": (Learner, {"soft": False}),
    "gs": (Fit, {"solver": "gs", "updates": 5, "fit_batch": 2}),
    "curve": (Fit, {"curve": True, "updates": 5, "fit_batch": 2}),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_stop_is_no_interruption(fresh, tmp_path, monkeypatch, way):
    work, changes = WAYS[way]
    whole = dataclasses.replace(fresh, **changes, run=str(tmp_path / "whole"), out=str(tmp_path / "whole.yaml"))
    learn_times.train(whole, quiet=True)
    parts, advance, count = dataclasses.replace(fresh, **changes), work.advance, []

    def stopped(learner):
        if len(count) == 3:
            raise KeyboardInterrupt
        count.append(advance(learner))

    monkeypatch.setattr(work, "advance", stopped)
    with pytest.raises(KeyboardInterrupt):
        learn_times.train(parts, quiet=True)
    monkeypatch.setattr(work, "advance", advance)
    monkeypatch.setattr(learn_times, "solve_targets", None)  # the teacher's latents are kept
    learn_times.train(parts, quiet=True)
    ends = [load_tensors(Path(config.run) / "resume.safetensors")[0] for config in (whole, parts)]
    assert ends[0].keys() == ends[1].keys() and all(torch.equal(ends[0][k], ends[1][k]) for k in ends[0])
    assert Path(whole.out).read_text() == Path(parts.out).read_text()


class PlainDistance(torch.nn.Module):
    """Stands for LPIPS, whose weights a test machine may not have."""

    def forward(self, first, second):
        return (first - second).square().mean((1, 2, 3))


def test_lpips_learns_through_the_decoder_from_the_command_line(fresh, monkeypatch, capsys):
    """End to end: pictures are decoded, compared and differentiated, and the same command goes on."""
    monkeypatch.setattr(learn_times, "Lpips", PlainDistance)
    monkeypatch.setattr("torch.set_num_threads", lambda n: None)
    words = ["learn-times", "--weights", fresh.weights, "--latents", fresh.latents, "--out", fresh.out, "--nfe", "3"]
    for text in (
        "pairs=3", "held=2", "history=2", "teacher_steps=8", "grid_rounds=1", "both_rounds=1", "fitted=false",
        "device=cpu", f"run={fresh.run}",
    ):  # fmt: skip
        words += ["--set", text]
    assert run.main([*words, "--distance", "lpips"]) == 0
    shown, text = capsys.readouterr().out, Path(fresh.out).read_text()
    learned = load_sampler(Path(fresh.out), load_weights(Path(fresh.weights)).hash)
    assert "learned" in shown and learned.distance == "lpips" and len(learned.curve) == 6
    assert 0 < learned.losses["learned"] <= learned.losses["uniform"], "what is no better than the start is not chosen"
    assert len({trained for trained, _ in learned.curve}) > 2
    assert run.main([*words, "--distance", "lpips"]) == 0 and Path(fresh.out).read_text() == text
    assert run.main([*words, "--distance", "lpip"]) == 2 and "did you mean 'lpips'" in capsys.readouterr().err


def test_rates_are_in_units_of_the_loss_unless_it_is_lpips(fresh, monkeypatch):
    monkeypatch.setattr(learn_times, "Lpips", PlainDistance)
    plain = learn_times.open_times(fresh, str)
    assert plain.method.work.config.unit == min(plain.losses.values()) < 1
    lpips = dataclasses.replace(fresh, distance="lpips", run=fresh.run + "-lpips")
    assert learn_times.open_times(lpips, str).method.work.config.unit == 1.0


def test_gs_begins_from_a_grid_and_is_never_worse(fresh, smooth_folder, tmp_path):
    """Than the best that it may begin from, by validation; its file holds its corrections."""
    first = dataclasses.replace(fresh, weights=str(smooth_folder), out=str(tmp_path / "first.yaml"))
    begun = learn_times.train(first, quiet=True)
    again = dataclasses.replace(
        first, solver="gs", run=str(tmp_path / "gs"), out=fresh.out, begin=first.out, updates=20, fit_rate=5e-3,
    )  # fmt: skip
    learned = learn_times.train(again, quiet=True)
    back = load_sampler(Path(fresh.out), load_weights(smooth_folder).hash).sampler
    assert back.name == "gs" and back.nfe == 3 and back.label == learned.sampler.label
    assert float(back.corrections[0].abs().sum()) > 0 and float(back.corrections[1].triu(1).abs().sum()) == 0
    others = [loss for name, loss in learned.losses.items() if name != "learned"]
    assert "begun" in learned.losses and learned.losses["learned"] < min(others)
    assert learned.losses["begun as it is"] == pytest.approx(begun.losses["learned"])
    assert begun.sampler.name == "ipndm"
    with pytest.raises(UserError, match="has 3 intervals, not 4"):
        learn_times.train(dataclasses.replace(again, nfe=4, run=str(tmp_path / "other")), quiet=True)


def test_one_curve_is_learned_once_and_serves_every_number_of_calls(fresh, monkeypatch, tmp_path):
    config = dataclasses.replace(fresh, curve=True, updates=4, fit_batch=2, order=2)
    three = learn_times.train(config, quiet=True)
    monkeypatch.setattr(Fit, "advance", None)  # nothing is left to do
    five = learn_times.train(dataclasses.replace(config, nfe=5, out=str(tmp_path / "five.yaml")), quiet=True)
    assert (three.sampler.nfe, five.sampler.nfe) == (3, 5) and three.curve == five.curve and len(five.curve) == 4
    best = learn_times.open_times(config, str).method.work.best["logits"]
    assert torch.equal(five.sampler.times, curve_times(FLOW, "time", best, 5).detach())
    assert config.served == tuple(range(2, 11)) and dataclasses.replace(config, solver="heun").served == (4, 6, 8, 10)
    assert set(five.losses) == {"uniform", "shifted", "half_shifted", "quadratic", "log_snr", "edm", "learned"}


def test_minutes_end_a_run_and_more_minutes_go_on(fresh, monkeypatch):
    now = [0.0]
    budget = learn_times.Budget
    monkeypatch.setattr(learn_times, "Budget", lambda steps, minutes: budget(steps, minutes, lambda: now[0]))
    advance = Learner.advance
    monkeypatch.setattr(Learner, "advance", lambda learner: (advance(learner), now.append(now.pop() + 30.0)))
    assert len(learn_times.train(dataclasses.replace(fresh, minutes=1.0), quiet=True).curve) == 2
    assert len(learn_times.train(dataclasses.replace(fresh, minutes=1.0), quiet=True).curve) == 2
    assert len(learn_times.train(dataclasses.replace(fresh, minutes=1.5), quiet=True).curve) == 3


def test_a_run_of_other_settings_is_refused(settings, fresh):
    learn_times.train(fresh, quiet=True)
    with pytest.raises(UserError, match=r"holds a run with seed = 0; choose another folder"):
        learn_times.train(dataclasses.replace(fresh, seed=3), quiet=True)


def test_losses_that_are_not_finite_keep_the_best_so_far(fresh, world_folder, monkeypatch):
    calls, l2 = [], learn_times.l2
    monkeypatch.setattr(
        learn_times, "l2", lambda a, b: calls.append(0) or l2(a, b) * (math.nan if len(calls) > 9 else 1)
    )
    with pytest.raises(UserError, match=r"not finite .* holds the best grid before that"):
        learn_times.train(dataclasses.replace(fresh, both_rounds=9), quiet=True)
    assert load_sampler(Path(fresh.out), load_weights(world_folder).hash).sampler.nfe == 3
    assert not (Path(fresh.run) / "resume.safetensors").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"nfe": 1}, "1 network calls leave no time"),
        ({"nfe": 2}, "ipndm of order 3 needs at least 3"),
        ({"solver": "heun", "order": 2, "nfe": 2}, "one interval"),
        ({"nfe": 11}, "more than the 10 that play offers"),
        ({"minutes": -1.0}, "-1 minutes are no time"),
        ({"solver": "abacus"}, "no solver 'abacus'"),
        ({"distance": "lpip"}, "did you mean 'lpips'"),
        ({"teacher_steps": 3}, "teacher_steps = 3 is too few; give at least 4"),
        ({"pairs": 0}, "pairs = 0 is too few"),
        ({"updates": 0}, "updates = 0 is too few"),
        ({"rate": math.nan}, "rate = nan is no rate"),
        ({"solver": "gs", "order": 2}, "gs has no order 2; give 3"),
        ({"solver": "gs", "curve": True}, "One curve serves solvers without corrections"),
        ({"begin": "nowhere.yaml"}, "Cannot read"),
        ({"history": 99}, "give --set history=16 or less"),
        ({"weights": "nowhere"}, "nowhere"),
        ({"latents": "nowhere"}, "no readable latents"),
    ],
)
def test_settings_that_make_no_sense(fresh, changes, said):
    with pytest.raises(UserError, match=said):
        learn_times.train(dataclasses.replace(fresh, **changes), quiet=True)


@pytest.fixture
def one_call(world_folder, tmp_path):
    """Weights that make a frame in one call."""
    weights, folder = load_weights(world_folder), tmp_path / "one_call"
    config = dataclasses.replace(weights.config, stage="adversarial")
    save_weights(folder, config, weights.tokenizer, weights.dit.state_dict(), parallax=weights.parallax)
    return folder


BAD_INPUT = {
    "N < 2": (["--nfe", "1"], "1 network calls leave no time"),
    "order > N": (["--nfe", "3", "--order", "4"], "ipndm of order 4 needs at least 4 network calls, not 3"),
    "not monotone": (["--set", "begin=RISING"], "does not fall from each time to the next"),
    "foreign": (["--set", "begin=FOREIGN"], "belongs to the weights 'cdcd', not to"),
    "no such mode": (["--weights", "ONE_CALL"], "which makes a frame in one call"),
    "not finite": (["--set", "both_rounds=9"], "holds the best grid before that"),
}


@pytest.mark.parametrize("what", BAD_INPUT)
def test_bad_input_is_one_sentence_and_exit_code_2(what, fresh, one_call, tmp_path, capsys, monkeypatch):
    """The list of the issue, through the command line."""
    words, said = BAD_INPUT[what]
    calls, l2 = [], learn_times.l2
    if what == "not finite":
        broken = [1.0] * 20 + [math.nan] * 999
        monkeypatch.setattr(learn_times, "l2", lambda a, b: calls.append(0) or l2(a, b) * broken[len(calls)])
    times = torch.tensor([1.0, 0.7, 0.2, 0.0], dtype=torch.float64)
    learned = LearnedSampler(load_weights(Path(fresh.weights)).hash, Sampler("ipndm", 3, times, times), "l2", {}, [])
    for name, old, new in (("RISING", "0.7,", "0.1,"), ("FOREIGN", "weights: ", 'weights: "cdcd" # ')):
        save_sampler(tmp_path / name, learned)
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text.replace(old, new))
    given = ["learn-times", "--latents", fresh.latents, "--out", fresh.out, "--distance", "l2", "--nfe", "3"]
    for text in ("pairs=4", "held=2", "history=2", "teacher_steps=6", f"run={fresh.run}", "fitted=false", "device=cpu"):
        given += ["--set", text]
    places = {name: str(tmp_path / name) for name in ("RISING", "FOREIGN")} | {"ONE_CALL": str(one_call)}
    for word in ("--weights", fresh.weights, *words):
        for name, place in places.items():
            word = word.replace(name, place)
        given.append(word)
    assert run.main(given) == 2
    shown = capsys.readouterr().err.strip().splitlines()[-1]
    assert shown.startswith("farstep: ") and said in shown
    assert Path(fresh.out).exists() == (what == "not finite")


def test_weights_for_one_call_and_foreign_latents_are_refused(fresh, one_call, latents, tmp_path):
    strange = tmp_path / "latents"
    shutil.copytree(latents, strange)
    meta = json.loads((strange / "meta.json").read_text())
    (strange / "meta.json").write_text(json.dumps(meta | {"tokenizer": "other"}))
    with pytest.raises(UserError, match="another tokenizer"):
        learn_times.train(dataclasses.replace(fresh, latents=str(strange)), quiet=True)
    with pytest.raises(UserError, match="'adversarial', which makes a frame in one call"):
        learn_times.train(dataclasses.replace(fresh, weights=str(one_call)), quiet=True)
