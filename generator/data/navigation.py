"""Navigation: a walk grid with heights, A* over it, clearance and sight lines.

Shape key: gy, gx grid rows and columns; row 0 is the smallest y. A cell is `cell` map units wide; `origin` is the
corner (smallest x, y) of cell (0, 0). Cells are (row, column) pairs; points are (x, y) in map units.

Does not know about engines, views, keys or map files.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

Bool = npt.NDArray[np.bool_]
Cell = tuple[int, int]
Point = tuple[float, float]

NEIGHBOURS: tuple[Cell, ...] = (
    (0, 1),
    (1, 0),
    (0, -1),
    (-1, 0),
    (1, 1),
    (1, -1),
    (-1, -1),
    (-1, 1),
)
MAX_STEP = 24  # the engine climbs 24 units
MAX_CLEARANCE = 6


def shifted(array: npt.NDArray[np.generic], dy: int, dx: int, fill: object) -> npt.NDArray[np.generic]:
    """out[y, x] = array[y + dy, x + dx], `fill` outside."""
    out = np.full_like(array, fill)
    rows, columns = array.shape
    y0, y1 = max(0, -dy), min(rows, rows - dy)
    x0, x1 = max(0, -dx), min(columns, columns - dx)
    out[y0:y1, x0:x1] = array[y0 + dy : y1 + dy, x0 + dx : x1 + dx]
    return out


@dataclass(frozen=True, eq=False)
class WalkGrid:
    """Where a body of 32 units fits: open bool (gy, gx), floor heights int16 (gy, gx), doors bool or None."""

    open: Bool
    floor: npt.NDArray[np.int16]
    cell: int = 32
    origin: Point = (0.0, 0.0)
    doors: Bool | None = field(default=None, repr=False)

    def centre(self, cell: Cell) -> Point:
        """The middle of a cell in map units."""
        return (
            self.origin[0] + (cell[1] + 0.5) * self.cell,
            self.origin[1] + (cell[0] + 0.5) * self.cell,
        )

    def cell_at(self, x: float, y: float) -> Cell:
        """The cell that holds a point; may lie outside the grid."""
        return (
            math.floor((y - self.origin[1]) / self.cell),
            math.floor((x - self.origin[0]) / self.cell),
        )

    @cached_property
    def links(self) -> npt.NDArray[np.bool_]:
        """bool (8, gy, gx): whether one may go to that neighbour, both ways (step <= 24, no cut corners)."""
        floor = self.floor.astype(np.int32)
        result = np.zeros((8, *self.open.shape), bool)
        for i, (dy, dx) in enumerate(NEIGHBOURS):
            rise = np.abs(shifted(floor, dy, dx, 0).astype(np.int32) - floor)
            result[i] = self.open & shifted(self.open, dy, dx, False).astype(bool) & (rise <= MAX_STEP)
        for i, (dy, dx) in list(enumerate(NEIGHBOURS))[4:]:
            along_x, along_y = NEIGHBOURS.index((0, dx)), NEIGHBOURS.index((dy, 0))
            via_x = result[along_x] & shifted(result[along_y], 0, dx, False).astype(bool)
            via_y = result[along_y] & shifted(result[along_x], dy, 0, False).astype(bool)
            result[i] &= via_x & via_y
        return result

    @cached_property
    def clearance(self) -> npt.NDArray[np.int16]:
        """int16 (gy, gx): cells to the nearest wall or ledge, 0 where closed, at most MAX_CLEARANCE."""
        free = self.open & self.links[:4].all(0)
        result = self.open.astype(np.int16)
        for _ in range(MAX_CLEARANCE - 1):
            result += free
            around = [shifted(free, dy, dx, False).astype(bool) for dy, dx in NEIGHBOURS]
            free = free & np.logical_and.reduce(around)
        return result

    @cached_property
    def area(self) -> npt.NDArray[np.int32]:
        """int32 (gy, gx): number of the connected area of each open cell by falling size (0 the largest), else -1."""
        label = np.full(self.open.shape, -1, np.int32)
        sizes: list[int] = []
        for start in map(tuple, np.argwhere(self.open)):
            if label[start] >= 0:
                continue
            stack, size = [start], 0
            label[start] = len(sizes)
            while stack:
                y, x = stack.pop()
                size += 1
                for i in np.flatnonzero(self.links[:4, y, x]):
                    near = (y + NEIGHBOURS[i][0], x + NEIGHBOURS[i][1])
                    if label[near] < 0:
                        label[near] = len(sizes)
                        stack.append(near)
            sizes.append(size)
        rank = np.empty(len(sizes) + 1, np.int32)
        rank[np.argsort(-np.asarray(sizes, np.int64), kind="stable")] = np.arange(len(sizes))
        rank[-1] = -1
        return rank[label]

    @cached_property
    def places(self) -> npt.NDArray[np.int64]:
        """int64 (n, 2): cells of the largest area a body stands in with room around; any cell of it if none has."""
        main = self.area == 0
        roomy = np.argwhere(main & (self.clearance >= 2))
        return roomy if len(roomy) else np.argwhere(main)

    @cached_property
    def _search(self) -> tuple[list[list[tuple[int, float]]], list[float]]:
        """Neighbours of each flat cell with step lengths, and the price factor of each cell (walls are dear)."""
        rows, columns = self.open.shape
        factor = 1.0 + 1.5 * np.maximum(0, 4 - self.clearance.astype(float)) ** 2 / 4
        near: list[list[tuple[int, float]]] = [[] for _ in range(rows * columns)]
        for i, (dy, dx) in enumerate(NEIGHBOURS):
            length = math.hypot(dy, dx)
            for flat in np.flatnonzero(self.links[i]).tolist():
                near[flat].append((flat + dy * columns + dx, length))
        return near, factor.ravel().tolist()

    def nearest_open(self, x: float, y: float, reach: int = 3) -> Cell | None:
        """The open cell nearest to a point, within `reach` cells; None when there is none."""
        row, column = self.cell_at(x, y)
        best: tuple[float, Cell] | None = None
        for dy in range(-reach, reach + 1):
            for dx in range(-reach, reach + 1):
                cell = (row + dy, column + dx)
                if self.is_open(cell):
                    centre = self.centre(cell)
                    distance = math.hypot(centre[0] - x, centre[1] - y)
                    if best is None or distance < best[0]:
                        best = (distance, cell)
        return best[1] if best else None

    def is_open(self, cell: Cell) -> bool:
        """Whether the cell is inside the grid and open."""
        return 0 <= cell[0] < self.open.shape[0] and 0 <= cell[1] < self.open.shape[1] and bool(self.open[cell])

    def path(self, start: Cell, goal: Cell) -> list[Cell]:
        """A* from start to goal, both included, keeping away from walls; empty when there is no way."""
        if not (self.is_open(start) and self.is_open(goal)) or self.area[start] != self.area[goal]:
            return []
        near, factor = self._search
        columns = self.open.shape[1]
        first, last = start[0] * columns + start[1], goal[0] * columns + goal[1]
        cost, previous = {first: 0.0}, {first: first}
        heap, done = [(0.0, first)], set()
        while heap:
            _, here = heapq.heappop(heap)
            if here == last:
                break
            if here in done:
                continue
            done.add(here)
            for there, length in near[here]:
                price = cost[here] + length * 0.5 * (factor[here] + factor[there])
                if price < cost.get(there, math.inf):
                    cost[there], previous[there] = price, here
                    ahead = math.hypot(there // columns - goal[0], there % columns - goal[1])
                    heapq.heappush(heap, (price + ahead, there))
        if last not in previous:
            return []
        flat = [last]
        while flat[-1] != first:
            flat.append(previous[flat[-1]])
        return [divmod(f, columns) for f in reversed(flat)]

    def walkable_line(self, a: Point, b: Point) -> bool:
        """Whether one may walk straight from a to b: every cell open, every step <= 24."""
        count = max(2, int(math.dist(a, b) / (self.cell / 4)) + 1)
        rows, columns = self._cells(np.linspace(a[0], b[0], count), np.linspace(a[1], b[1], count))
        if rows.min() < 0 or columns.min() < 0:
            return False
        if rows.max() >= self.open.shape[0] or columns.max() >= self.open.shape[1]:
            return False
        if not self.open[rows, columns].all():
            return False
        return bool((np.abs(np.diff(self.floor[rows, columns].astype(np.int32))) <= MAX_STEP).all())

    def sight(
        self,
        xy: npt.NDArray[np.float64],
        yaw: npt.NDArray[np.float64],
        reach: float = 768.0,
    ) -> npt.NDArray[np.float64]:
        """Free distance in map units, at most `reach`, from points xy (n, 2) along yaw (n,) degrees right of east."""
        distances = np.arange(self.cell / 2, reach + 1, self.cell / 2)
        angle = -np.radians(yaw)[:, None]
        rows, columns = self._cells(xy[:, :1] + np.cos(angle) * distances, xy[:, 1:] + np.sin(angle) * distances)
        inside = (rows >= 0) & (rows < self.open.shape[0]) & (columns >= 0) & (columns < self.open.shape[1])
        clear = inside & self.open[np.where(inside, rows, 0), np.where(inside, columns, 0)]
        blocked = np.argmin(clear, axis=1)
        return np.where(clear.all(1), reach, distances[blocked])

    def _cells(
        self, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        rows = np.floor((y - self.origin[1]) / self.cell).astype(np.int64)
        columns = np.floor((x - self.origin[0]) / self.cell).astype(np.int64)
        return rows, columns
