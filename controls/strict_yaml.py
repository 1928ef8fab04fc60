"""Strict YAML: `safe_load` behind refusals, for every file that a person may write by hand.

Refused, each with its line: duplicate keys, keys that are not text, aliases and anchors, tags, merge keys,
deep nesting, several documents, files that are too large or not UTF-8. Helpers check types and suggest the
nearest known name.

Does not know what any file means.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import yaml

from controls.errors import UserError

MAX_BYTES = 64 * 1024
MAX_DEPTH = 12
Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Document:
    """Plain data of one file, and the line on which each part starts (by path of keys and indices)."""

    name: str
    data: Any
    lines: dict[Path, int] = field(default_factory=dict)

    def error(self, path: Path, problem: str) -> UserError:
        """A UserError that names the file and the line of `path`."""
        while path and path not in self.lines:
            path = path[:-1]
        return UserError(f"{self.name}, line {self.lines.get(path, 1)}: {problem}")

    def mapping(self, path: Path, value: Any, allowed: Iterable[str]) -> dict[str, Any]:
        """`value` as a mapping that has only `allowed` keys."""
        known = list(allowed)
        if not isinstance(value, dict):
            raise self.error(
                path,
                f"expected `name: value` pairs ({', '.join(known)}), found {value!r}.",
            )
        for key in value:
            if key not in known:
                raise self.error((*path, key), f"unknown name {key!r}{did_you_mean(key, known)}.")
        return value

    def texts(self, path: Path, value: Any) -> tuple[str, ...]:
        """`value` as a list of texts; a single text counts as a list of one."""
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list):
            raise self.error(path, f"expected a list of names such as [w, up], found {value!r}.")
        for index, item in enumerate(items):
            if not isinstance(item, str):
                problem = f"{item!r} is not text; put it in quotes, as in '{item}'."
                raise self.error((*path, index), problem)
        return tuple(items)

    def number(self, path: Path, value: Any, low: float, high: float) -> float:
        """`value` as a finite number in [low, high]."""
        number = not isinstance(value, bool) and isinstance(value, int | float)
        if not number or not math.isfinite(value) or not low <= value <= high:
            problem = f"{path[-1]} must be a plain number from {low:g} to {high:g}, found {value!r}."
            raise self.error(path, problem)
        return float(value)

    def whole(self, path: Path, value: Any, low: int, high: int) -> int:
        """`value` as a whole number in [low, high]."""
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.error(
                path,
                f"{path[-1]} must be a whole number from {low} to {high}, found {value!r}.",
            )
        return value


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """`; did you mean 'forward'?` or, with nothing near, `; known: ...` (without a closing full stop)."""
    options = sorted(set(known))
    near = difflib.get_close_matches(str(name).lower(), options, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    listed = ", ".join(options[:24]) + (", ..." if len(options) > 24 else "")
    return f"; known: {listed}"


def read_text(path: FilePath, max_bytes: int = MAX_BYTES) -> str:
    """A small UTF-8 file; UserError when it is missing, too large or not text."""
    try:
        with path.open("rb") as file:
            raw = file.read(max_bytes + 1)
    except OSError as error:
        raise UserError(f"Cannot read {path} ({error.strerror}); check the name and its permissions.") from error
    if len(raw) > max_bytes:
        raise UserError(f"{path} is larger than {max_bytes:,} bytes; shorten it or split it.")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}); save it again as UTF-8.") from error


def load_file(path: FilePath, max_bytes: int = MAX_BYTES) -> Document:
    """Read one strict YAML file; UserError with the line on anything refused."""
    return load_text(read_text(path, max_bytes), str(path))


def load_text(text: str, name: str) -> Document:
    """Read strict YAML from `text`; `name` stands for the file in error messages."""
    try:
        _refuse_events(text, name)
        node = yaml.compose(text, yaml.SafeLoader)
        lines: dict[Path, int] = {}
        if node is not None:
            _index(node, (), lines, name)
        return Document(name, yaml.safe_load(text), lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _refusal(name, mark, f"not readable as YAML ({error.problem or error.context})") from error
    except (yaml.YAMLError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{name} is not readable as YAML ({reason}); correct it or restore the original.") from error


def _refusal(name: str, mark: Any, problem: str) -> UserError:
    return UserError(f"{name}, line {mark.line + 1 if mark else 1}: {problem}.")


def _refuse_events(text: str, name: str) -> None:
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _refusal(
                name,
                event.start_mark,
                "aliases (& and *) are not allowed; write the value out",
            )
        tag = getattr(event, "tag", None)
        if tag:
            raise _refusal(name, event.start_mark, f"the tag {tag!r} is not allowed; remove it")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise _refusal(
                name,
                event.start_mark,
                f"nested more than {MAX_DEPTH} levels deep; flatten it",
            )


def _index(node: yaml.Node, path: Path, lines: dict[Path, int], name: str) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _index(item, (*path, index), lines, name)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.tag != "tag:yaml.org,2002:str":
                shown = getattr(key, "value", "a list")
                raise _refusal(
                    name,
                    key.start_mark,
                    f"the name {shown!r} is not text; put it in quotes",
                )
            if (*path, key.value) in lines:
                raise _refusal(
                    name,
                    key.start_mark,
                    f"{key.value!r} stands twice; keep one of them",
                )
            lines[(*path, key.value)] = key.start_mark.line + 1
            _index(value, (*path, key.value), lines, name)
