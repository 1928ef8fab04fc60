"""What OpenVINO is given stays while it points there, and a cache that makes no sense changes nothing."""

import gc
import weakref

import numpy as np
import pytest
import torch

pytest.importorskip("openvino")

import openvino as ov

from generator.runtime import openvino as module


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return torch.nn.Linear(4, 3).eval()


def test_a_request_never_points_at_freed_memory(layer):
    """OpenVINO takes an array's address and does not keep the array."""
    graph = module.as_graph(module.compile_graph(layer, (torch.zeros(2, 4),), 1, "f32"))
    first, second = np.ones((2, 4), np.float32), np.zeros((2, 4), np.float32)
    before, after = weakref.ref(first), weakref.ref(second)
    made = [np.array(graph([first])[0])]
    del first
    gc.collect()
    assert before() is not None, "the request still points at it"
    made.append(np.array(graph([second])[0]))
    del second
    gc.collect()
    assert before() is None and after() is not None, "one call's inputs are held, not all"
    right = [layer(torch.full((2, 4), value)).detach().numpy() for value in (1.0, 0.0)]
    assert np.allclose(made, right, atol=1e-6)


@pytest.mark.parametrize("error", [UnicodeDecodeError("utf-8", b"\xd7", 0, 1, "no text"), RuntimeError("damaged")])
def test_a_damaged_cached_graph_is_compiled_again(layer, tmp_path, monkeypatch, error):
    """OpenVINO names what it does not understand, and where that is no text its own complaint fails."""
    monkeypatch.setenv("FARSTEP_CACHE", str(tmp_path))
    example = (torch.zeros(2, 4),)
    module.compile_graph(layer, example, 1, "f32", "weights")
    (kept,) = tmp_path.rglob("*.blob")
    kept.write_bytes(b"\xd7" * 300)
    core = ov.Core

    class Doubting:
        """A core that cannot read what it is given."""

        def __init__(self):
            self.core = core()

        def import_model(self, *given):
            raise error

        def __getattr__(self, name):
            return getattr(self.core, name)

    monkeypatch.setattr(module.ov, "Core", Doubting)
    graph = module.as_graph(module.compile_graph(layer, example, 1, "f32", "weights"))
    assert np.allclose(graph([np.ones((2, 4), np.float32)])[0], layer(torch.ones(2, 4)).detach().numpy(), atol=1e-6)
    assert kept.read_bytes() != b"\xd7" * 300, "written anew"
