"""Sound from numbers: seamless noise and pads for loops, short strokes for steps and the interface.

Loops are made in the frequency domain or from whole numbers of waves, so that their end runs into their beginning; what
rings on past the end of a loop comes in again at its start. Strokes begin and end at zero. All of it is seeded.

Shape key: S samples, 2 channels (left, right); float32 between -1 and 1; `rate` in samples a second.
Does not know about scenes, devices or when a sound is heard.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Sound = npt.NDArray[np.float32]
Double = npt.NDArray[np.float64]


def level(sound: npt.ArrayLike) -> float:
    """The root mean square."""
    values = np.asarray(sound, np.float64)
    return float(np.sqrt(np.mean(values * values)))


def heard(sound: npt.ArrayLike, rate: int) -> float:
    """The root mean square of a loop (S, 2) as the ear weighs it at low volume (A-weighting, IEC 61672)."""
    values = np.asarray(sound, np.float64)
    square = np.fft.rfftfreq(len(values), 1 / rate) ** 2
    weight = 12194**2 * square**2 / ((square + 20.6**2) * (square + 12194**2))
    weight *= 1.2589 / np.sqrt((square + 107.7**2) * (square + 737.9**2))
    return level(np.fft.irfft(np.fft.rfft(values, axis=0) * weight[:, None], len(values), axis=0))


def at_level(sound: npt.ArrayLike, wanted: float) -> Double:
    """The sound at a root mean square of `wanted`."""
    values = np.asarray(sound, np.float64)
    return values * (wanted / max(level(values), 1e-12))


def noise(seconds: float, rate: int, low: float, high: float, rng: np.random.Generator, tilt: float = 0.0) -> Double:
    """Seamless noise (S, 2) between about `low` and `high` Hz, at a level of 1; `tilt` in dB per octave."""
    count = round(seconds * rate)
    hertz = np.fft.rfftfreq(count, 1 / rate)
    safe = np.maximum(hertz, 1e-3)
    shape = 1 / (1 + (low / safe) ** 4) / (1 + (safe / high) ** 4)
    shape = np.sqrt(shape) * (safe / high) ** (tilt / 6.02)
    shape[0] = 0
    turn = rng.uniform(0, 2 * np.pi, (2, len(hertz)))
    turn[1] = turn[0] + rng.normal(0, 1.2, len(hertz))  # the two sides are related, not equal
    waves = np.fft.irfft(shape * np.exp(1j * turn), count)
    return at_level(waves.T, 1.0)


def swell(count: int, waves: int, depth: float, rng: np.random.Generator) -> Double:
    """A slow seamless rise and fall (S, 1) about 1, made of up to `waves` whole waves; never below 1 - depth."""
    at = np.arange(count) / count
    total = np.zeros(count)
    for wave in range(1, waves + 1):
        total += np.sin(2 * np.pi * (wave * at + rng.uniform())) / wave**0.5
    return (1 + depth * total / np.abs(total).max())[:, None]


def whole(hertz: float, seconds: float) -> float:
    """The frequency nearest to `hertz` that has a whole number of waves in a loop."""
    return max(1, round(hertz * seconds)) / seconds


def pad(seconds: float, rate: int, notes: tuple[float, ...], rng: np.random.Generator) -> Double:
    """A soft seamless chord (S, 2) of `notes` in Hz, each with two overtones and a breath of its own; level 1."""
    count = round(seconds * rate)
    at = np.arange(count) / rate
    total = np.zeros((count, 2))
    for note in notes:
        breath = swell(count, 3, 0.6, rng)
        for overtone, strength in ((1, 1.0), (2, 0.28), (3, 0.09)):
            for side in (0, 1):
                hertz = whole(note * overtone * (1 + (side - 0.5) * 0.003), seconds)
                wave = np.sin(2 * np.pi * (hertz * at + rng.uniform()))
                total[:, side] += strength * wave * breath[:, 0]
    return at_level(total, 1.0)


def scatter(
    seconds: float, rate: int, strokes: list[Sound], a_minute: float, rng: np.random.Generator, spread: float = 0.7
) -> Double:
    """Strokes at random places of a seamless loop (S, 2), loud and soft, left and right; the loudest peak is 1."""
    count = round(seconds * rate)
    total = np.zeros((count, 2))
    for _ in range(max(1, round(a_minute * seconds / 60))):
        stroke = strokes[int(rng.integers(len(strokes)))].astype(np.float64)
        side = rng.uniform(-spread, spread)
        sides = np.sqrt([(1 - side) / 2, (1 + side) / 2]) * rng.uniform(0.3, 1.0)
        places = (int(rng.integers(count)) + np.arange(len(stroke))) % count
        np.add.at(total, places, stroke[:, None] * sides)
    return total / max(1e-9, float(np.abs(total).max()))


def faded(values: Double, rate: int, attack: float, release: float) -> Double:
    """The same (S,) with a raised-cosine beginning and end of so many seconds: the first and last sample are zero."""
    count = len(values)
    up, down = (max(2, min(count // 2, round(part * rate))) for part in (attack, release))
    values = values.copy()
    values[:up] *= 0.5 - 0.5 * np.cos(np.linspace(0, np.pi, up))
    values[count - down :] *= 0.5 + 0.5 * np.cos(np.linspace(0, np.pi, down))
    return values


def ring(rate: int, notes: tuple[float, ...], seconds: float, decay: float, glide: float = 0.0) -> Sound:
    """A struck tone (S,): partials that die away with a time constant of `decay` s; `glide` octaves a second."""
    at = np.arange(round(seconds * rate)) / rate
    bend = at + glide * at * at / 2
    total = np.zeros(len(at))
    for number, note in enumerate(notes):
        if note < 0.45 * rate:
            total += np.sin(2 * np.pi * note * bend) * np.exp(-at * (1 + 0.7 * number) / decay) / (1 + number)
    return _peak(faded(total, rate, 0.004, 0.4 * seconds))


def thud(rate: int, low: float, high: float, seconds: float, decay: float, rng: np.random.Generator) -> Sound:
    """A stroke of filtered noise (S,) that dies away with a time constant of `decay` s."""
    at = np.arange(round(seconds * rate)) / rate
    grain = noise(seconds, rate, low, high, rng)[:, 0]
    return _peak(faded(grain * np.exp(-at / decay), rate, 0.003, 0.5 * seconds))


def _peak(values: Double) -> Sound:
    return np.asarray(values / max(1e-9, float(np.abs(values).max())), np.float32)


def joined(parts: list[tuple[float, float, Sound]], rate: int) -> Sound:
    """Strokes (start in seconds, strength, sound) laid over one another: (S,), peak 1."""
    count = max(round(start * rate) + len(sound) for start, _, sound in parts)
    total = np.zeros(count)
    for start, strength, sound in parts:
        begin = round(start * rate)
        total[begin : begin + len(sound)] += strength * sound
    return _peak(total)
