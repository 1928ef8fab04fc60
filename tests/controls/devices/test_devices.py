"""Devices: pygame events to sampler calls, without a window or a pad."""

import os
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

import pygame
import pytest

from controls.action import ActionSpec
from controls.bindings import is_source, load_bindings
from controls.devices import gamepad, keyboard, mouse
from controls.sampler import InputSampler

SPEC = ActionSpec()


@pytest.fixture
def sampler() -> Iterator[InputSampler]:
    pygame.display.init()
    pygame.display.set_mode((64, 40))
    yield InputSampler(SPEC, load_bindings(), sensitivity=1.0)
    pygame.display.quit()


def _event(kind: int, **values: Any) -> pygame.event.Event:
    return pygame.event.Event(kind, **values)


def test_keyboard(sampler: InputSampler) -> None:
    assert keyboard.handle(_event(pygame.KEYDOWN, key=pygame.K_w), sampler)
    assert keyboard.handle(_event(pygame.KEYDOWN, key=pygame.K_LSHIFT), sampler)
    assert sampler.held == {"forward", "run"}
    keyboard.handle(_event(pygame.KEYUP, key=pygame.K_w), sampler)
    assert sampler.held == {"run"}
    assert keyboard.handle(_event(pygame.WINDOWFOCUSLOST), sampler) and sampler.held == frozenset()
    assert not keyboard.handle(_event(pygame.QUIT), sampler)


def test_key_names_can_be_bound(sampler: InputSampler) -> None:
    names = "w 1 SPACE LSHIFT RCTRL LALT UP RETURN KP4 KP_ENTER PAGEUP CAPSLOCK F1 F12 SEMICOLON TAB HOME"
    for name in names.split():
        source = keyboard.source_of(_event(pygame.KEYDOWN, key=getattr(pygame, f"K_{name}")))
        assert source is not None and is_source(source), (name, source)


def test_mouse(sampler: InputSampler) -> None:
    device = mouse.Mouse()
    moved = _event(pygame.MOUSEMOTION, rel=(3, -2), pos=(0, 0), buttons=(0, 0, 0))
    assert not device.handle(moved, sampler)
    device.capture(True)
    assert device.handle(moved, sampler) and device.handle(moved, sampler)
    device.handle(_event(pygame.MOUSEBUTTONDOWN, button=1, pos=(0, 0)), sampler)
    assert sampler.held == {"attack"} and sampler.tick().look.tolist() == [6, 4]
    device.capture(False)
    device.handle(_event(pygame.MOUSEBUTTONUP, button=1, pos=(0, 0)), sampler)
    assert sampler.held == frozenset()


def test_wheel_is_a_tap() -> None:
    bindings = load_bindings().rebind("jump", "mouse wheel up")
    sampler, device = InputSampler(SPEC, bindings), mouse.Mouse()
    device.captured = True
    assert device.handle(_event(pygame.MOUSEWHEEL, x=0, y=2), sampler)
    assert sampler.collect().keys[:, SPEC.keys.index("jump")].tolist() == [1, 0, 0, 0]
    assert not device.handle(_event(pygame.MOUSEWHEEL, x=1, y=0), sampler)


def _pads() -> gamepad.Gamepads:
    return gamepad.Gamepads(open_pad=lambda index: (object(), 40 + index, f"Pad {index}", "") if index < 2 else None)


def _axis(axis: int, value: float, instance: int = 40) -> pygame.event.Event:
    return _event(pygame.CONTROLLERAXISMOTION, instance_id=instance, axis=axis, value=int(value * 32767))


def test_gamepad_plug_play_unplug_replug(sampler: InputSampler) -> None:
    pads = _pads()
    down = _event(pygame.CONTROLLERBUTTONDOWN, instance_id=40, button=pygame.CONTROLLER_BUTTON_A)
    assert pads.handle(down, sampler) and sampler.held == frozenset()  # not announced yet
    pads.handle(_event(pygame.CONTROLLERDEVICEADDED, device_index=0), sampler)
    pads.handle(_event(pygame.CONTROLLERDEVICEADDED, device_index=5), sampler)
    assert pads.names == ["Pad 0"] and len(pads.ignored) == 1
    pads.handle(down, sampler)
    pads.handle(_axis(pygame.CONTROLLER_AXIS_LEFTY, -1.0), sampler)
    pads.handle(_axis(pygame.CONTROLLER_AXIS_RIGHTX, 1.0), sampler)
    assert sampler.held == {"jump", "forward", "turn_right"}
    pads.handle(_event(pygame.CONTROLLERDEVICEREMOVED, instance_id=40), sampler)
    assert sampler.held == frozenset() and pads.names == []
    sampler.tick()
    assert not sampler.collect().look.any()
    pads.handle(_event(pygame.CONTROLLERDEVICEADDED, device_index=0), sampler)
    pads.handle(down, sampler)
    assert sampler.held == {"jump"}
    assert not pads.handle(_event(pygame.QUIT), sampler)


def test_gamepad_trigger_is_a_button(sampler: InputSampler) -> None:
    pads = _pads()
    pads.handle(_event(pygame.CONTROLLERDEVICEADDED, device_index=1), sampler)
    on = []
    for value in (0.4, 0.6, 0.4, 0.2):
        pads.handle(_axis(pygame.CONTROLLER_AXIS_TRIGGERRIGHT, value, instance=41), sampler)
        on.append("attack" in sampler.held)
    assert on == [False, True, True, False]


def test_every_device_source_can_be_bound() -> None:
    sources = {**gamepad.BUTTONS, **gamepad.TRIGGERS}.values()
    assert all(is_source(s) for s in (*sources, *mouse.BUTTONS.values(), *mouse.WHEEL.values()))


def test_dead_zone_is_round_and_reaches_the_rim() -> None:
    assert gamepad.dead_zone(0.1, -0.1) == (0, 0)
    assert gamepad.dead_zone(1.0, 0.0) == (1, 0)
    x, y = gamepad.dead_zone(0.8, 0.8)
    assert x == y and abs(x - 0.5**0.5) < 1e-9
    assert gamepad.dead_zone(gamepad.DEAD_ZONE + 1e-6, 0)[0] < 1e-5


def _guid(maker: int, product: int) -> str:
    """As SDL makes it for a pad on USB: bus, checksum, maker, product and version, each followed by zeros."""
    numbers = (0x0003, 0x1234, maker, 0, product, 0, 0x0111, 0)
    return b"".join(number.to_bytes(2, "little") for number in numbers).hex()


@pytest.mark.parametrize(
    ("guid", "name", "kind"),
    [
        (_guid(0x045E, 0x02EA), "Xbox One S Controller", gamepad.XBOX), ("", "", gamepad.XBOX),
        (_guid(0x046D, 0xC21D), "Logitech F310", gamepad.XBOX), ("no hex", "Some Pad", gamepad.XBOX),
        (_guid(0x054C, 0x0268), "Sony PLAYSTATION(R)3 Controller", gamepad.PS3),
        (_guid(0x054C, 0x09CC), "Wireless Controller", gamepad.PS4), (_guid(0x054C, 0x05C4), "", gamepad.PS4),
        (_guid(0x054C, 0x0CE6), "Wireless Controller", gamepad.PS5), (_guid(0x054C, 0xFFFF), "new", gamepad.PS5),
        (_guid(0x057E, 0x2009), "Pro Controller", gamepad.NINTENDO), (_guid(0x057E, 0x2006), "", gamepad.NINTENDO),
        (_guid(0x0F0D, 0x00EE), "HORIPAD mini4 for PS4", gamepad.PS4), ("", "PS4 Controller", gamepad.PS4),
        ("", "PS3 Controller", gamepad.PS3), ("", "PS5 Controller", gamepad.PS5), ("", "DualSense Edge", gamepad.PS5),
        ("", "PowerA Wired Controller for Nintendo Switch", gamepad.NINTENDO), ("", "Joy-Con (L)", gamepad.NINTENDO),
        ("", "Controller (XBOX 360 For Windows)", gamepad.XBOX), ("", "DualShock 4 in XInput mode", gamepad.XBOX),
        (_guid(0x045E, 0x028E), "PS4 adapter", gamepad.XBOX),
        ("030012344c05" + b"name".hex() + "00" * 6, "Odd", gamepad.XBOX),  # letters where zeros would stand
    ],
)  # fmt: skip
def test_the_kind_of_a_pad(guid: str, name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(gamepad.LETTERS, raising=False)
    assert gamepad.kind_of(guid, name) == kind
    for value, by_place in (("0", True), ("False", True), ("1", False), ("", False)):
        monkeypatch.setenv(gamepad.LETTERS, value)
        other = gamepad.NINTENDO_PLACES if kind == gamepad.NINTENDO and by_place else kind
        assert gamepad.kind_of(guid, name) == other


def test_pads_know_their_kinds(sampler: InputSampler) -> None:
    named = ["PS5 Controller", "Nintendo Switch Pro Controller"]
    pads = gamepad.Gamepads(open_pad=lambda index: (object(), 40 + index, named[index], ""))
    assert pads.kind() == pads.kind(40) == gamepad.XBOX, "nothing is attached"
    for index in (0, 1):
        pads.handle(_event(pygame.CONTROLLERDEVICEADDED, device_index=index), sampler)
    assert (pads.kind(), pads.kind(40), pads.kind(41)) == (gamepad.PS5, gamepad.PS5, gamepad.NINTENDO)
    pads.handle(_event(pygame.CONTROLLERDEVICEREMOVED, instance_id=40), sampler)
    assert (pads.kind(), pads.kind(40)) == (gamepad.NINTENDO, gamepad.XBOX)
