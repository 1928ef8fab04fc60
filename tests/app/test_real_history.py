"""Saved places and rewinding with a tiny real World: the same frames, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_history import walk

from app.history import RememberingWorld
from app.statefile import About, StateFile, write_state
from controls.errors import UserError
from generator.world import World


def test_saved_and_rewound_the_real_world_makes_the_same_frames(
    world_folder: Path, first_picture: np.ndarray, tmp_path: Path
) -> None:
    """Key states every 3 latent frames, the window of this world is 3: every distance to a key state is replayed."""
    real = World(world_folder, backend="torch-fp32", threads=1)
    actions, path = walk(14), tmp_path / "slot.farstep"
    size = sum(array.nbytes for array in _begun(real, first_picture).values()) + first_picture.nbytes
    world = RememberingWorld(real, seconds=1, budget=4 * size)
    world.reset(first_picture, 5)
    frames = {index: world.step(action) for index, action in enumerate(actions, 1)}
    assert 3 <= 14 - world.oldest <= 12 and world.nbytes <= 4 * size
    about = About(real.hash, "torch-fp32", 14)
    write_state(path, about, world.save_state(), world.picture, world.first)
    ahead = [world.step(action) for action in actions[:3]]
    for back in (12, 11, 10, 9, world.oldest):
        world.rewind(back)
        assert np.array_equal(world.picture, frames[back][-1])
        assert np.array_equal(world.step(actions[back]), frames[back + 1])
    other = RememberingWorld(World(world_folder, backend="torch-fp32", threads=1))
    with StateFile(path) as file:
        other.load_state(file.state())
        other.arrived(file.picture(first=True), file.picture())
    assert other.frame_index == other.oldest == 14
    assert np.array_equal(other.picture, frames[14][-1]) and np.array_equal(other.first, first_picture)
    assert all(np.array_equal(other.step(a), f) for a, f in zip(actions[:3], ahead, strict=True))
    other.rewind(14)
    assert np.array_equal(other.step(actions[0]), ahead[0])
    foreign = {**world.save_state(), "identity": np.zeros(3, np.uint8)}
    with pytest.raises(UserError, match="belongs to"):
        other.load_state(foreign)
    assert other.oldest == 14, "a refused state leaves the memory as it was"


def _begun(world: World, picture: np.ndarray) -> dict[str, np.ndarray]:
    world.reset(picture, 0)
    return world.save_state()


def test_numbers_that_are_no_longer_finite_are_a_sentence(world_folder: Path, first_picture: np.ndarray) -> None:
    world, action = World(world_folder, backend="torch-fp32", threads=1), walk(1)[0]
    world.reset(first_picture, 5)
    world.step(action)
    state = world.save_state()
    for bad in (np.nan, np.inf):
        spoilt = {name: array.copy() for name, array in state.items()}
        for name in ("transformer.keys", "transformer.values"):
            spoilt[name][:] = np.float32(bad)
        world.load_state(spoilt)
        with pytest.raises(UserError, match="no longer finite at latent frame 2"):
            world.step(action)
    world.load_state(state)
    assert world.step(action).dtype == np.uint8, "a good state mends it"
