"""One contract, every backend: eager float32 says what is correct, each other one stays within its tolerance.

Tolerances are on latents scaled to unit variance (mean absolute difference over a rollout of three windows, in which
errors feed on themselves; a third of it for the first latent frame) and on pixels (mean absolute difference, of 255)
for the same latents.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from controls.action import Action
from controls.errors import UserError
from generator import precision
from generator.checkpoint import load_weights
from generator.runtime import select
from generator.runtime.backend import to_array, to_tensor
from generator.runtime.encode import encode_picture
from generator.runtime.select import BACKENDS, best_backend, best_torch, open_backend
from generator.world import World

INT8 = 0.3 if precision.adds_int8_exactly() else 0.36  # seven bits of weights elsewhere
LATENT = {
    "torch-fp32": 0.0, "torch-bf16": 0.06, "torch-int8": 0.15, "torch-compiled": 0.06, "openvino": 0.06,
    "openvino-fp32": 1e-3, "openvino-int8": INT8, "onnxruntime": 1e-3, "onnxruntime-int8": INT8,
    "cuda": 0.06, "cuda-fp8": 0.3, "cuda-tensorrt": 0.06,
}  # fmt: skip
PIXEL = {
    "torch-fp32": 0.0, "torch-bf16": 1.0, "torch-int8": 1.0, "torch-compiled": 1.0, "openvino": 1.0,
    "openvino-fp32": 0.1, "openvino-int8": 4.0, "onnxruntime": 0.1, "onnxruntime-int8": 4.0,
    "cuda": 1.0, "cuda-fp8": 1.0, "cuda-tensorrt": 1.0,
}  # fmt: skip
ONNX = ("onnxruntime", "onnx", "onnxscript")
NEEDS = {"openvino": ("openvino",), "openvino-int8": ("openvino",), "onnxruntime": ONNX,
         "cuda-tensorrt": ("tensorrt", *ONNX)}  # packages  # fmt: skip
STEPS = 14  # the window of the tiny world is 3


def test_every_backend_is_held_to_the_contract():
    assert set(LATENT) == set(PIXEL) == set(BACKENDS) - {"auto"} and best_backend() in BACKENDS


@pytest.fixture(scope="module")
def weights(place_folder):
    """A world that is a place is asked of everything that another one is."""
    return load_weights(place_folder)


@pytest.fixture(scope="module")
def first(weights, first_picture):
    return encode_picture(weights.tokenizer, first_picture)


@pytest.fixture(scope="module")
def inputs(weights):
    """Actions, rays and what lies ahead, of every step."""
    c, rng = weights.config.dit, np.random.default_rng(0)
    shapes = (c.ticks, c.action_fields), (c.ray_channels, c.height, c.width), (1, c.ahead_channels, c.height, c.width)
    drawn = [[rng.normal(size=shape).astype(np.float32) for shape in shapes] for _ in range(STEPS)]
    return [(actions, rays, torch.from_numpy(ahead)) for actions, rays, ahead in drawn]


def run(backend, first, inputs, seed=5):
    """Latents of a rollout, float32 (F, C, H, W)."""
    backend.transformer.reset(first, seed)
    return torch.cat([backend.transformer.step(*pair).clone().cpu() for pair in inputs])


def decode(backend, first, latents) -> np.ndarray:
    """Pictures of given latents, uint8 (T, Y, X, 3)."""
    return np.concatenate([backend.decoder.first(first), *(backend.decoder.next(z[None]) for z in latents)])


@pytest.fixture(scope="module")
def right(weights, first, inputs):
    """What eager float32 makes: latents and pictures."""
    eager = open_backend("torch-fp32", weights, 1)
    latents = run(eager, first, inputs)
    return latents, decode(eager, first, latents)


@pytest.fixture(scope="module")
def looks():
    """Standing still, a turn, and a turn behind one's back."""
    turn = np.float32([[2, -1], [3, 0], [4, 1], [3, 0.5]])
    return [0 * turn, turn, np.float32([[42, 2]] * 4)]


def walked(backend, picture, looks):
    """What lies ahead of a picture under one look after another, with every other key held, from standing at a pose:
    a network that was never trained finds a picture in many places alike, and rounding would choose among them.
    """
    backend.reprojection.reset(picture)
    backend.reprojection.stand_at((300.0, 77.0, 200.0, 4.0, 0.0))
    keys = np.tile(np.float32([1, 0] * 5), (4, 1))
    return [backend.reprojection(picture, look, keys) for look in looks]


@pytest.fixture(scope="module")
def seen(weights, looks, first_picture):
    """The reprojections of eager float32."""
    eager = open_backend("torch-fp32", weights, 1)
    return torch.cat(walked(eager, first_picture, looks))


@pytest.fixture(scope="module", params=[name for name in BACKENDS if name != "auto"])
def backend(request, weights):
    for package in NEEDS.get(request.param, NEEDS.get(request.param.split("-")[0], ())):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    if request.param.startswith("cuda") and not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
    if request.param == "torch-compiled" and shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler")
    return open_backend(request.param, weights, 1)


class TestEveryBackend:
    """The contract."""

    def test_it_runs_under_its_own_name(self, backend):
        assert backend.name in LATENT

    def test_its_latents_are_those_of_eager(self, backend, first, inputs, right):
        made = run(backend, first, inputs)
        assert made.shape == right[0].shape and made.dtype == torch.float32 and right[0].std() > 0.3
        errors = (made - right[0]).abs().mean((1, 2, 3)) / right[0].std()
        assert errors[0] <= LATENT[backend.name] / 3, f"mean difference of the first {errors[0]:.4f}"
        assert errors.mean() <= LATENT[backend.name], f"mean difference {errors.mean():.4f}"

    def test_its_pictures_are_those_of_eager(self, backend, first, right):
        made = decode(backend, first, right[0])
        assert made.shape == right[1].shape == (1 + 4 * STEPS, 64, 64, 3) and made.dtype == np.uint8
        error = np.abs(made.astype(int) - right[1]).mean()
        assert error <= PIXEL[backend.name], f"mean difference {error:.3f}"

    def test_its_reprojection_is_that_of_eager(self, backend, weights, looks, first_picture, seen):
        made, ahead = walked(backend, first_picture, looks), weights.config.dit.ahead_channels
        assert all(one.shape == (1, ahead, 4, 4) and one.dtype == torch.float32 for one in made)
        error = (torch.cat(made) - seen).abs().mean().item()
        most = 2 * LATENT[backend.name]  # in a place a view of the map moves by whole pixels
        assert error <= most, f"mean difference {error:.4f}"
        assert torch.equal(made[0], walked(backend, first_picture, looks[:1])[0])
        assert seen.std() > 0.3 and not torch.allclose(seen[0], seen[1], atol=0.1)

    def test_what_lies_ahead_counts(self, backend, first, inputs):
        actions, rays, ahead = inputs[0]
        made = []
        for given in (ahead, -ahead):
            backend.transformer.reset(first, 0)
            made.append(backend.transformer.step(actions, rays, given).clone())
        assert not torch.allclose(*made, atol=0.01)

    def test_it_repeats_itself(self, backend, first, inputs):
        assert torch.equal(run(backend, first, inputs), run(backend, first, inputs))
        assert not torch.equal(run(backend, first, inputs, 5), run(backend, first, inputs, 6))

    def test_it_counts_frames(self, backend, first, inputs):
        backend.transformer.reset(first, 0)
        counts = []
        for pair in inputs[:3]:
            counts.append(backend.transformer.frame_index)
            backend.transformer.step(*pair)
        assert counts == [0, 1, 2]

    def test_what_it_returns_is_not_overwritten(self, backend, first, inputs):
        backend.transformer.reset(first, 0)
        latent = backend.transformer.step(*inputs[0])
        kept = latent.clone()
        backend.decoder.first(first)
        pixels = backend.decoder.next(latent)
        seen = pixels.copy()
        backend.decoder.next(backend.transformer.step(*inputs[1]))
        assert torch.equal(latent, kept) and np.array_equal(pixels, seen)

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    @pytest.mark.parametrize("which", [0, -1])
    def test_a_decoder_whose_numbers_are_not_finite_says_so(self, backend, first, inputs, bad, which):
        """Its memory is poisoned: the first layer's and the last one's. It goes on from a good state."""
        if backend.name.endswith("int8") and backend.name != "torch-int8":
            pytest.skip("what flows into int8 layers is made whole numbers, which are always finite")
        backend.transformer.reset(first, 0)
        backend.decoder.first(first)
        latent = backend.transformer.step(*inputs[0])
        state = backend.decoder.state()
        frames = backend.decoder.next(latent)
        poisoned = {name: array.copy() for name, array in state.items()}
        one = poisoned[list(poisoned)[which]]
        kept = to_tensor(one, torch.zeros(1, dtype=torch.bfloat16 if one.dtype == np.uint16 else torch.float32))
        kept.view(-1)[kept.numel() // 2] = bad
        backend.decoder.load({**poisoned, list(poisoned)[which]: to_array(kept)})
        with pytest.raises(UserError, match="no longer finite"):
            backend.decoder.next(latent)
        backend.decoder.load(state)
        assert np.array_equal(backend.decoder.next(latent), frames)

    def test_it_does_not_change_what_it_is_given(self, backend, first, inputs):
        given, (actions, rays), ahead = first.clone(), (a.copy() for a in inputs[0][:2]), inputs[0][2].clone()
        backend.transformer.reset(given, 0)
        backend.transformer.step(actions, rays, ahead)
        backend.transformer.step(actions, rays, ahead)
        assert torch.equal(given, first) and torch.equal(ahead, inputs[0][2])
        assert np.array_equal(actions, inputs[0][0]) and np.array_equal(rays, inputs[0][1])

    @pytest.mark.parametrize("before", [0, 2, STEPS - 2])
    def test_a_state_continues_exactly(self, backend, first, inputs, before):
        def play(pairs):
            made = []
            for pair in pairs:
                latent = backend.transformer.step(*pair).clone()
                made.append((latent, backend.decoder.next(latent)))
            return made

        backend.transformer.reset(first, 5)
        backend.decoder.first(first)
        play(inputs[:before])
        state = backend.transformer.state(), backend.decoder.state()
        frozen = [{name: array.copy() for name, array in part.items()} for part in state]
        ahead = play(inputs[before:])
        assert all(np.array_equal(part[n], old[n]) for part, old in zip(state, frozen, strict=True) for n in part)
        backend.transformer.load(state[0])
        backend.decoder.load(state[1])
        for (one, pixels), (other, again) in zip(ahead, play(inputs[before:]), strict=True):
            assert torch.equal(one, other) and np.array_equal(pixels, again)

    def test_a_world_on_it_saves_and_loads(self, backend, place_folder, first_picture):
        world = World(place_folder, backend=backend.name, threads=1)
        assert world.info["backend"] == backend.name
        world.reset(first_picture, 2)
        action = Action.hold(world.spec, "forward", yaw=2.0)
        for _ in range(5):
            world.step(action)
        state = world.save_state()
        ahead = [world.step(action) for _ in range(5)]
        world.load_state(state)
        assert all(np.array_equal(frames, world.step(action)) for frames in ahead)


@pytest.mark.parametrize("name", ["torch-fp32", "openvino"])
def test_a_model_that_recycles_the_last_latent_alone_has_no_reprojection(make_world, first_picture, name):
    if name == "openvino":
        pytest.importorskip("openvino")
    folder = make_world(reproject=False)
    assert open_backend(name, load_weights(folder), 1).reprojection is None
    world = World(folder, backend=name, threads=1)
    world.reset(first_picture, 0)
    assert world.step(Action.hold(world.spec, "forward", yaw=2.0)).std() > 1
    assert world.timings["reproject_ms"] == 0.0


def test_a_state_belongs_to_its_backend(place_folder, first_picture):
    one, other = (World(place_folder, backend=name, threads=1) for name in ("torch-fp32", "torch-bf16"))
    one.reset(first_picture, 0)
    with pytest.raises(UserError, match="torch-bf16"):
        other.load_state(one.save_state())


def test_a_missing_package_is_named(weights, monkeypatch, with_bf16):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install openvino"):
        open_backend("openvino", weights, 1)
    assert best_backend() == "torch-bf16"


@pytest.mark.parametrize(("has", "name"), [(True, "torch-bf16"), (False, "torch-fp32")])
def test_bf16_is_only_chosen_where_the_processor_has_it(has, name, monkeypatch):
    """The bug: on processors that imitate bf16, training and encoding took ten times as long as in float32."""
    monkeypatch.setattr(precision, "computes_bf16", lambda kind: has)
    monkeypatch.setattr(select, "computes_bf16", lambda kind: has)
    assert best_torch() == name
    with precision.in_half("cpu"):
        made = torch.ones(2, 2) @ torch.ones(2, 2)
    assert made.dtype == precision.half_where_fast("cpu") == (torch.bfloat16 if has else torch.float32)
    with precision.in_half("cpu", asked=False):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_bf16_that_is_slower_than_float32_is_not_taken_for_bf16(monkeypatch):
    """The bug: a processor that multiplies half as fast in bf16 trained, encoded and played in it."""
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    for gain, has in ((0.5, False), (2.0, True)):
        monkeypatch.setattr(precision, "gain_of_bf16", lambda gain=gain: gain)
        precision.computes_bf16.cache_clear()
        assert precision.computes_bf16("cpu") is has
    monkeypatch.undo()
    precision.computes_bf16.cache_clear()
    assert 0.001 < precision.gain_of_bf16() < 100


def test_the_converter_has_nothing_to_report_with():
    """The bug: opening the backend let OpenVINO's converter post usage events."""
    pytest.importorskip("openvino")
    code = (
        "import generator.runtime.openvino; from openvino.tools.ovc import convert_impl, telemetry_utils, utils; "
        "names = {m.tm.__name__ for m in (convert_impl, telemetry_utils, utils)}; "
        "assert names == {'openvino.tools.ovc.telemetry_stub'}, names"
    )
    root = Path(__file__).parents[2]
    environment = {k: v for k, v in os.environ.items() if k != "CI"}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, env=environment)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_arrays_hold_a_tensors_own_bits(dtype):
    tensor = torch.tensor([[1.5, -2.25], [3e4, 0.1]]).to(dtype)
    assert torch.equal(to_tensor(to_array(tensor), tensor), tensor)
