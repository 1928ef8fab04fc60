"""The messages between the window process and the generator process, with a version number.

The window sends requests (Load, Reset, Step, SaveState, LoadState, Rewind, Lighten, Stop) and never waits; the
generator sends replies (Progress, Ready, Frames, Saved, Loaded, Failed, Stopped). Every message is small, so that
sending one cannot block on a full pipe: pictures and frames cross in the ring, states cross in files. `epoch` counts
resets and jumps (LoadState, Rewind); replies of an older epoch are stale and are dropped.

Does not know how messages travel, what a frame shows or who reads a reply.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controls.action import Action, ActionSpec

PROTOCOL_VERSION = 5


@dataclass(frozen=True)
class RingPlan:
    """Where the frames cross: shared memory `name`, `slots` slots of `frames` frames of `height` x `width` x 3."""

    name: str
    slots: int
    frames: int
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(frames, Y, X, 3) of one slot."""
        return (self.frames, self.height, self.width, 3)


@dataclass(frozen=True)
class Load:
    """Open a World: `weights` is a folder, `log` the file that gets tracebacks (None: nowhere), `nfe` network calls
    make a latent frame, `history_mb` may be kept for going back (see `app.history`), `parallel` processes share the
    network (0: as many as torchrun started). `light`: without fine detail.
    """

    weights: Path
    backend: str = "auto"
    threads: int = 2
    log: Path | None = None
    nfe: int = 1
    history_mb: float = 192.0
    parallel: int = 0
    light: bool = False
    version: int = PROTOCOL_VERSION


@dataclass(frozen=True)
class Reset:
    """Start from the picture that lies in frame 0 of ring slot `slot`; the first video frame replaces it there."""

    epoch: int
    slot: int
    seed: int
    ring: RingPlan


@dataclass(frozen=True)
class Step:
    """Generate latent frame `index` (1 or more) into ring slot `slot`."""

    epoch: int
    index: int
    slot: int
    action: Action


@dataclass(frozen=True)
class SaveState:
    """Write the World's state to the file `path`, with the names of what is being played.

    `quick`: an automatic state, which need not outlive the machine: not forced to the disk.
    """

    path: Path
    scene: str = ""
    title: str = ""
    seed: int = 0
    quick: bool = False


@dataclass(frozen=True)
class LoadState:
    """Read the World's state from the file `path`; replies to it carry the new `epoch` and lie in `ring`."""

    epoch: int
    path: Path
    ring: RingPlan


@dataclass(frozen=True)
class Rewind:
    """Stand again where latent frame `index` had just been generated; replies carry the new `epoch`."""

    epoch: int
    index: int


@dataclass(frozen=True)
class Lighten:
    """Leave fine detail out from the next step on, or no longer."""

    light: bool


@dataclass(frozen=True)
class Stop:
    """Leave."""


@dataclass(frozen=True)
class Progress:
    """Loading has come to `fraction` (0 to 1) and is at `stage` (words for the player)."""

    fraction: float
    stage: str


@dataclass(frozen=True)
class Ready:
    """The World is open: `size` (X, Y) and `fps` of the video, the action layout, and what runs it."""

    spec: ActionSpec
    size: tuple[int, int]
    fps: float
    info: dict[str, Any] = field(default_factory=dict)
    version: int = PROTOCOL_VERSION


@dataclass(frozen=True)
class Frames:
    """`count` video frames of latent frame `index` lie in ring slot `slot`; times in ms, memory in MB.

    `Rewind` reaches back to latent frame `oldest`, for which `history_mb` are kept. `cache`: latent frames in the KV
    cache, and how many it can hold.
    """

    epoch: int
    index: int
    slot: int
    count: int
    step_ms: float
    decode_ms: float
    peak_rss_mb: float
    oldest: int = 0
    history_mb: float = 0.0
    cache: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Saved:
    """The state is in the file `path`."""

    path: Path


@dataclass(frozen=True)
class Loaded:
    """The state of latent frame `index` is in place: after a refused jump (`Failed` came first) the old one."""

    epoch: int
    index: int
    oldest: int = 0


@dataclass(frozen=True)
class Failed:
    """A sentence for the player. `fatal`: the generator process is gone or must be started again.

    `path` is the file that could not be saved, if that is what failed.
    """

    message: str
    fatal: bool = True
    path: Path | None = None


@dataclass(frozen=True)
class Stopped:
    """The generator left because it was asked to."""

    peak_rss_mb: float


Request = Reset | Step | SaveState | LoadState | Rewind | Lighten | Stop
Reply = Progress | Ready | Frames | Saved | Loaded | Failed | Stopped
