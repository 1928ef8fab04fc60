"""Settings: what a player has chosen, in a small YAML file, and where the program keeps its own files.

Does not know about windows or devices.
"""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import yaml

from controls.errors import UserError
from controls.files import write_atomic
from controls.strict_yaml import did_you_mean, load_file

SCALINGS = ("smooth", "integer")


@dataclass(frozen=True)
class Settings:
    """`sensitivity` in degrees per pixel of mouse motion; `scaling` one of SCALINGS; `volume` 0 to 1."""

    sensitivity: float = 0.12
    invert: bool = False
    scaling: str = "smooth"
    volume: float = 0.8
    fullscreen: bool = False


LIMITS = {"sensitivity": (0.005, 2.0), "volume": (0.0, 1.0)}


def state_folder() -> Path:
    """The folder for settings and the log: FARSTEP_HOME, or the system's usual place."""
    if home := os.environ.get("FARSTEP_HOME"):
        return Path(home)
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA", str(Path.home()))) / "Farstep"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "Farstep"
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "farstep"


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
    if not path.exists():
        return Settings()
    document = load_file(path)
    data = document.mapping((), document.data or {}, [field.name for field in fields(Settings)])
    kinds = {field.name: type(field.default) for field in fields(Settings)}
    for name, value in data.items():
        kind = kinds[name]
        good = (
            isinstance(value, int | float) and not isinstance(value, bool) if kind is float else isinstance(value, kind)
        )
        if not good:
            raise document.error(
                (name,),
                f"{name} is {value!r}; give a value such as {getattr(Settings(), name)!r}.",
            )
        low, high = LIMITS.get(name, (value, value))
        if not low <= value <= high:
            raise document.error((name,), f"{name} is {value!r}; give a value from {low} to {high}.")
    if data.get("scaling", SCALINGS[0]) not in SCALINGS:
        problem = f"unknown scaling {data['scaling']!r}{did_you_mean(data['scaling'], SCALINGS)}."
        raise document.error(("scaling",), problem)
    return Settings(**data)


def save_settings(settings: Settings, path: Path) -> bool:
    """Write settings atomically; False when the disk refuses (playing goes on)."""
    try:
        write_atomic(path, yaml.safe_dump(asdict(settings), sort_keys=False))
        return True
    except UserError:
        return False
