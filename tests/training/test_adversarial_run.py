"""Runs of stage 3: a stop is no interruption, failures keep the snapshot, misfits are sentences."""

import dataclasses
import itertools
import json
import math

import pytest
import torch

import run as command_line
from controls.errors import UserError
from generator.checkpoint import load_weights
from generator.training import adversarial, dit_run, watch
from generator.training.adversarial_settings import AdversarialTraining
from generator.training.helpers import load_resume, load_tensors
from generator.training.judging import rmsprop
from generator.training.metrics import read_metrics
from generator.training.segments import Drawer


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.fixture
def config(latents, tokenizer_run, world_folder) -> AdversarialTraining:
    """The settings of a tiny run; every step is saved but the first."""
    return AdversarialTraining(
        latents=str(latents), tokenizer=str(tokenizer_run), start=str(world_folder), preset="debug", steps=4, batch=2,
        frames=4, overlap=1, lr=1e-3, warmup=1, bf16=False, device="cpu", snapshot_minutes=0.0, least_motion=0.0,
        checkpointed=False,
    )  # fmt: skip


@pytest.fixture
def undrawn(monkeypatch):
    """Without pictures, which take longer than all else."""
    monkeypatch.setattr(dit_run, "draw_sheet", lambda run, teacher: None)
    monkeypatch.setattr(dit_run, "draw_metrics", lambda folder: None)


def trained(folder) -> dict[str, torch.Tensor]:
    """Every tensor and list that a run's future depends on, by name."""
    found = {}

    def walk(tree, name):
        if isinstance(tree, dict):
            for key, value in tree.items():
                walk(value, f"{name}.{key}")
        elif isinstance(tree, list) and not all(isinstance(value, float) for value in tree):
            for number, value in enumerate(tree):
                walk(value, f"{name}.{number}")
        elif isinstance(tree, torch.Tensor | list):
            found[name] = torch.as_tensor(tree)

    state = load_resume(folder / "resume.safetensors")
    walk(state, "run")
    return found | {"step": torch.tensor(state["step"])}


# --- runs -----------------------------------------------------------------------------------------------------------
RESUMED = {
    "fp32": {},
    "bf16-segments": {"bf16": True, "segments": 2, "frames": 2},
    "accumulated": {"accumulate": 2, "grid_shift": True, "centring": 0.1},
    "extended": {"extensions": (0, 1), "frames": 3},
}


@pytest.mark.parametrize("changes", RESUMED.values(), ids=RESUMED)
def test_two_steps_a_stop_and_the_same_command_are_four_steps(config, tmp_path, monkeypatch, undrawn, changes):
    config = dataclasses.replace(config, log_every=1, penalty_every=2, **changes)
    adversarial.train(config, tmp_path / "whole", quiet=True)
    keep = adversarial.keep

    def killed(run, teacher, done=False):
        if run.step == 3:
            raise Killed
        keep(run, teacher, done)

    monkeypatch.setattr(adversarial, "keep", killed)
    with pytest.raises(Killed):
        adversarial.train(config, tmp_path / "parts", quiet=True)
    assert trained(tmp_path / "parts")["step"] == 2
    monkeypatch.setattr(adversarial, "keep", keep)
    adversarial.train(config, tmp_path / "parts", quiet=True)

    whole, parts = trained(tmp_path / "whole"), trained(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []
    for begins in ("run.model.", "run.ema.w.", "run.optimisers.", "run.judge.", "run.judge_optimisers."):
        assert sum(name.startswith(begins) for name in whole) > 20, begins
    assert all(len(whole[f"run.watched.{name}"]) == 4 for name in ("motion", "grid", "saturated"))
    assert sum("square_avg" in name and value.abs().max() > 0 for name, value in whole.items()) > 60
    one, other = (load_tensors(tmp_path / name / "discriminator.safetensors")[0] for name in ("whole", "parts"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    losses = [
        [{k: v for k, v in row.items() if k != "minutes"} for row in read_metrics(tmp_path / name / "metrics.jsonl")]
        for name in ("whole", "parts")
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 4


def test_the_command_line_trains_and_leaves_what_others_read(config, tmp_path, capfd):
    words = ["train", "adversarial", "--preset", "debug", "--steps", "2", "--run", str(tmp_path)]
    words += ["--latents", config.latents, "--tokenizer", config.tokenizer, "--start", config.start]
    for setting in ("batch=2", "frames=3", "overlap=1", "segments=2", "bf16=false", "device=cpu", "lr=1e-4"):
        words += ["--set", setting]
    assert command_line.main(words) == 0
    snapshot = load_weights(tmp_path / "snapshot")
    assert snapshot.config.stage == "adversarial"
    manifest = json.loads((tmp_path / "snapshot" / "config.json").read_text())
    assert manifest["notes"]["step"] == 2 and manifest["notes"]["training"]["segments"] == 2
    left = {path.name for path in tmp_path.iterdir()}
    assert {"metrics.png", "metrics.jsonl", "training.json", "sheet-000002.png", "discriminator.safetensors"} <= left
    figures = read_metrics(tmp_path / "metrics.jsonl")[0]
    told = {"judge_loss", "maker_loss", "penalty", "gap", "saturated", "motion", "grid", "judge_norm", "maker_norm"}
    assert told <= figures.keys()
    assert not list(tmp_path.rglob("*.part"))
    state = load_resume(tmp_path / "resume.safetensors")
    for name, value in snapshot.dit.state_dict().items():
        torch.testing.assert_close(value, state["ema"][f"w.{name}"], atol=1e-6, rtol=1e-2)
    assert command_line.main(words) == 0
    assert json.loads((tmp_path / "snapshot" / "config.json").read_text())["hash"] == manifest["hash"]


def test_the_snapshot_is_the_average_and_starts_again(config, tmp_path, undrawn):
    adversarial.train(dataclasses.replace(config, steps=1), tmp_path / "one", quiet=True)
    again = dataclasses.replace(config, steps=1, start=str(tmp_path / "one" / "snapshot"), teacher=config.start)
    run = adversarial.train(again, tmp_path / "two", quiet=True)
    assert run.step == 1 and run.world.dit == load_weights(tmp_path / "one" / "snapshot").config.dit


# --- the discriminator's beginning ----------------------------------------------------------------------------------
def test_the_judge_begins_from_the_teacher(config, tmp_path, make_world):
    teacher = make_world(seed=3)
    run, adversary, _ = adversarial.open_stage(dataclasses.replace(config, teacher=str(teacher)), tmp_path)
    body = adversary.judge.body.state_dict()
    assert all(torch.equal(value, body[name]) for name, value in load_weights(teacher).dit.state_dict().items())
    assert not torch.equal(body["embed.weight"], run.dit.embed.weight)
    _, other, _ = adversarial.open_stage(config, tmp_path / "other")
    assert torch.equal(other.judge.body.embed.weight, run.dit.embed.weight)
    assert other.judge.body.embed.weight is not run.dit.embed.weight
    assert torch.equal(other.judge.queries[0].query, adversary.judge.queries[0].query), "heads come from the seed"


def test_a_run_can_begin_with_an_earlier_discriminator(config, tmp_path, undrawn, monkeypatch):
    adversarial.train(dataclasses.replace(config, steps=2), tmp_path / "one", quiet=True)
    left, meta = load_tensors(tmp_path / "one" / "discriminator.safetensors")
    assert meta["step"] == 2
    found = []

    def stand_in(config, folder):
        found.append((config, folder))

    args = ["--resume-discriminator-from", str(tmp_path / "one" / "discriminator.safetensors")]
    monkeypatch.setattr(adversarial, "train", stand_in)
    assert command_line.main(["train", "adversarial", "--steps", "1", "--start", config.start, *args]) == 0
    assert found[0][0].discriminator == args[1]
    begin = dataclasses.replace(config, discriminator=args[1])
    _, adversary, _ = adversarial.open_stage(begin, tmp_path / "two")
    judge = adversary.judge.state_dict()
    assert judge.keys() == left.keys() and all(torch.equal(value, judge[name]) for name, value in left.items())
    _, fresh, _ = adversarial.open_stage(config, tmp_path / "three")
    assert not torch.equal(fresh.judge.logit.weight, judge["logit.weight"])


def test_a_run_that_stalls_goes_on_with_an_earlier_discriminator(config, tmp_path, undrawn):
    adversarial.train(dataclasses.replace(config, steps=2, keep_every=1), tmp_path, quiet=True)
    earlier = tmp_path / "discriminator-000001.safetensors"
    left = load_tensors(earlier)[0]
    again = dataclasses.replace(config, steps=3, discriminator=str(earlier))
    run, adversary, _ = adversarial.open_stage(again, tmp_path)
    assert run.step == 2 and all(torch.equal(value, left[n]) for n, value in adversary.judge.state_dict().items())
    assert torch.equal(run.dit.embed.weight, load_resume(tmp_path / "resume.safetensors")["model"]["embed.weight"])
    assert not adversary.optimisers[0].state and adversary.watch.state()["motion"] == []
    adversarial.train(again, tmp_path, quiet=True)
    kept = load_tensors(tmp_path / "discriminator.safetensors")[0]
    for settings in (again, dataclasses.replace(again, discriminator="")):  # the same command, or none: no second time
        _, resumed, _ = adversarial.open_stage(settings, tmp_path)
        assert torch.equal(resumed.judge.logit.weight, kept["logit.weight"])
    assert not torch.equal(kept["logit.weight"], left["logit.weight"])


def test_a_stopped_run_leaves_its_discriminator_too(config, tmp_path, monkeypatch, undrawn):
    def stop(run, teacher, done=False):
        raise KeyboardInterrupt

    monkeypatch.setattr(adversarial, "keep", stop)
    with pytest.raises(KeyboardInterrupt):
        adversarial.train(config, tmp_path, quiet=True)
    tensors, meta = load_tensors(tmp_path / "discriminator.safetensors")
    assert meta["step"] == 1 == load_resume(tmp_path / "resume.safetensors")["step"] and len(tensors) > 20


# --- failures -------------------------------------------------------------------------------------------------------
def test_figures_that_break_keep_the_last_snapshot(config, tmp_path, monkeypatch, undrawn):
    draw = Drawer.rolled

    def broken(drawer):
        batches = draw(drawer)
        if drawer.run.step == 3:
            batches[0].target[0, 0, 0, 0, 0] = float("nan")
        return batches

    monkeypatch.setattr(Drawer, "rolled", broken)
    with pytest.raises(UserError, match=r"Step 3 gave no finite .*judge_loss.*--set lr=") as caught:
        adversarial.train(config, tmp_path, quiet=True)
    assert "\n" not in str(caught.value)
    kept = trained(tmp_path)
    assert kept["step"] == 3 and all(value.isfinite().all() for value in kept.values())
    judge, meta = load_tensors(tmp_path / "discriminator.safetensors")
    assert meta["step"] == 3 and all(value.isfinite().all() for value in judge.values())
    assert all(v.isfinite().all() for v in load_weights(tmp_path / "snapshot").dit.state_dict().values())


def test_a_world_that_stands_still_ends_the_run(config, tmp_path, monkeypatch, undrawn):
    monkeypatch.setattr(watch, "WATCHED", 3)
    motions = itertools.cycle([0.1, 1.0])  # of the rollout, of the real clip
    monkeypatch.setattr(adversarial, "motion_of", lambda frames: next(motions))
    with pytest.raises(UserError, match=r"0\.10 times .* over 3 steps.*--set least_motion=0") as caught:
        adversarial.train(dataclasses.replace(config, least_motion=0.15), tmp_path, quiet=True)
    assert "\n" not in str(caught.value) and "--resume-discriminator-from" in str(caught.value)
    assert trained(tmp_path)["step"] == 2 and len(trained(tmp_path)["run.watched.motion"]) == 2
    adversarial.train(dataclasses.replace(config, least_motion=0.0), tmp_path, quiet=True)
    assert trained(tmp_path)["step"] == 4


def test_what_was_best_is_kept(config, tmp_path, undrawn):
    run = adversarial.train(dataclasses.replace(config, keep_every=2), tmp_path, quiet=True)
    kept = sorted(path.name for path in tmp_path.glob("*-0*"))
    assert kept == [f"{what}-00000{step}{end}" for what, end in KEPT for step in (2, 4)]
    last = load_weights(tmp_path / "snapshot-000004").dit.state_dict()
    assert all(
        torch.equal(value, last[name]) for name, value in load_weights(tmp_path / "snapshot").dit.state_dict().items()
    )
    earlier = tmp_path / "discriminator-000002.safetensors"
    assert load_tensors(earlier)[1]["step"] == 2 and run.step == 4
    again = dataclasses.replace(config, discriminator=str(earlier), start=str(tmp_path / "snapshot-000002"))
    _, adversary, _ = adversarial.open_stage(dataclasses.replace(again, teacher=config.start), tmp_path / "again")
    assert torch.equal(adversary.judge.logit.weight, load_tensors(earlier)[0]["logit.weight"])


KEPT = (("discriminator", ".safetensors"), ("snapshot", ""))


MISFITS = {
    "start": ({"start": ""}, "--start DIR"),
    "no start": ({"start": "nowhere"}, "no weights in 'nowhere'"),
    "no teacher": ({"teacher": "nowhere"}, "no weights in 'nowhere'"),
    "teacher": ({"teacher": "DEEPER"}, "of another model"),
    "no discriminator": ({"discriminator": "nowhere"}, "nowhere is not a readable"),
    "discriminator": ({"discriminator": "JUDGE"}, "no discriminator of this model"),
    "overlap": ({"overlap": 4}, "overlap=4 is not between 0 and the segment's frames=4"),
    "negative overlap": ({"overlap": -1}, "overlap=-1"),
    "segments": ({"segments": 0}, "segments=0"),
    "sigma": ({"sigma": 0.0}, "sigma=0.0 .*--set sigma=0.1"),
    "sigma nan": ({"sigma": math.nan}, "sigma=nan"),
    "one frame": ({"frames": 1, "overlap": 0}, "frames=1"),
    "batch": ({"batch": 0}, "batch=0"),
    "accumulate": ({"accumulate": 0}, "accumulate=0 .*--set accumulate=1"),
    "still": ({"still": 1.5}, "still=1.5 .*--set still=0.1"),
    "still nan": ({"still": math.nan}, "still=nan"),
    "centring": ({"centring": -1.0}, "centring=-1.0 .*--set centring=0"),
    "penalty_every": ({"penalty_every": 0}, "penalty_every=0"),
    "forced": ({"forced": True, "segments": 2}, "forced=True .*--set segments=1"),
    "forced extended": ({"forced": True, "extensions": (0, 1)}, "forced=True .* no extensions"),
    "rounds": ({"rounds": -1}, "rounds=-1 .*--set rounds=0"),
    "rounds forced": ({"rounds": 2, "forced": True}, "rounds=2 .*--set forced=false"),
    "rounds extended": ({"rounds": 2, "extensions": (0, 1)}, "rounds=2 .* no extensions"),
    "extensions": ({"extensions": (0, -1)}, "extensions=0,-1 .*--set extensions=0,1,5"),
    "two schedules": ({"extensions": (0, 1), "segments": 2}, "extensions=0,1 .*segments=2; give one"),
    "clips and extension": ({"frames": 15, "overlap": 2, "extensions": (0, 1)}, "--set frames=14"),
    "clips": ({"frames": 18}, "frames=17"),
    "clips and overlap": ({"frames": 15, "overlap": 2, "segments": 2}, "--set frames=14"),
    "no end": ({"steps": 0}, "no end"),
}  # fmt: skip


@pytest.mark.parametrize("misfit", MISFITS)
def test_misfits_are_sentences(config, tmp_path, make_world, misfit):
    changes, words = MISFITS[misfit]
    deeper = make_world(depth=3) if "DEEPER" in changes.values() else None
    if "JUDGE" in changes.values():
        adversarial.save_tensors(tmp_path / "judge", {"logit.weight": torch.zeros(1)}, {})
    places = {"DEEPER": str(deeper), "JUDGE": str(tmp_path / "judge")}
    changes = {name: places.get(value, value) for name, value in changes.items()}
    with pytest.raises(UserError, match=words) as caught:
        adversarial.train(dataclasses.replace(config, **changes), tmp_path / "run", quiet=True)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_a_folder_of_another_stage_is_refused(config, tmp_path):
    run = dit_run.open_run(config, tmp_path, "test", lambda settings, dit: rmsprop(dit, settings.lr))
    dit_run.save_run(run)
    with pytest.raises(UserError, match="another stage"):
        adversarial.train(config, tmp_path, quiet=True)
