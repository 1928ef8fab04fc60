"""The walk grid: links, clearance, areas, A*, straight lines and sight."""

from itertools import pairwise

import numpy as np
import pytest

from generator.data.navigation import WalkGrid


def grid(*rows: str) -> WalkGrid:
    """'#' is a wall, a digit a floor height in steps of 16; the first string is the smallest y."""
    open_cells = np.array([[c != "#" for c in row] for row in rows])
    floor = np.array([[0 if c == "#" else 16 * int(c) for c in row] for row in rows], np.int16)
    return WalkGrid(open_cells, floor, 32, (-64.0, 32.0))


def test_cells_and_points_agree():
    g = grid("000", "000")
    assert g.centre((1, 2)) == (-64 + 2.5 * 32, 32 + 1.5 * 32)
    assert g.cell_at(*g.centre((1, 2))) == (1, 2)
    assert g.cell_at(-65, 31) == (-1, -1)


def test_path_goes_round_a_wall_and_not_through_corners():
    g = grid("00000", "0###0", "00000")
    path = g.path((0, 2), (2, 2))
    assert path[0] == (0, 2)
    assert path[-1] == (2, 2)
    assert all(g.open[cell] for cell in path)
    for (y0, x0), (y1, x1) in pairwise(path):
        assert max(abs(y1 - y0), abs(x1 - x0)) == 1
        assert g.open[y0, x1] and g.open[y1, x0]


def test_steps_higher_than_24_are_not_walked():
    assert grid("0123").path((0, 0), (0, 3)) == [(0, 0), (0, 1), (0, 2), (0, 3)]
    assert grid("0022").path((0, 0), (0, 3)) == []
    assert grid("0022").area.tolist() == [[0, 0, 1, 1]]


def test_path_keeps_away_from_walls():
    room = np.zeros((13, 30), bool)
    room[1:-1, 1:-1] = True
    g = WalkGrid(room, np.zeros(room.shape, np.int16))
    path = g.path((2, 2), (2, 27))
    assert max(y for y, _ in path) >= 4  # bows into the room and does not slide along the wall


def test_path_matches_plain_dijkstra_length_in_the_open():
    g = WalkGrid(np.ones((40, 40), bool), np.zeros((40, 40), np.int16))
    assert len(g.path((20, 10), (20, 30))) == 21


def test_areas_are_numbered_by_size():
    area = grid("0#000", "0#000").area
    assert area[0, 0] == 1
    assert area[0, 2] == 0
    assert area[0, 1] == -1


def test_clearance_grows_inwards_and_counts_ledges():
    room = np.zeros((9, 9), bool)
    room[1:-1, 1:-1] = True
    c = WalkGrid(room, np.zeros((9, 9), np.int16)).clearance
    assert (c[0, 0], c[1, 1], c[2, 2], c[4, 4]) == (0, 1, 2, 4)
    assert grid("00099", "00099", "00099").clearance[1, 2] == 1


def test_places_are_roomy_cells_of_the_largest_area():
    room = np.zeros((9, 20), bool)
    room[1:-1, 1:10] = True
    room[3, 15:18] = True
    places = WalkGrid(room, np.zeros(room.shape, np.int16)).places
    assert len(places) == 5 * 7
    assert places[:, 1].max() < 10


def test_nearest_open_cell():
    g = grid("#00")
    assert g.nearest_open(-64 + 16, 32 + 16) == (0, 1)
    assert g.nearest_open(1000, 1000) is None


@pytest.mark.parametrize(("yaw", "expected"), [(0, 80), (180, 48), (90, 16), (-90, 16)])
def test_sight_measures_free_distance(yaw, expected):
    g = grid("####", "0000", "####")
    seen = g.sight(np.array([g.centre((1, 1))]), np.array([float(yaw)]), 640)[0]
    assert seen == pytest.approx(expected, abs=16)


def test_walkable_line():
    g = grid("0000", "00#0", "0000")
    assert g.walkable_line(g.centre((0, 0)), g.centre((0, 3)))
    assert not g.walkable_line(g.centre((1, 0)), g.centre((1, 3)))
    assert not g.walkable_line(g.centre((0, 0)), (1000, 1000))
