"""Body: how keys carry a camera through a mapped place: what it keeps of its speed, what keys add, and what stops it.

Shape key: n poses, K keys, F = K + K (K - 1) / 2 keys and pairs of them, S parts of a step, C cells a side.
A pose is x, y in map units, yaw and pitch in degrees, and the eye's height in map units. Speeds are map units a tick.
A walker is given a share of the last tick's speed and a push of the keys, both by whether it stands or flies; which
shares and pushes is found from recordings by least squares (training/body_learning.py), and for engines that work this
way they are found to four digits. What it may stand on is a relief of the place in cells of FINEST map units, made of
the map's blocks and of where recorded walks stood: a body as wide as RADIUS stands on the highest cell below it, steps
up by CLIMB at most, and slides along whatever is higher. Recorded cameras follow a body's height one tick late.
Ours; radius, climb and slides are those of the Doom family of engines (Romero et al. 1993, P_XYMovement).

Does not know of networks, pictures or how a pose was found.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from generator.tokenizer import devices
from generator.tokenizer.devices import constant
from generator.tokenizer.place_map import BELOW, FINEST

if TYPE_CHECKING:
    from generator.tokenizer.place import Place

STATE = 6  # speed east and north, how much the eye rises next, whether the last tick began and ended in the air, and
# whether the speed is known: at first it is taken to be that of one who has held the same keys for long
RADIUS, CLIMB = 16.0, 24.0  # map units
UNKNOWN, HIGHEST = 255, 254  # of the relief, in map units above the map's lowest level
NOWHERE = 1e6  # map units: higher than anything one could stand on
TOUCH = 0.5  # map units above what it stands on at which a body flies
FARTHEST = RADIUS - 1  # map units of a step up to which only its end has to be free, farther also its middle
SPARE = 1 / 32  # of a step that stops so much short of what is in its way
PROBE = 0.6  # map units that tell which side that is on
PARTS, SLIDES = 32, 3  # of a step that are tried, and how often one slides within it
TICKS, ASTRAY = 4, 80.0  # of a latent frame; map units that one may be off after it and still be where one was thought
STEEPEST = 60.0  # degrees of pitch
SLOWEST = 1 / 16  # speed below which a body without a push stands


class Body(nn.Module):
    """See the module. For so many keys, in a place of `cells` cells a side."""

    relief: Tensor
    carry: Tensor
    push: Tensor
    lift: Tensor
    fall: Tensor
    stature: Tensor

    def __init__(self, keys: int, cells: int) -> None:
        super().__init__()
        self.keys = keys
        self.register_buffer("relief", torch.full((cells, cells), UNKNOWN, dtype=torch.uint8))
        self.register_buffer("carry", torch.tensor([0.9, 1.0]))  # share of the speed kept after standing, after flying
        self.register_buffer("push", torch.zeros(4 * pairs_of(keys)))  # (standing or flying, forward or right, F)
        self.register_buffer("lift", torch.zeros(keys))  # map units that the eye rises a tick after a key on the ground
        self.register_buffer("fall", torch.tensor([1.0, -1.0, 1.0, -1.0]))  # of the rise: where it began, later
        self.register_buffer("stature", torch.zeros(()))  # of the eye above what one stands on
        self.register_load_state_dict_post_hook(_changed)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Body:
        """Goes where other modules go, but stays in float32: speeds add up."""
        return super()._apply(lambda tensor: tensor.to(fn(tensor).device), recurse)

    def standing(self, place: Place, plan: Tensor) -> Tensor:
        """The eye's height (...) of one who stands at plan positions (..., 2); NOWHERE where nobody can."""
        side = len(self.relief)
        column, row = (torch.remainder(plan, place.period) / FINEST).long().clamp(0, side - 1).unbind(-1)
        return self.levels(place)[row, column]

    def levels(self, place: Place) -> Tensor:
        """The eye's height (C, C) of one who stands in each cell, on the highest within RADIUS of it."""
        made: Tensor | None = self.__dict__.get("_levels")
        if made is None or made.device != self.relief.device:
            made = self.__dict__["_levels"] = self._levels_of(place)
        return made

    def _levels_of(self, place: Place) -> Tensor:
        assert place.map is not None, "only a place with a map has a relief"
        beside = int(RADIUS / FINEST)
        relief = nnf.pad(self.relief[None, None].float(), (beside,) * 4, mode="circular")
        highest = nnf.max_pool2d(relief, 2 * beside + 1, 1)[0, 0]
        eye = highest - BELOW + place.map.eye.float() + self.stature
        return eye.masked_fill(highest > HIGHEST, NOWHERE)

    def changed(self) -> None:
        """The relief is another one."""
        self.__dict__.pop("_levels", None)

    def walk(
        self, place: Place, pose: Tensor, look: Tensor, actions: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The pose (n, 5) after look (n, ticks, 2) in degrees and encoded actions (n, ticks, P), the moves
        (n, ticks, 3) forward, right and up in map units that were made, and the state (n, STATE) afterwards.
        """
        pose, state = pose.float(), state.float()
        plan, yaw, height = pose[:, :2], pose[:, 2], pose[:, 4]
        (rise, flown, flew, known), made = state[:, 2:].unbind(-1), []
        keys = actions[..., : self.keys].float()
        pushes = self.pushes(keys)  # (n, ticks, 2, 2)
        lifts, look = (keys * self.lift).sum(-1), look.to(plan)
        speed = torch.lerp(self._usual(pushes[:, 0, 0], yaw + look[:, 0, 0]), state[:, :2], known[:, None])
        for tick in range(look.shape[1]):
            yaw = yaw + look[:, tick, 0]
            way = torch.deg2rad(yaw)
            turn = (way.cos(), way.sin())
            floor = self._under(place, plan, height)
            flies = (height + rise > floor + TOUCH).float()
            eye = torch.maximum(height + rise, floor)
            pushed = torch.lerp(pushes[:, tick, 0], pushes[:, tick, 1], flies[:, None])
            step = speed * torch.lerp(self.carry[0], self.carry[1], flew)[:, None] + turned(pushed, *turn)
            rests = (pushed == 0).all(-1) & (step.abs().amax(-1) < SLOWEST)
            after, speed = self.slide(place, plan, step.masked_fill(rests[:, None], 0.0), eye + CLIMB)
            there = self._under(place, after, eye)
            lifted = torch.where(flies > 0, height + rise, floor)
            slope, bent = (torch.lerp(self.fall[k], self.fall[2 + k], flown) for k in (0, 1))
            rise = torch.where(flies > 0, slope * rise + bent, lifts[:, tick])
            rise, flown, flew = torch.maximum(rise, there - lifted), flies, (eye > there + TOUCH).float()
            made.append(torch.cat([turned(after - plan, *turn), (lifted - height)[:, None]], dim=-1))
            plan, height = torch.remainder(after, place.period), lifted
        pitch = (pose[:, 3] + look[..., 1].sum(1)).clamp(-STEEPEST, STEEPEST)
        end = torch.stack([*plan.unbind(-1), torch.remainder(yaw, 360.0), pitch, height], dim=-1)
        return (
            end,
            torch.stack(made, dim=1),
            torch.stack([*speed.unbind(-1), rise, flown, flew, torch.ones_like(rise)], dim=-1),
        )

    def _usual(self, pushed: Tensor, yaw: Tensor) -> Tensor:
        """The speed (n, 2) that the same push (n, 2), forward and right, leads to in the end, before it is made."""
        way = torch.deg2rad(yaw)
        return turned(pushed, way.cos(), way.sin()) / (1 - self.carry[0]).clamp(min=SPARE)

    def corrected(self, place: Place, state: Tensor, there: Tensor, here: Tensor) -> Tensor:
        """The state (n, STATE) of one who was taken to be at pose `there` (n, 5) after a latent frame and is `here`: it
        had another speed before that, and in the air another rise. Of who is elsewhere altogether nothing is known.
        """
        off = place.apart(here, there)
        kept = torch.stack([self.carry[0] ** k for k in range(1, TICKS + 1)])
        known = (off.norm(dim=-1) < ASTRAY).to(state)[:, None]
        speed = state[:, :2] + off.to(state) * (kept[-1] / kept.sum()).to(state)
        rise = state[:, 2:3] + state[:, 3:4] * (here[:, 4:] - there[:, 4:]).to(state) / TICKS
        return torch.cat([speed, rise, state[:, 3:]], dim=-1) * known

    def pushes(self, keys: Tensor) -> Tensor:
        """What keys (..., K) add to the speed of one who stands and of one who flies, forward and right (..., 2, 2)."""
        held = both(keys)[..., None, :]  # no matrix product: within autocast it would be rounded
        return (held * self.push.view(4, -1)).sum(-1).unflatten(-1, (2, 2))

    def _under(self, place: Place, plan: Tensor, height: Tensor) -> Tensor:
        """The eye's height (n,) of one who stands at plan positions (n, 2); as it is for one inside of something."""
        floor = self.standing(place, plan)
        return torch.where(floor > height + CLIMB, height, floor)

    def slide(self, place: Place, plan: Tensor, step: Tensor, highest: Tensor) -> tuple[Tensor, Tensor]:
        """Where a step (n, 2) from plan positions (n, 2) ends, and the speed (n, 2) that is left of it, for a body that
        cannot stand higher than `highest` (n,). What is inside of something already may leave it.
        """
        parts = constant(tuple(k / PARTS for k in range(1, PARTS + 1)), plan.device)
        halves = constant((0.5, 1.0), plan.device)
        sides = constant(((PROBE, 0.0), (0.0, PROBE)), plan.device)
        highest = highest.masked_fill(self.standing(place, plan) > highest, 2 * NOWHERE)[:, None]
        speed = step
        for _ in range(SLIDES):
            ends = plan[:, None] + step[:, None] * halves[:, None]
            far = torch.stack([step.abs().amax(-1) > FARTHEST, torch.ones_like(step[:, 0], dtype=torch.bool)], dim=-1)
            stops = ((self.standing(place, ends) > highest) & far).any(-1)
            if devices.at_hand(plan) and not bool(stops.any()):
                return plan + step, speed
            open_ = self.standing(place, plan[:, None] + step[:, None] * parts[:, None]) <= highest
            share = open_.float().cumprod(-1).sum(-1) / PARTS
            gone = torch.where(stops, (share - SPARE).clamp(min=0.0), 1.0)[:, None]
            touch = plan + step * share[:, None]
            free = self.standing(place, touch[:, None] + step.sign()[:, None] * sides) <= highest
            longer = step.abs() >= step.abs().flip(-1)
            free = free & (
                ~free.flip(-1) | longer & (constant((True, False), plan.device, torch.bool) | ~longer.flip(-1))
            )
            along = step * (1 - gone - SPARE).clamp(min=0.0) * free
            plan = plan + step * gone
            step = along.masked_fill(~stops[:, None], 0.0)
            speed = torch.where(stops[:, None], step, speed)
        return plan, speed


def _changed(body: Body, _: object) -> None:
    """Other values came in; a function of the module, which workers can be given."""
    body.changed()


def turned(way: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Forward and right (..., 2 or more) of a heading as east and north (..., 2), and back: it is its own inverse."""
    return torch.stack([cos * way[..., 0] - sin * way[..., 1], -sin * way[..., 0] - cos * way[..., 1]], dim=-1)


def pairs_of(keys: int) -> int:
    """F of so many keys."""
    return keys + keys * (keys - 1) // 2


def both(keys: Tensor) -> Tensor:
    """Keys (..., K) and which two of them are held at once: (..., F)."""
    first, second = torch.triu_indices(keys.shape[-1], keys.shape[-1], 1, device=keys.device)
    return torch.cat([keys, keys[..., first] * keys[..., second]], dim=-1)
