"""Still maps: what is changed, what is left, and that floors and ceilings are those that the engine shows."""

import struct

import numpy as np
import pytest
import torch

from controls.action import encode_rows
from controls.errors import UserError
from generator.data.clips import Dataset
from generator.data.collect import collect
from generator.data.doom_map import SECTOR, map_names, read_map
from generator.data.engine import Engine
from generator.data.latents import PLAN
from generator.data.sources import open_maps
from generator.data.still_map import BARRED, BRIGHTEST, DARKEST, LINTEL, still_ground, still_lines, write_still
from generator.tokenizer.body import NOWHERE
from generator.tokenizer.line_body import LineBody
from generator.tokenizer.place import Place
from generator.training.body_learning import learn_body, walks_of
from generator.training.known_depth import (
    TrueDepth,
    is_known,
    known_ground,
    known_lines,
    known_solids,
    line_count,
    shown_room,
    still_sizes,
)

DOOR, TAGGED, LIGHTS = 1, 63, (0, 96, 255, 160)
CLIPS, FRAMES = 6, 41


def wad(path, tagged=False, sky=False):
    """Three 256 x 256 rooms in a row at heights 0, 0 and 16, the middle one a closed door, and one dark closet."""
    vertexes = [(x, y) for x in (0, 256, 512, 768) for y in (0, 256)]
    special, tag = (TAGGED, 7) if tagged else (DOOR, 0)
    # going round a room clockwise, its right side is inside
    rows = [(0, 1, 1, 0, 0, 0, 0xFFFF)]
    for room in range(3):
        low, high = 2 * room, 2 * room + 1
        rows += [(high, high + 2, 1, 0, 0, room, 0xFFFF), (low + 2, low, 1, 0, 0, room, 0xFFFF)]
    # from south to north its right side is east
    rows += [(2, 3, 4, special, tag, 1, 0), (4, 5, 4 | 1 * sky, 0, 0, 2, 1), (7, 6, 1, 48, 0, 2, 0xFFFF)]
    if not tagged:
        rows[-3] = (3, 2, 4, special, tag, 0, 1)  # one opens a door from its front: its back is what opens
    floors, ceilings = (0, 0, 16), (160, 0, 128)
    roof = b"F_SKY1\0\0" if sky else b"ROOF\0\0\0\0"
    blank = b"-\0\0\0\0\0\0\0"
    sectors = zip(floors, ceilings, LIGHTS, strict=False)
    lumps = {
        "MAP01": b"",
        "THINGS": b"".join(struct.pack("<hhhHH", 128, 128, 0, kind, 7) for kind in (1, 2035, 3004, 2)),
        "LINEDEFS": b"".join(struct.pack("<7H", *row) for row in rows),
        "SIDEDEFS": b"".join(struct.pack("<hh", 0, 0) + 3 * blank + struct.pack("<H", s) for s in range(3)),
        "VERTEXES": b"".join(struct.pack("<hh", *v) for v in vertexes),
        "SECTORS": b"".join(
            struct.pack("<hh", low, high) + blank + roof + struct.pack("<hhh", light, 9, 7 * (number == 1))
            for number, (low, high, light) in enumerate(sectors)
        ),
        "MAP02": b"",
    }
    body, table = b"", b""
    for name, data in lumps.items():
        table += struct.pack("<ii8s", 12 + len(body), len(data), name.encode())
        body += data
    path.write_bytes(struct.pack("<4sii", b"PWAD", len(lumps), 12 + len(body)) + body + table)
    return path


def sectors_of(path):
    data = path.read_bytes()
    at = data.index(b"SECTORS\0") - 8
    offset, size = struct.unpack("<ii", data[at : at + 8])
    return np.frombuffer(data, SECTOR, size // SECTOR.itemsize, offset)


@pytest.mark.parametrize("tagged", [False, True], ids=["by-hand", "by-tag"])
def test_doors_stand_open_and_nothing_moves_or_lies_about(tmp_path, tagged):
    made = write_still(wad(tmp_path / "a.wad", tagged), "MAP01", tmp_path / "own" / "MAP01.wad")
    assert map_names(made) == ["MAP01"], "the map after it is left out"
    doom, sectors = read_map(made, "MAP01"), sectors_of(made)
    assert sectors["ceiling"].tolist() == [160, 128 - LINTEL, 128], "the lowest beside it, and a lintel"
    assert not doom.special.any() and not sectors["rest"][:, 1:].any()
    assert not len(doom.obstacles)
    things = made.read_bytes()
    assert struct.pack("<HH", 2035, 7) not in things and struct.pack("<HH", 1, 7) in things


def test_no_sector_is_dark_and_brighter_ones_stay_brighter(tmp_path):
    light = sectors_of(write_still(wad(tmp_path / "a.wad"), "MAP01", tmp_path / "own.wad"))["rest"][:, 0]
    assert light.min() >= DARKEST and light.max() <= BRIGHTEST
    assert light[0] <= light[1] < light[2]


def test_ground_has_the_heights_of_its_sectors(tmp_path):
    ground = still_ground(write_still(wad(tmp_path / "a.wad", sky=True), "MAP01", tmp_path / "own.wad"), "MAP01")
    assert ground.origin == (0.0, 0.0) and ground.shape == (64, 192)
    assert not ground.solid.any() and ground.sky.all()
    assert ground.floor[10, [10, 80, 150]].tolist() == [0, 0, 16]
    assert ground.ceil[10, [10, 80, 150]].tolist() == [160, 124, 128]
    assert ground.barred[10, 127:129].all() and not ground.barred[10, [10, 63, 64, 150]].any(), "by a barrier only"


def test_lines_have_the_floors_and_ceilings_beside_them(tmp_path):
    lines = still_lines(write_still(wad(tmp_path / "a.wad", sky=True), "MAP01", tmp_path / "own.wad"), "MAP01")
    assert lines.ends.shape == (10, 4) and lines.single.sum() == 8 and lines.blocks == (-8, -8), (
        "no BLOCKMAP: beside it"
    )
    assert (lines.bottom[lines.single] == BARRED).all() and (lines.top[lines.single] == -BARRED).all()
    opened, barrier = np.flatnonzero(~lines.single)
    assert (lines.bottom[opened], lines.top[opened]) == (0, 124)
    assert lines.bottom[barrier] == BARRED, "a barrier has two sides and lets nobody through"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    pytest.importorskip("vizdoom")
    out = tmp_path_factory.mktemp("still")
    collect("freedoom", out, CLIPS * FRAMES, seed=3, clip_frames=FRAMES, size="still")
    return Dataset.open(out)


def test_a_still_map_is_the_same_after_a_while(tmp_path):
    pytest.importorskip("vizdoom")
    (source,) = open_maps("freedoom", tmp_path, 0, "MAP01", "still")
    grid, idle = source.walk_grid(), np.zeros(8, np.uint8)
    with Engine(source.engine) as engine:
        for number in (100, 400, 800):
            engine.start(source.name, 1)
            engine.warp(*grid.centre(tuple(grid.places[number])))
            for _ in range(40):
                engine.step(idle, (0.0, 0.0))
            first = np.asarray(engine.observe()[0])
            for _ in range(75):
                engine.step(idle, (0.0, 0.0))
            assert np.array_equal(np.asarray(engine.observe()[0]), first), number


def test_one_stands_on_the_floor_that_is_told(recorded):
    assert is_known(recorded.meta)
    true_depth, eyes = TrueDepth(recorded, exact=True), []
    for index in range(len(recorded)):
        pose, ground = recorded.clip(index).pose, true_depth.canvas(index)
        near = true_depth(index, pose[:1], (64, 40))[0]
        assert near.shape == (40, 64) and (near > 0).mean() > 0.9
        column, row = ((pose[:, k] - ground.origin[k]) // ground.sub for k in (0, 1))
        eyes.append(pose[:, 2] - ground.floor[row.astype(int), column.astype(int)])
    assert np.median(np.concatenate(eyes)) == pytest.approx(41, abs=1)


def test_room_of_a_place_holds_all_that_is_shown(recorded):
    least, most = shown_room(recorded)
    period, levels, below = still_sizes(recorded, -23.0)
    assert (most - least)[:2].max() < period <= 2432 and period % 128 == 0
    assert -23.0 - below < least[2] and -23.0 - below + 16 * levels > most[2]
    cells = int(period / 4)
    relief = known_ground(recorded, period, cells)
    walked = np.concatenate([recorded.clip(index).pose for index in recorded.select("train")])
    column, row = (np.floor(walked[:, k] % period / 4).astype(int) for k in (0, 1))
    under = relief[row, column]
    assert np.isfinite(under).mean() > 0.97 and np.median(walked[:, 2] - under) == pytest.approx(41, abs=1)
    heights = -23.0 - below + 2 + 4 * np.arange(4 * levels)
    filled, air = known_solids(recorded, period, cells, heights)
    assert not (filled & air).any() and filled.any() and air.any()


def test_a_body_among_the_lines_of_the_map_walks_as_was_recorded(recorded):
    """The bug: a relief in cells of four units knew no walls aslant, and its eye jumped up every step of a stair."""
    period, levels, below = still_sizes(recorded, -23.0)
    place = Place(period, False, levels, len(recorded.spec.keys), below=below, lines=line_count(recorded))
    place.map.eye.fill_(-23.0)
    body, held = place.body, known_lines(recorded, period, place.map.cells)
    assert isinstance(body, LineBody) and (
        held.lines.blocks == still_lines(recorded.folder / "MAP01.wad", "MAP01").blocks
    )
    figures = learn_body(place, walks_of(recorded, "train"), held)
    assert figures["body_off"] < 0.01 and body.stature == 41
    off, up = [], []
    for index in range(len(recorded)):
        clip = recorded.clip(index)
        pose = torch.from_numpy(clip.pose[:, PLAN]).float()
        stood = body.standing(place, pose[:, :2])
        assert (stood < NOWHERE).float().mean() > 0.99, "where somebody walked one can stand"
        rows = torch.from_numpy(encode_rows(clip.keys[1:], clip.look[1:], recorded.spec)).float()
        look, state = torch.from_numpy(clip.look[1:]).float(), torch.zeros(1, body.remembered)
        end = pose[:1]
        jumps = int(np.argmax(np.r_[clip.keys[1:, recorded.spec.keys.index("jump")], 1]))  # too few to tell how high
        for k in range(0, jumps - 4, 4):
            state = body.corrected(place, state, end, pose[k : k + 1]) if k else state
            given = (pose[k : k + 1], look[None, k : k + 4], rows[None, k : k + 4], state)
            end, _, state = body.walk(place, *given)
            if k > 8:
                off.append(float(place.away(end, pose[k + 4 : k + 5])))
                up.append(abs(float(end[0, 4] - pose[k + 4, 4])))
    assert len(off) > 15 and np.mean(np.array(off) < 0.1) > 0.9 and np.mean(np.array(up) < 0.5) > 0.9, (
        np.sort(off)[-9:],
        np.sort(up)[-9:],
    )


def test_a_still_place_is_one_map_of_freedoom(tmp_path):
    with pytest.raises(UserError, match="one map, not 2"):
        open_maps("freedoom", tmp_path, 0, "MAP01,MAP02", "still")
    with pytest.raises(UserError, match=r"Unknown Freedoom map .E9M9"):
        open_maps("freedoom", tmp_path, 0, "E9M9", "still")
