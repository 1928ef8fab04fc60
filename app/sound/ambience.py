"""The sounds of places: recipes of air, water, leaves, insects, chords and drops; footsteps; the interface.

Which place a scene has: `ambience: NAME` in its scene.yaml, else words of its name, title and caption, else how bright
and how blue its picture is.

Does not know when a sound is heard or through what.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from app.sound.synth import Double, Sound, at_level, heard, joined, level, noise, pad, ring, scatter, swell, thud
from controls.errors import UserError
from controls.strict_yaml import did_you_mean, load_file

SECONDS = 12.0  # of an ambience loop
LOUDNESS = 0.01  # of every ambience as the ear weighs it: -40 dB of full scale
MOST = 0.04  # root mean square, however deep the sounds are
WIND_SECONDS = 5.0


@dataclass(frozen=True)
class Place:
    """Strengths of the parts of an ambience (0: none), the notes of its chord in Hz, and what one walks on."""

    air: float = 0.0
    water: float = 0.0
    leaves: float = 0.0
    insects: float = 0.0
    drops: float = 0.0
    chord: float = 0.0
    notes: tuple[float, ...] = (110.0, 164.8, 220.0)
    ground: str = "stone"


PLACES: dict[str, Place] = {
    "court": Place(air=0.5, water=0.45, chord=0.3, notes=(98.0, 146.8, 196.0, 246.9)),
    "cloister": Place(air=0.35, insects=0.3, chord=0.45, notes=(82.4, 123.5, 164.8, 196.0)),
    "plaza": Place(air=0.8, water=0.25, leaves=0.2, chord=0.25, notes=(110.0, 164.8, 220.0, 277.2)),
    "garden": Place(air=0.4, water=0.2, leaves=0.7, chord=0.2, notes=(130.8, 196.0, 261.6), ground="grass"),
    "night": Place(air=0.3, insects=0.6, chord=0.4, notes=(73.4, 110.0, 146.8, 174.6)),
    "hall": Place(air=0.5, drops=0.35, chord=0.55, notes=(65.4, 98.0, 130.8, 196.0)),
    "temple": Place(air=0.25, water=0.6, drops=0.3, chord=0.5, notes=(87.3, 130.8, 174.6, 220.0)),
    "silence": Place(),
}
WORDS = {  # the first place with a word in the scene's texts is taken
    "cloister": "cloister moon moonlit",
    "night": "night dusk stars lamps violet",
    "temple": "temple pool shrine sanctuary cistern",
    "garden": "garden hedges hedge blossom meadow park forest terrace rose",
    "hall": "hall nave vault corridor church library station room indoors",
    "plaza": "plaza square squares street market beach coral",
    "court": "court gate yard arcade golden",
}
SURFACES = ("stone", "grass")
INTERFACE = ("move", "accept", "back", "change", "refuse", "picture")


def place_of(scene: Any, picture: npt.NDArray[np.uint8] | None = None) -> str:
    """The ambience of a scene (name, title; caption and the path `picture` where it has them) by name in PLACES.

    UserError when its YAML names an unknown one.
    """
    path = getattr(scene, "picture", None)
    named = _named(path.parent / "scene.yaml") if isinstance(path, Path) else None
    if named is not None:
        return named
    words = re.findall(r"[a-z]+", f"{scene.name} {scene.title} {getattr(scene, 'caption', '')}".lower())
    for place, keys in WORDS.items():
        if set(keys.split()) & set(words):
            return place
    return by_picture(picture) if picture is not None else "court"


def _named(path: Path) -> str | None:
    """What a scene file asks for; None when there is no such file or it does not say."""
    if not path.is_file():
        return None
    document = load_file(path)
    if not isinstance(document.data, dict) or "ambience" not in document.data:
        return None
    name = document.data["ambience"]
    if name not in PLACES:
        raise document.error(("ambience",), f"unknown ambience {name!r}{did_you_mean(name, PLACES)}.")
    return str(name)


def by_picture(picture: npt.NDArray[np.uint8]) -> str:
    """A place for a picture (Y, X, 3) without words: dark: night, green: garden, bright above: plaza, else hall."""
    red, green, blue = (float(v) for v in picture.reshape(-1, 3).mean(0))
    if red + green + blue < 3 * 60:
        return "night"
    if green > 1.08 * max(red, blue):
        return "garden"
    above = float(picture[: len(picture) // 3].mean())
    return "plaza" if above > 1.1 * float(picture.mean()) else "hall"


def _rng(name: str, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def ambience(name: str, rate: int, seed: int = 0, seconds: float | None = None) -> Sound:
    """The seamless loop (S, 2) of a place in PLACES, float32, heard at LOUDNESS ("silence": zeros)."""
    if name not in PLACES:
        raise UserError(f"Unknown ambience {name!r}{did_you_mean(name, PLACES)}.")
    seconds = seconds or SECONDS
    place, rng = PLACES[name], _rng(name, seed)
    count = round(seconds * rate)
    total = np.zeros((count, 2))
    if place.air:
        total += place.air * noise(seconds, rate, 60, 420, rng, tilt=-4) * swell(count, 4, 0.35, rng)
    if place.water:
        total += place.water * _water(seconds, rate, rng)
    if place.leaves:
        total += place.leaves * noise(seconds, rate, 1800, 5200, rng, tilt=-3) * swell(count, 7, 0.85, rng) * 0.6
    if place.insects:
        total += place.insects * _insects(seconds, rate, rng)
    if place.chord:
        total += place.chord * pad(seconds, rate, place.notes, rng)
    if place.drops:
        strokes = [ring(rate, (note, 2.7 * note), 0.9, 0.16) for note in (520.0, 660.0, 780.0, 990.0)]
        total += place.drops * scatter(seconds, rate, strokes, 26, rng)
    if not total.any():
        return np.asarray(total, np.float32)
    wanted = min(MOST, level(total) * LOUDNESS / heard(total, rate))
    return np.asarray(at_level(total, wanted), np.float32)


def _water(seconds: float, rate: int, rng: np.random.Generator) -> Double:
    """A fountain: a soft rush with many small rising drops in it."""
    count = round(seconds * rate)
    rush = noise(seconds, rate, 380, 1900, rng, tilt=-5) * swell(count, 9, 0.3, rng)
    strokes = [ring(rate, (float(note),), 0.09, 0.03, glide=4.0) for note in rng.uniform(500, 1500, 12)]
    drops = scatter(seconds, rate, strokes, 700, rng)
    return 0.75 * rush + 0.9 * drops


def _insects(seconds: float, rate: int, rng: np.random.Generator) -> Double:
    """Crickets: three high tones that chirp in whole numbers of pulses, left, right and far."""
    count = round(seconds * rate)
    at = np.arange(count) / rate
    total = np.zeros((count, 2))
    for hertz, pulses, side, strength in ((4100, 17.0, 0.2, 0.7), (4460, 13.5, 0.8, 0.6), (3820, 21.0, 0.5, 0.35)):
        tone = np.sin(2 * np.pi * round(hertz * seconds) / seconds * at)
        pulse = np.maximum(0, np.sin(2 * np.pi * round(pulses * seconds) / seconds * at + rng.uniform(0, 6))) ** 2
        song = np.maximum(0, swell(count, 11, 1.6, rng)[:, 0] - 0.6)
        total += strength * (tone * pulse * song)[:, None] * np.sqrt([1 - side, side])
    return total


def footsteps(ground: str, rate: int, seed: int = 0, variants: int = 6) -> list[Sound]:
    """Different steps (S,) on a surface of SURFACES: heel and toe, and on stone a little of the room; peak 1."""
    rng = _rng(f"steps {ground}", seed)
    made = []
    for _ in range(variants):
        if ground == "grass":
            parts = [(0.0, 0.5, thud(rate, 70, 260, 0.14, 0.03, rng))]
            parts += [(float(at), 0.8, thud(rate, 900, 3400, 0.16, 0.04, rng)) for at in rng.uniform(0.0, 0.05, 3)]
        else:
            toe = float(rng.uniform(0.05, 0.08))
            parts = [
                (0.0, 1.0, thud(rate, 60, float(rng.uniform(150, 210)), 0.16, 0.03, rng)),
                (0.004, 0.45, thud(rate, 500, float(rng.uniform(1300, 1900)), 0.08, 0.012, rng)),
                (toe, 0.3, thud(rate, 700, 2300, 0.09, 0.016, rng)),
                (0.02, 0.1, thud(rate, 250, 1500, 0.5, 0.12, rng)),
            ]
        made.append(joined(parts, rate))
    return made


def interface(rate: int) -> dict[str, Sound]:
    """The sounds of the menus, (S,) each, by the names in INTERFACE; peak 1."""
    rng = _rng("interface", 0)
    low, mid, high = (ring(rate, (note, 2 * note), 0.22, 0.05) for note in (392.0, 523.3, 784.0))
    shutter = [
        (0.0, 1.0, thud(rate, 900, 4200, 0.06, 0.012, rng)),
        (0.09, 0.7, thud(rate, 600, 3000, 0.08, 0.016, rng)),
    ]
    return {
        "move": ring(rate, (660.0,), 0.07, 0.018),
        "accept": joined([(0.0, 0.7, mid), (0.07, 1.0, high)], rate),
        "back": joined([(0.0, 0.8, mid), (0.07, 1.0, low)], rate),
        "change": ring(rate, (880.0, 1320.0), 0.1, 0.025),
        "refuse": ring(rate, (196.0, 233.1), 0.3, 0.08),
        "picture": joined(shutter, rate),
    }


def wind(rate: int, seed: int = 0) -> tuple[Sound, Sound]:
    """Two seamless loops (S, 2): a dark wind and a bright one, at a level of 0.05."""
    rng = _rng("wind", seed)
    count = round(WIND_SECONDS * rate)
    dark = noise(WIND_SECONDS, rate, 90, 500, rng, tilt=-3) * swell(count, 5, 0.3, rng)
    bright = noise(WIND_SECONDS, rate, 500, 1600, rng, tilt=-4) * swell(count, 6, 0.4, rng)
    return np.asarray(at_level(dark, 0.05), np.float32), np.asarray(at_level(bright, 0.05), np.float32)
