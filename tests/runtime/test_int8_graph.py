"""Convolutions in int8: near the float ones within the ranges they were told, and only where that loses little."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from controls.errors import UserError
from generator import precision
from generator.checkpoint import load_weights, save_weights
from generator.model.int8_file import NAME, Range, load_ranges, save_ranges
from generator.runtime.select import best_backend
from generator.world import World
from run import main

openvino = pytest.importorskip("generator.runtime.openvino")
from generator.runtime import int8_graph  # noqa: E402 (needs openvino)

OPTIONS = openvino.options_of(1, "f32")
EXACT = precision.adds_int8_exactly()


class Two(nn.Module):
    """Two convolutions; when `wild` the second is given a channel of large numbers and makes nothing of it."""

    def __init__(self, wild=False):
        super().__init__()
        torch.manual_seed(3)
        self.first, self.second = nn.Conv2d(4, 16, 3, padding=1), nn.Conv2d(16, 8, 3, padding=1)
        self.wild = wild
        if wild:
            nn.init.zeros_(self.second.weight[:, 0])

    def forward(self, x):
        x = nn.functional.silu(self.first(x))
        if self.wild:
            x = torch.cat([300 * x[:, :1], x[:, 1:]], dim=1)
        return (self.second(x),)


def build(module):
    return int8_graph.fold(openvino.convert(module, (torch.zeros(1, 4, 12, 16),)))


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    return [[rng.normal(size=(1, 4, 12, 16)).astype(np.float32)] for _ in range(4)]


def of(module, rows, inputs):
    made = int8_graph.run(int8_graph.quantise(build(module), rows, EXACT), inputs, OPTIONS)
    return [one[0] for one in made]


def test_ranges_hold_what_flowed_and_pictures_come_out_nearly_the_same(inputs):
    module = Two()
    rows = int8_graph.observe(build(module), inputs, OPTIONS)
    given = np.stack([one[0] for one in inputs])
    assert [(row.place, row.kernel) for row in rows] == [(0, (16, 4, 3, 3)), (1, (8, 16, 3, 3))]
    assert (rows[0].low, rows[0].high) == pytest.approx((given.min(), given.max()))
    assert -0.2785 < rows[1].low < -0.2 and rows[1].high > 1  # what a SiLU lets through
    due = of(module, [], inputs)
    with torch.no_grad():
        assert np.allclose(due[0], module(torch.from_numpy(inputs[0][0]))[0].numpy(), atol=1e-4)
    apart = int8_graph.apart(of(module, rows, inputs), due)
    assert 1e-4 < apart < (0.03 if EXACT else 0.05), "rounded, and near"
    low = [dataclasses.replace(row, low=row.low / 8, high=row.high / 8) for row in rows]
    assert int8_graph.apart(of(module, low, inputs), due) > 3 * apart, "ranges matter"


def test_a_convolution_that_would_lose_much_stays_float(inputs):
    for wild, kept in ((False, [0, 1]), (True, [0])):
        module = Two(wild)
        rows = int8_graph.observe(build(module), inputs, OPTIONS)
        chosen = int8_graph.choose(lambda module=module: build(module), rows, inputs, OPTIONS, EXACT)
        places = [row.place for row in chosen]
        assert places == kept if EXACT else set(places) <= set(kept)  # seven bits may cost more


def test_kernels_of_seven_bits_are_computed_in_int8_and_do_not_overflow(inputs):
    """Of 127 levels they were float: without VNNI the same time as in float32, and what rounding loses as well."""
    module, kinds = Two(), {}
    rows = int8_graph.observe(build(module), inputs, OPTIONS)
    for exact in (True, False):
        graph = int8_graph.quantise(build(module), rows, exact)
        made = openvino.ov.Core().compile_model(graph, "CPU", OPTIONS).get_runtime_model().get_ops()
        about = [{name: node.get_rt_info()[name].value for name in ("layerType", "primitiveType")} for node in made]
        kinds[exact] = [one["primitiveType"].endswith("I8") for one in about if one["layerType"] == "Convolution"]
        rounded = [node for node in graph.get_ordered_ops() if node.get_type_name() == "FakeQuantize"]
        kernels = [node for node in rounded if node.input_value(0).get_node().get_type_name() == "Constant"]
        for node in kernels:
            weights, low, high = (np.asarray(node.input_value(port).get_node().data) for port in range(3))
            most = np.abs(weights / ((high - low) / 254)).max()
            assert most == pytest.approx(127 if exact else 63.5, rel=1e-3) and 2 * 255 * 64 < 2**15
        assert len(kernels) == len(kinds[exact]) == 2
    assert kinds[False] == kinds[True]


def test_a_graph_without_convolutions_has_no_ranges():
    graph = int8_graph.fold(openvino.convert(nn.Sequential(nn.Linear(4, 4)), (torch.zeros(2, 4),)))
    assert int8_graph.observe(graph, [[np.zeros((2, 4), np.float32)]], OPTIONS) == []


def test_ranges_of_another_graph_are_refused():
    for place, kernel in ((7, (16, 4, 3, 3)), (1, (16, 4, 3, 3))):
        with pytest.raises(UserError, match=f"do not fit this graph .convolution {place} of 2, kernel 16x4x3x3"):
            int8_graph.quantise(build(Two()), [Range(place, -1.0, 1.0, kernel)], True)


@given(low=st.floats(-1e3, 0), high=st.floats(0, 1e3))
@settings(max_examples=100, deadline=None)
def test_zero_is_a_level(low, high):
    """Pictures are padded with zeros: a level beside zero would draw a frame around them."""
    if high - low < 1e-3:
        return
    start, end = int8_graph.levels_of(low, high)
    step = (end - start) / 255
    assert step == pytest.approx((high - low) / 255) and abs(start - low) <= step and abs(end - high) <= step
    assert -start / step == pytest.approx(round(-start / step), abs=1e-6) and start <= 0 <= end


def test_a_world_that_is_calibrated_plays_in_int8_of_itself(make_world, first_picture, monkeypatch, capsys):
    folder = make_world(place=True)
    weights = load_weights(folder)
    assert weights.int8 is None and best_backend(weights) != "openvino-int8"
    assert main(["calibrate", "--weights", str(folder), "--frames", "0"]) == 2
    assert "--frames 0 is no walk" in capsys.readouterr().err
    choose = int8_graph.choose  # one of each network, as it is slow; afterwards none
    monkeypatch.setattr(int8_graph, "choose", lambda build, rows, *rest: choose(build, rows[:1], *rest))
    assert main(["calibrate", "--weights", str(folder), "--frames", "1", "--threads", "1"]) == 0
    assert "ExplicitDecode: " in capsys.readouterr().out and (folder / NAME).is_file()
    weights = load_weights(folder)
    assert set(weights.int8) == {"ExplicitEncode", "ExplicitDepth", "ExplicitRefine", "ExplicitDecode"}
    for exact, gain, name in ((True, 0, "openvino-int8"), (False, 1.6, "openvino-int8"), (False, 1, "openvino")):
        monkeypatch.setattr("generator.runtime.select.adds_int8_exactly", lambda exact=exact: exact)
        monkeypatch.setattr(openvino, "gain_of_int8", lambda gain=gain: gain)
        assert best_backend(weights) == name
    monkeypatch.setattr("generator.runtime.select.adds_int8_exactly", lambda: True)
    assert World(folder, threads=1).info["backend"] == "openvino-int8"
    save_ranges(folder, "cd" * 32, weights.int8)
    with pytest.raises(UserError, match="belong to the weights"):
        load_weights(folder)
    monkeypatch.setattr(int8_graph, "choose", lambda build, rows, *rest: rows)
    assert main(["calibrate", "--weights", str(folder), "--frames", "1", "--threads", "1"]) == 0, "makes it anew"
    assert load_weights(folder).int8
    parts = (weights.config, weights.tokenizer, weights.dit.state_dict(), None, weights.parallax)
    assert save_weights(folder, *parts) and load_ranges(folder, weights.hash) is None, "of what was here before"
