"""Walls are made even: specks go, bands, edges and lines stay, and what is on a wall goes on round its corners."""

import numpy as np
import pytest
import torch

from generator.tokenizer.place_faces import ROUGH, STEPS, TEXELS
from generator.tokenizer.place_map import PlaceMap
from generator.training.parallax import ParallaxTraining, train
from generator.training.place_evening import even_walls, median

CREAM, CORAL, DARK = 1, 2, 3
PALETTE = {CREAM: (0.9, 0.8, 0.6), CORAL: (0.8, 0.0, -0.2), DARK: (-0.9, -0.6, -0.4)}
DEEP = 30  # of its plane, in steps
HIGH = 10


def wall_map(axis: int = 0, blocks: int = 12, corner: bool = False) -> tuple[PlaceMap, np.ndarray]:
    """A map of 16 x 16 x 16 blocks with a wall across an axis, and what is on its faces (up, along): bands of coral
    under cream, a dark line of one texel upright, and a stripe.
    """
    place_map = PlaceMap(64.0, 4)
    solid = np.zeros((place_map.cells, place_map.cells, place_map.heights), bool)
    along = np.arange(blocks)
    solid[(along, 8) if axis == 0 else (8, along)] = np.arange(place_map.heights) < HIGH
    painted = np.full((HIGH * TEXELS, blocks * TEXELS), CREAM)
    painted[:17] = CORAL
    painted[:, 21] = DARK
    painted[:, 33:36] = CORAL
    place_map.fill(torch.from_numpy(np.flatnonzero(solid)), torch.zeros(int(solid.sum()), 3))
    for code, colour in PALETTE.items():
        place_map.palette[code] = torch.tensor(colour)
    return place_map, painted


def face(place_map: PlaceMap, painted: np.ndarray, axis: int, without: tuple[int, ...] = ()) -> None:
    """Give its wall's blocks faces with what is painted there, but for those `without` along it."""
    at, what = [], []
    for along in range(painted.shape[1] // TEXELS):
        for up in range(HIGH):
            if along not in without:
                row, column = (along, 8) if axis == 0 else (8, along)
                at.append((row * place_map.cells + column) * place_map.heights + up)
                part = painted[TEXELS * up : TEXELS * (up + 1), TEXELS * along : TEXELS * (along + 1)]
                what.append(part.flatten())
    plane = torch.full((len(at),), axis * STEPS + DEEP)
    place_map.faces.fill(torch.tensor(at), plane, torch.from_numpy(np.stack(what)))


def shown(place_map: PlaceMap, axis: int, blocks: int = 12) -> np.ndarray:
    """What is on the wall's faces (up, along); 0 where there is none."""
    found = np.zeros((HIGH * TEXELS, blocks * TEXELS), int)
    for number, what in zip(place_map.faces.at.tolist(), place_map.faces.what.numpy(), strict=True):
        up, cell = number % place_map.heights, number // place_map.heights
        along = cell // place_map.cells if axis == 0 else cell % place_map.cells
        part = what.reshape(TEXELS, TEXELS)
        found[TEXELS * up : TEXELS * (up + 1), TEXELS * along : TEXELS * (along + 1)] = part
    return found


@pytest.mark.parametrize("axis", [0, 1])
def test_specks_at_arms_length_go_and_lines_stay(axis):
    """The bug: at arm's length walls had stains, squares and dashes of colours from beside them."""
    place_map, painted = wall_map(axis)
    rng = np.random.default_rng(axis)
    stained = painted.copy()
    for _ in range(40):
        stained[rng.integers(painted.shape[0]), rng.integers(painted.shape[1])] = rng.integers(1, 4)
    stained[24:26, 8:10] = DARK  # a blot
    face(place_map, stained, axis)
    changed = even_walls(place_map)["texels_evened"]
    wrong = (shown(place_map, axis) != painted).mean()
    assert changed > 0 and wrong < 0.3 * (stained != painted).mean(), (wrong, (stained != painted).mean())
    assert (shown(place_map, axis)[:, 21] == DARK).mean() > 0.7, "a line of one texel mostly stays"


def test_what_is_even_stays_as_it_is():
    place_map, painted = wall_map()
    face(place_map, painted, 0)
    assert even_walls(place_map) == {"texels_evened": 0.0, "corners_closed": 0.0}
    assert np.array_equal(shown(place_map, 0), painted)


def test_texels_that_nobody_saw_are_told_by_their_wall():
    place_map, painted = wall_map()
    unseen = painted.copy()
    unseen[20:24, 8:10] = 0
    face(place_map, unseen, 0)
    even_walls(place_map)
    assert np.array_equal(shown(place_map, 0), painted)


def test_a_wall_goes_on_at_its_corner():
    """The bug: a block at a corner, which both sides are seen of, had one colour: a square on the wall."""
    place_map, painted = wall_map()
    face(place_map, painted, 0, without=(0, 11))  # its ends, with air beside them on three sides
    closed = even_walls(place_map)["corners_closed"]
    assert closed == 2 * HIGH and (shown(place_map, 0) == painted).mean() > 0.99
    assert (place_map.faces.plane == DEEP).all()


def test_a_block_that_stands_alone_gets_no_face():
    place_map, painted = wall_map()
    alone = (3 * place_map.cells + 3) * place_map.heights + 2
    where, what = torch.cat([place_map.where, torch.tensor([alone])]), torch.cat([place_map.what, place_map.what[:1]])
    place_map.keep(where, what)
    face(place_map, painted, 0)
    assert even_walls(place_map)["corners_closed"] == 0


@pytest.mark.parametrize("plane", [2 * STEPS + DEEP, ROUGH, ROUGH + 1])
def test_floors_and_rough_things_stay_as_they_are(plane):
    place_map, painted = wall_map()
    stained = painted.copy()
    stained[30, 5] = DARK
    face(place_map, stained, 0)
    place_map.faces.plane[:] = plane
    assert even_walls(place_map)["texels_evened"] == 0 and np.array_equal(shown(place_map, 0), stained)


def test_another_wall_behind_tells_nothing():
    place_map, painted = wall_map()
    face(place_map, painted, 0)
    behind = (place_map.faces.at // place_map.heights // place_map.cells) == 5
    place_map.faces.plane[behind] = DEEP + 20
    place_map.faces.what[behind] = DARK
    even_walls(place_map)
    assert (place_map.faces.what[behind] == DARK).all(), "a post before the wall keeps its colour"
    assert np.array_equal(np.delete(shown(place_map, 0), np.s_[20:24], 1), np.delete(painted, np.s_[20:24], 1))


def test_the_median_is_what_most_are_and_the_own_one_among_equals():
    apart = np.abs(np.arange(4)[:, None] - np.arange(4)).astype(float)
    assert median(np.array([1, 3, 1, 1, 2]), 5, apart, 3)[0] == 1
    assert median(np.array([1, 2]), 2, apart, 2)[0] == 2 and median(np.array([1, 2]), 2, apart, 1)[0] == 1


def test_the_stage_makes_its_walls_even_unless_it_is_told_not_to(houses, tmp_path):
    counts = []
    for even in (True, False):
        config = ParallaxTraining(
            str(houses), preset="debug", steps=2, batch=2, walks=1, period=2048.0, levels=10, mapped=12, pictures=2,
            ego_from=0.4, faces=8, even=even,
        )  # fmt: skip
        train(config, tmp_path / str(even), quiet=True)
        counts.append((tmp_path / str(even) / "metrics.jsonl").read_text().count("texels_evened"))
    assert counts == [1, 0]
