"""Replay: actions in files and from scripts, in place of a player.

Two formats. An action file (`.jsonl`) is a recording: a header line with the ActionSpec, then one line per
latent frame; numbers are exact, so replayed actions encode to what live play fed the model. A script
(`.yaml`) is written by hand: a list of steps such as `- {hold: [forward, run], yaw: 1.5, frames: 24}`, yaw
and pitch in degrees per tick, `frames` counted in latent frames, `tap` pressing keys for the first tick of
the step only.

Does not know about worlds, devices, video or sessions.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from controls.action import Action, ActionSpec
from controls.errors import UserError
from controls.files import write_atomic
from controls.sampler import quantise_look
from controls.strict_yaml import Document, did_you_mean, load_file

FORMAT = 1
KIND = "farstep-actions"
MAX_LINE = 64 * 1024  # characters
MAX_FRAMES = 10_000_000  # latent frames; 19 days of play
BUILT_IN = ("idle", "forward", "spin", "stroll")


@dataclass(frozen=True)
class ActionFile:
    """A recording: `actions[k - 1]` led to latent frame k. `complete`: no crash cut the last line."""

    spec: ActionSpec
    actions: list[Action]
    meta: dict[str, Any] = field(default_factory=dict)
    complete: bool = True


def header_line(spec: ActionSpec, meta: Mapping[str, Any] | None = None) -> str:
    """The first line of an action file, with its line end; `meta` is plain JSON data."""
    return (
        _json(
            {
                "kind": KIND,
                "format": FORMAT,
                "action_spec": spec.to_dict(),
                "meta": dict(meta or {}),
            }
        )
        + "\n"
    )


def action_line(action: Action, frame_index: int) -> str:
    """The line of latent frame `frame_index` (from 1), with its line end; one `0`/`1` text per tick."""
    keys = ["".join(map(str, row)) for row in action.keys.tolist()]
    return _json({"k": frame_index, "keys": keys, "look": action.look.tolist()}) + "\n"


def _json(data: dict[str, Any]) -> str:
    return json.dumps(data, separators=(",", ":"), allow_nan=False)


class ActionWriter:
    """Appends actions to an open text file and flushes each line, so that a crash loses at most one."""

    def __init__(self, file: TextIO, spec: ActionSpec, meta: Mapping[str, Any] | None = None) -> None:
        self._file = file
        self.frame_index = 0
        self._write(header_line(spec, meta))

    def add(self, action: Action) -> None:
        """Write the action of the next latent frame."""
        self.frame_index += 1
        self._write(action_line(action, self.frame_index))

    def _write(self, line: str) -> None:
        self._file.write(line)
        self._file.flush()


def write_actions(
    path: Path,
    spec: ActionSpec,
    actions: Iterable[Action],
    meta: Mapping[str, Any] | None = None,
) -> None:
    """Write a whole action file atomically; UserError when it cannot be written."""
    lines = [action_line(action, index) for index, action in enumerate(actions, start=1)]
    write_atomic(path, header_line(spec, meta) + "".join(lines))


def read_actions(path: Path) -> ActionFile:
    """Read an action file; UserError with the line number on damage. A last line cut by a crash is lost."""
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            return _read_lines(file, path)
    except OSError as error:
        raise UserError(f"Cannot read {path} ({error.strerror}); check the name and its permissions.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text; it is damaged or not an action file.") from error


def _read_lines(file: TextIO, path: Path) -> ActionFile:
    header = _parse(file.readline(MAX_LINE), f"{path}, line 1")
    if header.get("kind") != KIND or header.get("format") != FORMAT:
        raise UserError(f"{path}, line 1: not a {KIND} file of format {FORMAT}; choose another file.")
    if not isinstance(header.get("meta", {}), dict):
        raise UserError(f"{path}, line 1: meta is not a JSON object; restore the file from its source.")
    spec = ActionSpec.from_dict(header.get("action_spec", {}))
    actions: list[Action] = []
    complete = True
    for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), ""), start=2):
        if not line.endswith("\n") and len(line) < MAX_LINE:
            complete = False
            break
        if len(actions) == MAX_FRAMES:
            raise UserError(f"{path}, line {number}: more than {MAX_FRAMES:,} latent frames; split the file.")
        where = f"{path}, line {number}"
        actions.append(_action_of(_parse(line, where), spec, len(actions) + 1, where))
    return ActionFile(spec, actions, dict(header.get("meta", {})), complete)


def _parse(line: str, where: str) -> dict[str, Any]:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not readable as JSON; cut the file before it or restore it.") from error
    if not isinstance(data, dict):
        raise UserError(f"{where}: expected a JSON object, found {line[:40]!r}; restore the file.")
    return data


def _action_of(data: dict[str, Any], spec: ActionSpec, frame_index: int, where: str) -> Action:
    if data.get("k") != frame_index:
        raise UserError(f"{where}: latent frame {data.get('k')!r} where {frame_index} is due; a line is missing.")
    keys, width = data.get("keys"), len(spec.keys)
    if not isinstance(keys, list) or len(keys) != spec.ticks or not all(_is_bits(row, width) for row in keys):
        raise UserError(f"{where}: keys must be {spec.ticks} texts of {width} zeros and ones, found {keys!r}.")
    try:
        look = np.array(data.get("look"), np.float64)
    except (TypeError, ValueError, OverflowError):
        look = np.zeros(0)
    if look.shape != (spec.ticks, 2) or not (np.abs(look) <= np.float32(spec.max_look)).all():
        problem = f"look must be {spec.ticks} pairs of degrees within +-{spec.max_look:g}"
        raise UserError(f"{where}: {problem}, found {data.get('look')!r}.")
    return Action(
        np.array([[int(bit) for bit in row] for row in keys], np.uint8),
        look.astype(np.float32),
    )


def _is_bits(row: object, width: int) -> bool:
    return isinstance(row, str) and len(row) == width and set(row) <= {"0", "1"}


@dataclass(frozen=True)
class Step:
    """One line of a script: keys held or tapped, look in degrees per tick, length in latent frames."""

    hold: tuple[str, ...] = ()
    tap: tuple[str, ...] = ()
    yaw: float = 0.0
    pitch: float = 0.0
    frames: int = 1

    def actions(self, spec: ActionSpec) -> Iterator[Action]:
        """The actions of this step, one per latent frame."""
        for index in range(self.frames):
            action = Action.hold(spec, *self.hold, yaw=self.yaw, pitch=self.pitch)
            if index == 0:
                action.keys[0, [spec.keys.index(name) for name in self.tap]] = 1
            yield action


def read_script(path: Path, spec: ActionSpec) -> list[Step]:
    """Read a YAML script; UserError with the line on anything that `spec` cannot play."""
    return parse_script(load_file(path), spec)


def parse_script(document: Document, spec: ActionSpec) -> list[Step]:
    """`read_script` on a document that has been read."""
    if not isinstance(document.data, list) or not document.data:
        raise document.error((), "a script is a list of steps such as `- {hold: [forward], frames: 24}`.")
    steps = []
    for index, entry in enumerate(document.data):
        data = document.mapping((index,), entry, ("hold", "tap", "yaw", "pitch", "frames"))
        names = {key: document.texts((index, key), data.get(key, [])) for key in ("hold", "tap")}
        for key, given in names.items():
            for name in given:
                if name not in spec.keys:
                    raise document.error(
                        (index, key),
                        f"unknown key {name!r}{did_you_mean(name, spec.keys)}.",
                    )
        limit = spec.max_look
        look = [document.number((index, key), data.get(key, 0), -limit, limit) for key in ("yaw", "pitch")]
        frames = document.whole((index, "frames"), data.get("frames", 1), 1, MAX_FRAMES)
        steps.append(Step(names["hold"], names["tap"], look[0], look[1], frames))
    if sum(step.frames for step in steps) > MAX_FRAMES:
        raise document.error((), f"the script is longer than {MAX_FRAMES:,} latent frames; shorten it.")
    return steps


class ScriptedActions:
    """A player that is not there: `next()` gives the action of the next latent frame, for ever.

    `source` makes a fresh iterator of actions; when it ends it starts again (`loop`) or idles.
    """

    def __init__(
        self,
        spec: ActionSpec,
        source: Callable[[], Iterator[Action]],
        loop: bool = False,
    ) -> None:
        self.spec = spec
        self._source = source
        self._loop = loop
        self.reset()

    def reset(self) -> None:
        """Start again with the action of latent frame 1."""
        self._actions = self._source()
        self._peeked = next(self._actions, None)

    @property
    def finished(self) -> bool:
        """True when the source has ended and idle actions follow."""
        return self._peeked is None

    def next(self) -> Action:
        """The action of the next latent frame."""
        action = self._peeked
        if action is None:
            return Action.idle(self.spec)
        self._peeked = next(self._actions, None)
        if self._peeked is None and self._loop:
            self.reset()
        return action


def open_actions(name: str, spec: ActionSpec, seed: int = 0, loop: bool = False) -> ScriptedActions:
    """Actions by name: built in (idle, forward, spin, stroll), a `.jsonl` recording or a YAML script.

    UserError when there is no such script or file, or when it does not fit `spec`.
    """
    if name in BUILT_IN:
        return built_in(name, spec, seed)
    path = Path(name)
    if path.suffix == ".jsonl":
        recording = read_actions(path)
        if recording.spec != spec:
            raise UserError(f"{path} was recorded with {recording.spec}; this world needs {spec}.")
        return ScriptedActions(spec, lambda: iter(recording.actions), loop)
    if path.suffix in (".yaml", ".yml"):
        steps = read_script(path, spec)
        return ScriptedActions(spec, lambda: (a for step in steps for a in step.actions(spec)), loop)
    raise UserError(f"Unknown actions {name!r}{did_you_mean(name, BUILT_IN)}; or give a .jsonl or .yaml file.")


def built_in(name: str, spec: ActionSpec, seed: int = 0) -> ScriptedActions:
    """One of BUILT_IN, endless; `seed` matters to `stroll` only."""
    if name == "stroll":
        return ScriptedActions(spec, lambda: _stroll(spec, seed))
    forward = [key for key in ("forward",) if key in spec.keys]
    steps = {
        "idle": Step(),
        "forward": Step(hold=tuple(forward)),
        "spin": Step(yaw=2.0),
    }
    if name not in steps:
        raise UserError(f"Unknown script {name!r}{did_you_mean(name, BUILT_IN)}.")
    return ScriptedActions(spec, lambda: steps[name].actions(spec), loop=True)


def _stroll(spec: ActionSpec, seed: int) -> Iterator[Action]:
    frame_index = 0
    while True:
        frame_index += 1
        yield stroll(spec, seed, frame_index)


def stroll(spec: ActionSpec, seed: int, frame_index: int) -> Action:
    """A visitor's walk: smooth turning, mostly forward, now and then running, sidestepping or standing.

    A function of (seed, frame_index >= 1) alone. Yaw has a standard deviation of about 2 degrees per tick.
    """
    phases = np.random.default_rng((seed, 0)).uniform(0, 2 * math.pi, (2, 3))
    ticks = (frame_index - 1) * spec.ticks + np.arange(spec.ticks)
    periods = np.array([61.0, 103.0, 227.0])[:, None]  # ticks; they do not line up for hours
    waves = np.sin(2 * math.pi * ticks / periods + phases[:, :, None]).sum(axis=1)
    look = quantise_look(np.stack([1.6 * waves[0], 0.25 * waves[1]], axis=-1), spec.max_look)
    draw = np.random.default_rng((seed, 1, frame_index // 9)).random(2)
    pace: tuple[str, ...] = ("forward",) if draw[0] < 0.7 else ("forward", "run") if draw[0] < 0.85 else ()
    side = ("left",) if draw[1] < 0.08 else ("right",) if draw[1] > 0.92 else ()
    action = Action.hold(spec, *(name for name in (*pace, *side) if name in spec.keys))
    return Action(action.keys, look)
