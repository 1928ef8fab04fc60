"""The doctor names what is missing and never falls ill itself."""

import importlib.metadata
import importlib.util

import pytest

from generator.checkpoint import load_weights
from generator.evaluation import doctor, latency


def test_a_whole_world_is_found_and_timed(debug_world):
    text = "\n".join(doctor.examine(debug_world, 1))
    assert "are whole" in text and "times real time" in text
    assert "Python" in text and "torch" in text and "failed" not in text
    assert "hold 24 frames a second on this machine" in text or "--nfe 1 holds 24 frames a second" in text


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


@pytest.mark.parametrize(
    ("call", "rest", "said"),
    [
        (20.0, 60.0, "--nfe 2 to 5 hold it too (openvino: 20 ms a call and 60 ms for the rest, of 167 ms per 4"),
        (5.0, 60.0, "--nfe 2 to 10 hold it too"),
        (53.0, 60.0, "--nfe 2 holds it too"),
        (60.0, 60.0, "--nfe 1 holds 24 frames a second on this machine. With the teacher, --nfe 2 and more do not"),
        (60.0, 160.0, "--nfe 1 does not hold 24 frames a second"),
    ],
)
def test_the_dial_is_what_the_machine_holds(teacher_world, monkeypatch, call, rest, said):
    """The teacher is timed in two calls, beside what else the backend does."""
    monkeypatch.setattr(latency, "time_backend", lambda *given, **more: report_of(1, call, rest))
    monkeypatch.setattr(latency, "time_opened", lambda *given: report_of(2, call, rest))
    assert said in "\n".join(doctor.weights_and_speed(teacher_world, 1))


def report_of(calls, call, rest):
    times = {"transformer_ms": {"p50": calls * call}, "total_ms": {"p50": calls * call + rest}}
    return times | {"backend": "openvino", "real_time_factor": 1.0, "fps": 24.0}


def test_weights_without_a_teacher_have_one_setting(debug_world):
    assert "have no many-step teacher, so there is no other setting" in "\n".join(
        doctor.weights_and_speed(debug_world, 1)
    )


def test_calls_held_by_hand():
    assert [doctor.calls_held(*given) for given in ((10, 60, 100), (10, 60, 99), (10, 120, 100))] == [4, 3, 0]


def test_worlds_with_fine_detail_are_timed_without_it_too(place_folder, debug_world, monkeypatch):
    lightened = []
    monkeypatch.setattr(latency, "time_opened", lambda opened, *given: lightened.append(opened) or report_of(1, 5, 45))
    (line,) = doctor.less_detail(load_weights(place_folder), 1)
    assert line == "Without fine detail (--detail light): about 50 ms, 1.0 times real time."
    assert lightened[0].reprojection.turn.light and doctor.less_detail(load_weights(debug_world), 1) == []


@pytest.mark.parametrize(("gain", "said"), [(1.6, "convolve in int8 1.6 times as fast"), (0.9, "from 1.15 on worlds")])
def test_processors_without_vnni_say_what_int8_is_worth(monkeypatch, gain, said):
    openvino = pytest.importorskip("generator.runtime.openvino")
    monkeypatch.setattr("generator.precision.adds_int8_exactly", lambda: False)
    monkeypatch.setattr(openvino, "gain_of_int8", lambda: gain)
    assert said in doctor.processor()[-1]
