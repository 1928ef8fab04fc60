"""The colours of *Halls*: five composed themes, and the 256-colour PLAYPAL and COLORMAP made from them.

Every theme has five ramps (roles) of ten shades, 0 dark to 9 light; shadows lean to the theme's shade
colour and lights to its light colour, so that whatever the software renderer darkens stays inside the palette.
Does not know: textures, geometry, files.
"""

from dataclasses import dataclass

import numpy as np

SHADES = 10
ROLES = ("wall", "trim", "floor", "accent", "water")
LIGHT_LEVELS = 32


@dataclass(frozen=True)
class Theme:
    """One composed set of colours (RGB) and its light: `sky` is (zenith, middle, horizon), `glow` the sun
    or moon."""

    name: str
    title: str
    wall: tuple[int, int, int]
    trim: tuple[int, int, int]
    floor: tuple[int, int, int]
    accent: tuple[int, int, int]
    water: tuple[int, int, int]
    shade: tuple[int, int, int]
    light: tuple[int, int, int]
    sky: tuple[tuple[str, float], tuple[str, float], tuple[str, float]]
    glow: tuple[str, float]
    far: tuple[tuple[str, float], tuple[str, float]]
    sun_elevation: float
    day: int
    dusk: int
    lamps: bool


THEMES = (
    Theme(
        "golden",
        "Golden Court",
        (226, 174, 112),
        (250, 228, 184),
        (206, 142, 98),
        (186, 72, 52),
        (70, 190, 194),
        (70, 34, 52),
        (255, 246, 220),
        (("water", 5.5), ("water", 8.0), ("trim", 8.5)),
        ("trim", 9.0),
        (("wall", 6.5), ("accent", 4.5)),
        0.62,
        248,
        196,
        False,
    ),
    Theme(
        "moonlit",
        "Moonlit Cloister",
        (166, 186, 222),
        (226, 234, 248),
        (104, 128, 184),
        (250, 196, 108),
        (44, 74, 152),
        (16, 20, 56),
        (240, 246, 255),
        (("water", 1.6), ("water", 3.6), ("floor", 6.0)),
        ("trim", 9.0),
        (("floor", 4.0), ("water", 2.4)),
        0.8,
        232,
        176,
        True,
    ),
    Theme(
        "coral",
        "Coral Harbour",
        (240, 134, 112),
        (252, 222, 196),
        (238, 178, 140),
        (14, 92, 106),
        (84, 204, 196),
        (84, 26, 58),
        (255, 240, 226),
        (("accent", 6.0), ("water", 6.5), ("trim", 7.8)),
        ("trim", 9.0),
        (("accent", 6.2), ("accent", 4.6)),
        0.9,
        248,
        200,
        False,
    ),
    Theme(
        "dawn",
        "Dawn Garden",
        (244, 206, 208),
        (252, 246, 236),
        (196, 222, 184),
        (112, 172, 126),
        (186, 176, 226),
        (92, 74, 120),
        (255, 252, 244),
        (("water", 6.8), ("wall", 7.6), ("trim", 8.0)),
        ("trim", 9.0),
        (("water", 6.2), ("accent", 6.4)),
        0.7,
        252,
        212,
        False,
    ),
    Theme(
        "violet",
        "Violet Night",
        (112, 84, 168),
        (182, 160, 224),
        (70, 56, 124),
        (255, 184, 84),
        (196, 84, 156),
        (14, 8, 40),
        (255, 244, 236),
        (("floor", 1.8), ("floor", 4.6), ("water", 5.6)),
        ("accent", 8.0),
        (("wall", 4.2), ("floor", 2.6)),
        0.75,
        228,
        180,
        True,
    ),
)


def ramp(theme: Theme, role: str) -> np.ndarray:
    """The ten shades of one role, dark to light, float (10, 3)."""
    base = np.array(getattr(theme, role), float)
    shade, light = np.array(theme.shade, float), np.array(theme.light, float)
    dark = 0.72 * shade * (base / 255.0) ** 0.5 + 0.10 * base
    rows = []
    for i in range(SHADES):
        v = i / 7.0
        rows.append(dark + (base - dark) * v**0.9 if v <= 1 else base + (light - base) * (v - 1) * 1.6)
    return np.clip(np.array(rows), 0, 255)


def colours() -> np.ndarray:
    """The 256 colours of the world, uint8 (256, 3); index 0 is black and never used by a texture."""
    table = [np.zeros((1, 3))]
    table += [ramp(theme, role) for theme in THEMES for role in ROLES]
    table.append(np.linspace(40, 255, 5)[:, None].repeat(3, 1))
    out = np.round(np.concatenate(table)).astype(np.uint8)
    assert out.shape == (256, 3), out.shape
    return out


def index(theme: int, role: str, shade: float | np.ndarray) -> np.ndarray:
    """Palette index of a shade (0..9, rounded) of one role of theme number `theme`, uint8."""
    level = np.clip(np.round(shade), 0, SHADES - 1).astype(int)
    return (1 + (theme * len(ROLES) + ROLES.index(role)) * SHADES + level).astype(np.uint8)


def nearest(rgb: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Index of the nearest colour for each row of `rgb` (n, 3), with green weighted most, uint8 (n,)."""
    weight = np.array([0.55, 0.8, 0.45])
    distance = (((rgb[:, None, :].astype(float) - table[None, :, :].astype(float)) ** 2) * weight).sum(-1)
    distance[:, 0] += 40.0
    return distance.argmin(1).astype(np.uint8)


def playpal() -> bytes:
    """The PLAYPAL lump: the same 256 colours for all 14 screen tints (no red flashes), 10752 bytes."""
    return colours().tobytes() * 14


def colormap() -> bytes:
    """The COLORMAP lump: 32 light levels, then the inverse map, then zeros, 34 x 256 bytes.

    Darkness keeps each theme's tint.
    """
    table = colours()
    tint = np.full((256, 3), 12.0)
    for number, theme in enumerate(THEMES):
        start = 1 + number * len(ROLES) * SHADES
        tint[start : start + len(ROLES) * SHADES] = np.array(theme.shade, float) * 0.8
    rows = []
    for level in range(LIGHT_LEVELS):
        strength = 1.0 - level / LIGHT_LEVELS
        lit = table.astype(float) * strength + tint * (1 - strength) * 0.6
        rows.append(_within_theme(lit, table) if level else np.arange(256, dtype=np.uint8))
    grey = 255 - table.astype(float).mean(1, keepdims=True).repeat(3, 1)
    rows.append(nearest(grey, table))
    rows.append(np.zeros(256, np.uint8))
    return np.stack(rows).tobytes()


def _within_theme(lit: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Nearest colour inside the ramps of each colour's own theme, so that shades never jump to another
    theme's hue."""
    out = nearest(lit, table)
    span = len(ROLES) * SHADES
    for number in range(len(THEMES)):
        start = 1 + number * span
        rows = slice(start, start + span)
        out[rows] = start + (((lit[rows, None] - table[None, rows].astype(float)) ** 2).sum(-1)).argmin(1)
    return out
