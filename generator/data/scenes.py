"""Scene export: turns one frame of a data set into a scene folder that players can pick.

Does not know about networks, windows or engines.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

import yaml
from PIL import Image

from controls.errors import UserError
from controls.files import write_atomic
from generator.data.clips import Dataset

PICTURE = "first.png"


def export_scene(
    dataset: Dataset,
    clip: int,
    frame: int,
    name: str,
    title: str,
    caption: str,
    folder: Path,
    weights: str = "",
) -> Path:
    """Write folder/name/{first.png, scene.yaml} from a clip's frame, atomically; returns the scene's folder. It is
    walked with the `weights` of that name that lie beside the folder, if one is given.

    UserError when the clip, the frame or the name does not fit.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", name):
        raise UserError(f"The scene name {name!r} must be small letters, digits and dashes, such as pink-court.")
    if not 0 <= clip < len(dataset):
        raise UserError(f"The data set has clips 0 to {len(dataset) - 1}, not {clip}.")
    entry, data = dataset.entry(clip), dataset.clip(clip)
    if not 0 <= frame < len(data):
        raise UserError(f"Clip {clip} has frames 0 to {len(data) - 1}, not {frame}.")
    blob = io.BytesIO()
    Image.fromarray(data.frames(frame, 1)[0]).save(blob, "PNG", optimize=True)
    text = yaml.safe_dump(
        {
            "title": title,
            "caption": caption,
            "picture": PICTURE,
            **({"weights": weights} if weights else {}),
            "world": dataset.meta["world"],
            "map": entry["map"],
            "map_seed": entry["map_seed"],
            "pose": [round(float(value), 3) for value in data.pose[frame]],
        },
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=None,
    )
    write_atomic(folder / name / PICTURE, blob.getvalue())
    write_atomic(folder / name / "scene.yaml", text.encode())  # last: a folder without it is not a scene
    return folder / name
