"""The paper's comparisons at debug size: every row is trained, played and measured, and nothing is done twice."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import run as command_line
from controls.action import Action
from controls.errors import UserError
from generator.checkpoint import load_weights
from generator.data.clips import Dataset
from generator.evaluation import compare as comparing
from generator.evaluation import yardstick
from generator.evaluation.compare import KINDS, Comparison, compare
from generator.evaluation.walker import led, open_walker
from generator.evaluation.yardstick import Measure, Yardstick
from generator.training import dit_run
from generator.world import World

MEASURE = Measure(frames=24, rollouts=1, seconds=0.5, clips=1)
SETTINGS = ("batch=2", "frames=3", "overlap=1", "bf16=false", "device=cpu", "lr=1e-3", "warmup=1", "least_motion=0")


class Contrast:
    """A network that is quick: how much the colours of each quarter of a picture vary."""

    name, every = "contrast", 1

    def features(self, pictures):
        count, height, width, _ = pictures.shape
        return pictures.reshape(count, 2, height // 2, 2, width // 2, 3).std((2, 4)).reshape(count, -1)


@pytest.fixture
def asked(world_folder, data_set, latents, tmp_path, monkeypatch) -> Comparison:
    """A comparison of one step a row, without contact sheets, which take longer than all else."""
    monkeypatch.setattr(dit_run, "draw_sheet", lambda run, teacher: None)
    monkeypatch.setattr(dit_run, "draw_metrics", lambda folder: None)
    return Comparison(
        world_folder, world_folder, data_set, latents, tmp_path / "out", steps=1, settings=SETTINGS, measure=MEASURE
    )


def quiet(text):
    """Says nothing."""


def test_every_row_of_the_paper_runs_and_nothing_twice(asked, monkeypatch):
    table = compare(asked, quiet, Contrast())
    rows = table["rows"]
    assert list(rows) == list(KINDS) and not [name for name, row in rows.items() if "left_out" in row]
    for name, row in rows.items():
        figures = row["figures"]
        assert {"contrast.first", "contrast.last", "last_over_first", "motion_energy", "yaw.slope"} <= figures.keys()
        assert figures["contrast.first"] > 0 and figures["motion_energy"] > 0, name
        assert row["nfe"] == KINDS[name].nfe
    trained = {name: json.loads((asked.out / "runs" / name / "training.json").read_text()) for name in TRAINED}
    assert {name: t["segments"] for name, t in trained.items()} == TRAINED
    assert trained["forced"]["forced"] and not trained["adversarial"]["forced"]
    assert trained["extended-5"]["start"].endswith("extended-1/snapshot") and trained["extended-5"]["discriminator"]
    assert trained["adversarial"]["discriminator"] == "" and trained["adversarial"]["teacher"] == str(asked.teacher)
    relearnt = load_weights(asked.out / "runs" / "no-recycled" / "snapshot").config
    assert not relearnt.dit.recycle and load_weights(asked.teacher).config.dit.recycle
    hashes = {row["key"]["weights"] for row in rows.values()}
    assert len(hashes) == 6, "five trained worlds, and the one that was given"
    assert len({row["figures"]["contrast.last"] for name, row in rows.items() if name.startswith("teacher")}) == 3
    assert json.loads((asked.out / "table.json").read_text()) == json.loads(json.dumps(table))
    text = (asked.out / "table.md").read_text()
    assert text.count("\n| ") == len(KINDS) and "contrast, last 10 s" in text and "FVD" not in text

    def never(self, world, say):
        raise AssertionError("measured twice")

    monkeypatch.setattr(Yardstick, "figures", never)
    assert compare(asked, quiet, Contrast())["rows"] == rows
    (asked.out / "rows" / "teacher-8.json").write_text("{")
    with pytest.raises(AssertionError, match="measured twice"):
        compare(asked, quiet, Contrast())


TRAINED = {"adversarial": 1, "forced": 1, "no-recycled": 1, "extended-1": 2, "extended-5": 6}


def test_rows_without_training_are_left_out_with_the_reason(asked):
    asked = dataclasses.replace(asked, steps=0, rows=("extended-5", "consistency"))
    table = compare(asked, quiet, Contrast())["rows"]
    assert list(table) == ["consistency", "extended-5"] and "figures" in table["consistency"]
    assert "--snapshot extended-5=DIR" in table["extended-5"]["left_out"]
    assert "Left out: stage 3, extended x5" in (asked.out / "table.md").read_text()
    given = dataclasses.replace(asked, given={"extended-5": asked.student})
    assert "figures" in compare(given, quiet, Contrast())["rows"]["extended-5"]


def test_a_run_that_breaks_is_a_row_with_its_reason(asked, monkeypatch):
    def broken(config, folder, quiet=False):
        raise UserError("Step 7 gave no finite gap.")

    monkeypatch.setattr(comparing.adversarial, "train", broken)
    asked = dataclasses.replace(asked, rows=("adversarial",))
    assert "Step 7 gave no finite gap" in compare(asked, quiet, Contrast())["rows"]["adversarial"]["left_out"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rows": ("forcd",)}, "Unknown row 'forcd'; did you mean 'forced'"),
        ({"given": {"forcd": "x"}}, "Unknown row 'forcd'"),
        ({"teacher": Path("nowhere")}, "no weights in 'nowhere'"),
        ({"settings": ("lrr=1",)}, "Unknown adversarial setting 'lrr'"),
        ({"student": "DEEPER"}, "another model"),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else "",
)
def test_misfits_are_sentences(asked, make_world, changes, words):
    changes = {name: make_world(depth=3) if value == "DEEPER" else value for name, value in changes.items()}
    with pytest.raises(UserError, match=words) as caught:
        compare(dataclasses.replace(asked, **changes), quiet, Contrast())
    assert "\n" not in str(caught.value)


def test_the_command_line(asked, monkeypatch, capsys):
    found = []
    monkeypatch.setattr(comparing, "compare", lambda asked, say: found.append(asked) or {"rows": {}})
    words = ["compare", "--teacher", "a", "--student", "b", "--data", "c", "--latents", "d", "--out", "e"]
    words += ["--snapshot", "forced=f", "--rows", "forced,consistency", "--minutes", "3", "--frames", "2880", "--fvd"]
    assert command_line.main([*words, "--set", "batch=4"]) == 0
    assert str(found[0].given["forced"]) == "f" and found[0].rows == ("forced", "consistency")
    assert found[0].minutes == 3 and found[0].settings == ["batch=4"] and found[0].measure.frames == 2880
    assert found[0].measure.fvd and not found[0].measure.fid
    assert command_line.main([*words, "--snapshot", "forced"]) == 2
    assert "--snapshot forced" in capsys.readouterr().err


@pytest.mark.parametrize("nfe", [1, 4])
def test_a_walker_plays_as_the_world_does(make_world, first_picture, nfe):
    folder = make_world()
    walker, world = open_walker(folder, nfe), World(folder, "torch-fp32", 1, nfe)
    assert np.array_equal(walker.reset(first_picture, 5), world.reset(first_picture, 5))
    rng = np.random.default_rng(0)
    for _ in range(6):
        keys = rng.integers(0, 2, (4, len(world.spec.keys))).astype(np.uint8)
        action = Action(keys, rng.normal(0, 20, (4, 2)).astype(np.float32))
        assert np.array_equal(walker.step(action), world.step(action))


def test_a_world_that_plays_the_film_scores_as_the_film(data_set):
    """Rollouts of the clip itself: motion as real, and as far from the other clips in every stretch."""
    dataset = Dataset.open(data_set)
    yardstick = Yardstick(dataset, dataclasses.replace(MEASURE, split="train"), Contrast())
    frames = dataset.clip(yardstick.starts[0]).frames()

    class Film:
        spec, fps, camera = dataset.spec, 24.0, None

        def reset(self, picture, seed):
            self.k = 0
            return frames[:1]

        def step(self, action):
            self.k += 1
            return frames[4 * self.k - 3 : 4 * self.k + 1]

    stretch = comparing_stretch(dataset, yardstick)
    assert np.array_equal(led(Film(), stretch.frames[0], *stretch.driven, 0), stretch.frames)
    ends = yardstick._ends(Film(), quiet)
    assert ends["contrast.first"] > 0 and ends["contrast.floor"] > 0
    assert ends["last_over_first"] == pytest.approx(ends["contrast.last"] / ends["contrast.first"])


def comparing_stretch(dataset, yardstick):
    from generator.evaluation.report import stretch_of

    return stretch_of(dataset.clip(yardstick.starts[0]), dataset.spec.ticks)


def test_what_i3d_sees_of_real_clips_is_kept(data_set, tmp_path, monkeypatch):
    asked = []

    def seen(films, i3d):
        asked.append(len(films))
        return np.random.default_rng(len(asked)).random((len(films), 8))

    monkeypatch.setattr(yardstick, "features", seen)
    monkeypatch.setattr(yardstick, "LENGTHS", (4,))
    given = Dataset.open(data_set), MEASURE, Contrast(), object(), tmp_path
    first = Yardstick(*given)
    count = len(asked)
    again = Yardstick(*given)
    assert count and len(asked) == count and np.array_equal(first.films, again.films)
    assert again.film_floor == first.film_floor > 0
    for path in tmp_path.glob("real-*.npy"):
        path.write_bytes(b"damaged")
    Yardstick(*given)
    assert len(asked) == 2 * count
    Yardstick(given[0], dataclasses.replace(MEASURE, split="train"), *given[2:])
    assert len(asked) > 2 * count, "other clips are other films"
