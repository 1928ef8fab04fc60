"""World packs: a folder or a zip of data only, from strangers: scene YAMLs, pictures, captions; weights by their hash.

    pack.yaml            optional: format: 1, title, weights: {name, sha256}, files: {path: sha256}
    NAME/scene.yaml      title, caption, picture (a file beside it), and what the scenes that ship may say besides
    NAME/first.png       PNG, JPEG or WebP

Nothing in a pack is run or unpickled. Every name is checked before anything is written: no absolute paths, drives,
links, `..`, reserved or doubled names. Counts, sizes, ratios and pixels are bounded, kinds of files are listed, and a
SHA-256 is checked where one is given. A zip is unpacked into a folder named by its own hash, which appears complete or
not at all. A pack that breaks a rule is refused whole, with one sentence.

Does not know about menus, worlds or what a picture shows.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import struct
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from controls.errors import UserError
from controls.strict_yaml import Document, load_file

FORMAT = 1
MAX_ZIP, MAX_TOTAL, MAX_FILE = 256 << 20, 256 << 20, 32 << 20  # bytes
MAX_MEMBERS, MAX_DEPTH, MAX_NAME, MAX_SCENES = 500, 4, 200, 100
MAX_DIRECTORY = 512 * MAX_MEMBERS  # bytes of a zip's table of contents
MAX_RATIO, SMALL = 100, 64 << 10  # unpacked by packed, of members of more than SMALL bytes
MAX_PIXELS = 32_000_000
MAX_TITLE, MAX_CAPTION = 80, 240  # characters
UNPACKED = 16  # packs that stay unpacked
PICTURES = (".png", ".jpg", ".jpeg", ".webp")
KINDS = (*PICTURES, ".yaml", ".yml", ".txt", ".md")
PACK_KEYS = ("format", "title", "author", "licence", "weights", "files")
SCENE_KEYS = ("title", "caption", "picture", "ambience", "world", "map", "map_seed", "pose")
RESERVED = {"con", "prn", "aux", "nul", *(f"{name}{n}" for name in ("com", "lpt") for n in range(10))}
HASH = re.compile(r"[0-9a-f]{64}")
FAULTS = (OSError, ValueError, EOFError, KeyError, NotImplementedError, RuntimeError, OverflowError)  # of reading a zip


@dataclass(frozen=True)
class PackScene:
    """A scene of a pack; `weights` begins the hash of those it was made for, "" for any."""

    name: str
    title: str
    caption: str
    picture: Path
    weights: str = ""


@dataclass(frozen=True)
class Pack:
    """A pack that has passed every check."""

    title: str
    scenes: list[PackScene]


def is_pack(path: Path) -> bool:
    """Whether a path is offered as a pack: a folder, or a file that is called a zip."""
    return path.is_dir() or (path.suffix.lower() == ".zip" and path.is_file())


def open_pack(path: Path, store: Path) -> Pack:
    """Check a pack and read it; a zip is unpacked below `store`. UserError, one sentence, when it is refused."""
    with _refusing(path):
        root = _unpack(path, store) if not path.is_dir() else path
        return _read(root, _plain(path.stem if root != path else path.resolve().name))


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Every way in which a pack can be wrong becomes one sentence."""
    try:
        yield
    except UserError as error:
        raise UserError(f"The world pack {path.name!r} is refused: {error}") from error
    except (*FAULTS, zipfile.BadZipFile, zlib.error, struct.error) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"The world pack {path.name!r} is refused: {why}; ask whoever made it for another.") from error


def safe_name(name: str) -> tuple[str, ...]:
    """The parts of a path inside a pack, in one Unicode form; ValueError when it could lead anywhere else."""
    name = unicodedata.normalize("NFC", name)
    if len(name) > MAX_NAME:
        raise ValueError(f"a name has {len(name)} characters")
    if any(unicodedata.category(c).startswith("C") for c in name) or set(name) & set('\\:<>"|?*'):
        raise ValueError(f"the name {name!r} has characters that not every system takes")
    parts = tuple(name.split("/"))
    if len(parts) > MAX_DEPTH:
        raise ValueError(f"{name!r} lies {len(parts)} folders deep")
    for part in parts:
        if part in ("", ".", "..") or part != part.strip() or part.endswith("."):
            raise ValueError(f"the name {name!r} could lead out of the pack")
        if part.split(".")[0].strip().lower() in RESERVED:
            raise ValueError(f"the name {name!r} is one that systems keep for themselves")
    return parts


def _is_litter(parts: tuple[str, ...]) -> bool:
    """What systems leave in folders without being asked; it is never read."""
    return parts[0] == "__MACOSX" or any(part.startswith(".") for part in parts) or parts[-1].lower() == "thumbs.db"


class _Limits:
    """Counts what a pack holds, and says stop."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._total = 0

    def add(self, parts: tuple[str, ...], size: int) -> None:
        """One file more."""
        name = "/".join(parts)
        if name.casefold() in self._names:
            raise ValueError(f"{name!r} is there twice")
        self._names.add(name.casefold())
        self._total += size
        if Path(name).suffix.lower() not in KINDS:
            raise ValueError(f"{name!r} is not a kind of file that a pack may hold ({', '.join(KINDS)})")
        if len(self._names) > MAX_MEMBERS:
            raise ValueError(f"it holds more than {MAX_MEMBERS} files")
        if size > MAX_FILE:
            raise ValueError(f"{name!r} has {size:,} bytes, more than {MAX_FILE:,}")
        if self._total > MAX_TOTAL:
            raise ValueError(f"it holds more than {MAX_TOTAL:,} bytes")


# --- zips
def _unpack(path: Path, store: Path) -> Path:
    """The folder that a zip was unpacked into, now or before."""
    with path.open("rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is not a file")
        size = file.seek(0, os.SEEK_END)
        if size > MAX_ZIP:
            raise ValueError(f"it has {size:,} bytes, more than {MAX_ZIP:,}")
        _check_directory(file, size)
        file.seek(0)
        goal = store / hashlib.file_digest(file, "sha256").hexdigest()[:32]
        if goal.is_dir():
            os.utime(goal)
            return goal
        store.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(prefix="unpacking-", dir=store))
        try:
            with zipfile.ZipFile(file) as archive:
                for info, parts in _members(archive):
                    _write(archive, info, making.joinpath(*parts))
            os.replace(making, goal)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    _tidy(store)
    return goal


def _check_directory(file: Any, size: int) -> None:
    """The table of contents is read whole by `zipfile`: refuse one that is made to fill the memory."""
    file.seek(max(0, size - (1 << 16) - 64))
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < 22:
        raise ValueError("it is not a zip")
    count, length = struct.unpack("<HI", tail[at + 10 : at + 16])
    if count > MAX_MEMBERS or length > MAX_DIRECTORY or b"PK\6\7" in tail[max(0, at - 20) : at]:
        raise ValueError(f"its table of contents is too large ({count} entries)")


def _members(archive: zipfile.ZipFile) -> list[tuple[zipfile.ZipInfo, tuple[str, ...]]]:
    """What is to be unpacked, and where to; all of it is checked before the first byte is written."""
    limits, members = _Limits(), []
    for info in archive.infolist():
        parts = safe_name(info.filename.removesuffix("/"))
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ValueError(f"{info.filename!r} is a link or a device")
        if info.is_dir() or _is_litter(parts):
            continue
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{info.filename!r} is encrypted or packed in an unusual way")
        if info.file_size > max(SMALL, MAX_RATIO * info.compress_size):
            raise ValueError(f"{info.filename!r} unpacks to more than {MAX_RATIO} times its size")
        limits.add(parts, info.file_size)
        members.append((info, parts))
    return members


def _write(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(info) as packed, path.open("xb") as file:
        left = info.file_size
        while chunk := packed.read(min(1 << 16, left + 1)):
            left -= len(chunk)
            if left < 0:
                raise ValueError(f"{info.filename!r} is larger than it says")
            file.write(chunk)


def _tidy(store: Path) -> None:
    """Only the packs that were opened last stay unpacked."""
    folders = sorted((p for p in store.iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime)
    for folder in folders[:-UNPACKED]:
        shutil.rmtree(folder, ignore_errors=True)


# --- folders
def _files(root: Path) -> dict[str, Path]:
    """Every file that counts, by its path inside the pack."""
    limits, found = _Limits(), {}
    waiting = [root]
    seen = 0
    while waiting:
        folder = waiting.pop()
        for entry in sorted(os.scandir(folder), key=lambda e: e.name):
            seen += 1
            if seen > 4 * MAX_MEMBERS:
                raise ValueError(f"it holds more than {MAX_MEMBERS} files")
            parts = safe_name(Path(entry.path).relative_to(root).as_posix())
            if _is_litter(parts):
                continue
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                waiting.append(Path(entry.path))
            elif stat.S_ISREG(mode):
                limits.add(parts, entry.stat(follow_symlinks=False).st_size)
                found["/".join(parts)] = Path(entry.path)
            else:
                raise ValueError(f"{'/'.join(parts)!r} is a link or a device")
    return found


def _read(root: Path, name: str) -> Pack:
    files = _unwrapped(_files(root))
    title, weights = name, ""
    if "pack.yaml" in files:
        title, weights = _read_about(load_file(files["pack.yaml"]), files, name)
    folders = sorted(
        path.removesuffix("/scene.yaml") for path in files if path.count("/") == 1 and path.endswith("/scene.yaml")
    )
    if not folders:
        raise ValueError("it holds no scene (a folder with scene.yaml and a picture)")
    if len(folders) > MAX_SCENES:
        raise ValueError(f"it holds {len(folders)} scenes, more than {MAX_SCENES}")
    return Pack(title, [_read_scene(folder, files, name, weights) for folder in folders])


def _unwrapped(files: dict[str, Path]) -> dict[str, Path]:
    """Without the one folder that everything lies in, where there is one."""
    tops = {path.split("/")[0] for path in files}
    if (
        len(tops) != 1
        or any("/" not in path for path in files)
        or any(p.count("/") == 1 and p.endswith("/scene.yaml") for p in files)
    ):
        return files
    return {path.split("/", 1)[1]: file for path, file in files.items()}


def _read_about(document: Document, files: dict[str, Path], name: str) -> tuple[str, str]:
    """The pack's title and the beginning of the hash of its weights; every hash that is given is checked."""
    data = document.mapping((), document.data, PACK_KEYS)
    if data.get("format") != FORMAT:
        raise document.error(("format",), f"format is {data.get('format')!r}, this version reads {FORMAT}.")
    weights = document.mapping(("weights",), data.get("weights") or {}, ("name", "sha256"))
    wanted = str(weights.get("sha256", "")).lower()
    if weights and not HASH.fullmatch(wanted):
        raise document.error(("weights", "sha256"), f"{wanted!r} is not a SHA-256 (64 hexadecimal digits, in quotes).")
    given = data.get("files") or {}
    if not isinstance(given, dict):
        raise document.error(("files",), "expected `path: sha256` pairs.")
    for path, digest in given.items():
        if path not in files:
            raise document.error(("files", path), f"{path!r} is not in the pack.")
        if _digest(files[path]) != str(digest).lower():
            raise document.error(("files", path), f"{path!r} is not the file that the pack was made with.")
    return _text(document, "title", data.get("title", name), MAX_TITLE), wanted


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_scene(folder: str, files: dict[str, Path], pack: str, weights: str) -> PackScene:
    document = load_file(files[f"{folder}/scene.yaml"])
    data = document.mapping((), document.data, SCENE_KEYS)
    title = _text(document, "title", data.get("title"), MAX_TITLE)
    caption = _text(document, "caption", data.get("caption"), MAX_CAPTION)
    picture = f"{folder}/{_text(document, 'picture', data.get('picture'), MAX_NAME)}"
    if picture not in files or Path(picture).suffix.lower() not in PICTURES:
        raise document.error(("picture",), f"{picture!r} is not a picture in the pack.")
    _check_picture(files[picture])
    return PackScene(f"{pack}-{_plain(folder)}", title, caption, files[picture], weights)


def _text(document: Document, name: str, value: Any, limit: int) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= limit or not value.isprintable():
        raise document.error((name,), f"{name} must be a text of 1 to {limit} characters, found {str(value)[:40]!r}.")
    return value


def _check_picture(path: Path) -> None:
    """The head of a picture says how large it is; one that is too large is never decoded."""
    try:
        with Image.open(path, formats=["PNG", "JPEG", "WEBP"]) as image:
            width, height = image.size
    except (UnidentifiedImageError, Image.DecompressionBombError, SyntaxError) as error:
        raise ValueError(f"{path.name!r} is not a readable picture") from error
    if width * height > MAX_PIXELS:
        raise ValueError(f"{path.name!r} has {width} x {height} pixels, more than {MAX_PIXELS:,}")


def _plain(name: str) -> str:
    """A name that can be part of a file's name anywhere."""
    return re.sub(r"[^\w-]+", "-", unicodedata.normalize("NFC", name)).strip("-")[:40] or "pack"
