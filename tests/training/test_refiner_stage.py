"""The refiner alone: what it learns from is what it is given in play, nothing else of the world changes."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from controls.action import Action
from controls.errors import UserError
from generator.checkpoint import load_weights
from generator.data.clips import Dataset
from generator.data.latents import PLAN
from generator.evaluation.walker import Walker
from generator.model.sampler_file import LearnedSampler, load_sampler, save_sampler
from generator.samplers.sampler import Sampler
from generator.training import refiner as stage
from generator.training.refiner import RefinerTraining, open_stage, train, walk
from generator.training.refiner_views import Views, long_enough, record, split

pytestmark = pytest.mark.usefixtures("plain_distance")


@pytest.fixture
def config(data_set, place_folder):
    return RefinerTraining(
        data=str(data_set), start=str(place_folder), steps=4, walks=2, held=1, frames=2, kept=2, recordings=1, batch=2,
        crop=(32, 32), bf16=False, device="cpu", log_every=1, hold=1.0,
    )  # fmt: skip


def networks(folder) -> dict[str, torch.Tensor]:
    found = load_weights(Path(folder))
    parts = {"tokenizer": found.tokenizer, "dit": found.dit, "parallax": found.parallax}
    return {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}


def test_only_the_refiner_learns(config, tmp_path):
    train(config, tmp_path / "run", quiet=True)
    before, after = networks(config.start), networks(tmp_path / "run" / "snapshot")
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {name for name in after if name.startswith("parallax.refiner.")}
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {"l1", "lpips", "deceit", "critic", "penalty", "held_lpips", "held_sharpness"} <= {
        n for r in rows for n in r
    }
    assert list((tmp_path / "run").glob("held-*.png"))


def test_it_may_get_used_to_more_samples_of_a_pixel(config, tmp_path):
    """The world that it writes has them, and what it learned from was made with them."""
    more = dataclasses.replace(config, samples=2)
    train(more, tmp_path / "run", quiet=True)
    made = load_weights(tmp_path / "run" / "snapshot")
    assert made.config.parallax.samples == made.parallax.config.samples == 2
    train(config, tmp_path / "other", quiet=True)
    assert load_weights(tmp_path / "other" / "snapshot").parallax.config.samples == 1
    known, other = (
        split(torch.from_numpy(np.array(Views(tmp_path / run / "held.npy").kept)))[0][3] for run in ("run", "other")
    )
    assert not torch.equal(known, other)
    with pytest.raises(UserError, match="samples = 3"):
        open_stage(dataclasses.replace(config, samples=3), tmp_path / "third")


def test_what_is_recorded_is_what_a_player_sees(data_set, place_folder, tmp_path):
    """One walk, every picture kept: the refiner's word on what was recorded is the picture that play shows."""
    weights, dataset = load_weights(place_folder), Dataset.open(data_set)
    clip, ticks = long_enough(dataset, "train", 2)[0], dataset.spec.ticks
    assert list(record(weights, dataset, [clip], 2, ticks, 3, tmp_path / "walks.npy", 1)) == [1]
    views, rng = Views(tmp_path / "walks.npy"), np.random.default_rng(3)
    read = dataset.clip(clip)
    begin = int(rng.integers(len(read.keys) - 2 * ticks))
    real = read.frames(begin, 1 + 2 * ticks)
    walker, shown = Walker(weights), []
    walker.reset(real[0], int(rng.integers(1 << 30)))
    for k in range(begin + 1, begin + 1 + 2 * ticks, ticks):
        walker.stand_at(read.pose[k - 1, PLAN])
        shown.append(walker.step(Action(read.keys[k : k + ticks], read.look[k : k + ticks])))
    given, recorded = split(torch.from_numpy(np.array(views.kept)))
    with torch.no_grad():
        made = weights.parallax.refiner(*given).clamp(-1, 1)
    bytes_of = ((made + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    assert np.array_equal(((recorded + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy(), real[1:])
    apart = np.abs(bytes_of.astype(int) - np.concatenate(shown).astype(int))
    assert apart.max() <= 4 and apart.mean() < 0.5  # what it was given was rounded to bytes


def test_learned_times_go_with_it(config, tmp_path):
    """What they were learned with is unchanged, but the hash is another one."""
    start = tmp_path / "start"
    shutil.copytree(config.start, start)
    times = torch.tensor([1.0, 0.6, 0.1, 0.0], dtype=torch.float64)
    (start / "times").mkdir()
    sampler = Sampler("ipndm", 3, times, times)
    learned = LearnedSampler(load_weights(start).hash, sampler, "lpips", {"learned": 0.1}, [(0.2, 0.1)])
    save_sampler(start / "times" / "nfe-3.yaml", learned)
    train(dataclasses.replace(config, start=str(start), steps=1), tmp_path / "run", quiet=True)
    snapshot = tmp_path / "run" / "snapshot"
    new = load_weights(snapshot).hash
    back = load_sampler(snapshot / "times" / "nfe-3.yaml", new)
    assert new != learned.weights and back.sampler.label == sampler.label and back.curve == learned.curve


def test_two_steps_and_two_more_are_four(config, tmp_path):
    train(config, tmp_path / "whole", quiet=True)
    train(dataclasses.replace(config, steps=2), tmp_path / "parts", quiet=True)
    train(config, tmp_path / "parts", quiet=True)
    one, two = (networks(tmp_path / name / "snapshot") for name in ("whole", "parts"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_later_recordings_are_of_the_world_as_it_is_then(config, tmp_path, monkeypatch):
    """The averaged refiner walks, not the one of the last snapshot."""
    at, walked = [], []

    def watched(run, number, bar):
        walk(run, number, bar)
        at.append((number, run.step))
        walked.append({name: value.clone() for name, value in run.weights.parallax.refiner.state_dict().items()})
        assert all(torch.equal(value, run.alone.ema.weights[name]) for name, value in walked[-1].items())

    monkeypatch.setattr(stage, "walk", watched)
    train(dataclasses.replace(config, recordings=2), tmp_path / "run", quiet=True)
    assert at == [(0, 0), (1, 2)] and not torch.equal(walked[0]["out.weight"], walked[1]["out.weight"])
    assert [len(Views(tmp_path / "run" / f"walks-{n}.npy")) for n in (0, 1)] == [2 * 2 * 2] * 2


def test_without_a_share_no_critic_looks(config, tmp_path):
    train(dataclasses.replace(config, critic=0.0), tmp_path / "run", quiet=True)
    assert "deceit" not in (tmp_path / "run" / "metrics.jsonl").read_text()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"start": ""}, "give the world with --start DIR"),
        ({"kept": 9}, "kept = 9 is 1 to 4"),
        ({"crop": (36, 32)}, "is two multiples of 8 from 32 on"),
        ({"frames": 999}, "lower --set frames"),
        ({"walks": 0}, "are 1 or more"),
    ],
)
def test_settings_that_make_no_sense(config, tmp_path, changes, said):
    with pytest.raises(UserError, match=said):
        open_stage(dataclasses.replace(config, **changes), tmp_path / "run")


def test_worlds_without_a_place_and_other_worlds_runs_are_refused(config, world_folder, make_world, tmp_path):
    with pytest.raises(UserError, match="is not one place or has no refiner"):
        open_stage(dataclasses.replace(config, start=str(world_folder)), tmp_path / "run")
    meta = json.loads((Path(config.data) / "meta.json").read_text())
    (other := tmp_path / "data").mkdir()
    (other / "clips").symlink_to(Path(config.data) / "clips")
    (other / "meta.json").write_text(json.dumps(meta | {"width": 2 * meta["width"]}))
    with pytest.raises(UserError, match="other pictures or keys"):
        open_stage(dataclasses.replace(config, data=str(other)), tmp_path / "run")
    train(dataclasses.replace(config, steps=1), tmp_path / "run", quiet=True)
    other = make_world(seed=3, place=True)
    with pytest.raises(UserError, match="began from other weights"):
        open_stage(dataclasses.replace(config, start=str(other)), tmp_path / "run")


def test_a_damaged_recording_is_a_sentence(config, tmp_path):
    run = open_stage(config, tmp_path / "run")
    (tmp_path / "run" / "walks-0.npy").write_bytes(b"no")
    with pytest.raises(UserError, match="no readable recording"):
        walk(run, 0)
