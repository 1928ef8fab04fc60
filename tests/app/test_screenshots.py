"""Every screen at 1280x720 and 3840x2160, drawn as the program draws it, kept as PNG for someone to look at.

FARSTEP_SHOTS=DIR keeps them there. What is asserted: as much is bright at 4K as at 720p, what has the focus wears its
ring, and nothing bright touches the sides of the window. Contrast is not measured here: `test_window` computes it for
the program's colours on its grounds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pygame
import pytest
from fake_world import paint
from test_packs import GOOD, zipped
from test_window import Visit

from app import widgets
from app.drift import DriftWatch
from app.screens import commands
from app.screens.loading import LoadingScreen
from app.screens.menu import MenuScreen
from app.screens.play import PlayScreen
from app.screens.settings import SettingsScreen
from app.window import Window

SIZES = ((1280, 720), (3840, 2160))
LONG = 120.0  # seconds; the machine may be busy


class Photographer:
    """Draws the present screen of one visit at every size."""

    def __init__(self, visit: Visit, folder: Path) -> None:
        self.visit, self.folder = visit, folder
        self.taken: dict[tuple[str, int], np.ndarray] = {}

    def take(self, name: str) -> None:
        one = self.visit.program
        for size in SIZES:
            surface = one.window.surface = pygame.display.set_mode(size)
            one.screen.draw(surface)
            pygame.image.save(surface, str(self.folder / f"{name}-{size[0]}x{size[1]}.png"))
            self.taken[name, size[0]] = pygame.surfarray.array3d(surface).swapaxes(0, 1)


@pytest.fixture
def photographer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Photographer]:
    monkeypatch.setenv("FARSTEP_HOME", str(tmp_path / "home"))
    folder = Path(os.environ.get("FARSTEP_SHOTS") or tmp_path / "shots")
    folder.mkdir(parents=True, exist_ok=True)
    window = Window("test")
    visit = Visit(window, tmp_path)
    yield Photographer(visit, folder)
    visit.program.close()
    window.close()


def test_every_screen_is_looked_at(photographer: Photographer, tmp_path: Path) -> None:
    visit, take = photographer.visit, photographer.take
    one = visit.program
    visit.until(lambda: one.generator.ready is not None, LONG)
    take("menu")
    paint(tmp_path / "first.png", 5)
    pack = zipped(tmp_path / "halls.zip", {**GOOD, "hall/first.png": (tmp_path / "first.png").read_bytes()})
    one.carry_out(commands.Open(pack))
    take("menu-pack")
    one.carry_out(commands.Open(zipped(tmp_path / "evil.zip", {**GOOD, "hall/../../../a-long-name.txt": b""})))
    take("menu-refused")
    one.carry_out(commands.OpenSettings())
    assert isinstance(one.screen, SettingsScreen)
    take("settings")
    one.screen.focus = [row.name for row in one.screen.rows()].index("calls")
    take("settings-quality")
    one.screen._do("keys")
    take("settings-keys")
    one.carry_out(commands.CloseSettings())
    one.carry_out(commands.Pick(one.menu.scenes[2]))
    assert isinstance(one.screen, LoadingScreen)
    one.screen.update()
    take("loading")
    _play(photographer)


def _play(photographer: Photographer) -> None:
    visit, take = photographer.visit, photographer.take
    one = visit.program
    visit.until(visit.on(PlayScreen), LONG)
    session, play = one.session, one.play
    assert session is not None and play is not None
    visit.until(lambda: session.frame_index > 8, LONG)
    take("play-first-hint")
    session.figures.frames += 200
    play._message = None
    one._change("hud", "fps")
    take("play-fps")
    one._change("hud", "full")
    play.watch = DriftWatch({"saturation": (0.1, 0.2), "sharpness": (0.1, 0.2), "entropy": (3.0, 5.0)}, "too grey")
    play.watch.stats = {"saturation": 0.05, "sharpness": 0.12, "entropy": 4.2}
    play.tell("The picture has drifted: too grey.  T: bring it back")
    take("play-figures")
    play._message = None
    play.freeze(True)
    take("play-held")
    play.freeze(False)
    session.start_rewind()
    take("play-rewind")
    session.end_rewind()
    paused = visit.save_and_pause(LONG)
    take("pause")
    paused.focus = [row.name for row in paused.rows()].index("timeline")
    take("pause-timeline")
    one.carry_out(commands.OpenSettings())
    take("settings-over-play")
    one.carry_out(commands.CloseSettings())
    one.carry_out(commands.Recover("The generator process ended unexpectedly (signal 9: it was killed)."))
    assert isinstance(one.screen, LoadingScreen)
    one.screen.update()
    take("recovering")
    one.carry_out(commands.ToMenu("It was the failure number 3 in a row, so the walk has ended."))
    assert isinstance(one.screen, MenuScreen)
    take("menu-ended")
    _check(photographer.taken)


def _check(taken: dict[tuple[str, int], np.ndarray]) -> None:
    """Both sizes show the same, large; what has the focus wears its ring; the edges hold no cut-off text."""
    accent = np.array(widgets.ACCENT)
    assert len(taken) == 2 * 17
    for name in {name for name, _ in taken}:
        small, large = (taken[name, size[0]] for size in SIZES)
        bright = [(picture.max(axis=2) > 150).mean() for picture in (small, large)]
        assert bright[1] > 0.4 * bright[0], f"{name}: text and pictures grow with the screen"
        if name.startswith(("menu", "settings", "pause")):
            for picture, thick in ((small, 2), (large, 5)):
                ring = (np.abs(picture.astype(int) - accent).max(axis=2) < 8).sum()
                assert ring > 300 * thick, f"{name} shows no focus ring"
            for picture in (small, large):
                side = picture[:, [0, 1, -2, -1]].max()
                assert side < 200, f"{name}: something leaves the window at the sides"
