"""Reading WADs: a hand-made map of two rooms, damage, and a real one."""

import struct

import numpy as np
import pytest

from controls.errors import UserError
from generator.data import doom_map
from generator.data.doom_map import map_names, read_map, sector_grid, walk_grid


def wad(path, special=0, step=16, flags=4, magic=b"PWAD"):
    """Two 256 x 256 rooms side by side; sector 0 west at height 0, sector 1 east at height `step`."""
    vertexes = [(0, 0), (0, 256), (256, 256), (256, 0), (512, 256), (512, 0)]
    # going round a room clockwise, its right side is inside
    lines = [(0, 1, 0), (1, 2, 0), (3, 0, 0), (2, 4, 1), (4, 5, 1), (5, 3, 1)]
    rows = [(a, b, 1, 0, 0, side, 0xFFFF) for a, b, side in lines] + [(2, 3, flags, special, 0, 0, 1)]
    blank = b"-\0\0\0\0\0\0\0"
    lumps = {
        "MAP01": b"",
        "THINGS": struct.pack("<hhhHH", 128, 128, 0, 1, 7),
        "LINEDEFS": b"".join(struct.pack("<7H", *row) for row in rows),
        "SIDEDEFS": b"".join(struct.pack("<hh", 0, 0) + 3 * blank + struct.pack("<H", s) for s in (0, 1)),
        "VERTEXES": b"".join(struct.pack("<hh", *v) for v in vertexes),
        "SECTORS": b"".join(struct.pack("<hh", h, 160) + 2 * blank + bytes(6) for h in (0, step)),
    }
    body, table = b"", b""
    for name, data in lumps.items():
        table += struct.pack("<ii8s", 12 + len(body), len(data), name.encode())
        body += data
    path.write_bytes(struct.pack("<4sii", magic, len(lumps), 12 + len(body)) + body + table)
    return path


def test_sectors_and_heights(tmp_path):
    doom = read_map(wad(tmp_path / "a.wad"), "MAP01")
    assert (doom.right.tolist(), doom.left.tolist()[-1]) == ([0, 0, 0, 1, 1, 1, 0], 1)
    sectors = sector_grid(doom, np.array([-10.0, 100.0, 300.0, 600.0]), np.array([-5.0, 100.0]))
    assert sectors.tolist() == [[-1, -1, -1, -1], [-1, 0, 1, -1]]


def test_walls_keep_a_body_away_and_low_steps_are_climbed(tmp_path):
    grid = walk_grid(read_map(wad(tmp_path / "a.wad"), "MAP01"))
    assert not grid.open[0].any() and not grid.open[:, 0].any()  # 16 units from a wall: a body of radius 16 touches
    west, east = grid.cell_at(128, 128), grid.cell_at(400, 128)
    assert (grid.floor[west], grid.floor[east]) == (0, 16)
    assert len(grid.path(west, east)) == east[1] - west[1] + 1


@pytest.mark.parametrize("change", [{"step": 48}, {"step": 130}, {"flags": 5}, {"special": 97}])
def test_high_steps_low_ceilings_barriers_and_teleporters_part_the_rooms(tmp_path, change):
    grid = walk_grid(read_map(wad(tmp_path / "a.wad", **change), "MAP01"))
    assert grid.path(grid.cell_at(128, 128), grid.cell_at(400, 128)) == []


def test_doors_are_open_and_marked(tmp_path):
    grid = walk_grid(read_map(wad(tmp_path / "a.wad", special=1, step=8), "MAP01"))
    assert grid.doors is not None and grid.doors[grid.cell_at(256, 128)]
    assert not grid.doors[grid.cell_at(100, 128)]


@pytest.mark.parametrize("keep", [0, 8, 40, 200])
def test_cut_files_are_reported(tmp_path, keep):
    path = wad(tmp_path / "a.wad")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"a\.wad"):
        read_map(path, "MAP01")


def test_wrong_kind_and_unknown_map_are_reported(tmp_path):
    with pytest.raises(UserError, match="not a WAD"):
        map_names(wad(tmp_path / "a.wad", magic=b"RIFF"))
    with pytest.raises(UserError, match="no map 'MAP09'"):
        read_map(wad(tmp_path / "a.wad"), "MAP09")
    with pytest.raises(UserError, match="cannot be read"):
        map_names(tmp_path / "none.wad")


def test_freedoom_map_is_walkable():
    pytest.importorskip("vizdoom")
    from generator.data.sources import wad_path

    names = map_names(wad_path("freedoom2.wad"))
    assert len(names) == 32
    grid = walk_grid(doom_map.read_map(wad_path("freedoom2.wad"), "MAP01"))
    assert (grid.area == 0).sum() > 1000
    assert len(grid.places) > 300
