"""The generator process: protocol, ring, death and restart, with the fake world."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np
import pytest
from fake_world import SIZE, FakeWorld, open_fake

from app import protocol
from app.protocol import Failed, Frames, Load, Loaded, Ready, Reply, RingPlan, Saved, Step
from app.ring import FrameRing, RingWriter
from app.session import GeneratorProcess
from app.statefile import About, StateFile, write_state
from controls.action import Action, ActionSpec
from controls.errors import UserError

PICTURE = np.random.default_rng(0).integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8)
SPEC = ActionSpec()


@pytest.fixture
def generator() -> Iterator[GeneratorProcess]:
    process = GeneratorProcess(Load(Path("x")), open_fake)
    yield process
    process.close()


def until(process: GeneratorProcess, found: Callable[[Reply], bool], seconds: float = 15) -> Reply:
    """The first reply that is `found`; those before it are dropped, those that came with it wait for the next call."""
    waiting: list[Reply] = process.__dict__.setdefault("waiting", [])
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        waiting += process.poll()
        while waiting:
            if found(reply := waiting.pop(0)):
                return reply
        process.wait(0.05)
    raise AssertionError("nothing came")


def of(*kinds: type) -> Callable[[Reply], bool]:
    return lambda reply: isinstance(reply, kinds)


def test_messages_survive_the_pipe() -> None:
    action = Action.hold(SPEC, "forward", yaw=1.5)
    step = Step(3, 7, 2, action)
    assert pickle.loads(pickle.dumps(step)) == step
    kinds = [kind for kind in vars(protocol).values() if isinstance(kind, type) and is_dataclass(kind)]
    assert len(kinds) >= 12
    assert all(kind.__dataclass_params__.frozen for kind in kinds)  # type: ignore[attr-defined]
    assert {"version"} <= {field.name for field in fields(Load)} & {field.name for field in fields(Ready)}


def test_the_ring_wraps_around_and_is_bounded() -> None:
    ring = FrameRing(3, 4, 5, 6)
    writer = RingWriter(ring.plan)
    order = []
    for n in range(10):
        slot = ring.acquire()
        assert slot is not None
        order.append(slot)
        writer.write(slot, np.full((4, 5, 6, 3), n, np.uint8))
        assert (ring.view(slot) == n).all()
        ring.release(slot)
    assert order == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
    assert [ring.acquire() for _ in range(4)] == [1, 2, 0, None]
    writer.close()
    ring.close()
    ring.close()
    with pytest.raises(FileNotFoundError):
        SharedMemory(ring.plan.name)


needs_shm = pytest.mark.skipif(
    not (hasattr(os, "posix_fallocate") and Path("/dev/shm").is_dir()), reason="no shared memory as files"
)


@needs_shm
def test_the_pages_of_the_ring_are_there_from_the_beginning() -> None:
    ring = FrameRing(3, 4, 50, 60)
    assert 512 * Path("/dev/shm", ring.plan.name).stat().st_blocks >= 3 * 4 * 50 * 60 * 3
    ring.close()


@needs_shm
def test_no_room_for_the_ring_is_a_sentence_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Path, int]] = []

    def full(file: int, start: int, size: int) -> None:
        asked.append((Path(os.readlink(f"/proc/self/fd/{file}")), start + size))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"0\.1 MB of shared memory \(.*No space left.*free some"):
        FrameRing(3, 4, 50, 60)
    assert len(asked) == 1 and asked[0][1] >= 3 * 4 * 50 * 60 * 3
    assert asked[0][0].parent == Path("/dev/shm") and not asked[0][0].exists()


def test_slots_do_not_overlap() -> None:
    ring = FrameRing(4, 4, 3, 5)
    for slot in range(4):
        ring.view(slot)[:] = slot
    assert all((ring.view(slot) == slot).all() for slot in range(4))
    assert ring.plan == RingPlan(ring.plan.name, 4, 4, 3, 5)
    ring.close()


def test_reset_and_steps_give_the_frames_of_the_world_itself(generator: GeneratorProcess) -> None:
    until(generator, of(Ready))
    here = FakeWorld(Path("x"))
    generator.reset(PICTURE, 1)
    first = until(generator, of(Frames))
    assert isinstance(first, Frames)
    taken = generator.take(first)
    assert taken is not None
    assert np.array_equal(taken, here.reset(PICTURE, 1))
    action = Action.hold(SPEC, "forward", yaw=2.0)
    for index in range(1, 8):
        generator.step(index, action)
        reply = until(generator, of(Frames))
        assert isinstance(reply, Frames)
        assert reply.index == index
        assert np.array_equal(generator.take(reply), here.step(action))
        assert reply.cache == here.cache_fill == (min(index, 6), 6)
    assert generator.child_peak_rss_mb > 5


def test_frames_of_an_older_reset_are_dropped(generator: GeneratorProcess) -> None:
    until(generator, of(Ready))
    generator.reset(PICTURE, 1)
    generator.reset(PICTURE, 2)
    fresh = until(generator, lambda reply: isinstance(reply, Frames) and reply.epoch == 2)
    assert isinstance(fresh, Frames)
    assert generator.take(fresh) is not None
    assert generator.take(Frames(1, 0, 0, 1, 0, 0, 0)) is None
    for _ in range(30):
        generator.reset(PICTURE, 1)
    until(generator, lambda reply: isinstance(reply, Frames) and reply.epoch == 32)
    assert generator.alive


def test_states_go_through_a_file(generator: GeneratorProcess, tmp_path: Path) -> None:
    until(generator, of(Ready))
    generator.reset(PICTURE, 1)
    generator.take(until(generator, of(Frames)))  # type: ignore[arg-type]
    path = tmp_path / "state.farstep"
    action = Action.hold(SPEC, "forward", yaw=3.0)
    made, kinds = {}, set()
    for index in range(1, 4):
        generator.step(index, action)
        if index == 2:
            generator.save_state(path, "hall", "Long Hall", 7)  # written beside the next step
    while kinds != {Frames, Saved} or len(made) < 3:
        reply = until(generator, of(Frames, Saved, Failed))
        kinds.add(type(reply))
        if isinstance(reply, Frames):
            made[reply.index] = generator.take(reply)
    assert [p.name for p in tmp_path.iterdir()] == ["state.farstep"]
    with StateFile(path) as file:
        assert (file.about.scene, file.about.title, file.about.seed) == ("hall", "Long Hall", 7)
        assert (file.about.frame_index, file.about.weights_hash, file.about.backend) == (2, "fake", "fake")
        assert made[2] is not None and np.array_equal(file.picture(), made[2][-1])
        assert np.array_equal(file.picture(first=True), PICTURE)
    for go in (lambda: generator.load_state(path), lambda: generator.rewind(2)):
        go()
        loaded = until(generator, of(Loaded, Failed))
        assert isinstance(loaded, Loaded)
        assert (loaded.epoch, loaded.index) == (generator.epoch, 2)
        generator.step(3, action)
        reply = until(generator, of(Frames))
        assert isinstance(reply, Frames)
        assert np.array_equal(generator.take(reply), made[3])
        assert reply.oldest == 2 and reply.history_mb > 0.1
    for refused in (lambda: generator.load_state(tmp_path / "missing"), lambda: generator.rewind(99)):
        refused()
        failed = until(generator, of(Failed, Loaded))
        assert isinstance(failed, Failed) and not failed.fatal
        loaded = until(generator, of(Loaded))
        assert isinstance(loaded, Loaded) and loaded.index == 3, "it stands where it stood"
    generator.save_state(tmp_path / "state.farstep" / "below")
    failed = until(generator, of(Failed))
    assert isinstance(failed, Failed) and failed.path is not None and "Cannot write" in failed.message
    assert generator.alive


def test_a_place_can_be_the_beginning_and_leaving_waits_for_what_is_being_saved(
    generator: GeneratorProcess, tmp_path: Path
) -> None:
    until(generator, of(Ready))
    generator.load_state(tmp_path / "missing")
    assert isinstance(until(generator, of(Failed, Loaded)), Failed)
    here = FakeWorld(Path("x"))
    here.reset(PICTURE, 0)
    here.step(Action.hold(SPEC, "forward"))
    about = About("fake", "fake", 1)
    write_state(tmp_path / "a", about, here.save_state(), PICTURE, PICTURE)
    write_state(tmp_path / "b", replace(about, weights_hash="other"), here.save_state(), PICTURE, PICTURE)
    generator.load_state(tmp_path / "b")
    failed = until(generator, of(Failed, Loaded))
    assert isinstance(failed, Failed) and "--weights" in failed.message
    generator.load_state(tmp_path / "a")
    assert isinstance(until(generator, of(Failed, Loaded)), Loaded)
    action = Action.hold(SPEC, "run", yaw=1.0)
    generator.step(2, action)
    reply = until(generator, of(Frames))
    assert isinstance(reply, Frames) and np.array_equal(generator.take(reply), here.step(action))
    generator.save_state(tmp_path / "c")
    generator.close(patience=0.0)
    with StateFile(tmp_path / "c") as file:
        assert file.about.frame_index == 2


def test_kill_is_noticed_and_a_restart_works(generator: GeneratorProcess) -> None:
    until(generator, of(Ready))
    assert generator.pid is not None
    os.kill(generator.pid, signal.SIGKILL)
    failed = until(generator, of(Failed), 5)
    assert isinstance(failed, Failed)
    assert "signal 9" in failed.message
    assert not generator.alive
    assert generator.poll() == []
    generator.restart()
    until(generator, of(Ready))
    assert generator.alive


def test_death_in_a_step_is_noticed_and_memory_removed() -> None:
    process = GeneratorProcess(Load(Path("x"), backend="crash"), open_fake)
    until(process, of(Ready))
    process.reset(PICTURE, 1)
    process.take(until(process, of(Frames)))  # type: ignore[arg-type]
    process.step(1, Action.idle(SPEC))
    until(process, of(Failed), 5)
    ring = process._ring
    assert ring is not None
    process.close()
    with pytest.raises(FileNotFoundError):
        SharedMemory(ring.plan.name)


@pytest.mark.parametrize(("backend", "words"), [("broken", "driver says no"), ("refuse", "another version")])
def test_a_world_that_does_not_open_says_why(backend: str, words: str, tmp_path: Path) -> None:
    process = GeneratorProcess(Load(Path("x"), backend=backend, log=tmp_path / "log"), open_fake)
    failed = until(process, of(Failed))
    assert isinstance(failed, Failed)
    assert words in failed.message
    assert "Traceback" not in failed.message
    process.close()
    if backend == "broken":
        assert "Traceback" in (tmp_path / "log").read_text()


def test_nothing_blocks_while_the_child_stalls() -> None:
    process = GeneratorProcess(Load(Path("x"), backend="stall"), open_fake)
    until(process, of(Ready))
    process.reset(PICTURE, 1)
    process.take(until(process, of(Frames)))  # type: ignore[arg-type]
    process.step(1, Action.idle(SPEC))
    start = time.perf_counter()
    for _ in range(20):
        process.reset(PICTURE, 1)
        assert process.poll() == []
    assert time.perf_counter() - start < 0.5
    process.close(patience=0.1)
    assert multiprocessing.active_children() == []


def test_the_child_leaves_with_its_parent(tmp_path: Path) -> None:
    code = (
        "import sys, os, time; sys.path[:0] = {paths!r}\n"
        "from pathlib import Path\n"
        "if __name__ == '__main__':\n"
        "    from app.session import GeneratorProcess\n"
        "    from app.protocol import Load\n"
        "    from fake_world import open_fake\n"
        "    g = GeneratorProcess(Load(Path('x')), open_fake)\n"
        "    while g.ready is None: g.poll(); g.wait(0.1)\n"
        "    print(g.pid, g._ring.plan.name, flush=True)\n"
        "    time.sleep(60)\n"
    )
    here = Path(__file__).parent
    script = tmp_path / "parent.py"
    script.write_text(code.replace("{paths!r}", repr([str(here), str(here.parents[1])])))
    parent = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert parent.stdout is not None
    pid, name = parent.stdout.readline().split()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    end = time.perf_counter() + 5
    while time.perf_counter() < end and (_lives(int(pid)) or Path("/dev/shm", name).exists()):
        time.sleep(0.05)
    assert not _lives(int(pid))
    assert not Path("/dev/shm", name).exists()


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
