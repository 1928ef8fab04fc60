"""Presets, and building a config dataclass from plain data with "did you mean".

A preset is a table of numbers; the dataclasses that they fill stand above the classes that they configure.

Does not know what the numbers mean.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from controls.errors import UserError
from controls.strict_yaml import did_you_mean

T = TypeVar("T")

PICTURE = {"width": 256, "height": 160}
POCKET = {
    "latent_channels": 32,
    "height": 10,
    "width": 16,
    "model_width": 320,
    "depth": 8,
    "heads": 5,
    "window": 11,
    "sink": 0,
}

# dit: latent sizes must be the tokenizer's; window and sink count latent frames; windows: those of other resolutions
PRESETS: dict[str, dict[str, Any]] = {
    "debug": {
        "picture": {"width": 64, "height": 64},
        "tokenizer": "debug",
        "parallax": {"widths": (8, 8, 8, 8, 8), "hidden": 8},
        "dit": {
            "latent_channels": 8,
            "height": 4,
            "width": 4,
            "model_width": 32,
            "depth": 2,
            "heads": 2,
            "window": 4,
            "reproject": True,
        },
    },
    "pocket": {
        "picture": PICTURE,
        "tokenizer": "pocket",
        "parallax": {"hidden": 128},
        "dit": {**POCKET, "reproject": True},
    },
    # the paper's own architecture at pocket's size: it recycles the last frame as it is (`run.py compare`)
    "aapt-pocket": {
        "picture": PICTURE,
        "tokenizer": "pocket",
        "dit": POCKET,
    },
    "base": {
        "picture": PICTURE,
        "tokenizer": "paper",
        "dit": {
            "latent_channels": 16,
            "height": 20,
            "width": 32,
            "model_width": 768,
            "depth": 16,
            "heads": 12,
            "window": 30,
        },
    },
    # AAPT sections 3.1 and 4: the window shrinks to 15 at 720p; text_width is that of the T5 family's encoders (ours)
    "aapt-8b": {
        "picture": {"width": 736, "height": 416},
        "tokenizer": "paper",
        "windows": {(1280, 720): 15},
        "dit": {
            "latent_channels": 16,
            "height": 52,
            "width": 92,
            "model_width": 3072,
            "depth": 36,
            "heads": 24,
            "mlp_ratio": 4,
            "window": 30,
            "sink": 1,
            "text_width": 4096,
        },
    },
}


def preset(name: str) -> dict[str, Any]:
    """The preset's table; UserError when there is none of that name."""
    if name not in PRESETS:
        raise UserError(f"Unknown preset {name!r}{did_you_mean(name, PRESETS)}.")
    return PRESETS[name]


def parallax_sizes(name: str) -> dict[str, Any]:
    """The settings of a preset's parallax that are not its defaults."""
    return dict(preset(name).get("parallax", {}))


def build(cls: type[T], values: Mapping[str, Any], what: str) -> T:
    """A frozen dataclass from plain data; UserError on an unknown field or a value of the wrong kind."""
    hints = get_type_hints(cls)
    fields = {f.name: hints[f.name] for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    clean: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            raise UserError(f"Unknown {what} setting {key!r}{did_you_mean(key, fields)}.")
        clean[key] = _convert(value, fields[key], f"{what}.{key}")
    try:
        return cls(**clean)
    except TypeError as error:
        raise UserError(f"The {what} settings are incomplete: {error}.") from error


def override(config: T, settings: Iterable[str], what: str) -> T:
    """Apply `name=value` texts (from --set) to a dataclass; UserError on a bad one."""
    hints = get_type_hints(type(config))
    changes: dict[str, Any] = {}
    for text in settings:
        key, sign, value = text.partition("=")
        if not sign:
            raise UserError(f"--set {text!r} is not of the form name=value.")
        if key not in hints:
            raise UserError(f"Unknown {what} setting {key!r}{did_you_mean(key, hints)}.")
        changes[key] = _convert(value, hints[key], f"{what}.{key}")
    return dataclasses.replace(config, **changes)  # type: ignore[type-var]


def _convert(value: Any, kind: Any, name: str) -> Any:
    if get_origin(kind) is tuple:
        return _convert_tuple(value, get_args(kind), name)
    if kind not in (int, float, bool, str):
        return value
    try:
        if kind is bool and isinstance(value, str):
            return {"true": True, "false": False}[value.lower()]
        if kind is not bool and isinstance(value, bool):
            raise ValueError(value)
        converted = kind(value)
        if kind is int and float(value) != converted:
            raise ValueError(value)
        return converted
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise UserError(f"{name} = {value!r} is not a valid {kind.__name__}.") from error


def _convert_tuple(value: Any, kinds: tuple[Any, ...], name: str) -> tuple[Any, ...]:
    """A list, or a text such as 9,5,17, as a tuple of the wanted kinds; (int, ...) takes any length."""
    parts = value.split(",") if isinstance(value, str) else value
    wanted = kinds[:1] * len(parts) if isinstance(parts, (list, tuple)) and kinds[-1] is Ellipsis else kinds
    if not isinstance(parts, (list, tuple)) or len(parts) != len(wanted):
        raise UserError(f"{name} = {value!r} is not a list of the right length; give numbers with commas.")
    return tuple(_convert(part, kind, name) for part, kind in zip(parts, wanted, strict=True))
