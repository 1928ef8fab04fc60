"""Sources: which worlds there are to collect from, their maps, and how an engine loads each map.

Does not know about explorers, clips or how frames are stored.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from controls.errors import UserError
from generator.data import doom_map
from generator.data.engine import EngineConfig
from generator.data.navigation import WalkGrid
from generator.data.still_map import STILL, write_still

WORLDS = ("halls", "freedoom")
HALLS_MAPS = "0-23"
FREEDOOM_MAPS = "E1M1,E1M2,E2M2,MAP01,MAP04,MAP06,MAP11"
FREEDOOM_LIGHT = 16
STILL_MAP = "MAP01"
HOLD_OUT = 8  # every eighth map is never trained on


@dataclass(frozen=True)
class MapSource:
    """One map to record: its name in the engine, seed and theme (for the metadata), engine, held out or not.

    `narrow` worlds of corridors and closets are allowed more frames near walls.
    """

    name: str
    seed: int
    theme: str
    engine: EngineConfig
    held: bool
    grid: WalkGrid | None = None
    doors: bool = False
    narrow: bool = False

    def walk_grid(self) -> WalkGrid:
        """Where one can walk on it; parsed from the WAD when the world brings no grid."""
        return self.grid or doom_map.walk_grid(doom_map.read_map(self.engine.wad, self.name))


def wad_path(name: str) -> Path:
    """Path of a game file inside the vizdoom package; UserError when vizdoom is not installed."""
    spec = importlib.util.find_spec("vizdoom")
    if spec is None or spec.origin is None:
        raise UserError("Collecting frames needs ViZDoom; run `pip install vizdoom`.")
    return Path(spec.origin).parent / name


def parse_range(text: str) -> tuple[int, int]:
    """First and last (inclusive) of '3-17' or '5'; UserError otherwise."""
    first, _, last = text.partition("-")
    try:
        low, high = int(first), int(last or first)
    except ValueError as error:
        raise UserError(f"Maps of halls are a range of numbers such as 0-23, not {text!r}.") from error
    if not 0 <= low <= high or high - low >= 99:
        raise UserError(f"The map range {text!r} is empty or larger than 99 maps; give one such as 0-23.")
    return low, high


def is_held(position: int, total: int) -> bool:
    """Whether the map at a position is held out: every eighth, and the last of a list of two to seven."""
    return position % HOLD_OUT == HOLD_OUT - 1 or (1 < total < HOLD_OUT and position == total - 1)


def open_maps(world: str, out: Path, seed: int, maps: str | None, size: str = "grand") -> list[MapSource]:
    """The maps of a world; builds halls into out/halls.pk3, a still map into out/NAME.wad. UserError on an unknown
    world, map or size of halls.
    """
    if world == "halls":
        return _halls(out, seed, maps or HALLS_MAPS, size)
    if world == "freedoom":
        return _still(out, maps) if size == STILL else _freedoom(maps or FREEDOOM_MAPS)
    raise UserError(f"Unknown world {world!r}; choose one of {', '.join(WORLDS)}.")


def _halls(out: Path, seed: int, maps: str, size: str) -> list[MapSource]:
    from generator.data.halls.maps import SIZES
    from generator.data.halls.pk3 import build

    if size not in SIZES:
        raise UserError(f"Unknown size of halls {size!r}; choose one of {', '.join(SIZES)}.")
    first, last = parse_range(maps)
    out.mkdir(parents=True, exist_ok=True)
    infos = build(seed, last - first + 1, out / "halls.pk3", first, size)
    config = EngineConfig(wad_path("freedoom2.wad"), out / "halls.pk3")
    return [
        MapSource(
            name=info.name,
            seed=info.seed,
            theme=info.theme,
            engine=config,
            held=first < last and is_held(first + position, last + 1),  # one map alone is there to be trained on
            grid=WalkGrid(
                info.grid,
                info.floor,
                32,
                (float(info.origin[0]), float(info.origin[1])),
            ),
        )
        for position, info in enumerate(infos)
    ]


def _wads_of(maps: str) -> dict[str, Path]:
    """The WAD that each of these Freedoom maps is in."""
    names = [name.strip().upper() for name in maps.split(",") if name.strip()]
    wads = {name: wad_path(name) for name in ("freedoom1.wad", "freedoom2.wad")}
    where = {name: wad for wad in wads.values() for name in doom_map.map_names(wad)}
    unknown = [name for name in names if name not in where]
    if unknown or not names:
        raise UserError(f"Unknown Freedoom map {', '.join(unknown) or maps!r}; use E1M1 to E4M9 or MAP01 to MAP32.")
    return {name: where[name] for name in names}


def _still(out: Path, maps: str | None) -> list[MapSource]:
    where = _wads_of(maps or STILL_MAP)
    if len(where) != 1:
        raise UserError(f"A still place is one map, not {len(where)} ({', '.join(where)}); name one with --maps.")
    ((name, wad),) = where.items()
    own = write_still(wad, name, out / f"{name}.wad")
    grid = doom_map.walk_grid(doom_map.read_map(own, name))
    return [MapSource(name, 0, STILL, EngineConfig(wad, own), held=False, grid=grid, narrow=True)]


def _freedoom(maps: str) -> list[MapSource]:
    where = _wads_of(maps)
    return [
        MapSource(
            name=name,
            seed=0,
            theme="freedoom",
            engine=EngineConfig(where[name], light=FREEDOOM_LIGHT),
            held=is_held(position, len(where)),
            doors=True,
            narrow=True,
        )
        for position, name in enumerate(where)
    ]
