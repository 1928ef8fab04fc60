"""A bounded ring of frame slots in shared memory.

The window process owns it: it creates and unlinks the memory and names a free slot in each request, so the generator
writes only where it was told and neither side needs a lock. One slot holds the video frames of one latent frame.

Does not know about messages, processes, time or what the frames show.
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.protocol import RingPlan
from controls.errors import UserError

Pixels = npt.NDArray[np.uint8]


def _slots(memory: SharedMemory, plan: RingPlan) -> list[Pixels]:
    size = int(np.prod(plan.shape))
    return [np.ndarray(plan.shape, np.uint8, memory.buf, offset=i * size) for i in range(plan.slots)]


def _create(size: int) -> SharedMemory:
    """New shared memory of `size` bytes whose pages are there; OSError when they are not, and nothing is left behind.

    On Linux only its name is certain at first: a page that cannot be had when it is written to ends the process.
    """
    memory = SharedMemory(create=True, size=size)
    place = Path("/dev/shm", memory.name)
    if hasattr(os, "posix_fallocate") and place.is_file():
        try:
            with place.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, memory.size)
        except OSError:
            memory.close()
            memory.unlink()
            raise
    return memory


class FrameRing:
    """The owner's side: `slots` slots of `frames` frames, uint8 (frames, Y, X, 3) each.

    UserError when the system has no shared memory left.
    """

    def __init__(self, slots: int, frames: int, height: int, width: int) -> None:
        size = slots * frames * height * width * 3
        try:
            self._memory: SharedMemory | None = _create(size)
        except OSError as error:
            raise UserError(
                f"Could not reserve {size / 1e6:.1f} MB of shared memory ({error}); free some and start again."
            ) from error
        self.plan = RingPlan(self._memory.name, slots, frames, height, width)
        self._views = _slots(self._memory, self.plan)
        self._free: deque[int] = deque(range(slots))

    @property
    def free(self) -> int:
        """How many slots can be acquired now."""
        return len(self._free)

    def acquire(self) -> int | None:
        """The free slot that was released longest ago, or None when all are in use."""
        return self._free.popleft() if self._free else None

    def release(self, slot: int) -> None:
        """Give a slot back; its frames may be overwritten from now on."""
        assert 0 <= slot < self.plan.slots and slot not in self._free, f"slot {slot} is not in use"
        self._free.append(slot)

    def view(self, slot: int) -> Pixels:
        """The slot's memory itself, uint8 (frames, Y, X, 3): copy what must outlive `release`."""
        return self._views[slot]

    def close(self) -> None:
        """Unmap and remove the shared memory; harmless when repeated."""
        memory, self._memory = self._memory, None
        self._views = []
        if memory is None:
            return
        with suppress(BufferError):  # someone still holds a view: the name goes anyway, the pages when they let go
            memory.close()
        with suppress(FileNotFoundError):
            memory.unlink()


class RingWriter:
    """The generator's side of a ring that the window created."""

    def __init__(self, plan: RingPlan) -> None:
        self.plan = plan
        self._memory = SharedMemory(plan.name)  # spawned children share the owner's resource tracker
        self._views = _slots(self._memory, plan)

    def read_picture(self, slot: int) -> Pixels:
        """A copy of frame 0 of the slot, uint8 (Y, X, 3)."""
        picture: Pixels = self._views[slot][0].copy()
        return picture

    def write(self, slot: int, frames: Pixels) -> int:
        """Put frames (T, Y, X, 3) into the slot and return T."""
        assert frames.shape[1:] == self.plan.shape[1:], f"{frames.shape} does not fit {self.plan.shape}"
        self._views[slot][: len(frames)] = frames
        return len(frames)

    def close(self) -> None:
        """Unmap; the owner removes the memory."""
        self._views = []
        with suppress(BufferError):
            self._memory.close()
