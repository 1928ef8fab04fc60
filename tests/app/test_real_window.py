"""The whole program as a player has it: `run.py` with the weights it comes with, on a display, by real keys and mouse.

Xvfb shows it, xdotool presses and moves; whether the view turned is measured in the pictures that F8 keeps. Nothing is
said about time: every wait is long enough for a busy machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app import widgets
from app.door import DEFAULT_WEIGHTS
from app.settings import Settings
from controls.camera import Camera
from generator.checkpoint import config_from_dict, read_manifest
from generator.evaluation.motion import yaw_per_tick
from generator.scene import list_scenes

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("Xvfb", "xdotool")
LONG = 240.0  # seconds
PIXELS, MOVES = 15, 10  # of one move of the mouse, and moves to each side; several may meet in one video frame
OPEN = "sun-pool"  # a scene with room to walk: before a wall, which stops one, no turn can be measured
FIGURES = 400  # pixels from the left that the figures take
SETTLED = 12  # video frames after the last move: three latent frames, all that are on their way hold no older input

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Xvfb and xdotool are for X11"),
    *(pytest.mark.skipif(not shutil.which(name), reason=f"{name} is not installed") for name in NEEDED),
    pytest.mark.skipif(not DEFAULT_WEIGHTS.is_dir(), reason="there are no weights"),
]


def until(found: Callable[[], object], what: str, seconds: float = LONG, every: float = 0.1) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, f"{what} did not come in {seconds} s"
        time.sleep(every)


class Display:
    """A screen of its own; `shot` reads what it shows from the file where Xvfb keeps it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._file = folder / "Xvfb_screen0"
        read, write = os.pipe()
        words = ["Xvfb", "-displayfd", str(write), "-screen", "0", "1280x800x24", "-fbdir", str(folder)]
        self.process = subprocess.Popen(
            [*words, "-nolisten", "tcp"], pass_fds=(write,), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(write)
        with os.fdopen(read) as answer:
            number = answer.readline().strip()  # empty when it could not start
        assert number, f"Xvfb ended with {self.process.wait()}"
        self.env = {**os.environ, "DISPLAY": f":{number}", "SDL_VIDEODRIVER": "x11"}
        self.env.pop("WAYLAND_DISPLAY", None)

    def do(self, *words: str) -> str:
        """xdotool's answer to a command."""
        done = subprocess.run(["xdotool", *words], env=self.env, capture_output=True, text=True, timeout=LONG)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    def focused(self) -> str:
        """The name of the window that hears the keys, "" for none."""
        words = ["xdotool", "getwindowfocus", "getwindowname"]
        return subprocess.run(words, env=self.env, capture_output=True, text=True, timeout=LONG).stdout.strip()

    def shot(self) -> np.ndarray:
        """The screen, uint8 (Y, X, 3): the file is a header of big-endian words, a colour map, and rows of BGRX."""
        data = self._file.read_bytes()
        header = np.frombuffer(data, ">u4", 25)
        (start, wide, high, bits, row, colours) = (int(header[i]) for i in (0, 4, 5, 11, 12, 19))
        assert bits == 32, f"{bits} bits per pixel"
        pixels = np.frombuffer(data, np.uint8, high * row, start + 12 * colours)
        return pixels.reshape(high, row // 4, 4)[:, :wide, 2::-1]

    def ringed(self, beside: int = 0) -> int:
        """How many pixels have the colour of the focus ring: hundreds in a menu. Those `beside` the left edge do not
        count, where the figures show late frames in that colour.
        """
        shown = self.shot()[:, beside:].astype(int)
        return int((np.abs(shown - np.array(widgets.ACCENT)).max(axis=2) < 3).sum())


class Player:
    """The program on a display, and the hand on its keys."""

    def __init__(self, display: Display, home: Path, log: Path) -> None:
        self.display, self.pictures, self.log = display, home / "pictures", log
        env = {**display.env, "FARSTEP_HOME": str(home)}
        with log.open("wb") as file:
            self.process = subprocess.Popen([sys.executable, str(ROOT / "run.py")], env=env, stdout=file, stderr=file)

    def alive(self) -> None:
        assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.log.read_text()}"

    def wait(self, found: Callable[[], object], what: str) -> None:
        def alive_and_found() -> object:
            self.alive()
            return found()

        until(alive_and_found, what)

    def press(self, key: str) -> None:
        self.display.do("key", key)

    def kept(self) -> dict[int, Path]:
        """The pictures kept so far by the number of their video frame; a second one of a frame is left out."""
        return {int(path.stem[-6:]): path for path in self.pictures.glob("*-" + 6 * "[0-9]" + ".png")}

    def picture(self, after: int) -> int:
        """F8 until there is a picture of a later video frame than `after`; its number."""

        def later() -> bool:
            if max(self.kept(), default=-1) > after:
                return True
            self.press("F8")
            return False

        self.wait(later, f"a picture after video frame {after}")
        return max(self.kept())

    def turn(self, pixels: int, after: int) -> list[int]:
        """Move the mouse by `pixels` MOVES times, a picture after each and until the view stands; their numbers."""
        numbers = [after]
        for _ in range(MOVES):
            self.display.do("mousemove_relative", "--", str(pixels), "0")
            numbers.append(self.picture(numbers[-1]))
        end = numbers[-1] + SETTLED
        while numbers[-1] < end:
            numbers.append(self.picture(numbers[-1]))
        return numbers

    def degrees(self, numbers: list[int]) -> np.ndarray:
        """How far the view turned to the right from each picture to the next; NaN where they show too little."""
        kept = self.kept()
        frames = np.stack([np.asarray(Image.open(kept[number]).convert("RGB")) for number in numbers])
        config = config_from_dict(read_manifest(DEFAULT_WEIGHTS)["config"])
        camera = Camera(config.hfov, config.picture[0] / config.picture[1])
        return yaw_per_tick(frames, camera, np.zeros(len(frames)))


@pytest.fixture
def player(tmp_path: Path) -> Iterator[Player]:
    display = Display(tmp_path / "screen")
    try:
        one = Player(display, tmp_path / "home", tmp_path / "said.txt")
        try:
            yield one
        finally:
            one.process.terminate()
            try:
                one.process.wait(20)
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.process.wait()
    finally:
        display.process.terminate()
        display.process.wait()


def test_a_player_starts_walks_looks_around_and_leaves(player: Player) -> None:
    display = player.display
    player.wait(lambda: display.ringed() > 300, "the menu")
    player.wait(lambda: display.focused() == "Farstep", "the focus")
    for _ in range([scene.name for scene in list_scenes()].index(OPEN)):
        player.press("Right")
    player.press("Return")
    first = player.picture(-1)
    display.do("keydown", "w")
    right = player.turn(PIXELS, first)
    display.do("keyup", "w")
    left = player.turn(-PIXELS, right[-1])
    for way, numbers in ((1, right), (-1, left)):
        yaw = way * player.degrees(numbers)
        print(f"frames {numbers}: {yaw.round(1)} degrees")
        assert np.nansum(yaw) > 0.5 * MOVES * PIXELS * Settings().sensitivity, (
            f"turned by {yaw.round(1)} over the frames {numbers}"
        )
    player.wait(lambda: display.ringed() < 50, "the picture without menus")
    player.press("Escape")
    player.wait(lambda: display.ringed() > 300, "the pause menu")
    player.press("Up")  # from the first line round to the last one, Quit
    player.press("Return")
    until(lambda: player.process.poll() is not None, "the end")
    assert player.process.returncode == 0, player.log.read_text()


@pytest.mark.skipif(not os.environ.get("FARSTEP_MINUTES"), reason="FARSTEP_MINUTES says how long to play, 5 say")
def test_minutes_of_play(player: Player) -> None:
    """A visitor who does all that one can, over and over; the screens of each half minute are kept beside the log."""
    display, rng = player.display, np.random.default_rng(0)
    player.wait(lambda: display.ringed() > 300, "the menu")
    player.wait(lambda: display.focused() == "Farstep", "the focus")
    player.press("Return")
    numbers = [player.picture(-1)]
    for _ in range(2):
        player.press("F3")  # all figures
    begun, shots = time.monotonic(), 0
    while (played := time.monotonic() - begun) < 60 * float(os.environ["FARSTEP_MINUTES"]):
        key = str(rng.choice(["w", "w", "w", "s", "a", "d"]))
        display.do("keydown", key)
        for _ in range(int(rng.integers(4, 20))):
            display.do("mousemove_relative", "--", str(int(rng.integers(-40, 41))), str(int(rng.integers(-4, 5))))
            time.sleep(0.1)
        display.do("keyup", key)
        if rng.random() < 0.1:
            display.do("keydown", "r")
            time.sleep(1.0)
            display.do("keyup", "r")
        if rng.random() < 0.2:
            player.press(str(rng.choice(["F2", "F4", "space", "h"])))
        if rng.random() < 0.1:
            player.press("Escape")
            player.wait(lambda: display.ringed(FIGURES) > 300, "the pause menu")
            player.press("Escape")
            player.wait(lambda: display.ringed(FIGURES) < 50, "the picture without menus")
        player.alive()
        if played > 30 * shots:
            Image.fromarray(display.shot()).save(player.log.with_name(f"screen-{shots:02d}.png"))
            shots += 1
    last = player.picture(max(player.kept()))
    Image.fromarray(display.shot()).save(player.log.with_name("screen-last.png"))
    print(f"{shots} screens and the last, of video frame {last}, in {player.log.parent}")
    assert last > numbers[0]
