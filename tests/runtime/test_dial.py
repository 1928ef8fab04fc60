"""The quality dial: play with several calls a frame is the teacher's rollout, keeps its place, and refuses misfits."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch

from controls.action import Action, encode
from controls.errors import UserError
from generator import world as world_module
from generator.checkpoint import load_weights, save_weights
from generator.model.sampler_file import LearnedSampler, save_sampler
from generator.rollout import teacher_rollout
from generator.runtime.encode import encode_picture
from generator.runtime.multistep import load_teacher
from generator.samplers.sampler import MOST, Sampler, shifted_sampler
from generator.world import World

STEPS = 9  # the window of the tiny world is 3


@pytest.fixture(scope="module")
def world(world_folder):
    return World(world_folder, backend="torch-fp32", threads=1, nfe=3)


def walk(spec, steps=STEPS):
    rng = np.random.default_rng(4)
    return [
        Action(
            rng.integers(0, 2, (spec.ticks, len(spec.keys))).astype(np.uint8),
            rng.normal(0, 5, (spec.ticks, 2)).astype(np.float32),
        )
        for _ in range(steps)
    ]


def play(world, actions):
    return np.concatenate([world.step(action) for action in actions])


@pytest.mark.parametrize("reproject", [True, False], ids=["reproject", "last"])
def test_play_is_the_teachers_rollout(make_world, first_picture, reproject, monkeypatch, led_by):
    folder = make_world(reproject=reproject)
    world, weights = World(folder, backend="torch-fp32", threads=1, nfe=3), load_weights(folder)
    actions, latents, step = walk(world.spec), [], world._backend.transformer.step
    monkeypatch.setattr(world._backend.transformer, "step", lambda *given: latents.append(step(*given)) or latents[-1])
    world.reset(first_picture, 6)
    play(world, actions)
    rays = [world.camera.ray_map(a.look, *world.latent_size).reshape(-1, *world.latent_size) for a in actions]
    led = led_by([encode(a, world.spec) for a in actions], rays, [a.look for a in actions])
    eye = open_eye_of(weights)
    first = encode_picture(weights.tokenizer, first_picture)
    made = teacher_rollout(weights.dit, first, led, 6, load_teacher(folder, 3)[1], eye)
    torch.testing.assert_close(torch.cat(latents)[None], made, atol=1e-5, rtol=1e-5)
    assert made.std() > 0.3


def open_eye_of(weights):
    from generator.rollout import open_eye

    return open_eye(weights.dit, weights.tokenizer, weights.config.hfov, weights.parallax)


def test_it_says_what_plays(world, world_folder):
    one = World(world_folder, backend="torch-fp32", threads=1)
    assert (one.info["nfe"], one.info["sampler"]) == (1, "")
    assert world.info["nfe"] == 3 and world.info["sampler"].startswith("dpmpp-2-3-")
    assert world_module.MOST_CALLS == MOST


def test_the_best_backend_works_beside_the_teacher(world_folder, monkeypatch, with_bf16):
    assert World(world_folder, threads=1, nfe=2).info["backend"].startswith("openvino")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert World(world_folder, threads=1, nfe=2).info["backend"] == "torch-bf16"


def test_the_teacher_works_beside_graphs(place_folder, first_picture):
    """The same walk as in plain torch, but for the rounding of the graphs around it."""
    pytest.importorskip("openvino")
    plain, beside = (World(place_folder, backend=name, threads=1, nfe=2) for name in ("torch-fp32", "openvino-fp32"))
    assert beside.info["backend"] == "openvino-fp32" and beside.info["sampler"] == plain.info["sampler"] != ""
    made = []
    for world in (plain, beside):
        world.reset(first_picture, 2)
        made.append(play(world, walk(world.spec, 5)).astype(float))
    assert np.abs(made[0] - made[1]).mean() < 0.5 and made[0].std() > 10
    with pytest.raises(UserError, match="openvino-fp32"):
        plain.load_state(beside.save_state())


def test_a_state_goes_on_exactly_and_only_with_its_own_sampler(world, world_folder, first_picture):
    actions = walk(world.spec)
    world.reset(first_picture, 3)
    play(world, actions[:6])  # beyond the window
    state = world.save_state()
    due = play(world, actions[6:])
    world.reset(first_picture, 8)
    play(world, actions[:2])
    world.load_state(state)
    assert world.frame_index == 6 and np.array_equal(play(world, actions[6:]), due)
    fresh = World(world_folder, backend="torch-fp32", threads=1, nfe=3)
    fresh.load_state(state)
    assert np.array_equal(play(fresh, actions[6:]), due)
    for nfe in (1, 4):
        with pytest.raises(UserError, match="use it where it was saved"):
            World(world_folder, backend="torch-fp32", threads=1, nfe=nfe).load_state(state)


def test_calls_and_seeds_count(world_folder, first_picture):
    made = {}
    for nfe, seed in ((1, 5), (2, 5), (4, 5), (4, 6)):
        world = World(world_folder, backend="torch-fp32", threads=1, nfe=nfe)
        world.reset(first_picture, seed)
        made[nfe, seed] = play(world, walk(world.spec, 2))
    frames = list(made.values())
    assert not any(np.array_equal(a, b) for n, a in enumerate(frames) for b in frames[:n])


def test_bf16_stays_near(world_folder, first_picture):
    made = []
    for backend in ("torch-fp32", "torch-bf16"):
        world = World(world_folder, backend=backend, threads=1, nfe=3)
        world.reset(first_picture, 1)
        made.append(play(world, walk(world.spec, 3)).astype(int))
    assert world.info["backend"] == "torch-bf16" and np.abs(made[0] - made[1]).mean() < 6


@pytest.fixture
def one_call(world_folder, tmp_path):
    """A folder of one-call weights."""
    weights, folder = load_weights(world_folder), tmp_path / "one_call"
    config = dataclasses.replace(weights.config, stage="adversarial")
    save_weights(folder, config, weights.tokenizer, weights.dit.state_dict(), parallax=weights.parallax)
    return folder


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"nfe": 0}, "0 network calls per latent frame are not offered; give 1, or 2 to 10"),
        ({"nfe": 11}, "11 network calls"),
        (
            {"nfe": 4, "backend": "torch-int8"},
            "torch-int8 makes a latent frame in one call; choose --backend torch-fp32",
        ),
        ({"nfe": 4, "backend": "torch-compiled"}, "torch-compiled makes a latent frame in one call"),
        ({"nfe": 4, "backend": "abacus"}, "Unknown backend 'abacus'"),
    ],
)
def test_what_cannot_be_is_said(world_folder, given, said):
    with pytest.raises(UserError, match=said):
        World(world_folder, threads=1, **given)


def test_one_call_weights_need_a_teacher_beside_them(one_call, world_folder):
    with pytest.raises(UserError, match="have no many-step teacher; play with --nfe 1"):
        World(one_call, backend="torch-fp32", threads=1, nfe=4)
    shutil.copytree(world_folder, one_call / "teacher")
    weights, sampler = load_teacher(one_call, 4)
    assert weights.hash == load_weights(world_folder).hash and sampler.nfe == 4
    assert World(one_call, backend="torch-fp32", threads=1).hash == load_weights(one_call).hash


def test_a_learned_grid_is_used_and_a_foreign_one_refused(world_folder, tmp_path, first_picture):
    folder = tmp_path / "world"
    shutil.copytree(world_folder, folder)
    times = torch.tensor([1.0, 0.8, 0.3, 0.1, 0.0], dtype=torch.float64)
    sampler = Sampler("ipndm", 3, times, times)
    path = folder / "times" / "nfe-4.yaml"
    save_sampler(path, LearnedSampler(load_weights(folder).hash, sampler, "l2", {"learned": 1.0}, []))
    assert torch.equal(load_teacher(folder, 4)[1].times, times)
    assert load_teacher(folder, 5)[1].label == shifted_sampler("dpmpp", 2, 5, 1.0).label
    frames = []
    for weights in (folder, world_folder):
        world = World(weights, backend="torch-fp32", threads=1, nfe=4)
        world.reset(first_picture, 0)
        frames.append(play(world, walk(world.spec, 1)))
    assert not np.array_equal(*frames)
    shutil.copy(path, path.with_name("nfe-5.yaml"))
    with pytest.raises(UserError, match="learned for nfe 4, not 5"):
        load_teacher(folder, 5)
    path.write_text(path.read_text().replace("0.3,", "0.9,"))
    with pytest.raises(UserError, match="does not fall"):
        World(folder, threads=1, nfe=4)
