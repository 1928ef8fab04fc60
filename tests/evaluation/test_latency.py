"""Timing one backend: what is reported is what it says."""

import json

import pytest
import torch

from generator.checkpoint import load_weights
from generator.evaluation import latency
from generator.runtime.build import random_weights
from generator.runtime.select import open_backend

KEYS = {
    "preset", "resolution", "window", "backend", "device", "threads", "frames", "transformer_ms", "reproject_ms",
    "decode_ms", "copy_out_ms", "total_ms", "fps", "real_time_factor", "first_frame_s", "first_generated_s",
    "peak_rss_mb", "peak_device_mb", "step_ms_at", "far_ratio", "switches",
}  # fmt: skip


def test_one_backend(debug_world):
    found = latency.time_backend(load_weights(debug_world), "torch-fp32", 6, (45, 50), 1)
    assert set(found) >= KEYS
    assert json.loads(json.dumps(found)) == found
    assert (found["backend"], found["preset"], found["device"]) == ("torch-fp32", "debug", "cpu")
    assert (found["resolution"], found["window"]) == ([64, 64], 4)
    assert 0 < found["total_ms"]["p50"] <= found["total_ms"]["p99"]
    parts = [found[f"{part}_ms"]["p50"] for part in latency.PARTS]
    assert min(parts) > 0
    assert found["fps"] == pytest.approx(24 * found["real_time_factor"])
    assert list(found["step_ms_at"]) == ["40", "45", "50"]
    assert found["far_ratio"] == pytest.approx(found["step_ms_at"]["50"] / found["step_ms_at"]["40"])
    assert 0 < found["first_frame_s"] < found["first_generated_s"] - found["open_s"]
    assert found["peak_device_mb"] is None


def test_without_far_there_is_no_far():
    found = latency.time_backend(random_weights("debug"), "torch-bf16", 3, threads=1)
    assert found["step_ms_at"] is found["far_ratio"] is None
    assert found["weights_hash"] == "random"


def test_a_near_far_is_its_own_beginning(debug_world):
    found = latency.time_backend(load_weights(debug_world), "torch-fp32", 1, (12,), 1)
    assert list(found["step_ms_at"]) == ["12"] and found["far_ratio"] == 1


def test_a_world_without_a_reprojection_is_timed_all_the_same(make_world):
    found = latency.time_backend(load_weights(make_world(reproject=False)), "torch-fp32", 4, (45,), 1)
    assert found["reproject_ms"] is None and found["total_ms"]["p50"] > 0 and found["far_ratio"] > 0


def test_a_trace_is_compared_with_the_reference():
    weights = random_weights("debug")
    right = latency.trace(open_backend("torch-fp32", weights, 1), weights)
    same = latency.time_backend(weights, "torch-fp32", 1, threads=1, reference=right)
    assert same["latent_relative_error"] == same["latent_relative_error_last"] == same["pixel_error_max"] == 0
    other = latency.time_backend(weights, "torch-bf16", 1, threads=1, reference=right)
    assert 0 < other["latent_relative_error_first"] < 0.1 and 0 < other["latent_relative_error"] < 0.2


def test_the_text_prefix_takes_part(make_world):
    weights = load_weights(make_world(reproject=False, text_width=8))
    made = []
    for seed in (1, 2):
        text = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(seed))
        backend = open_backend("torch-fp32", weights, 1, text)
        made.append(latency.trace(backend, weights, 2)[-1][0])
    assert not torch.allclose(*made, atol=1e-3)


def test_the_walk_through_a_place_begins_with_a_view_of_it(place_folder, monkeypatch):
    """A bug: it began with made-up stripes; its pictures were garbage, and so were the errors of backends over them."""
    weights, shown = load_weights(place_folder), []
    monkeypatch.setattr(latency, "encode_picture", lambda vae, picture: shown.append(picture))
    latency.begin(weights)
    place, width = weights.parallax.place, weights.config.picture[0]
    assert shown[0].shape == (*weights.config.picture[::-1], 3)
    colours = torch.cat([place.map.palette[1:], place.map.sky.palette]).float().clamp(-1, 1)
    found = torch.from_numpy(shown[0]).float().view(-1, 3)[:: width // 4] / 127.5 - 1
    assert torch.cdist(found, colours).amin(1).max() < 0.02, "every pixel is a block's or the sky's"
