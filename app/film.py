"""Film: the newest picture of every latent frame of the last half minute, for rewinding and for the timeline strip.

Lives in the window process and holds only pictures; the states that belong to them stay in the generator (see
`app.history`). 30 s of the pocket world are 180 pictures of 123 kB, 22 MB; larger pictures reach less far back once
they fill `BUDGET`.

Does not know about worlds, states, windows or time.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
SECONDS = 30.0
BUDGET = 96_000_000  # bytes


class Film:
    """Pictures uint8 (Y, X, 3) by latent frame, one after another; the oldest go first, beyond `steps` or `budget`."""

    def __init__(self, steps: int, budget: int = BUDGET) -> None:
        assert steps >= 1, f"{steps} steps"
        self.steps = steps
        self._budget = budget
        self._frames: deque[tuple[int, Pixels]] = deque()

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def oldest(self) -> int:
        """The first latent frame that is kept; the film must not be empty."""
        return self._frames[0][0]

    @property
    def newest(self) -> int:
        """The last latent frame that is kept; the film must not be empty."""
        return self._frames[-1][0]

    @property
    def nbytes(self) -> int:
        """Bytes of all pictures."""
        return sum(picture.nbytes for _, picture in self._frames)

    def add(self, index: int, picture: Pixels) -> None:
        """Keep a copy of the picture that latent frame `index` ended with; anything from `index` on is replaced."""
        self.cut(index - 1)
        if self._frames and index != self.newest + 1:
            self.clear()
        self._frames.append((index, picture.copy()))  # frames come as parts of a whole latent frame's memory
        while len(self._frames) > self.steps + 1 or len(self._frames) > max(1, self._budget // picture.nbytes):
            self._frames.popleft()

    def get(self, index: int) -> Pixels | None:
        """The picture of a latent frame, None when it is not kept."""
        if not self._frames or not self.oldest <= index <= self.newest:
            return None
        return self._frames[index - self.oldest][1]

    def cut(self, index: int) -> None:
        """Forget everything after latent frame `index`."""
        while self._frames and self.newest > index:
            self._frames.pop()

    def clear(self) -> None:
        """Forget everything."""
        self._frames.clear()

    def marks(self, count: int, oldest: int = 0) -> list[int]:
        """Up to `count` latent frames from `oldest` on, evenly spread and ending with the newest, for a strip."""
        if not self._frames:
            return []
        first = min(max(oldest, self.oldest), self.newest)
        chosen = np.linspace(first, self.newest, min(count, self.newest - first + 1))
        return [round(float(place)) for place in chosen]
