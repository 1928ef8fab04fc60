"""Eight-bit networks for CPUs: graphs calibrated on a short walk, and linear layers in plain torch.

Shape key: N rows, I inputs, O outputs of a linear layer.
Graphs: matrices and kernels become int8 by output, what flows into them by the range seen while calibrating
(quantise-dequantise pairs in ONNX, which onnxruntime and OpenVINO both turn into int8 kernels); attention itself stays
as it is. Torch: weights int8 by output, inputs int8 by row, as they come; convolutions, for which torch has no int8
kernel of its own, stay in bf16.

Does not know which backend runs the result.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from controls.action import Action, encode
from controls.camera import Camera
from generator.checkpoint import Weights
from generator.precision import adds_int8_exactly
from generator.runtime.backend import Backend, Pixels
from generator.runtime.encode import encode_picture
from generator.runtime.graph import Arrays, Graph, graph_backend
from generator.runtime.onnx_export import places

CALIBRATED = 8  # latent frames after which ranges are taken as seen


class Recorder:
    """A compiler that runs modules in eager float32 and keeps what each was given, by its class name."""

    def __init__(self) -> None:
        self.seen: dict[str, list[list[npt.NDArray[Any]]]] = {}

    def __call__(self, module: nn.Module, example: tuple[Tensor, ...]) -> Graph:
        kept = self.seen.setdefault(type(module).__name__, [])

        @torch.no_grad()
        def graph(inputs: Arrays) -> Arrays:
            kept.append([np.array(array) for array in inputs])
            made = module(*(torch.from_numpy(array) for array in kept[-1]))
            return [np.array(tensor.numpy()) for tensor in made]

        return graph


def calibration(
    weights: Weights, frames: int = CALIBRATED, pictures: Sequence[Pixels] = ()
) -> dict[str, list[list[npt.NDArray[Any]]]]:
    """What every network of a world is given on walks of so many latent frames from each of the pictures, uint8
    (Y, X, 3), or from a made-up one, by explicit module's class name.
    """
    recorder = Recorder()
    backend = graph_backend("calibration", weights, recorder)
    width, height = weights.config.picture
    if not pictures:
        rows, columns = np.mgrid[0:height, 0:width]
        made = np.stack([200 * rows / height, 200 * columns / width, 128 + 90 * np.sin(columns / 7)], -1)
        pictures = [made.astype(np.uint8)]
    for number, picture in enumerate(pictures):
        walk(weights, backend, picture, frames, number)
    return recorder.seen


def walk(weights: Weights, backend: Backend, picture: Pixels, frames: int, number: int) -> None:
    """Walk and look about for so many latent frames from a picture, uint8 (Y, X, 3)."""
    config = weights.config
    latent = encode_picture(weights.tokenizer, picture)
    backend.transformer.reset(latent, 7 + number)
    shown, camera = backend.decoder.first(latent)[-1], Camera(config.hfov, config.picture[0] / config.picture[1])
    if backend.reprojection:
        backend.reprojection.reset(shown)
    size = (config.dit.height, config.dit.width)
    for k in range(frames):
        key = config.action_spec.keys[(k + number) % 4]
        action = Action.hold(config.action_spec, key, yaw=4 * np.sin(k + number), pitch=np.cos(k))
        given = encode(action, config.action_spec)
        rays = camera.ray_map(action.look, *size).reshape(-1, *size)
        ahead = backend.reprojection(shown, action.look, given) if backend.reprojection else None
        frames_made = backend.decoder.next(backend.transformer.step(given, rays, ahead))
        shown = (backend.reprojection.compose(frames_made) if backend.reprojection else frames_made)[-1]


class Reader:
    """Calibration inputs as onnxruntime's quantiser reads them: it asks for `get_next`, not for a class."""

    def __init__(self, names: Sequence[str], inputs: Sequence[Sequence[npt.NDArray[Any]]]) -> None:
        named = list(zip(names, places(names), strict=True))
        rows: list[dict[str, npt.NDArray[Any]]] = [{name: row[place] for name, place in named} for row in inputs]
        self.rows = iter(rows)

    def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
        """The next inputs, or None."""
        return next(self.rows, None)


def quantise_graph(blob: bytes, inputs: Sequence[Sequence[npt.NDArray[Any]]]) -> bytes:
    """An ONNX graph with int8 matrices and kernels, calibrated on these inputs.

    Weights have seven bits on processors that would overflow with eight.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    model = onnx.load_from_string(blob)
    constant = {tensor.name for tensor in model.graph.initializer}
    wanted = [
        node.name
        for node in model.graph.node
        if node.op_type in ("MatMul", "Gemm", "Conv") and node.input[1] in constant
    ]
    reader = Reader([port.name for port in model.graph.input if port.name not in constant], inputs)
    with tempfile.TemporaryDirectory() as folder, without_warnings():
        plain, small = Path(folder) / "plain.onnx", Path(folder) / "small.onnx"
        plain.write_bytes(blob)
        quantize_static(
            str(plain), str(small), reader, quant_format=QuantFormat.QDQ, per_channel=True, nodes_to_quantize=wanted,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, reduce_range=not adds_int8_exactly(),
            op_types_to_quantize=["MatMul", "Gemm", "Conv"],
        )  # fmt: skip
        return small.read_bytes()


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """The quantiser's advice, which it gives to the root logger, kept from a player's terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


class Int8Linear(nn.Module):
    """A linear layer whose weights are int8 by output and whose inputs become int8 by row as they come."""

    scale: Tensor
    small: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        scale, small = to_int8(linear.weight.detach().float())
        self.register_buffer("scale", scale[:, 0])
        self.register_buffer("small", small.t().contiguous())
        self.bias = linear.bias
        self.weight = linear.weight  # whose type tells callers what to send

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., O) in the type of x."""
        rows = x.reshape(-1, x.shape[-1])
        scale, small = to_int8(rows.float())
        made = torch._int_mm(small, self.small).float() * scale * self.scale
        if self.bias is not None:
            made = made + self.bias.float()
        return made.to(x.dtype).view(*x.shape[:-1], -1)


def to_int8(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's scale (N, 1) float32 and its numbers as int8 (N, I), so that scale * int8 is near the row."""
    scale = rows.abs().amax(1, keepdim=True).clamp_min(1e-12) / 127
    return scale, (rows / scale).round().to(torch.int8)


def quantise_linears(module: nn.Module) -> nn.Module:
    """The module with every linear layer of its blocks in int8, in place."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Linear):
            setattr(module, name, Int8Linear(child))
        else:
            quantise_linears(child)
    return module
