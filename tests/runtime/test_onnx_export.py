"""Exported graphs say what eager says: decoder, first decode and transformer, over several frames with their state."""

import importlib.util
import json
import logging

import numpy as np
import pytest
import torch

import run
from controls.errors import UserError
from generator.checkpoint import load_weights
from generator.runtime import graph_cache, onnx_export
from generator.runtime.eager import EagerDecoder
from generator.runtime.select import open_backend

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install -e '.[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install -e '.[onnx]'")
pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install -e '.[onnx]'")

from generator.runtime import onnx_runtime  # noqa: E402  (needs the packages above)
from generator.runtime.quantise import quantise_graph  # noqa: E402


@pytest.fixture(scope="module")
def exported(world_folder, tmp_path_factory):
    """The decoder's two graphs, written by the command."""
    folder = tmp_path_factory.mktemp("onnx")
    files = {}
    for part in ("decoder", "decoder-first"):
        files[part] = folder / f"{part}.onnx"
        words = ["export", "--weights", str(world_folder), "--part", part, "--out", str(files[part])]
        assert run.main(words) == 0
    return files


def run_graph(path, **inputs):
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


def test_the_decoder_with_explicit_state_is_eagers(exported, world_folder):
    """Five frames, each graph's memory handed to the next: to a grey level of eager."""
    weights = load_weights(world_folder)
    eager, latents = EagerDecoder(weights.tokenizer), torch.randn(6, 1, 8, 4, 4)
    made = run_graph(exported["decoder-first"], latent=latents[0].numpy())
    assert made["frames"].dtype == np.uint8 and made["frames"].shape == (1, 64, 64, 3)
    assert np.abs(made["frames"].astype(int) - eager.first(latents[0])).max() <= 1
    for latent in latents[1:]:
        memory = {name.removeprefix("next_"): made[name] for name in made if name != "frames"}
        made = run_graph(exported["decoder"], latent=latent.numpy(), **memory)
        right = eager.next(latent)
        assert made["frames"].shape == (4, 64, 64, 3) and right.std() > 5
        assert np.abs(made["frames"].astype(int) - right).max() <= 1
        for number, own in enumerate(eager.memory):
            assert np.allclose(made[f"next_memory_{number}"], own.numpy(), atol=1e-3)


def test_the_file_names_its_weights(exported, world_folder):
    model = onnx.load(exported["decoder"])
    onnx.checker.check_model(model)
    kept = {entry.key: entry.value for entry in model.metadata_props}
    assert kept["weights"] == load_weights(world_folder).hash and kept["part"] == "decoder"
    assert model.graph.input[0].name == "latent" and model.graph.output[0].name == "frames"


def test_the_decoder_is_typed_as_asked(world_folder, tmp_path):
    """What TensorRT 11 needs: the graph itself computes in bf16, pictures stay bytes."""
    found = onnx_export.export(load_weights(world_folder), "decoder", tmp_path / "half.onnx", "bf16")
    model = onnx.load(tmp_path / "half.onnx")
    kinds = {port.name: port.type.tensor_type.elem_type for port in [*model.graph.input, *model.graph.output]}
    assert {kind for name, kind in kinds.items() if name != "frames"} == {onnx.TensorProto.BFLOAT16}
    assert kinds["frames"] == onnx.TensorProto.UINT8 and found["dtype"] == "bf16"


def test_mistakes_are_said(world_folder, tmp_path, capsys, monkeypatch):
    words = ["export", "--weights", str(world_folder), "--out", str(tmp_path / "x.onnx")]
    assert run.main([*words, "--part", "roof"]) == 2
    assert "no part 'roof' to export; choose decoder" in capsys.readouterr().err
    assert run.main([*words, "--part", "decoder", "--dtype", "int8"]) == 2
    assert "--dtype int8 is not exported" in capsys.readouterr().err
    monkeypatch.setattr(onnx_export, "LARGEST", 1000)
    assert run.main([*words, "--part", "decoder"]) == 2
    assert "GB, but an ONNX file takes 2 GB" in capsys.readouterr().err
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert run.main([*words, "--part", "decoder"]) == 2
    assert "needs the package onnx; run: pip install -e '.[onnx]'" in capsys.readouterr().err
    assert not (tmp_path / "x.onnx").exists()


def test_the_command_says_what_it_wrote(world_folder, tmp_path, capsys):
    out = tmp_path / "step.onnx"
    assert run.main(["export", "--weights", str(world_folder), "--part", "transformer", "--out", str(out)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["bytes"] == out.stat().st_size and list(said["inputs"]) == list(onnx_export.STEP_INPUTS)


def test_graphs_are_kept_by_their_weights(world_folder, tmp_path, monkeypatch):
    """A second start exports nothing; other weights do."""
    monkeypatch.setenv("FARSTEP_CACHE", str(tmp_path))
    weights = load_weights(world_folder)
    open_backend("onnxruntime", weights, 1)
    kept = sorted((tmp_path / "onnx").iterdir())
    assert len(kept) == 4  # step, decode, encode, depth
    with monkeypatch.context() as patch:
        patch.setattr("generator.runtime.onnx_runtime.to_onnx", None)
        open_backend("onnxruntime", weights, 1)
    assert graph_cache.cache_path("onnx", ".onnx", "a") != graph_cache.cache_path("onnx", ".onnx", "b")


def test_a_missing_onnxruntime_is_named(world_folder, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package onnxruntime; run: pip install -e '.\[onnx\]'"):
        open_backend("onnxruntime", load_weights(world_folder), 1)


class Heedless(torch.nn.Module):
    """Reads its first input and its last."""

    def forward(self, x, unread, weight):
        return (x @ weight - 1,)


@pytest.mark.parametrize("compiler", ["onnxruntime", "openvino"])
def test_an_input_that_nothing_reads_leaves_the_others_in_their_places(compiler, caplog):
    """A model without sinks reads no sinks: OpenVINO dropped them and was given them in the mask's place."""
    example = tuple(torch.randn(size, generator=torch.Generator().manual_seed(0)) for size in ((3, 4), (2, 5), (4, 6)))
    blob = onnx_runtime.graph_bytes(Heedless(), example, "")
    if compiler == "openvino":
        module = pytest.importorskip("generator.runtime.openvino")
        graph = module.as_graph(module.compile_graph(Heedless(), example, 1, "f32"))
    else:
        graph = onnx_runtime.as_graph(onnx_runtime.session(blob, 1))
    made = graph([value.numpy() for value in example])[0]
    assert np.allclose(made, Heedless()(*example)[0].numpy(), atol=1e-5)
    small = quantise_graph(blob, [[value.numpy() for value in example]])
    assert next(iter(onnxruntime.InferenceSession(small).get_inputs())).name == "in_0"
    assert not [said for said in caplog.records if said.name == "root"], "the quantiser's advice is not for players"
    logging.getLogger().warning("other remarks still come")
    assert [said.name for said in caplog.records][-1] == "root"
