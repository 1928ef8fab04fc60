"""What of TensorRT can be checked without it: refusals, the cache's key, and how an engine is asked for."""

import importlib
import importlib.util
import types

import pytest
import torch

from controls.errors import UserError
from generator.checkpoint import load_weights
from generator.runtime import tensorrt_engine as engine


class Recorder:
    """Stands for the tensorrt package: keeps what is asked of it."""

    __version__ = "11.2.0.1"

    def __init__(self, parses=True):
        self.asked, self.parses = [], parses
        self.MemoryPoolType = types.SimpleNamespace(WORKSPACE="workspace")

    class Logger:
        ERROR = 1

        def __init__(self, level):
            self.level = level

    def Builder(self, logger):
        asked = self.asked
        config = types.SimpleNamespace(set_memory_pool_limit=lambda *given: asked.append(("limit", given)))
        return types.SimpleNamespace(
            create_network=lambda *flags: asked.append(("network", flags)),
            create_builder_config=lambda: config,
            build_serialized_network=lambda network, config: b"engine",
        )

    def OnnxParser(self, network, logger):
        asked, parses = self.asked, self.parses

        def parse(blob):
            asked.append(("parse", blob))
            return parses

        return types.SimpleNamespace(parse=parse, num_errors=1, get_error=lambda n: "no kernel")


def test_without_the_package_it_is_refused(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package tensorrt; run: pip install -e '.\[tensorrt\]'"):
        engine.load_tensorrt()


@pytest.mark.parametrize(("version", "said"), [("10.16.1", "10.16.1 is older than 11"), ("11.2", "sees none")])
def test_old_versions_and_missing_gpus_are_refused(monkeypatch, version, said):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(importlib, "import_module", lambda name: types.SimpleNamespace(__version__=version))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=said):
        engine.load_tensorrt()


def test_the_key_is_gpu_version_weights_and_size(monkeypatch, tmp_path):
    monkeypatch.setenv("FARSTEP_CACHE", str(tmp_path))
    own = ("NVIDIA H100", "11.2", "abc", (64, 64))
    others = [("NVIDIA H200", *own[1:]), (own[0], "11.3", *own[2:]), (*own[:2], "abd", own[3]), (*own[:3], (64, 96))]
    paths = {engine.engine_path(*each) for each in (own, *others)}
    assert len(paths) == 5 and engine.engine_path(*own) in paths
    assert all(path.parent == tmp_path / "tensorrt" and path.suffix == ".engine" for path in paths)


def test_networks_are_strongly_typed_and_ask_for_no_precision():
    trt = Recorder()
    assert engine.build_engine(trt, b"graph") == b"engine"
    assert trt.asked == [("network", ()), ("parse", b"graph"), ("limit", ("workspace", engine.WORKSPACE))]


def test_what_the_parser_says_is_told():
    with pytest.raises(UserError, match=r"TensorRT 11.2.0.1 cannot read the decoder's graph \(no kernel\)"):
        engine.build_engine(Recorder(parses=False), b"graph")


def test_an_engine_is_built_once(monkeypatch, tmp_path, world_folder):
    pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install -e '.[onnx]'")
    monkeypatch.setenv("FARSTEP_CACHE", str(tmp_path))
    weights, trt = load_weights(world_folder), Recorder()
    assert engine.engine_of(trt, weights, "NVIDIA H100") == b"engine"
    assert len([each for each in trt.asked if each[0] == "parse"]) == 1
    assert engine.engine_of(trt, weights, "NVIDIA H100") == b"engine"
    assert len([each for each in trt.asked if each[0] == "parse"]) == 1
    assert engine.engine_of(trt, weights, "NVIDIA H200") == b"engine"
    assert len([each for each in trt.asked if each[0] == "parse"]) == 2
    assert weights.tokenizer.decoder.stem.conv.weight.dtype == torch.float32
