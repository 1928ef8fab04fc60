"""The benchmark's command: plans, sweeps, comparisons, pages, and requests that cannot be met."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import run
from controls.errors import UserError
from generator.evaluation import benchmark as bench
from generator.evaluation import roofline
from generator.evaluation.benchmark import Plan, benchmark, parse_far, parse_sweep
from generator.runtime import build
from generator.runtime.select import BACKENDS, EAGER, open_backend
from generator.runtime.two_pass import TwoPassTransformer

SMALL = {"preset": "debug", "frames": 3, "threads": 1}


def test_eager_and_two_passes_stand_beside_a_backend():
    found = benchmark(Plan(**SMALL, backend="torch", dtype="bf16"))
    assert found["backend"] == found["eager"]["backend"] == found["diffusion_forcing"]["backend"] == "torch-bf16"
    assert (found["eager"]["passes"], found["diffusion_forcing"]["passes"]) == (1, 2)
    assert all(found[name]["transformer_ms"]["p50"] > 0 for name in ("eager", "diffusion_forcing"))
    assert "eager" not in benchmark(Plan(**SMALL, backend="torch-fp32", beside=False))


def test_eager_stands_beside_every_backend_int8_too():
    """What ships plays in int8, and its benchmark ended in an assertion."""
    alike = {name: bench.eager_like(name) for name in BACKENDS if name != "auto"}
    assert set(alike.values()) == set(EAGER)
    assert all(alike[name] == "torch-fp32" for name in ("openvino-int8", "onnxruntime-int8", "torch-int8"))
    assert alike["cuda-fp8"] == "torch-bf16" and alike["onnxruntime"] == "torch-fp32"


@pytest.mark.parametrize(("has", "eager"), [(True, "torch-bf16"), (False, "torch-fp32")])
def test_eager_beside_openvino_does_not_imitate_bf16(has, eager, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.setattr("generator.runtime.select.computes_bf16", lambda kind: has)
    found = benchmark(Plan(**SMALL, backend="openvino"))
    assert found["backend"] == "openvino" and found["eager"]["backend"] == eager


def test_sweeps_build_other_sizes():
    found = benchmark(Plan(**SMALL, backend="torch-fp32", sweep=("window=2,6", "resolution=96x64"), beside=False))
    assert [(row["window"], row["resolution"]) for row in found["sweep"]] == [
        (2, [64, 64]), (6, [64, 64]), (4, [96, 64]),
    ]  # fmt: skip
    assert found["window"] == 4 and all(row["total_ms"]["p50"] > 0 for row in found["sweep"])


def test_all_backends_are_compared_with_the_reference(monkeypatch):
    monkeypatch.setattr(bench, "BACKENDS", ("auto", "torch-fp32", "torch-bf16", "nowhere"))
    found = benchmark(Plan(**SMALL, backend="all"))["backends"]
    assert set(found) == {"torch-fp32", "torch-bf16", "nowhere"}
    assert found["torch-fp32"]["latent_relative_error"] == found["torch-fp32"]["pixel_error_max"] == 0
    assert 0 < found["torch-bf16"]["latent_relative_error"] < 0.1
    assert "nowhere" in found["nowhere"]["missing"]


def test_two_passes_leave_the_clean_frames_keys(make_world):
    """After a step the cache holds what the network writes at t = 0 for the clean frame."""
    from generator.checkpoint import load_weights

    weights = load_weights(make_world(reproject=False))
    c, dit = weights.config.dit, weights.dit
    one, two = (open_backend("torch-fp32", weights, 1).transformer for _ in range(2))
    two = TwoPassTransformer(two)
    first = torch.randn(1, c.latent_channels, c.height, c.width)
    rng = np.random.default_rng(0)
    actions = rng.normal(size=(c.ticks, c.action_fields)).astype(np.float32)
    rays = rng.normal(size=(c.ray_channels, c.height, c.width)).astype(np.float32)
    made = []
    for transformer in (one, two):
        transformer.reset(first, 3)
        made.append(transformer.step(actions, rays))
    assert torch.equal(*made) and two.frame_index == 1
    cache = dit.new_cache(1)
    given = (torch.zeros(1), torch.from_numpy(actions)[None], torch.from_numpy(rays)[None])
    with torch.no_grad():
        dit.step(made[0], first, *given, cache, 0)
    assert torch.allclose(two.inner.run.cache.keys, cache.keys, atol=1e-6)
    assert not torch.allclose(one.run.cache.keys, cache.keys, atol=1e-3)
    state = two.state()
    later = two.step(actions, rays)
    two.load(state)
    assert torch.equal(two.step(actions, rays), later)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"frames": 0}, "--frames 0"),
        ({"preset": "pokcet"}, "preset"),
        ({"resolution": "740x416"}, "does not divide"),
        ({"backend": "abacus"}, "Unknown backend 'abacus'"),
        ({"backend": "torch", "dtype": "int3"}, "'torch' does not compute in --dtype int3; choose fp32, bf16"),
        ({"sweep": ("depth=3",)}, "--sweep 'depth=3' is not window"),
        ({"sweep": ("window=few",)}, "'few' is not a number of latent frames"),
        ({"sweep": ("resolution=65x64",)}, "65x64 does not divide"),
        ({"preset": "aapt-8b"}, r"aapt-8b.*GB are free"),
    ],
)
def test_what_cannot_be_timed_is_said_before_loading(monkeypatch, changes, said):
    monkeypatch.setattr(build, "available_memory", lambda device: 20e9)
    monkeypatch.setattr(bench, "random_weights", None)
    with pytest.raises(UserError, match=said):
        benchmark(Plan(**{**SMALL, **changes}))


def test_given_weights_have_a_size_of_their_own(debug_world):
    with pytest.raises(UserError, match="leave out --weights"):
        benchmark(Plan(**SMALL, weights=debug_world, window=3))


def test_lists_are_read():
    assert parse_far("400,4000") == (400, 4000) and parse_far("") == parse_far("0") == ()
    assert parse_sweep(("window=4,8", "resolution=64x64")) == [
        ("window", "4"),
        ("window", "8"),
        ("resolution", "64x64"),
    ]
    with pytest.raises(UserError, match="--far 'soon'"):
        parse_far("soon")


def test_the_command_writes_figures_tables_and_a_picture(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    places = {name: tmp_path / name for name in ("a.json", "a.md", "a.png")}
    words = ["benchmark", "--preset", "debug", "--frames", "2", "--threads", "1", "--backend", "torch-fp32"]
    words += ["--far", "42", "--sweep", "window=2", "--json", str(places["a.json"])]
    assert run.main([*words, "--markdown", str(places["a.md"]), "--plot", str(places["a.png"])]) == 0
    report = json.loads(places["a.json"].read_text())
    assert report == json.loads(capsys.readouterr().out)
    tables = places["a.md"].read_text()
    for said in ("torch-fp32 (cpu)", "two passes", "64x64, window 2", f"{report['fps']:.1f}", "last over first"):
        assert said in tables, said
    assert Image.open(places["a.png"]).size[0] > 500


def test_the_roofline_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(roofline, "COPY_BYTES", {"cpu": 2**20})
    monkeypatch.setattr(roofline, "MATRIX_SIDE", {"cpu": 64})
    words = ["benchmark", "--preset", "debug", "--threads", "1", "--dtype", "fp32", "--markdown", str(tmp_path / "a")]
    assert run.main([*words, "--roofline"]) == 0
    assert "times the floor" in (tmp_path / "a").read_text()
    assert run.main(["benchmark", "--preset", "aapt-8b", "--counts", "--markdown", str(tmp_path / "b")]) == 0
    assert "attention scores" in (tmp_path / "b").read_text()
    assert "floor_ms" not in capsys.readouterr().out.split('"aapt-8b"')[1]
