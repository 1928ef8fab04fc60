"""What a slow network saw of videos that come back, kept in files for the next time.

Does not know networks, or what is seen of a clip.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np

from controls.errors import UserError
from controls.files import write_atomic
from generator.data.clips import Dataset
from generator.evaluation.frechet import Features


class FilmMemory:
    """A file of features (N, D) for each thing seen, in a folder; without one nothing is kept. UserError when the
    folder cannot be made.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        try:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"The folder {str(folder)!r} cannot be made ({error.strerror}); choose another.") from error

    def recall(self, name: str, about: str, look: Callable[[], Features]) -> Features:
        """The features under this name of what `about` tells apart from all else; made by `look` if they are new, or
        what was kept is damaged.
        """
        if self.folder is None:
            return look()
        path = self.folder / f"{name}-{sha256(about.encode()).hexdigest()[:16]}.npy"
        if path.is_file():
            with suppress(OSError, ValueError):
                kept: Features = np.load(path)
                return kept
        found, stored = look(), BytesIO()
        np.save(stored, found)
        write_atomic(path, stored.getvalue())
        return found


def recorded(dataset: Dataset, clips: Sequence[int]) -> str:
    """What tells these clips apart from all other recordings: their entries, folder, and how they were recorded."""
    how = {name: value for name, value in dataset.meta.items() if name != "clips"}
    return f"{dataset.folder} {how} {[dataset.entry(index) for index in clips]}"
