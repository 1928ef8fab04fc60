"""The doctor names what is missing and never falls ill itself."""

import importlib.metadata
import importlib.util

import pytest

from generator.evaluation import doctor


def test_a_whole_world_is_found_and_timed(debug_world):
    text = "\n".join(doctor.examine(debug_world, 1))
    assert "are whole" in text and "times real time" in text
    assert "Python" in text and "torch" in text and "failed" not in text


def test_damaged_weights_are_named(debug_world, tmp_path):
    for file in debug_world.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    shard = next(tmp_path.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    assert "damaged" in "\n".join(doctor.examine(tmp_path, 1))


def test_everything_missing(monkeypatch, tmp_path):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    monkeypatch.setattr(doctor.sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    text = "\n".join(doctor.examine(tmp_path / "none", 1))
    for word in ("torch is not", "OpenVINO is not", "pygame-ce", "sounddevice is not", "ViZDoom is not", "no display"):
        assert word in text, word


@pytest.mark.parametrize(
    ("installed", "said"), [({"pygame", "pygame-ce"}, "overwrite each other"), ({"pygame"}, "instead of pygame-ce")]
)
def test_pygame_beside_or_instead_of_pygame_ce(monkeypatch, installed, said):
    monkeypatch.setattr(doctor, "version", lambda name: "1" if name in installed else None)
    assert said in doctor.window()[0]


def test_a_check_that_breaks_does_not_stop_the_others(monkeypatch, tmp_path):
    def broken():
        raise RuntimeError("no such luck")

    monkeypatch.setattr(doctor, "sound", broken)
    lines = doctor.examine(tmp_path, 1)
    assert any("sound failed: RuntimeError: no such luck" in line for line in lines)
    assert any("weights" in line for line in lines)
