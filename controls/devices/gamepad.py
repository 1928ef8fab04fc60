"""Gamepads: SDL controller events to sampler calls, with plugging and unplugging at any time.

SDL maps every known pad to one layout, so `pad a` is the same place on all of them, except on Nintendo's, where SDL
goes by the letter unless it is told otherwise. Several pads act as one; each has a kind, which says what is printed on
it. Joysticks SDL has no mapping for are ignored; `ignored` names them for a hint to the player.

Does not know what a button or a stick does, or how a kind of pad is drawn.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pygame
from pygame._sdl2 import controller

from controls.sampler import InputSampler

BUTTONS = {
    pygame.CONTROLLER_BUTTON_A: "pad a",
    pygame.CONTROLLER_BUTTON_B: "pad b",
    pygame.CONTROLLER_BUTTON_X: "pad x",
    pygame.CONTROLLER_BUTTON_Y: "pad y",
    pygame.CONTROLLER_BUTTON_BACK: "pad back",
    pygame.CONTROLLER_BUTTON_START: "pad start",
    pygame.CONTROLLER_BUTTON_GUIDE: "pad guide",
    pygame.CONTROLLER_BUTTON_LEFTSHOULDER: "pad left shoulder",
    pygame.CONTROLLER_BUTTON_RIGHTSHOULDER: "pad right shoulder",
    pygame.CONTROLLER_BUTTON_LEFTSTICK: "pad left stick press",
    pygame.CONTROLLER_BUTTON_RIGHTSTICK: "pad right stick press",
    pygame.CONTROLLER_BUTTON_DPAD_UP: "pad dpad up",
    pygame.CONTROLLER_BUTTON_DPAD_DOWN: "pad dpad down",
    pygame.CONTROLLER_BUTTON_DPAD_LEFT: "pad dpad left",
    pygame.CONTROLLER_BUTTON_DPAD_RIGHT: "pad dpad right",
}
TRIGGERS = {
    pygame.CONTROLLER_AXIS_TRIGGERLEFT: "pad left trigger",
    pygame.CONTROLLER_AXIS_TRIGGERRIGHT: "pad right trigger",
}
STICKS = {
    pygame.CONTROLLER_AXIS_LEFTX: ("left", 0),
    pygame.CONTROLLER_AXIS_LEFTY: ("left", 1),
    pygame.CONTROLLER_AXIS_RIGHTX: ("right", 0),
    pygame.CONTROLLER_AXIS_RIGHTY: ("right", 1),
}
AXIS_RANGE = 32767.0
DEAD_ZONE = 0.18  # of the way to the rim; worn sticks rest within it
TRIGGER_PRESS, TRIGGER_RELEASE = 0.5, 0.35
XBOX, PS3, PS4, PS5, NINTENDO = "xbox", "playstation 3", "playstation 4", "playstation 5", "nintendo"
NINTENDO_PLACES = "nintendo by place"  # SDL was told to call its buttons by where they are on other pads
KINDS = (XBOX, PS3, PS4, PS5, NINTENDO, NINTENDO_PLACES)
MICROSOFT, SONY, NINTENDO_USB = 0x045E, 0x054C, 0x057E  # makers, as USB and Bluetooth number them
SONY_PADS = {0x0268: PS3, 0x05C4: PS4, 0x09CC: PS4, 0x0BA0: PS4}
NAMED = (  # what pads of other makers call themselves; the first that is found
    (re.compile(r"x-?box|xinput|microsoft", re.I), XBOX),
    (re.compile(r"ps ?3|playstation\W*(r\W*)?3|dual ?shock ?3|sixaxis", re.I), PS3),
    (re.compile(r"ps ?4|playstation\W*(r\W*)?4|dual ?shock", re.I), PS4),
    (re.compile(r"ps ?5|playstation|dual ?sense|\bsony\b", re.I), PS5),
    (re.compile(r"nintendo|switch|joy-?con|\bnsw\b", re.I), NINTENDO),
)
LETTERS = "SDL_GAMECONTROLLER_USE_BUTTON_LABELS"  # SDL's switch, on unless set to 0 or false


def kind_of(guid: str, name: str) -> str:
    """The kind of a pad, one of `KINDS`, from SDL's GUID (32 hexadecimal digits) and name; `XBOX` when neither tells.

    The maker's number stands in the GUID of pads on USB and Bluetooth, between zeros.
    """
    kind = XBOX
    maker, product = _numbers(guid)
    found = next((kind for pattern, kind in NAMED if pattern.search(name)), None)
    if maker == SONY:
        kind = SONY_PADS.get(product, found if found in (PS3, PS4) else PS5)
    elif maker == NINTENDO_USB:
        kind = NINTENDO
    elif maker != MICROSOFT:
        kind = found or XBOX
    by_place = os.environ.get(LETTERS, "").lower() == "false" or os.environ.get(LETTERS, "").startswith("0")
    return NINTENDO_PLACES if kind == NINTENDO and by_place else kind


def _numbers(guid: str) -> tuple[int, int]:
    """Maker and product in a GUID, zeros where it holds a name instead."""
    try:
        raw = bytes.fromhex(guid)
    except ValueError:
        return 0, 0
    if len(raw) != 16 or raw[6:8] != b"\0\0" or raw[10:12] != b"\0\0":
        return 0, 0
    return int.from_bytes(raw[4:6], "little"), int.from_bytes(raw[8:10], "little")


def dead_zone(x: float, y: float, zone: float = DEAD_ZONE) -> tuple[float, float]:
    """A stick position with a round dead zone cut out and the rest stretched back to length 1."""
    length = math.hypot(x, y)
    if length <= zone:
        return 0.0, 0.0
    stretch = min((length - zone) / (1 - zone), 1.0) / length
    return x * stretch, y * stretch


def source_of(event: pygame.event.Event) -> str | None:
    """The source a pad button event speaks of, None for other events (for menus and rebinding)."""
    if event.type in (pygame.CONTROLLERBUTTONDOWN, pygame.CONTROLLERBUTTONUP):
        return BUTTONS.get(event.button)
    return None


@dataclass
class _Pad:
    device: Any
    name: str
    kind: str
    pressed: set[str] = field(default_factory=set)
    sticks: dict[str, list[float]] = field(default_factory=lambda: {"left": [0.0, 0.0], "right": [0.0, 0.0]})


Opened = tuple[Any, int, str, str]


def _open(index: int) -> Opened | None:
    """(device, instance id, name, GUID) of an attached pad, None when SDL has no mapping for it."""
    if not controller.is_controller(index):
        return None
    device = controller.Controller(index)
    joystick = device.as_joystick()
    return device, joystick.get_instance_id(), str(device.name), joystick.get_guid()


class Gamepads:
    """All attached pads; feed every event to `handle`. `open_pad` is replaced in tests."""

    def __init__(
        self,
        zone: float = DEAD_ZONE,
        open_pad: Callable[[int], Opened | None] = _open,
    ) -> None:
        self.zone = zone
        self.ignored: list[str] = []
        self._open_pad = open_pad
        self._pads: dict[int, _Pad] = {}
        controller.init()  # from now on SDL announces every pad, those already attached included

    @property
    def names(self) -> list[str]:
        """Names of the attached pads."""
        return [pad.name for pad in self._pads.values()]

    def kind(self, instance: int | None = None) -> str:
        """The kind of the pad with this instance id, without one of the first that is attached; else `XBOX`."""
        if instance is None:
            return next((pad.kind for pad in self._pads.values()), XBOX)
        return self._pads[instance].kind if instance in self._pads else XBOX

    def handle(self, event: pygame.event.Event, sampler: InputSampler) -> bool:
        """Feed one event to the sampler; True when it came from a pad."""
        if event.type == pygame.CONTROLLERDEVICEADDED:
            self._add(event.device_index)
        elif event.type == pygame.CONTROLLERDEVICEREMOVED:
            self._remove(event.instance_id, sampler)
        elif event.type in (pygame.CONTROLLERBUTTONDOWN, pygame.CONTROLLERBUTTONUP):
            if source := BUTTONS.get(event.button):
                self._button(
                    event.instance_id,
                    source,
                    event.type == pygame.CONTROLLERBUTTONDOWN,
                    sampler,
                )
        elif event.type == pygame.CONTROLLERAXISMOTION:
            self._axis(event.instance_id, event.axis, event.value / AXIS_RANGE, sampler)
        else:
            return False
        return True

    def _add(self, index: int) -> None:
        try:
            opened = self._open_pad(index)
        except pygame.error as error:  # unplugged again before we came to it
            self.ignored.append(f"pad {index}: {error}")
            return
        if opened is None:
            self.ignored.append(f"pad {index}: no mapping")
            return
        device, instance, name, guid = opened
        self._pads.setdefault(instance, _Pad(device, name, kind_of(guid, name)))

    def _remove(self, instance: int, sampler: InputSampler) -> None:
        pad = self._pads.pop(instance, None)
        if pad is None:
            return
        for source in pad.pressed:
            sampler.release(source)
        for side in pad.sticks:
            sampler.stick(side, 0.0, 0.0)

    def _button(self, instance: int, source: str, down: bool, sampler: InputSampler) -> None:
        pad = self._pads.get(instance)
        if pad is None:
            return
        if down:
            pad.pressed.add(source)
            sampler.press(source)
        else:
            pad.pressed.discard(source)
            sampler.release(source)

    def _axis(self, instance: int, axis: int, value: float, sampler: InputSampler) -> None:
        pad = self._pads.get(instance)
        if pad is None:
            return
        if axis in STICKS:
            side, part = STICKS[axis]
            position = pad.sticks[side]
            position[part] = max(value, -1.0)
            sampler.stick(side, *dead_zone(position[0], position[1], self.zone))
        elif axis in TRIGGERS:
            source = TRIGGERS[axis]
            if value >= TRIGGER_PRESS and source not in pad.pressed:
                self._button(instance, source, True, sampler)
            elif value < TRIGGER_RELEASE and source in pad.pressed:
                self._button(instance, source, False, sampler)


def open_pads() -> Gamepads | None:
    """All pads, None where the system has no way to ask for any."""
    try:
        return Gamepads()
    except pygame.error:
        return None
