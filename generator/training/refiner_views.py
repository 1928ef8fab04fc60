"""What a refiner is given along recorded walks, beside the recorded pictures: a world's own walks, kept on disk.

Shape key: N pictures, K channels, B walks at once, F latent frames, T video frames, Y, X video size.
A world that is one place is put at the recorded pose before every latent frame, so that what it shows and the recorded
picture show the same and differ only by how well it is shown; its last picture stays its own. Each kept picture is K
channels of bytes: decoded, moved, which pixels of that were really seen, the map's view where there is one, recorded.

Does not know how a refiner learns.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from controls.action import ActionSpec, encode_rows
from controls.camera import Camera
from controls.errors import UserError
from generator.checkpoint import Weights
from generator.data.clips import Clip, Dataset
from generator.data.latents import PLAN, video_tensor
from generator.rollout import Eye, advance, start

Bytes = npt.NDArray[np.uint8]
PARTS = (3, 3, 1, 3)  # channels of what a refiner is given: decoded, moved, inside, the map's view
RECORDED = 3  # channels of the recorded picture


class Views:
    """Kept pictures (N, K, Y, X) uint8, read from disk as they are asked for."""

    def __init__(self, path: Path) -> None:
        try:
            self.kept: Bytes = np.load(path, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is no readable recording of walks ({error}); remove it and run again.") from error
        assert self.kept.ndim == 4, self.kept.shape

    def __len__(self) -> int:
        return len(self.kept)

    def read(self, index: int, crop: tuple[slice, slice]) -> Bytes:
        """A crop of one picture, (K, y, x)."""
        return np.array(self.kept[index, :, crop[0], crop[1]])


def split(pictures: Tensor) -> tuple[list[Tensor], Tensor]:
    """Bytes (n, K, y, x) as the refiner's inputs, in [-1, 1] or 0 to 1 (what was seen), and the recorded pictures."""
    levels = pictures.float() / 127.5 - 1
    given, at = [], 0
    for channels in PARTS:
        if at + channels + RECORDED > pictures.shape[1]:
            break  # a world without a map
        given.append(levels[:, at : at + channels])
        at += channels
    given[2] = (given[2] + 1) / 2
    return given, levels[:, at:]


def long_enough(dataset: Dataset, split: str, frames: int) -> list[int]:
    """The clips of a split with so many latent frames after the first picture."""
    needed = 1 + frames * dataset.spec.ticks
    return [clip for clip in dataset.select(split) if dataset.entry(clip)["frames"] >= needed]


def record(
    weights: Weights,
    dataset: Dataset,
    clips: Sequence[int],
    frames: int,
    kept: int,
    seed: int,
    path: Path,
    together: int,
) -> Iterator[int]:
    """Walk along clips for `frames` latent frames each and keep `kept` pictures of every one, in a file that appears
    when it is whole; yields how many walks are done. UserError when the disk refuses.
    """
    rng, part = np.random.default_rng(seed), path.with_name(path.name + ".part")
    knows = weights.parallax is not None and weights.parallax.refiner is not None and weights.parallax.refiner.knows
    wide, high = weights.config.picture
    shape = (len(clips) * frames * kept, sum(PARTS[: 3 + knows]) + RECORDED, high, wide)
    try:
        with part.open("wb") as file:
            about = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, about)
            for begin in range(0, len(clips), together):
                chosen = clips[begin : begin + together]
                for pictures in _walked(weights, dataset, chosen, frames, rng):
                    for some in pictures:  # each (ticks, K, Y, X)
                        file.write(some[np.sort(rng.permutation(len(some))[:kept])].tobytes())
                yield begin + len(chosen)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UserError(
            f"{path} cannot be written ({error.strerror}); it takes {np.prod(shape) / 1e9:.1f} GB: free space, or give "
            "fewer --set walks."
        ) from error


@torch.no_grad()
def _walked(
    weights: Weights, dataset: Dataset, clips: Sequence[int], frames: int, rng: np.random.Generator
) -> Iterator[Bytes]:
    """For each latent frame what the refiner saw and what was recorded: (B, ticks, K, Y, X) bytes."""
    spec, (wide, high) = weights.config.action_spec, weights.config.picture
    camera, parallax = Camera(weights.config.hfov, wide / high), weights.parallax
    device = weights.dit.embed.weight.device
    assert parallax is not None and parallax.refiner is not None
    ticks, read = spec.ticks, [dataset.clip(clip) for clip in clips]
    begins = [int(rng.integers(len(clip.keys) - frames * ticks)) for clip in read]
    real = np.stack([clip.frames(b, 1 + frames * ticks) for clip, b in zip(read, begins, strict=True)])
    eye = Eye(weights.tokenizer, weights.config.hfov, parallax)
    first = video_tensor(real[:, 0], device)[:, None].to(next(weights.tokenizer.parameters()))
    latent = weights.tokenizer.normalise(weights.tokenizer.encode(first)[0])[:, 0].float()
    eye.open(latent)
    state, seen = start(weights.dit, latent, int(rng.integers(1 << 30))), _Seen()
    hook = parallax.refiner.register_forward_pre_hook(seen)
    try:
        for k in range(1, 1 + frames * ticks, ticks):
            places = [slice(b + k, b + k + ticks) for b in begins]
            given = _given(read, places, spec, camera, latent.shape[-2:])
            actions, rays, look = (torch.from_numpy(v).to(device) for v in given)
            pose = np.stack([clip.pose[at.start - 1, PLAN] for clip, at in zip(read, places, strict=True)])
            eye.stand_at(torch.from_numpy(pose).float().to(device))
            ahead = eye.ahead(look, actions)
            eye.see(advance(weights.dit, state, actions, rays, ahead))
            shown = torch.cat([seen.parts, _chw(real[:, k : k + ticks]).flatten(0, 1)], dim=1)
            yield shown.unflatten(0, (len(read), ticks)).numpy()
    finally:
        hook.remove()


class _Seen:
    """What a refiner was last given, as bytes (n, K, Y, X): a hook before its call."""

    parts: Tensor

    def __call__(self, refiner: nn.Module, given: tuple[Tensor, ...]) -> None:
        levels = [given[0], given[1], given[2] * 2 - 1, *given[3:]]
        whole = torch.cat([part.float().clamp(-1, 1) for part in levels], dim=1)
        self.parts = ((whole + 1) * 127.5).round().byte().cpu()


def _given(
    clips: Sequence[Clip], places: Sequence[slice], spec: ActionSpec, camera: Camera, size: torch.Size
) -> tuple[npt.NDArray[np.float32], ...]:
    """Actions (B, ticks, P), rays (B, R, H, W) and look (B, ticks, 2) of one latent frame of each clip."""
    looks = [np.clip(c.look[at], -spec.max_look, spec.max_look) for c, at in zip(clips, places, strict=True)]
    actions = [encode_rows(c.keys[at], look, spec) for c, at, look in zip(clips, places, looks, strict=True)]
    rays = [camera.ray_map(look, *size).reshape(-1, *size) for look in looks]
    return tuple(np.stack(part).astype(np.float32) for part in (actions, rays, looks))


def _chw(frames: Bytes) -> Tensor:
    """Pictures (..., Y, X, 3) as (..., 3, Y, X)."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(frames, -1, -3)))
