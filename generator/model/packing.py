"""Packing: whole numbers in weights files (a map's blocks, faces and light) take a quarter of their room.

Bytes of a large tensor of whole numbers are kept as xz, those that ascend as the steps between them. A packed tensor is
one of bytes, its name ends in ENDING, and it begins with a line of JSON that tells its type, shape and whether it is
steps. What is unpacked is the same to the bit.

Does not know what tensors mean, or of files.
"""

from __future__ import annotations

import json
import lzma
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from controls.errors import UserError

ENDING = ".xz"
LEAST = 1 << 16  # bytes: smaller ones stay as they are
KINDS = ("uint8", "int8", "int16", "int32", "int64")
HEADER = 200  # bytes that the first line has at most
MOST = 1 << 30  # bytes that a tensor may have


def packed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, large ones of whole numbers packed."""
    made = {}
    for name, tensor in tensors.items():
        kind = str(tensor.dtype).removeprefix("torch.")
        if kind in KINDS and tensor.numel() * tensor.element_size() >= LEAST:
            made[name + ENDING] = _pack(tensor, kind)
        else:
            made[name] = tensor
    return made


def _pack(tensor: Tensor, kind: str) -> Tensor:
    values = tensor.detach().cpu().contiguous().numpy()
    steps = kind in ("int32", "int64") and values.ndim == 1 and values.size > 0 and _ascends(values)
    if steps:
        values = np.diff(values, prepend=values.dtype.type(0))
    head = json.dumps({"kind": kind, "shape": list(tensor.shape), "steps": steps}).encode() + b"\n"
    return torch.frombuffer(bytearray(head + lzma.compress(values.tobytes())), dtype=torch.uint8)


def _ascends(values: npt.NDArray[np.integer[Any]]) -> bool:
    """Whether numbers (n,) go up from 0 or more: the steps between them are then of the same type."""
    return bool(values[0] >= 0 and (values[1:] >= values[:-1]).all())


def unpacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that `packed` was given; UserError, with the name, when one is damaged."""
    made = {}
    for name, tensor in tensors.items():
        if not name.endswith(ENDING):
            made[name] = tensor
            continue
        name = name.removesuffix(ENDING)
        try:
            made[name] = _unpack(tensor)
        except (ValueError, KeyError, TypeError, AssertionError, lzma.LZMAError) as error:
            raise UserError(f"The weights hold a damaged tensor {name!r} ({error}); restore them.") from error
    return made


def _unpack(tensor: Tensor) -> Tensor:
    blob = tensor.numpy().tobytes()
    end = blob.index(b"\n", 0, HEADER)
    head = json.loads(blob[:end])
    kind, shape, steps = head["kind"], [int(side) for side in head["shape"]], head["steps"] is True
    if kind not in KINDS or min(shape, default=0) < 0:
        raise ValueError(f"it has the type {kind!r} and the shape {shape}")
    size = math.prod(shape) * np.dtype(kind).itemsize
    if size > MOST:
        raise ValueError(f"it has {size} bytes")
    unpacker = lzma.LZMADecompressor()
    content = unpacker.decompress(blob[end + 1 :], max_length=size + 1)
    if len(content) != size or not unpacker.eof:
        raise ValueError(f"it has not the {size} bytes that it tells of")
    values = np.frombuffer(content, kind).reshape(shape)
    return torch.from_numpy(np.cumsum(values, dtype=kind) if steps else values.copy())
