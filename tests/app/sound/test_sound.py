"""Sound rendered to arrays: seams, levels, clicks, the mixer's orders, and the card through a fake module."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from app.sound import ambience as places
from app.sound import mixer as mixing
from app.sound.device import blank
from app.sound.mixer import CROSSFADE, Mixer
from app.sound.synth import heard, level, noise, ring
from controls.errors import UserError

RATE = 22_050
SECONDS = 4.0  # of the loops here


def rough(sound: np.ndarray) -> np.ndarray:
    """How far each sample is from where its two neighbours say it should be (S - 2,); a click stands out."""
    return np.abs(np.diff(np.asarray(sound, np.float64), 2, axis=0)).reshape(len(sound) - 2, -1).max(1)


@pytest.fixture(scope="module")
def loops() -> dict[str, np.ndarray]:
    return {name: places.ambience(name, RATE, seconds=SECONDS) for name in places.PLACES}


def test_every_place_has_its_own_quiet_loop(loops: dict[str, np.ndarray]) -> None:
    for name, loop in loops.items():
        assert loop.shape == (round(SECONDS * RATE), 2) and loop.dtype == np.float32
        if name == "silence":
            assert not loop.any()
            continue
        assert level(loop) <= 1.001 * places.MOST
        assert heard(loop, RATE) <= 1.001 * places.LOUDNESS
        assert heard(loop, RATE) > 0.7 * places.LOUDNESS, "none is much quieter than the others"
        assert np.abs(loop).max() < 0.3 and np.abs(loop.mean(0)).max() < 1e-3
        assert np.abs(np.corrcoef(loop.T)[0, 1]) < 0.999, "it is not mono"
    names = list(loops)[:-1]
    assert not any(np.allclose(loops[a], loops[b], atol=1e-3) for a in names for b in names if a < b)


def test_loops_have_no_seam(loops: dict[str, np.ndarray]) -> None:
    for name, loop in loops.items():
        if name != "silence":
            twice = rough(np.concatenate([loop, loop]))
            seam = twice[len(loop) - 4 : len(loop) + 2].max()
            assert seam <= np.percentile(twice, 99.9), name
            assert np.abs(loop[0] - loop[-1]).max() <= np.abs(np.diff(loop, axis=0)).max(), name
    for loop in places.wind(RATE):
        twice = rough(np.concatenate([loop, loop]))
        assert twice[len(loop) - 4 : len(loop) + 2].max() <= np.percentile(twice, 99.9)


def test_a_seam_would_be_seen() -> None:
    cut = noise(1.0, RATE, 60, 200, np.random.default_rng(0))[:20_011]
    twice = rough(np.concatenate([cut, cut]))
    assert twice[len(cut) - 4 : len(cut) + 2].max() > np.percentile(twice, 99.9)


def test_the_same_seed_gives_the_same_sound() -> None:
    one, same = (places.ambience("temple", 8000, seconds=1.0) for _ in range(2))
    other = places.ambience("temple", 8000, seed=1, seconds=1.0)
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_strokes_begin_and_end_in_silence() -> None:
    strokes = [*places.interface(RATE).values()]
    assert set(places.interface(RATE)) == set(places.INTERFACE)
    for ground in places.SURFACES:
        steps = places.footsteps(ground, RATE)
        assert not any(np.array_equal(a, b) for i, a in enumerate(steps) for b in steps[:i])
        strokes += steps
    for stroke in strokes:
        assert np.abs(stroke).max() == pytest.approx(1) and len(stroke) < 0.8 * RATE
        assert abs(stroke[0]) < 1e-3 and abs(stroke[-1]) < 1e-3


def test_the_band_of_noise_is_where_it_was_asked_for() -> None:
    values = noise(1.0, RATE, 400, 2000, np.random.default_rng(3))[:, 0]
    power = np.abs(np.fft.rfft(values)) ** 2
    assert power[400:2001].sum() > 0.6 * power.sum()
    assert power[200:4001].sum() > 0.9 * power.sum() and power[:100].sum() < 0.01 * power.sum()


# --- the mixer
def rendered(mixer: Mixer, seconds: float, block: int = 700) -> np.ndarray:
    blocks = []
    for _ in range(max(1, round(seconds * mixer.rate / block))):
        out = blank(block)
        mixer.render(out)
        blocks.append(out)
    return np.concatenate(blocks)


@pytest.mark.parametrize("block", [64, 441, 512, 1300])
def test_an_ambience_fades_in_goes_round_and_never_clicks(loops: dict[str, np.ndarray], block: int) -> None:
    mixer = Mixer(RATE)
    mixer.set_ambience(loops["court"])
    sound = rendered(mixer, 2 * SECONDS + CROSSFADE, block)
    assert np.abs(sound[: RATE // 10]).max() < 0.2 * np.abs(sound).max(), "it fades in"
    assert rough(sound).max() <= 1.05 * rough(np.concatenate([loops["court"]] * 2)).max()
    after = sound[-RATE:]
    assert level(after) == pytest.approx(level(loops["court"]), rel=0.25)


def test_one_ambience_follows_another_and_only_the_last_wish_is_kept(loops: dict[str, np.ndarray]) -> None:
    mixer = Mixer(RATE)
    for name in ("court", "hall", "night"):
        mixer.set_ambience(loops[name])
        rendered(mixer, 0.1)
    sound = rendered(mixer, 4 * CROSSFADE)
    assert rough(sound).max() < 2 * max(rough(loops[name]).max() for name in ("court", "night"))
    heard = [loop.sound for loop in mixer._places if not loop.silent]
    assert len(heard) == 1 and heard[0] is loops["night"]
    mixer.set_ambience(None)
    rendered(mixer, 1.5 * CROSSFADE)
    assert not rendered(mixer, 0.3).any()


def test_volume_and_mute_move_in_ramps_and_mute_is_silence() -> None:
    mixer = Mixer(RATE)
    wave = np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE).astype(np.float32)[:, None].repeat(2, 1)
    mixer.set_ambience(0.5 * wave)
    full = rendered(mixer, 4)
    mixer.volume = 0.5
    half = rendered(mixer, 1)
    assert level(half[RATE // 2 :]) == pytest.approx(0.25 * level(full[-RATE:]), rel=0.02)
    mixer.muted = True
    fading = rendered(mixer, 0.5)
    assert rough(np.concatenate([half, fading])).max() < 3 * rough(0.5 * wave).max()
    assert fading[: RATE // 100].any() and not fading[-RATE // 4 :].any()


def test_strokes_are_heard_once_and_from_their_side() -> None:
    mixer = Mixer(RATE)
    rendered(mixer, 0.3)
    mixer.play(ring(RATE, (440.0,), 0.2, 0.05), 0.5, side=-1.0)
    sound = rendered(mixer, 0.6)
    assert np.abs(sound[:, 0]).max() == pytest.approx(0.5, rel=0.05) and not sound[:, 1].any()
    assert not sound[round(0.25 * RATE) :].any()


def test_the_wind_follows_and_dies_down_by_itself() -> None:
    mixer = Mixer(RATE, places.wind(RATE))
    rendered(mixer, 0.3)
    mixer.wind = 0.2
    little = level(rendered(mixer, 0.1))
    mixer.wind = 1.0
    much = level(rendered(mixer, 0.1))
    assert much > 2 * little > 0
    rendered(mixer, 1.0)
    assert not rendered(mixer, 0.2).any()


def test_everything_at_once_does_not_clip(loops: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = []
    monkeypatch.setattr(mixing.np, "clip", lambda a, low, high, out: peaks.append(float(np.abs(a).max())))
    mixer = Mixer(RATE, places.wind(RATE))
    mixer.set_ambience(loops["temple"])
    steps, menu = places.footsteps("stone", RATE), places.interface(RATE)
    for number in range(60):
        mixer.wind = 1.0
        mixer.play(steps[number % len(steps)], 0.16)
        mixer.play(menu["accept"], 0.12)
        rendered(mixer, 0.1)
    assert 0.2 < max(peaks) < 1.0


def test_an_impossible_sum_is_bounded() -> None:
    mixer = Mixer(RATE)
    rendered(mixer, 0.3)
    for _ in range(20):
        mixer.play(np.ones(RATE, np.float32), 1.0)
    assert np.abs(rendered(mixer, 0.5)).max() <= 1.0


def test_rendering_makes_no_arrays_to_speak_of(loops: dict[str, np.ndarray]) -> None:
    mixer, out = Mixer(RATE, places.wind(RATE)), blank(1024)
    mixer.set_ambience(loops["hall"])
    mixer.play(ring(RATE, (440.0,), 2.0, 0.5), 0.5)
    mixer.render(out)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    for _ in range(20):
        mixer.wind = 0.7
        mixer.render(out)
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert peak < out.nbytes, f"{peak} bytes"


# --- choosing a place
def scene(folder: Path, yaml: str = "", name: str = "x", title: str = "", caption: str = "") -> Any:
    folder.mkdir(exist_ok=True)
    if yaml:
        (folder / "scene.yaml").write_text(yaml)
    return SimpleNamespace(name=name, title=title, caption=caption, picture=folder / "first.png")


def test_a_scene_names_its_place_or_its_words_do(tmp_path: Path) -> None:
    assert places.place_of(scene(tmp_path / "a", "ambience: temple\n", title="Garden")) == "temple"
    assert places.place_of(scene(tmp_path / "b", "title: x\n", caption="Under a full Moon.")) == "cloister"
    assert places.place_of(scene(tmp_path / "c", name="silver-hall")) == "hall"
    with pytest.raises(UserError, match=r"line 1: unknown ambience 'tempel'; did you mean 'temple'"):
        places.place_of(scene(tmp_path / "d", "ambience: tempel\n"))
    with pytest.raises(UserError, match=r"'cort'.*'court'"):
        places.ambience("cort", RATE)


def test_a_picture_without_words_has_a_place(tmp_path: Path) -> None:
    def of(*colour: int, above: int | None = None) -> str:
        picture = np.full((30, 40, 3), colour, np.uint8)
        if above is not None:
            picture[:10] = above
        return places.place_of(scene(tmp_path / "p"), picture)

    assert of(20, 20, 40) == "night" and of(90, 160, 80) == "garden"
    assert of(120, 120, 120) == "hall" and of(120, 110, 120, above=240) == "plaza"
    assert places.place_of(scene(tmp_path / "p")) in places.PLACES


def test_the_scenes_that_ship_have_places_of_their_own() -> None:
    from generator.scene import list_scenes

    found = {s.name: places.place_of(s) for s in list_scenes()}
    assert found["white-column"] == "cloister" and found["garden-gate"] == "garden"
    assert len(set(found.values())) >= 4
