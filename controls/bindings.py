"""Bindings: which source (key, button, stick direction) drives which named input, as data.

A *source* is a device-neutral name such as `w`, `mouse left` or `pad left stick up`; a *named input* is a key
of the action spec, one of the look inputs, or one of `WINDOW_INPUTS`, asked of the window. One source
drives one input; an input may have many sources.

Does not know about devices, events, pixels or the window's own keys (a caller passes those as `reserved`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from controls.action import ActionSpec
from controls.errors import UserError
from controls.files import write_atomic
from controls.strict_yaml import Document, did_you_mean, load_file

FORMAT = 1
LOOK_INPUTS = ("turn_left", "turn_right", "look_up", "look_down")
WINDOW_INPUTS = ("reanchor",)  # asked of the window, not of the world
DEFAULT_BINDINGS = Path(__file__).resolve().parent.parent / "assets" / "bindings.yaml"

_KEYBOARD = """space return tab escape backspace delete insert home end up down left right
left_shift right_shift left_ctrl right_ctrl left_alt right_alt caps_lock enter page_up page_down"""
_PAD = """a b x y back start guide left_shoulder right_shoulder left_trigger right_trigger
dpad_up dpad_down dpad_left dpad_right left_stick_press right_stick_press"""
STICK_SIDES = ("left", "right")
STICK_DIRECTIONS = ("left", "right", "up", "down")
STICK_SOURCES = tuple(f"pad {s} stick {d}" for s in STICK_SIDES for d in STICK_DIRECTIONS)
SOURCES = frozenset(
    [name.replace("_", " ") for name in _KEYBOARD.split()]
    + [f"f{number}" for number in range(1, 13)]
    + [
        f"mouse {button}"
        for button in (
            "left",
            "middle",
            "right",
            "back",
            "forward",
            "wheel up",
            "wheel down",
        )
    ]
    + ["pad " + name.replace("_", " ") for name in _PAD.split()]
    + list(STICK_SOURCES)
)


def is_source(name: str) -> bool:
    """Whether `name` can be bound: listed, one printable character, or a keypad key such as `[4]`."""
    single = len(name) == 1 and name.isprintable() and name == name.lower() and not name.isspace()
    keypad = len(name) == 3 and name[0] == "[" and name[2] == "]"
    return name in SOURCES or single or keypad


@dataclass(frozen=True)
class Bindings:
    """`inputs` maps a named input to its sources; `toggle` names inputs that flip with each press."""

    inputs: Mapping[str, tuple[str, ...]]
    toggle: tuple[str, ...] = ()

    def input_of(self, source: str) -> str | None:
        """The named input that `source` drives, None when unbound."""
        return next((name for name, sources in self.inputs.items() if source in sources), None)

    def by_source(self) -> dict[str, str]:
        """source -> named input."""
        return {source: name for name, sources in self.inputs.items() for source in sources}

    def unbound(self, spec: ActionSpec) -> tuple[str, ...]:
        """Keys of `spec` that no source drives, for a warning in the settings."""
        return tuple(key for key in spec.keys if not self.inputs.get(key))

    def rebind(self, name: str, *sources: str, reserved: Collection[str] = ()) -> Bindings:
        """The same bindings with `name` driven by `sources` only; UserError when one is taken or unknown."""
        if name not in self.inputs:
            raise UserError(f"Unknown input {name!r}{did_you_mean(name, self.inputs)}.")
        for source in sources:
            owner = self.input_of(source)
            if problem := _source_problem(source, name, owner if owner != name else None, reserved):
                raise UserError(problem[0].upper() + problem[1:])
        return replace(self, inputs={**self.inputs, name: tuple(dict.fromkeys(sources))})

    def assign(self, name: str, source: str, reserved: Collection[str] = ()) -> Bindings:
        """The same with `name` driven by `source`, taken from any other input, in place of its sources of that family.

        A family is keyboard and mouse, or the pad. UserError when the source is unknown or reserved.
        """
        free = {key: tuple(s for s in sources if s != source) for key, sources in self.inputs.items()}
        kept = tuple(s for s in free.get(name, ()) if is_pad(s) != is_pad(source))
        return replace(self, inputs=free).rebind(name, *_in_order(kept, source), reserved=reserved)

    def without(self, name: str) -> Bindings:
        """The same with no source for `name`; UserError when there is no such input."""
        return self.rebind(name)

    def toggled(self, name: str) -> Bindings:
        """The same with `name` flipping with each press where it was held, and the other way round."""
        others = tuple(key for key in self.toggle if key != name)
        return replace(self, toggle=others if name in self.toggle else (*others, name))


def is_pad(source: str) -> bool:
    """Whether a source belongs to a gamepad."""
    return source.startswith("pad ")


def _in_order(kept: tuple[str, ...], source: str) -> tuple[str, ...]:
    return (*kept, source) if is_pad(source) else (source, *kept)


def load_bindings(
    path: Path = DEFAULT_BINDINGS,
    spec: ActionSpec | None = None,
    reserved: Collection[str] = (),
) -> Bindings:
    """Read a bindings file; UserError with its line on a wrong name, type or conflict.

    Inputs the file leaves out stay unbound; `reserved` are sources that the window keeps for itself.
    """
    return parse_bindings(load_file(path), spec or ActionSpec(), reserved)


def parse_bindings(document: Document, spec: ActionSpec, reserved: Collection[str] = ()) -> Bindings:
    """`load_bindings` on a document that has been read."""
    top = document.mapping((), document.data, ("format", "inputs", "toggle"))
    if top.get("format") != FORMAT:
        found = top.get("format")
        raise document.error(
            ("format",),
            f"format is {found!r}, this version reads {FORMAT}; start from the default.",
        )
    known = tuple(dict.fromkeys((*spec.keys, *LOOK_INPUTS, *WINDOW_INPUTS)))
    given = document.mapping(("inputs",), top.get("inputs"), known)
    inputs: dict[str, tuple[str, ...]] = dict.fromkeys(known, ())
    owners: dict[str, str] = {}
    for name, value in given.items():
        inputs[name] = document.texts(("inputs", name), value)
        for index, source in enumerate(inputs[name]):
            if problem := _source_problem(source, name, owners.get(source), reserved):
                raise document.error(("inputs", name, index), problem)
            owners[source] = name
    toggle = document.texts(("toggle",), top.get("toggle", []))
    for index, name in enumerate(toggle):
        if name not in spec.keys:
            raise document.error(
                ("toggle", index),
                f"unknown input {name!r}{did_you_mean(name, spec.keys)}.",
            )
    return Bindings(inputs, toggle)


def _source_problem(source: str, name: str, owner: str | None, reserved: Collection[str]) -> str | None:
    if not is_source(source):
        return f"unknown source {source!r} for {name}{did_you_mean(source, SOURCES)}."
    if owner is not None:
        return f"{source!r} is bound to both {owner} and {name}; take it from one of them."
    if source in reserved:
        return f"{source!r} for {name} is one of the window's own keys; choose another."
    return None


def save_bindings(bindings: Bindings, path: Path) -> None:
    """Write a bindings file that `load_bindings` reads back equal; atomic; UserError when it cannot."""
    data = {
        "format": FORMAT,
        "inputs": {name: list(sources) for name, sources in bindings.inputs.items()},
        "toggle": list(bindings.toggle),
    }
    write_atomic(path, yaml.safe_dump(data, sort_keys=False, allow_unicode=True))
