"""A visit with the fake world: saving, loading, rewinding, branching, holding, single steps and kept pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pygame
import pytest
from fake_world import FakeWorld
from PIL import Image
from test_window import Visit, opened  # noqa: F401

from app.player import PlaySession
from app.screens.loading import LoadingScreen
from app.screens.menu import MenuScreen
from app.screens.pause import PauseScreen
from app.screens.play import PlayScreen
from app.statefile import StateFile
from app.window import Window


@pytest.fixture
def visit(opened: Window, tmp_path: Path) -> Iterator[Visit]:  # noqa: F811
    one = Visit(opened, tmp_path)
    yield one
    one.program.generator.close()


def walking(visit: Visit, frames: int = 13) -> PlaySession:
    visit.press(pygame.K_RETURN)
    visit.until(visit.on(PlayScreen))
    session = visit.program.session
    assert session is not None
    visit.press(pygame.K_w)
    visit.until(lambda: session.figures.frames > frames)
    return session


def let_go(code: int) -> None:
    pygame.event.post(pygame.event.Event(pygame.KEYUP, key=code, mod=0))


def test_saving_and_loading_from_play_from_the_menu_and_after_a_restart(visit: Visit, tmp_path: Path) -> None:
    one, session = visit.program, walking(visit)
    visit.press(pygame.K_F7)
    visit.press(pygame.K_F2)
    path = tmp_path / "home" / "places" / "slot-2.farstep"
    visit.until(path.exists)
    visit.until(lambda: isinstance(one.screen, PlayScreen) and "Saved" in str(one.screen._message))
    with StateFile(path) as file:
        about, saved = file.about, file.picture()
        state = file.state()
    assert (about.scene, about.seed, about.weights_hash, about.backend) == ("scene0", 0, "fake", "fake")
    visit.until(lambda: session.frame_index > about.frame_index + 2)
    visit.press(pygame.K_F4)
    visit.until(lambda: session.place == path)
    visit.until(lambda: session.frame_index == about.frame_index)
    assert session._last is not None and np.array_equal(session._last, saved)
    assert session.film.oldest == about.frame_index
    there = FakeWorld(Path("x"))
    there.load_state(state)
    visit.until(lambda: session.frame_index == about.frame_index + 1)
    assert session.film.get(about.frame_index) is not None
    assert np.array_equal(there._view(), saved)
    visit.press(pygame.K_ESCAPE)
    visit.until(visit.on(PauseScreen))
    assert isinstance(one.screen, PauseScreen) and "slot 2: Long Hall" in one.screen.rows()[1].value
    one._to_menu("")
    visit.press(pygame.K_F4)
    visit.until(visit.on(LoadingScreen))
    visit.until(visit.on(PlayScreen))
    assert one.session is not session and one.session is not None
    visit.until(lambda: one.session.frame_index >= about.frame_index)  # type: ignore[union-attr]
    visit.press(pygame.K_h)
    visit.until(lambda: 0 < one.session.frame_index < about.frame_index)  # type: ignore[union-attr]
    first = one.session.film.get(0)
    assert first is not None
    with Image.open(tmp_path / "scene0.png") as scene:
        assert np.array_equal(first, np.asarray(scene.convert("RGB"))), "the walk began with this picture"


def test_an_empty_a_damaged_and_a_foreign_place_are_refused_and_play_goes_on(visit: Visit, tmp_path: Path) -> None:
    one, session = visit.program, walking(visit)
    path = tmp_path / "home" / "places" / "slot-1.farstep"

    def told(words: str, code: int = pygame.K_F4) -> None:
        visit.press(code)
        visit.until(lambda: isinstance(one.screen, PlayScreen) and words in str(one.screen._message))
        frames = session.figures.frames
        visit.until(lambda: session.figures.frames > frames + 5)

    told("Slot 1 is empty")
    told("Saved in slot 1", pygame.K_F2)
    good = path.read_bytes()
    path.write_bytes(good[:-100])
    told("damaged")
    assert one.generator.ready is not None
    one.generator.ready.info["backend"] = "openvino"
    path.write_bytes(good)
    told("--backend fake")
    one.generator.ready.info["backend"] = "fake"
    path.write_bytes(bytes(good).replace(b"arrays/pose.npy", b"arrays/prose.np"))
    told("damaged")
    assert session.place is None


def test_holding_r_goes_back_and_letting_go_walks_on(visit: Visit) -> None:
    one, session = visit.program, walking(visit, 40)
    before = session.film.newest
    visit.press(pygame.K_r)
    visit.until(lambda: session.rewinding and session.rewind_index() <= before - 4)
    assert isinstance(one.screen, PlayScreen)
    let_go(pygame.K_r)
    visit.until(lambda: not session.rewinding)
    visit.until(lambda: session.film.newest < before - 2)
    frames = session.figures.frames
    visit.until(lambda: session.figures.frames > frames + 8)
    assert session.failure is None and not session.notices


def test_a_pause_menu_branch_holding_and_single_steps(visit: Visit) -> None:
    one, session = visit.program, walking(visit, 40)
    visit.press(pygame.K_ESCAPE)
    visit.until(visit.on(PauseScreen))
    pause = one.screen
    assert isinstance(pause, PauseScreen) and len(pause.marks) > 4
    for code in (*[pygame.K_DOWN] * 3, *[pygame.K_LEFT] * 20, pygame.K_RETURN):
        visit.press(code)
    visit.until(visit.on(PlayScreen))
    visit.until(lambda: session.frame_index == 0)
    visit.press(pygame.K_k)
    visit.until(lambda: session.frame_index == 3)
    assert not session.paused, "single steps are for a picture that is held"
    visit.press(pygame.K_p)
    visit.until(lambda: session.paused)
    assert isinstance(one.screen, PlayScreen) and one.screen.frozen
    stood = session.frame_index
    for _ in range(2):
        visit.press(pygame.K_k)
        visit.until(lambda: not session.paused)
        visit.until(lambda: session.paused)
        assert session.frame_index >= stood and one.screen.last is not None
        assert one.screen.last.number % 4 == 0
    visit.press(pygame.K_p)
    frames = session.figures.frames
    visit.until(lambda: session.figures.frames > frames + 5)


def test_a_kept_picture_is_the_frame_with_its_origin(visit: Visit, tmp_path: Path) -> None:
    one, session = visit.program, walking(visit)
    visit.press(pygame.K_p)
    visit.until(lambda: session.paused)
    for _ in range(2):
        visit.press(pygame.K_F8)
    folder = tmp_path / "home" / "pictures"
    visit.until(lambda: folder.is_dir() and len(list(folder.glob("*.png"))) == 2)
    assert isinstance(one.screen, PlayScreen) and one.screen.last is not None
    number = one.screen.last.number
    assert {path.name for path in folder.iterdir()} == {f"scene0-0-{number:06d}.png", f"scene0-0-{number:06d}-2.png"}
    for path in folder.iterdir():
        with Image.open(path) as image:
            assert np.array_equal(np.asarray(image), one.screen.last.pixels), "neither shifted nor written on"
            notes = image.text  # type: ignore[attr-defined]
        assert notes == {
            "Software": "Farstep",
            "Scene": "scene0",
            "Seed": "0",
            "Frame index": str(-(-number // 4)),
            "Video frame": str(number),
            "Weights hash": "fake",
            "Backend": "fake",
        }


def test_the_pad_opens_the_menu_steers_it_and_rewinds(visit: Visit) -> None:
    one, session = visit.program, walking(visit, 40)

    def button(name: str, kind: int = pygame.CONTROLLERBUTTONDOWN) -> None:
        code = getattr(pygame, f"CONTROLLER_BUTTON_{name}")
        pygame.event.post(pygame.event.Event(kind, button=code, instance_id=0))

    button("START")
    visit.until(visit.on(PauseScreen))
    button("DPAD_DOWN")
    button("DPAD_RIGHT")
    visit.until(lambda: one.slots.current == 2)
    button("B")
    visit.until(visit.on(PlayScreen))
    button("Y")
    visit.until(lambda: session.rewinding)
    button("Y", pygame.CONTROLLERBUTTONUP)
    visit.until(lambda: not session.rewinding)
    button("RIGHTSTICK")
    visit.until(lambda: one.settings.hud == "fps")
    assert isinstance(one.screen, PlayScreen) and not isinstance(one.screen, MenuScreen)


def test_the_figures_go_round_and_are_remembered(visit: Visit, tmp_path: Path) -> None:
    one, _ = visit.program, walking(visit)
    for level in ("fps", "full", "off"):
        visit.press(pygame.K_F3)
        visit.until(lambda level=level: one.settings.hud == level)  # type: ignore[misc]
        visit.program.screen.draw(one.window.surface)
        assert f"hud: '{level}'" in (tmp_path / "home" / "settings.yaml").read_text().replace(
            f"hud: {level}", f"hud: '{level}'"
        )


def test_the_figures_tell_how_full_the_cache_is(visit: Visit) -> None:
    one, _ = visit.program, walking(visit)
    play, seen = one.play, []
    assert play is not None

    def full() -> bool:
        seen.append(dict(play._lines())["KV cache"])
        return seen[-1] == "6 / 6 latent frames"

    visit.press(pygame.K_h)
    visit.until(lambda: play.session.frame_index == 1)
    visit.until(full)
    assert set(seen) >= {f"{held} / 6 latent frames" for held in (4, 5, 6)}
