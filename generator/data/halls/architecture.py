"""What stands in the rooms of *Halls*: stairs, arches, colonnades, pools with bridges, obelisks, gardens,
windows, vaults.

Everything is drawn on a Canvas of 16-unit cells, four to a plan cell. Stairs rise as pyramids around a
door, so that every neighbouring step differs by 16 units and all of it can be walked both ways.
Does not know: texture pixels, lines and sectors, files.
"""

import numpy as np

from generator.data.halls.canvas import SKY, Canvas, spread
from generator.data.halls.layout import Door, Plan, Room

Box = tuple[slice, slice]
LANDMARKS = ("A", "Q", "P", "B")


def box(room: Room | Door, grow: int = 0) -> Box:
    """The cells of a room or door, grown by `grow` cells."""
    return (slice(room.y0 * 4 - grow, room.y1 * 4 + grow), slice(room.x0 * 4 - grow, room.x1 * 4 + grow))


def fill_rooms(c: Canvas, plan: Plan) -> None:
    """Floors, ceilings and styles of all rooms, empty."""
    for room in plan.rooms:
        b = box(room)
        top = room.level + room.height
        highest = max(plan.door_level(plan.doors[d]) for d in room.doors)
        top = max(top, highest + 192)
        room.height = top - room.level
        c.solid[b] = False
        c.floor[b] = room.level
        c.sky[b] = room.open
        c.ceil[b] = SKY if room.open else top
        c.roof[b] = 0 if room.open else top + 32
        c.wall[b] = room.family
        c.ftex[b] = "T" if room.open or room.family in "WP" else "S"
        if not room.open:
            inner = box(room, -2)
            tiles = c.ftex[inner].copy()
            c.ftex[b] = "V" if room.family in "AC" else "E"
            c.ftex[inner] = tiles
        c.light[b] = 176 if room.kind == "gallery" else 192


def wall_tops(c: Canvas, plan: Plan) -> np.ndarray:
    """Heights of the walls around rooms; returns the mask of walls that stand between courts only."""
    courts = np.zeros(c.shape, np.int8)
    halls = np.zeros(c.shape, bool)
    for room in plan.rooms:
        b = box(room, 4)
        highest = max(plan.door_level(plan.doors[d]) for d in room.doors)
        if room.open:
            courts[b] += 1
            c.top[b] = np.maximum(c.top[b], highest + room.parapet)
        else:
            halls[b] = True
            c.top[b] = np.maximum(c.top[b], room.level + room.height + 32)
    low = (courts >= 2) & ~halls
    for i, room in enumerate(plan.rooms):
        for other in plan.rooms[i + 1 :]:
            if room.open and other.open:
                mask = np.zeros(c.shape, np.int8)
                mask[box(room, 4)] += 1
                mask[box(other, 4)] += 1
                both = (mask == 2) & low
                c.top[both] = np.maximum(c.top[both], max(room.level, other.level) + 144)
    return low


def cut_doors(c: Canvas, plan: Plan, rng: np.random.Generator) -> None:
    """Open the doors: arches where a roof is near, gates without a lintel between two courts.

    Then stairs around them.
    """
    for door in plan.doors:
        b = box(door)
        level = plan.door_level(door)
        a, other = plan.rooms[door.a], plan.rooms[door.b]
        c.solid[b] = False
        c.floor[b] = level
        c.ftex[b] = "P"
        c.wall[b] = "W"
        c.light[b] = 224
        if a.open and other.open:
            c.sky[b] = True
            c.ceil[b] = SKY
        else:
            ny, nx = c.solid[b].shape
            span = nx if door.along == "y" else ny
            across = (np.arange(span) + 0.5) / span * 2 - 1
            rise = np.round((88 + 72 * np.sqrt(1 - across**2)) / 4) * 4
            c.ceil[b] = level + (rise[None, :] if door.along == "y" else rise[:, None])
            c.ctex[b] = "K"
            c.roof[b] = max(r.level + r.height + 32 for r in (a, other) if not r.open)
            c.wall[b] = "K"
    for door in plan.doors:
        level = plan.door_level(door)
        for i in (door.a, door.b):
            room = plan.rooms[i]
            _stairs(c, room, box(door), level)
            reach = 4 + (level - room.level) // 16 * 2
            zone = np.zeros(c.shape, bool)
            zone[box(door, reach + 2)] = True
            inside = np.zeros(c.shape, bool)
            inside[box(room)] = True
            c.keep |= zone & inside


def _stairs(c: Canvas, room: Room, top: Box, level: int) -> None:
    """Raise the floor of a room in steps of 16 units around a box at `level`."""
    for k in range(1, (level - room.level) // 16):
        reach = k * 2
        rows = slice(max(top[0].start - reach, room.y0 * 4), min(top[0].stop + reach, room.y1 * 4))
        cols = slice(max(top[1].start - reach, room.x0 * 4), min(top[1].stop + reach, room.x1 * 4))
        raised = c.floor[rows, cols] < level - 16 * k
        c.floor[rows, cols] = np.where(raised, level - 16 * k, c.floor[rows, cols])
        c.ftex[rows, cols] = np.where(raised, "P", c.ftex[rows, cols])


def lay_paths(c: Canvas, plan: Plan) -> None:
    """Inlaid paths, 64 units wide, from every door toward the middle of the room."""
    for door in plan.doors:
        for i in (door.a, door.b):
            room = plan.rooms[i]
            mx, my = (room.x0 + room.x1) // 2, (room.y0 + room.y1) // 2
            dx, dy = (door.x0 + door.x1 - 1) // 2, (door.y0 + door.y1 - 1) // 2
            legs = [(dx, my), (mx, my)] if door.along == "y" else [(mx, dy), (mx, my)]
            x, y = dx, dy
            for lx, ly in legs:
                rows = slice(max(min(y, ly), room.y0) * 4, (min(max(y, ly), room.y1 - 1) + 1) * 4)
                cols = slice(max(min(x, lx), room.x0) * 4, (min(max(x, lx), room.x1 - 1) + 1) * 4)
                c.ftex[rows, cols] = "P"
                x, y = lx, ly


def block(c: Canvas, rows: slice, cols: slice, height: int, family: str, top: str = "K") -> bool:
    """Raise a block that cannot be climbed, unless it stands in a kept place. Says whether it did."""
    if c.keep[rows, cols].any() or c.solid[rows, cols].any():
        return False
    if c.sky[rows, cols].all():
        c.floor[rows, cols] = c.floor[rows, cols].min() + height
        c.ftex[rows, cols] = top
    else:
        c.solid[rows, cols] = True
    c.body[rows, cols] = family
    return True


def dais(c: Canvas, room: Room, half: int, steps: int, family: str = "D") -> None:
    """A stepped platform in the middle of a room, `half` cells to each side, rising `steps` times 16
    units."""
    cy, cx = (room.y0 + room.y1) * 2, (room.x0 + room.x1) * 2
    for k in range(1, steps + 1):
        size = half + (steps - k) * 2
        rows, cols = slice(cy - size, cy + size), slice(cx - size, cx + size)
        raised = (c.floor[rows, cols] < room.level + 16 * k) & (c.floor[rows, cols] >= room.level) & ~c.keep[rows, cols]
        c.floor[rows, cols] = np.where(raised, room.level + 16 * k, c.floor[rows, cols])
        c.ftex[rows, cols] = np.where(raised, family if k == steps else "P", c.ftex[rows, cols])


def pool(c: Canvas, room: Room, margin: int, bridges: bool = True) -> None:
    """A pool 16 units deep with a margin in cells, crossed by bridges along both axes."""
    b = (slice(room.y0 * 4 + margin, room.y1 * 4 - margin), slice(room.x0 * 4 + margin, room.x1 * 4 - margin))
    wet = np.zeros(c.shape, bool)
    wet[b] = True
    if bridges:
        cy, cx = (room.y0 + room.y1) // 2 * 4, (room.x0 + room.x1) // 2 * 4
        wet[:, cx - 2 : cx + 6] = False
        wet[cy - 2 : cy + 6, :] = False
    wet &= ~c.solid & (c.floor == room.level) & (c.body == "")
    near_stairs = spread(~c.solid & (c.floor > room.level), 2)
    wet &= ~near_stairs & ~c.keep
    wet = _even(wet)
    c.floor[wet] -= 16
    c.ftex[wet] = "W"


def _even(mask: np.ndarray) -> np.ndarray:
    """Only the 32-unit squares (2 x 2 cells) that are wholly in the mask."""
    ny, nx = mask.shape
    whole = mask.reshape(ny // 2, 2, nx // 2, 2).all((1, 3))
    return whole.repeat(2, 0).repeat(2, 1)


def obelisk(c: Canvas, cy: int, cx: int, height: int, family: str) -> None:
    """A tapering tower around cell corner (cy, cx): 96, 64 and 32 units wide."""
    if not block(c, slice(cy - 3, cy + 3), slice(cx - 3, cx + 3), 32, "P"):
        return
    base = int(c.floor[cy, cx])
    for half, share in ((2, 0.62), (1, 1.0)):
        rows, cols = slice(cy - half, cy + half), slice(cx - half, cx + half)
        c.floor[rows, cols] = base + int(height * share) // 16 * 16
        c.body[rows, cols] = family
