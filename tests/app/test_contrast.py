"""The contrast of text as it is drawn: on every screen, over a white picture and a noisy one, at the smallest size too.

Every line of text is taken where it lies in the finished window. Its ink are the pixels that the letters cover most,
its ground those just around them; both are read from the window, not from the program's colours, letter by letter, and
the brightest of the ground counts. WCAG asks for a ratio of 4.5.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pygame
import pytest
from test_window import Visit, opened  # noqa: F401

from app import glyphs, overlay, widgets
from app.drift import DriftWatch
from app.screens import commands
from app.screens.browse import BrowseScreen
from app.screens.loading import LoadingScreen
from app.screens.play import PlayScreen
from app.screens.settings import SettingsScreen
from app.window import Window
from controls.devices import gamepad

WANTED = 4.5
SIZES = ((480, 300), (1280, 720), (3840, 2160))
LONG = 120.0
APP = Path(widgets.__file__).parent
Grid = npt.NDArray[np.float64]


@dataclass
class Line:
    """Words, their colour, where they are, the picture of them, and the window as it was right after."""

    words: str
    where: pygame.Rect
    picture: pygame.Surface
    after: npt.NDArray[np.uint8]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[Line]:
    """Every line of text that any module of the program draws."""
    found: list[Line] = []
    plain = widgets.text

    def record(
        surface: pygame.Surface,
        words: str,
        where: tuple[float, float],
        size: float,
        colour: widgets.Colour = widgets.TEXT,
        align: str = "left",
        width: float | None = None,
    ) -> pygame.Rect:
        rect = plain(surface, words, where, size, colour, align, width)
        seen = widgets.shorten(words, size, width) if width is not None else words
        if rect.width and rect.height and surface.get_rect().contains(rect):
            picture = widgets._line(seen, round(size), colour)
            if picture.get_size() == rect.size:  # not clipped away in part
                found.append(Line(seen, rect, picture, pygame.surfarray.array3d(surface.subsurface(rect))))
        return rect

    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "app" and getattr(module, "text", None) is plain:
            monkeypatch.setattr(module, "text", record)
    return found


def luminance(colours: npt.NDArray[Any]) -> Grid:
    """WCAG's relative luminance of colours (..., 3) from 0 to 255."""
    parts = colours / 255.0
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return np.asarray(linear @ np.array([0.2126, 0.7152, 0.0722]))


def near(mask: npt.NDArray[np.bool_], reach: int) -> npt.NDArray[np.bool_]:
    """What is at most `reach` pixels from a mask (X, Y)."""
    padded = np.pad(mask, reach)
    wide = np.zeros_like(mask)
    for x in range(2 * reach + 1):
        for y in range(2 * reach + 1):
            wide |= padded[x : x + mask.shape[0], y : y + mask.shape[1]]
    return wide


def pieces_of(covered: npt.NDArray[np.bool_]) -> list[slice]:
    """Columns of a mask (X, Y), cut where they are empty into pieces about twice as wide as the line is high."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], covered.any(axis=1), [False]]).astype(int)))
    pieces: list[slice] = []
    for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if pieces and end - pieces[-1].start <= 2 * covered.shape[1]:
            pieces[-1] = slice(pieces[-1].start, end)
        else:
            pieces.append(slice(start, end))
    if len(pieces) > 1 and pieces[-1].stop - pieces[-1].start < covered.shape[1]:
        pieces[-2:] = [slice(pieces[-2].start, pieces[-1].stop)]  # a last letter or two
    return pieces


def ratios(line: Line, window: npt.NDArray[np.uint8]) -> list[float]:
    """The contrast of each piece of a line in the finished `window` (X, Y, 3); none where it was covered later."""
    rect, reach = line.where, max(1, line.where.height // 10)
    if (window[rect.left : rect.right, rect.top : rect.bottom] != line.after).any(axis=2).mean() > 0.02:
        return []
    around = rect.inflate(2 * reach, 2 * reach).clip(pygame.Rect((0, 0), window.shape[:2]))
    light = luminance(window[around.left : around.right, around.top : around.bottom])
    inner = pygame.Rect(rect.left - around.left, rect.top - around.top, *rect.size)
    place = (slice(inner.left, inner.right), slice(inner.top, inner.bottom))
    alpha, inside = np.zeros(light.shape), np.zeros(light.shape)
    alpha[place] = pygame.surfarray.array_alpha(line.picture)
    if any(map(glyphs.is_mark, line.words)):  # what is written in a mark is as opaque as the mark, and dark
        drawn = pygame.surfarray.array3d(line.picture).mean(axis=2)
        inside[place] = np.where(alpha[place] > 200, 1 - drawn / drawn.max(), 0)
    ground = (alpha < 8) & near(alpha > 24, reach)
    found = []
    for piece in pieces_of(alpha > 24):
        strength = np.where(inside[piece] > 0.05, 0, alpha[piece])
        ink = float(np.median(light[piece][strength >= 0.8 * strength.max()]))
        beside = slice(max(0, piece.start - reach), piece.stop + reach)
        grounds = [float(np.quantile(light[beside][ground[beside]], 0.98))] if ground[beside].any() else []
        if inside[piece].max() > 0.3:
            grounds.append(float(np.median(light[piece][inside[piece] >= 0.8 * inside[piece].max()])))
        found += [(ink + 0.05) / (other + 0.05) for other in grounds]
    return found


def white() -> npt.NDArray[np.uint8]:
    return np.full((160, 256, 3), 255, np.uint8)


def noisy() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (160, 256, 3), dtype=np.uint8)


class Judge:
    """Draws the present screen of a visit at every size, over two pictures, and measures every line in it."""

    def __init__(self, visit: Visit, lines: list[Line], folder: Path) -> None:
        self.visit, self.lines, self.folder = visit, lines, folder
        self.found: list[tuple[float, str, str, str]] = []  # ratio, screen, window, words
        self.measured: dict[str, int] = {}

    def look(self, name: str) -> None:
        one = self.visit.program
        pictures = {"white": white(), "noisy": noisy()} if one.play is not None else {"": white()}
        for size in SIZES:
            for pad in ("", gamepad.PS5) if size == SIZES[0] else ("",):
                for on, picture in pictures.items():
                    surface = one.window.surface = pygame.display.set_mode(size)
                    one.screen.pad = pad
                    if one.play is not None:
                        one.play._due, one.play._seen = None, picture
                    self.lines.clear()
                    one.screen.draw(surface)
                    self._measure(surface, name, f"{size[0]}x{size[1]} {on} {pad}")
        one.screen.pad = ""

    def _measure(self, surface: pygame.Surface, name: str, how: str) -> None:
        window = pygame.surfarray.array3d(surface)
        if surface.get_width() < 2000:
            pygame.image.save(surface, str(self.folder / f"contrast-{name}-{how.strip().replace(' ', '-')}.png"))
        count = 0
        for line in self.lines:
            found = ratios(line, window)
            count += bool(found)
            self.found += [(ratio, name, how, line.words) for ratio in found]
        assert count, f"{name} {how}: nothing was measured"
        self.measured[name] = max(count, self.measured.get(name, 0))

    def verdict(self) -> None:
        weak = sorted(one for one in self.found if one[0] < WANTED)
        worst = {(name, how): (ratio, words) for ratio, name, how, words in reversed(weak)}
        assert not weak, f"{len(weak)} of {len(self.found)} pieces: {worst}"


@pytest.fixture
def judge(opened: Window, lines: list[Line], tmp_path: Path) -> Iterator[Judge]:  # noqa: F811
    folder = Path(os.environ.get("FARSTEP_SHOTS") or tmp_path)
    one = Judge(Visit(opened, tmp_path), lines, folder)
    yield one
    one.visit.program.close()


def test_text_can_be_read_in_the_menus(judge: Judge, tmp_path: Path) -> None:
    visit, one = judge.visit, judge.visit.program
    visit.until(lambda: one.generator.ready is not None, LONG)
    one.screen.update()
    judge.look("menu")
    one.menu.notice = "It was the failure number 3 in a row, so the walk has ended."
    judge.look("menu-notice")
    one.menu.notice, one.menu.news = "", "Opened halls.zip: 3 to walk through."
    judge.look("menu-news")
    (tmp_path / "broken.png").write_text("no picture")
    one.carry_out(commands.Browse())
    assert isinstance(one.screen, BrowseScreen)
    one.screen.go(tmp_path)
    for name in ("scene0.png", "broken.png", "home"):
        screen = one.screen
        screen.focus = [entry.name for entry in screen.entries].index(name)
        visit.until(lambda: screen.update() is None and (screen.shown is not None or name == "home"), LONG)  # noqa: B023
        judge.look(f"browse-{name.removesuffix('.png')}")
    screen.said = "The folder /gone cannot be read (No such file or directory); choose another."
    judge.look("browse-said")
    one.carry_out(commands.ToMenu(""))
    one.carry_out(commands.OpenSettings())
    _settings(judge, "settings")
    one.carry_out(commands.CloseSettings())
    one.carry_out(commands.Pick(one.menu.scenes[0]))
    assert isinstance(one.screen, LoadingScreen)
    one.screen.said = "The generator process ended unexpectedly (signal 9: it was killed)."
    one.screen.update()
    judge.look("loading")
    judge.verdict()
    assert judge.measured["menu"] >= 10 and judge.measured["browse-scene0"] >= 10 and judge.measured["loading"] >= 5


def _settings(judge: Judge, name: str) -> None:
    """The page of settings from its beginning to its end, the page of keys, and both with something said."""
    screen = judge.visit.program.screen
    assert isinstance(screen, SettingsScreen)
    screen.said = "What you chose cannot be saved; it lasts until the program ends."
    judge.look(name)
    screen.focus = len(screen.rows()) - 2
    judge.look(f"{name}-end")
    screen._do("keys")
    judge.look(f"{name}-keys")
    screen.keys.do("bind jump")
    screen.keys.said = "W already does 'Walk forward'. Press it again to take it from there."
    judge.look(f"{name}-listening")
    screen.keys.listening = None
    assert judge.measured[name] >= 15 and judge.measured[f"{name}-keys"] >= 15


def test_text_can_be_read_over_the_picture(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    visit, one = judge.visit, judge.visit.program
    visit.press(pygame.K_RETURN)
    visit.until(visit.on(PlayScreen), LONG)
    play, session = one.play, one.session
    assert play is not None and session is not None
    visit.until(lambda: session.frame_index > 8, LONG)
    for name, set_up in _states(judge).items():
        set_up()
        judge.look(name)
    with monkeypatch.context() as patch:
        patch.setattr(PlayScreen, "stalled", True)
        play._told = True
        judge.look("play-stalled")
        play._told = False
    session.start_rewind()
    judge.look("play-rewind")
    session.end_rewind()
    paused = visit.save_and_pause(LONG)
    paused.said = "Saved in slot 1"
    judge.look("pause")
    paused.focus = [row.name for row in paused.rows()].index("timeline")
    judge.look("pause-timeline")
    one.carry_out(commands.OpenSettings())
    _settings(judge, "settings-over-play")
    judge.verdict()
    assert judge.measured["play-figures"] >= 20 and judge.measured["pause"] >= 12


def _states(judge: Judge) -> dict[str, Callable[[], None]]:
    """What can lie over the picture while playing, each made by a function."""
    one = judge.visit.program
    play, session = one.play, one.session
    assert play is not None and session is not None

    def hints() -> None:
        session.figures.frames = 1

    def figures() -> None:
        session.figures.frames = 200
        for _ in range(overlay.BARS):
            session.figures.frame_ms.add(500.0)  # the highest bars of the graph
        play.watch = DriftWatch({"saturation": (0.1, 0.2), "sharpness": (0.1, 0.2), "entropy": (3.0, 5.0)}, "too grey")
        play.watch.stats = {"saturation": 0.05, "sharpness": 0.12, "entropy": 4.2}
        one._change("hud", "full")

    def fps() -> None:
        one._change("hud", "fps")

    def inputs() -> None:
        one._change("hud", "off")
        one._change("inputs", True)

    def message() -> None:
        one._change("inputs", False)
        play.tell("Slot 4: saved in Long Hall", white())
        play._message = (*play._message[:2], float("inf")) if play._message else None

    def held() -> None:
        play._message = None
        play.freeze(True)
        play._told = False

    def going_on() -> None:
        play.freeze(False)
        session.figures.frames = 1

    return {
        "play-hints": hints, "play-figures": figures, "play-fps": fps, "play-inputs": inputs, "play-message": message,
        "play-held": held, "play-going-on": going_on,
    }  # fmt: skip


# --- the measure itself
@pytest.mark.parametrize("size", [24, 66])
@pytest.mark.parametrize("grey", [0, 20, 60, 110, 150])
def test_the_measure_agrees_with_the_definition(
    opened: Window,  # noqa: F811
    lines: list[Line],
    size: int,
    grey: int,
) -> None:
    surface = pygame.Surface((1200, 160))
    wanted, within = (widgets.contrast(widgets.QUIET, ground) for ground in ((grey, grey, grey), widgets.GROUND))
    for words in ("Walk on from here", "\ue000 walk  \ue006\ue007 its slot"):
        surface.fill((grey, grey, grey))
        lines.clear()
        overlay.text(surface, words, (20, 50), size, widgets.QUIET)  # type: ignore[attr-defined]
        found = ratios(lines[0], pygame.surfarray.array3d(surface))
        known = [wanted, within] if glyphs.is_mark(words[0]) else [wanted]
        assert len(found) > 2
        for one in known:
            assert any(other == pytest.approx(one, rel=0.1) for other in found), (words, one, found)
        assert all(any(one == pytest.approx(other, rel=0.1) for other in known) for one in found), (words, found)


def test_the_measure_sees_what_a_palette_does_not(opened: Window, lines: list[Line]) -> None:  # noqa: F811
    surface = pygame.Surface((600, 100))
    surface.fill(widgets.GROUND)
    surface.fill((140, 140, 140), (150, 0, 450, 100))  # a veil that ends under the text
    overlay.text(surface, "half of this line lies on something bright", (20, 30), 30, widgets.QUIET)
    found = ratios(lines[0], pygame.surfarray.array3d(surface))
    assert max(found) > 6 and min(found) < 2
    widgets.shade(surface, surface.get_rect(), 200)
    assert ratios(lines[0], pygame.surfarray.array3d(surface)) == [], "what was covered is not measured"
    lines.clear()
    surface.fill(widgets.GROUND)
    overlay.text(surface, "fine print", (20, 30), 5, (95, 100, 110))
    assert min(ratios(lines[0], pygame.surfarray.array3d(surface))) < WANTED, "thin strokes are pale"


def test_no_text_is_drawn_another_way() -> None:
    for path in APP.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        used = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        taken = {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
        own = used & {"Font", "SysFont", "freetype", "_line"} or taken & {"font", "_line", "Font"}
        assert not own or path.name in ("widgets.py", "glyphs.py"), f"{path.name} draws text of its own"
