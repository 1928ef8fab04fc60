"""The benchmark runs and reports what it says it does."""

import json

import pytest

from controls.errors import UserError
from generator.evaluation import latency
from generator.runtime import build

KEYS = {
    "preset", "backend", "threads", "frames", "transformer_ms", "reproject_ms", "decode_ms", "total_ms", "fps",
    "real_time_factor", "first_frame_s", "peak_rss_mb", "step_ms_at_40", "step_ms_at_far", "far_ratio",
}  # fmt: skip


def test_one_backend(debug_world):
    found = latency.benchmark("debug", debug_world, "torch-fp32", frames=6, far=50, threads=1)
    assert set(found) >= KEYS
    assert json.loads(json.dumps(found)) == found
    assert found["backend"] == "torch-fp32" and found["preset"] == "debug"
    assert 0 < found["total_ms"]["p50"] <= found["total_ms"]["p99"]
    parts = [found[f"{part}_ms"]["p50"] for part in ("reproject", "transformer", "decode")]
    assert min(parts) > 0 and max(parts) < found["total_ms"]["p50"]
    assert found["fps"] == pytest.approx(24 * found["real_time_factor"])
    assert found["far_ratio"] == pytest.approx(found["step_ms_at_far"] / found["step_ms_at_40"])


def test_without_far_there_is_no_far():
    found = latency.benchmark("debug", None, "torch-bf16", frames=3, threads=1)
    assert found["step_ms_at_40"] is found["far_ratio"] is None
    assert found["weights_hash"] == "random"


def test_a_world_without_a_reprojection_is_timed_all_the_same(make_world):
    found = latency.benchmark("debug", make_world(reproject=False), "torch-fp32", frames=4, far=45, threads=1)
    assert found["reproject_ms"] is None and found["total_ms"]["p50"] > 0 and found["far_ratio"] > 0


def test_all_backends_are_compared_with_the_reference(monkeypatch):
    monkeypatch.setattr(latency, "BACKENDS", ("auto", "torch-fp32", "torch-bf16"))
    found = latency.benchmark("debug", None, "all", frames=3, threads=1)["backends"]
    assert set(found) == {"torch-fp32", "torch-bf16"}
    assert found["torch-fp32"]["latent_relative_error"] == 0
    assert found["torch-fp32"]["pixel_error_max"] == 0
    assert 0 < found["torch-bf16"]["latent_relative_error"] < 0.1


def test_a_missing_backend_is_said_and_the_others_go_on(monkeypatch):
    monkeypatch.setattr(latency, "BACKENDS", ("torch-fp32", "nowhere"))
    found = latency.benchmark("debug", None, "all", frames=2, threads=1)["backends"]
    assert "nowhere" in found["nowhere"]["missing"]
    assert found["torch-fp32"]["frames"] == 2


def test_bad_requests_are_sentences(monkeypatch):
    with pytest.raises(UserError, match="--frames 0"):
        latency.benchmark("debug", None, frames=0)
    with pytest.raises(UserError, match="preset"):
        latency.benchmark("pokcet", None)
    monkeypatch.setattr(build, "available_memory", lambda device: 1e9)
    with pytest.raises(UserError, match="aapt-8b"):
        latency.benchmark("aapt-8b", None)
