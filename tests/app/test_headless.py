"""The run without a display: report, files, repeatability, and sentences for bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

import av
import numpy as np
import pytest
from fake_world import make_door
from PIL import Image

from app import headless, recording
from app.door import Door
from app.main import add_arguments, play
from controls.errors import UserError

KEYS = {
    "frames", "fps", "step_ms", "decode_ms", "input_to_submit_ms", "late_frames", "startup_s", "peak_rss_mb",
    "backend", "frame_sha256",
}  # fmt: skip


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return make_door(tmp_path, count=2)


def arguments(*words: str) -> Namespace:
    parser = ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(["--headless", "--weights", "x", *words])


def report(door: Door, tmp_path: Path, *words: str) -> dict[str, object]:
    path = tmp_path / "report.json"
    assert play(arguments("--json", str(path), *words), door) == 0
    data: dict[str, object] = json.loads(path.read_text())
    return data


def test_the_report_has_its_keys(door: Door, tmp_path: Path) -> None:
    data = report(door, tmp_path, "--frames", "50", "--no-pacing", "--scene", "scene1")
    assert set(data) >= KEYS
    assert data["frames"] == 50
    assert data["backend"] == "fake"
    for name in ("step_ms", "decode_ms", "input_to_submit_ms"):
        assert set(data[name]) == {"p50", "p99", "max"}  # type: ignore[call-overload]
    assert 0 < data["startup_s"] < 600  # type: ignore[operator]
    assert data["peak_rss_mb"] > 20  # type: ignore[operator]


def test_the_same_actions_give_the_same_frames_paced_or_not(door: Door, tmp_path: Path) -> None:
    words = ("--frames", "30", "--scene", "scene0", "--seed", "3")
    paced = report(door, tmp_path, *words)
    free = report(door, tmp_path, *words, "--no-pacing")
    other = report(door, tmp_path, "--frames", "30", "--scene", "scene0", "--no-pacing", "--actions", "spin")
    assert paced["frame_sha256"] == free["frame_sha256"]
    assert paced["frame_sha256"] != other["frame_sha256"]


def test_pictures_are_the_frames(door: Door, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report(door, tmp_path, "--frames", "6", "--no-pacing", "--scene", "scene0", "--out", str(out))
    assert sorted(p.name for p in out.iterdir()) == [f"{i:06d}.png" for i in range(6)]
    with Image.open(out / "000000.png") as first, Image.open(tmp_path / "scene0.png") as scene:
        assert np.array_equal(np.asarray(first), np.asarray(scene.convert("RGB")))


def test_a_video_has_every_frame(door: Door, tmp_path: Path) -> None:
    out = tmp_path / "walk.mp4"
    report(door, tmp_path, "--frames", "30", "--no-pacing", "--out", str(out))
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == 24
        assert sum(1 for _ in container.decode(stream)) == 30
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_lost_generator_leaves_no_half_written_file(door: Door, tmp_path: Path) -> None:
    out, path = tmp_path / "walk.mp4", tmp_path / "report.json"
    words = ("--frames", "30", "--out", str(out), "--json", str(path), "--backend", "crash")
    with pytest.raises(UserError, match="ended unexpectedly"):
        play(arguments(*words), door)
    assert not out.exists()
    assert not path.exists()
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--weights", "missing"), "no weights"),
        (("--scene", "nowhere"), "neither a scene"),
        (("--frames", "0"), "1 or more"),
        (("--seed", "-1"), "0 or more"),
        (("--actions", "dance"), "Unknown actions"),
        (("--json", "."), "is a folder"),
    ],
)
def test_bad_input_is_one_sentence(door: Door, words: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        play(arguments(*words), door)
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_one_sentence(door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recording.os, "replace", full)
    out = tmp_path / "out"
    with pytest.raises(UserError, match="No space left on device"):
        play(arguments("--frames", "5", "--no-pacing", "--out", str(out)), door)
    assert list(out.iterdir()) == []
    with pytest.raises(UserError, match="No space left on device"):
        play(arguments("--frames", "5", "--no-pacing", "--out", str(tmp_path / "a.mp4")), door)
    assert not list(tmp_path.glob("*.mp4"))
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize(
    ("imports", "absent"),
    [("app.headless, app.main", ("pygame", "torch")), ("app.program, app.main", ("torch",))],
)
def test_the_parent_imports_no_network_and_headless_no_window(imports: str, absent: tuple[str, ...]) -> None:
    code = f"import sys, {imports}, app.door; app.door.default_door(); print([m for m in {absent} if m in sys.modules])"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, env=dict(os.environ))
    assert done.stdout.strip() == "[]", done.stderr


def test_script_ticks_play_actions_in_order(door: Door) -> None:
    from controls.action import ActionSpec
    from controls.replay import built_in

    spec = ActionSpec()
    ticks = headless.ScriptTicks(built_in("stroll", spec, 5))
    rows = [ticks.tick() for _ in range(8)]
    script = built_in("stroll", spec, 5)
    actions = [script.next(), script.next()]
    assert np.array_equal(np.stack([row[1] for row in rows]), np.concatenate([a.look for a in actions]))
