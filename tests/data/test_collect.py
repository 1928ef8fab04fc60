"""Collecting: the plan of clips and splits, exact actions, workers, resuming, errors; scene export."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import yaml

from controls.errors import UserError
from generator.data import workers as processes
from generator.data.clips import Dataset
from generator.data.collect import clip_seed, collect, plan_clips
from generator.data.explorer import wrap
from generator.data.scenes import export_scene
from generator.data.sources import MapSource, is_held, open_maps, parse_range

pytest.importorskip("vizdoom")
FRAMES = 41


def sources(count: int = 24) -> list[MapSource]:
    return [MapSource(f"MAP{i + 1:02d}", i, "x", None, is_held(i, count)) for i in range(count)]


def test_every_eighth_map_is_held_out_and_some_seeds(tmp_path):
    maps = sources()
    jobs = plan_clips(maps, 241 * 1200, 3, tmp_path)
    assert {job.map for job in jobs if job.split == "held_map"} == {7, 15, 23}
    assert not {job.map for job in jobs if job.split != "held_map"} & {7, 15, 23}
    share = np.mean([job.split == "held_seed" for job in jobs if not maps[job.map].held])
    assert 0.05 < share < 0.11
    assert np.bincount([job.map for job in jobs]).tolist() == [50] * 24


def test_the_plan_does_not_depend_on_its_length(tmp_path):
    maps = sources()
    assert plan_clips(maps, 241 * 30, 3, tmp_path) == plan_clips(maps, 241 * 90, 3, tmp_path)[:30]
    assert len(plan_clips(maps, 242, 3, tmp_path)) == 2


def test_clip_seeds_differ(tmp_path):
    jobs = plan_clips(sources(), 241 * 200, 3, tmp_path)
    seeds = [clip_seed(3, job, attempt) for job in jobs for attempt in range(5)]
    assert len(set(seeds)) == len(seeds)


def test_a_short_list_of_maps_still_holds_one_out():
    assert [is_held(i, 1) for i in range(1)] == [False]
    assert [is_held(i, 3) for i in range(3)] == [False, False, True]
    assert [i for i in range(20) if is_held(i, 20)] == [7, 15]


@pytest.mark.parametrize("text", ["x", "5-2", "-3", "0-400", ""])
def test_bad_ranges_are_reported(text):
    with pytest.raises(UserError):
        parse_range(text)


def test_bad_arguments_are_reported(tmp_path):
    with pytest.raises(UserError, match="halls, freedoom"):
        collect("moon", tmp_path, 10)
    with pytest.raises(UserError, match="E9M9"):
        collect("freedoom", tmp_path, 10, maps="E1M1,E9M9")
    with pytest.raises(UserError, match="grand, small"):
        collect("halls", tmp_path, 10, size="vast")
    with pytest.raises(UserError, match="frames 0"):
        collect("freedoom", tmp_path, 0)
    assert parse_range("7") == (7, 7)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("freedoom")
    figures = collect("freedoom", out, 4 * FRAMES, seed=5, maps="MAP01,E1M2", clip_frames=FRAMES)
    assert figures["clips"] == 4
    return out


def test_clips_are_whole_and_looks_are_what_the_engine_did(folder):
    data = Dataset.open(folder)
    assert data.meta["hfov"] == pytest.approx(100.39, abs=0.01)
    for i in range(len(data)):
        clip = data.clip(i)
        assert len(clip) == FRAMES
        assert clip.frames().shape == (FRAMES, 160, 256, 3)
        assert not clip.keys[0].any() and not clip.look[0].any()
        pose = clip.pose.astype(float)
        np.testing.assert_allclose([wrap(d) for d in np.diff(pose[:, 3])], clip.look[1:, 0], atol=1e-3)
        np.testing.assert_allclose(np.diff(pose[:, 4]), clip.look[1:, 1], atol=1e-3)
        assert np.hypot(*np.diff(pose[:, :2], axis=0).T).max() < 48


def test_splits_are_written(folder):
    entries = Dataset.open(folder).meta["clips"]
    assert {e["split"] for e in entries if e["map"] == "E1M2"} == {"held_map"}
    assert {e["split"] for e in entries if e["map"] == "MAP01"} <= {"train", "held_seed"}


def test_resuming_gives_the_same_files(folder):
    before = {p.name: p.read_bytes() for p in sorted((folder / "clips").iterdir())}
    meta = (folder / "meta.json").read_text()
    (folder / "clips/000001.npz").unlink()
    damaged = folder / "clips/000002.npz"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    (folder / "meta.json").write_text(meta[:50])
    figures = collect("freedoom", folder, 4 * FRAMES, seed=5, maps="MAP01,E1M2", clip_frames=FRAMES)
    assert figures["stored_frames"] == 2 * FRAMES
    assert {p.name: p.read_bytes() for p in sorted((folder / "clips").iterdir())} == before
    assert json.loads((folder / "meta.json").read_text()) == json.loads(meta)


def test_resuming_with_other_settings_is_refused(folder):
    with pytest.raises(UserError, match="seed 5"):
        collect("freedoom", folder, 4 * FRAMES, seed=6, maps="MAP01,E1M2", clip_frames=FRAMES)
    with pytest.raises(UserError, match="another --out"):
        collect("freedoom", folder, 4 * FRAMES, seed=5, maps="MAP01,E1M2")
    with pytest.raises(UserError, match="another --out"):
        collect("freedoom", folder, 4 * FRAMES, seed=5, maps="MAP01", clip_frames=FRAMES)


def test_scene_export(folder, tmp_path):
    data = Dataset.open(folder)
    made = export_scene(data, 1, 7, "grey-yard", "Grey: yard", "It's so", tmp_path, "still")
    scene = yaml.safe_load((made / "scene.yaml").read_text())
    assert (scene["title"], scene["caption"], scene["world"]) == ("Grey: yard", "It's so", "freedoom")
    assert scene["weights"] == "still"
    assert scene["pose"] == pytest.approx(data.clip(1).pose[7].tolist(), abs=1e-3)
    assert (made / scene["picture"]).is_file()
    for arguments in [(9, 0, "a"), (0, 500, "a"), (0, 0, "../a")]:
        with pytest.raises(UserError):
            export_scene(data, *arguments, "t", "c", tmp_path)


def test_runs_and_workers_leave_no_trace(tmp_path):
    """One process, one process again and two: the same actions, poses and pictures, bit for bit."""
    data = []
    for name, workers in (("one", 1), ("again", 1), ("two", 2)):
        collect("halls", tmp_path / name, 4 * 61, seed=5, maps="0-1", workers=workers, clip_frames=61)
        data.append(Dataset.open(tmp_path / name))
    for other in data[1:]:
        assert other.meta == data[0].meta
        for i in range(4):
            a, b = data[0].clip(i), other.clip(i)
            for name in ("keys", "look", "pose"):
                np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
            np.testing.assert_array_equal(a.frames(), b.frames(), err_msg=f"clip {i}")
    files = [sorted((tmp_path / name / "clips").iterdir()) for name in ("one", "again", "two")]
    for same in zip(*files, strict=True):
        assert len({path.read_bytes() for path in same}) == 1, same


def test_halls_maps_have_grids(tmp_path):
    maps = open_maps("halls", tmp_path, 3, "6-8")
    assert [m.held for m in maps] == [False, True, False]
    assert all(len(m.walk_grid().places) > 50 for m in maps)
    assert (tmp_path / "halls.pk3").is_file()


def double(number: int) -> int:
    """A job, one of which ends its process."""
    if number == 3:
        os._exit(1)
    return 2 * number


def nothing() -> None:
    """How a process begins."""


def test_a_process_that_dies_is_no_wait_for_ever(monkeypatch):
    """Two engines that made their folder at once: one ended its process, and the last clip never came."""
    monkeypatch.setattr(processes, "PATIENCE", 0.2)
    assert sorted(processes.on_workers(double, [0, 1, 2], 2, nothing)) == [0, 2, 4]
    done = []
    with pytest.raises(UserError, match="give the same command again"):
        done.extend(processes.on_workers(double, [1, 3, 5, 7], 2, nothing))
    assert sorted(done) == [2, 10, 14]


STUBBORN = """
import sys, time, weakref
from generator.data.collect import _end_on_terminate

class Thing: pass

def slow():
    print("finalising", flush=True)
    time.sleep(1.0)

_end_on_terminate(0.3)
thing = Thing()
weakref.finalize(thing, slow)
del thing  # what is raised in here is printed and forgotten
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
def test_a_worker_that_swallowed_its_end_is_told_again():
    """Workers whose engine did not open were ended while a folder was being removed, and the parent waited for ever."""
    given = os.environ | {"PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}
    worker = subprocess.Popen([sys.executable, "-c", STUBBORN], env=given, stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None and worker.stdout.readline() == "finalising\n"
    worker.terminate()
    assert worker.wait(20) == 143
