"""What stages 1 and 2 share: a stop is no interruption, a broken loss keeps the snapshot, misfits are sentences."""

import copy
import dataclasses
import json
import shutil

import pytest
import torch

from controls.errors import UserError
from generator.checkpoint import load_weights
from generator.config import PRESETS
from generator.data.encoding import encode_dataset
from generator.data.latents import tokenizer_hash
from generator.training import adaptation, consistency, dit_run
from generator.training.adaptation import AdaptationTraining
from generator.training.consistency import ConsistencyTraining
from generator.training.dit_run import corrupt_history
from generator.training.helpers import load_resume, save_tensors, step_generator
from generator.training.metrics import read_metrics
from generator.training.tokenizer import load_tokenizer


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.fixture
def stage(request, latents, tokenizer_run, parallax_run, world_folder):
    """(module, settings) of the stage that a test names; every step is saved but the first."""
    shared = {
        "latents": str(latents),
        "tokenizer": str(tokenizer_run),
        "parallax": str(parallax_run),
        "preset": "debug",
        "steps": 4,
        "batch": 2,
    }
    shared |= {"frames": 5, "warmup": 2, "bf16": False, "device": "cpu", "snapshot_minutes": 0.0}
    if request.param == "adaptation":
        return adaptation, AdaptationTraining(**shared)
    # with seed 8 both of its losses come before step 2 and again after it
    return consistency, ConsistencyTraining(**shared, start=str(world_folder), seed=8)


both = pytest.mark.parametrize("stage", ["adaptation", "consistency"], indirect=True)


def trained(folder) -> dict[str, torch.Tensor]:
    """Every tensor that a run's future depends on, by name, and its step."""
    found = {}

    def walk(tree, name):
        if isinstance(tree, dict):
            for key, value in tree.items():
                walk(value, f"{name}.{key}")
        elif isinstance(tree, list):
            for number, value in enumerate(tree):
                walk(value, f"{name}.{number}")
        elif isinstance(tree, torch.Tensor):
            found[name] = tree

    state = load_resume(folder / "resume.safetensors")
    walk(state, "run")
    return found | {"step": torch.tensor(state["step"])}


@both
@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_two_steps_a_stop_and_the_same_command_are_four_steps(stage, tmp_path, monkeypatch, bf16):
    module, config = stage
    config = dataclasses.replace(config, bf16=bf16, log_every=1)
    module.train(config, tmp_path / "whole", quiet=True)

    keep = module.keep

    def killed(run, teacher, done=False):
        if run.step == 3:
            raise Killed
        keep(run, teacher, done)

    monkeypatch.setattr(module, "keep", killed)
    with pytest.raises(Killed):
        module.train(config, tmp_path / "parts", quiet=True)
    monkeypatch.undo()
    assert trained(tmp_path / "parts")["step"] == 2
    module.train(config, tmp_path / "parts", quiet=True)

    whole, parts = trained(tmp_path / "whole"), trained(tmp_path / "parts")
    assert whole.keys() == parts.keys() and len(whole) > 100
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []
    one, other = (load_weights(tmp_path / name / "snapshot") for name in ("whole", "parts"))
    assert one.hash == other.hash
    losses = [
        [{k: v for k, v in row.items() if k != "minutes"} for row in read_metrics(tmp_path / name / "metrics.jsonl")]
        for name in ("whole", "parts")
    ]
    assert losses[0] == losses[1]
    if module is consistency:
        assert [name for row in losses[0] for name in row if name in ("consistency", "own_history")] == [
            "own_history", "consistency", "own_history", "consistency"
        ]  # fmt: skip


@both
def test_a_run_leaves_what_others_read(stage, tmp_path):
    module, config = stage
    run = module.train(config, tmp_path, quiet=True)
    weights = load_weights(tmp_path / "snapshot")
    assert weights.config == run.world and weights.config.stage == module.__name__.split(".")[-1]
    manifest = json.loads((tmp_path / "snapshot" / "config.json").read_text())
    assert manifest["notes"]["step"] == 4 and manifest["notes"]["training"]["batch"] == 2
    for name, value in weights.dit.state_dict().items():
        torch.testing.assert_close(value, run.ema.weights[name], atol=1e-6, rtol=1e-2)
    assert {"metrics.png", "metrics.jsonl", "training.json", "sheet-000004.png"} <= {p.name for p in tmp_path.iterdir()}
    assert not list(tmp_path.rglob("*.part")) and not list(tmp_path.rglob("*.tmp"))


@both
def test_a_finished_run_does_nothing_more(stage, tmp_path):
    module, config = stage
    module.train(config, tmp_path, quiet=True)
    before = trained(tmp_path)
    module.train(config, tmp_path, quiet=True)
    assert all(torch.equal(value, before[name]) for name, value in trained(tmp_path).items())


@both
def test_every_parameter_moves(stage, tmp_path):
    module, config = stage
    before = dit_run.open_run(config, tmp_path / "untouched", "test").dit.state_dict()
    run = module.train(config, tmp_path / "run", quiet=True)
    assert [n for n, p in run.dit.named_parameters() if torch.equal(p, before[n])] == []


@both
def test_a_loss_that_breaks_keeps_the_last_snapshot(stage, tmp_path, monkeypatch):
    module, config = stage
    draw = dit_run.DiTRun.draw

    def broken(run, use="batch"):
        batch = draw(run, use)
        if run.step == 3:
            batch.target[0, 0, 0, 0, 0] = float("nan")
        return batch

    monkeypatch.setattr(dit_run.DiTRun, "draw", broken)
    with pytest.raises(UserError, match="not finite at step 3") as caught:
        module.train(config, tmp_path, quiet=True)
    assert "\n" not in str(caught.value)
    kept = trained(tmp_path)
    assert kept["step"] == 3 and all(value.isfinite().all() for value in kept.values())
    assert all(v.isfinite().all() for v in load_weights(tmp_path / "snapshot").dit.state_dict().values())


@both
def test_foreign_latents_are_refused(stage, tmp_path, latents):
    module, config = stage
    foreign = tmp_path / "latents"
    shutil.copytree(latents, foreign)
    meta = json.loads((foreign / "meta.json").read_text())
    (foreign / "meta.json").write_text(json.dumps({**meta, "tokenizer": "0" * 64}))
    with pytest.raises(UserError, match="another tokenizer"):
        module.train(dataclasses.replace(config, latents=str(foreign)), tmp_path / "run", quiet=True)


def test_a_world_goes_on_with_another_tokenizer_and_window(
    world_folder, data_set, tiny_vae, tiny_parallax, parallax_run, tmp_path
):
    """Latents of a newer tokenizer: weights begin from the old world, and the run's world holds the new one."""
    vae = copy.deepcopy(tiny_vae)
    vae.encoder.stem.conv.weight.data *= 1.1
    newer = tmp_path / "tokenizer"
    save_tensors(
        newer / "tokenizer.safetensors", vae.state_dict(), {"kind": "tokenizer", "config": vae.config.to_dict()}
    )
    encode_dataset(load_tokenizer(newer), data_set, tmp_path / "latents", torch.float32, True, tiny_parallax)
    config = AdaptationTraining(
        latents=str(tmp_path / "latents"), tokenizer=str(newer), parallax=str(parallax_run), start=str(world_folder),
        preset="debug", steps=1, batch=2, frames=5, window=5, bf16=False, device="cpu",
    )  # fmt: skip
    run = dit_run.open_run(config, tmp_path / "run", "adaptation")
    begun = load_weights(world_folder)
    assert tokenizer_hash(run.tokenizer) == tokenizer_hash(vae) != tokenizer_hash(begun.tokenizer)
    assert run.world.dit.window == 5 and begun.config.dit.window == 3
    for name, value in run.dit.state_dict().items():
        assert torch.equal(value, begun.dit.state_dict()[name]), name
    adaptation.train(config, tmp_path / "run", quiet=True)
    made = load_weights(tmp_path / "run" / "snapshot")
    assert tokenizer_hash(made.tokenizer) == tokenizer_hash(vae) and made.config.dit.window == 5
    with pytest.raises(UserError, match="window of -1"):
        dit_run.open_run(dataclasses.replace(config, window=-1), tmp_path / "other", "adaptation")


@both
def test_misfits_are_sentences(stage, tmp_path):
    module, config = stage
    for changes, words in (
        ({"latents": str(tmp_path / "none")}, "latents"),
        ({"steps": 0}, "no end"),
        ({"frames": 18}, "frames=17"),
        ({"preset": "tiny"}, "Unknown preset"),
        ({"start": str(tmp_path / "none")}, "no weights"),
    ):
        with pytest.raises(UserError, match=words):
            module.train(dataclasses.replace(config, **changes), tmp_path / "run", quiet=True)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be made"):
        module.train(config, tmp_path / "file", quiet=True)


@pytest.mark.parametrize("stage", ["adaptation"], indirect=True)
def test_a_run_of_another_model_is_refused(stage, tmp_path, monkeypatch):
    module, config = stage
    with pytest.raises(UserError, match="preset"):
        module.train(dataclasses.replace(config, preset="pocket"), tmp_path / "pocket", quiet=True)
    module.train(dataclasses.replace(config, steps=2), tmp_path / "run", quiet=True)
    monkeypatch.setitem(PRESETS["debug"]["dit"], "depth", 3)
    with pytest.raises(UserError, match="another model"):
        module.train(config, tmp_path / "run", quiet=True)
    (tmp_path / "run" / "resume.safetensors").write_bytes(b"half")
    with pytest.raises(UserError, match="resume"):
        module.train(config, tmp_path / "run", quiet=True)


@pytest.mark.parametrize("stage", ["consistency"], indirect=True)
def test_consistency_needs_a_teacher(stage, tmp_path):
    module, config = stage
    with pytest.raises(UserError, match="--start"):
        module.train(dataclasses.replace(config, start=""), tmp_path, quiet=True)


@pytest.mark.parametrize("stage", ["adaptation"], indirect=True)
def test_stage_two_begins_where_stage_one_ended(stage, tmp_path):
    module, config = stage
    first = module.train(dataclasses.replace(config, steps=2), tmp_path / "one", quiet=True)
    config = ConsistencyTraining(
        latents=config.latents, start=str(tmp_path / "one" / "snapshot"), preset="debug", steps=1, frames=4, batch=2
    )
    second = consistency.train(config, tmp_path / "two", quiet=True)
    assert second.world.shift == first.world.shift and second.world.dit == first.world.dit
    assert second.world.tokenizer == first.world.tokenizer


def test_history_noise_spares_half_of_the_clips():
    clean = torch.zeros(400, 2, 1, 1, 1)
    noisy = corrupt_history(clean, 0.5, step_generator(0, 0))
    touched = noisy.flatten(1).any(1).float().mean().item()
    assert touched == pytest.approx(0.5, abs=0.1)
    assert corrupt_history(clean, 0.0, step_generator(0, 0)) is clean
