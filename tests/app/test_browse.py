"""The folder browser: by keys alone, by pad alone, by mouse; bad files are one sentence; the preview is the crop."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pygame
import pytest
from fake_world import paint
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_window import Visit, opened  # noqa: F401

from app import folders
from app.folders import list_folder, nearest_folder, places, printable
from app.screens.browse import BrowseScreen
from app.screens.commands import Browse, Open, Paste, ToMenu
from app.screens.menu import MenuScreen
from app.screens.navigation import PadKeys
from app.screens.play import PlayScreen
from app.window import Window
from controls.errors import UserError
from generator.scene import crop_to, load_picture

LONG = 60.0  # seconds; the machine may be busy


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Folders `Alps` and `beach`, pictures, a pack, and things that are not listed."""
    root = tmp_path / "root"
    for name in ("beach", "Alps", ".hidden"):
        (root / name).mkdir(parents=True)
    for name in ("Zebra.PNG", "house.jpg"):
        Image.new("RGB", (300, 100), (200, 30, 30)).save(root / name)
    paint(root / "beach" / "sea.png", 3)
    (root / "broken.png").write_text("no picture")
    for name in ("notes.txt", ".secret.png", "world.zip"):
        (root / name).write_text("x")
    (root / "nowhere.png").symlink_to(root / "gone.png")
    (root / "round").symlink_to(root / "round")
    return root


def key(code: int, letter: str = "") -> pygame.event.Event:
    return pygame.event.Event(pygame.KEYDOWN, key=code, mod=0, unicode=letter)


def browser(folder: Path) -> BrowseScreen:
    return BrowseScreen(folder, lambda path: load_picture(path, (256, 160)))


def names(screen: BrowseScreen) -> list[str]:
    return [entry.name for entry in screen.entries]


def previewed(screen: BrowseScreen) -> np.ndarray | str:
    end = time.perf_counter() + LONG
    while True:
        screen.update()
        if screen.shown is not None:
            return screen.shown
        assert time.perf_counter() < end
        time.sleep(0.01)


def test_a_folder_lists_what_can_be_opened(tree: Path) -> None:
    listed = [(entry.name, entry.kind) for entry in list_folder(tree)]
    assert listed == [
        ("..", "up"), ("Alps", "folder"), ("beach", "folder"), ("broken.png", "picture"), ("house.jpg", "picture"),
        ("world.zip", "pack"), ("Zebra.PNG", "picture"),
    ]  # fmt: skip
    assert list_folder(tree)[0].path == tree.parent and list_folder(Path("/"))[0].path is None
    assert Path.home() in {entry.path for entry in places()}
    assert nearest_folder(tree / "gone" / "further") == tree


@pytest.mark.parametrize("name", ["gone", "notes.txt"])
def test_a_folder_that_cannot_be_read_is_one_sentence(opened: Window, tree: Path, name: str) -> None:  # noqa: F811
    with pytest.raises(UserError, match="cannot be read") as caught:
        list_folder(tree / name)
    assert "\n" not in str(caught.value)
    screen = browser(tree)
    screen.go(tree / name)
    assert screen.folder == tree and "cannot be read" in screen.said, "the list stays"
    assert browser(tree / name).folder is None, "the places, where there is nothing else to show"


def test_a_very_large_folder_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MOST", 5)
    for number in range(30):
        (tmp_path / f"{number:02d}.png").touch()
    assert len(list_folder(tmp_path)) == 6


@settings(deadline=None, max_examples=60)
@given(st.binary(min_size=1, max_size=40))
def test_every_name_can_be_drawn(raw: bytes) -> None:
    name = printable(os.fsdecode(raw))
    assert name.isprintable() and len(name.encode()) > 0


def test_by_keys_alone(opened: Window, tree: Path) -> None:  # noqa: F811
    screen = browser(tree)
    screen.draw(opened.surface)
    assert screen.chosen is not None and screen.chosen.name == "Alps"
    for code, letter, chosen in [
        (pygame.K_DOWN, "", "beach"), (pygame.K_END, "", "Zebra.PNG"), (pygame.K_HOME, "", ".."),
        (pygame.K_UP, "", ".."),
        (pygame.K_PAGEDOWN, "", "Zebra.PNG"), (pygame.K_b, "b", "beach"), (pygame.K_b, "b", "broken.png"),
        (pygame.K_b, "B", "beach"), (pygame.K_q, "q", "beach"),
    ]:  # fmt: skip
        assert screen.handle(key(code, letter)) is None
        assert screen.chosen is not None and screen.chosen.name == chosen
    assert screen.handle(key(pygame.K_RETURN)) is None and names(screen) == ["..", "sea.png"]
    assert screen.handle(key(pygame.K_RETURN)) == Open(tree / "beach" / "sea.png")
    assert screen.handle(key(pygame.K_LEFT)) is None and screen.folder == tree
    assert screen.chosen is not None and screen.chosen.name == "beach", "it stands where one came from"
    assert screen.handle(key(pygame.K_ESCAPE)) == ToMenu()
    paste = pygame.event.Event(pygame.KEYDOWN, key=pygame.K_v, mod=pygame.KMOD_CTRL, unicode="v")
    assert screen.handle(paste) == Paste()
    for _ in range(20):
        screen.handle(key(pygame.K_BACKSPACE))
    assert screen.folder is None and screen.handle(key(pygame.K_LEFT)) is None, "the places have nothing above"


def test_by_mouse(opened: Window, tree: Path) -> None:  # noqa: F811
    screen = browser(tree)
    screen.draw(opened.surface)
    where = screen._rects[names(screen).index("house.jpg")].center
    screen.handle(pygame.event.Event(pygame.MOUSEMOTION, pos=where, rel=(0, 0), buttons=(0, 0, 0)))
    assert screen.chosen is not None and screen.chosen.name == "house.jpg"
    click = pygame.event.Event(pygame.MOUSEBUTTONDOWN, button=1, pos=where)
    assert screen.handle(click) == Open(tree / "house.jpg")
    assert screen.handle(pygame.event.Event(pygame.DROPFILE, file="a.png")) == Open(Path("a.png"))


def test_the_preview_is_the_middle_as_the_world_crops_it(opened: Window, tree: Path) -> None:  # noqa: F811
    wide = np.zeros((160, 512, 3), np.uint8)
    wide[:, 128:384] = np.random.default_rng(0).integers(0, 255, (160, 256, 3))
    Image.fromarray(wide).save(tree / "wide.png")
    screen = browser(tree)
    screen.focus = names(screen).index("wide.png")
    made = previewed(screen)
    assert isinstance(made, np.ndarray) and np.array_equal(made, wide[:, 128:384])
    assert np.array_equal(made, crop_to(Image.open(tree / "wide.png"), (256, 160)))
    before = pygame.surfarray.array3d(opened.surface)
    screen.draw(opened.surface)
    assert not np.array_equal(before, pygame.surfarray.array3d(opened.surface))
    screen.focus = names(screen).index("broken.png")
    said = previewed(screen)
    assert isinstance(said, str) and "not a readable picture" in said and "\n" not in said
    screen.focus = 1
    screen.update()
    assert screen.shown is None, "a folder has no preview"


@pytest.mark.parametrize("size", [(480, 300), (900, 500), (1280, 720), (3840, 2160)])
def test_the_chosen_line_is_always_in_sight(opened: Window, tmp_path: Path, size: tuple[int, int]) -> None:  # noqa: F811
    for number in range(40):
        (tmp_path / f"{'long name ' * 8}{number:02d}.png").touch()
    screen, surface = browser(tmp_path), pygame.Surface(size)
    for focus in [*range(41), *range(40, -1, -1)]:
        screen.focus = focus
        screen.draw(surface)
        rect = screen._rects[focus]
        assert rect.height > 0 and surface.get_rect().contains(rect)


@pytest.fixture
def visit(opened: Window, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Visit]:  # noqa: F811
    monkeypatch.setattr("platformdirs.user_pictures_path", lambda: tree / "no such folder")
    one = Visit(opened, tmp_path)
    yield one
    one.program.close()


def browsing(visit: Visit) -> BrowseScreen:
    visit.until(visit.on(BrowseScreen), LONG)
    assert isinstance(visit.program.screen, BrowseScreen)
    return visit.program.screen


def test_a_bad_file_is_a_sentence_and_a_good_one_is_walked_from_by_keys_alone(visit: Visit, tree: Path) -> None:
    visit.press(pygame.K_END)
    visit.press(pygame.K_RETURN)
    screen = browsing(visit)
    assert screen.folder == tree, "the nearest folder that exists"
    for _ in range(2):
        visit.press(pygame.K_DOWN)
    visit.press(pygame.K_RETURN)
    visit.until(lambda: "not a readable picture" in screen.said, LONG)
    assert visit.program.screen is screen and screen.said.count("\n") == 0
    visit.press(pygame.K_DOWN)
    visit.until(lambda: not screen.said, LONG)
    visit.press(pygame.K_RETURN)
    visit.until(visit.on(PlayScreen), LONG)
    assert visit.program.library.start_folder() == tree
    assert visit.program.library.scenes[0].title == "house"


def test_by_pad_alone(visit: Visit, tree: Path) -> None:
    def button(name: str) -> None:
        code = getattr(pygame, f"CONTROLLER_BUTTON_{name}")
        pygame.event.post(pygame.event.Event(pygame.CONTROLLERBUTTONDOWN, button=code, instance_id=0))

    def trigger(side: str) -> None:
        axis = getattr(pygame, f"CONTROLLER_AXIS_TRIGGER{side}")
        for value in (9000, 32767, 30000, 0):  # pulled and let go: counts once
            pygame.event.post(pygame.event.Event(pygame.CONTROLLERAXISMOTION, axis=axis, value=value, instance_id=0))

    button("BACK")
    screen = browsing(visit)
    button("B")
    visit.until(visit.on(MenuScreen), LONG)
    button("BACK")
    screen = browsing(visit)
    button("DPAD_DOWN")
    button("A")
    visit.until(lambda: screen.folder == tree / "beach", LONG)
    button("X")
    visit.until(lambda: screen.folder == tree, LONG)
    for side, chosen in (("RIGHT", "broken.png"), ("RIGHT", "house.jpg"), ("LEFT", "broken.png"), ("LEFT", "beach")):
        trigger(side)
        visit.until(lambda chosen=chosen: screen.entries[screen.focus].name == chosen, LONG)  # type: ignore[misc]
    button("RIGHTSHOULDER")
    button("DPAD_UP")
    button("DPAD_UP")
    button("A")
    visit.until(visit.on(PlayScreen), LONG)


@pytest.mark.parametrize("browse", [True, False])
def test_a_pad_pastes_a_path(visit: Visit, tree: Path, monkeypatch: pytest.MonkeyPatch, browse: bool) -> None:
    monkeypatch.setattr("app.program.from_clipboard", lambda: (None, str(tree / "house.jpg")))
    if browse:
        visit.program.carry_out(Browse())
    stick = pygame.CONTROLLER_BUTTON_LEFTSTICK
    pygame.event.post(pygame.event.Event(pygame.CONTROLLERBUTTONDOWN, button=stick, instance_id=0))
    visit.until(visit.on(PlayScreen), LONG)
    assert visit.program.library.scenes[0].picture == tree / "house.jpg"


def test_letters_before_and_after(opened: Window, tmp_path: Path) -> None:  # noqa: F811
    for name in ("alps", "Beach", "bay"):
        (tmp_path / name).mkdir()
    for name in ("aa.png", "Ab.png", "b.png", "z.zip"):
        (tmp_path / name).touch()
    screen = browser(tmp_path)
    assert names(screen) == ["..", "alps", "bay", "Beach", "aa.png", "Ab.png", "b.png", "z.zip"]
    screen.focus = 0
    forth, back = [], []
    for found, code in ((forth, pygame.K_F10), (back, pygame.K_F9)):
        for _ in range(7):
            assert screen.handle(key(code)) is None
            found.append(names(screen)[screen.focus])
    assert forth == ["alps", "bay", "aa.png", "b.png", "z.zip", "z.zip", "z.zip"]
    assert back == ["b.png", "aa.png", "bay", "alps", "..", "..", ".."]
    screen.focus = 5
    screen.handle(key(pygame.K_F9))
    assert names(screen)[screen.focus] == "aa.png", "first to where this letter begins"
    screen.entries = []
    screen.focus = 0
    for code in (pygame.K_F9, pygame.K_F10):
        assert screen.handle(key(code)) is None and screen.focus == 0


def test_a_pack_goes_to_the_menu(visit: Visit, tmp_path: Path) -> None:
    from test_packs import GOOD, zipped

    paint(tmp_path / "first.png", 5)
    pack = zipped(tmp_path / "halls.zip", {**GOOD, "hall/first.png": (tmp_path / "first.png").read_bytes()})
    visit.program.carry_out(Browse())
    visit.program.carry_out(Open(pack))
    assert isinstance(visit.program.screen, MenuScreen) and "halls.zip" in visit.program.menu.news


def test_shoulder_buttons_turn_pages() -> None:
    pads = PadKeys()
    for button, code in (("LEFT", pygame.K_PAGEUP), ("RIGHT", pygame.K_PAGEDOWN)):
        number = getattr(pygame, f"CONTROLLER_BUTTON_{button}SHOULDER")
        made = pads.key_event(pygame.event.Event(pygame.CONTROLLERBUTTONDOWN, button=number, instance_id=0))
        assert made is not None and made.key == code
