"""Saved places on disk: whole or not at all, checked by hash, refused with a sentence, never lost."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from app import statefile
from app.slots import COUNT, Slot, Slots, age
from app.statefile import About, StateFile, check_fits, pack_state, write_state
from controls import files
from controls.errors import UserError

RNG = np.random.default_rng(0)
PICTURE, FIRST = RNG.integers(0, 255, (2, 16, 24, 3), np.uint8)
STATE = {
    "transformer.keys": RNG.normal(size=(2, 3, 4)).astype(np.float32),
    "place": np.array([7, 12]),
    "strided": np.arange(24).reshape(4, 6).T[::2],
    "empty": np.zeros((0, 3), np.float16),
}
ABOUT = About("a" * 64, "fake", 12, "hall", "Long Hall", 5, "2026-01-02T03:04:05+00:00")


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return set(one) == set(other) and all(
        np.array_equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "slot.farstep"
    size = write_state(path, ABOUT, STATE, PICTURE, FIRST)
    assert size == path.stat().st_size
    with StateFile(path) as file:
        assert file.about == ABOUT
        assert np.array_equal(file.picture(), PICTURE)
        assert np.array_equal(file.picture(first=True), FIRST)
        assert same(file.state(), STATE)


def test_saving_a_place_made_frames_late_by_compressing() -> None:
    with zipfile.ZipFile(io.BytesIO(pack_state(ABOUT, STATE, PICTURE, FIRST))) as file:
        assert {info.compress_type for info in file.infolist()} == {zipfile.ZIP_STORED}


def test_places_of_earlier_versions_were_compressed_and_open(tmp_path: Path) -> None:
    path = tmp_path / "slot.farstep"
    with (
        zipfile.ZipFile(io.BytesIO(pack_state(ABOUT, STATE, PICTURE, FIRST))) as file,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as older,
    ):
        for name in file.namelist():
            older.writestr(name, file.read(name))
    with StateFile(path) as opened:
        assert opened.about == ABOUT and same(opened.state(), STATE)


def test_the_place_before_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "slot.farstep"
    for index in (1, 2, 3):
        write_state(path, replace(ABOUT, frame_index=index), STATE, PICTURE, FIRST)
    kept = path.with_name(path.name + statefile.BEFORE)
    for file, index in ((path, 3), (kept, 2)):
        with StateFile(file) as opened:
            assert opened.about.frame_index == index
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, kept.name]


@pytest.mark.parametrize("failing", [0, 1])
def test_a_disk_that_fails_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    path = tmp_path / "slot.farstep"
    write_state(path, ABOUT, STATE, PICTURE, FIRST)
    calls, really = [0], files.os.replace

    def full(source: str, target: Path) -> None:
        calls[0] += 1
        if calls[0] > failing:
            raise OSError(28, "No space left on device")
        really(source, target)

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(UserError, match="No space left on device"):
        write_state(path, replace(ABOUT, frame_index=99), STATE, PICTURE, FIRST)
    with StateFile(path) as file:
        assert file.about == ABOUT and same(file.state(), STATE)
    assert not list(tmp_path.glob("*.part"))


def read_all(path: Path) -> None:
    with StateFile(path) as file:
        file.picture()
        file.state()


def repack(path: Path, change: dict[str, bytes | None]) -> None:
    """Replace members of a saved place (None: leave it out) without touching its hashes."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()} | change
    blob = io.BytesIO()
    with zipfile.ZipFile(blob, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            if data is not None:
                file.writestr(name, data)
    path.write_bytes(blob.getvalue())


def npy(array: np.ndarray) -> bytes:
    blob = io.BytesIO()
    np.save(blob, array)
    return blob.getvalue()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"arrays/place.npy": npy(np.array([7, 13]))}, "hash of arrays/place"),
        ({"arrays/place.npy": None}, "place"),
        ({"picture.png": b"no picture"}, "hash of picture"),
        ({"about.json": b"{}"}, "format"),
        ({"about.json": b"[1]"}, "format"),
        ({"about.json": b"{nonsense"}, "damaged"),
        ({"about.json": b'{"format": 1, "sha256": {}}'}, "weights_hash"),
        ({"about.json": b"[" * 100_000}, "damaged"),
    ],
)
def test_damage_is_one_sentence(tmp_path: Path, change: dict[str, bytes | None], word: str) -> None:
    path = tmp_path / "slot.farstep"
    write_state(path, ABOUT, STATE, PICTURE, FIRST)
    repack(path, change)
    with pytest.raises(UserError, match=word) as caught:
        read_all(path)
    assert "\n" not in str(caught.value)


def test_any_flipped_byte_is_noticed_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "slot.farstep"
    write_state(path, ABOUT, STATE, PICTURE, FIRST)
    good = path.read_bytes()
    refused = 0
    for place in range(0, len(good), 37):
        path.write_bytes(good[:place] + bytes([good[place] ^ 0x55]) + good[place + 1 :])
        try:
            with StateFile(path) as file:
                assert same(file.state(), STATE) and np.array_equal(file.picture(), PICTURE)
        except UserError:
            refused += 1
    for length in (0, 1, 30, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:length])
        with pytest.raises(UserError, match="damaged"):
            StateFile(path)
    assert refused > 20


def test_objects_and_too_large_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "slot.farstep"
    write_state(path, ABOUT, STATE, PICTURE, FIRST)
    blob = io.BytesIO()
    np.save(blob, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(path) as file:
        head = json.loads(file.read("about.json"))
    head["sha256"]["arrays/place.npy"] = statefile.hashlib.sha256(blob.getvalue()).hexdigest()
    repack(path, {"arrays/place.npy": blob.getvalue(), "about.json": json.dumps(head).encode()})
    with pytest.raises(UserError, match="damaged"), StateFile(path) as file:
        file.state()
    write_state(path, ABOUT, STATE, PICTURE, FIRST)
    monkeypatch.setattr(statefile, "MAX_STATE", 100)
    with pytest.raises(UserError, match="bytes"), StateFile(path) as file:
        file.state()
    monkeypatch.setattr(statefile, "MAX_ABOUT", 100)
    with pytest.raises(UserError, match="bytes"):
        StateFile(path)


def test_a_missing_file_and_a_foreign_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no saved place"):
        StateFile(tmp_path / "none")
    with pytest.raises(UserError, match="damaged"):
        StateFile(tmp_path)
    check_fits(ABOUT, "a" * 64, "fake")
    with pytest.raises(UserError, match=r"weights aaaaaaaa, but bbbbbbbb"):
        check_fits(ABOUT, "b" * 64, "fake")
    with pytest.raises(UserError, match="--backend fake"):
        check_fits(ABOUT, "a" * 64, "openvino")


def test_slots(tmp_path: Path) -> None:
    slots = Slots(tmp_path / "states")
    assert slots.current == 1 and slots.look().about is None and slots.look().words() == "slot 1: empty"
    assert slots.move(-1).number == COUNT and slots.move(1).number == 1 and slots.move(2).number == 3
    write_state(slots.path(), ABOUT, STATE, PICTURE, FIRST)
    slot = slots.look()
    assert slot.about == ABOUT and slot.picture is not None and np.array_equal(slot.picture, PICTURE)
    assert slots.look() is slot, "read once"
    assert slot.words(datetime(2026, 1, 2, 5, 4, 5, tzinfo=UTC)) == "slot 3: Long Hall, 2 h ago"
    write_state(slots.path(), replace(ABOUT, title="Other place"), STATE, PICTURE, FIRST)
    assert "Other place" in slots.look().words(), "a file that changed is read again"
    slots.path().write_text("no zip")
    assert "cannot be read" in slots.look().words() and "damaged" in slots.look().problem


def test_age() -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    for passed, words in ((5, "just now"), (90, "1 min ago"), (7300, "2 h ago"), (3 * 86_400, "3 d ago")):
        assert age((now - timedelta(seconds=passed)).isoformat(), now) == words
    assert age("nonsense", now) == age("2026-01-01", now) == ""


def test_a_slot_is_told_in_short_where_a_window_is_small():
    """At 480x300 a slot's line with its place's name was squeezed until it could not be read."""
    slot = Slot(3, about=ABOUT)
    assert ABOUT.title in slot.words() and ABOUT.title not in slot.words(short=True)
    assert slot.words(short=True).startswith("slot 3: ") and len(slot.words(short=True)) < 24
