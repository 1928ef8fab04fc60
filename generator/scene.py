"""Scenes: what a player picks. A folder with a picture (the first frame) and a small YAML file; data only.

Light on purpose (no torch), so that a window can list scenes while the network loads.

Does not know about networks, windows or how scenes were made.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from controls.errors import UserError
from controls.strict_yaml import did_you_mean, load_file

SCENES = Path(__file__).resolve().parent.parent / "assets" / "scenes"
MAX_PIXELS = 50_000_000
Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Scene:
    """A first frame with its name (folder), title and caption; `picture` is the path of the image, `home` the folder of
    the weights of the world that it is of, if that is known.
    """

    name: str
    title: str
    caption: str
    picture: Path
    home: Path | None = None


def list_scenes(folder: Path | None = None) -> list[Scene]:
    """Every scene in a folder (by default those that ship), by name; UserError when one is damaged."""
    root = folder or SCENES
    return [read_scene(path.parent) for path in sorted(root.glob("*/scene.yaml"))]


def read_scene(folder: Path) -> Scene:
    """One scene folder; UserError when the YAML or the picture is missing or wrong."""
    data = load_file(folder / "scene.yaml").data
    if not isinstance(data, dict):
        raise UserError(f"{str(folder / 'scene.yaml')!r} must hold `name: value` pairs, not {data!r}.")
    fields = {}
    for key in ("title", "caption", "picture"):
        value = data.get(key)
        if not isinstance(value, str):
            raise UserError(f"{str(folder / 'scene.yaml')!r} needs a text for {key!r}, but has {value!r}; add it.")
        fields[key] = value
    picture = folder / fields["picture"]
    if picture.parent != folder or not picture.is_file():
        raise UserError(
            f"The scene {folder.name!r} names the picture {fields['picture']!r}, which is not in its folder."
        )
    return Scene(folder.name, fields["title"], fields["caption"], picture, _home(folder, data.get("weights")))


def _home(folder: Path, name: object) -> Path | None:
    """The weights of that name, which lie in `weights` beside the folder of all scenes."""
    if name is None:
        return None
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", name):
        raise UserError(
            f"{str(folder / 'scene.yaml')!r} needs small letters, digits and dashes for 'weights', such as pocket, "
            f"but has {name!r}."
        )
    return folder.parent.parent / "weights" / name


def scenes_of(weights: Path | None, scenes: Sequence[Scene]) -> list[Scene]:
    """Those of some scenes that are of these weights; all where no weights are given or none are of them."""
    if weights is None:
        return list(scenes)
    own = [one for one in scenes if one.home is not None and one.home.resolve() == weights.resolve()]
    return own or list(scenes)


def find_scene(name: str, folder: Path | None = None) -> Scene:
    """The scene of that name, or one made of a picture file; UserError when it is neither."""
    scenes = {scene.name: scene for scene in list_scenes(folder)}
    if name in scenes:
        return scenes[name]
    path = Path(name)
    if path.suffix and path.is_file():
        return Scene(path.stem, path.stem, "Your own picture", path)
    raise UserError(f"{name!r} is neither a scene nor a picture file{did_you_mean(name, scenes)}.")


def load_picture(path: Path, size: tuple[int, int]) -> Picture:
    """A picture as uint8 (Y, X, 3), centre-cropped and resized to size (width, height); UserError if unreadable."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UserError(f"{str(path)!r} has {image.width}x{image.height} pixels; use at most 50 million.")
            return crop_to(image.convert("RGB"), size)
    except FileNotFoundError as error:
        raise UserError(f"The picture {str(path)!r} does not exist; check the path.") from error
    except (
        OSError,
        UnidentifiedImageError,
        Image.DecompressionBombError,
        SyntaxError,
        ValueError,
    ) as error:
        raise UserError(f"{str(path)!r} is not a readable picture ({error}); use a PNG or JPEG.") from error


def crop_to(image: Image.Image, size: tuple[int, int]) -> Picture:
    """Centre-crop to the wanted aspect, then resize; returns uint8 (Y, X, 3)."""
    width, height = size
    scale = min(image.width / width, image.height / height)
    crop_w, crop_h = width * scale, height * scale
    left, top = (image.width - crop_w) / 2, (image.height - crop_h) / 2
    box = (left, top, left + crop_w, top + crop_h)
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS, box=box), dtype=np.uint8)
