"""The sound card for real: PortAudio playing to a virtual ALSA device that writes what it hears to a file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[3]
VIRTUAL = """
pcm.!default {{ type file slave.pcm {{ type null }} file "{0}" format raw }}
ctl.!default {{ type null }}
"""
PLAY = """
import time
from types import SimpleNamespace
from app.sound.scape import Soundscape

sound = Soundscape(volume=1.0)
sound.scene(SimpleNamespace(name="moon-cloister", title="", caption=""))
end = time.monotonic() + 90
while time.monotonic() < end and not sound.problem and not (sound.mixer and not sound.mixer._places[0].silent):
    time.sleep(0.05)
blocks = sound.mixer.blocks if sound.mixer else 0
sound.interface("accept")
while time.monotonic() < end and sound.mixer and sound.mixer.blocks < blocks + 400:
    time.sleep(0.05)
print(sound.problem or sound.figures())
sound.close()
"""


def test_a_virtual_device_hears_the_sound(tmp_path: Path) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("ALSA is Linux's")
    heard, config = tmp_path / "heard.raw", tmp_path / "asound.conf"
    config.write_text(VIRTUAL.format(heard))
    environment = {**os.environ, "ALSA_CONFIG_PATH": str(config), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", PLAY], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    if done.stdout.startswith("No sound"):
        pytest.skip(done.stdout.strip())
    assert "underruns" in done.stdout
    raw = heard.read_bytes()
    sound = np.frombuffer(raw[: len(raw) // 8 * 8], np.float32)
    assert np.isfinite(sound).all() and 0.005 < np.abs(sound).max() < 1.0


def test_without_portaudio_the_reason_is_one_sentence(tmp_path: Path) -> None:
    """The real module is imported where the system's PortAudio cannot be found."""
    code = (
        "import ctypes.util, sys; ctypes.util.find_library = lambda name: None\n"
        "from app.sound.scape import Soundscape\n"
        "sound = Soundscape(in_thread=False)\n"
        "print(sound.news()); sound.frame(__import__('numpy').zeros((160, 256, 3), 'uint8')); sound.close()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stdout.strip()
    assert said.count("\n") == 0
    if sys.platform.startswith("linux"):  # elsewhere the wheel brings PortAudio along
        assert said.startswith("No sound: PortAudio is missing") and "libportaudio2" in said
