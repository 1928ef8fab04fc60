"""A visitor: strolls through a world that is one place as one does who sees where one goes, and turns at walls.

The plain stroll (controls/replay.py) is blind: where walls stop a walk it would look at one for minutes, in a game as
here, and say nothing of the world. This one asks the ground and the map of the place. And it looks level again after
looking up or down, as recorded walks do: while it turns away from a wall the stroll's own waves go on without it, and
what is left of them would add up to the sky or the floor within a minute.

Does not know about pictures or what is measured.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from controls.action import Action, ActionSpec
from controls.replay import stroll
from controls.sampler import quantise_look
from generator.tokenizer.place import Place

AHEAD = (32.0, 64.0, 96.0, 128.0)  # map units that are to be free
BESIDE = (-12.0, 0.0, 12.0)  # degrees about the heading in which they are
LOOKS = (30.0, 60.0, 90.0, 135.0)  # degrees to either side in which a way out is looked for
TURN = 4.0  # degrees a tick while turning away
STUCK = 3  # latent frames of walking that led nowhere: something is there that only the feet find
MOVED = 2.0  # map units that lead somewhere
LOST = 6  # latent frames of turning away from that: a quarter turn and a little
ROUND, BOLD = 27, 4  # latent frames of turning that have shown no way out (more than a whole turn), and of a leap then
LEVELS = 0.05  # of the pitch that is left, undone in each latent frame


class Visitor:
    """Plays a world whose `pose` says where one is; without a pose it is the plain stroll."""

    def __init__(self, world: Any, place: Place, spec: ActionSpec, seed: int) -> None:
        self.world, self.place, self.spec, self.seed = world, place, spec, seed
        self.frame_index, self.side, self.pitch = 0, 0.0, 0.0
        self.stuck, self.lost, self.turned = 0, 0, 0
        self.before: tuple[float, float] | None = None  # where the last action was taken, if it walked

    def next(self) -> Action:
        """The next latent frame's action."""
        self.frame_index += 1
        pose = getattr(self.world, "pose", None)
        if pose is None:
            return stroll(self.spec, self.seed, self.frame_index)
        self._feel(pose)
        if self.lost == 0 and self._free(pose, BESIDE):
            self.side, self.turned, action = 0.0, 0, stroll(self.spec, self.seed, self.frame_index)
            walks = action.keys[:, self.spec.keys.index("forward")].any()
            self.before = (pose[0], pose[1]) if walks else None
        elif self.turned < ROUND:
            self.lost, self.before, self.turned = max(0, self.lost - 1), None, self.turned + 1
            self.side = self.side or self._way_out(pose)
            action = Action.hold(self.spec, yaw=self.side * TURN)
        else:  # on a ledge, say, about which all is too high or too low
            self.turned = self.turned + 1 if self.turned < ROUND + BOLD - 1 else 0
            action = Action.hold(self.spec, *(key for key in ("forward", "jump") if key in self.spec.keys))
        return self._level(action)

    def _feel(self, pose: tuple[float, float, float]) -> None:
        """Notice that walking leads nowhere, though all that is looked at is free: a corner between, say."""
        if self.before is None or math.hypot(pose[0] - self.before[0], pose[1] - self.before[1]) > MOVED:
            self.stuck = 0
            return
        self.stuck += 1
        if self.stuck >= STUCK:
            self.stuck, self.lost = 0, LOST

    def _level(self, action: Action) -> Action:
        """The same, looking a little more level."""
        look = action.look.copy()
        look[:, 1] -= LEVELS * self.pitch / len(look)
        look = quantise_look(look, self.spec.max_look)
        self.pitch += float(look[:, 1].sum())
        return Action(action.keys, look)

    def _free(self, pose: tuple[float, float, float], turns: tuple[float, ...]) -> bool:
        far = torch.tensor(AHEAD)[:, None]
        way = torch.deg2rad(pose[2] + torch.tensor(turns))[None]
        plan = torch.stack([pose[0] + far * way.cos(), pose[1] - far * way.sin()], dim=-1)
        return bool(self.place.walkable(plan).all())

    def _way_out(self, pose: tuple[float, float, float]) -> float:
        """The side, 1 right or -1 left, on which the next free heading lies; either in turn where none does."""
        for turn in LOOKS:
            for side in (1.0, -1.0):
                if self._free(pose, (side * turn,)):
                    return side
        return math.copysign(1.0, math.sin(self.frame_index))
