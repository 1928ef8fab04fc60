"""The mixer: two crossfading ambiences, wind, strokes and a master volume, rendered block by block.

`render` is what the sound card's callback runs. It waits for nothing and holds no lock: the program leaves orders in a
deque and targets in plain attributes. Its work space is made beforehand; a block makes only views. Every gain moves in
ramps, so that nothing clicks, and the sum is bounded.

Shape key: S samples of a block, 2 channels; gains are factors, `rate` samples a second.
Does not know what the sounds mean, or about devices and threads.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from app.sound.synth import Sound

CHUNK = 512  # gains move along a straight line within a chunk
CROSSFADE = 2.0  # seconds from nothing to all of an ambience
QUICK = 0.08  # seconds from nothing to all of every other gain
VOICES = 8  # strokes at the same time; one more takes the place of the oldest
WIND_DECAY = 0.5  # seconds in which the wind dies down when nobody says that it still blows


class Gain:
    """A factor that moves to its `target`, at most from 0 to 1 in `seconds`."""

    def __init__(self, value: float, seconds: float, rate: int) -> None:
        self.value = value
        self.target = value
        self._per_sample = 1 / (seconds * rate)

    def over(self, count: int) -> tuple[float, float]:
        """Where the factor stands now and after `count` samples; it moves there."""
        before, step = self.value, self._per_sample * count
        self.value = before + min(step, max(-step, self.target - before))
        return before, self.value


class Loop:
    """A loop (S, 2) with its place and its gain."""

    def __init__(self, sound: Sound | None, gain: Gain) -> None:
        self.sound = sound
        self.gain = gain
        self.place = 0

    @property
    def silent(self) -> bool:
        """Whether it can be replaced without a click."""
        return self.sound is None or (self.gain.value == 0 and self.gain.target == 0)


class _Voice:
    def __init__(self) -> None:
        self.sound: Sound | None = None
        self.place = 0
        self.left = self.right = 0.0


class Mixer:
    """Orders: `play`, `set_ambience`, and the attributes `volume`, `muted`, `ducked` (0 to 1) and `wind` (0 to 1)."""

    def __init__(self, rate: int, wind: tuple[Sound, Sound] | None = None) -> None:
        self.rate = rate
        self.volume = 1.0
        self.muted = False
        self.ducked = 1.0
        self.wind = 0.0
        self.blocks = 0
        self._orders: deque[tuple[Sound, float, float]] = deque(maxlen=32)
        self._wanted: deque[Sound | None] = deque(maxlen=1)
        self._places = [Loop(None, Gain(0.0, CROSSFADE, rate)) for _ in range(2)]
        self._winds = [Loop(sound, Gain(0.0, QUICK, rate)) for sound in (wind or ())]
        self._master = Gain(0.0, QUICK, rate)
        self._voices = [_Voice() for _ in range(VOICES)]
        self._next = 0
        self._ramp = np.linspace(0, 1, CHUNK, endpoint=False, dtype=np.float32)[:, None]
        self._gain = np.zeros((CHUNK, 1), np.float32)
        self._part = np.zeros((CHUNK, 2), np.float32)
        self._sum = np.zeros((CHUNK, 2), np.float32)

    def play(self, sound: Sound, strength: float = 1.0, side: float = 0.0) -> None:
        """Strike `sound` (S,) once, at `strength`, from `side` (-1 left to 1 right), with the next block."""
        self._orders.append((sound, strength, side))

    def set_ambience(self, loop: Sound | None) -> None:
        """Fade over to `loop` (S, 2), None: to silence. While a fade is going on only the last wish is kept."""
        self._wanted.append(loop)

    def render(self, out: Sound) -> None:
        """Fill out (S, 2), whatever its length."""
        self._take_orders()
        self.blocks += 1
        self._master.target = 0.0 if self.muted else min(1.0, max(0.0, self.volume)) ** 2 * self.ducked
        for start in range(0, len(out), CHUNK):
            self._chunk(out[start : start + CHUNK])

    def _take_orders(self) -> None:
        while self._orders:
            sound, strength, side = self._orders.popleft()
            voice = self._voices[self._next]
            self._next = (self._next + 1) % VOICES
            voice.sound, voice.place = sound, 0
            voice.left, voice.right = strength * min(1.0, 1 - side), strength * min(1.0, 1 + side)

    def _change_place(self) -> None:
        now, other = self._places
        if self._wanted and other.silent:
            loop = self._wanted.popleft()
            if loop is now.sound:
                return
            other.sound, other.place = loop, 0
            other.gain.target, now.gain.target = float(loop is not None), 0.0
            self._places.reverse()

    def _chunk(self, out: Sound) -> None:
        count = len(out)
        total = self._sum[:count]
        total.fill(0)
        self._change_place()
        self.wind = max(0.0, self.wind - count / (WIND_DECAY * self.rate))
        for number, loop in enumerate(self._winds):
            loop.gain.target = min(1.0, self.wind) ** (1 + number)
            self._add_loop(loop, total)
        for loop in self._places:
            self._add_loop(loop, total)
        for voice in self._voices:
            self._add_voice(voice, total)
        self._scale(total, self._master)
        np.clip(total, -1, 1, out=total)
        out[:] = total

    def _scale(self, part: Sound, gain: Gain) -> None:
        """Multiply by a gain that moves in a straight line."""
        count = len(part)
        before, after = gain.over(count)
        ramp = self._gain[:count]
        np.multiply(self._ramp[:count], (after - before) * CHUNK / count, out=ramp)
        ramp += np.float32(before)
        part *= ramp

    def _add_loop(self, loop: Loop, total: Sound) -> None:
        if loop.sound is None or loop.silent:
            return
        part, filled = self._part[: len(total)], 0
        while filled < len(part):
            piece = loop.sound[loop.place : loop.place + len(part) - filled]
            part[filled : filled + len(piece)] = piece
            filled += len(piece)
            loop.place = (loop.place + len(piece)) % len(loop.sound)
        self._scale(part, loop.gain)
        total += part

    def _add_voice(self, voice: _Voice, total: Sound) -> None:
        if voice.sound is None:
            return
        piece = voice.sound[voice.place : voice.place + len(total)]
        part = self._part[: len(piece)]
        np.multiply(piece, voice.left, out=part[:, 0])
        np.multiply(piece, voice.right, out=part[:, 1])
        total[: len(piece)] += part
        voice.place += len(piece)
        if voice.place >= len(voice.sound):
            voice.sound = None
