"""Clips: reads and writes a data set on disk (meta.json and one .npz of JPEG frames, actions and poses per clip).

Shape key: T video frames of a clip (1 + 4 F), Y, X video size, K keys. Row i of keys and look is the tick that led to
frame i; row 0 is zeros. pose is x, y, z in map units, yaw (positive right) and pitch (positive up) in degrees.

Does not know about engines, explorers or networks.
"""

from __future__ import annotations

import io
import json
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from controls.action import ActionSpec
from controls.errors import UserError
from controls.files import write_atomic

FORMAT = 1
QUALITY = 95
READERS = 16  # threads that read clips at once, at most
# Files of arrays are opened one at a time: Python 3.11 cannot parse their headers in several threads.
ARRAYS_LOCK = threading.Lock()
SPLITS = ("train", "held_map", "held_seed")
ARRAYS = ("jpeg", "offsets", "keys", "look", "pose")
AGAIN = "collect the data set again (the same command resumes)."


def to_jpeg(picture: Image.Image) -> bytes:
    """A picture as JPEG, quality 95, colour at full resolution."""
    blob = io.BytesIO()
    picture.save(blob, "JPEG", quality=QUALITY, subsampling=0)
    return blob.getvalue()


@dataclass(frozen=True)
class Clip:
    """One uninterrupted walk: keys uint8 (T, K), look float32 (T, 2), pose float32 (T, 5) and T encoded frames."""

    keys: npt.NDArray[np.uint8]
    look: npt.NDArray[np.float32]
    pose: npt.NDArray[np.float32]
    jpeg: npt.NDArray[np.uint8] = field(repr=False)
    offsets: npt.NDArray[np.int64] = field(repr=False)
    clip_seed: int = 0

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def frames(self, start: int = 0, count: int | None = None) -> npt.NDArray[np.uint8]:
        """Decode `count` frames (default: all the rest) from `start`: uint8 (count, Y, X, 3)."""
        stop = len(self) if count is None else start + count
        assert 0 <= start < stop <= len(self), f"frames {start}..{stop} of a clip of {len(self)}"
        return np.stack([self._decode(i) for i in range(start, stop)])

    def _decode(self, index: int) -> npt.NDArray[np.uint8]:
        data = self.jpeg[self.offsets[index] : self.offsets[index + 1]].tobytes()
        try:
            return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        except (OSError, UnidentifiedImageError) as error:
            raise UserError(f"Frame {index} of a clip is damaged ({error}); {AGAIN}") from error


def write_clip(path: Path, clip: Clip) -> None:
    """Store a clip atomically."""
    arrays = {name: getattr(clip, name) for name in ARRAYS}
    blob = io.BytesIO()
    np.savez(blob, **arrays, clip_seed=np.int64(clip.clip_seed))
    write_atomic(path, blob.getvalue())


def read_clip(path: Path) -> Clip:
    """Load a clip; UserError when the file is missing or damaged."""
    try:
        with ARRAYS_LOCK, np.load(path, allow_pickle=False) as data:
            arrays = {name: data[name] for name in ARRAYS}
            seed = int(data["clip_seed"]) if "clip_seed" in data else 0
    except FileNotFoundError as error:
        raise UserError(f"The clip {str(path)!r} is missing; {AGAIN}") from error
    except Exception as error:  # zip, zlib, numpy and struct each have their own
        raise UserError(f"The clip {str(path)!r} is damaged ({error}); {AGAIN}") from error
    clip = Clip(**arrays, clip_seed=seed)
    rows = {len(clip), len(clip.keys), len(clip.look), len(clip.pose)}
    if len(rows) != 1 or clip.offsets[-1] != len(clip.jpeg):
        raise UserError(f"The clip {str(path)!r} is damaged (its arrays disagree); {AGAIN}")
    return clip


@dataclass(frozen=True)
class Dataset:
    """A collected data set: its folder, its metadata and its ActionSpec. Clips are read one at a time."""

    folder: Path
    meta: dict[str, Any] = field(repr=False)
    spec: ActionSpec = field(repr=False)

    @classmethod
    def open(cls, folder: Path | str) -> Dataset:
        """Read meta.json and check that every clip is there; UserError when something is missing or damaged."""
        folder = Path(folder)
        path = folder / "meta.json"
        try:
            meta = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise UserError(
                f"No data set at {str(folder)!r} (no meta.json); make one with `run.py collect`."
            ) from error
        except (OSError, ValueError) as error:
            raise UserError(f"The file {str(path)!r} is damaged ({error}); {AGAIN}") from error
        if not isinstance(meta, dict) or meta.get("format") != FORMAT:
            found = meta.get("format") if isinstance(meta, dict) else None
            raise UserError(f"The data set {str(folder)!r} has format {found!r}, not {FORMAT}; {AGAIN}")
        try:
            spec = ActionSpec.from_dict(meta["action_spec"])
            missing = [c["file"] for c in meta["clips"] if not _whole(folder / c["file"])]
            [(c["split"], c["frames"], c["map"], meta["width"], meta["height"]) for c in meta["clips"]]
        except (KeyError, TypeError) as error:
            raise UserError(f"The file {str(path)!r} is damaged (no {error}); {AGAIN}") from error
        if missing:
            raise UserError(
                f"{len(missing)} clips of {str(folder)!r} are missing or empty (first: {missing[0]}); {AGAIN}"
            )
        return cls(folder, meta, spec)

    def __len__(self) -> int:
        return len(self.meta["clips"])

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the frames."""
        return int(self.meta["width"]), int(self.meta["height"])

    def select(self, split: str) -> list[int]:
        """Indices of the clips of a split; UserError on an unknown split."""
        if split not in SPLITS:
            raise UserError(f"Unknown split {split!r}; choose one of {', '.join(SPLITS)}.")
        return [i for i, entry in enumerate(self.meta["clips"]) if entry["split"] == split]

    def entry(self, index: int) -> dict[str, Any]:
        """Metadata of a clip: file, frames, map, map_seed, theme, clip_seed, split."""
        entry: dict[str, Any] = self.meta["clips"][index]
        return entry

    def clip(self, index: int) -> Clip:
        """Load a clip; UserError when it is damaged or not the one that meta.json describes."""
        entry = self.entry(index)
        clip = read_clip(self.folder / entry["file"])
        if len(clip) != entry["frames"] or clip.keys.shape[1] != len(self.spec.keys):
            raise UserError(f"The clip {entry['file']!r} does not fit meta.json of {str(self.folder)!r}; {AGAIN}")
        return clip


def _whole(path: Path) -> bool:
    """Whether a clip's file exists and ends like a zip archive (an .npz cut short does not)."""
    try:
        with path.open("rb") as file:
            file.seek(-22, os.SEEK_END)
            return file.read(4) == b"PK\x05\x06"
    except OSError:
        return False
