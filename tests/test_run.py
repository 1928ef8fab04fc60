"""The command table: help, mistakes as one line and exit code 2, and a whole training at debug size, then played."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import run
from generator.checkpoint import read_manifest
from generator.training import tokenizer

ROOT = Path(run.__file__).resolve().parent


class PlainDistance(torch.nn.Module):
    """Stands for LPIPS, whose weights a test machine may not have."""

    def forward(self, first, second):
        return (first - second).square().mean((1, 2, 3))


@pytest.fixture
def picture(first_picture, tmp_path) -> str:
    path = tmp_path / "picture.png"
    Image.fromarray(first_picture).save(path)
    return str(path)


@pytest.mark.parametrize("command", run.COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as left:
        run.main([command, "--help"])
    assert left.value.code == 0
    assert run.COMMANDS[command][0].split(",")[0] in capsys.readouterr().out.replace("\n", " ")


def test_the_table_is_shown(capsys):
    with pytest.raises(SystemExit) as left:
        run.main(["--help"])
    shown = capsys.readouterr().out
    assert left.value.code == 0 and all(command in shown for command in run.COMMANDS)


def test_help_needs_neither_torch_nor_pygame():
    code = "import sys, run\ntry: run.main(['--help'])\nexcept SystemExit: pass\n"
    code += "sys.exit('torch' in sys.modules or 'pygame' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


MISTAKES = {
    "scene": ["play", "--headless", "--weights", "WORLD", "--scene", "no-such-scene"],
    "weights": ["play", "--headless", "--weights", "nowhere", "--scene", "PICTURE"],
    "backend": ["play", "--headless", "--weights", "WORLD", "--scene", "PICTURE", "--backend", "abacus"],
    "picture": ["play", "--headless", "--weights", "WORLD", "--scene", "run.py"],
    "frames": ["play", "--headless", "--weights", "WORLD", "--scene", "PICTURE", "--frames", "0"],
    "actions": ["play", "--headless", "--weights", "WORLD", "--scene", "PICTURE", "--actions", "dance"],
    "preset": ["train", "adaptation", "--preset", "poket", "--steps", "1", "--latents", "LATENTS", "--run", "TMP"],
    "tokenizer preset": ["train", "tokenizer", "--preset", "x", "--steps", "1", "--data", "DATA", "--run", "TMP"],
    "no end": ["train", "adaptation", "--preset", "debug", "--latents", "LATENTS", "--tokenizer", "TOKENIZER",
               "--run", "TMP"],
    "no hours": ["train", "all", "--run", "TMP"],
    "no data": ["train", "tokenizer", "--preset", "debug", "--steps", "1", "--data", "nowhere", "--run", "TMP"],
    "no tokenizer": ["train", "latents", "--tokenizer", "nowhere", "--data", "DATA", "--latents", "TMP"],
    "no teacher": ["train", "consistency", "--steps", "1", "--latents", "LATENTS", "--run", "TMP"],
    "unknown setting": ["train", "adaptation", "--steps", "1", "--latents", "LATENTS", "--run", "TMP",
                        "--set", "btach=3"],
    "maps": ["worlds", "halls", "--maps", "0", "--out", "TMP"],
    "scene of nothing": ["worlds", "scene", "--out", "TMP"],
    "range of nothing": ["worlds", "range", "--out", "WORLD"],
    "range for nothing": ["worlds", "range", "--data", "DATA", "--out", "TMP"],
    "scene of no data": ["worlds", "scene", "--out", "TMP", "--name", "x", "--data", "nowhere"],
    "no recorded frames": ["collect", "--out", "TMP", "--frames", "0"],
    "evaluate": ["evaluate", "--weights", "nowhere", "--data", "DATA"],
    "evaluate data": ["evaluate", "--weights", "WORLD", "--data", "nowhere"],
    "calls": ["play", "--headless", "--weights", "WORLD", "--scene", "PICTURE", "--nfe", "11"],
    "calls of a graph": ["play", "--headless", "--weights", "WORLD", "--scene", "PICTURE", "--nfe", "4",
                         "--backend", "torch-int8"],
    "one call to learn": ["learn-times", "--weights", "WORLD", "--nfe", "1", "--out", "TMP"],
    "solver to learn for": ["learn-times", "--weights", "WORLD", "--solver", "rk45", "--out", "TMP"],
    "order to learn for": ["learn-times", "--weights", "WORLD", "--order", "3", "--nfe", "2", "--out", "TMP"],
    "nothing to learn from": ["learn-times", "--weights", "WORLD", "--latents", "nowhere", "--out", "TMP"],
    "benchmark preset": ["benchmark", "--preset", "poket", "--frames", "2"],
    "benchmark backend": ["benchmark", "--weights", "WORLD", "--backend", "abacus", "--frames", "2"],
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(mistake, capfd, tmp_path, picture, world_folder, latents, data_set, tokenizer_run):
    places = {"WORLD": world_folder, "PICTURE": picture, "LATENTS": latents, "DATA": data_set}
    places |= {"TOKENIZER": tokenizer_run, "TMP": tmp_path / "out"}
    words = [str(places.get(word, word)) for word in MISTAKES[mistake]]
    assert run.main(words) == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("farstep: ") and "Traceback" not in lines[0], lines
    assert len(lines[0]) > 30


@pytest.mark.parametrize("words", [["dance"], ["play", "--seed", "x"], ["train"]])
def test_words_that_do_not_parse_exit_with_two(words, capsys):
    with pytest.raises(SystemExit) as left:
        run.main(words)
    assert left.value.code == 2 and "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(("command", "policy"), [("play", "PASSIVE"), ("doctor", None)])
def test_threads_of_one_library_do_not_spin_while_another_computes(command, policy, monkeypatch):
    """Of two cores, torch's waiting threads took one from OpenVINO and from the rays through the map."""
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    seen = []
    found = (*run.COMMANDS[command][:2], lambda args: seen.append(os.environ.get("OMP_WAIT_POLICY")) or 0)
    monkeypatch.setitem(run.COMMANDS, command, found)
    assert run.main([command]) == 0 and seen == [policy]
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)


def test_ctrl_c_is_not_a_traceback(monkeypatch, capsys):
    def stopped(args):
        raise KeyboardInterrupt

    monkeypatch.setitem(run.COMMANDS, "doctor", ("x", run.fill_doctor, stopped))
    assert run.main(["doctor"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_all_stages_then_play(monkeypatch, data_set, tmp_path, picture, capfd):
    monkeypatch.setattr(tokenizer, "Lpips", PlainDistance)
    folder = tmp_path / "run"
    words = ["train", "all", "--preset", "debug", "--hours", "0.002", "--data", str(data_set), "--run", str(folder)]
    assert run.main([*words, "--threads", "1"]) == 0
    snapshot = folder / "adversarial" / "snapshot"
    manifest = read_manifest(snapshot)
    assert manifest["config"]["stage"] == "adversarial" and manifest["config"]["picture"] == [64, 64]
    assert manifest["notes"]["step"] >= 1
    assert run.main([*words, "--threads", "1"]) == 0
    assert read_manifest(snapshot)["hash"] == manifest["hash"]

    report = tmp_path / "report.json"
    words = ["play", "--headless", "--no-pacing", "--weights", str(snapshot), "--scene", picture, "--frames", "13"]
    assert run.main([*words, "--backend", "torch-fp32", "--threads", "1", "--json", str(report)]) == 0
    figures = json.loads(report.read_text())
    assert (figures["frames"], figures["backend"], figures["size"]) == (13, "torch-fp32", [64, 64])
    assert figures["weights_hash"] == manifest["hash"]


def test_times_are_learned_and_then_played(world_folder, latents, tmp_path, picture, capfd):
    """learn-times writes the grid where the quality dial looks for it."""
    folder, report = tmp_path / "world", tmp_path / "report.json"
    shutil.copytree(world_folder, folder)
    words = ["learn-times", "--weights", str(folder), "--latents", str(latents), "--nfe", "3", "--distance", "l1"]
    words += ["--out", str(folder / "times" / "nfe-3.yaml"), "--threads", "1"]
    small = {"run": tmp_path / "run", "pairs": 2, "held": 2, "history": 1, "teacher_steps": 4, "grid_rounds": 1}
    small |= {"both_rounds": 0, "fitted": "false", "soft": "false"}
    assert run.main([*words, *(part for name, value in small.items() for part in ("--set", f"{name}={value}"))]) == 0
    assert "learned" in capfd.readouterr().out
    words = ["play", "--headless", "--no-pacing", "--weights", str(folder), "--scene", picture, "--frames", "9"]
    words += ["--backend", "torch-fp32", "--threads", "1", "--nfe", "3", "--json", str(report)]
    assert run.main(words) == 0
    figures = json.loads(report.read_text())
    assert (figures["frames"], figures["nfe"]) == (9, 3) and figures["sampler"].startswith("ipndm-3-3-")
