"""World packs: what is read, and everything that is refused, with zips that were made to do harm."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from fake_world import make_door, paint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from app import packs
from app.packs import open_pack, safe_name
from controls.errors import UserError

SCENE = "title: Long Hall\ncaption: A hall.\npicture: first.png\n"


def picture() -> bytes:
    made = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 64, 3), np.uint8)).save(made, "PNG")
    return made.getvalue()


PNG = picture()
GOOD = {"hall/scene.yaml": SCENE.encode(), "hall/first.png": PNG}


def zipped(path: Path, members: dict[str, bytes], **about: object) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            for key, value in about.items():
                setattr(info, key, value)
            file.writestr(info, data)
    return path


def folder(path: Path, members: dict[str, bytes]) -> Path:
    for name, data in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def outside(tmp_path: Path) -> set[Path]:
    """Every file that is not the zip or below the store."""
    return {p for p in tmp_path.rglob("*") if p.is_file() and "store" not in p.parts and p.suffix != ".zip"}


def refused(path: Path, tmp_path: Path, words: str = "") -> str:
    before = outside(tmp_path)
    with pytest.raises(UserError) as caught:
        open_pack(path, tmp_path / "store")
    said = str(caught.value)
    assert words in said and "\n" not in said and path.name in said
    assert outside(tmp_path) == before, "nothing was written anywhere else"
    if (tmp_path / "store").exists() and path.suffix == ".zip":
        assert not list((tmp_path / "store").glob("unpacking-*"))
    return said


def attempt(path: Path, tmp_path: Path) -> tuple[list[packs.PackScene], str]:
    """The scenes of a pack, or why it was refused; any other error is a fault."""
    try:
        return open_pack(path, tmp_path / "store").scenes, ""
    except UserError as error:
        return [], str(error)


@pytest.mark.parametrize("wrapped", ["", "my pack/"])
def test_a_folder_and_a_zip_are_read_alike(tmp_path: Path, wrapped: str) -> None:
    about = {
        "format": 1, "title": "Two halls", "weights": {"name": "pocket", "sha256": "ab" * 32},
        "files": {"hall/first.png": hashlib.sha256(PNG).hexdigest()},
    }  # fmt: skip
    members = {
        **GOOD, "cellar/scene.yaml": SCENE.replace("Long Hall", "Cellar").encode(), "cellar/first.png": PNG,
        "pack.yaml": yaml.safe_dump(about).encode(), "LICENCE.txt": b"free", ".DS_Store": b"litter",
    }  # fmt: skip
    members = {wrapped + name: data for name, data in members.items()}
    one = open_pack(folder(tmp_path / "halls", members), tmp_path / "store")
    path = zipped(tmp_path / "halls.zip", members)
    for other in (open_pack(path, tmp_path / "store"), open_pack(path, tmp_path / "store")):
        assert other.title == one.title == "Two halls"
        assert [(s.name, s.title, s.weights) for s in other.scenes] == [
            (s.name, s.title, s.weights) for s in one.scenes
        ]
    assert [s.name for s in one.scenes] == ["halls-cellar", "halls-hall"] and one.scenes[0].weights == "ab" * 32
    assert one.scenes[0].picture.read_bytes() == PNG
    (unpacked,) = (tmp_path / "store").iterdir()
    assert not list(unpacked.rglob(".DS_Store")), "litter is not unpacked"


@pytest.mark.parametrize(
    "name",
    [
        "../evil.txt", "/etc/evil.txt", "hall/../../evil.txt", "C:/evil.txt", "hall\\..\\evil.txt", "hall//evil.txt",
        "./evil.txt", "hall/con.txt", "AUX", "lpt1.yaml", "hall./evil.txt", " hall/evil.txt", "hall/evil.txt ",
        "a/b/c/d/e.txt", "x" * 300 + ".txt", "hall/e\u202evil.txt", "hall/evil\x01.txt", "hall/evil?.txt",
        "hall/run.py", "hall/weights.pkl", "hall/library.so", "hall/noending", "hall/first.PNG",
    ],
)  # fmt: skip
def test_a_name_that_leads_elsewhere_or_is_no_data_is_refused(tmp_path: Path, name: str) -> None:
    refused(zipped(tmp_path / "evil.zip", {**GOOD, name: b"evil"}), tmp_path)


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet=st.sampled_from("a.B/\\:\0 ~\u00e9\u0301\u202eCON1"), max_size=24) | st.text(max_size=24))
def test_a_name_that_is_taken_stays_below_the_root(name: str) -> None:
    try:
        parts = safe_name(name)
    except ValueError:
        return
    root = Path("/pack")
    place = Path(os.path.normpath(root.joinpath(*parts)))
    assert place != root and place.is_relative_to(root) and len(place.relative_to(root).parts) == len(parts)
    assert safe_name("/".join(parts)) == parts, "one form"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_zip_that_was_tampered_with_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    """Bytes changed, cut out or put in anywhere: never another kind of error, never a file elsewhere."""
    blob = bytearray(zipped(tmp_path / "base.zip", GOOD).read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(blob) - 1))
        match data.draw(st.sampled_from(["change", "cut", "add"])):
            case "change":
                blob[at] = data.draw(st.integers(0, 255))
            case "cut":
                del blob[at : at + data.draw(st.integers(1, 40))]
            case "add":
                blob[at:at] = data.draw(st.binary(max_size=40))
        if not blob:
            break
    path = tmp_path / "pack.zip"
    path.write_bytes(blob)
    before = outside(tmp_path)
    scenes, said = attempt(path, tmp_path)
    assert all(s.picture.is_relative_to(tmp_path / "store") for s in scenes) and "\n" not in said
    assert outside(tmp_path) == before


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=200) | st.text(max_size=200).map(str.encode), st.sampled_from(["pack.yaml", "hall/scene.yaml"])
)
def test_whatever_a_yaml_holds_it_is_read_or_refused(tmp_path: Path, blob: bytes, name: str) -> None:
    root = folder(tmp_path / "pack", {**GOOD, "pack.yaml": b"format: 1", f"{name}.yaml": blob})
    scenes, said = attempt(root, tmp_path)
    assert scenes or "refused" in said


def test_links_and_devices_are_refused(tmp_path: Path) -> None:
    link = {"external_attr": (stat.S_IFLNK | 0o777) << 16}
    refused(zipped(tmp_path / "link.zip", {"hall/first.png": b"/etc/passwd"}, **link), tmp_path, "link")
    root = folder(tmp_path / "linked", GOOD)
    (root / "hall" / "more.png").symlink_to("/etc/passwd")
    refused(root, tmp_path, "link")
    (root / "hall" / "more.png").unlink()
    (root / "cellar").symlink_to(tmp_path)
    refused(root, tmp_path, "link")
    (root / "cellar").unlink()
    os.mkfifo(root / "hall" / "pipe.png")
    refused(root, tmp_path, "device")


def test_bombs_are_refused_before_they_are_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "_write", lambda *a: pytest.fail("something was unpacked"))
    refused(zipped(tmp_path / "ratio.zip", {**GOOD, "a.txt": bytes(4 << 20)}), tmp_path, "100 times")
    many = {f"{n}.txt": b"" for n in range(packs.MAX_MEMBERS + 1)}
    refused(zipped(tmp_path / "many.zip", many), tmp_path, "table of contents")
    monkeypatch.setattr(packs, "MAX_FILE", len(PNG) - 1)
    refused(zipped(tmp_path / "large.zip", GOOD), tmp_path, "more than")
    monkeypatch.undo()
    monkeypatch.setattr(packs, "MAX_TOTAL", len(PNG) + 10)
    refused(zipped(tmp_path / "total.zip", GOOD), tmp_path, "it holds more than")
    monkeypatch.setattr(packs, "MAX_ZIP", 10)
    refused(zipped(tmp_path / "zip.zip", GOOD), tmp_path, "more than 10")


def test_a_table_of_contents_that_lies_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "lies.zip", GOOD)
    blob = bytearray(path.read_bytes())
    at = blob.rfind(b"PK\5\6")
    struct.pack_into("<H", blob, at + 10, 60_000)
    path.write_bytes(blob)
    refused(path, tmp_path, "table of contents")
    path = zipped(tmp_path / "small.zip", GOOD)
    blob = bytearray(path.read_bytes())
    struct.pack_into("<I", blob, blob.find(b"PK\1\2") + 24, 5)  # the first member claims five bytes
    path.write_bytes(blob)
    refused(path, tmp_path)
    doubled = tmp_path / "doubled.zip"
    with zipfile.ZipFile(doubled, "w") as file:
        file.writestr("hall/scene.yaml", SCENE)
        with pytest.warns(UserWarning, match="Duplicate name"):
            file.writestr("hall/scene.yaml", SCENE)
    refused(doubled, tmp_path, "twice")
    refused(zipped(tmp_path / "case.zip", {**GOOD, "HALL/first.png": PNG}), tmp_path, "twice")
    refused(folder(tmp_path / "empty", {"readme.md": b"nothing"}), tmp_path, "no scene")
    (tmp_path / "text.zip").write_text("no zip")
    refused(tmp_path / "text.zip", tmp_path, "not a zip")


def test_pictures_are_bounded_and_must_be_pictures(tmp_path: Path) -> None:
    made = io.BytesIO()
    Image.new("1", (9000, 9000)).save(made, "PNG")
    refused(folder(tmp_path / "huge", {**GOOD, "hall/first.png": made.getvalue()}), tmp_path, "pixels")
    refused(folder(tmp_path / "text", {**GOOD, "hall/first.png": b"no picture"}), tmp_path, "not a readable picture")
    gif = io.BytesIO()
    Image.new("RGB", (8, 8)).save(gif, "GIF")
    refused(folder(tmp_path / "gif", {**GOOD, "hall/first.png": gif.getvalue()}), tmp_path, "not a readable picture")
    away = SCENE.replace("first.png", "../first.png").encode()
    refused(folder(tmp_path / "away", {**GOOD, "hall/scene.yaml": away, "first.png": PNG}), tmp_path, "not a picture")


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ("format: 2", "format is 2"),
        ("format: 1\ntitel: x", "did you mean 'title'"),
        ("format: 1\nfiles: {hall/first.png: '00'}", "not the file that the pack was made with"),
        ("format: 1\nfiles: {hall/other.png: '00'}", "not in the pack"),
        ("format: 1\nweights: {name: pocket, sha256: abc}", "not a SHA-256"),
        ("format: 1\ntitle: [1]", "title must be a text"),
        ("format: 1\nweights: &a {name: pocket}\nfiles: *a", "aliases"),
    ],
)
def test_a_wrong_pack_file_is_a_sentence_with_its_line(tmp_path: Path, about: str, words: str) -> None:
    assert "line" in refused(folder(tmp_path / "pack", {**GOOD, "pack.yaml": about.encode()}), tmp_path, words)


def test_only_the_last_packs_stay_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "UNPACKED", 2)
    for number in range(4):
        path = zipped(tmp_path / f"{number}.zip", {**GOOD, "note.txt": b"%d" % number})
        made = open_pack(path, tmp_path / "store").scenes[0].picture
    assert len(list((tmp_path / "store").iterdir())) == 2 and made.is_file()


def test_a_pack_is_played_without_a_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from app import headless

    monkeypatch.setenv("FARSTEP_HOME", str(tmp_path / "home"))
    paint(tmp_path / "first.png", 3)
    path = zipped(tmp_path / "halls.zip", {**GOOD, "hall/first.png": (tmp_path / "first.png").read_bytes()})
    found = headless._find_scene(make_door(tmp_path, 1), str(path))
    assert found.title == "Long Hall" and headless._find_scene(make_door(tmp_path, 1), "scene0").name == "scene0"
