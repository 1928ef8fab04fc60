"""A tiny real world whose decoder is poisoned while it is played: the walk goes on by the usual recovery."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pygame
import pytest
import torch
from fake_world import make_door
from test_window import Visit, opened  # noqa: F401

from app import main, program
from app.door import open_world
from app.protocol import Load
from app.screens.loading import LoadingScreen
from app.screens.play import PlayScreen
from app.settings import Settings
from app.window import Window
from controls.bindings import load_bindings
from generator.world import World

LONG = 120.0  # seconds; the machine may be busy
POISONED_AT = 6


def open_poisoned(request: Load) -> World:
    """A world whose decoder's last layer holds NaN from its sixth step on; the next one that is opened is sound."""
    world = open_world(request)
    assert isinstance(world, World)
    plain, mark = world.step, request.weights / "mark"

    def step(action: object) -> np.ndarray:
        if world.frame_index == POISONED_AT - 1 and not mark.exists():
            mark.touch()
            with torch.no_grad():
                dict(world._tokenizer.decoder.named_parameters())["head.conv.bias"][0] = torch.nan
        return plain(action)  # type: ignore[arg-type]

    world.step = step  # type: ignore[method-assign, assignment]
    return world


@pytest.fixture
def visit(opened: Window, tmp_path: Path, make_world: Callable[..., Path]) -> Iterator[Visit]:  # noqa: F811
    parser = ArgumentParser()
    main.add_arguments(parser)
    folder = make_world(seed=3)
    args = parser.parse_args(["--weights", str(folder), "--backend", "torch-fp32", "--threads", "1"])
    door = replace(make_door(tmp_path, 1), open_world=open_poisoned)
    one = Visit.__new__(Visit)
    bindings = load_bindings(reserved=program.WINDOW_KEYS)
    one.program = program.Program(args, door, opened, Settings(), bindings, door.list_scenes())
    yield one
    one.program.close()


def test_a_decoder_that_makes_nan_once_is_replaced_and_the_walk_goes_on(visit: Visit) -> None:
    visit.press(pygame.K_RETURN)
    visit.until(visit.on(PlayScreen), LONG)
    visit.until(visit.on(LoadingScreen), LONG)
    screen, pid = visit.program.screen, visit.program.generator.pid
    assert isinstance(screen, LoadingScreen) and "decoder's numbers are no longer finite (nan)" in screen.said
    visit.until(visit.on(PlayScreen), LONG)
    session = visit.program.session
    assert session is not None and visit.program.generator.pid == pid, "the new generator stays"
    visit.until(lambda: session.frame_index > POISONED_AT + 1, LONG)
