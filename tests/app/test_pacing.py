"""Pacing on a fake clock: the grids, the lead, and whole sessions with a generator of known speed."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from app.figures import Series
from app.pacing import DisplayGrid, Lead, PacingConfig, rest
from app.player import PlaySession
from app.protocol import Failed, Frames, Reply
from app.ticks import VideoFrame
from controls.action import Action, ActionSpec

SPEC = ActionSpec()
PICTURE = np.zeros((10, 16, 3), np.uint8)


class FakeClock:
    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time


class Counter:
    """Tick n carries n in its look, so that every frame can name the tick that led to it."""

    def __init__(self) -> None:
        self.count = 0

    def tick(self) -> tuple[np.ndarray, np.ndarray]:
        self.count += 1
        return np.zeros(len(SPEC.keys), np.uint8), np.array([self.count, 0], np.float32)


class FakeGenerator:
    """Answers every step `turnaround(index)` seconds after it was sent."""

    def __init__(self, clock: FakeClock, turnaround: float = 0.06) -> None:
        self.clock = clock
        self.turnaround = lambda index: turnaround
        self.owed: list[tuple[float, Frames]] = []
        self.actions: dict[int, Action] = {}
        self.sent: dict[int, float] = {}
        self.epoch = 0
        self.can_step = True

    def reset(self, picture: np.ndarray, seed: int) -> None:
        self.epoch += 1
        self.owed.append((self.clock.now(), Frames(self.epoch, 0, 0, 1, 0, 0, 0)))

    def step(self, index: int, action: Action) -> None:
        assert len(self.owed) == 0, "one step at a time"
        self.actions[index], self.sent[index] = action, self.clock.now()
        due = self.clock.now() + self.turnaround(index)
        self.owed.append((due, Frames(self.epoch, index, 0, 4, 40.0, 20.0, 0)))

    def take(self, reply: Frames) -> np.ndarray | None:
        return np.zeros((reply.count, *PICTURE.shape), np.uint8) if reply.epoch == self.epoch else None

    def poll(self) -> list[Reply]:
        ready = [reply for due, reply in self.owed if due <= self.clock.now()]
        self.owed = [(due, reply) for due, reply in self.owed if due > self.clock.now()]
        return list(ready)


class Run:
    """A session driven like the window drives it; the clock jumps from one wake-up to the next."""

    def __init__(self, turnaround: float = 0.06, config: PacingConfig | None = None) -> None:
        self.clock = FakeClock()
        self.generator = FakeGenerator(self.clock, turnaround)
        self.source = Counter()
        self.session = PlaySession(self.generator, self.source, self.clock, config)
        self.shown: list[tuple[float, VideoFrame]] = []
        self.session.begin(PICTURE, 0)

    def until(self, frames: int) -> None:
        for _ in range(200_000):
            if len(self.shown) >= frames:
                return
            self.session.poll()
            self.session.sample()
            frame = self.session.due()
            if frame is not None:
                self.session.shown(frame)
                self.shown.append((self.clock.now(), frame))
                continue
            wakes = [self.session.next_wake(), *(due for due, _ in self.generator.owed)]
            self.clock.time = max(self.clock.time + 1e-6, min(wakes))
        raise AssertionError(f"only {len(self.shown)} frames")


def test_deadlines_are_absolute() -> None:
    grid = DisplayGrid(PacingConfig())
    grid.anchor(10, 5.0)
    assert grid.deadline(10 + 24 * 3600) == pytest.approx(5.0 + 3600)


def test_a_late_frame_does_not_move_the_grid_but_a_gap_does() -> None:
    grid = DisplayGrid(PacingConfig())
    grid.anchor(0, 0.0)
    assert not grid.shown(0, 0.5 / 24)
    assert grid.shown(1, 1 / 24 + 0.1)
    assert grid.deadline(2) == pytest.approx(2 / 24)
    assert grid.due(2) == pytest.approx(1 / 24 + 0.1 + 0.5 / 24), "catching up keeps half a period"
    assert grid.shown(2, 2 / 24 + 0.6)
    assert grid.deadline(3) == pytest.approx(3 / 24 + 0.6)


def test_frames_are_given_out_ahead_by_what_drawing_takes() -> None:
    grid = DisplayGrid(PacingConfig())
    grid.anchor(0, 0.0)
    grid.shown(0, 0.0, drawing=0.008)
    assert grid.due(1) == pytest.approx(1 / 24 - 0.008)


def test_every_frame_is_shown_at_its_deadline_and_none_is_late() -> None:
    run = Run()
    run.until(24 * 60)
    times = np.array([when for when, _ in run.shown])
    assert [frame.number for _, frame in run.shown] == list(range(24 * 60))
    assert np.abs(np.diff(times[1:]) - 1 / 24).max() < 1e-4
    assert run.session.figures.late_frames == 0
    assert run.session.figures.fps == pytest.approx(24, abs=1e-3)


def test_tick_i_of_an_action_leads_to_video_frame_i_of_its_latent_frame() -> None:
    run = Run()
    run.until(200)
    for index, action in run.generator.actions.items():
        assert action.look[:, 0].tolist() == [4 * (index - 1) + i for i in (1, 2, 3, 4)]


def test_the_delay_is_one_latent_frame_plus_the_lead_for_every_tick() -> None:
    run = Run()
    run.until(400)
    lead = run.session.lead.seconds
    delays = {round(when - frame.tick_began, 4) for when, frame in run.shown[-100:]}
    assert lead == pytest.approx(0.06 + PacingConfig().margin, abs=1e-3)
    assert max(delays) - min(delays) < 5e-4
    assert max(delays) == pytest.approx(4 / 24 + lead, abs=1e-3)


def test_an_action_is_sent_exactly_the_lead_before_its_first_deadline() -> None:
    run = Run()
    run.until(400)
    shown_at = {frame.number: when for when, frame in run.shown}
    for index in range(80, 95):
        sent = run.generator.sent[index]
        assert shown_at[4 * (index - 1) + 1] - sent == pytest.approx(run.session.lead.seconds, abs=1e-3)


def test_the_lead_changes_rarely_and_grows_when_a_deadline_is_missed() -> None:
    run = Run()
    run.generator.turnaround = lambda index: 0.12 if index in (60, 61) else 0.06
    run.until(230)
    assert run.session.lead.changes == 1
    run.until(300)
    assert run.session.lead.seconds == pytest.approx(0.12 + PacingConfig().margin, abs=5e-3)
    assert run.session.lead.changes <= 3
    assert 1 <= run.session.figures.late_frames <= 4


def test_a_stall_of_three_seconds_is_over_at_once() -> None:
    run = Run()
    run.generator.turnaround = lambda index: 3.0 if index == 30 else 0.06
    run.until(400)
    assert [frame.number for _, frame in run.shown] == list(range(400)), "no frame is dropped"
    assert run.session.figures.late_frames <= 4
    gaps = np.diff([when for when, _ in run.shown[1:]])
    assert gaps.min() > 0.5 / 24 - 1e-6


def test_a_generator_slower_than_real_time_keeps_frames_even_and_the_delay_bounded() -> None:
    run = Run(turnaround=0.25)
    run.until(400)
    gaps = np.diff([when for when, _ in run.shown[100:]])
    assert np.isclose(gaps, 1 / 24, atol=1e-3).mean() > 0.7, "three of four gaps are regular"
    delays = [when - frame.tick_began for when, frame in run.shown[100:]]
    assert max(delays) < 4 / 24 + 2 * 0.25 + 0.1


def test_pause_holds_everything_and_resume_starts_a_new_grid() -> None:
    run = Run()
    run.until(102)
    run.session.pause()
    ticks = run.source.count
    run.clock.time += 10
    run.session.poll()
    run.session.sample()
    assert run.session.due() is None
    assert run.source.count == ticks
    run.session.resume()
    run.until(300)
    assert run.session.figures.late_frames == 0
    assert [frame.number for _, frame in run.shown] == list(range(300))


def test_restart_forgets_what_was_on_its_way() -> None:
    run = Run()
    run.until(50)
    run.generator.owed.clear()
    run.session.begin(PICTURE, 0)
    run.until(80)
    assert [frame.number for _, frame in run.shown[50:]] == list(range(30))


def test_without_pacing_nothing_waits() -> None:
    run = Run(turnaround=0.05, config=PacingConfig(paced=False))
    run.until(401)
    assert run.session.figures.fps == pytest.approx(4 / 0.05, rel=0.02)
    assert run.session.figures.late_frames == 0


def test_a_lost_generator_is_reported() -> None:
    run = Run()
    run.session.feed([Failed("gone")])
    assert run.session.failure == "gone"


def test_overload_is_a_matter_of_the_median() -> None:
    lead = Lead(PacingConfig())
    for turnaround in (0.1, 0.1, 0.9, 0.1, 0.1):
        lead.measured(turnaround)
    assert not lead.overloaded
    for _ in range(6):
        lead.measured(0.2)
    assert lead.overloaded
    assert lead.seconds <= PacingConfig().latent_period


def test_rest_sleeps_coarsely_then_spins() -> None:
    clock = FakeClock()
    asked: list[float] = []

    def wait(seconds: float) -> None:
        asked.append(seconds)
        clock.time += seconds + 0.0015

    rest(clock, wait, clock.now() + 0.02, spin=0.0015)
    assert asked == [pytest.approx(0.0185)]


def test_a_million_frames_drift_by_nothing() -> None:
    """11 h 34 min on a virtual clock: wake-ups late by chance, uneven drawing, a hiccup in 10,000, five sleeps."""
    config, rng, frames = PacingConfig(), np.random.default_rng(0), 1_000_000
    grid, clock = DisplayGrid(config), 1000.0
    wakes = rng.exponential(0.0004, frames)
    hiccups = rng.random(frames) < 1e-4
    wakes[hiccups] += 0.030
    drawing = np.abs(rng.normal(0.004, 0.0004, frames))
    sleeps = set(rng.integers(1, frames, 5).tolist())
    grid.anchor(0, clock)
    base, anchor, times, late = 0, clock, np.empty(frames), np.zeros(frames, bool)
    for n in range(frames):
        clock = max(clock, grid.due(n)) + wakes[n] + (3.0 if n in sleeps else 0.0) + drawing[n]
        late[n] = grid.shown(n, clock, drawing[n])
        times[n] = clock
        if n in sleeps:
            base, anchor = n, clock
    assert grid.deadline(frames) == pytest.approx(anchor + (frames - base) / 24, rel=0, abs=1e-6)
    told = [n for n in range(frames) if n in sleeps or hiccups[n]]
    assert late.sum() == len(told) and late[told].all(), "only what was held up is late"
    held = np.convolve(np.isin(np.arange(frames), told), np.ones(3), "full")[:frames] > 0  # and the two that catch up
    gaps = 1000 * np.diff(times)[~held[1:]]
    p50, p01, p99, p999 = np.percentile(gaps, (50, 1, 99, 99.9))
    assert p50 == pytest.approx(1000 / 24, abs=0.02), f"{p50} ms"
    assert p01 > 1000 / 24 - 3 and p99 < 1000 / 24 + 3 and p999 < 1000 / 24 + 5, (p01, p99, p999)
    assert abs(gaps.mean() - 1000 / 24) < 0.002, "nothing adds up"


def test_a_long_session_keeps_no_more_than_a_short_one() -> None:
    """Memory over 40,000 frames, 28 min: what grows are the figures, which end at their limits."""
    run = Run()
    for name in ("step_ms", "decode_ms", "input_to_submit_ms", "look_to_submit_ms"):
        setattr(run.session.figures, name, Series(limit=2000))

    def play(frames: int) -> None:
        for _ in range(frames // 500):
            run.shown.clear()
            run.until(500)
            run.generator.actions.clear()
            run.generator.sent.clear()

    play(10_000)
    tracemalloc.start()
    try:
        play(10_000)
        before = tracemalloc.get_traced_memory()[0]
        play(20_000)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 100_000, f"{grown} bytes"
    assert run.session.figures.late_frames == 0 and len(run.session._queue) <= 8
