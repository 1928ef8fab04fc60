"""The card through a fake module, and a session that is heard: steps, wind, ambience, pauses, a card that goes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from made_floor import floor
from test_sound import scene

from app.sound import ambience as places
from app.sound.device import Output, Silence
from app.sound.mixer import Mixer
from app.sound.scape import Soundscape
from app.sound.synth import heard, level

RATE = 22_050


class FakeCards:
    """Looks like the module sounddevice; `pull` runs the callback as the card's thread would."""

    class PortAudioError(Exception):
        pass

    def __init__(self, rate: float = RATE, fail: str = "") -> None:
        self.rate, self.fail, self.opened, self.looked = rate, fail, 0, 1
        self.closed = False

    def __call__(self) -> Any:
        return self

    def _terminate(self) -> None:
        assert self.closed or not self.opened, "no card may be open"

    def _initialize(self) -> None:
        self.looked += 1

    def query_devices(self, kind: str) -> dict[str, float]:
        assert kind == "output"
        if self.fail == "device":
            raise self.PortAudioError("Error querying device -1")
        return {"default_samplerate": self.rate}

    def OutputStream(self, **settings: Any) -> Any:
        self.opened += 1
        self.settings = settings
        if self.fail == "open":
            raise self.PortAudioError("Device unavailable")
        return SimpleNamespace(start=lambda: None, close=self.close)

    def close(self, ignore_errors: bool = True) -> None:
        self.closed = True
        self.settings["finished_callback"]()

    def pull(self, count: int = 512, dry: bool = False) -> np.ndarray:
        out = np.full((count, 2), np.nan, np.float32)
        self.settings["callback"](out, count, None, SimpleNamespace(output_underflow=True) if dry else None)
        return out


def raising(error: Exception) -> Callable[[], Any]:
    def module() -> Any:
        raise error

    return module


def test_the_callback_fills_every_block_and_counts_underruns() -> None:
    cards = FakeCards()
    output = Output(Mixer, cards)
    assert cards.settings["samplerate"] == RATE and cards.settings["channels"] == 2
    assert all(np.isfinite(cards.pull(count)).all() for count in (1, 64, 513, 4000))
    cards.pull(dry=True)
    cards.pull(dry=True)
    assert output.underruns == 2 and output.mixer.blocks == 6
    output.close()
    output.close()
    assert cards.closed and not output.lost


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (raising(ImportError("no module")), "pip install sounddevice"),
        (raising(OSError("PortAudio library not found")), "libportaudio2"),
        (FakeCards(fail="device"), "Error querying device -1"),
        (FakeCards(fail="open"), "Device unavailable"),
    ],
)
def test_no_sound_is_one_sentence_and_silent_play(module: Any, said: str) -> None:
    with pytest.raises(Silence, match=said):
        Output(Mixer, module)
    sound = Soundscape(module=module, in_thread=False)
    news = sound.news()
    assert said in news and "\n" not in news and sound.news() == ""
    sound.frame(np.zeros((160, 256, 3), np.uint8))
    sound.interface("move")
    sound.paused(True)
    assert sound.figures() == "none"
    sound.close()


def test_a_high_rate_is_made_at_48_kHz() -> None:
    cards = FakeCards(rate=192_000)
    Output(Mixer, cards)
    assert cards.settings["samplerate"] == 48_000


def test_the_sound_is_opened_in_a_thread_of_its_own() -> None:
    entered, go = threading.Event(), threading.Event()

    def slow() -> Any:
        entered.set()
        go.wait(30)
        raise OSError("late")

    sound = Soundscape(module=slow)
    assert entered.wait(30) and sound.problem == "", "the constructor came back before the card"
    go.set()
    sound.close()
    assert sound._thread is not None
    sound._thread.join(30)
    assert "late" in sound.news()


# --- a session
@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> FakeCards:
    monkeypatch.setattr(places, "SECONDS", 2.0)
    return FakeCards()


def strokes(sound: Soundscape, pictures: list[np.ndarray]) -> int:
    """How many steps the pictures cause."""
    assert sound.mixer is not None
    count = 0
    for picture in pictures:
        sound.frame(picture)
        count += len(sound.mixer._orders)
        sound.mixer._orders.clear()
    return count


def test_steps_and_wind_follow_the_pictures(cards: FakeCards, tmp_path: Path) -> None:
    sound = Soundscape(volume=1.0, module=cards, in_thread=False)
    assert sound.scene(scene(tmp_path / "s", title="The hall")) == ""
    walk = floor(0.2, 36)
    assert strokes(sound, [walk[0]] * 36) == 0, "still"
    walking = strokes(sound, walk)
    assert 2 <= walking <= 6, "a second and a half of walking"
    assert sound.mixer is not None and sound.mixer.wind < 0.1
    turning = np.random.default_rng(2).integers(0, 255, (160, 400, 3), np.uint8)
    turning = (turning // 3 + np.roll(turning, 1, 1) // 3 + np.roll(turning, 2, 1) // 3).astype(np.uint8)
    for k in range(4):
        sound.frame(turning[:, 8 * k : 8 * k + 256])
    assert sound.mixer.wind > 0.1
    sound.mixer._orders.clear()
    sound.set_level(1.0, True)
    assert strokes(sound, walk) == 0, "nothing is measured that cannot be heard"


def onsets(sound: np.ndarray, block: int) -> int:
    """How often it becomes loud after having been quiet, by blocks."""
    peaks = np.abs(sound[: len(sound) // block * block]).reshape(-1, block * 2).max(1)
    return int(((peaks[1:] > 0.06) & (peaks[:-1] < 0.03)).sum())


def test_the_footsteps_that_are_heard_follow_the_motion_and_stop_with_it(cards: FakeCards, tmp_path: Path) -> None:
    sound = Soundscape(volume=1.0, module=cards, in_thread=False)
    sound.scene(scene(tmp_path / "s", "ambience: silence\n"))
    block = round(RATE / 24)
    cards.pull(RATE)

    def play(pictures: list[np.ndarray]) -> np.ndarray:
        parts = []
        for picture in pictures:
            sound.frame(picture)
            parts.append(cards.pull(block))
        return np.concatenate(parts)

    slow, fast = floor(0.07, 60), floor(0.4, 60)
    assert not play([slow[0]] * 60).any(), "standing is silent"
    walked, ran = onsets(play(slow), block), onsets(play(fast), block)
    assert 3 <= walked < ran <= 9
    play([fast[-1]] * 48)
    assert not play([fast[-1]] * 24).any(), "and silent again"


def test_a_tone_is_heard_as_the_standard_says() -> None:
    at = np.arange(RATE) / RATE
    for hertz, decibels in ((1000, 0.0), (100, -19.1), (4000, 1.0)):
        tone = np.sin(2 * np.pi * hertz * at)[:, None].repeat(2, 1)
        assert 20 * np.log10(heard(tone, RATE) / level(tone)) == pytest.approx(decibels, abs=0.3)


def test_an_ambience_is_heard_paused_and_left(cards: FakeCards, tmp_path: Path) -> None:
    sound = Soundscape(volume=1.0, module=cards, in_thread=False)
    sound.scene(scene(tmp_path / "s", "ambience: court\n"))
    for _ in range(200):
        cards.pull()
    full = level(cards.pull(RATE))
    sound.paused(True)
    cards.pull(RATE)
    assert level(cards.pull(RATE)) < 0.6 * full
    sound.paused(False)
    sound.scene(None)
    cards.pull(4 * RATE)
    assert not cards.pull(RATE).any()
    assert "ambience 'x'" in sound.scene(scene(tmp_path / "t", "ambience: x\n")), "a sentence, and play goes on"
    assert "0 underruns" in sound.figures()
    sound.close()


def test_a_lost_card_is_said_once_and_unmuting_tries_again(cards: FakeCards) -> None:
    sound = Soundscape(module=cards, in_thread=False)
    cards.settings["finished_callback"]()
    assert "is gone" in sound.news() and sound.news() == ""
    sound.set_level(0.5, True)
    sound.set_level(0.5, False)
    assert cards.looked == 2, "it looks for what has been connected since"
    assert cards.opened == 2 and sound.news() == "" and "50 %" in sound.figures()
