"""World: four verbs, the same frames from the same beginnings, and states that continue exactly."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from controls.action import Action, encode
from controls.errors import UserError
from generator.checkpoint import load_weights
from generator.data.latents import LatentClips
from generator.rollout import open_eye, rollout
from generator.runtime.encode import encode_picture
from generator.tokenizer.reproject import Reprojector
from generator.world import World

STEPS = 10  # the window of the tiny world is 3


@pytest.fixture(scope="module")
def world(world_folder):
    return World(world_folder, backend="torch-fp32", threads=1)


def walk(spec, steps: int = STEPS) -> list[Action]:
    rng = np.random.default_rng(4)
    return [
        Action(
            rng.integers(0, 2, (spec.ticks, len(spec.keys))).astype(np.uint8),
            rng.normal(0, 5, (spec.ticks, 2)).astype(np.float32),
        )
        for _ in range(steps)
    ]


def play(world, actions) -> np.ndarray:
    return np.concatenate([world.step(action) for action in actions])


def test_shapes_and_figures(world, first_picture):
    first = world.reset(first_picture, 0)
    assert first.shape == (1, 64, 64, 3) and first.dtype == np.uint8 and world.frame_index == 0
    frames = world.step(Action.idle(world.spec))
    assert frames.shape == (4, 64, 64, 3) and frames.dtype == np.uint8 and world.frame_index == 1
    assert world.timings["step_ms"] > world.timings["reproject_ms"] > 0 and world.timings["decode_ms"] > 0
    assert (world.size, world.fps, world.info["backend"]) == ((64, 64), 24, "torch-fp32")


def test_the_cache_fill_is_what_the_cache_holds(world, first_picture):
    """Slots that were never written are zeros; the tiny world has a window of 3 and a sink."""
    world.reset(first_picture, 0)
    slots = world.cache_fill[1]
    assert world.cache_fill == (0, slots) and slots >= 4
    for step in range(slots + 2):
        world.step(Action.idle(world.spec))
        held = int((world.save_state()["transformer.keys"] != 0).any((0, 1, 2, 4, 5)).sum())
        assert world.cache_fill == (held, slots) and held == min(step + 1, slots)


def test_the_same_beginning_gives_the_same_frames(world, world_folder, first_picture):
    actions, runs = walk(world.spec), []
    for one in (world, world, World(world_folder, backend="torch-fp32", threads=1)):
        one.reset(first_picture, 7)
        runs.append(play(one, actions))
    assert np.array_equal(runs[0], runs[1]) and np.array_equal(runs[0], runs[2])
    assert runs[0].std() > 1


@pytest.mark.parametrize("what", ["seed", "actions", "picture"])
def test_another_beginning_gives_other_frames(world, first_picture, what):
    actions = walk(world.spec)
    world.reset(first_picture, 7)
    before = play(world, actions)
    world.reset(255 - first_picture if what == "picture" else first_picture, 8 if what == "seed" else 7)
    assert not np.array_equal(before, play(world, actions[::-1] if what == "actions" else actions))


@pytest.mark.parametrize("before", [0, 1, 3, 9])
def test_a_state_continues_exactly(world, world_folder, first_picture, before):
    actions = walk(world.spec, before + STEPS)
    world.reset(first_picture, 3)
    play(world, actions[:before]) if before else None
    state = world.save_state()
    assert all(isinstance(value, np.ndarray) for value in state.values())
    ahead = play(world, actions[before:])
    world.load_state(state)
    assert world.frame_index == before
    assert np.array_equal(play(world, actions[before:]), ahead)
    other = World(world_folder, backend="torch-fp32", threads=1)
    other.load_state(state)
    assert np.array_equal(play(other, actions[before:]), ahead)


def test_a_state_of_other_weights_is_refused(world, make_world, first_picture):
    other = World(make_world(seed=5), backend="torch-fp32", threads=1)
    other.reset(first_picture, 0)
    world.reset(first_picture, 0)
    for state in (other.save_state(), {}, {**world.save_state(), "identity": np.zeros(3, np.uint8)}):
        with pytest.raises(UserError, match="state belongs to"):
            world.load_state(state)
    assert world.step(Action.idle(world.spec)).shape == (4, 64, 64, 3)


@pytest.mark.parametrize("part", ["decoder.0", "picture", "reprojection.pace"])
@pytest.mark.parametrize("damage", ["lacks", "misshapen", "nonsense"])
def test_a_damaged_state_is_refused_and_changes_nothing(world, world_folder, first_picture, damage, part):
    world.reset(first_picture, 1)
    actions = walk(world.spec, 4)
    play(world, actions[:2])
    state = world.save_state()
    ahead = play(world, actions[2:])
    world.load_state(state)
    bad = dict(state)
    if damage == "lacks":
        bad.pop(part)
    else:
        bad[part] = np.zeros(3, np.float32) if damage == "misshapen" else np.array(["x"])
    for one in (world, World(world_folder, backend="torch-fp32", threads=1)):
        with pytest.raises(UserError, match="damaged"):
            one.load_state(bad)
    assert np.array_equal(play(world, actions[2:]), ahead)


@pytest.mark.parametrize("backend", ["torch-fp32", "openvino"])
@pytest.mark.parametrize("part", ["head.conv.bias", "stem.conv.weight"])
def test_numbers_that_stop_being_finite_in_the_decoder_are_told(make_world, first_picture, backend, part):
    """Latents stay finite; only the decoder is poisoned, at its end or its beginning, while the world runs."""
    if backend == "openvino":
        pytest.importorskip("openvino")
    world = World(make_world(seed=9), backend=backend, threads=1)
    world.reset(first_picture, 0)
    world.step(Action.idle(world.spec))
    with torch.no_grad():
        dict(world._tokenizer.decoder.named_parameters())[part].view(-1)[0] = torch.nan
    if backend == "torch-fp32":
        with pytest.raises(UserError, match="decoder's numbers are no longer finite"):
            world.step(Action.idle(world.spec))
    with pytest.raises(UserError, match="decoder's numbers are no longer finite"):
        world.reset(first_picture, 0)


def test_a_picture_of_another_size_is_refused(world):
    for picture in (np.zeros((32, 64, 3), np.uint8), np.zeros((64, 64, 3), np.float32)):
        with pytest.raises(UserError, match="first frame"):
            world.reset(picture, 0)


def test_what_walks_take_is_compiled_while_the_world_opens(world_folder, monkeypatch):
    """The bug: at the very first start a first picture, and then a first step, waited seconds for a compiler."""
    calls = []
    monkeypatch.setattr(Reprojector, "ready", lambda turn: calls.append(turn))
    other = World(world_folder, backend="torch-fp32", threads=1)
    assert calls == [other._backend.reprojection.turn]


def test_unknown_backend(world_folder):
    with pytest.raises(UserError, match="torch-fp32"):
        World(world_folder, backend="torch-fp23")


def heard(world, monkeypatch) -> list[torch.Tensor]:
    """The latents that a world hands its decoder."""
    latents, decode = [], world._backend.decoder.next
    monkeypatch.setattr(world._backend.decoder, "next", lambda z: (latents.append(z[0]), decode(z))[1])
    return latents


@pytest.mark.parametrize("reproject", [True, False], ids=["reproject", "last"])
def test_a_world_makes_the_latents_of_a_rollout(make_world, first_picture, monkeypatch, reproject, led_by):
    folder = make_world(reproject=reproject)
    world, weights = World(folder, backend="torch-fp32", threads=1), load_weights(folder)
    actions, latents = walk(world.spec, 3 * STEPS), heard(world, monkeypatch)
    world.reset(first_picture, 11)
    frames = play(world, actions)
    turns = [world.camera.ray_map(a.look, *world.latent_size).reshape(-1, *world.latent_size) for a in actions]
    led = led_by([encode(a, world.spec) for a in actions], turns, [a.look for a in actions])
    eye = open_eye(weights.dit, weights.tokenizer, weights.config.hfov, weights.parallax)
    assert (eye is not None) == reproject
    made = rollout(weights.dit, encode_picture(weights.tokenizer, first_picture), led, 11, eye)
    assert torch.equal(made[0], torch.stack(latents))
    if eye:
        assert np.array_equal((eye.picture[0] + 1) * 127.5, frames[-1].transpose(2, 0, 1))


def test_the_picture_that_lies_ahead_is_the_worlds_own(world, first_picture):
    """What a caller does to the frames that it was given changes nothing."""
    action, runs = Action.hold(world.spec, "forward", yaw=3.0), []
    for spoilt in (False, True):
        frames = world.reset(first_picture, 2)
        for _ in range(3):
            if spoilt:
                frames[:] = 0
            frames = world.step(action)
        runs.append(frames)
    assert np.array_equal(*runs)


def test_recorded_ticks_reach_the_model_as_in_training(world, world_folder, data_set, latents, monkeypatch):
    """Play over a recorded clip's rows feeds the network what a training window of that clip holds."""
    clips = LatentClips(latents, "train")
    batch = clips.gather([(0, 2)], STEPS)
    rows = slice(9, 9 + 4 * STEPS)
    keys, look = (clips.clips[0][name][rows].reshape(STEPS, 4, -1) for name in ("keys", "look"))
    fed, step = [], world._backend.transformer.step
    monkeypatch.setattr(world._backend.transformer, "step", lambda a, r, s: (fed.append((a, r)), step(a, r, s))[1])
    world.reset(np.zeros((64, 64, 3), np.uint8), 0)
    play(world, [Action(k, v) for k, v in zip(keys, look, strict=True)])
    assert np.array_equal(np.stack([a for a, _ in fed]), batch.actions[0].numpy())
    assert np.array_equal(np.stack([r for _, r in fed]), batch.rays[0].numpy())


def test_importing_the_world_does_not_import_torch():
    code = "import sys, generator.world; sys.exit('torch' in sys.modules or 'pygame' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
