"""Clips on disk: round trip, damage, the sample that ships."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from controls.errors import UserError
from generator.data.clips import Clip, Dataset, read_clip, to_jpeg, write_clip

SAMPLE = Path(__file__).parent / "sample"


def make_clip(frames: int = 5) -> Clip:
    rng = np.random.default_rng(0)
    pictures = [Image.new("RGB", (32, 16), (40 * i, 100, 200 - 20 * i)) for i in range(frames)]
    blobs = [to_jpeg(p) for p in pictures]
    return Clip(
        keys=rng.integers(0, 2, (frames, 8)).astype(np.uint8),
        look=rng.normal(size=(frames, 2)).astype(np.float32),
        pose=rng.normal(size=(frames, 5)).astype(np.float32),
        jpeg=np.frombuffer(b"".join(blobs), np.uint8),
        offsets=np.cumsum([0, *map(len, blobs)], dtype=np.int64),
        clip_seed=77,
    )


@pytest.fixture
def folder(tmp_path):
    write_clip(tmp_path / "clips/000000.npz", make_clip())
    entry = {"file": "clips/000000.npz", "frames": 5, "map": "MAP01", "map_seed": 3, "theme": "x", "clip_seed": 77}
    spec = json.loads((SAMPLE / "meta.json").read_text())["action_spec"]
    meta = {"format": 1, "world": "halls", "width": 32, "height": 16, "fps": 24, "hfov": 100.0, "action_spec": spec}
    meta |= {"seed": 1, "clips": [entry | {"split": "train"}]}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    return tmp_path


def test_round_trip(folder):
    stored, clip = read_clip(folder / "clips/000000.npz"), make_clip()
    for name in ("keys", "look", "pose", "jpeg", "offsets"):
        np.testing.assert_array_equal(getattr(stored, name), getattr(clip, name))
    assert stored.clip_seed == 77
    frames = stored.frames(1, 3)
    assert frames.shape == (3, 16, 32, 3)
    assert frames.dtype == np.uint8
    assert np.abs(frames[1].astype(int) - (80, 100, 160)).max() <= 3
    assert len(stored.frames(2)) == 3


def test_dataset_selects_by_split(folder):
    data = Dataset.open(folder)
    assert (len(data), data.size, data.select("train"), data.select("held_map")) == (1, (32, 16), [0], [])
    with pytest.raises(UserError, match="held_seed"):
        data.select("test")


def test_writing_leaves_no_scraps(folder):
    assert [p.name for p in (folder / "clips").iterdir()] == ["000000.npz"]


@pytest.mark.parametrize("keep", [0, 10, 500])
def test_a_cut_shard_is_reported(folder, keep):
    path = folder / "clips/000000.npz"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match="missing or empty"):
        Dataset.open(folder)
    with pytest.raises(UserError, match="damaged"):
        read_clip(path)


def test_a_missing_shard_is_reported(folder):
    (folder / "clips/000000.npz").unlink()
    with pytest.raises(UserError, match=r"000000\.npz"):
        Dataset.open(folder)


def test_a_shard_of_another_length_is_reported(folder):
    write_clip(folder / "clips/000000.npz", make_clip(3))
    with pytest.raises(UserError, match="does not fit"):
        Dataset.open(folder).clip(0)


def test_a_damaged_frame_is_reported(folder):
    clip = make_clip()
    broken = Clip(clip.keys, clip.look, clip.pose, np.zeros_like(clip.jpeg), clip.offsets)
    with pytest.raises(UserError, match="Frame 2"):
        broken.frames(2, 1)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2}', '{"format": 1}', '{"format": 1, "clips": 3}'])
def test_damaged_metadata_is_reported(folder, text):
    (folder / "meta.json").write_text(text)
    with pytest.raises(UserError):
        Dataset.open(folder)


def test_no_data_set(tmp_path):
    with pytest.raises(UserError, match=r"run\.py collect"):
        Dataset.open(tmp_path / "nothing")


def test_sample_is_small_and_whole():
    assert sum(p.stat().st_size for p in SAMPLE.rglob("*") if p.is_file()) < 3_000_000
    data = Dataset.open(SAMPLE)
    assert data.size == (256, 160)
    assert data.meta["world"] == "halls"
    for i in range(len(data)):
        clip = data.clip(i)
        assert clip.frames(0, 2).shape == (2, 160, 256, 3)
        assert not clip.keys[0].any() and not clip.look[0].any()
        turned = (np.diff(clip.pose[:, 3].astype(float)) + 180) % 360 - 180
        assert np.abs(turned - clip.look[1:, 0]).max() < 1e-3
