"""One map of *Halls* from (world seed, map index): plan, building, light, and the grid a walker can plan on.

Does not know: textures' pixels, the PK3.
"""

from dataclasses import dataclass

import numpy as np

from generator.data.halls.architecture import cut_doors, fill_rooms, lay_paths, wall_tops
from generator.data.halls.canvas import SUB, Canvas, finish_eaves, finish_walls, lamplight, sunlight
from generator.data.halls.endless import draw_endless
from generator.data.halls.layout import EXTENTS, Plan, make_plan
from generator.data.halls.palette import THEMES
from generator.data.halls.rooms import furnish

ENDLESS = "endless"
SIZES = (*EXTENTS, ENDLESS)
CELL = 32
CLIMB = 24
HEADROOM = 64
SUN = (-1, 0)
PLACES = ("Terrace", "Arcade", "Cistern", "Stair", "Belvedere", "Enclosure", "Promenade", "Sanctum")


@dataclass(frozen=True)
class MapInfo:
    """What a walker needs: `grid` bool (gy, gx) of cells whose middle a player can stand on, all joined;
    `floor` int16 in units.

    The middle of cell (y, x) is origin + ((x + 0.5) * cell, (y + 0.5) * cell). `start` is (x, y) in units,
    `start_angle` degrees.
    """

    name: str
    seed: int
    theme: str
    title: str
    start: tuple[int, int]
    start_angle: int
    grid: np.ndarray
    floor: np.ndarray
    cell: int = CELL
    origin: tuple[int, int] = (0, 0)


def map_seed(world_seed: int, number: int) -> int:
    """The seed of map `number` of a world."""
    return int(np.random.SeedSequence([world_seed, number]).generate_state(1)[0])


def walk_grid(c: Canvas) -> tuple[np.ndarray, np.ndarray]:
    """Cells of 32 units that are flat, free and high enough: bool (gy, gx), and their floors int16."""
    ny, nx = c.shape
    blocks = (ny // 2, 2, nx // 2, 2)
    free = (~c.solid & (c.ceil - c.floor >= HEADROOM) & (c.body == "")).reshape(blocks).all((1, 3))
    floors = c.floor.reshape(blocks)
    flat = floors.max((1, 3)) == floors.min((1, 3))
    return free & flat, floors.max((1, 3)).astype(np.int16)


def reachable(grid: np.ndarray, floor: np.ndarray, start: tuple[int, int]) -> np.ndarray:
    """The part of the grid joined to `start` (y, x) by steps a player can climb both ways."""
    seen = np.zeros_like(grid)
    seen[start] = grid[start]
    level = floor.astype(int)
    across = grid[:, 1:] & grid[:, :-1] & (abs(level[:, 1:] - level[:, :-1]) <= CLIMB)
    down = grid[1:] & grid[:-1] & (abs(level[1:] - level[:-1]) <= CLIMB)
    while True:
        before = seen.sum()
        seen[:, 1:] |= seen[:, :-1] & across
        seen[:, :-1] |= seen[:, 1:] & across
        seen[1:] |= seen[:-1] & down
        seen[:-1] |= seen[1:] & down
        if seen.sum() == before:
            return seen


def _draw(seed: int, theme: int, size: str) -> tuple[Canvas, Plan]:
    rng = np.random.default_rng(seed)
    plan = make_plan(rng, EXTENTS[size])
    c = Canvas(plan.width, plan.depth)
    look = THEMES[theme]
    fill_rooms(c, plan)
    cut_doors(c, plan, rng)
    lay_paths(c, plan)
    low = wall_tops(c, plan)
    furnish(c, plan, rng, look.lamps)
    finish_walls(c, low)
    finish_eaves(c)
    sunlight(c, SUN, look.sun_elevation, look.day, look.dusk)
    lamplight(c)
    return c, plan


def _finish_endless(seed: int, number: int, theme: int) -> tuple[Canvas, int, MapInfo]:
    """An endless court of a theme, lit, and its info."""
    c, walked, first = draw_endless(np.random.default_rng(seed))
    look = THEMES[theme]
    finish_eaves(c)
    sunlight(c, SUN, look.sun_elevation, look.day, look.dusk)
    grid, floor = walk_grid(c)
    return c, theme, _info(number, seed, theme, "Endless", first, reachable(grid & walked, floor, first), floor)


def _info(
    number: int, seed: int, theme: int, place: str, first: tuple[int, int], seen: np.ndarray, floor: np.ndarray
) -> MapInfo:
    """What is known of a map whose walk begins in the middle of cell `first` (y, x)."""
    look = THEMES[theme]
    start = (first[1] * CELL + CELL // 2, first[0] * CELL + CELL // 2)
    return MapInfo(f"MAP{number + 1:02d}", seed, look.name, f"{look.title}: {place}", start, 90, seen, floor)


def draw_map(world_seed: int, number: int, size: str = "grand") -> tuple[Canvas, int, MapInfo]:
    """The canvas, theme number and info of map `number` (0-based) of one of SIZES; tries again until every room
    is joined."""
    theme = number % len(THEMES)
    if size == ENDLESS:
        return _finish_endless(map_seed(world_seed, number), number, theme)
    for attempt in range(20):
        seed = map_seed(world_seed, number) + attempt
        c, plan = _draw(seed, theme, size)
        grid, floor = walk_grid(c)
        court = max((r for r in plan.rooms if r.open), key=lambda r: r.width * r.depth)
        corner = np.array((court.y0 * 2, court.x0 * 2))
        cells = np.argwhere(grid[corner[0] : court.y1 * 2, corner[1] : court.x1 * 2]) + corner
        middle = np.array([(court.y0 + 2) * 2, court.x0 + court.x1])
        first = tuple(int(v) for v in cells[np.abs(cells - middle).sum(1).argmin()])
        seen = reachable(grid, floor, first)
        joined = all(seen[d.y0 * 2 : d.y1 * 2, d.x0 * 2 : d.x1 * 2].any() for d in plan.doors)
        if joined and seen.sum() > 0.9 * grid.sum():
            break
    else:
        raise AssertionError(f"map {number} of world {world_seed}: no joined plan in 20 tries")
    return c, theme, _info(number, seed, theme, PLACES[number // len(THEMES) % len(PLACES)], first, seen, floor)


assert CELL == 2 * SUB
