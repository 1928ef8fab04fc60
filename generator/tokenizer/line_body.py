"""Line body: a body in a place whose lines are known: walls at any angle, stairs, low ceilings.

Shape key: n poses, L lines, C cells a side, T ticks.
A relief in cells (body.py) knows walls along two axes and floors to four map units. Where the map itself is known, a
body is held to its lines instead, as the engine holds its own: it stands on the highest floor that it touches, goes
along a line with the part of its step that points along it, steps up by CLIMB at most, bumps its head, and its eye
follows a step up, or a hard landing, within some ticks. What keys add to its speed is found from recordings, as for
any body; how near recorded walks it comes: LOG.md. Runs compiled on a processor (line_steps.py).
After the Doom family of engines (Romero et al. 1993; ZDoom: P_CheckPosition, P_SlideMove, P_ZMovement, P_CalcHeight),
whose rules were read there; the code is ours.

Does not know of networks, pictures or how lines were read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from generator.tokenizer import devices
from generator.tokenizer.body import (
    ASTRAY,
    CLIMB,
    CORNERS,
    NOWHERE,
    RADIUS,
    SLOWEST,
    STEEPEST,
    TICKS,
    TOUCH,
    WEARY,
    Body,
    in_parts,
    slid,
    turned,
)
from generator.tokenizer.devices import arrays, constant
from generator.tokenizer.place_map import FINEST

if TYPE_CHECKING:
    from generator.tokenizer.place import Place

STATE = 9  # speed east and north, how much the eye would rise if it lagged no more, upward speed, how far the eye has
# sunk below where it belongs and by how much it recovers in the next tick, whether the last tick ended in the air,
# whether the speed is known (see body.STATE), and for how many ticks keys do not lift
BARRED = 32767  # the floor of what no body gets across, and of where there is none
TALL = 56.0  # map units
GRAVITY, HARD = 1.0, -8.0  # map units a tick each tick; landings that are faster bend the knees
LAG, EASE, DEEPEST = 8.0, 0.25, 0.5  # of the eye: a step is an eighth of what it lacks, more by so much each tick; and
# the share of its stature that it sinks at most
FRESH = 2.0**-16  # of a step of the eye that would be none, though it is as low as it gets
LEEWAY = 1.0  # map units that one may be within something, as poses are rounded, and still be held by it
BLOCK, WITHIN = 128.0, 127.996  # map units: of crossings the engine asks within blocks; what ends one begins another
ANEW = 4096  # positions that are looked at at once


class Lines(NamedTuple):
    """Of all lines their ends (L, 4) x, y, x, y, the higher floor and the lower ceiling beside each (L,), whether it
    has one side (L,); floor and ceiling (C, C) in cells; where (2,) the period's window and blocks begin. Map units, in
    double.
    """

    ends: Tensor
    bottom: Tensor
    top: Tensor
    single: Tensor
    floor: Tensor
    ceiling: Tensor
    window: Tensor
    blocks: Tensor


class LineBody(Body):
    """See the module. For so many keys, in a place of `cells` cells a side, among so many lines.

    The `relief` of a place with lines is the floor itself, in whole map units.
    """

    ceiling: Tensor
    ends: Tensor
    bottom: Tensor
    top: Tensor
    single: Tensor
    window: Tensor
    blocks: Tensor

    def __init__(self, keys: int, cells: int, lines: int) -> None:
        super().__init__(keys, cells)
        whole = {"dtype": torch.int16}
        self.register_buffer("relief", torch.full((cells, cells), BARRED, **whole))
        self.register_buffer("ceiling", torch.full((cells, cells), BARRED, **whole))
        self.register_buffer("ends", torch.zeros(lines, 4, **whole))
        self.register_buffer("bottom", torch.zeros(lines, **whole))
        self.register_buffer("top", torch.full((lines,), BARRED, **whole))
        self.register_buffer("single", torch.zeros(lines, dtype=torch.uint8))
        self.register_buffer("window", torch.zeros(2))
        self.register_buffer("blocks", torch.zeros(2))

    @property
    def remembered(self) -> int:
        """How many numbers its state has."""
        return STATE

    def drawn(self) -> Lines:
        """What holds it, as numbers to reckon with; made once."""
        made: Lines | None = self.__dict__.get("_made")
        if made is None or made.ends.device != self.relief.device:
            parts = (self.ends, self.bottom, self.top, self.single, self.relief, self.ceiling, self.window, self.blocks)
            made = self.__dict__["_made"] = Lines(*(part.double() for part in parts))
        return made

    def standing(self, place: Place, plan: Tensor) -> Tensor:
        """The eye's height (...) of one who stands at plan positions (..., 2); NOWHERE where nobody can."""
        flat = plan.reshape(-1, 2)
        if devices.at_hand(flat):
            from generator.tokenizer import line_steps

            own = arrays(*self.drawn())
            floor = torch.from_numpy(line_steps.stood_on(flat.double().numpy(), own, place.period, FINEST))
        else:
            parts = [self._stood(place, part.double()) for part in flat.split(ANEW)]
            floor = torch.cat(parts) if parts else flat.new_zeros(0)
        made: Tensor = torch.where(floor < NOWHERE, floor + self.stature.to(floor), floor).float()
        return made.view(plan.shape[:-1])

    def _stood(self, place: Place, plan: Tensor) -> Tensor:
        """As `standing`, of positions (n, 2) in double: the floor itself."""
        floor, ceiling = self._room(place, plan, RADIUS, None)
        return torch.where((floor < BARRED) & (ceiling - floor >= TALL), floor, NOWHERE)

    def walk_of_steps(self, place: Place, given: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """As `walk_of_tensors`, on a processor (line_steps.py)."""
        from generator.tokenizer import line_steps  # brings a compiler along, which a menu need not wait for

        pose, look, pushes, lifts, state = (part.detach() for part in given)
        end, after = pose.clone(), state.clone()
        moves = pose.new_empty(*look.shape[:2], 3)
        numbers = np.array([*self.carry.tolist(), float(self.stature), place.period, FINEST])
        line_steps.walk_all(
            end.numpy(), after.numpy(), *arrays(look, pushes, lifts), numbers, arrays(*self.drawn()), moves.numpy()
        )
        return end, moves, after

    def walk_of_kernel(self, place: Place, given: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """As `walk_of_tensors`: there is no kernel for lines yet."""
        return self.walk_of_tensors(place, given)

    def walk_of_tensors(self, place: Place, given: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """As `walk`, of poses, look, pushes (n, ticks, 2, 2), lifts (n, ticks) and state, on any device."""
        kind, (pose, look, pushes, lifts, state) = given[0].dtype, (part.double() for part in given)
        plan, yaw, height, made = pose[:, :2], pose[:, 2], pose[:, 4], []
        rise, fall, sunk, mend, flew, known, weary = state[:, 2:].unbind(-1)
        speed = torch.lerp(self._usual(pushes[:, 0, 0], yaw + look[:, 0, 0]), state[:, :2], known[:, None])
        stature, carry = self.stature.double(), self.carry.double()
        feet = height + rise - stature
        for tick in range(look.shape[1]):
            yaw = yaw + look[:, tick, 0]
            way = torch.deg2rad(yaw)
            turn = (way.cos(), way.sin())
            sunk, mend = eased(sunk, mend, stature)
            old, _ = self.under(place, plan, feet)
            feet = torch.where((feet - old).abs() < TOUCH, old, feet)
            eye, flies = feet + stature - sunk, feet > old
            pushed = torch.where(flies[:, None], pushes[:, tick, 1], pushes[:, tick, 0])
            step = speed * torch.where(flew > 0, carry[1], carry[0])[:, None] + turned(pushed, *turn)
            lifted = (lifts[:, tick] > 0) & ~flies & (weary <= 0)
            fall = torch.where(lifted, lifts[:, tick], fall)
            weary = torch.where(lifted, float(WEARY), (weary - 1).clamp(min=0.0))
            after, speed = self.go(place, plan, step, feet)
            floor, ceiling = self.under(place, after, feet)
            flew = (feet > floor).double()
            sunk = sunk + (floor - feet).clamp(min=0.0)
            mend = torch.where(feet < floor, sunk / LAG, mend)
            feet = torch.maximum(feet, floor)
            ledge = (fall == 0) & (old > floor) & (feet == old)
            feet = feet + fall
            fall = fall - GRAVITY * (feet > floor) * (1 + ledge.double())
            mend = torch.where((feet <= floor) & (fall < HARD), fall / LAG, mend)
            fall = torch.where(feet <= floor, fall.clamp(min=0.0), fall)
            feet = torch.maximum(feet, floor)
            fall = torch.where(feet + TALL > ceiling, fall.clamp(max=0.0), fall)
            feet = torch.maximum(torch.minimum(feet, ceiling - TALL), floor)
            rests = (pushed == 0).all(-1) & (speed.abs().amax(-1) < SLOWEST) & (flew == 0)
            speed = speed.masked_fill(rests[:, None], 0.0)
            made.append(torch.cat([turned(after - plan, *turn), (eye - height)[:, None]], dim=-1))
            plan, height = torch.remainder(after, place.period), eye
        pitch = (pose[:, 3] + look[..., 1].sum(1)).clamp(-STEEPEST, STEEPEST)
        end = torch.stack([*plan.unbind(-1), torch.remainder(yaw, 360.0), pitch, height], dim=-1)
        rise = feet + stature - height
        state = torch.stack([*speed.unbind(-1), rise, fall, sunk, mend, flew, torch.ones_like(rise), weary], dim=-1)
        return end.to(kind), torch.stack(made, dim=1).to(kind), state.to(kind)

    def corrected(self, place: Place, state: Tensor, there: Tensor, here: Tensor) -> Tensor:
        """The state (n, STATE) of one who was taken to be at pose `there` (n, 5) after a latent frame and is `here`:
        see `Body.corrected`. On the ground it is the eye alone that is higher or lower.
        """
        off = place.apart(here, there).to(state)
        known = (off.norm(dim=-1) < ASTRAY).to(state)[:, None]
        kept = torch.stack([self.carry[0] ** k for k in range(1, TICKS + 1)])
        speed = state[:, :2] + off * (kept[-1] / kept.sum()).to(state)
        higher = (here[:, 4] - there[:, 4]).to(state)
        rise, fall, sunk, mend, flew = state[:, 2:7].unbind(-1)
        air = flew > 0
        rise = torch.where(air, rise + higher / TICKS, rise - higher)
        fall = torch.where(air, fall + higher / TICKS, fall)
        sunk = torch.where(air, sunk, (sunk - higher).clamp(min=0.0))
        rest = torch.stack([rise, fall, sunk, mend, flew], dim=-1)
        return torch.cat([speed, rest, state[:, 7:]], dim=-1) * known

    def under(self, place: Place, plan: Tensor, feet: Tensor) -> tuple[Tensor, Tensor]:
        """Floor and ceiling (n,) of one whose feet are at plan positions (n, 2) and so high; what one could not step on
        counts for nothing, as one may have begun within it.
        """
        floor, ceiling = self._room(place, plan, RADIUS, feet + CLIMB)
        return torch.where(floor <= feet + CLIMB, floor, feet), ceiling

    def fits(self, place: Place, plan: Tensor, feet: Tensor, radius: float = RADIUS) -> Tensor:
        """bool (n,): whether a body of this radius could go on to plan positions (n, 2) with its feet so high."""
        floor, ceiling = self._room(place, plan, radius, None)
        return (ceiling - torch.maximum(floor, feet) >= TALL) & (floor - feet <= CLIMB)

    def _room(self, place: Place, plan: Tensor, radius: float, most: Tensor | None) -> tuple[Tensor, Tensor]:
        """The highest floor and lowest ceiling (n,) that a body at plan positions (n, 2) touches, where floors are no
        higher than `most` (n,), if that is given.
        """
        drawn = self.drawn()
        where = within(plan, drawn, place.period)
        touched = touches(drawn.ends, where, radius)
        cell = ((where - drawn.window) / FINEST).long().clamp(0, len(drawn.floor) - 1)
        floor, ceiling = (part[cell[:, 1], cell[:, 0]] for part in (drawn.floor, drawn.ceiling))
        if most is not None:
            touched = touched & (drawn.bottom <= most[:, None])
        if drawn.ends.shape[0]:
            floor = torch.maximum(floor, torch.where(touched, drawn.bottom, -NOWHERE).amax(1))
            ceiling = torch.minimum(ceiling, torch.where(touched, drawn.top, NOWHERE).amin(1))
        return floor, ceiling

    def go(self, place: Place, plan: Tensor, step: Tensor, feet: Tensor) -> tuple[Tensor, Tensor]:
        """Where a step (n, 2) from plan positions (n, 2) ends, and the speed (n, 2) that is left of it, with feet at a
        height (n,). What is inside of something already may leave it.
        """
        free = ~self.fits(place, plan, feet, RADIUS - LEEWAY)

        def fits(where: Tensor) -> Tensor:
            return free | self.fits(place, where, feet)

        def meet(plan: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
            share, line = self._first(place, plan, step, feet)
            return share, along(step, self.drawn().ends[line])

        return in_parts(plan, step, lambda plan, part: slid(plan, part, fits, meet))

    def _first(self, place: Place, plan: Tensor, step: Tensor, feet: Tensor) -> tuple[Tensor, Tensor]:
        """The share (n,) of a step (n, 2) after which one of the three corners that go ahead crosses a line on which
        the body cannot stand, 1 if none does, and which line (n,) that is.
        """
        drawn = self.drawn()
        x0, y0, x1, y1 = drawn.ends.T
        dx, dy = x1 - x0, y1 - y0
        where = within(plan, drawn, place.period)
        passes = (drawn.top - torch.maximum(drawn.bottom, feet[:, None]) >= TALL) & (
            drawn.bottom - feet[:, None] <= CLIMB
        )
        passes = torch.where(drawn.single > 0, behind(drawn.ends, where), passes)  # (n, L)
        corners = constant(CORNERS, plan.device, torch.float64) * torch.where(step > 0, RADIUS, -RADIUS)[:, None]
        corner = (where[:, None] + corners).flatten(0, 1)  # (3 n, 2)
        end = corner + step.repeat_interleave(len(CORNERS), 0)
        crosses = behind(drawn.ends, corner) != behind(drawn.ends, end)
        across = step.repeat_interleave(len(CORNERS), 0)
        rate = across[:, :1] * dy - across[:, 1:] * dx
        share = ((x0 - corner[:, :1]) * dy + (corner[:, 1:] - y0) * dx) / torch.where(rate == 0, 1.0, rate)
        near = beside(drawn, corner) | beside(drawn, end)
        meets = crosses & (rate != 0) & (share >= 0) & (share < 1) & near
        meets &= ~passes.repeat_interleave(len(CORNERS), 0)
        share = torch.where(meets, share, 1.0).unflatten(0, (-1, len(CORNERS))).amin(1)  # (n, L)
        return share.min(1)


def within(plan: Tensor, drawn: Lines, period: float) -> Tensor:
    """Plan positions (n, 2) where the lines are: within the period that begins at their window."""
    return drawn.window + torch.remainder(plan - drawn.window, period)


def behind(ends: Tensor, where: Tensor) -> Tensor:
    """bool (n, L): which lines (L, 4) positions (n, 2) are behind, on their left; the engine reckons this in whole
    numbers, so that nearer than 1 / length of a line one is still before it.
    """
    x0, y0, x1, y1 = ends.T
    return ((where[:, 1:] - y0) * (x1 - x0) + (x0 - where[:, :1]) * (y1 - y0)).floor() > 0


def touches(ends: Tensor, where: Tensor, radius: float) -> Tensor:
    """bool (n, L): which lines (L, 4) go through the squares of that radius around positions (n, 2)."""
    x0, y0, x1, y1 = ends.T
    x, y = where[:, :1], where[:, 1:]
    near = (x + radius > torch.minimum(x0, x1)) & (x - radius < torch.maximum(x0, x1))
    near &= (y + radius > torch.minimum(y0, y1)) & (y - radius < torch.maximum(y0, y1))
    slope = (x1 - x0) * (y1 - y0)
    aside = torch.where(slope > 0, -radius, radius)  # the corners that such a line parts
    first = ((y + radius - y0) * (x1 - x0) + (x0 - x - aside) * (y1 - y0)).floor() > 0
    last = ((y - radius - y0) * (x1 - x0) + (x0 - x + aside) * (y1 - y0)).floor() > 0
    return near & ((slope == 0) | (first != last))


def beside(drawn: Lines, where: Tensor) -> Tensor:
    """bool (n, L): which lines cross the block of the plan that positions (n, 2) lie in."""
    low = (drawn.blocks + ((where - drawn.blocks) / BLOCK).floor() * BLOCK)[:, None]  # (n, 1, 2)
    first, way = drawn.ends[:, :2], drawn.ends[:, 2:] - drawn.ends[:, :2]
    flat = way == 0
    over = torch.where(flat, 1.0, way)
    one, two = (low - first) / over, (low + WITHIN - first) / over
    outside = flat & ((first < low) | (first > low + WITHIN))
    enter = torch.where(flat, 0.0, torch.minimum(one, two)).amax(-1).clamp(min=0.0)
    leave = torch.where(flat, 1.0, torch.maximum(one, two)).amin(-1).clamp(max=1.0)
    return (enter <= leave) & ~outside.any(-1)


def along(step: Tensor, ends: Tensor) -> Tensor:
    """What of steps (n, 2) points along lines (n, 4)."""
    way = ends[:, 2:] - ends[:, :2]
    length = way.square().sum(-1, keepdim=True)
    return way * ((step * way).sum(-1, keepdim=True) / torch.where(length > 0, length, 1.0))


def eased(sunk: Tensor, mend: Tensor, stature: Tensor) -> tuple[Tensor, Tensor]:
    """How far (n,) an eye is sunk a tick later, and by how much it recovers in the next one."""
    mend = torch.where((mend == 0) & (sunk > 0), sunk / LAG, mend)
    sunk = sunk - mend
    mend = torch.where(sunk < 0, 0.0, mend)
    deep = sunk > DEEPEST * stature
    mend = torch.where(deep & (mend <= 0), FRESH, mend)
    sunk = torch.minimum(sunk.clamp(min=0.0), DEEPEST * stature)
    more = mend + EASE
    return sunk, torch.where(mend == 0, 0.0, torch.where(more == 0, FRESH, more))
