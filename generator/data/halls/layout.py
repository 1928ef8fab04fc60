"""Floor plans for *Halls*: a rectangle split into rooms, the doors that join them into loops, and a floor
level for each room.

All in plan cells of 64 units. Everything comes from the generator passed in.
Does not know: textures, sectors, what stands in a room.
"""

from dataclasses import dataclass, field

import numpy as np

STEP = 16


@dataclass(frozen=True)
class Extent:
    """How large a map may be: plan cells across and deep, and rooms, each from the first to below the second."""

    width: tuple[int, int]
    depth: tuple[int, int]
    rooms: tuple[int, int]


EXTENTS = {
    "grand": Extent((42, 56), (38, 50), (11, 21)),
    "small": Extent((27, 34), (25, 31), (5, 9)),  # a house that a small model can come to know
}
OPEN = ("pool", "obelisk", "cloister", "garden", "plaza")
ROOFED = ("nave", "oculus", "gallery", "vault")


@dataclass
class Room:
    """A rectangle [x0, x1) x [y0, y1) of plan cells.

    `kind` says what is built in it, `level` is its floor in units.
    """

    x0: int
    y0: int
    x1: int
    y1: int
    kind: str = ""
    level: int = 0
    family: str = "W"
    height: int = 208
    parapet: int = 48
    doors: list[int] = field(default_factory=list)

    @property
    def width(self) -> int:
        return self.x1 - self.x0

    @property
    def depth(self) -> int:
        return self.y1 - self.y0

    @property
    def open(self) -> bool:
        return self.kind in OPEN


@dataclass(frozen=True)
class Door:
    """An opening [x0, x1) x [y0, y1) of plan cells in the wall between rooms `a` and `b`.

    `along` is the axis one walks.
    """

    a: int
    b: int
    x0: int
    y0: int
    x1: int
    y1: int
    along: str


@dataclass
class Plan:
    """Rooms and doors of one map, `width` x `depth` plan cells with an outer wall of one cell."""

    width: int
    depth: int
    rooms: list[Room]
    doors: list[Door]

    def door_level(self, door: Door) -> int:
        return max(self.rooms[door.a].level, self.rooms[door.b].level)


def _split(rng: np.random.Generator, room: Room, smallest: int, largest: int) -> list[Room]:
    wide = room.width >= room.depth
    span = room.width if wide else room.depth
    small = room.width <= largest and room.depth <= largest and room.width * room.depth <= largest * largest * 0.8
    if span < 2 * smallest + 1 or (small and rng.random() < 0.7):
        return [room]
    low, high = smallest, span - smallest - 1
    middle = (low + high) / 2
    cut = int(np.clip(round(rng.normal(middle, span / 8)), low, high))
    if wide:
        halves = (
            Room(room.x0, room.y0, room.x0 + cut, room.y1),
            Room(room.x0 + cut + 1, room.y0, room.x1, room.y1),
        )
    else:
        halves = (
            Room(room.x0, room.y0, room.x1, room.y0 + cut),
            Room(room.x0, room.y0 + cut + 1, room.x1, room.y1),
        )
    return [r for half in halves for r in _split(rng, half, smallest, largest)]


def _shared(a: Room, b: Room) -> tuple[str, int, int, int] | None:
    """The wall two rooms share: (axis one walks, wall cell, low, high), or None."""
    if a.x1 + 1 == b.x0:
        return "x", a.x1, max(a.y0, b.y0), min(a.y1, b.y1)
    if a.y1 + 1 == b.y0:
        return "y", a.y1, max(a.x0, b.x0), min(a.x1, b.x1)
    return None


def _make_door(rng: np.random.Generator, rooms: list[Room], a: int, b: int, both_open: bool) -> Door | None:
    shared = _shared(rooms[a], rooms[b])
    if shared is None:
        return None
    axis, wall, low, high = shared
    length = high - low
    if length < 4:
        return None
    width = min(4 if both_open else 2 + int(length >= 7 and rng.random() < 0.5), length - 2)
    middle = (low + high - width) / 2
    start = int(np.clip(round(rng.normal(middle, length / 8)), low + 1, high - width - 1))
    if axis == "x":
        return Door(a, b, wall, start, wall + 1, start + width, "x")
    return Door(a, b, start, wall, start + width, wall + 1, "y")


def _kinds(rng: np.random.Generator, rooms: list[Room]) -> None:
    order = sorted(range(len(rooms)), key=lambda i: -rooms[i].width * rooms[i].depth)
    opens = [*OPEN, "garden", "plaza", "pool", "obelisk"]
    count = 0
    for rank, i in enumerate(order):
        room = rooms[i]
        narrow = min(room.width, room.depth) <= 5
        if rank < 2 or (not narrow and rng.random() < 0.5):
            choices = [k for k in opens if k != "cloister" or min(room.width, room.depth) >= 9]
            room.kind = "obelisk" if rank == 0 else choices[(count * 3 + int(rng.integers(3))) % len(choices)]
            count += 1
        elif narrow:
            room.kind = "gallery"
        else:
            room.kind = str(rng.choice(["nave", "oculus", "vault"]))
        room.family = str(rng.choice(list("WWPPBCA" if not room.open else "WWPPC")))
        room.height = int(rng.choice([208, 224, 256, 288])) if not narrow else 192
        room.parapet = 48 if rng.random() < 0.7 else 160


def _levels(rng: np.random.Generator, plan: Plan) -> None:
    """Levels in steps of 16 units, at most 64 apart across a door."""
    slope = rng.normal(0, 1, 2)
    for room in plan.rooms:
        tilt = slope[0] * (room.x0 / plan.width - 0.5) + slope[1] * (room.y0 / plan.depth - 0.5)
        room.level = STEP * int(np.clip(round(4 + 4 * tilt + rng.normal(0, 1.2)), 0, 9))
    for _ in range(40):
        for door in plan.doors:
            a, b = plan.rooms[door.a], plan.rooms[door.b]
            while abs(a.level - b.level) > 4 * STEP:
                high = a if a.level > b.level else b
                high.level -= STEP


def make_plan(rng: np.random.Generator, extent: Extent = EXTENTS["grand"]) -> Plan:
    """A plan of the extent's rooms, joined by a spanning tree and most of the other shared walls, so that there
    are loops."""
    while True:
        width, depth = int(rng.integers(*extent.width)), int(rng.integers(*extent.depth))
        rooms = _split(rng, Room(1, 1, width - 1, depth - 1), 5, 15)
        if len(rooms) not in range(*extent.rooms):
            continue
        _kinds(rng, rooms)
        pairs = [(a, b) for a in range(len(rooms)) for b in range(len(rooms)) if _shared(rooms[a], rooms[b])]
        rng.shuffle(pairs)
        doors: list[Door] = []
        group = list(range(len(rooms)))
        for a, b in pairs:
            door = _make_door(rng, rooms, a, b, rooms[a].open and rooms[b].open)
            lonely = len(rooms[a].doors) < 2 or len(rooms[b].doors) < 2
            if door is None or (group[a] == group[b] and not lonely and rng.random() > 0.6):
                continue
            rooms[a].doors.append(len(doors))
            rooms[b].doors.append(len(doors))
            doors.append(door)
            group = [group[a] if g == group[b] else g for g in group]
        if len(set(group)) == 1 and min(len(r.doors) for r in rooms) >= 2:
            plan = Plan(width, depth, rooms, doors)
            _levels(rng, plan)
            return plan
