"""The run without a display: report, files, repeatability, and sentences for bad input."""

from __future__ import annotations

import functools
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

from app import figures, headless, recording
from app.door import Door
from app.main import add_arguments, play
from controls.errors import UserError

KEYS = {
    "frames", "fps", "step_ms", "decode_ms", "input_to_submit_ms", "late_frames", "startup_s", "peak_rss_mb",
    "rss_mb", "backend", "frame_sha256",
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
    assert data["frames"] == 50 and data["detail"] == "full"
    assert data["backend"] == "fake"
    for name in ("step_ms", "decode_ms", "input_to_submit_ms"):
        assert set(data[name]) == {"p50", "p99", "max"}  # type: ignore[call-overload]
    assert 0 < data["startup_s"] < 600  # type: ignore[operator]
    assert data["peak_rss_mb"] > 20  # type: ignore[operator]


def test_it_says_whether_detail_was_left_out(door: Door, tmp_path: Path) -> None:
    words = ("--frames", "9", "--no-pacing", "--scene", "scene1", "--detail")
    assert [report(door, tmp_path, *words, name)["detail"] for name in ("light", "full")] == ["light", "full"]


def test_the_memory_of_both_processes_is_followed(door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sampled every quarter second of video here: steps that keep 2 MB each show."""
    trend = functools.partial(figures.MemoryTrend, every=0.25)
    monkeypatch.setattr(headless, "MemoryTrend", trend)
    words = ("--frames", "73", "--no-pacing", "--scene", "scene0")
    flat, leak = (report(door, tmp_path, *words, "--backend", name)["rss_mb"] for name in ("fake", "leak"))
    assert isinstance(flat, dict) and isinstance(leak, dict)
    assert set(flat) == {"start", "end", "max", "slope_mb_per_hour"}
    assert 20 < flat["start"] <= flat["max"] and flat["end"] <= flat["max"]
    assert leak["end"] - leak["start"] > 20
    # 2 MB every 4 frames is 43,200 MB in an hour of video
    assert leak["slope_mb_per_hour"] > 20_000 > flat["slope_mb_per_hour"]


def test_the_slope_of_memory_leaves_the_start_out() -> None:
    read = iter([100.0, 180.0, 200.0, 201.0, 202.0, 203.0])
    trend = figures.MemoryTrend(lambda: next(read), fps=24)
    assert trend.report() == dict.fromkeys(("start", "end", "max", "slope_mb_per_hour"))
    for frames in range(1, 720 * 5 + 2):
        trend.shown(frames)
    assert list(read) == []
    assert trend.report() == {"start": 100.0, "end": 203.0, "max": 203.0, "slope_mb_per_hour": pytest.approx(120.0)}
    read = iter([100.0, 103.0, 104.0])
    short = figures.MemoryTrend(lambda: next(read), fps=24)
    short.shown(1)
    short.shown(2)
    short.sample(2)
    short.sample(2)
    assert next(read) == 104.0
    assert short.report() == {"start": 100.0, "end": 103.0, "max": 103.0, "slope_mb_per_hour": None}


def test_a_process_that_is_gone_uses_no_memory() -> None:
    assert figures.rss_mb() > 20
    assert figures.rss_mb(2**22 + 1) == 0.0


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
        (("--detail", "auto"), "give full or light"),
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
