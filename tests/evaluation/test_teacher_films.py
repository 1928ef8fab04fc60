"""FVD of the study's grids: the cells asked for, resumed, from the sampler that each is named after."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

import run as command
from controls.errors import UserError
from generator.checkpoint import load_weights
from generator.evaluation import teacher_films, teacher_table, video_distance
from generator.evaluation.teacher_films import Films, Samplers, missing, run
from generator.evaluation.teacher_page import LEARNED, ROWS
from generator.evaluation.teacher_table import TeacherStudy, hand_made
from generator.model.sampler_file import LearnedSampler, save_sampler
from generator.samplers.sampler import Sampler


@pytest.fixture(autouse=True)
def colours(monkeypatch):
    """Stands for I3D, whose weights a test machine may not have: the mean colour of each quarter of the pictures."""
    monkeypatch.setattr(teacher_films, "I3D", lambda: None)
    monkeypatch.setattr(
        video_distance, "features", lambda frames, network: frames[:, :, ::7].mean((1, 2)).reshape(1, -1)[:, :6]
    )


@pytest.fixture
def study(world_folder, latents, tmp_path):
    """A study of 3 and 4 calls, of which LD3's grid of 3 is learned."""
    made = TeacherStudy(str(world_folder), str(latents), str(tmp_path / "run"), calls=(4, 3), device="cpu")
    (tmp_path / "run").mkdir()
    weights, times = load_weights(world_folder).hash, torch.tensor([1.0, 0.6, 0.1, 0.0], dtype=torch.float64)
    sampler = Sampler("ipndm", 3, times, times)
    save_sampler(made.file("ld3", 3), LearnedSampler(weights, sampler, "lpips", {"learned": 0.1}, []))
    kept = {"settings": {**dataclasses.asdict(made), "weights": weights}, "figures": {}, "seconds": {}}
    (tmp_path / "teacher-times.json").write_text(json.dumps(kept))
    return made


def test_cells_asked_for_are_filmed_once_and_stand_on_the_page(study, data_set, tmp_path, capsys):
    path, said, now = tmp_path / "teacher-times.json", [], [0.0]

    def clock():
        now[0] += 40.0
        return now[0]

    films = Films(data_set, 2, ("quadratic", "ld3"), (3,), tmp_path / "keep")
    assert not run(study, films, path, 1.0, said.append, clock) and len(said) == 1
    assert run(study, films, path, 0.0, said.append) and [text.split(":")[0] for text in said] == [
        "quadratic 3",
        "ld3 3",
    ]
    part = json.loads(path.read_text())["fvd"]
    assert set(part["figures"]) == {"3"} and set(part["figures"]["3"]) == {"quadratic", "ld3"}
    assert part["about"]["windows"] == 2 and part["about"]["frames"] == 16 and {"floor", "ceiling"} <= set(part)
    assert run(study, films, path, 0.0, pytest.fail)
    words = ["study", "teacher", "--weights", study.weights, "--latents", study.latents, "--out", str(tmp_path)]
    words += ["--set", f"run={study.run}", "--set", "calls=4,3", "--set", "device=cpu", "--windows", "2"]
    assert command.main([*words, "--fvd", str(data_set), "--fvd-rows", "uniform", "--fvd-calls", "4"]) == 0
    made, page = json.loads(path.read_text())["fvd"], (tmp_path / "teacher-times.md").read_text()
    assert f"| iPNDM-3, uniform |  | {made['figures']['4']['uniform']:.1f} |" in page
    assert f"| LD3 (iPNDM-3) | {made['figures']['3']['ld3']:.1f} |  |" in page and "## FVD of 16 frames" in page
    assert "whole" in capsys.readouterr().out


def test_each_row_is_its_own_sampler(study):
    weights = load_weights(Path(study.weights))
    find = Samplers(study, weights)
    even, learned = find("uniform", 3), find("ld3", 3)
    assert (even.name, even.order) == ("ipndm", 3) and even.times.tolist() == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert learned.times.tolist() == [1.0, 0.6, 0.1, 0.0] and learned.label != even.label
    assert find("quadratic", 4).nfe == 4 and "pairs" not in find.__dict__, "none are made where none are fitted to"
    other = find("dpmpp-edm", 4)
    assert (other.name, other.order) == ("dpmpp", 3) and torch.equal(other.times, find("edm", 4).times)


def test_rows_are_those_of_the_study_and_fitted_grids_its_own(study):
    weights = load_weights(Path(study.weights))
    find = Samplers(dataclasses.replace(study, pairs=2, held=1, teacher_steps=4), weights)
    fitted = {row: find(row, 3) for row in ROWS if row.endswith(("gits", "dmn"))}
    made = {(solver, grid): sampler for solver, grid, sampler in hand_made(study, weights, find.pairs, 3)}
    assert list(made) == [row for name, row in ROWS.items() if name not in LEARNED]
    assert len(fitted) == 4 and all(torch.equal(fitted[name].times, made[ROWS[name]].times) for name in fitted)
    assert missing(Films(Path(), rows=("all",), calls=(3,)), study, {}).__next__() == (3, "uniform")
    assert len(list(missing(Films(Path(), rows=("all",)), study, {"3": {"dpmpp-gits": 1.0}}))) == 2 * len(ROWS) - 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rows": ("gitz",)}, "no grid 'gitz' to film; give all, or some of uniform, .*dpmpp-dmn, ld3"),
        ({"calls": (5,)}, "no grids of 5 calls; give --fvd-calls some of 3, 4"),
        ({"rows": ("gs",)}, "let the study learn it first"),
        ({"windows": 1}, "raise --windows"),
    ],
)
def test_what_cannot_be_filmed_is_a_sentence(study, data_set, tmp_path, changes, said):
    before = (path := tmp_path / "teacher-times.json").read_text()
    with pytest.raises(UserError, match=said):
        run(study, dataclasses.replace(Films(data_set, 2, ("ld3",), (3,)), **changes), path, 0.0, pytest.fail)
    assert path.read_text() == before


def test_other_windows_are_refused(study, data_set, tmp_path):
    path = tmp_path / "teacher-times.json"
    assert run(study, Films(data_set, 2, ("ld3",), (3,)), path, 0.0, lambda text: None)
    kept = teacher_table.read(path, study, load_weights(Path(study.weights)).hash)
    kept["fvd"]["about"]["windows"] = 9
    path.write_text(json.dumps(kept))
    with pytest.raises(UserError, match="films of other windows"):
        run(study, Films(data_set, 2, ("ld3",), (3,)), path, 0.0, pytest.fail)
