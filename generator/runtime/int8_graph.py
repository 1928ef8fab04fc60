"""Convolutions in eight bits within OpenVINO's graphs: what flows into them on a walk, and graphs that round to it.

Kernels become int8 by output channel, what flows into them uint8 within the range seen while calibrating; sums stay
exact, and everything between convolutions is float. A convolution that would change too much (`APART`) stays float.
OpenVINO makes int8 kernels of pairs that round and scale back (FakeQuantize).

Does not know which networks there are or where ranges are kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
import openvino.opset13 as ops
from openvino.passes import ConstantFolding, Manager

from controls.errors import UserError
from generator.model.int8_file import Range

APART = 0.015  # of what a network makes, that one of its convolutions may change by being in int8
LEVELS = 256
Arrays = Sequence[npt.NDArray[Any]]


def fold(graph: Any) -> Any:
    """The graph with everything computed that does not depend on its inputs, in place: kernels are constants then."""
    passes = Manager()
    passes.register_pass(ConstantFolding())
    passes.run_passes(graph)
    return graph


def convolutions(graph: Any) -> list[Any]:
    """The convolutions of a folded graph whose kernels are constants, in the graph's order."""
    return [
        node
        for node in graph.get_ordered_ops()
        if node.get_type_name() == "Convolution" and node.input_value(1).get_node().get_type_name() == "Constant"
    ]


def observe(graph: Any, inputs: Sequence[Arrays], options: dict[str, Any]) -> list[Range]:
    """The ranges of what flows into the convolutions of a folded graph, given these inputs in turn."""
    told = []
    for node in convolutions(graph):
        flow = node.input_value(0)
        axes = ops.constant(np.arange(len(flow.get_shape())))
        told += [ops.reduce_min(flow, axes), ops.reduce_max(flow, axes)]
    if not told:
        return []
    probe = ov.Model([ops.result(node) for node in told], graph.get_parameters(), "probe")
    seen = np.array([[float(value) for value in row] for row in run(probe, inputs, options)])
    lows, highs = np.minimum(seen[:, 0::2].min(0), 0.0).tolist(), np.maximum(seen[:, 1::2].max(0), 0.0).tolist()
    kernels = [shape_of(node) for node in convolutions(graph)]
    rows = [Range(place, *each) for place, each in enumerate(zip(lows, highs, kernels, strict=True))]
    return [row for row in rows if row.low < row.high]


def shape_of(convolution: Any) -> tuple[int, ...]:
    """Of its kernel."""
    return tuple(int(side) for side in convolution.input_value(1).get_shape())


def choose(
    build: Callable[[], Any], rows: Sequence[Range], inputs: Sequence[Arrays], options: dict[str, Any], exact: bool
) -> list[Range]:
    """Those of the ranges whose convolution, alone in int8, changes what the graph makes of the inputs by `APART` at
    most. `build` makes the folded graph, once for each; `exact` as in `quantise`.
    """
    due = run(build(), inputs, options)
    kept = []
    for row in rows:
        made = run(quantise(build(), [row], exact), inputs, options)
        if apart([one[0] for one in made], [one[0] for one in due]) <= APART:
            kept.append(row)
    return kept


def run(graph: Any, inputs: Sequence[Arrays], options: dict[str, Any]) -> list[list[npt.NDArray[Any]]]:
    """What a graph makes of each of the inputs, in float32."""
    request = (
        ov.Core().compile_model(graph, "CPU", {**options, "INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    )
    made = []
    for given in inputs:
        for port, array in enumerate(given):
            request.set_input_tensor(port, ov.Tensor(np.ascontiguousarray(array)))
        request.infer()
        made.append([np.array(request.get_output_tensor(port).data) for port in range(len(request.results))])
    return made


def apart(made: Arrays, due: Arrays) -> float:
    """The root mean square of what numbers differ by, over that of what they should be."""
    square = sum(float(np.square(one.astype(np.float64) - other).sum()) for one, other in zip(made, due, strict=True))
    size = sum(float(np.square(other.astype(np.float64)).sum()) for other in due)
    return math.sqrt(square / max(size, 1e-12))


def quantise(graph: Any, ranges: Sequence[Range], exact: bool) -> Any:
    """The folded graph with int8 convolutions where there are ranges, in place. UserError when there is no such place.

    Kernels have seven bits where sums are not `exact`: pairs of products would overflow. Those are half of eight bits'
    range: with fewer levels OpenVINO computes in float.
    """
    found = convolutions(graph)
    for row in ranges:
        if row.place >= len(found) or shape_of(found[row.place]) != row.kernel:
            raise UserError(
                f"The ranges for int8 do not fit this graph (convolution {row.place} of {len(found)}, kernel "
                f"{'x'.join(map(str, row.kernel))}); make them anew with run.py calibrate, or take --backend openvino."
            )
        node = found[row.place]
        flow, kernel = node.input_value(0), node.input_value(1).get_node()
        low, high = levels_of(row.low, row.high)
        ends = [ops.constant(np.full((1,) * len(flow.get_shape()), end, np.float32)) for end in (low, high)]
        node.input(0).replace_source_output(ops.fake_quantize(flow, *ends, *ends, LEVELS).output(0))
        weights = np.asarray(kernel.data, np.float32)
        most = np.maximum(np.abs(weights).max(axis=tuple(range(1, weights.ndim)), keepdims=True), 1e-9)
        bounds = [ops.constant(sign * most * np.float32(1 if exact else 2)) for sign in (-1, 1)]
        small = ops.fake_quantize(ops.constant(weights), *bounds, *bounds, LEVELS - 1)
        node.input(1).replace_source_output(small.output(0))
    return graph


def levels_of(low: float, high: float) -> tuple[float, float]:
    """The range moved a little, so that zero, which lies within and pads pictures, is one of its levels."""
    step = (high - low) / (LEVELS - 1)
    zero = round(-low / step)
    return -zero * step, (LEVELS - 1 - zero) * step
