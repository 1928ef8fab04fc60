"""Body: how keys carry a camera through a mapped place: what it keeps of its speed, what keys add, and what stops it.

Shape key: n poses, K keys, F = K + K (K - 1) / 2 keys and pairs of them, C cells a side.
A pose is x, y in map units, yaw and pitch in degrees, and the eye's height in map units. Speeds are map units a tick.
A walker is given a share of the last tick's speed and a push of the keys, both by whether it stands or flies; which
shares and pushes is found from recordings by least squares (training/body_learning.py), and for engines that work this
way they are found to four digits. What it may stand on is a relief of the place in cells of FINEST map units, the true
one or one made of the map's blocks and of where recorded walks stood: a body as wide as RADIUS stands on the highest
cell below it, steps up by CLIMB at most, and slides along whatever is higher. Recorded cameras follow a body's height
one tick late. What is written here with tensors runs compiled on a processor (body_steps.py) and on a GPU
(body_kernel.py).
Ours; radius, climb and slides are those of the Doom family of engines, quirks included: a body stops a 32nd of its step
short of a wall, is held up by lines that its corners only cross the extension of, and slips past those that it is too
near to (Romero et al. 1993, P_SlideMove, as in ZDoom; what that does was read there, and held to recordings).

Does not know of networks, pictures or how a pose was found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from generator.tokenizer import devices
from generator.tokenizer.devices import arrays, constant
from generator.tokenizer.place_map import FINEST

if TYPE_CHECKING:
    from generator.tokenizer.place import Place

STATE = 7  # speed east and north, how much the eye rises next, whether the last tick began and ended in the air,
# whether the speed is known: at first it is taken to be that of one who has held the same keys for long; and for how
# many ticks keys do not lift
RADIUS, CLIMB = 16.0, 24.0  # map units
UNKNOWN, HIGHEST = 255, 254  # of the relief, in map units above where it begins
NOWHERE = 1e6  # map units: higher than anything one could stand on
TOUCH = 0.5  # map units above what it stands on at which a body flies
FARTHEST, PARTS = RADIUS - 1, 3  # map units of a step either way that is made at once, and at most so many such parts
SPARE = 1 / 32  # of a part that stops so much short of what is in its way
LINES = int(FARTHEST / FINEST) + 1  # edges of cells that a part of a step may cross, either way
SLIDES = 2  # of a part, before it goes along one axis or not at all
CORNERS = ((1.0, 1.0), (-1.0, 1.0), (1.0, -1.0))  # of a body, as its step goes: the foremost, and those beside it
FRONT = (1.0, -1.0)  # which way the fronts of lines look that begin columns, and rows
BLOCK = 32  # cells: a corner that crosses a line's extension within the same block is stopped, too
WEARY = 22  # ticks after a lift in which there is no other: in recordings there were 4 of 170 asked for
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
    low: Tensor

    def __init__(self, keys: int, cells: int) -> None:
        super().__init__()
        self.keys = keys
        self.register_buffer("relief", torch.full((cells, cells), UNKNOWN, dtype=torch.uint8))
        self.register_buffer("carry", torch.tensor([0.9, 1.0]))  # share of the speed kept after standing, after flying
        self.register_buffer("push", torch.zeros(4 * pairs_of(keys)))  # (standing or flying, forward or right, F)
        self.register_buffer("lift", torch.zeros(keys))  # map units that the eye rises a tick after a key on the ground
        self.register_buffer("fall", torch.tensor([1.0, -1.0, 1.0, -1.0]))  # of the rise: where it began, later
        self.register_buffer("stature", torch.zeros(()))  # of the eye above what one stands on
        self.register_buffer("low", torch.zeros(()))  # map units from the map's lowest level to where the relief begins
        self.register_load_state_dict_post_hook(_changed)

    @property
    def remembered(self) -> int:
        """How many numbers its state has."""
        return STATE

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Body:
        """Goes where other modules go, but stays in float32: speeds add up."""
        return super()._apply(lambda tensor: tensor.to(fn(tensor).device), recurse)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """As any module's; reliefs once all began at the map's lowest level."""
        state_dict = {prefix + "low": torch.zeros(()), **state_dict}
        super()._load_from_state_dict(state_dict, prefix, *rest)  # type: ignore[arg-type]

    def standing(self, place: Place, plan: Tensor) -> Tensor:
        """The eye's height (...) of one who stands at plan positions (..., 2); NOWHERE where nobody can."""
        side = len(self.relief)
        column, row = (torch.remainder(plan, place.period) / FINEST).long().clamp(0, side - 1).unbind(-1)
        return self.levels(place)[row, column]

    def levels(self, place: Place) -> Tensor:
        """The eye's height (C, C) of one who stands in each cell, on the highest within RADIUS of it."""
        return self._heights(place)[0]

    def lines(self, place: Place) -> tuple[Tensor, Tensor]:
        """The eye's height of one who stands on the highest line that begins a column, or a row, of cells in a block of
        the place, and how near to it a point counts as being in front of it: (2, blocks, C).
        """
        return self._heights(place)[1:]

    def _heights(self, place: Place) -> tuple[Tensor, Tensor, Tensor]:
        made: tuple[Tensor, Tensor, Tensor] | None = self.__dict__.get("_made")
        if made is None or made[0].device != self.relief.device:
            made = self.__dict__["_made"] = self._heights_of(place)
        return made

    def _heights_of(self, place: Place) -> tuple[Tensor, Tensor, Tensor]:
        assert place.map is not None, "only a place with a map has a relief"
        beside, side = int(RADIUS / FINEST), len(self.relief)
        wide = nnf.pad(self.relief[None, None].float(), (beside,) * 4, mode="circular")
        highest = nnf.max_pool2d(wide, 2 * beside + 1, 1)[0, 0]
        own, lines, thick = self.relief.float(), [], []
        within = BLOCK if side % BLOCK == 0 else 1
        for ground in (own, own.T):
            before = ground.roll(1, 1)
            line = torch.where(ground == before, -NOWHERE, torch.maximum(ground, before))
            most = line.unflatten(0, (-1, within)).amax(1)
            lines.append(most)
            long = runs(ground * 1000 + before) * (line == most.repeat_interleave(within, 0))
            thick.append(1 / (FINEST * long.unflatten(0, (-1, within)).amax(1)))
        shift = place.map.eye.float() + self.stature - place.map.below + self.low
        levels, edges = ((v + shift).masked_fill(v > HIGHEST, NOWHERE) for v in (highest, torch.stack(lines)))
        return levels, edges, torch.stack(thick)

    def changed(self) -> None:
        """The relief is another one."""
        self.__dict__.pop("_made", None)

    def ready(self, place: Place) -> None:
        """Compile what walks need: at the very first start that takes seconds, which would be a gap in a walk."""
        sizes = (5,), (1, 2), (1, self.keys), (self.remembered,)
        given = [torch.zeros(1, *size, device=self.relief.device) for size in sizes]
        self.walk(place, *given)
        self.standing(place, given[0][:, :2])

    def walk(
        self, place: Place, pose: Tensor, look: Tensor, actions: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The pose (n, 5) after look (n, ticks, 2) in degrees and encoded actions (n, ticks, P), the moves
        (n, ticks, 3) forward, right and up in map units that were made, and the state (n, STATE) afterwards.
        """
        keys = actions[..., : self.keys].float()
        given = (
            pose.float(),
            look.to(pose.device).float(),
            self.pushes(keys),
            (keys * self.lift).sum(-1),
            state.float(),
        )
        if devices.at_hand(pose):
            return self.walk_of_steps(place, given)
        if pose.device.type == "cuda" and find_spec("triton"):
            return self.walk_of_kernel(place, given)
        return self.walk_of_tensors(place, given)

    def walk_of_steps(self, place: Place, given: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """As `walk_of_tensors`, on a processor (body_steps.py)."""
        from generator.tokenizer import body_steps  # brings a compiler along, which a menu need not wait for

        pose, look, pushes, lifts, state = (part.detach() for part in given)
        end, after = pose.clone(), state.clone()
        moves = pose.new_empty(*look.shape[:2], 3)
        own = arrays(self.carry, self.fall, self.levels(place), *self.lines(place))
        body_steps.walk_all(
            end.numpy(), after.numpy(), *arrays(look, pushes, lifts), *own, place.period, FINEST, moves.numpy()
        )
        return end, moves, after

    def walk_of_kernel(self, place: Place, given: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """As `walk_of_tensors`, on a GPU (body_kernel.py)."""
        from generator.tokenizer import body_kernel  # triton is there for GPUs only

        numbers = {
            "CLIMB": CLIMB, "TOUCH": TOUCH, "SLOWEST": SLOWEST, "WEARY": WEARY, "FARTHEST": FARTHEST, "PARTS": PARTS,
            "NOWHERE": NOWHERE, "STEEPEST": STEEPEST, "RADIUS": RADIUS, "LINES": LINES, "SLIDES": SLIDES,
            "SPARE": SPARE,
        }  # fmt: skip
        pose, look, pushes, lifts, state = given
        own = (self.carry, self.fall, self.levels(place), *self.lines(place))
        return body_kernel.walk((pose, look, pushes.flatten(2), lifts, state), own, place.period, FINEST, numbers)

    def walk_of_tensors(self, place: Place, given: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """As `walk`, of poses, look, pushes (n, ticks, 2, 2), lifts (n, ticks) and state, on any device."""
        pose, look, pushes, lifts, state = given
        plan, yaw, height = pose[:, :2], pose[:, 2], pose[:, 4]
        (rise, flown, flew, known, weary), made = state[:, 2:].unbind(-1), []
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
            after, speed = self.slide(place, plan, step, eye + CLIMB)
            there = self._under(place, after, eye)
            lifted = torch.where(flies > 0, height + rise, floor)
            slope, bent = (torch.lerp(self.fall[k], self.fall[2 + k], flown) for k in (0, 1))
            lift = lifts[:, tick] * ((flies == 0) & (weary <= 0))
            rise = torch.where(flies > 0, slope * rise + bent, lift)
            weary = torch.where(lift > 0, float(WEARY), (weary - 1).clamp(min=0.0))
            rise, flown, flew = torch.maximum(rise, there - lifted), flies, (eye > there + TOUCH).float()
            rests = (pushed == 0).all(-1) & (speed.abs().amax(-1) < SLOWEST) & (flew == 0)
            speed = speed.masked_fill(rests[:, None], 0.0)
            made.append(torch.cat([turned(after - plan, *turn), (lifted - height)[:, None]], dim=-1))
            plan, height = torch.remainder(after, place.period), lifted
        pitch = (pose[:, 3] + look[..., 1].sum(1)).clamp(-STEEPEST, STEEPEST)
        end = torch.stack([*plan.unbind(-1), torch.remainder(yaw, 360.0), pitch, height], dim=-1)
        state = torch.stack([*speed.unbind(-1), rise, flown, flew, torch.ones_like(rise), weary], dim=-1)
        return end, torch.stack(made, dim=1), state

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
        highest = highest.masked_fill(self.standing(place, plan) > highest, 2 * NOWHERE)
        return in_parts(plan, step, lambda plan, part: self._part(place, plan, part, highest))

    def _part(self, place: Place, plan: Tensor, step: Tensor, highest: Tensor) -> tuple[Tensor, Tensor]:
        """The same for a part of a step, no longer than FARTHEST either way."""

        def fits(where: Tensor) -> Tensor:
            return self.standing(place, where) <= highest

        def meet(plan: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
            share, along = self._met(place, plan, step, highest)
            return share, step * along

        return slid(plan, step, fits, meet)

    def _met(self, place: Place, plan: Tensor, step: Tensor, highest: Tensor) -> tuple[Tensor, Tensor]:
        """The share (n,) of a step (n, 2) from plan positions (n, 2) after which one of the three corners that go ahead
        crosses a line on which the body cannot stand, 1 if none does, and along which axes (n, 2) it may still go on.
        """
        (lines, thick), side = self.lines(place), len(self.relief)
        ahead = torch.where(step > 0, 1.0, -1.0)
        corners = plan[:, None] + ahead[:, None] * constant(CORNERS, plan.device) * RADIUS  # (n, 3, 2)
        first = (corners / FINEST).floor() + (ahead[:, None] > 0)
        number = first[..., None] + ahead[:, None, :, None] * constant(tuple(range(LINES)), plan.device)
        away = (number * FINEST - corners[..., None]) * ahead[:, None, :, None]  # (n, 3, 2, LINES)
        beyond, share = step.abs()[:, None, :, None] - away, away / step.abs()[:, None, :, None]
        behind = (ahead * constant(FRONT, plan.device))[:, None, :, None] < 0  # it comes from the front
        number = torch.remainder(number, side).long()
        within, blocks = side // lines.shape[1], torch.zeros_like(share, dtype=torch.bool)
        for end in (corners, corners + step[:, None]):
            block = torch.remainder((end / FINEST).floor(), side).long().flip(-1) // within
            axis = constant((0, 1), plan.device, torch.int64)[:, None]
            there = axis, block[..., None], number
            told = torch.where(behind, beyond, away) >= thick[there]
            blocks = blocks | (lines[there] > highest[:, None, None, None]) & told
        share = torch.where(blocks & (share >= 0) & (share < 1), share, 1.0).amin((1, 3))  # (n, 2)
        least = share.amin(-1)
        return least, (share > least[:, None]).float()


def in_parts(
    plan: Tensor, step: Tensor, part: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Where steps (n, 2) end that are made in parts, each by itself, and the speed that is left of them: `part` gives
    both of a part from plan positions (n, 2).
    """
    count, speed = ((step.abs().amax(-1) / FARTHEST).floor() + 1).clamp(max=PARTS)[:, None], step
    for number in range(PARTS):
        goes = number < count
        there, left = part(plan, speed / count)
        plan, speed = torch.where(goes, there, plan), torch.where(goes, left * count, speed)
    return plan, speed


def slid(
    plan: Tensor,
    step: Tensor,
    fits: Callable[[Tensor], Tensor],
    meet: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
) -> tuple[Tensor, Tensor]:
    """Where a part of a step (n, 2) from plan positions (n, 2) ends, and what is left of it. `fits` tells where a body
    could be; `meet` gives the share (n,) of a step after which a corner meets something, 1 if none does, and what of
    the whole step points along that (n, 2).

    What a corner meets stops it SPARE short, and what is left of the part goes along the line that was met; if
    that is blocked too, what is left is tried once more as a whole, and then along either axis.
    """
    stopped, left = ~fits(plan + step), step
    plan, slides = torch.where(stopped[:, None], plan, plan + step), stopped
    for _ in range(SLIDES):
        share, along = meet(plan, step)
        touch = plan + step * (share - SPARE).clamp(min=0.0)[:, None]
        slides = slides & (share < 1) & fits(touch)
        plan = torch.where(slides[:, None], touch, plan)
        step = torch.where(slides[:, None], step * (1 - share)[:, None], step)
        rest = along * (1 - share)[:, None]
        left = torch.where(slides[:, None], rest, left)
        goes_on = slides & fits(plan + rest)
        plan, stopped = torch.where(goes_on[:, None], plan + rest, plan), stopped & ~goes_on
        slides = slides & stopped
    for way in constant(((0.0, 1.0), (1.0, 0.0)), plan.device, plan.dtype):
        goes_on = stopped & fits(plan + step * way)
        plan, stopped = torch.where(goes_on[:, None], plan + step * way, plan), stopped & ~goes_on
    return plan, left


def runs(values: Tensor) -> Tensor:
    """How many equal values (R, C) stand below one another where each is, float."""
    other = torch.cat([torch.ones_like(values[:1], dtype=torch.bool), values[1:] != values[:-1]])
    number = other.long().cumsum(0) - 1
    count = torch.zeros_like(values).scatter_add_(0, number, torch.ones_like(values))
    return count.gather(0, number)


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
