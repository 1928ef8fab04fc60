"""The study of the teacher's times: whole, resumable in the midst of a grid, judged on what nothing learned from."""

import dataclasses
import json

import pytest
import torch

import run as command
from controls.errors import UserError
from generator.checkpoint import load_weights
from generator.evaluation import teacher_table
from generator.evaluation.teacher_page import goals, markdown, ratio, write
from generator.evaluation.teacher_table import Judge, TeacherStudy, due_pieces, run
from generator.samplers.sampler import shifted_sampler
from generator.training import learn_times

SMALL = (
    "calls=3", "judged=2", "target_steps=6", "pairs=2", "held=2", "history=2", "teacher_steps=5", "updates=2",
    "grid_rounds=1", "both_rounds=1", "device=cpu",
)  # fmt: skip


class PlainDistance(torch.nn.Module):
    """Stands for LPIPS, whose weights a test machine may not have."""

    def forward(self, first, second):
        return (first - second).square().mean((1, 2, 3))


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    monkeypatch.setattr(learn_times, "Lpips", PlainDistance)


@pytest.fixture(scope="module")
def study(world_folder, latents, tmp_path_factory):
    """A tiny one."""
    return TeacherStudy(
        weights=str(world_folder), latents=str(latents), run=str(tmp_path_factory.mktemp("learned")), calls=(3, 2),
        judged=2, target_steps=6, pairs=2, held=2, history=2, teacher_steps=5, updates=2, grid_rounds=1, both_rounds=1,
        device="cpu",
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(study, tmp_path_factory):
    """The file of the tiny study, done in one go."""
    path = tmp_path_factory.mktemp("docs") / "teacher-times.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learn_times, "Lpips", PlainDistance)
        assert run(study, path, 0.0, lambda text: None)
    return path


def test_every_kind_of_grid_is_judged(whole, study):
    kept = json.loads(whole.read_text())
    hand = {"uniform", "shifted", "half_shifted", "quadratic", "log_snr", "edm", "gits", "dmn"}
    assert set(kept["figures"]) == {"2", "3"}
    for made in kept["figures"].values():
        assert set(made) == {"ipndm", "dpmpp", "ld3", "gs", "curve"}
        assert set(made["ipndm"]) == set(made["dpmpp"]) == hand
        for grids in made.values():
            for one in grids.values():
                assert set(one) == {"lpips", "psnr", "latent"} and one["lpips"] > 0 and one["latent"] > 0
    assert set(kept["seconds"]) == {"ld3-3", "ld3-2", "gs-3", "gs-2", "curve"}
    assert list(due_pieces(study, kept["figures"])) == []


def test_a_study_stopped_anywhere_goes_on_and_ends_the_same(whole, study, tmp_path, monkeypatch):
    """A stop between two updates of one grid too: its state is kept, and the teacher is not asked again."""
    again = dataclasses.replace(study, run=str(tmp_path / "run"))
    path, now, solved, solve = tmp_path / "teacher-times.json", [0.0], [], teacher_table.solve_targets

    def clock():
        now[0] += 20.0
        return now[0]

    monkeypatch.setattr(teacher_table, "solve_targets", lambda *given: solved.append(given) or solve(*given))
    monkeypatch.setattr(learn_times, "solve_targets", None)
    stops = 0
    while not run(again, path, 1.0, lambda text: None, clock):
        stops += 1
        assert stops < 40
    mine, theirs = (json.loads(file.read_text()) for file in (path, whole))
    assert stops >= 4 and mine["figures"] == theirs["figures"] and len(solved) == 3
    assert run(again, path, 0.0, pytest.fail)


def test_the_judge_is_the_many_step_teacher_on_its_own_windows(study, tmp_path):
    weights = load_weights(study_path := teacher_table.Path(study.weights))
    judge = Judge(dataclasses.replace(study, run=str(tmp_path)), weights)
    itself = judge(shifted_sampler("dpmpp", 2, 6, 1.0))
    assert itself["lpips"] < 1e-9 and itself["latent"] < 1e-9 and itself["psnr"] > 90 and study_path.exists()
    assert judge(shifted_sampler("ipndm", 2, 2, 1.0))["latent"] > 1e-6
    windows = learn_times.contexts(study.learning("ld3", 3), weights)
    for context in windows.values():
        for noise in context.noise[:, -1]:
            assert not any(torch.equal(noise, own) for own in judge.pairs.noise)
    assert teacher_table.judged_split(teacher_table.Path(study.latents)) == "held_map"


def test_it_runs_from_the_command_line_and_writes_its_page(world_folder, latents, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.set_num_threads", lambda n: None)
    words = ["study", "teacher", "--weights", str(world_folder), "--latents", str(latents), "--out", str(tmp_path)]
    for text in (*SMALL, f"run={tmp_path / 'run'}"):
        words += ["--set", text]
    assert command.main(words) == 0
    assert "whole" in capsys.readouterr().out
    page = (tmp_path / "teacher-times.md").read_text()
    made = json.loads((tmp_path / "teacher-times.json").read_text())["figures"]["3"]
    for grids in made.values():
        for one in grids.values():
            assert f"{one['lpips']:.4f}" in page and f"{one['psnr']:.2f}" in page
    assert "in 6 uniform steps" in page and "GITS" in page
    assert command.main([*words, "--set", "seed=1"]) == 2
    assert "other settings or weights" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"calls": (1,)}, "1 network calls leave no time"),
        ({"calls": (11,)}, "more than the 10 that play offers"),
        ({"calls": ()}, "compares no numbers of calls"),
        ({"judged": 0}, "judged = 0"),
        ({"each": -1.0}, "-1 minutes are no time"),
        ({"weights": "nowhere"}, "nowhere"),
        ({"history": 99}, "give --set history=16 or less"),
    ],
)
def test_settings_that_make_no_sense(study, tmp_path, changes, said):
    with pytest.raises(UserError, match=said):
        run(dataclasses.replace(study, run=str(tmp_path), **changes), tmp_path / "x.json", 0.0, pytest.fail)


def test_another_studys_files_are_refused(whole, study, tmp_path):
    with pytest.raises(UserError, match="other settings or weights"):
        run(dataclasses.replace(study, pairs=3), whole, 0.0, pytest.fail)
    broken = tmp_path / "teacher-times.json"
    broken.write_text("[]")
    with pytest.raises(UserError, match="no readable study"):
        run(study, broken, 0.0, pytest.fail)
    with pytest.raises(UserError, match=r"judge\.safetensors was made for other settings"):
        run(dataclasses.replace(study, target_steps=7), tmp_path / "new.json", 0.0, pytest.fail)


def test_ratios_and_goals_by_hand(study):
    made = {
        "ipndm": {"uniform": {"lpips": 0.4}, "edm": {"lpips": 0.2}}, "dpmpp": {"gits": {"lpips": 0.3}},
        "ld3": {"ld3": {"lpips": 0.1}}, "gs": {"gs": {"lpips": 0.09}},
    }  # fmt: skip
    assert (ratio(made, "ld3"), ratio(made, "gs"), ratio(made, "curve")) == ("0.50", "0.45 (0.90)", "-")
    said = goals({"4": made})
    assert "0.50 (goal 0.6: met)" in said[0] and "0.90 (goal 0.85: missed)" in said[1] and goals({"3": made}) == []
    kept = {"settings": {"weights": "ab" * 32}, "figures": {"4": made}, "seconds": {"ld3-4": 12.3}}
    page = markdown(kept, dataclasses.replace(study, calls=(4, 3)))
    assert "| LD3 (iPNDM-3) | - | 0.50 |" in page and "| ld3-4 | 12 |" in page and "weights abababab" in page


def test_no_page_before_the_first_figure(study, tmp_path):
    write(tmp_path / "teacher-times.json", study)
    assert list(tmp_path.iterdir()) == []
