"""The evaluation command end to end on a debug world."""

import dataclasses
import json
import math
import shutil

import numpy as np
import pytest

import run
from controls.errors import UserError
from generator.checkpoint import load_weights, save_weights
from generator.evaluation import report, video_distance
from generator.evaluation.quality import Scores
from generator.training import perceptual

PAIRS = [f"{family}.{measure}" for family in report.FAMILIES for measure in ("psnr", "lpips")]
BASELINES = [f"baseline.{b}.{name}" for b in ("repeat", "shift") for name in PAIRS if not name.startswith("tokenizer")]
CONTROL = [
    f"{c}.{name}.{figure}"
    for c in ("control", "control.real")
    for name in ("yaw", "pitch", "forward")
    for figure in ("corr", "slope", "measured")
]
DISTANCES = [f"frechet_alexnet.{name}" for name in ("next", "rollout", "floor", "ceiling")]


@pytest.fixture(autouse=True)
def needs_lpips():
    try:
        perceptual.Lpips()
    except UserError as error:
        pytest.skip(str(error))


def test_every_figure_is_there_and_sane(debug_world, turning_data):
    made = report.evaluate(debug_world, turning_data, report.Settings(clips=1, split="held_seed"))
    found = made.report
    assert json.loads(json.dumps(found)) == found
    assert not [name for name in PAIRS + BASELINES + CONTROL if name not in found]
    assert found["clips"] == 1 and found["split"] == "held_seed" and found["seconds"] > 0
    assert all(found[name] is not None for name in PAIRS + BASELINES)
    assert found["control.real.yaw.corr"] > 0.95
    assert found["control.real.yaw.slope"] == pytest.approx(1, abs=0.1)
    assert found["baseline.shift.next.psnr"] > found["baseline.repeat.next.psnr"]
    assert found["baseline.shift.next.lpips"] < found["baseline.repeat.next.lpips"]
    assert found["control.real.pitch.corr"] > 0.4, "0.3 degrees are a fifth of a pixel here"
    assert found["control.real.pitch.slope"] == pytest.approx(1, abs=0.3)
    assert found["motion_energy.ratio"] >= 0 and found["motion_energy.static"] == (found["motion_energy.ratio"] < 0.1)
    assert all(found[name] > 0 for name in DISTANCES) and found["frechet_alexnet.pictures"] == 24
    assert found["frechet_alexnet.rollout"] > found["frechet_alexnet.floor"]
    assert made.drift is None and [sheet.title for sheet in made.sheets] == ["Held out: M, clip 0"]
    assert made.sheets[0].seconds == [0.5 * i for i in range(9)]
    assert [(name, len(pictures)) for name, pictures in made.sheets[0].rows] == [("real", 9), ("generated", 9)]


def test_psnr_is_of_the_pooled_error():
    """One perfect picture beside one that is off by 51 of 255 everywhere: 3 dB better, not the mean with 106 dB."""
    scores = Scores(perceptual.Lpips())
    black = np.zeros((1, 64, 64, 3), np.uint8)
    scores.add("one", black + 51, black)
    scores.add("two", np.concatenate([black, black + 51]), black.repeat(2, 0))
    scores.add("same", black, black)
    means = scores.means()
    assert means["one.psnr"] == pytest.approx(20 * math.log10(5), abs=1e-3)
    assert means["two.psnr"] == pytest.approx(means["one.psnr"] + 10 * math.log10(2), abs=1e-3)
    assert means["same.psnr"] == pytest.approx(106.02, abs=0.01)
    assert means["two.lpips"] == pytest.approx(means["one.lpips"] / 2, rel=1e-3)
    assert list(means) == sorted(means)


def test_repeating_a_still_clip_is_perfect_and_a_short_clip_has_no_four_seconds(debug_world, still_data):
    found = report.evaluate(debug_world, still_data, report.Settings(clips=1)).report
    for baseline in ("repeat", "shift"):
        assert found[f"baseline.{baseline}.next.psnr"] >= 90
        assert found[f"baseline.{baseline}.rollout_1s.lpips"] == pytest.approx(0, abs=1e-6)
    assert found["rollout_4s.psnr"] is None
    assert found["motion_energy.ratio"] is None
    assert found["control.real.yaw.corr"] is None
    assert found["frechet_alexnet.next"] is None, "there is no other clip to compare with"


def test_what_does_not_fit_is_a_sentence(debug_world, turning_data, tmp_path):
    with pytest.raises(UserError, match="no clips"):
        report.evaluate(debug_world, turning_data, report.Settings(split="held_map"))
    with pytest.raises(UserError, match="Unknown split"):
        report.evaluate(debug_world, turning_data, report.Settings(split="test"))
    for wrong in (report.Settings(clips=0), report.Settings(drift=-1), report.Settings(threads=-1)):
        with pytest.raises(UserError, match="check the numbers"):
            report.evaluate(debug_world, turning_data, wrong)
    with pytest.raises(UserError, match="no weights"):
        report.evaluate(tmp_path, turning_data)


def test_the_quality_dial_is_judged_as_it_plays(teacher_world, still_data):
    """More network calls are the teacher's, with the sampler that play would take; the rest is as ever."""
    one, three = (report.evaluate(teacher_world, still_data, report.Settings(clips=1, nfe=n)).report for n in (1, 3))
    assert (one["nfe"], one["sampler"]) == (1, "") and three["nfe"] == 3 and three["sampler"].startswith("dpmpp-2-3-")
    assert one["tokenizer.psnr"] == three["tokenizer.psnr"] and one["next.psnr"] != three["next.psnr"]
    with pytest.raises(UserError, match="--nfe is 0; give 1, or more"):
        report.evaluate(teacher_world, still_data, report.Settings(clips=1, nfe=0))


def test_weights_without_a_teacher_are_judged_at_one_call(debug_world, still_data, tmp_path):
    loaded = load_weights(debug_world)
    config = dataclasses.replace(loaded.config, stage="adversarial")
    save_weights(tmp_path, config, loaded.tokenizer, loaded.dit.state_dict(), parallax=loaded.parallax)
    with pytest.raises(UserError, match="no many-step teacher"):
        report.evaluate(tmp_path, still_data, report.Settings(clips=1, nfe=2))


def test_the_command_writes_figures_curves_and_a_page(debug_world, rolling_data, tmp_path, monkeypatch, capfd):
    """Everything at once, on mean colours instead of I3D's logits."""
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(report, "I3D", object)
    monkeypatch.setattr(video_distance, "features", lambda frames, network: frames.mean((1, 2, 3)))
    names = {word: tmp_path / f"made.{word}" for word in ("json", "html", "png")}
    words = ["evaluate", "--weights", debug_world, "--data", rolling_data, "--clips", 1, "--fvd", "--drift", 480]
    words += ["--rollouts", 1, "--backend", "torch-fp32", "--threads", 1]
    words += [part for name, path in names.items() for part in (f"--{name}", path)]
    assert run.main([str(word) for word in words]) == 0
    printed = capfd.readouterr()
    found = json.loads(names["json"].read_text())
    assert json.loads(printed.out) == found and "drift: spin, stretch 2 of 2" in printed.err
    for name in ("fvd.16", "fvd.16.floor", "fvd.16.ceiling", "fvd.32", "fvd.32.floor", "fvd.32.ceiling"):
        assert found[name] >= 0, name
    assert found["drift.measure"] == "frechet_alexnet" and found["drift.backend"] == "torch-fp32"
    assert found["drift.last_over_first"] > 0 and len(found["drift.idle.saturation"]) == 2
    page = names["html"].read_text(encoding="utf-8")
    assert page.count("<img") == 2 * 9 + 3 * 12 and "fvd.32, free rollouts" in page
    assert names["png"].read_bytes().startswith(b"\x89PNG")


def test_png_without_drift_and_too_short_a_drift_are_one_sentence(debug_world, rolling_data, tmp_path, capfd):
    words = ["evaluate", "--weights", str(debug_world), "--data", str(rolling_data)]
    assert run.main([*words, "--png", str(tmp_path / "x.png")]) == 2
    assert run.main([*words, "--drift", "100"]) == 2
    assert run.main([*words, "--drift", "480", "--backend", "abacus"]) == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 3 and "--drift FRAMES" in lines[0] and "480 frames" in lines[1] and "abacus" in lines[2]


def test_several_splits_are_judged_side_by_side(debug_world, rolling_data, tmp_path, monkeypatch):
    """The data set's second clip becomes a held-out map; the first split keeps the plain names, halves are told."""
    monkeypatch.setattr(report, "I3D", object)
    monkeypatch.setattr(video_distance, "features", lambda frames, network: frames.mean((1, 2, 3)))
    shutil.copytree(rolling_data, tmp_path / "data")
    meta = json.loads((tmp_path / "data" / "meta.json").read_text())
    meta["clips"] = [*meta["clips"], *({**clip, "split": "held_map"} for clip in meta["clips"])]
    (tmp_path / "data" / "meta.json").write_text(json.dumps(meta))
    settings = report.Settings(clips=1, split="held_seed, held_map", fvd=True, windows=2)
    found = report.evaluate(debug_world, tmp_path / "data", settings).report
    plain = {name.removeprefix("held_map.") for name in found if name.startswith("held_map.")}
    assert {"next.psnr", "fvd.16", "fvd.32.floor", "control.yaw.slope", "halves.lpips", "fvd.few"} <= plain
    assert all(found[name] == found[f"held_map.{name}"] for name in plain), "both splits hold the same clips"
    assert found["fvd.few"] is True and found["split"] == "held_seed, held_map"
    assert found["halves.lpips"] > 0 and found["halves.psnr"] < 40
    with pytest.raises(UserError, match="no clips in the split 'train'"):
        report.evaluate(debug_world, tmp_path / "data", report.Settings(clips=1, split="held_seed,train"))


def test_how_far_rollouts_are_from_recorded_walks(tiny_place):
    place, strays = tiny_place.place, report.Strays(tuple(report.HORIZONS))
    half = place.period / 2
    for here in ((100.0, 100.0, 0.0), (103.0, 104.0, 9.0), (half + 100.0, half + 112.0, 0.0)):
        strays.add("rollout_1s", place, here, np.float32([100, 100, 0, 0, 0]))
    strays.add("rollout_4s", None, (1.0, 2.0, 3.0), np.float32([0, 0, 0, 0, 0]))
    strays.add("rollout_4s", place, None, np.float32([0, 0, 0, 0, 0]))
    assert strays.figures() == {
        "rollout_1s.away": pytest.approx(17 / 3, abs=1e-4), "rollout_1s.away_half": pytest.approx(5, abs=1e-4),
        "rollout_4s.away": None, "rollout_4s.away_half": None,
    }  # fmt: skip
