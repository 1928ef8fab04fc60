"""The library: what ships, what was opened of late, packs and pictures by drop, path and clipboard, in the menu too."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pygame
import pytest
from fake_world import make_door, paint
from PIL import Image
from test_packs import GOOD, SCENE, folder, zipped
from test_window import Visit, key, make_menu, opened, visit  # noqa: F401

from app import launch, window
from app.library import KEEP, NO_PICTURE, Library
from app.packs import PackScene
from app.screens.commands import Forget, Open, Paste
from app.screens.loading import LoadingScreen
from app.screens.menu import MenuScreen
from app.screens.play import PlayScreen
from app.window import Window
from controls.errors import UserError


@pytest.fixture
def library(tmp_path: Path) -> Library:
    door = make_door(tmp_path, 3)
    return Library(door, door.list_scenes(), tmp_path / "home")


def again(library: Library, tmp_path: Path) -> Library:
    return Library(make_door(tmp_path, 3), library.shipped, tmp_path / "home")


def test_what_is_opened_stands_in_front_and_is_remembered(library: Library, tmp_path: Path) -> None:
    paint(tmp_path / "mine.png", 9)
    pack = zipped(tmp_path / "halls.zip", GOOD)
    assert [s.name for s in library.scenes] == ["scene0", "scene1", "scene2"]
    library.open(tmp_path / "mine.png")
    library.open(pack)
    names = ["halls-hall", "mine", "scene0", "scene1", "scene2"]
    assert [s.name for s in library.scenes] == names and library.is_recent(library.scenes[0])
    assert not library.is_recent(library.shipped[0])
    assert [s.name for s in again(library, tmp_path).scenes] == names
    library.open(tmp_path / "mine.png")
    assert [s.name for s in library.scenes][:2] == ["mine", "halls-hall"], "the newest first, once"
    assert library.forget(library.scenes[0]) and not library.forget(library.shipped[0])
    assert [s.name for s in again(library, tmp_path).scenes] == ["halls-hall", *names[2:]]
    assert (tmp_path / "mine.png").exists()
    pack.unlink()
    assert [s.name for s in again(library, tmp_path).scenes] == names[2:], "what is gone is left out"
    for number in range(KEEP + 3):
        paint(tmp_path / f"own{number}.png", number)
        library.open(tmp_path / f"own{number}.png")
    assert len(library.scenes) == KEEP + 3 and len(again(library, tmp_path).scenes) == KEEP + 3


@pytest.mark.parametrize("blob", [b"worlds: 3", b"\xff", b"worlds: [a.png, 7, /nowhere.png]", b"- x", b""])
def test_whatever_is_remembered_the_library_opens(tmp_path: Path, blob: bytes) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "recent.yaml").write_bytes(blob)
    door = make_door(tmp_path, 3)
    assert len(Library(door, door.list_scenes(), tmp_path / "home").scenes) == 3


def test_a_refused_pack_leaves_everything_as_it_was(library: Library, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="refused"):
        library.open(zipped(tmp_path / "evil.zip", {**GOOD, "../a.txt": b""}))
    broken = {**GOOD, "hall/first.png": GOOD["hall/first.png"][:200]}
    with pytest.raises(UserError, match="not a readable picture"):
        library.open(folder(tmp_path / "broken", broken))
    assert len(library.scenes) == 3


def test_the_clipboard_gives_a_picture_a_path_or_a_sentence(library: Library, tmp_path: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 255, (50, 70, 3), np.uint8))
    made = io.BytesIO()
    picture.save(made, "BMP")
    path = library.paste(lambda: (made.getvalue(), ""))
    assert np.array_equal(np.asarray(Image.open(path)), np.asarray(picture)) and path.suffix == ".png"
    assert library.paste(lambda: (made.getvalue(), "")) == path, "the same picture again"
    for words in (str(path), f"'{path}'\n", f"file://{path}"):
        assert library.paste(lambda words=words: (None, words)) == path  # type: ignore[misc]
    for clipboard in ((None, ""), (None, "hello"), (None, "/nowhere/x.png"), (b"no picture", ""), (None, "a\nb")):
        with pytest.raises(UserError) as caught:
            library.paste(lambda clipboard=clipboard: clipboard)  # type: ignore[misc]
        assert str(caught.value) == NO_PICTURE
    for number in range(30):
        one = io.BytesIO()
        Image.new("RGB", (8, 8), (number, 0, 0)).save(one, "PNG")
        library.paste(lambda one=one: (one.getvalue(), ""))  # type: ignore[misc]
    assert len(list(path.parent.iterdir())) <= 24


def test_the_systems_clipboard_is_asked_and_may_refuse(
    opened: Window,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pygame.scrap.put_text("/a/path.png")
    blob, words = window.from_clipboard()
    assert blob is None and words == "/a/path.png"
    monkeypatch.setattr(pygame.scrap, "get", lambda kind: b"picture" if kind == "image/bmp" else None)
    assert window.from_clipboard() == (b"picture", "/a/path.png")

    def refuse(*_: object) -> None:
        raise pygame.error("No clipboard here")

    for name in ("get", "get_text", "init"):
        monkeypatch.setattr(pygame.scrap, name, refuse)
    assert window.from_clipboard() == (None, "")


def test_menu_keys_for_packs(opened: Window, tmp_path: Path) -> None:  # noqa: F811
    menu = make_menu(tmp_path)
    assert menu.handle(key(pygame.K_v, pygame.KMOD_LCTRL)) == Paste() and menu.handle(key(pygame.K_v)) is None
    assert menu.handle(key(pygame.K_DELETE)) == Forget(menu.scenes[0])
    assert menu.handle(pygame.event.Event(pygame.DROPFILE, file="a.zip")) == Open(Path("a.zip"))
    menu.focus = 5
    menu.refill(menu.scenes[:2])
    menu.draw(opened.surface)
    assert menu.focus == 0 and len(menu._cards) == 2


def test_a_pack_is_dropped_walked_and_forgotten(visit: Visit, tmp_path: Path) -> None:  # noqa: F811
    paint(tmp_path / "first.png", 4)
    about = b"format: 1\ntitle: Halls\nweights: {name: other, sha256: '" + b"cd" * 32 + b"'}\n"
    members = {**GOOD, "hall/first.png": (tmp_path / "first.png").read_bytes(), "pack.yaml": about}
    one = visit.program
    pygame.event.post(pygame.event.Event(pygame.DROPFILE, file=str(zipped(tmp_path / "halls.zip", members))))
    visit.until(lambda: "Opened halls.zip" in one.menu.news)
    assert isinstance(one.menu.scenes[0], PackScene) and len(one.menu.scenes) == 9
    visit.press(pygame.K_RETURN)
    visit.until(visit.on(PlayScreen))
    play = one.play
    assert play is not None and one.walk is not None and one.walk.scene.title == "Long Hall"
    visit.until(lambda: play._message is not None and "Made for the weights cdcdcdcd" in play._message[0])
    one._to_menu("")
    visit.press(pygame.K_DELETE)
    visit.until(lambda: len(one.menu.scenes) == 8)
    pygame.event.post(pygame.event.Event(pygame.DROPFILE, file=str(zipped(tmp_path / "bad.zip", {"../x.txt": b""}))))
    visit.until(lambda: "refused" in one.menu.notice)
    assert len(one.menu.scenes) == 8


def test_a_pasted_picture_is_walked_from_or_a_sentence_says_why_not(
    visit: Visit,  # noqa: F811
    tmp_path: Path,
) -> None:
    pygame.scrap.put_text("nothing of use")
    visit.press(pygame.K_v)
    pygame.event.post(key(pygame.K_v, pygame.KMOD_LCTRL))
    visit.until(lambda: visit.program.menu.notice == NO_PICTURE)
    paint(tmp_path / "own.png", 3)
    pygame.scrap.put_text(str(tmp_path / "own.png"))
    pygame.event.post(key(pygame.K_v, pygame.KMOD_LCTRL))
    visit.until(visit.on(LoadingScreen))
    assert visit.program.menu.scenes[0].title == "own"


def test_a_pack_on_the_command_line_opens_in_the_menu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from argparse import ArgumentParser

    from app.main import add_arguments

    monkeypatch.setenv("FARSTEP_HOME", str(tmp_path / "home"))
    paint(tmp_path / "first.png", 4)
    root = folder(tmp_path / "halls", {**GOOD, "hall/first.png": (tmp_path / "first.png").read_bytes()})
    shutil.copytree(root / "hall", root / "cellar")
    (root / "cellar" / "scene.yaml").write_text(SCENE.replace("Long", "Short"))
    seen: list[MenuScreen] = []
    monkeypatch.setattr("app.program.Program.loop", lambda program: seen.append(program.screen))
    parser = ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args(["--weights", "x", "--scene", str(root)])
    assert launch.run(args, make_door(tmp_path, 3)) == 0
    assert isinstance(seen[0], MenuScreen) and "2 to walk through" in seen[0].news
    assert [s.title for s in seen[0].scenes[:2]] == ["Short Hall", "Long Hall"]
