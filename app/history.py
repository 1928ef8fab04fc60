"""History: a World that remembers the last half minute, so that a player can walk back through it.

Runs in the generator process, around the World. It keeps a *key state* every few latent frames and every action since;
going back loads the key state before the wanted latent frame and replays the actions from there, which gives the very
state that stood there (same weights, backend, seed and actions give the same frames). Nothing crosses the pipe.

What it costs, measured on the pocket world (`World.save_state`): a state has 11.0 MB, 9.8 of them the KV cache, of
which each latent frame changes one slot in twelve (0.8 MB) beside 1.1 MB of decoder memory and pictures. All 180
states of 30 s would take 1,970 MB, as differences still 350. A key state every 12 latent frames takes 188 MB at most,
0.6 to 1.6 ms each to copy, and going back replays up to 11 latent frames, 5.5 on average, each as long as a step of
play (37 ms with OpenVINO on two idle cores, and 18 to decode). Bigger worlds get fewer key states, further apart and
at last reaching less far back: `budget`, in bytes, is the bound.

Does not know about windows, files, processes or who asks.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from app.door import Pixels, WorldLike
from controls.action import Action, ActionSpec
from controls.errors import UserError

State = dict[str, npt.NDArray[Any]]
SECONDS = 30.0
AHEAD = 3  # latent frames that may have been made beyond the one a player sees
LONGEST_REPLAY = 24  # latent frames between two key states at most


@dataclass(frozen=True)
class HistoryPlan:
    """A key state every `every` latent frames, `keep` of them at most."""

    every: int
    keep: int


def plan_history(state_bytes: int, steps: int, budget: int) -> HistoryPlan:
    """How to reach `steps` latent frames back within `budget` bytes of key states (two states where one is larger).

    The more states fit the closer they stand; where even LONGEST_REPLAY apart they do not reach, the reach is shorter.
    """
    fit = max(2, budget // max(1, state_bytes))
    every = min(LONGEST_REPLAY, max(1, ceil(steps / (fit - 1))))
    return HistoryPlan(every, min(fit, ceil(steps / every) + 1))


@dataclass(frozen=True)
class _Key:
    index: int
    state: State
    picture: Pixels

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.state.values()) + self.picture.nbytes


class RememberingWorld:
    """A World with a fifth verb, `rewind`; `first` is the picture it began from, `picture` the newest video frame."""

    def __init__(self, world: WorldLike, seconds: float = SECONDS, budget: int = 192_000_000) -> None:
        self.world = world
        self.spec: ActionSpec = world.spec
        self.size = world.size
        self.fps = world.fps
        self.info = world.info
        self.steps = max(1, round(seconds * world.fps / world.spec.ticks)) + AHEAD
        self.first: Pixels = np.zeros((world.size[1], world.size[0], 3), np.uint8)
        self.picture = self.first
        self._budget = budget
        self._forget()

    def _forget(self) -> None:
        self._keys: deque[_Key] = deque()
        self._actions: deque[Action] = deque()  # those that led to the latent frames after the oldest key state
        self._plan: HistoryPlan | None = None

    @property
    def timings(self) -> dict[str, float]:
        """See `generator.world`."""
        return self.world.timings

    @property
    def frame_index(self) -> int:
        """Latent frames generated since the walk began."""
        return self.world.frame_index

    @property
    def cache_fill(self) -> tuple[int, int]:
        """See `generator.world`."""
        return self.world.cache_fill

    @property
    def oldest(self) -> int:
        """The latent frame furthest back that `rewind` reaches."""
        return self._keys[0].index if self._keys else self.frame_index

    @property
    def began(self) -> bool:
        """Whether there is a walk at all."""
        return bool(self._keys)

    @property
    def nbytes(self) -> int:
        """Bytes held by the key states."""
        return sum(key.nbytes for key in self._keys)

    def reset(self, picture: Pixels, seed: int) -> Pixels:
        """See `generator.world`; what was remembered is forgotten."""
        frames = self.world.reset(picture, seed)
        self.first, self.picture = picture.copy(), frames[-1].copy()
        self._forget()
        self._remember()
        return frames

    def step(self, action: Action) -> Pixels:
        """See `generator.world`."""
        frames = self.world.step(action)
        self.picture = frames[-1].copy()
        self._actions.append(action)
        self._remember()
        return frames

    def _remember(self) -> None:
        index = self.frame_index
        if self._plan is not None and self._keys and index - self._keys[-1].index < self._plan.every:
            return
        key = _Key(index, self.world.save_state(), self.picture)
        if self._plan is None:
            self._plan = plan_history(key.nbytes, self.steps, self._budget)
        self._keys.append(key)
        while len(self._keys) > self._plan.keep:
            gone = self._keys.popleft()
            for _ in range(self._keys[0].index - gone.index):
                self._actions.popleft()

    def lighten(self, light: bool) -> None:
        """See `generator.world`."""
        self.world.lighten(light)

    def save_state(self) -> State:
        """See `generator.world`."""
        return self.world.save_state()

    def load_state(self, state: State) -> None:
        """See `generator.world`; what was remembered of the walk before is forgotten."""
        self.world.load_state(state)
        self._forget()
        self._remember()

    def arrived(self, first: Pixels, picture: Pixels) -> None:
        """After `load_state`: the pictures uint8 (Y, X, 3) of the walk's beginning and of where it stands."""
        self.first, self.picture = first, picture
        self._keys[-1] = _Key(self._keys[-1].index, self._keys[-1].state, picture)

    def rewind(self, index: int) -> None:
        """Stand again where latent frame `index` had just been generated; later ones are forgotten.

        UserError when it lies before `oldest` or has not been generated yet.
        """
        if not self._keys or not self.oldest <= index <= self.frame_index:
            raise UserError(
                f"Latent frame {index} is not remembered; go back to one from {self.oldest} to {self.frame_index}."
            )
        key, oldest = max((k for k in self._keys if k.index <= index), key=lambda k: k.index), self._keys[0].index
        actions = list(self._actions)[: index - oldest]
        self.world.load_state(key.state)
        self.picture = key.picture
        while self._keys[-1] is not key:
            self._keys.pop()
        for action in actions[key.index - oldest :]:
            self.picture = self.world.step(action)[-1].copy()
        self._actions = deque(actions)
        assert self.frame_index == index, f"stands at {self.frame_index}, not {index}"
