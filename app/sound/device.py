"""The sound card: opening it, feeding it from a mixer, and saying in one sentence why there is silence.

`sounddevice` is imported only here and only when sound is opened: its Linux wheel has no PortAudio of its own.
Does not know what is played.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from app.sound.mixer import Mixer
from app.sound.synth import Sound

LATENCY = 0.08  # seconds: short enough for footsteps, long enough for a process that also draws
RATES = (22_050, 48_000)  # the lowest and highest rate that sound is made at; cards convert
Module = Callable[[], Any]


def load_sounddevice() -> Any:
    """The module; ImportError or OSError where it or PortAudio is missing."""
    return importlib.import_module("sounddevice")


class Silence(Exception):
    """There is no sound: one sentence with the reason and what to do."""


class Output:
    """A sound card that plays what `mixer` renders; `underruns` counts the times the card ran dry.

    `make` gets the rate and returns the mixer; `again`: look anew for what is connected, no other card being open.
    Silence when there is no PortAudio or no device.
    """

    def __init__(self, make: Callable[[int], Mixer], module: Module = load_sounddevice, again: bool = False) -> None:
        self.underruns = 0
        self.lost = False
        self._closing = False
        try:
            cards = module()
        except ImportError as error:
            raise Silence("No sound: the package sounddevice is missing; run `pip install sounddevice`.") from error
        except OSError as error:
            raise Silence(
                f"No sound: PortAudio is missing ({error}); install it (Debian: `apt install libportaudio2`)."
            ) from error
        try:
            if again:  # PortAudio looks for cards only when it starts
                cards._terminate()
                cards._initialize()
            rate = round(float(cards.query_devices(kind="output")["default_samplerate"]))
            self.rate = min(max(rate, RATES[0]), RATES[1])
            self.mixer = make(self.rate)
            self._stream = cards.OutputStream(
                samplerate=self.rate,
                channels=2,
                dtype="float32",
                latency=LATENCY,
                callback=self.callback,
                finished_callback=self.finished,
            )
            self._stream.start()
        except (cards.PortAudioError, ValueError, OSError) as error:
            reason = str(error).splitlines()[0] if str(error) else "no reason given"
            raise Silence(
                f"No sound: no output device can be opened ({reason}); connect one, then press M twice."
            ) from error

    def callback(self, out: Sound, frames: int, time: Any, status: Any) -> None:
        """Runs in the sound card's thread: fill out (S, 2) and return."""
        if status and status.output_underflow:
            self.underruns += 1
        self.mixer.render(out)

    def finished(self) -> None:
        """Runs in the sound card's thread when the stream has ended."""
        self.lost = not self._closing

    def close(self) -> None:
        """Let the card go; harmless when repeated or when the card is gone."""
        if self._closing:
            return
        self._closing = True
        try:
            self._stream.close(ignore_errors=True)
        except OSError as error:  # some drivers refuse to close what was unplugged
            self.lost = bool(error)


def blank(count: int) -> Sound:
    """Room for a block: zeros (S, 2)."""
    return np.zeros((count, 2), np.float32)
