"""Gamepads: SDL controller events to sampler calls, with plugging and unplugging at any time.

SDL maps every known pad to one layout, so `pad a` is the same place on all of them. Several pads act as one.
Joysticks SDL has no mapping for are ignored; `ignored` names them for a hint to the player.

Does not know what a button or a stick does.
"""

from __future__ import annotations

import math
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
    pressed: set[str] = field(default_factory=set)
    sticks: dict[str, list[float]] = field(default_factory=lambda: {"left": [0.0, 0.0], "right": [0.0, 0.0]})


def _open(index: int) -> tuple[Any, int, str] | None:
    """(device, instance id, name) of an attached pad, None when SDL has no mapping for it."""
    if not controller.is_controller(index):
        return None
    device = controller.Controller(index)
    return device, device.as_joystick().get_instance_id(), str(device.name)


class Gamepads:
    """All attached pads; feed every event to `handle`. `open_pad` is replaced in tests."""

    def __init__(
        self,
        zone: float = DEAD_ZONE,
        open_pad: Callable[[int], tuple[Any, int, str] | None] = _open,
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
        device, instance, name = opened
        self._pads.setdefault(instance, _Pad(device, name))

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
