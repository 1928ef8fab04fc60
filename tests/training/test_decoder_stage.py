"""The decoder stage: only the decoder learns, on guesses and on the truth, and two steps and two more are four."""

import copy
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from controls.errors import UserError
from generator.checkpoint import load_weights
from generator.data.latents import tokenizer_hash
from generator.training import decoder
from generator.training.critics import Critics, balance, paired, update_critics
from generator.training.decoder import DecoderTraining, cut, open_decoder_run, real_pictures, train
from generator.training.helpers import split_optimisers

pytestmark = pytest.mark.usefixtures("plain_distance")


def learned(folder):
    """What a run has made, by name."""
    made = load_weights(folder / "snapshot")
    return made.tokenizer.decoder.state_dict() | made.dit.state_dict()


@pytest.fixture
def config(latents, data_set, world_folder):
    return DecoderTraining(
        latents=str(latents), data=str(data_set), start=str(world_folder), preset="debug", steps=4, batch=2, frames=3,
        own=0.5, rounds=1, reuse=1, crop=(2, 3), pictures=3, bf16=False, device="cpu", log_every=1,
    )  # fmt: skip


def test_only_the_decoder_learns(config, tmp_path):
    before = load_weights(Path(config.start))
    run = train(config, tmp_path / "run", quiet=True)
    after = load_weights(tmp_path / "run" / "snapshot")
    assert tokenizer_hash(after.tokenizer) == tokenizer_hash(before.tokenizer)
    for name, value in after.dit.state_dict().items():
        assert torch.equal(value, before.dit.state_dict()[name]), name
    old = before.tokenizer.decoder.state_dict()
    unmoved = [n for n, v in after.tokenizer.decoder.named_parameters() if torch.equal(v, old[n])]
    assert unmoved == []
    assert after.config.stage == before.config.stage and after.parallax is not None
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    kinds = {name for row in rows for name in row if name in ("l1", "own_l1")}
    assert kinds == {"l1", "own_l1"} and run.step == 4


def test_the_transformer_learns_with_it_when_it_may(config, tmp_path):
    config = dataclasses.replace(config, own=1.0, maker=1e-3, maker_muon=1e-3)
    before = load_weights(Path(config.start))
    run = train(config, tmp_path / "run", quiet=True)
    after = load_weights(tmp_path / "run" / "snapshot")
    assert tokenizer_hash(after.tokenizer) == tokenizer_hash(before.tokenizer)
    old = before.dit.state_dict()
    assert [n for n, p in run.dit.named_parameters() if torch.equal(p, old[n])] == []
    assert not torch.equal(after.dit.out.weight, before.dit.out.weight)


def test_without_a_share_no_critic_looks_or_learns(config, tmp_path):
    config = dataclasses.replace(config, critic=0.0, own_critic=0.0)
    run = train(config, tmp_path / "run", quiet=True)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    seen = {name.removeprefix("own_") for row in rows for name in row}
    assert "lpips" in seen and not seen & {"deceit", "critic"} and run.step == 4


def test_punished_critics_win_by_less(config, tmp_path):
    """On the same pictures over and over, a penalty leaves a smaller gap, and it comes on every so-manieth step."""
    made = open_decoder_run(config, tmp_path / "run")
    real = torch.rand(3, 3, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    gaps = {}
    for penalty in (0.0, 300.0):
        torch.manual_seed(0)
        made.critics.load_state_dict(Critics().state_dict())
        made.config, made.run.step = dataclasses.replace(config, penalty=penalty, penalty_every=2), 0
        made.critic_optimisers[:] = split_optimisers(made.critics.named_parameters(), 2e-3, betas=(0.5, 0.99))
        given = []
        for _ in range(30):
            parts = update_critics(made.critics, made.critic_optimisers, made.config, made.run.step, real, -real)
            given.append("penalty" in parts)
            made.run.step += 1
        assert given == [bool(penalty) and k % 2 == 1 for k in range(30)]
        with torch.no_grad():
            gaps[penalty] = paired(lambda a, b: (a - b).mean(), made.critics(real), made.critics(-real)).item()
    assert 0 < gaps[300.0] < 0.7 * gaps[0.0]


def test_the_balance_makes_both_losses_pull_alike(tiny_vae):
    """Of the last layer's gradients: with a share of 1 the second is as strong as the first."""
    vae = copy.deepcopy(tiny_vae).requires_grad_(True)
    shown = vae.decode(torch.randn(1, 2, 8, 4, 4, generator=torch.Generator().manual_seed(0)))
    one, other = shown.abs().mean(), 1e-3 * (shown - 1).square().mean()
    last = vae.decoder.head.conv.weight
    share = balance(one, other, last)
    sizes = [torch.autograd.grad(v, last, retain_graph=True)[0].norm().item() for v in (one, share * other)]
    assert not share.requires_grad and sizes[0] == pytest.approx(sizes[1], rel=1e-4)


@pytest.mark.parametrize(("own", "maker"), [(0.0, 0.0), (1.0, 0.0), (1.0, 1e-3)])
def test_two_steps_and_two_more_are_four(config, tmp_path, own, maker):
    """Histories are drawn anew after a stop, so guesses are compared with one round, used once; the rate is level."""
    config = dataclasses.replace(config, own=own, maker=maker, maker_muon=maker, hold=1.0)
    train(config, tmp_path / "whole", quiet=True)
    run_two = dataclasses.replace(config, steps=2)
    train(run_two, tmp_path / "parts", quiet=True)
    short = open_decoder_run(run_two, tmp_path / "parts")
    assert short.run.step == 2 and short.ema.updates == 2
    one = learned(tmp_path / "whole")
    train(config, tmp_path / "parts", quiet=True)
    two = learned(tmp_path / "parts")
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_a_teacher_learns_on_beside_the_one_call(config, tmp_path):
    """The bug: after this stage more network calls looked worse, since nothing else than t = 1 had been taught."""
    config = dataclasses.replace(config, own=1.0, maker=1e-3, maker_muon=1e-3, teach=1.0)
    train(config, tmp_path / "run", quiet=True)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < row["own_teacher"] < 10 and row["own_teacher"] != row["own_error"] for row in rows)
    made = open_decoder_run(config, tmp_path / "other")
    errors = decoder.draw(made, np.random.default_rng(0), True)[3]
    errors["teacher"].backward()
    assert sum(float(p.grad.abs().sum()) for p in made.run.dit.parameters() if p.grad is not None) > 0


@pytest.mark.parametrize("resident", [False, True])
def test_pictures_belong_to_their_latents(config, tmp_path, resident):
    config = dataclasses.replace(config, resident=resident)
    made = open_decoder_run(config, tmp_path)
    batch = made.run.clips.gather([(0, 2), (1, 5)], 3)
    video = real_pictures(made, batch, 3)
    for row, (clip, start) in zip(video, batch.places, strict=True):
        frames = made.recorded.data.clip(made.recorded.clips[clip]).frames(4 * start, 9)
        assert np.array_equal(((row + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy(), frames)


def test_a_crop_is_of_the_same_place():
    rows = torch.arange(10.0)[:, None].expand(10, 16)
    latents = rows.expand(2, 3, 4, 10, 16)
    video = rows.repeat_interleave(16, 0).repeat_interleave(16, 1).expand(2, 9, 3, 160, 256)
    small, large, _ = cut(latents, video, (6, 8), 16, np.random.default_rng(0))
    assert small.shape == (2, 3, 4, 6, 8) and large.shape == (2, 9, 3, 96, 128)
    assert torch.equal(small[:, 0, 0, :, 0], large[:, 0, 0, ::16, 0])
    assert cut(latents, video, (20, 20), 16, np.random.default_rng(0))[0].shape == latents.shape


def test_misfits_are_sentences(config, tmp_path, data_set):
    other = tmp_path / "other"
    shutil.copytree(data_set, other)
    meta = json.loads((other / "meta.json").read_text())
    (other / "meta.json").write_text(json.dumps({**meta, "seed": 9}))
    for changes, words in (
        ({"start": ""}, "--start"),
        ({"crop": (0, 3)}, "crop"),
        ({"data": str(other)}, "one data set"),
        ({"data": str(tmp_path / "none")}, "No data set"),
    ):
        with pytest.raises(UserError, match=words):
            train(dataclasses.replace(config, **changes), tmp_path / "run", quiet=True)


def test_several_processes_are_refused(config, tmp_path, monkeypatch):
    """Each would train a decoder of its own."""
    monkeypatch.setattr(decoder, "launched", lambda: (0, 2))
    with pytest.raises(UserError, match="without torchrun"):
        train(config, tmp_path / "run", quiet=True)
