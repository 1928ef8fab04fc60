"""Clips as latents (encoding.py): drawn as training windows.

Shape key: B batch, F latent frames, C channels, H, W latent size, P action fields, R ray channels.
For every latent frame k of a clip two latents are kept: `latents[k]`, encoded with its past, and `alone[k]`, the last
video frame of k encoded by itself. A window may then start anywhere and still begin, as play does, from a lone picture.

Does not know about stages, losses or engines.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from controls.action import ActionSpec, encode_rows
from controls.camera import Camera
from controls.errors import UserError
from generator.checkpoint import as_loaded
from generator.precision import in_full
from generator.rollout import with_ahead
from generator.tokenizer.parallax import Parallax
from generator.tokenizer.place_map import BELOW
from generator.tokenizer.reproject import Reprojector
from generator.tokenizer.vae import VideoVAE

PLAN = [0, 1, 3, 4, 2]  # x, y, yaw, pitch and height of a recorded pose
LARGE = ("latents", "alone", "ahead")  # of a clip's arrays
ALONE_FRACTION = 0.8  # share of windows that begin from a lone picture; the rest continue a past


@dataclass
class Batch:
    """A batch: first (B, C, H, W), target (B, F, C, H, W), actions (B, F, ticks, P), rays (B, F, R, H, W),
    look (B, F, ticks, 2) in degrees, and for models that recycle a reprojection ahead (B, F, C, H, W), and the
    pace (B, Z) before the first of them; moves (B, F, ticks, 3) are the recorded ones in map units, and pose
    (B, 1 + F, 5) is x, y, yaw, pitch and height at the picture before each frame and at the last. `places` says which
    (clip of the split, latent frame) each of the batch begins at.
    """

    first: Tensor
    target: Tensor
    actions: Tensor
    rays: Tensor
    look: Tensor
    ahead: Tensor | None = None
    pace: Tensor | None = None
    moves: Tensor | None = None
    pose: Tensor | None = None
    places: tuple[tuple[int, int], ...] = ()

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        moved = {n: v.to(device, non_blocking=True) for n, v in parts.items() if isinstance(v, Tensor)}
        return replace(self, **moved)

    @property
    def place_channels(self) -> int:
        """How many channels of `ahead`, the last, are of the place."""
        return 0 if self.ahead is None else self.ahead.shape[2] - self.target.shape[2]

    @property
    def recycled(self) -> Tensor:
        """Teacher-forced recycled frames (B, F, C to 2C + K, H, W): the true latent before each target, and `ahead`."""
        return with_ahead(torch.cat([self.first[:, None], self.target[:, :-1]], dim=1), self.ahead)


def tokenizer_hash(vae: VideoVAE) -> str:
    """SHA-256 that names a tokenizer's encoder and normalisation; latents belong to exactly one.

    Taken of the numbers as a weights folder keeps them, so that a tokenizer and its copy in a snapshot are the same.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(vae.state_dict().items()):
        if not name.startswith("decoder."):
            digest.update(name.encode() + as_loaded(tensor).numpy().tobytes())
    return digest.hexdigest()


def video_tensor(frames: npt.NDArray[np.uint8], device: torch.device | str = "cpu") -> Tensor:
    """uint8 (T, Y, X, 3) to float (T, 3, Y, X) in [-1, 1]."""
    return in_levels(torch.from_numpy(np.ascontiguousarray(frames)).to(device))


def stacked(parts: Sequence[Tensor]) -> Tensor:
    """Parts of one shape on each other, in float32; autocast to bf16, which refuses to mix halves, stays out of it."""
    with in_full(parts[0].device.type):
        return torch.stack(list(parts)).float()


def in_levels(frames: Tensor) -> Tensor:
    """As `video_tensor`, of a tensor where it is."""
    return frames.permute(0, 3, 1, 2).float() / 127.5 - 1


def parallax_hash(parallax: Parallax | None) -> str:
    """SHA-256 that names what moves a parallax's pictures, as a weights folder keeps it; empty without one."""
    if parallax is None:
        return ""
    made_by = ("place.body.", *(("place.map.",) if parallax.recalls else ()))
    beside = ("place.", "refiner.")
    tensors = [(n, t) for n, t in sorted(parallax.state_dict().items()) if not n.startswith(beside)]
    tensors += [(n, t) for n, t in sorted(parallax.state_dict().items()) if n.startswith(made_by)]
    unlit = "place.map.light."  # maps without light have the name that they had before there was any
    named = [(n, t) for n, t in tensors if t.numel() or not n.startswith(unlit)]
    named = [(n, t) for n, t in named if n != "place.body.low" or bool(t)]  # nor were reliefs that begin higher
    parts = [n.encode() + as_loaded(t).numpy().tobytes() for n, t in named]
    if parallax.recalls and parallax.config.samples > 1:
        parts.append(f"samples={parallax.config.samples}".encode())
    if parallax.config.lower:
        parts.append(f"lower={parallax.config.lower}".encode())
    if parallax.config.below != BELOW:
        parts.append(f"below={parallax.config.below}".encode())
    return hashlib.sha256(b"".join(parts)).hexdigest()


class LatentClips:
    """All latents of one split in memory, drawn as random windows."""

    def __init__(self, folder: Path, split: str, ticks: int = 4) -> None:
        """UserError when the folder is missing, empty, or lacks a clip."""
        try:
            meta = json.loads((folder / "meta.json").read_text())
        except (OSError, ValueError) as error:
            raise UserError(f"{str(folder)!r} has no readable latents ({error}); encode the clips first.") from error
        self.meta: dict[str, Any] = meta["data"]
        self.tokenizer: str = meta["tokenizer"]
        self.spec = ActionSpec.from_dict(self.meta["action_spec"])
        self.camera = Camera(self.meta["hfov"], self.meta["width"] / self.meta["height"])
        chosen = [i for i, clip in enumerate(self.meta["clips"]) if clip["split"] == split]
        if not chosen:
            raise UserError(f"{str(folder)!r} has no clips in the split {split!r}; collect more frames.")
        self.clips = [self._load(folder / f"{i:06d}.npz") for i in chosen]
        self.parallaxes = {str(clip.get("by", "")) for clip in self.clips}  # an encoding that was cut short has two
        self.ticks = ticks
        self.turn: Reprojector | None = None
        self._place_told: dict[int, Tensor] = {}
        self.reside(torch.device("cpu"))

    def reside(self, device: torch.device) -> None:
        """Keep what is large of every clip on a device, so that its windows are put together there."""
        self.device = device
        self._place_told.clear()
        self._large = [
            {name: torch.from_numpy(clip[name]).to(device) for name in LARGE if name in clip} for clip in self.clips
        ]

    def tell(self, turn: Reprojector | None) -> None:
        """From now on `ahead` of a batch also has the place that the recorded pose looks at, where `turn` knows one.

        UserError when the latents are too old for that.
        """
        self.turn = turn if turn is not None and turn.parallax is not None and turn.parallax.place is not None else None
        self._place_told.clear()
        if self.turn and not all("pose" in clip for clip in self.clips):
            raise UserError(
                "These latents hold no poses, which a world that is one place needs; encode the clips again."
            )

    def _load(self, path: Path) -> dict[str, npt.NDArray[Any]]:
        try:
            with np.load(path) as stored:
                return {name: stored[name] for name in stored.files}
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise UserError(f"The latents {str(path)!r} are missing or damaged; encode the clips again.") from error

    def _told(self, index: int, start: int, frames: int) -> Tensor:
        """What `ahead` of some frames of a clip says of the place (F, K, H, W); made of the whole clip, once."""
        assert self.turn is not None
        if index not in self._place_told:
            clip = self.clips[index]
            pose, latents = torch.from_numpy(clip["pose"][1:]), torch.from_numpy(clip["latents"][1:, :0])
            made = self.turn.told(latents.float().to(self.turn.device), pose.to(self.turn.device))
            self._place_told[index] = made.half().to(self.device)
        return self._place_told[index][start : start + frames].float()

    def draw(self, batch: int, frames: int, rng: np.random.Generator) -> Batch:
        """A random batch of windows of `frames` generated latent frames."""
        return self.gather(self.places(batch, frames, rng), frames, rng)

    def places(self, count: int, frames: int, rng: np.random.Generator) -> list[tuple[int, int]]:
        """Random windows as (clip, latent start)."""
        return [self._pick(frames, rng) for _ in range(count)]

    def _pick(self, frames: int, rng: np.random.Generator) -> tuple[int, int]:
        index = int(rng.integers(len(self.clips)))
        spare = len(self.clips[index]["latents"]) - 1 - frames
        assert spare >= 0, f"clip {index} is shorter than {frames} latent frames"
        return index, int(rng.integers(spare + 1))

    def gather(
        self,
        places: list[tuple[int, int]],
        frames: int,
        rng: np.random.Generator | None = None,
    ) -> Batch:
        """Windows at given (clip, latent start); without rng each begins from a lone picture."""
        firsts, targets, keys, looks = [], [], [], []
        aheads, paces, moves, poses = [], [], [], []
        for index, start in places:
            clip, large = self.clips[index], self._large[index]
            lone = rng is None or rng.random() < ALONE_FRACTION
            firsts.append(large["alone" if lone else "latents"][start])
            targets.append(large["latents"][start + 1 : start + 1 + frames])
            rows = slice(1 + start * self.ticks, 1 + (start + frames) * self.ticks)
            keys.append(clip["keys"][rows])
            looks.append(clip["look"][rows])
            if "ahead" in clip:
                aheads.append(large["ahead"][start : start + frames])
            if "pace" in clip:
                paces.append(clip["pace"][start])
            if "moves" in clip:
                moves.append(clip["moves"][rows.start - 1 : rows.stop - 1])
            if "pose" in clip:
                poses.append(clip["pose"][start : start + 1 + frames])
        height, width = targets[0].shape[-2:]
        look = np.stack(looks)
        actions = encode_rows(np.stack(keys), look, self.spec)
        rays = self.camera.ray_map(look, height, width)
        group = (len(places), frames, self.ticks)
        pose = torch.from_numpy(np.stack(poses)).float() if poses else None
        ahead = stacked(aheads) if aheads else None
        pace = torch.from_numpy(np.stack(paces)).float() if paces else None
        if self.turn and pace is not None and pose is not None:
            pace = self.turn.at(pace, pose[:, 0])
        if self.turn and ahead is not None and pose is not None:
            told = torch.stack([self._told(index, start, frames) for index, start in places])
            ahead = torch.cat([ahead, told], dim=2)
        return Batch(
            stacked(firsts),
            stacked(targets),
            torch.from_numpy(actions.reshape(*group, -1)),
            torch.from_numpy(rays.reshape(len(places), frames, self.ticks * 3, height, width)),
            torch.from_numpy(look.reshape(*group, 2)).float(),
            ahead,
            pace,
            torch.from_numpy(np.stack(moves).reshape(*group, 3)) if moves else None,
            pose,
            tuple(places),
        )
