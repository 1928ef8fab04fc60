"""The sound of a session: shown pictures and menu moves in, orders to the mixer out.

The card is opened and sounds are made in a thread of their own, so that no screen waits for them. Without a card every
method does nothing, and `problem` says why. Pictures are measured only while something can be heard.

Does not know about windows, keys, the generator, or how sounds are made.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from app.sound.ambience import PLACES, ambience, footsteps, interface, place_of, wind
from app.sound.device import Module, Output, Silence, load_sounddevice
from app.sound.mixer import Mixer
from app.sound.motion import FloorMotion
from app.sound.steps import Stride
from app.sound.synth import Sound
from controls.errors import UserError

Pixels = npt.NDArray[np.uint8]
STEP_STRENGTH = 0.16
INTERFACE_STRENGTH = 0.12
STORM = 9.0  # degrees of turn per picture at which the wind is strongest
CALM = 0.4  # and below which there is none
PAUSED = 0.35  # how loud everything else is under the pause menu


class Soundscape:
    """`volume` 0 to 1. `in_thread` False does all work at once, for tests. Close it in the end."""

    def __init__(
        self,
        volume: float = 0.8,
        muted: bool = False,
        fps: float = 24.0,
        module: Module | None = load_sounddevice,
        in_thread: bool = True,
    ) -> None:
        self.volume = volume
        self.muted = muted
        self.problem = ""
        self._told = ""
        self._module = module
        self._output: Output | None = None
        self._interface: dict[str, Sound] = {}
        self._steps: dict[str, list[Sound]] = {}
        self._ground = "stone"
        self._floor: FloorMotion | None = None
        self._stride = Stride(fps)
        self._foot = 0
        self._place: str | None = None
        self._ducked = 1.0
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        if in_thread:
            self._thread = threading.Thread(target=self._work, daemon=True, name="farstep-sound")
            self._thread.start()
        if module is not None:
            self._do(self._open)

    @classmethod
    def silent(cls) -> Soundscape:
        """One that never opens a card and says nothing about it."""
        return cls(module=None, in_thread=False)

    # --- the thread that makes sounds
    def _do(self, job: Callable[[], None]) -> None:
        if self._thread is None:
            job()
        else:
            self._jobs.put(job)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def _open(self) -> None:
        if self._module is None or (self._output is not None and not self._output.lost):
            return
        again = self._output is not None or bool(self.problem)
        if self._output is not None:
            self._output.close()
        try:
            self._output = Output(self._make_mixer, self._module, again)
        except Silence as error:
            self._output, self.problem = None, str(error)
            return
        self.problem = ""
        rate = self._output.rate
        self._interface = interface(rate)
        self._make_place()

    def _make_mixer(self, rate: int) -> Mixer:
        mixer = Mixer(rate, wind(rate))
        self._set(mixer)
        return mixer

    def _make_place(self) -> None:
        output, place = self._output, self._place
        if output is None:
            return
        if place is None:
            output.mixer.set_ambience(None)
            return
        ground = PLACES[place].ground
        if ground not in self._steps:
            self._steps[ground] = footsteps(ground, output.rate)
        self._ground = ground
        output.mixer.set_ambience(ambience(place, output.rate))

    # --- what the program says
    @property
    def mixer(self) -> Mixer | None:
        """The mixer, None while there is no card."""
        return self._output.mixer if self._output is not None else None

    def _set(self, mixer: Mixer | None) -> None:
        if mixer is not None:
            mixer.volume, mixer.muted, mixer.ducked = self.volume, self.muted, self._ducked

    def set_level(self, volume: float, muted: bool) -> None:
        """A new volume (0 to 1), and whether nothing at all is heard; unmuting tries a missing card again."""
        again = self.muted and not muted
        self.volume, self.muted = volume, muted
        self._set(self.mixer)
        if again and (self._output is None or self._output.lost):
            self._do(self._open)

    def scene(self, scene: Any | None, picture: Pixels | None = None) -> str:
        """Fade over to a scene's ambience, None: to silence; returns a sentence when its YAML is wrong, else ""."""
        self.jumped()
        notice, self._place = "", None
        if scene is not None:
            try:
                self._place = place_of(scene, picture)
            except UserError as error:
                notice, self._place = str(error), "court"
        self._do(self._make_place)
        return notice

    def jumped(self) -> None:
        """The next picture does not follow the last one."""
        self._stride.reset()
        if self._floor is not None:
            self._floor.forget()

    def frame(self, picture: Pixels) -> None:
        """A generated picture uint8 (Y, X, 3) is shown: steps and wind follow what moved in it."""
        mixer = self.mixer
        if mixer is None or self.muted or self.volume == 0:
            return
        size = (picture.shape[1], picture.shape[0])
        if self._floor is None or self._floor.size != size:
            self._floor = FloorMotion(size)
        motion = self._floor.measure(picture)
        blow = (abs(motion.turn) - CALM) / (STORM - CALM)
        mixer.wind = max(mixer.wind, min(1.0, max(0.0, blow)))
        if self._stride.step(motion) and self._steps.get(self._ground):
            steps = self._steps[self._ground]
            self._foot += 1
            variant = (self._foot * 5 + self._foot // 3) % len(steps)
            side = 0.18 if self._foot % 2 else -0.18
            mixer.play(steps[variant], STEP_STRENGTH * (0.85 + 0.15 * (variant / len(steps))), side)

    def paused(self, on: bool) -> None:
        """Under a menu the world is quieter."""
        self._ducked = PAUSED if on else 1.0
        self.jumped()
        self._set(self.mixer)

    def interface(self, name: str) -> None:
        """Play a sound of the menus (see `ambience.INTERFACE`)."""
        mixer, sound = self.mixer, self._interface.get(name)
        if mixer is not None and sound is not None:
            mixer.play(sound, INTERFACE_STRENGTH / max(self._ducked, 1e-3))

    def news(self) -> str:
        """A sentence that has not been told yet: why there is silence; else ""."""
        if self._output is not None and self._output.lost and not self.problem:
            self.problem = "No sound: the output device is gone; connect one, then press M twice."
        new = self.problem if self.problem != self._told else ""
        self._told = self.problem
        return new

    def figures(self) -> str:
        """For the overlay: the state of the sound and how often the card ran dry."""
        if self._output is None or self._output.lost:
            return "none"
        state = "muted" if self.muted else f"{100 * self.volume:.0f} %"
        return f"{state}, {self._output.underruns} underruns"

    def close(self) -> None:
        """Let the card and the thread go."""
        self._jobs.put(None)
        if self._output is not None:
            self._output.close()
