"""The roofline: floors follow from the measured machine, every part is timed, and the table says so."""

import pytest
import torch

from controls.errors import UserError
from generator.evaluation import roofline
from generator.runtime.build import random_weights, world_config


@pytest.fixture
def small(monkeypatch):
    """A machine that is measured in no time."""
    monkeypatch.setattr(roofline, "COPY_BYTES", {"cpu": 2**20})
    monkeypatch.setattr(roofline, "MATRIX_SIDE", {"cpu": 64})


@pytest.fixture
def with_text(monkeypatch):
    from generator import config

    table = config.PRESETS["debug"]
    changed = table | {"dit": {**table["dit"], "text_width": 16, "reproject": False, "sink": 1}}
    monkeypatch.setitem(config.PRESETS, "debug", changed)
    return random_weights("debug")


def test_floors_and_times(small):
    weights = random_weights("debug")
    report = roofline.roofline(weights, 5, repeats=2)
    machine, parts = report["machine"], {row["part"]: row for row in report["parts"]}
    assert machine["copy_bytes_per_s"] > 1e7 and machine["flops_per_s"] > 1e6 and machine["dtype"] == "float32"
    for name, row in parts.items():
        assert row["compute_floor_ms"] == pytest.approx(1e3 * row["flops"] / machine["flops_per_s"])
        assert row["memory_floor_ms"] == pytest.approx(1e3 * row["bytes"] / machine["copy_bytes_per_s"])
        assert row["floor_ms"] == max(row["compute_floor_ms"], row["memory_floor_ms"])
        if name != "text":
            assert row["measured_ms"] > 0 and row["times_floor"] == pytest.approx(row["measured_ms"] / row["floor_ms"])
    assert parts["text"]["measured_ms"] is None and report["text_tokens"] == 0
    measured = sum(row["measured_ms"] for name, row in parts.items() if name != "text")
    assert report["measured_ms"] == pytest.approx(measured) and report["step_ms"] > 0


def test_text_is_timed_once_a_session(small, with_text):
    report = roofline.roofline(with_text, 5, repeats=2)
    text = next(row for row in report["parts"] if row["part"] == "text")
    assert text["once_a_session"] and text["measured_ms"] > 0
    each = [row["floor_ms"] for row in report["parts"] if not row["once_a_session"]]
    assert report["floor_ms"] == pytest.approx(sum(each)) and len(each) == 6
    shown = roofline.to_markdown(report)
    assert "text (once a session)" in shown and shown.count("\n|") == 10
    assert f"{report['keys']}" == str(5 + 4 * (1 + 4 + 1))


def test_a_part_is_all_that_it_says(small, with_text):
    """What the timed calls compute is what was counted: torch's own counter sees the same operations."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    calls = roofline.runners(with_text, 5)
    from generator.evaluation import counts

    for part in counts.count(world_config("debug"), 5):
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            calls[part.name]()
        assert counter.get_total_flops() == part.flops, part.name


def test_other_types_are_refused():
    with pytest.raises(UserError, match="--dtype int8 has no plain matrix product"):
        roofline.dtype_of("int8")
