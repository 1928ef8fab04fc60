"""Folders as a player walks through them: what lies in one, and the places to begin from.

Only what can be opened is listed: folders, pictures and zips (world packs); hidden things are left out.

Does not know how a list is shown or what opening does.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from controls.errors import UserError

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff")
PACKS = (".zip",)
MOST = 2000  # entries of one folder


@dataclass(frozen=True)
class Entry:
    """A line of the list: `kind` is up, folder, picture or pack; `path` is None for going up to the places."""

    path: Path | None
    name: str
    kind: str


def places() -> list[Entry]:
    """Where a search begins: home, the usual folders below it, and the roots of the file system."""
    known = [("Home", Path.home())]
    usual = (platformdirs.user_pictures_path, platformdirs.user_downloads_path, platformdirs.user_desktop_path)
    known += [(path.name, path) for path in (find() for find in usual)]
    known.append(("Mounted drives", Path("/Volumes" if sys.platform == "darwin" else "/media")))
    roots = [Path(f"{letter}:\\") for letter in "CDEFGHIJ"] if sys.platform == "win32" else [Path("/")]
    known += [(str(root), root) for root in roots]
    found: dict[Path, str] = {}
    for name, path in known:
        if path.is_dir():
            found.setdefault(path, name)
    return [Entry(path, printable(name), "folder") for path, name in found.items()]


def list_folder(folder: Path) -> list[Entry]:
    """Up, then folders, then pictures and packs, by name without regard to case; UserError when it cannot be read."""
    parent = folder.parent
    entries = [Entry(parent if parent != folder else None, "..", "up")]
    try:
        with os.scandir(folder) as found:
            seen = [(item.name, _kind(item)) for _, item in zip(range(20 * MOST), found, strict=False)]
    except OSError as error:
        raise UserError(
            f"The folder {printable(str(folder))} cannot be read ({error.strerror}); choose another."
        ) from error
    kept = [(kind != "folder", name.casefold(), name, kind) for name, kind in seen if kind]
    return entries + [Entry(folder / name, printable(name), kind) for _, _, name, kind in sorted(kept)[:MOST]]


def _kind(item: os.DirEntry[str]) -> str:
    """What an entry is, "" for what is not listed."""
    try:
        if item.name.startswith("."):
            return ""
        if item.is_dir():
            return "folder"
        suffix = Path(item.name).suffix.lower()
        return "" if not item.is_file() else "picture" if suffix in PICTURES else "pack" if suffix in PACKS else ""
    except OSError:  # a link that leads in circles, a drive that went away
        return ""


def printable(name: str) -> str:
    """A file's name as it can be drawn: bytes that are no text, and control characters, become question marks."""
    return "".join(c if c.isprintable() else "?" for c in name.encode("utf-8", "replace").decode("utf-8"))


def nearest_folder(path: Path) -> Path:
    """The folder itself or the closest one above it that exists."""
    for one in (path, *path.parents):
        if one.is_dir():
            return one
    return Path.home()
