"""The library: every scene a player can choose. Those that ship, and what was opened of late: pictures and world packs.

What was opened is remembered as paths in `recent.yaml` in the data folder, newest first; whatever cannot be opened any
more is left out. The clipboard gives a picture, or a path as text.

Does not know how scenes are shown or walked.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import platformdirs
import yaml
from PIL import Image

from app.door import DEFAULT_SIZE, Door, Pixels, scenes_of
from app.drift import Range, load_range, nearest, range_of
from app.folders import nearest_folder
from app.packs import MAX_PIXELS, is_pack, open_pack
from controls.errors import UserError
from controls.files import write_atomic
from controls.strict_yaml import load_file

KEEP = 8  # things that are remembered
PASTED = 24  # pictures from the clipboard that are kept
NO_PICTURE = "The clipboard holds no picture that the system gives to programs; drop the file on the window instead."
Clipboard = Callable[[], tuple[bytes | None, str]]  # a picture file's bytes, and text


class Library:
    """`scenes` are all of them, what was opened last in front."""

    def __init__(self, door: Door, shipped: Sequence[Any], folder: Path) -> None:
        self.shipped = list(shipped)
        self._door = door
        self._folder = folder
        self._pictures: dict[Path, Pixels] = {}
        self._opened: dict[Path, list[Any]] = {}  # newest first
        for path in reversed(self._remembered()):
            try:
                self._take(path)
            except UserError:
                continue

    @property
    def scenes(self) -> list[Any]:
        """Every scene."""
        return [*(scene for scenes in self._opened.values() for scene in scenes), *self.shipped]

    def picture(self, scene: Any) -> Pixels:
        """A scene's first frame uint8 (Y, X, 3), small; UserError when it cannot be read."""
        if scene.picture not in self._pictures:
            self._pictures[scene.picture] = self._door.load_picture(scene.picture, DEFAULT_SIZE)
        return self._pictures[scene.picture]

    # --- what was opened
    def open(self, path: Path) -> list[Any]:
        """The scenes of a world pack, or the one that a picture makes; remembered. UserError when refused."""
        scenes = self._take(path.absolute())
        self._remember()
        return scenes

    def _take(self, path: Path) -> list[Any]:
        if is_pack(path):
            scenes: list[Any] = list(open_pack(path, self._folder / "packs").scenes)
        else:
            scenes = [self._door.find_scene(str(path))]
        for scene in scenes:
            self.picture(scene)
        self._opened = {path: scenes, **{p: s for p, s in self._opened.items() if p != path}}
        while len(self._opened) > KEEP:
            self._opened.popitem()
        return scenes

    def start_folder(self) -> Path:
        """Where a search for a picture begins: where the last one was found, else among the player's pictures."""
        found = next(iter(self._opened), None)
        return nearest_folder(found.parent if found is not None else platformdirs.user_pictures_path())

    def is_recent(self, scene: Any) -> bool:
        """Whether a scene was opened and does not ship."""
        return any(scene is one for scenes in self._opened.values() for one in scenes)

    def forget(self, scene: Any) -> bool:
        """Forget the picture or the pack that a scene is of; False when it ships. Nothing is deleted."""
        path = next((p for p, scenes in self._opened.items() if any(s is scene for s in scenes)), None)
        if path is None:
            return False
        del self._opened[path]
        self._remember()
        return True

    def _remembered(self) -> list[Path]:
        try:
            data = load_file(self._folder / "recent.yaml").data
        except UserError:
            return []
        worlds = data.get("worlds") if isinstance(data, dict) else None
        paths = [Path(one) for one in worlds if isinstance(one, str)] if isinstance(worlds, list) else []
        return [path for path in paths if path.is_absolute()][:KEEP]

    def _remember(self) -> None:
        try:
            write_atomic(self._folder / "recent.yaml", yaml.safe_dump({"worlds": [str(p) for p in self._opened]}))
        except UserError:
            return  # it lasts until the program ends

    def paste(self, clipboard: Clipboard) -> Path:
        """A path of what the clipboard holds: a picture, kept as a file, or a path as text. UserError with neither."""
        blob, words = clipboard()
        if blob is None:
            path = (
                Path(words.strip().strip("'\"").removeprefix("file://"))
                if words and "\n" not in words.strip()
                else None
            )
            if path is not None and path.is_absolute() and path.exists():
                return path
            raise UserError(NO_PICTURE)
        try:
            with Image.open(io.BytesIO(blob), formats=["PNG", "JPEG", "BMP", "WEBP", "TIFF"]) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise UserError(
                        f"The picture in the clipboard has {image.width} x {image.height} pixels; use a smaller one."
                    )
                made = io.BytesIO()
                image.convert("RGB").save(made, format="PNG")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(NO_PICTURE) from error
        folder = self._folder / "pasted"
        path = folder / f"pasted-{hashlib.sha256(blob).hexdigest()[:12]}.png"
        write_atomic(path, made.getvalue())
        for old in sorted(folder.glob("pasted-*.png"), key=lambda p: p.stat().st_mtime)[:-PASTED]:
            old.unlink(missing_ok=True)
        return path

    # --- what the world knows
    def usual(self, weights: Path) -> Range:
        """What pictures of these weights look like: their own range, or that of the scenes that ship (`app.drift`)."""
        return load_range(weights) or range_of([self.picture(scene) for scene in scenes_of(weights, self.shipped)])

    def known(self, scene: Any) -> Any:
        """The scene of the same name that is here, else itself."""
        return next((one for one in self.scenes if one.name == scene.name), scene)

    def nearest(self, picture: Pixels, own: Any, home: Path) -> Any:
        """The scene of the world in `home` that looks most like a picture uint8 (Y, X, 3): one that ships, or the
        walk's own.
        """
        known = scenes_of(home, self.shipped)
        known = [*known, own] if own not in known and hasattr(own, "picture") else known
        known = [scene for scene in known if isinstance(scene.picture, Path)]
        return known[nearest(picture, [self.picture(scene) for scene in known])] if known else None
