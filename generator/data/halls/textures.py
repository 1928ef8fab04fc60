"""Clean textures for *Halls*: flat colour, soft vertical gradient, thick lines; drawn as palette indices
and written as PNG.

A wall texture is drawn for the exact height of the wall it hangs on, so every wall has its base at the
floor and its cornice at the top. It is stored as high as the next power of two, the picture from row 0 on and
the rest filled by `fill_up`: the renderer takes texel rows modulo that power whatever the texture's own height,
rounds to the row before the first (or after the last) where a wall ends, and would read outside the texture
there: another column, or after the last column whatever lies in the heap, so that no two runs looked alike.
Names: T<theme><family letter><height/16, two digits> for walls, F<theme><letter> for floors and ceilings.
Does not know: maps, sectors, light.
"""

import struct
import zlib

import numpy as np

from generator.data.halls.palette import colours, index

WIDTH = 128
UNIT = 16
WALLS = {
    "W": ("wall", "trim", "floor"),
    "P": ("wall", "trim", "accent"),
    "B": ("trim", "wall", "accent"),
    "C": ("floor", "trim", "accent"),
    "A": ("accent", "trim", "wall"),
    "Q": ("water", "trim", "accent"),
}


def wall_name(theme: int, family: str, height: int) -> str:
    """Texture name of a wall family at a height in units (a multiple of 16)."""
    return f"T{theme}{family}{height // UNIT:02d}"


def flat_name(theme: int, letter: str) -> str:
    """Texture name of a floor or ceiling."""
    return f"F{theme}{letter}"


def draw(name: str) -> np.ndarray:
    """Palette indices of the texture called `name`, uint8 (height, width)."""
    theme = int(name[1])
    if name[0] == "F":
        return _flat(theme, name[2])
    family, height = name[2], int(name[3:]) * UNIT
    if family == "K":
        return _jamb(theme, height)
    if family == "O":
        return _column(theme, height)
    if family == "S":
        return _step(theme, height)
    if family == "H":
        return _hedge(theme, height)
    if family == "L":
        return _lamp(theme, height)
    return _wall(theme, family, height)


def fill_up(picture: np.ndarray) -> np.ndarray:
    """`picture` (height, width) filled below to a power of two in height, where only rounding reads.

    The upper half of the filling repeats the last row, the lower half the first: the renderer wraps around.
    """
    height = len(picture)
    missing = (1 << (height - 1).bit_length()) - height
    below = picture[-1:].repeat(missing - missing // 2, 0)
    return np.concatenate([picture, below, picture[:1].repeat(missing // 2, 0)])


def _fall(height: int) -> np.ndarray:
    """Light falling down a wall, measured from its top so that walls along stairs match."""
    return (7.6 - 2.4 * np.minimum(np.arange(height) / 208.0, 1.0))[:, None].repeat(WIDTH, 1)


def _gradient(height: int, low: float, high: float) -> np.ndarray:
    return np.linspace(high, low, height)[:, None].repeat(WIDTH, 1)


def _wall(theme: int, family: str, height: int) -> np.ndarray:
    body, trim, base = WALLS[family]
    shade = _fall(height)
    out = index(theme, body, shade)
    if height < 64:
        out[:6] = index(theme, trim, 8)
        out[6:9] = index(theme, body, 4)
        return out
    if family in "WC" and height >= 96:
        for y in range(78, height - 40, 64):
            out[y : y + 4] = index(theme, body, 4)
    if family in "PAQ" and height >= 96:
        out[:, :20] = index(theme, trim, shade[:, :20])
        out[:, 20:24] = index(theme, body, 3.6)
        out[:, 124:] = index(theme, trim, 5)
    if family == "B":
        out[:, :4] = index(theme, trim, 5)
        out[30:42] = index(theme, base, 6)
    out[height - 16 :] = index(theme, base, 4)
    out[height - 20 : height - 16] = index(theme, trim, 6)
    out[:14] = index(theme, trim, 8)
    out[14:18] = index(theme, trim, 5)
    return out


def _jamb(theme: int, height: int) -> np.ndarray:
    out = index(theme, "trim", np.maximum(_fall(height), 6.6))
    if height >= 64:
        out[height - 16 :] = index(theme, "accent", 4.6)
    return out


def _column(theme: int, height: int) -> np.ndarray:
    across = 8.6 - 3.2 * (np.abs(np.arange(WIDTH) % 32 - 12.0) / 20.0)
    out = index(theme, "trim", across[None, :].repeat(height, 0))
    if height >= 64:
        out[:20] = index(theme, "accent", 6)
        out[20:24] = index(theme, "trim", 4)
        out[height - 20 :] = index(theme, "accent", 4.6)
        out[height - 24 : height - 20] = index(theme, "trim", 5)
    return out


def _step(theme: int, height: int) -> np.ndarray:
    out = index(theme, "trim", _gradient(height, 4.6, 5.4))
    out[:4] = index(theme, "trim", 9)
    return out


def _hedge(theme: int, height: int) -> np.ndarray:
    role = "accent" if theme in (2, 3) else "water"
    out = index(theme, role, _gradient(height, 3.6, 6.6))
    out[:4] = index(theme, role, 8)
    return out


def _lamp(theme: int, height: int) -> np.ndarray:
    out = index(theme, "accent", _gradient(height, 6.4, 9.4))
    out[height - 8 :] = index(theme, "floor", 3)
    return out


def _flat(theme: int, letter: str) -> np.ndarray:
    side = 128
    y, x = np.mgrid[0:side, 0:side]
    checker = ((x // 64) + (y // 64)) % 2
    edge = np.minimum(np.minimum(x % 64, 63 - x % 64), np.minimum(y % 64, 63 - y % 64))
    if letter == "T":
        out = np.where(checker > 0, index(theme, "floor", 7), index(theme, "floor", 6))
        return np.where(edge < 2, index(theme, "floor", 5), out)
    if letter == "D":
        big = np.minimum(np.minimum(x, 127 - x), np.minimum(y, 127 - y))
        diamond = np.abs(x - 63.5) + np.abs(y - 63.5)
        out = np.where(diamond < 30, index(theme, "accent", 6), index(theme, "floor", 7))
        return np.where(big < 3, index(theme, "floor", 4.6), out)
    if letter == "S":
        out = np.where(checker > 0, index(theme, "wall", 7), index(theme, "wall", 6))
        return np.where(edge < 2, index(theme, "wall", 5), out)
    if letter == "P":
        out = np.full((side, side), index(theme, "trim", 7))
        return np.where(edge < 3, index(theme, "trim", 5.4), out)
    if letter == "W":
        wave = (y // 16) % 4
        return np.where(wave == 0, index(theme, "water", 7), index(theme, "water", 6))
    if letter == "C":
        coffer = np.minimum(np.minimum(x, 127 - x), np.minimum(y, 127 - y))
        out = np.where(coffer < 14, index(theme, "trim", 6), index(theme, "wall", 6))
        return np.where((coffer >= 14) & (coffer < 18), index(theme, "wall", 4), out)
    if letter == "K":
        return np.full((side, side), index(theme, "trim", 7))
    if letter == "G":
        role = "accent" if theme in (2, 3) else "water"
        return np.full((side, side), index(theme, role, 7))
    if letter in "EV":
        return np.full((side, side), index(theme, "accent" if letter == "E" else "water", 5.6))
    assert letter == "L", letter
    return np.full((side, side), index(theme, "accent", 9))


def png(indices: np.ndarray) -> bytes:
    """A palette PNG of `indices` uint8 (Y, X) with the colours of the world, the same bytes every time."""
    height, width = indices.shape
    raw = np.concatenate([np.zeros((height, 1), np.uint8), np.ascontiguousarray(indices, np.uint8)], 1).tobytes()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"PLTE", colours().tobytes())
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")
