"""A light world: one ray a pixel, no refiner, the same walk, and states that know nothing of it."""

import dataclasses

import numpy as np
import pytest

from controls.action import Action
from generator.checkpoint import load_weights
from generator.runtime import multistep
from generator.world import World


def action(world, turn=3.0):
    keys = np.zeros((world.spec.ticks, len(world.spec.keys)), np.uint8)
    keys[:, 0] = 1
    return Action(keys, np.full((world.spec.ticks, 2), (turn, 0.0), np.float32))


def bare(monkeypatch, folder, backend):
    """Opens the folder's weights with one ray a pixel and without their refiner."""
    weights = load_weights(folder)
    weights.parallax.config = dataclasses.replace(weights.parallax.config, samples=1)
    weights.parallax.refiner = None
    monkeypatch.setattr(multistep, "load_weights", lambda *args: weights)
    return World(folder, backend=backend, threads=1)


@pytest.mark.parametrize("backend", ["torch-fp32", "openvino-fp32"])
def test_light_is_one_ray_a_pixel_and_no_refiner_and_can_be_left(backend, place_folder, first_picture, monkeypatch):
    if backend.startswith("openvino"):
        pytest.importorskip("openvino")
    weights = load_weights(place_folder)
    weights.parallax.config = dataclasses.replace(weights.parallax.config, samples=2)
    with monkeypatch.context() as patch:
        patch.setattr(multistep, "load_weights", lambda *args: weights)
        world = World(place_folder, backend=backend, threads=1)
    assert weights.parallax.refiner is not None and weights.parallax.recalls and world.info["fine"]
    world.reset(first_picture, 1)
    world.step(action(world))
    state = world.save_state()
    full = world.step(action(world))
    world.lighten(True)
    world.load_state(state)
    light = world.step(action(world))
    assert not np.array_equal(light, full)
    other = bare(monkeypatch, place_folder, backend)
    assert not other.info["fine"]
    other.reset(first_picture, 1)
    other.load_state(state)
    assert np.array_equal(other.step(action(world)), light)
    world.lighten(False)
    world.load_state(state)
    assert np.array_equal(world.step(action(world)), full)
