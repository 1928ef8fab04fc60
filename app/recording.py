"""Frames to disk: numbered PNG files in a folder, or one MP4.

A PNG is there whole or not at all; an MP4 gets its name only when it is complete. Containers are always closed.

Does not know about pacing, actions or what the frames show.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from controls.errors import UserError
from controls.files import write_atomic

Pixels = npt.NDArray[np.uint8]


class FrameWriter(Protocol):
    """Takes frames uint8 (Y, X, 3) in order; used as a context manager; UserError when the disk refuses."""

    def add(self, frame: Pixels) -> None: ...
    def __enter__(self) -> FrameWriter: ...
    def __exit__(self, *error: object) -> None: ...


def _refused(path: Path, error: OSError) -> UserError:
    return UserError(f"Cannot write {path} ({error.strerror or error}); free some space or choose another --out.")


def write_png(frame: Pixels, path: Path, notes: Mapping[str, str] | None = None) -> None:
    """One frame uint8 (Y, X, 3) as a PNG, whole or not at all; `notes` become text chunks. UserError when it fails."""
    blob, info = io.BytesIO(), PngInfo()
    for name, words in (notes or {}).items():
        info.add_text(name, words)
    Image.fromarray(frame).save(blob, format="PNG", compress_level=1, pnginfo=info)
    write_atomic(path, blob.getvalue())


def write_screenshot(frame: Pixels, folder: Path, name: str, notes: Mapping[str, str]) -> Path:
    """A picture uint8 (Y, X, 3) under the first free name of `name.png`, `name-2.png` and so on; returns its path.

    UserError when it cannot be written; a picture that is there is never replaced.
    """
    safe = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)[:80] or "picture"
    number, path = 1, folder / f"{safe}.png"
    while path.exists():
        number += 1
        path = folder / f"{safe}-{number}.png"
    write_png(frame, path, notes)
    return path


class NoWriter:
    """Writes nothing."""

    def add(self, frame: Pixels) -> None:
        """Forget the frame."""

    def __enter__(self) -> NoWriter:
        return self

    def __exit__(self, *error: object) -> None:
        pass


class PngWriter(NoWriter):
    """DIR/000000.png, DIR/000001.png and so on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _refused(folder, error) from error

    def add(self, frame: Pixels) -> None:
        """Write the next picture."""
        write_png(frame, self.folder / f"{self.count:06d}.png")
        self.count += 1


class Mp4Writer(NoWriter):
    """One H.264 file, 4:2:0, near lossless; removed when the run fails.

    Streamed to a neighbouring name and renamed at the end: a long recording is too large for `write_atomic`.
    """

    def __init__(self, path: Path, fps: float, threads: int = 1) -> None:
        self.path = path
        self._fps = Fraction(fps).limit_denominator(1001)
        self._threads = threads
        self._partial = path.with_name(f".{path.name}.tmp")
        self._stream: Any = None
        self._container: Any = None
        try:
            import av

            path.parent.mkdir(parents=True, exist_ok=True)
            self._container = av.open(str(self._partial), mode="w", format="mp4")
        except OSError as error:
            raise _refused(path, error) from error

    def _open_stream(self, frame: Pixels) -> None:
        stream = self._container.add_stream("libx264", rate=self._fps)
        stream.height, stream.width = frame.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.options = {
            "crf": "16",
            "preset": "veryfast",
            "threads": str(self._threads),
            "bf": "0",
        }
        self._stream = stream

    def add(self, frame: Pixels) -> None:
        """Encode the next frame."""
        import av

        if self._stream is None:
            self._open_stream(frame)
        try:
            self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        except OSError as error:
            raise _refused(self.path, error) from error

    def __enter__(self) -> Mp4Writer:
        return self

    def __exit__(self, *error: object) -> None:
        kind = error[0]
        try:
            if kind is None and self._stream is not None:
                self._container.mux(self._stream.encode(None))
            self._container.close()
            if kind is None:
                os.replace(self._partial, self.path)
        except OSError as problem:
            if kind is None:
                raise _refused(self.path, problem) from problem
        finally:
            self._partial.unlink(missing_ok=True)


def open_writer(out: Path | None, fps: float) -> FrameWriter:
    """A writer for --out: None writes nothing, a name ending in .mp4 a video, anything else a folder of PNGs."""
    if out is None:
        return NoWriter()
    return Mp4Writer(out, fps) if out.suffix.lower() == ".mp4" else PngWriter(out)
