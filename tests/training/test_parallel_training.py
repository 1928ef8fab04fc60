"""Stages on several processes are the stages on one: weights, averages, the judge, and runs that go on."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from controls.errors import UserError
from generator.checkpoint import load_weights
from generator.training import adaptation, adversarial, consistency, dit_run, parallel
from generator.training.adaptation import AdaptationTraining
from generator.training.adversarial_settings import AdversarialTraining
from generator.training.consistency import ConsistencyTraining
from generator.training.parallel_tensors import wholes
from tests.processes import forks, together

WEIGHT = 2e-4  # largest difference of a weight after two steps whose rates move weights by 1e-3 and more
pytestmark = forks


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Without pictures, which take longer than all else."""
    monkeypatch.setattr(dit_run, "draw_sheet", lambda run, teacher: None)
    monkeypatch.setattr(dit_run, "draw_metrics", lambda folder: None)


@pytest.fixture
def shared(latents, tokenizer_run, parallax_run):
    """Settings of every stage; every step is saved but the first."""
    paths = {"latents": str(latents), "tokenizer": str(tokenizer_run), "parallax": str(parallax_run)}
    numbers = {"steps": 2, "batch": 4, "frames": 3, "warmup": 1, "snapshot_minutes": 0.0, "log_every": 1}
    return {**paths, **numbers, "preset": "debug", "bf16": False, "device": "cpu"}


@pytest.fixture
def stage(request, shared, world_folder, make_world):
    """(module, settings) of the stage that a test names.

    Stage 3 without a reprojection: its pictures are rounded to bytes, which feed rounding of batches of another size
    back as steps of a byte.
    """
    start = {"start": str(world_folder)}
    if request.param == "adaptation":
        return adaptation, AdaptationTraining(**shared)
    if request.param == "consistency":  # with seed 8 both of its losses come
        return consistency, ConsistencyTraining(**shared, **start, seed=8, lr=1e-3, muon=2e-3)
    more = {"overlap": 1, "segments": 2, "lr": 1e-3, "least_motion": 0.0, "checkpointed": True}
    return adversarial, AdversarialTraining(**shared, start=str(make_world(reproject=False)), **more)


every = pytest.mark.parametrize("stage", ["adaptation", "consistency", "adversarial"], indirect=True)


def in_team(monkeypatch, meeting):
    """As torchrun would have it."""
    monkeypatch.setattr("generator.training.parallel_run.launched", lambda: (meeting.rank, meeting.size))
    monkeypatch.setattr(parallel.Meeting, "arranged", lambda: meeting)


def weights_of(run):
    return {**wholes(run.dit.state_dict()), **{f"ema.{k}": v for k, v in wholes(run.ema.weights).items()}}


def apart(one, other, module):
    """The largest difference of a weight. RMSProp's and Adam's first steps are the gradient's sign, whatever its size,
    and a gradient that is nothing but rounding, as many are of a young student beside its teacher, has any sign: in
    stages 2 and 3, what all but two in a hundred weights stay below.
    """
    assert one.keys() == other.keys() and len(one) > 50
    gaps = torch.cat([(one[name] - other[name]).abs().flatten() for name in one])
    return gaps.max().item() if module is adaptation else gaps.quantile(0.98).item()


def training(monkeypatch, module, config, folder, **changes):
    """What a process does that trains with others: its weights afterwards."""

    def act(meeting):
        in_team(monkeypatch, meeting)
        return weights_of(module.train(dataclasses.replace(config, **changes), folder, quiet=True))

    return act


@every
def test_two_that_share_clips_are_one_and_go_on_as_two_pairs(stage, tmp_path, monkeypatch):
    """The whole clip of a step on both, then two clips on each pair; and one process for itself goes on from that."""
    module, config = stage
    begun = weights_of(dit_run.open_run(config, tmp_path / "begun", "test"))
    right = weights_of(module.train(config, tmp_path / "one", quiet=True))
    further = weights_of(module.train(dataclasses.replace(config, steps=3), tmp_path / "one", quiet=True))
    for made in together(2, training(monkeypatch, module, config, tmp_path / "several", context=2)):
        assert apart(made, right, module) < WEIGHT < 2 * WEIGHT < apart(right, begun, module)
    for made in together(4, training(monkeypatch, module, config, tmp_path / "several", context=2, steps=3)):
        assert apart(made, further, module) < 2 * WEIGHT < apart(further, right, module)
    (left,) = together(1, training(monkeypatch, module, config, tmp_path / "several", steps=3))
    assert apart(left, further, module) < 2 * WEIGHT, "what pairs saved, a single process reads"


@every
def test_two_processes_are_one_and_two_go_on_as_four(stage, tmp_path, monkeypatch):
    module, config = stage
    begun = weights_of(dit_run.open_run(config, tmp_path / "begun", "test"))
    right = weights_of(module.train(config, tmp_path / "one", quiet=True))
    further = weights_of(module.train(dataclasses.replace(config, steps=3), tmp_path / "one", quiet=True))

    for made in together(2, training(monkeypatch, module, config, tmp_path / "several", steps=2)):
        assert apart(made, right, module) < WEIGHT < 2 * WEIGHT < apart(right, begun, module)
    left = {path.name for path in (tmp_path / "several").iterdir()}
    assert {"resume.json", "resume-00000002", "snapshot", "metrics.jsonl"} <= left
    assert not list((tmp_path / "several").rglob("*.metadata"))
    for made in together(4, training(monkeypatch, module, config, tmp_path / "several", steps=3)):
        assert apart(made, further, module) < 2 * WEIGHT < apart(further, right, module)
    assert json.loads((tmp_path / "several" / "resume.json").read_text())["plain"]["step"] == 3
    load_weights(tmp_path / "several" / "snapshot")
    with pytest.raises(UserError, match="run of several processes"):
        module.train(config, tmp_path / "several", quiet=True)


@pytest.mark.parametrize("context", [1, 2])
@pytest.mark.parametrize("stage", ["adversarial"], indirect=True)
def test_both_networks_have_the_gradients_of_one_process(stage, tmp_path, monkeypatch, context):
    module, config = stage
    config = dataclasses.replace(config, lr=0.0, grid_shift=True)

    def step(config):
        run, adversary, drawer = module.open_stage(config, tmp_path / "run")
        figures = module.train_step(run, config, adversary, drawer)
        return wholes({name: p.grad for name, p in run.dit.named_parameters()}), figures

    right, told = step(config)

    def act(meeting):
        in_team(monkeypatch, meeting)
        return step(dataclasses.replace(config, context=context))

    for made, figures in together(2, act):
        size = max(grad.abs().max().item() for grad in right.values())
        assert right.keys() == made.keys() and size > 1e-3
        assert max((right[name] - made[name]).abs().max().item() for name in right) < 1e-5 * size
        for name in ("judge_loss", "penalty", "gap", "judge_norm", "maker_loss", "maker_norm"):
            assert figures[name] == pytest.approx(told[name], rel=1e-3, abs=1e-5), name


@pytest.mark.parametrize("stage", ["adversarial"], indirect=True)
def test_the_generator_is_gathered_once_a_step(stage, tmp_path, monkeypatch):
    module, config = stage

    def act(meeting):
        in_team(monkeypatch, meeting)
        run, adversary, drawer = module.open_stage(config, tmp_path / "run")
        gathers = {"generator": 0}
        groups = [part._get_fsdp_state()._fsdp_param_group for part in run.dit.modules() if hasattr(part, "unshard")]
        for group in groups:
            original = group.wait_for_unshard

            def counted(original=original, group=group):
                gathers["generator"] += group._all_gather_result is not None
                return original()

            group.wait_for_unshard = counted
        module.train_step(run, config, adversary, drawer)
        return [gathers["generator"], len(groups)]

    for gathers, groups in together(2, act):
        assert groups == config_depth(config) + 1 and gathers == groups, "not once for every segment or frame"


def config_depth(config):
    return load_weights(Path(config.start)).config.dit.depth


@pytest.mark.parametrize("stage", ["adaptation"], indirect=True)
def test_processes_that_do_not_fit_are_all_told_the_same(stage, tmp_path, monkeypatch):
    module, config = stage

    def act(meeting):
        in_team(monkeypatch, meeting)
        said = []
        wrong = {"odd": {"batch": 3}, "rates": {"lr": 1e-3 * (1 + meeting.rank)}, "many": {"context": 4}}
        for name, changes in wrong.items():
            meeting.store = torch.distributed.PrefixStore(name, meeting.store)
            with pytest.raises(UserError) as told:
                module.train(dataclasses.replace(config, **changes), tmp_path / name, quiet=True)
            said.append(str(told.value))
        return said

    one, other = together(2, act)
    assert one == other
    assert "A batch of 3 clips is not shared evenly by 2 processes; give --set batch=2" in one[0]
    assert "disagree on the setting lr" in one[1]
    assert "context=4 does not divide 2 processes; give --set context=2" in one[2]


def test_what_does_not_divide_is_said(make_dit):
    odd = make_dit(heads=2, height=6, width=6).config
    assert parallel.team_fault(4, 4, 2, odd) == parallel.team_fault(2, 5, 2, odd) == ""
    assert "of which 2 share each clip; give --set batch=4" in parallel.team_fault(4, 5, 2, odd)
    assert "context=4 does not divide 2 attention heads over 9 tokens; give --set context=2" in parallel.team_fault(
        4, 4, 4, odd
    )
    assert "context=0 does not divide 4 processes; give --set context=1" in parallel.team_fault(4, 4, 0, odd)


def test_one_process_shares_its_clips_with_nobody(shared, tmp_path):
    with pytest.raises(UserError, match="but there is one; start them with torchrun"):
        adaptation.train(AdaptationTraining(**shared, context=2), tmp_path / "a", quiet=True)
    with pytest.raises(UserError, match="context=2 is not compiled"):
        adaptation.train(AdaptationTraining(**shared, context=2, compile=True), tmp_path / "b", quiet=True)
