"""The world Halls: same bytes for a seed, joined maps, sound palette, and an engine that loads it."""

import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from generator.data.halls.endless import COURT, LEVELS
from generator.data.halls.endless import LEVEL as COURT_FLOOR
from generator.data.halls.layout import EXTENTS, make_plan
from generator.data.halls.maps import draw_map, reachable
from generator.data.halls.palette import THEMES, colormap, colours, index, playpal
from generator.data.halls.pk3 import build, map_infos
from generator.data.halls.textures import draw, fill_up, png
from generator.data.halls.udmf import MapWriter
from generator.data.sources import open_maps
from generator.tokenizer.place_map import BELOW, CELL


def test_the_same_seed_writes_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        build(seed, 2, tmp_path / name)
    first, again, other = ((tmp_path / name).read_bytes() for name in "abc")
    assert first == again
    assert first != other


def test_a_map_depends_on_world_seed_and_number_only(tmp_path: Path) -> None:
    build(3, 3, tmp_path / "all")
    build(3, 1, tmp_path / "one", first=2)
    with zipfile.ZipFile(tmp_path / "all") as a, zipfile.ZipFile(tmp_path / "one") as b:
        assert a.read("maps/MAP03.wad") == b.read("maps/MAP03.wad")
    alone = map_infos(3, 1, first=2)[0]
    assert alone.name == "MAP03"
    assert np.array_equal(alone.grid, map_infos(3, 3)[2].grid)


@pytest.mark.parametrize("number", range(10))
def test_every_walkable_cell_is_joined_to_the_start(number: int) -> None:
    _, theme, info = draw_map(5, number)
    assert info.theme == THEMES[theme].name
    start = (info.start[1] // info.cell, info.start[0] // info.cell)
    assert info.grid[start]
    assert np.array_equal(reachable(info.grid, info.floor, start), info.grid)
    assert info.grid.sum() > 2500
    assert info.grid.dtype == bool and info.floor.dtype == np.int16


@pytest.mark.parametrize("number", range(5))
def test_small_maps_have_fewer_rooms_and_are_joined(number: int) -> None:
    _, _, info = draw_map(5, number, "small")
    start = (info.start[1] // info.cell, info.start[0] // info.cell)
    assert np.array_equal(reachable(info.grid, info.floor, start), info.grid)
    assert 1200 < info.grid.sum() < 4000
    rooms = [len(make_plan(np.random.default_rng(seed), EXTENTS["small"]).rooms) for seed in range(20)]
    assert set(rooms) <= {5, 6, 7, 8} and len(set(rooms)) > 1


@pytest.mark.parametrize("number", range(5))
def test_the_endless_court_repeats_every_two_courts_and_no_sooner(number: int) -> None:
    canvas, theme, info = draw_map(5, number, "endless")
    assert info.theme == THEMES[theme].name
    start = (info.start[1] // info.cell, info.start[0] // info.cell)
    assert np.array_equal(reachable(info.grid, info.floor, start), info.grid)
    walked = np.argwhere(info.grid) * 2
    (top, left), (bottom, right) = walked.min(0), walked.max(0) + 2
    for name in ("floor", "ceil", "light", "ftex", "wall", "body", "sky", "solid"):
        plane = getattr(canvas, name)
        here = plane[top:bottom, left:right]
        for dy, dx in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
            y, x = (courts * COURT * 4 for courts in (dy, dx))
            assert np.array_equal(here, plane[top + y : bottom + y, left + x : right + x]), name
    assert not np.array_equal(canvas.ftex[top:bottom, left:right], canvas.ftex[top + 56 : bottom + 56, left:right])


def test_the_tops_of_obelisks_are_within_the_levels_of_a_map() -> None:
    """They were not: maps ended at 28 levels, 488 units, and every obelisk lacked its top."""
    eye = COURT_FLOOR + 41  # of one who stands in a court
    for seed in range(12):
        canvas, _, _ = draw_map(seed, 0, "endless")
        assert canvas.floor.max() <= eye - BELOW + CELL * LEVELS, seed


def test_endless_maps_of_one_theme_differ_by_seed() -> None:
    infos = [draw_map(seed, 0, "endless")[0] for seed in range(4)]
    assert len({c.floor.tobytes() for c in infos}) > 1


def test_a_map_alone_is_trained_on_bug(tmp_path: Path) -> None:
    """Map 2 alone was held out as the last of maps 0-2, which left nothing to train on."""
    (only,) = open_maps("halls", tmp_path / "one", 3, "2-2", "endless")
    assert not only.held
    assert [m.held for m in open_maps("halls", tmp_path / "two", 3, "1-2", "endless")] == [False, True]


def test_lines_name_existing_sides_and_sectors() -> None:
    canvas, theme, info = draw_map(5, 1)
    writer = MapWriter(canvas, theme)
    text = writer.write(info.start, info.start_angle)
    assert text.count("linedef {") == len(writer.lines)
    assert writer.grid.max() == len(writer.sectors) - 1
    heights = np.array([ceil - floor for floor, ceil, *_ in writer.sectors])
    assert heights.min() > 0  # the renderer divides by a sector's height


def test_palette_and_colormap_have_the_engine_sizes() -> None:
    assert colours().shape == (256, 3)
    assert len(playpal()) == 14 * 768
    assert len(colormap()) == 34 * 256
    assert colormap()[:256] == bytes(range(256))
    assert len(THEMES) >= 4
    assert index(len(THEMES) - 1, "water", 9) <= 255


def test_textures_have_the_height_in_their_name_and_repeat_exactly() -> None:
    for family in "WPBCAQOSHLK":
        picture = draw(f"T1{family}12")
        assert picture.shape == (192, 128) and picture.dtype == np.uint8
        assert picture.min() > 0
    assert png(draw("F0T")) == png(draw("F0T"))


@pytest.mark.parametrize("height", [16, 48, 64, 192, 208, 272, 704])
def test_filling_up_keeps_the_picture_and_continues_its_edges(height: int) -> None:
    picture = draw(f"T1W{height // 16:02d}")
    filled = fill_up(picture)
    assert len(filled) in (16, 64, 256, 512, 1024) and len(filled) < 2 * height
    assert np.array_equal(filled[:height], picture)
    if len(filled) > height:
        assert np.array_equal(filled[height], picture[-1]) and np.array_equal(filled[-1], picture[0])


def test_every_texture_has_power_of_two_sides(tmp_path: Path) -> None:
    """The renderer reads outside any other: see textures.py."""
    build(3, 5, tmp_path / "all")
    with zipfile.ZipFile(tmp_path / "all") as pack:
        pictures = [name for name in pack.namelist() if name.endswith(".png")]
        assert len(pictures) > 100
        for name in pictures:
            width, height = struct.unpack(">II", pack.read(name)[16:24])
            assert width & (width - 1) == 0 and height & (height - 1) == 0, (name, width, height)


def test_the_engine_loads_a_map_and_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vzd = pytest.importorskip("vizdoom", reason="needs the vizdoom package")
    monkeypatch.chdir(tmp_path)  # the engine writes its settings where it runs
    info = build(5, 1, tmp_path / "halls.pk3")[0]
    game = vzd.DoomGame()
    game.set_doom_game_path(str(Path(vzd.__file__).parent / "freedoom2.wad"))
    game.set_doom_scenario_path(str(tmp_path / "halls.pk3"))
    game.set_doom_config_path(str(tmp_path / "vizdoom.ini"))
    game.set_doom_map(info.name)
    game.set_screen_resolution(vzd.ScreenResolution.RES_320X240)
    game.set_screen_format(vzd.ScreenFormat.RGB24)
    game.set_render_hud(False)
    game.set_window_visible(False)
    game.set_available_buttons([vzd.Button.MOVE_FORWARD])
    game.set_available_game_variables([vzd.GameVariable.POSITION_X, vzd.GameVariable.POSITION_Z])
    game.add_game_args("-nomonsters +snd_efx 0")
    game.init()
    try:
        for _ in range(12):
            game.make_action([0])
        state = game.get_state()
        x, z = state.game_variables
        assert x == info.start[0]
        assert z == info.floor[info.start[1] // info.cell, info.start[0] // info.cell]
        assert state.screen_buffer.mean() > 40
        assert len(np.unique(state.screen_buffer.reshape(-1, 3), axis=0)) > 8
    finally:
        game.close()
