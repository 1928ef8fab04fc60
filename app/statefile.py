"""Saved places: one file that holds a World's state, what it belongs to, and two pictures.

A zip of `about.json` (what is saved, and a SHA-256 of every other member), `picture.png` (what the player saw last),
`first.png` (the first frame that the walk began from) and `arrays/NAME.npy`. A file is written whole or
not at all, and the one that it replaces stays beside it as `NAME.before`. Reading runs nothing from the file (no
pickle), bounds every size before it unpacks, and checks every hash.

Nothing is compressed (files of earlier versions were, and still open): the pocket world's state is 7.7 MB of float32,
most of it keys and values, which are noise to a compressor. It took a core a quarter of a second to save 7 % of them,
beside the steps of a player who goes on walking: on two cores ten frames came late. Stored as they are: 12 ms.

Does not know about worlds, windows, slots or who asks.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from controls.errors import UserError
from controls.files import write_atomic

Pixels = npt.NDArray[np.uint8]
State = dict[str, npt.NDArray[Any]]

FORMAT = 1
ABOUT, PICTURE, FIRST, ARRAYS = "about.json", "picture.png", "first.png", "arrays/"
MAX_ABOUT, MAX_PNG, MAX_STATE = 1 << 20, 64 << 20, 8 << 30  # bytes, unpacked
MAX_MEMBERS = 10_000
BEFORE = ".before"


@dataclass(frozen=True)
class About:
    """What a saved place belongs to; `saved` is a time in UTC (ISO 8601), `frame_index` counts latent frames."""

    weights_hash: str
    backend: str
    frame_index: int
    scene: str = ""
    title: str = ""
    seed: int = 0
    saved: str = ""


def write_state(path: Path, about: About, state: State, picture: Pixels, first: Pixels) -> int:
    """Save a place; pictures uint8 (Y, X, 3). Returns the file's bytes; UserError when the disk refuses.

    A file that was there before is kept as `path` + `.before`; whatever fails, one of the two is whole.
    """
    blob = pack_state(about, state, picture, first)
    if path.is_file():
        try:
            older = path.read_bytes()
        except OSError as error:
            raise UserError(
                f"Cannot keep the place saved before in {path} ({error.strerror}); choose another slot."
            ) from error
        write_atomic(path.with_name(path.name + BEFORE), older)
    write_atomic(path, blob)
    return len(blob)


def write_quickly(path: Path, about: About, state: State, picture: Pixels, first: Pixels) -> int:
    """Save an automatic state: as `write_state`, not forced to the disk, and whole only once this has returned."""
    blob = pack_state(about, state, picture, first)
    try:
        path.write_bytes(blob)
    except OSError as error:
        raise UserError(f"Cannot write {path} ({error.strerror}); free some space.") from error
    return len(blob)


def pack_state(about: About, state: State, picture: Pixels, first: Pixels) -> bytes:
    """The file as bytes."""
    members = {PICTURE: _png(picture), FIRST: _png(first)}
    for name, array in state.items():
        members[f"{ARRAYS}{name}.npy"] = _npy(array)
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}
    head = json.dumps({"format": FORMAT, **asdict(about), "sha256": hashes}, indent=1)
    blob = io.BytesIO()
    with zipfile.ZipFile(blob, "w", zipfile.ZIP_STORED) as file:
        file.writestr(ABOUT, head)
        for name, data in members.items():
            file.writestr(name, data)
    return blob.getvalue()


def _png(picture: Pixels) -> bytes:
    blob = io.BytesIO()
    Image.fromarray(picture).save(blob, format="PNG", compress_level=1)
    return blob.getvalue()


def _npy(array: npt.NDArray[Any]) -> bytes:
    blob = io.BytesIO()
    np.save(blob, array, allow_pickle=False)
    return blob.getvalue()


class StateFile:
    """An open saved place: `about` at once, pictures and arrays when asked. UserError when it cannot be trusted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._reading():
            self._file = zipfile.ZipFile(path)
        try:
            with self._reading():
                self.about = self._read_about()
        except UserError:
            self._file.close()
            raise

    def __enter__(self) -> StateFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def _reading(self) -> _Readable:
        return _Readable(self.path)

    def _read_about(self) -> About:
        if len(self._file.infolist()) > MAX_MEMBERS:
            raise ValueError(f"{len(self._file.infolist())} members")
        head = json.loads(self._member(ABOUT, MAX_ABOUT, None))
        if not isinstance(head, Mapping) or head.get("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        hashes = head.get("sha256")
        if not isinstance(hashes, Mapping):
            raise ValueError("it has no hashes")
        self._hashes: dict[str, str] = {str(name): str(digest) for name, digest in hashes.items()}
        values = {field.name: head[field.name] for field in fields(About)}
        kinds = {field.name: int if field.type == "int" else str for field in fields(About)}
        for name, kind in kinds.items():
            if type(values[name]) is not kind:
                raise ValueError(f"{name} is {values[name]!r}")
        return About(**values)

    def _member(self, name: str, limit: int, digest: str | None) -> bytes:
        size = self._file.getinfo(name).file_size
        if size > limit:
            raise ValueError(f"{name} has {size} bytes")
        data = self._file.read(name)
        if digest is not None and hashlib.sha256(data).hexdigest() != digest:
            raise ValueError(f"the hash of {name} is wrong")
        return data

    def picture(self, first: bool = False) -> Pixels:
        """What the player saw last, or the walk's first frame: uint8 (Y, X, 3)."""
        name = FIRST if first else PICTURE
        with self._reading():
            data = self._member(name, MAX_PNG, self._hashes[name])
            with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
                if image.width * image.height * 3 > MAX_PNG:
                    raise ValueError(f"{name} is {image.width} x {image.height}")
                return np.array(image.convert("RGB"), np.uint8)

    def state(self) -> State:
        """Every array, each checked against its hash."""
        with self._reading():
            names = [name for name in self._hashes if name.startswith(ARRAYS)]
            total = sum(self._file.getinfo(name).file_size for name in names)
            if total > MAX_STATE:
                raise ValueError(f"its arrays have {total} bytes")
            arrays = {}
            for name in names:
                data = io.BytesIO(self._member(name, MAX_STATE, self._hashes[name]))
                arrays[name.removeprefix(ARRAYS).removesuffix(".npy")] = np.load(data, allow_pickle=False)
            return arrays


class _Readable:
    """Turns every way in which a damaged or missing file fails into one sentence."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        wrong = (OSError, ValueError, KeyError, EOFError, NotImplementedError, RuntimeError, RecursionError)
        faults = (*wrong, zipfile.BadZipFile, zlib.error, Image.DecompressionBombError)
        if isinstance(error, FileNotFoundError):
            raise UserError(f"There is no saved place at {self.path}; save one first.") from error
        if isinstance(error, faults):
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"The saved place {self.path} is damaged ({first}); choose another.") from error


def check_fits(about: About, weights_hash: str, backend: str) -> None:
    """UserError when a saved place belongs to other weights or another backend than those that run."""
    if about.weights_hash != weights_hash:
        raise UserError(
            f"This place was saved with the weights {about.weights_hash[:8]}, but {weights_hash[:8]} are loaded; "
            "start with --weights and the folder that it was saved with."
        )
    if about.backend != backend:
        raise UserError(
            f"This place was saved on {about.backend}, but {backend} is running; start with --backend {about.backend}."
        )
