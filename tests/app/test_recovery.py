"""Chaos: the generator is killed, stopped, garbled, out of memory or out of numbers, and the walk goes on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pygame
import pytest
from fake_world import SIZE, FakeWorld, make_door, open_fake
from test_window import Visit

from app import headless
from app.figures import Figures
from app.main import play
from app.player import PlaySession
from app.protocol import Frames, Load, Progress, Ready
from app.recovery import ATTEMPTS, GOOD_PLAY, Automatic, Failures, Watchdog
from app.screens.loading import LoadingScreen
from app.screens.menu import MenuScreen
from app.screens.pause import PauseScreen
from app.screens.play import PlayScreen
from app.session import GeneratorProcess
from app.statefile import About, StateFile, write_quickly, write_state
from app.window import Window
from controls.action import Action, ActionSpec
from controls.errors import UserError

SPEC = ActionSpec()
PICTURE = np.random.default_rng(0).integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Window]:
    monkeypatch.setenv("FARSTEP_HOME", str(tmp_path / "home"))
    one = Window("test")
    yield one
    one.close()


@pytest.fixture
def visits(opened: Window, tmp_path: Path) -> Iterator[Callable[..., Visit]]:
    made: list[Visit] = []

    def make(*words: str) -> Visit:
        made.append(Visit(opened, tmp_path, *words))
        made[-1].press(pygame.K_RETURN)
        return made[-1]

    yield make
    for visit in made:
        visit.program.close()


def shown(visit: Visit) -> int:
    session = visit.program.session
    return session.figures.frames if session is not None else 0


def kept(visit: Visit) -> list[Path]:
    return list(visit.program.walk.automatic.states) if visit.program.walk is not None else []


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("kill", "signal 9"), ("leave", "exit code 7"), ("memory", "ran out of memory"),
        ("driver", "ran out of memory"), ("nan", "NaN"), ("floats", "not bytes"),
        ("garble", "cannot be read"), ("other", "cannot be read"), ("half", "cannot be read"),
    ],
)  # fmt: skip
def test_whatever_the_generator_does_the_walk_goes_on(
    visits: Callable[..., Visit], tmp_path: Path, how: str, words: str
) -> None:
    visit = visits("--backend", f"chaos:{how}:6:{tmp_path / 'mark'}")
    visit.until(visit.on(PlayScreen))
    pid, play = visit.program.generator.pid, visit.program.play
    visit.until(visit.on(LoadingScreen))
    screen = visit.program.screen
    assert isinstance(screen, LoadingScreen) and words in screen.said and screen.said.count(". ") == 0
    visit.until(lambda: visit.program.generator.ready is not None)
    ready, then = time.perf_counter(), shown(visit)
    visit.until(lambda: visit.on(PlayScreen)() and shown(visit) > then + 8)
    assert time.perf_counter() - ready < 10
    assert visit.program.generator.pid != pid and visit.program.play is play
    assert play is not None and play._message is not None and "back" in play._message[0]
    assert visit.program.session is not None and visit.program.session.frame_index >= 2, "it is not the beginning"


def test_a_stopped_generator_is_replaced_after_its_deadline(visits: Callable[..., Visit], tmp_path: Path) -> None:
    visit = visits("--backend", f"chaos:stop:6:{tmp_path / 'mark'}")
    visit.program.watchdog.patience["step"] = 1.0
    visit.until(visit.on(PlayScreen))
    pid = visit.program.generator.pid
    visit.until(visit.on(LoadingScreen))
    assert isinstance(visit.program.screen, LoadingScreen)
    assert "has not answered for 1 s" in visit.program.screen.said
    assert pid is not None and not Path(f"/proc/{pid}").exists()
    then = shown(visit)
    visit.until(lambda: shown(visit) > then + 8)


def test_a_stop_while_loading_and_while_paused_is_noticed(visits: Callable[..., Visit]) -> None:
    visit = visits("--backend", "loading")
    visit.program.watchdog.patience["load"] = 0.4
    visit.until(visit.on(LoadingScreen))
    visit.until(visit.on(MenuScreen))
    assert "has not answered" in visit.program.menu.notice
    visit.program.watchdog.patience["load"] = 60.0
    visit.press(pygame.K_RETURN)
    visit.until(visit.on(PlayScreen))
    visit.until(lambda: shown(visit) > 4)
    visit.press(pygame.K_ESCAPE)
    visit.until(visit.on(PauseScreen))
    assert visit.program.generator.pid is not None
    os.kill(visit.program.generator.pid, 9)
    visit.until(visit.on(LoadingScreen))
    visit.until(visit.on(PauseScreen))
    assert visit.program.session is not None and visit.program.session.paused, "the player was not there"


def test_three_failures_in_a_row_end_in_the_menu(visits: Callable[..., Visit]) -> None:
    visit = visits("--backend", "chaos:kill:6")
    pids: set[int | None] = set()

    def ended() -> bool:
        pids.add(visit.program.generator.pid)
        return isinstance(visit.program.screen, MenuScreen) and bool(visit.program.menu.notice)

    visit.until(ended, 40)
    assert "signal 9" in visit.program.menu.notice and "number 3 in a row" in visit.program.menu.notice
    assert len(pids) == ATTEMPTS and visit.program.walk is None
    visit.press(pygame.K_RETURN)
    visit.until(visit.on(PlayScreen))


def test_the_walk_goes_on_from_the_newest_state_and_nothing_is_left_behind(visits: Callable[..., Visit]) -> None:
    visit = visits()
    visit.until(visit.on(PlayScreen))
    visit.program.walk.automatic.every = 0.5  # type: ignore[union-attr]
    visit.press(pygame.K_w)
    visit.until(lambda: shown(visit) > 60)
    visit.until(lambda: len(kept(visit)) == 2)
    with StateFile(kept(visit)[-1]) as file:
        newest, picture = file.about.frame_index, file.picture()
    assert newest >= 10 and visit.program.generator.pid is not None
    folder = kept(visit)[-1].parent
    assert len(list(folder.iterdir())) <= 3
    before = visit.program.session.frame_index  # type: ignore[union-attr]
    os.kill(visit.program.generator.pid, signal.SIGKILL)
    visit.until(visit.on(LoadingScreen))
    visit.until(visit.on(PlayScreen))
    session, play = visit.program.session, visit.program.play
    assert session is not None and play is not None
    visit.until(lambda: play.last is not None and play.last.number // 4 == session.frame_index)
    assert before - 6 <= session.frame_index <= before + 6
    assert newest <= session.frame_index and not np.array_equal(picture, PICTURE)
    visit.until(lambda: session.frame_index > before + 4)
    visit.program._to_menu("")
    assert not folder.exists()


def test_going_elsewhere_forgets_the_states_of_the_way_before(visits: Callable[..., Visit]) -> None:
    visit = visits()
    visit.until(lambda: visit.on(PlayScreen)() and bool(kept(visit)))
    visit.until(lambda: shown(visit) > 40)
    visit.press(pygame.K_h)
    session = visit.program.session
    assert session is not None
    visit.until(lambda: session.frame_index <= 1 and not kept(visit))
    visit.until(lambda: bool(kept(visit)))
    with StateFile(kept(visit)[-1]) as file:
        assert file.about.frame_index <= 4


def test_a_state_that_cannot_be_read_is_skipped(tmp_path: Path) -> None:
    automatic, about = Automatic(), About("fake", "fake", 1)
    world = FakeWorld(Path("x"))
    world.reset(PICTURE, 0)
    for name in ("a", "b"):
        write_quickly(tmp_path / name, about, world.save_state(), PICTURE, PICTURE)
        automatic.states.append(tmp_path / name)
    (tmp_path / "b").write_bytes((tmp_path / "b").read_bytes()[:1000])
    found = automatic.newest()
    assert found is not None and found[0] == tmp_path / "a" and np.array_equal(found[1], PICTURE)
    automatic.forget_newest()
    assert automatic.newest() is not None, "the only one is kept"
    (tmp_path / "a").unlink()
    assert automatic.newest() is None


def test_a_quick_state_is_the_same_state(tmp_path: Path) -> None:
    world, about = FakeWorld(Path("x")), About("fake", "fake", 1)
    world.reset(PICTURE, 0)
    write_quickly(tmp_path / "quick", about, world.save_state(), PICTURE, PICTURE)
    write_state(tmp_path / "forced", about, world.save_state(), PICTURE, PICTURE)
    with StateFile(tmp_path / "quick") as quick, StateFile(tmp_path / "forced") as forced:
        assert quick.about == forced.about
        one, other = quick.state(), forced.state()
        assert one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)
    with pytest.raises(UserError, match="Cannot write"):
        write_quickly(tmp_path, about, world.save_state(), PICTURE, PICTURE)


class Stub:
    """A session or a generator as far as counting and watching go."""

    def __init__(self) -> None:
        self.figures = Figures()
        self.config = PlaySession(None, None, None).config  # type: ignore[arg-type]
        self.owed: tuple[str, float] | None = None
        self.alive, self.ready, self.progress = True, object(), Progress(0.1, "x")
        self.time = 0.0

    def now(self) -> float:
        return self.time


def test_a_minute_of_good_play_makes_a_failure_the_first_again() -> None:
    stub, failures = Stub(), Failures()
    assert [failures.another(stub) for _ in range(3)] == [True, True, False]  # type: ignore[arg-type]
    stub.figures.frames += int(GOOD_PLAY * 24) - 1
    assert not failures.another(stub)  # type: ignore[arg-type]
    stub.figures.frames += int(GOOD_PLAY * 24)
    assert failures.another(stub) and failures.row == 1  # type: ignore[arg-type]


def test_the_watchdog_counts_turns_and_not_sleep() -> None:
    stub = Stub()
    dog = Watchdog(stub, {"step": 8.0})

    def after(seconds: float) -> str | None:
        stub.time += seconds
        return dog.overdue(stub, stub)  # type: ignore[arg-type]

    stub.owed = ("step", 1.0)
    assert after(0.1) is None
    assert after(3600.0) is None, "the machine slept"
    assert [after(0.4) for _ in range(18)] == [None] * 18
    words = after(0.4) or after(0.4)
    assert words is not None and "8 s" in words
    stub.owed = ("step", 2.0)
    assert after(0.4) is None, "another debt"
    for _ in range(30):
        stub.figures.step_ms.add(900.0)
    assert all(after(0.4) is None for _ in range(40)), "steps have always taken a second"
    stub.owed = None
    assert after(0.4) is None


def test_a_pipe_that_nobody_empties_does_not_stop_the_window() -> None:
    process = GeneratorProcess(Load(Path("x")), open_fake)
    end = time.perf_counter() + 15
    while process.ready is None and time.perf_counter() < end:
        process.poll()
        process.wait(0.05)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    began = time.perf_counter()
    for index in range(6000):
        process.rewind(index)
    assert time.perf_counter() - began < 5
    process.give_up("It was stopped.")
    assert not process.alive and process.failure == "It was stopped."
    process.close(patience=0.1)
    assert not Path(f"/proc/{process.pid}").exists()


@pytest.mark.parametrize("how", ["kill", "memory", "nan", "garble"])
def test_without_a_window_a_failure_is_one_sentence(tmp_path: Path, how: str) -> None:
    from test_headless import arguments

    words = ("--frames", "60", "--no-pacing", "--backend", f"chaos:{how}:3", "--json", str(tmp_path / "report"))
    with pytest.raises(UserError) as caught:
        play(arguments(*words), make_door(tmp_path, 1))
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
    assert not (tmp_path / "report").exists()


def test_without_a_window_a_stopped_generator_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from test_headless import arguments

    monkeypatch.setattr(headless, "STEP_PATIENCE", 1.0)
    with pytest.raises(UserError, match="has not answered for 1 s"):
        play(arguments("--frames", "60", "--backend", "chaos:stop:3"), make_door(tmp_path, 1))


def test_a_beginning_is_owed_too(tmp_path: Path) -> None:
    """A generator that stops before its first frame is noticed like any other."""
    from test_rewind import FakeClock, LocalGenerator

    clock = FakeClock()
    generator = LocalGenerator(clock)
    session = PlaySession(generator, None, clock)  # type: ignore[arg-type]
    session.begin(PICTURE, 0)
    clock.time += 3.0
    assert session.owed == ("begin", 50.0) and session.waiting() == 3.0
    session.poll()
    assert session.owed is None and session.has_frame


def test_states_kept_before_a_jump_do_not_count_after_it(tmp_path: Path) -> None:
    process = GeneratorProcess(Load(Path("x")), open_fake)

    def until(kind: type) -> None:
        end = time.perf_counter() + 15
        while not any(isinstance(reply, kind) for reply in process.poll()):
            assert time.perf_counter() < end
            process.wait(0.05)

    until(Ready)
    process.reset(PICTURE, 1)
    until(Frames)
    process.step(1, Action.idle(SPEC))
    process.keep_state(tmp_path / "a")
    until(Frames)
    end = time.perf_counter() + 5
    while process.keeping and time.perf_counter() < end:
        assert process.poll() == [], "automatic states are nobody else's matter"
        process.wait(0.05)
    assert process.kept() == [tmp_path / "a"] and process.kept() == []
    process.keep_state(tmp_path / "b")
    process.reset(PICTURE, 1)
    until(Frames)
    end = time.perf_counter() + 5
    while process.keeping and time.perf_counter() < end:
        process.poll()
        process.wait(0.05)
    assert process.kept() == [] and (tmp_path / "b").exists()
    process.keep_state(tmp_path / "no" / "folder")
    while process.keeping and time.perf_counter() < end + 5:
        assert process.poll() == []
        process.wait(0.05)
    assert process.kept() == [] and process.alive
    process.close()
