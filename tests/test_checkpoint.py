"""Weights on disk: what was saved comes back, and every kind of damage is one sentence."""

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from controls.errors import UserError
from generator import checkpoint
from generator.checkpoint import config_from_dict, load_weights, read_manifest, save_weights
from generator.model import packing


@pytest.fixture
def folder(world_folder, tmp_path):
    """A copy that a test may damage."""
    return Path(shutil.copytree(world_folder, tmp_path / "world"))


def shard(folder: Path) -> Path:
    return sorted(folder.glob("*.safetensors"))[0]


def forge(folder: Path, change) -> None:
    """Change config.json as someone who knows how to sign it."""
    manifest = json.loads((folder / "config.json").read_text())
    change(manifest)
    body = {key: manifest.get(key) for key in ("format", "config", "files")}
    manifest["hash"] = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    (folder / "config.json").write_text(json.dumps(manifest))


def sentence(call) -> str:
    """The one line of the UserError that a call ends in."""
    with pytest.raises(UserError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".")
    return text


def test_what_was_saved_comes_back(folder):
    first = load_weights(folder)
    again = folder.parent / "again"
    name = save_weights(again, first.config, first.tokenizer, first.dit.state_dict(), {"step": 3}, first.parallax)
    second = load_weights(again)
    assert (second.config, second.hash) == (first.config, first.hash) and name == first.hash
    for one, other in ((first.dit, second.dit), (first.tokenizer, second.tokenizer)):
        assert all(torch.equal(v, other.state_dict()[k]) for k, v in one.state_dict().items())
    assert not first.dit.training and config_from_dict(json.loads(json.dumps(first.config.to_dict()))) == first.config


def test_whole_numbers_are_packed_and_come_back(folder, monkeypatch):
    """Those of a parallax's map, say; here every tensor that could be is, whatever its size."""
    monkeypatch.setattr(packing, "LEAST", 0)
    first = load_weights(folder)
    first.dit.register_buffer("numbers", torch.arange(12).view(3, 4))
    save_weights(folder, first.config, first.tokenizer, first.dit.state_dict(), parallax=first.parallax)
    names = {name for path in folder.glob("*.safetensors") for name in load_file(path)}
    assert "dit.numbers" + packing.ENDING in names and "dit.numbers" not in names
    with pytest.raises(UserError, match="numbers"):
        load_weights(folder)  # unpacked, and known to no network


def test_large_weights_are_split(folder, monkeypatch):
    weights = load_weights(folder)
    monkeypatch.setattr(checkpoint, "SHARD_BYTES", 20_000)
    save_weights(folder, weights.config, weights.tokenizer, weights.dit.state_dict(), parallax=weights.parallax)
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) > 3 and set(read_manifest(folder)["files"]) == {path.name for path in shards}
    assert all(torch.equal(v, weights.dit.state_dict()[k]) for k, v in load_weights(folder).dit.state_dict().items())


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "remove"])
def test_a_damaged_shard_is_named(folder, damage):
    path = shard(folder)
    blob = bytearray(path.read_bytes())
    blob[len(blob) // 2] ^= 1
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes({"flip": bytes(blob), "cut": bytes(blob[:100]), "empty": b""}[damage])
    assert path.name in sentence(lambda: load_weights(folder))


def test_no_weights_at_all(tmp_path):
    assert "--weights" in sentence(lambda: load_weights(tmp_path / "nothing"))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"format": 1}', '{"format": 99}', "\x00\xff"])
def test_a_damaged_config_is_reported(folder, text):
    (folder / "config.json").write_text(text)
    assert "config.json" in sentence(lambda: load_weights(folder))


def test_an_edited_config_is_reported(folder):
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"window": 3', '"window": 4'))
    assert "changed" in sentence(lambda: load_weights(folder))


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["config"]["dit"].update(depth=3),
        lambda m: m["config"]["dit"].update(heads=5),
        lambda m: m["config"]["dit"].update(patch=0),
        lambda m: m["config"]["dit"].update(dept=2),
        lambda m: m["config"]["dit"].update(depth="two"),
        lambda m: m["config"].pop("dit"),
        lambda m: m["config"].pop("fps"),
        lambda m: m["config"]["action_spec"].pop("ticks"),
        lambda m: m["config"]["tokenizer"].update(latent_channels=4),
    ],
    ids=["deeper", "heads", "patch", "unknown", "mistyped", "no dit", "no fps", "no ticks", "other tokenizer"],
)
def test_a_config_of_another_network_is_reported(folder, change):
    forge(folder, change)
    sentence(lambda: load_weights(folder))


@pytest.mark.parametrize("broken_write", [1, 2])
def test_a_full_disk_leaves_the_old_weights_whole(folder, monkeypatch, broken_write):
    weights = load_weights(folder)
    changed = {name: value + 1 for name, value in weights.dit.state_dict().items()}
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    count = 0

    def full(handle):
        nonlocal count
        count += 1
        if count >= broken_write:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    text = sentence(lambda: save_weights(folder, weights.config, weights.tokenizer, changed, parallax=weights.parallax))
    assert "No space left" in text
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert load_weights(folder).hash == weights.hash


def test_a_run_killed_while_saving_leaves_the_old_weights_whole(folder, monkeypatch):
    weights = load_weights(folder)
    changed = {name: value + 1 for name, value in weights.dit.state_dict().items()}
    replace = os.replace

    def killed(source, target):
        if Path(target).name == "config.json":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save_weights(folder, weights.config, weights.tokenizer, changed, parallax=weights.parallax)
    monkeypatch.undo()
    assert load_weights(folder).hash == weights.hash


def test_new_weights_replace_old_ones(folder):
    weights = load_weights(folder)
    changed = {name: value + 1 for name, value in weights.dit.state_dict().items()}
    name = save_weights(folder, weights.config, weights.tokenizer, changed, parallax=weights.parallax)
    assert load_weights(folder).hash == name != weights.hash
    assert {p.name for p in folder.glob("*.safetensors")} == set(read_manifest(folder)["files"])


def test_a_file_where_the_folder_should_be(folder):
    weights = load_weights(folder)
    path = folder / "config.json"
    sentence(
        lambda: save_weights(
            path, weights.config, weights.tokenizer, weights.dit.state_dict(), parallax=weights.parallax
        )
    )
    sentence(lambda: load_weights(path))
