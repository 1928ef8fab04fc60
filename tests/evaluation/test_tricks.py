"""Each switch of the GPU runtime is timed and held to eager; here on CPU tensors, without graphs and streams."""

import torch

from generator.checkpoint import load_weights
from generator.evaluation import tricks as module
from generator.evaluation.tricks import VARIANTS, to_markdown, tricks
from generator.runtime.gpu import Switches, open_gpu, parse_switches


def test_every_variant_has_a_row(monkeypatch, make_world):
    weights = load_weights(make_world(reproject=False))
    base = Switches(graph=False, overlap=False, attention="sdpa-math")
    wanted = ("own choices", "linear layers in fp8", "attention: sdpa-cudnn")
    monkeypatch.setattr(module, "VARIANTS", {name: VARIANTS[name] for name in wanted})
    opened = []

    def open_with(switches):
        opened.append(switches)
        return open_gpu("cuda", weights, torch.device("cpu"), parse_switches(switches, base))

    found = tricks(weights, 2, open_with, judged=(1, 3))
    own, fp8, cudnn = found["tricks"]
    assert opened == [(), ("linear=fp8",), ("attention=sdpa-cudnn",)]
    assert 0 <= own["latent_error_bf16"]["3"] < fp8["latent_error_bf16"]["3"] < 0.3
    assert 0 < own["latent_error_fp32"]["1"] < fp8["latent_error_fp32"]["1"]
    assert fp8["gain_ms"] == fp8["total_ms"]["p50"] - own["total_ms"]["p50"] and own["pipelined_ms"] > 0
    assert fp8["switches"]["linear"] == "fp8" and "missing" in cudnn  # no cuDNN on a CPU, and nothing in its place
    table = to_markdown(found)
    assert table.count("\n") == 5 and "linear layers in fp8" in table


def test_the_variants_turn_every_switch():
    turned = {entry.partition("=")[0] for switches in VARIANTS.values() for entry in switches}
    assert turned == set(Switches.__dataclass_fields__)
    for switches in VARIANTS.values():
        parse_switches(switches, Switches())


def test_what_does_not_fit_is_left_out(monkeypatch, world_folder):
    monkeypatch.setattr(module, "available_memory", lambda device: 10.0)
    assert module.reference("torch-fp32", load_weights(world_folder), None, 1) is None
