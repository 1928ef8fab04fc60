"""Rewind, saved places and single steps in a session: on a fake clock, with a World that remembers behind it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_world import SIZE, FakeWorld
from test_history import walk

from app.history import RememberingWorld
from app.player import PlaySession
from app.protocol import Failed, Frames, Loaded, Reply
from app.ticks import VideoFrame
from controls.action import Action, ActionSpec
from controls.errors import UserError

SPEC = ActionSpec()
PICTURE = np.random.default_rng(0).integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8)


class FakeClock:
    def __init__(self) -> None:
        self.time = 50.0

    def now(self) -> float:
        return self.time


class LocalGenerator:
    """The child's side in the same process: every answer comes `turnaround` seconds after it was asked for."""

    def __init__(self, clock: FakeClock, turnaround: float = 0.05) -> None:
        self.clock = clock
        self.turnaround = turnaround
        self.world = RememberingWorld(FakeWorld(Path("x")))
        self.epoch = 0
        self.can_step = True
        self.owed: list[tuple[float, Reply, np.ndarray | None]] = []
        self.states: dict[Path, dict[str, np.ndarray]] = {}

    def _answer(self, reply: Reply, frames: np.ndarray | None = None) -> None:
        self.owed.append((self.clock.now() + self.turnaround, reply, frames))

    def _frames(self, index: int, frames: np.ndarray) -> None:
        kept = self.world.oldest, self.world.nbytes / 1e6
        self._answer(Frames(self.epoch, index, 0, len(frames), 1.0, 1.0, 0.0, *kept), frames)

    def reset(self, picture: np.ndarray, seed: int) -> None:
        self.epoch += 1
        self._frames(0, self.world.reset(picture, seed))

    def step(self, index: int, action: Action) -> None:
        assert index == self.world.frame_index + 1, "asked for the latent frame that follows"
        self._frames(index, self.world.step(action))

    def rewind(self, index: int) -> None:
        self.epoch += 1
        try:
            self.world.rewind(index)
        except UserError as error:
            self._answer(Failed(str(error), fatal=False))
        self._answer(Loaded(self.epoch, self.world.frame_index, self.world.oldest))

    def load_state(self, path: Path) -> None:
        self.epoch += 1
        if path in self.states:
            self.world.load_state(self.states[path])
        else:
            self._answer(Failed("refused", fatal=False))
        self._answer(Loaded(self.epoch, self.world.frame_index, self.world.oldest))

    def poll(self) -> list[Reply]:
        ready = [item for item in self.owed if item[0] <= self.clock.now()]
        self.owed = [item for item in self.owed if item[0] > self.clock.now()]
        self._taken = {id(reply): frames for _, reply, frames in ready}
        return [reply for _, reply, _ in ready]

    def take(self, reply: Frames) -> np.ndarray | None:
        return self._taken[id(reply)] if reply.epoch == self.epoch else None


class Hands:
    """Plays given actions tick by tick, then holds still."""

    def __init__(self, actions: list[Action]) -> None:
        self.rows = [row for action in actions for row in zip(action.keys, action.look, strict=True)]

    def tick(self) -> tuple[np.ndarray, np.ndarray]:
        if self.rows:
            return self.rows.pop(0)
        idle = Action.idle(SPEC)
        return idle.keys[0], idle.look[0]


class Run:
    def __init__(self, actions: list[Action]) -> None:
        self.clock = FakeClock()
        self.generator = LocalGenerator(self.clock)
        self.hands = Hands(actions)
        self.session = PlaySession(self.generator, self.hands, self.clock)
        self.shown: list[tuple[float, VideoFrame]] = []
        self.session.begin(PICTURE, 4)

    def turn(self) -> None:
        self.session.poll()
        self.session.sample()
        if (frame := self.session.due()) is not None:
            self.session.shown(frame)
            self.shown.append((self.clock.now(), frame))
            return
        wakes = [self.session.next_wake(1 / 60), *(due for due, _, _ in self.generator.owed)]
        self.clock.time = max(self.clock.time + 1e-6, min(wakes))

    def until_frame(self, number: int) -> None:
        for _ in range(100_000):
            if self.shown and self.shown[-1][1].number == number:
                return
            self.turn()
        raise AssertionError(f"stands at {self.shown[-1][1].number if self.shown else None}")

    def for_seconds(self, seconds: float) -> None:
        end = self.clock.now() + seconds
        while self.clock.now() < end:
            self.turn()


def straight(actions: list[Action]) -> np.ndarray:
    """The frames of these actions without any session: (1 + 4 n, Y, X, 3)."""
    world = FakeWorld(Path("x"))
    return np.concatenate([world.reset(PICTURE, 4), *(world.step(action) for action in actions)])


def test_rewind_goes_back_six_latent_frames_a_second_and_play_goes_on_exactly_from_there() -> None:
    before, after = walk(40), walk(10, seed=5)
    run = Run(before)
    run.until_frame(150)
    assert run.session.start_rewind() and run.session.rewinding
    assert not run.session.start_rewind()
    began, count = run.clock.now(), len(run.shown)
    run.for_seconds(2.02)
    went = [(when - began, frame) for when, frame in run.shown[count:]]
    assert [frame.number for _, frame in went] == [4 * index for index in range(37, 24, -1)]
    assert np.allclose([when for when, _ in went], np.arange(13) / 6, atol=1 / 50)
    wanted = straight(before)
    assert all(np.array_equal(frame.pixels, wanted[frame.number]) for _, frame in went)
    assert run.session.rewind_index() == 25
    run.hands.rows = Hands(after).rows
    run.session.end_rewind()
    late = run.session.figures.late_frames
    run.until_frame(100)
    run.until_frame(140)
    branch = straight(before[:25] + after)
    tail = [frame for _, frame in run.shown if frame.number > 100][-40:]
    assert [frame.number for frame in tail] == list(range(101, 141))
    assert all(np.array_equal(frame.pixels, branch[frame.number]) for frame in tail)
    assert run.session.film.newest == 35 and np.array_equal(run.session.film.get(30), branch[120])
    assert run.session.figures.late_frames == late and not run.session.notices


def test_rewind_stops_at_its_reach_and_a_second_one_works() -> None:
    actions = walk(300)
    run = Run(actions)
    run.until_frame(4 * 250)
    assert run.session.reach == 250 - 180
    run.session.start_rewind()
    run.for_seconds(32)
    assert run.session.rewind_index() == run.session.reach == 70
    run.hands.rows = Hands(actions[70:]).rows
    run.session.end_rewind()
    run.until_frame(4 * 75 + 1)
    run.session.start_rewind()
    run.for_seconds(0.51)
    assert run.session.rewind_index() == 72
    run.hands.rows = Hands(actions[72:]).rows
    run.session.end_rewind()
    run.until_frame(4 * 80)
    assert np.array_equal(run.shown[-1][1].pixels, straight(actions[:80])[-1])
    assert 0 < run.session.memory_mb < 192 + 96


def test_pausing_ends_a_rewind_and_nothing_rewinds_while_paused() -> None:
    run = Run(walk(20))
    assert not run.session.start_rewind()
    run.until_frame(41)
    run.session.start_rewind()
    run.for_seconds(0.4)
    run.session.pause()
    assert not run.session.rewinding
    run.for_seconds(1)
    assert not run.session.start_rewind() and run.session.frame_index == 8
    count = len(run.shown)
    run.session.resume()
    run.until_frame(40)
    assert [frame.number for _, frame in run.shown[count:]] == list(range(32, 41))


def test_a_refused_jump_goes_on_where_the_world_stands() -> None:
    actions = walk(30)
    run = Run(actions)
    run.until_frame(42)
    for jump in (lambda: run.session.go_back(300), lambda: run.session.load(Path("none"), PICTURE)):
        run.hands.rows = Hands(actions[run.generator.world.frame_index :]).rows
        jump()
        stands = run.generator.world.frame_index
        run.until_frame(4 * stands + 8)
        assert np.array_equal(run.shown[-1][1].pixels, straight(actions)[4 * stands + 8])
    assert ["not remembered" in run.session.notices[0], run.session.notices[1]] == [True, "refused"]


def test_a_place_that_cannot_be_the_beginning_ends_the_session_with_its_sentence() -> None:
    run = Run([])
    run.session = PlaySession(run.generator, run.hands, run.clock)
    run.session.load(Path("none"), PICTURE)
    run.for_seconds(0.2)
    assert run.session.failure == "refused"


def test_a_loaded_place_shows_its_picture_and_continues_exactly() -> None:
    actions, path = walk(30), Path("slot")
    run = Run(actions)
    run.until_frame(50)
    run.generator.states[path] = run.generator.world.save_state()
    stands = run.generator.world.frame_index
    run.until_frame(90)
    run.hands.rows = Hands(actions[stands:]).rows
    picture = straight(actions)[4 * stands]
    run.session.load(path, picture)
    assert run.session.waiting() == 0.0 and run.session.due() is None
    run.until_frame(4 * stands)
    assert np.array_equal(run.shown[-1][1].pixels, picture) and run.session.film.oldest == stands
    run.until_frame(100)
    assert np.array_equal(run.shown[-1][1].pixels, straight(actions)[100])


def test_single_steps_end_on_latent_frames_and_lose_nothing() -> None:
    actions = walk(30)
    run = Run(actions)
    run.until_frame(22)
    run.session.step_once()
    assert not run.session.paused, "only while paused"
    run.session.pause()
    for latent in (6, 7, 8, 9):
        run.session.step_once()
        run.for_seconds(2)
        assert run.session.paused and run.shown[-1][1].number == 4 * latent
    run.session.resume()
    run.until_frame(100)
    assert [frame.number for _, frame in run.shown] == list(range(101))
    wanted = straight(actions)
    assert all(np.array_equal(frame.pixels, wanted[frame.number]) for _, frame in run.shown)


@pytest.mark.parametrize("paused", [False, True])
def test_branching_from_the_pause_menu(paused: bool) -> None:
    actions = walk(30)
    run = Run(actions)
    run.until_frame(80)
    if paused:
        run.session.pause()
    run.session.go_back(9)
    run.hands.rows = Hands(actions[9:]).rows
    run.for_seconds(0.5)
    assert (run.shown[-1][1].number == 80) == paused
    run.session.resume()
    run.until_frame(48)
    assert np.array_equal(run.shown[-1][1].pixels, straight(actions)[48])
