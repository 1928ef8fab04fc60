"""Settings: what a player has chosen, in a small YAML file, and where the program keeps its own files.

Does not know about windows or devices.
"""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import platformdirs
import yaml

from controls.errors import UserError
from controls.files import write_atomic
from controls.strict_yaml import did_you_mean, load_file

SCALINGS = ("smooth", "integer")
HUDS = ("off", "fps", "full")
DETAILS = ("full", "light", "auto")
CHOICES = {"scaling": SCALINGS, "hud": HUDS, "detail": DETAILS}


@dataclass(frozen=True)
class Settings:
    """`sensitivity` in degrees per pixel of mouse motion; `scaling` one of SCALINGS, `hud` of HUDS; `volume` 0 to 1.

    `ahead`, 0 to 1: how much of the look that no generated frame shows yet the window shows by shifting the last one.
    `dead_zone` is a share of a stick's way; `window_scale` a whole factor of the world's picture, 0: as the window is.
    `inputs`: what the world receives is shown. `reanchor`: a picture that has drifted is brought back by itself;
    `calls` of the network make a latent frame. `detail`, one of DETAILS: whether fine detail is left out, which takes
    a fifth less time; "auto": once this machine falls behind.
    """

    sensitivity: float = 0.12
    invert: bool = False
    scaling: str = "smooth"
    volume: float = 0.8
    fullscreen: bool = False
    hud: str = "off"
    inputs: bool = False
    ahead: float = 0.75
    dead_zone: float = 0.18
    muted: bool = False
    window_scale: int = 0
    reduced_motion: bool = False
    flash_guard: bool = True
    reanchor: bool = False
    calls: int = 1
    detail: str = "full"


LIMITS = {
    "sensitivity": (0.005, 2.0),
    "volume": (0.0, 1.0),
    "ahead": (0.0, 1.0),
    "dead_zone": (0.0, 0.9),
    "window_scale": (0, 12),
    "calls": (1, 10),
}


def config_folder() -> Path:
    """The folder for what a player has chosen, settings and bindings: FARSTEP_HOME, or the system's usual place."""
    if home := os.environ.get("FARSTEP_HOME"):
        return Path(home)
    return platformdirs.user_config_path("farstep", appauthor=False)


def state_folder() -> Path:
    """The folder for the log, and for settings of older versions: FARSTEP_HOME, or the system's usual place."""
    if home := os.environ.get("FARSTEP_HOME"):
        return Path(home)
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA", str(Path.home()))) / "Farstep"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "Farstep"
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "farstep"


def data_folder() -> Path:
    """The folder for what a player makes, saved places and pictures: FARSTEP_HOME, or the system's usual place."""
    if home := os.environ.get("FARSTEP_HOME"):
        return Path(home)
    return platformdirs.user_data_path("farstep", appauthor=False)


def log_path() -> Path | None:
    """The log file in a folder that exists and can be written, else None."""
    folder = state_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return folder / "farstep.log" if os.access(folder, os.W_OK) else None
    except OSError:
        return None


def load_settings(path: Path) -> Settings:
    """Read settings, the defaults when there is no file; UserError with the line on a wrong name or value."""
    if not os.path.lexists(path):
        return Settings()
    document = load_file(path)
    data = document.mapping((), document.data or {}, [field.name for field in fields(Settings)])
    kinds: dict[str, type] = {field.name: type(field.default) for field in fields(Settings)}
    for name, value in data.items():
        kind = kinds[name]
        if type(value) not in ((float, int) if kind is float else (kind,)):
            raise document.error(
                (name,),
                f"{name} is {value!r}; give a value such as {getattr(Settings(), name)!r}.",
            )
        low, high = LIMITS.get(name, (value, value))
        if not low <= value <= high:
            raise document.error((name,), f"{name} is {value!r}; give a value from {low} to {high}.")
    for name, known in CHOICES.items():
        if data.get(name, known[0]) not in known:
            problem = f"unknown {name} {data[name]!r}{did_you_mean(data[name], known)}."
            raise document.error((name,), problem)
    return Settings(**data)


def save_settings(settings: Settings, path: Path) -> bool:
    """Write settings atomically; False when the disk refuses (playing goes on)."""
    try:
        write_atomic(path, yaml.safe_dump(asdict(settings), sort_keys=False))
        return True
    except UserError:
        return False
