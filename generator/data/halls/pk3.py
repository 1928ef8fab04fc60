"""*Halls* as one PK3 file for the engine: palette, textures, skies and maps, the same bytes for the same
seed.

Does not know: the engine, how a map is drawn.
"""

import io
import zipfile
from pathlib import Path

from controls.files import write_atomic
from generator.data.halls.maps import MapInfo, draw_map
from generator.data.halls.palette import THEMES, colormap, playpal
from generator.data.halls.sky import draw_sky
from generator.data.halls.textures import draw, fill_up, png
from generator.data.halls.udmf import MapWriter, pack_wad

STAMP = (1980, 1, 1, 0, 0, 0)


def map_infos(seed: int, maps: int, first: int = 0, size: str = "grand") -> list[MapInfo]:
    """The infos of `maps` maps of world `seed`, from number `first`, without writing anything."""
    return [draw_map(seed, first + i, size)[2] for i in range(maps)]


def build(seed: int, maps: int, out: Path, first: int = 0, size: str = "grand") -> list[MapInfo]:
    """Write `maps` maps of world `seed`, from number `first`, to the PK3 `out`; MAP names count from first + 1.

    `size` is one of SIZES.
    UserError when the disk refuses.
    """
    assert maps >= 1 and first >= 0 and first + maps <= 999, (maps, first)
    entries: dict[str, bytes] = {"PLAYPAL.pal": playpal(), "COLORMAP.lmp": colormap()}
    names: set[str] = set()
    infos, themes = [], set()
    mapinfo = ""
    for number in range(first, first + maps):
        canvas, theme, info = draw_map(seed, number, size)
        writer = MapWriter(canvas, theme)
        text = writer.write(info.start, info.start_angle)
        names |= writer.names
        themes.add(theme)
        infos.append(info)
        lumps = [(info.name, b""), ("TEXTMAP", text.encode()), ("ENDMAP", b"")]
        entries[f"maps/{info.name}.wad"] = pack_wad(lumps)
        mapinfo += f'map {info.name} "{info.title}" {{ sky1 = "SKYH{theme}", 0 }}\n'
    for name in sorted(names):
        entries[f"textures/{name}.png"] = png(fill_up(draw(name)))
    for theme in sorted(themes):
        entries[f"textures/SKYH{theme}.png"] = png(draw_sky(theme))
    entries["MAPINFO"] = mapinfo.encode()
    entries["HALLS.txt"] = "\n".join(["Halls", *(t.title for t in THEMES), ""]).encode()
    _write_zip(out, entries)
    return infos


def _write_zip(out: Path, entries: dict[str, bytes]) -> None:
    blob = io.BytesIO()
    with zipfile.ZipFile(blob, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as pack:
        for name in sorted(entries):
            entry = zipfile.ZipInfo(name, STAMP)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            pack.writestr(entry, entries[name])
    write_atomic(out, blob.getvalue())
