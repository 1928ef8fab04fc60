"""Clips become latents: encoded once with a frozen tokenizer, one at a time, on several processes or many together.

Shape key: N clips of one length, B batch, F latent frames, T video frames, C channels, H, W latent size, P action
fields, Z what a pace holds. What lies ahead of a picture depends on the pace, which goes on from latent frame to latent
frame: a clip is many small steps one after another, which a GPU takes for many clips at once.

Does not know about stages, losses or engines.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import zipfile
from collections.abc import Container, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from controls.action import encode_rows
from controls.camera import relative_pose
from controls.errors import UserError
from controls.files import write_atomic
from generator.data.clips import ARRAYS_LOCK, READERS, Clip, Dataset
from generator.data.latents import PLAN, parallax_hash, tokenizer_hash, video_tensor
from generator.data.workers import on_workers
from generator.precision import half_where_fast
from generator.tokenizer.parallax import Parallax
from generator.tokenizer.reproject import Reprojector, to_picture
from generator.tokenizer.vae import VideoVAE

REPROJECTED_AT_ONCE = 6  # latent frames; bounds memory
TOGETHER = 64  # clips that a GPU encodes at once


@torch.no_grad()
def encode_clip(vae: VideoVAE, frames: npt.NDArray[np.uint8], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Normalised latents and alone latents, each (1 + F, C, H, W), of one clip's frames."""
    device = next(vae.parameters()).device
    video = video_tensor(frames, device)
    stride = vae.config.time
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        latents = vae.encode(video[None])[0][0]
        alone = vae.encode(video[::stride, None])[0][:, 0]
    return vae.normalise(latents.float()), vae.normalise(alone.float())


@torch.no_grad()
def reprojected(
    turn: Reprojector,
    latents: Tensor,
    look: Tensor,
    actions: Tensor,
    dtype: torch.dtype,
    pose: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The views' part of `ahead` (N, F, C, H, W) of clips and the pace (N, F, Z) before each latent frame: what an
    `Eye` would make of their true pictures.

    Latents (N, 1 + F, C, H, W) are decoded, moved by look (N, F, ticks, 2) and encoded actions (N, F, ticks, P), and
    encoded. With pose (N, 1 + F, 5) each pace has the recorded one.
    """
    vae, made, paces, pace = turn.vae, [], [], turn.no_pace(len(latents))
    at_once = max(1, REPROJECTED_AT_ONCE // len(latents))
    with torch.autocast(latents.device.type, dtype, enabled=dtype != torch.float32):
        shown = [to_picture(vae.decode(vae.denormalise(one[None]))[0, :: vae.config.time]) for one in latents]
        pictures = torch.stack(shown)
        for k in range(0, look.shape[1], at_once):
            views = []
            for i in range(k, min(k + at_once, look.shape[1])):
                pace = turn.at(pace, None if pose is None else pose[:, i])
                paces.append(pace)
                view, pace = turn.ahead(pictures[:, i], look[:, i], actions[:, i], pace)
                views.append(view.pictures)
            made.append(turn(torch.cat(views)).float().unflatten(0, (len(views), -1)))
    return torch.cat(made).transpose(0, 1), torch.stack(paces, dim=1)


Arrays = dict[str, npt.NDArray[Any]]
Pictures = npt.NDArray[np.uint8]
Read = tuple[Clip, Arrays, Pictures | None]  # a clip, what is there of its latents, and what is still to be encoded


@dataclass(frozen=True)
class Encoding:
    """How clips become latents; `parallax`, whose hash is `by`, matters where `reproject` asks for `ahead`."""

    vae: VideoVAE
    data: Path
    out: Path
    dtype: torch.dtype = torch.bfloat16
    reproject: bool = False
    parallax: Parallax | None = None
    by: str = ""

    @property
    def device(self) -> torch.device:
        """Where the tokenizer is."""
        return next(self.vae.parameters()).device

    def path(self, index: int) -> Path:
        """Where a clip's latents are kept."""
        return self.out / f"{index:06d}.npz"

    def foreseen(self, names: Container[str], by: object) -> bool:
        """Whether these arrays of a clip, whose `ahead` is by that parallax, have all that is asked of it."""
        return not self.reproject or ("ahead" in names and str(by) == self.by)

    def done(self, index: int) -> bool:
        """Whether nothing is left to be made of a clip."""
        names, by = _contents(self.path(index))
        return self.foreseen(names, by) and {"alone", "moves", "pose"} <= names

    def read(self, dataset: Dataset, index: int) -> Read:
        """All that encoding a clip needs from the disk."""
        clip, arrays = dataset.clip(index), _arrays(self.path(index))
        return clip, arrays, None if "alone" in arrays else clip.frames()

    def clips(self, dataset: Dataset, indices: Sequence[int], read: Sequence[Read]) -> None:
        """Encode clips of one length; what is there and still good is kept."""
        kept = [self._seen(dataset, *one) for one in read]
        blind = [i for i, arrays in enumerate(kept) if not self.foreseen(arrays, arrays.get("by", ""))]
        if blind:
            given = [self._given(dataset, read[i][0], kept[i]) for i in blind]
            turn = Reprojector(self.vae, dataset.meta["hfov"], self.parallax)
            latents, look, rows, pose = (torch.stack(part) for part in zip(*given, strict=True))
            ahead, paces = reprojected(turn, latents, look, rows, self.dtype, pose)
            for i, one, pace in zip(blind, ahead.half().cpu().numpy(), paces.cpu().numpy(), strict=True):
                kept[i] |= {"ahead": one, "pace": pace, "by": np.array(self.by)}
        for index, arrays in zip(indices, kept, strict=True):
            blob = io.BytesIO()
            np.savez(blob, **arrays)
            write_atomic(self.path(index), blob.getvalue())

    def _seen(self, dataset: Dataset, clip: Clip, arrays: Arrays, pictures: Pictures | None) -> Arrays:
        """A clip's latents, what was done in it, and where it was recorded."""
        if pictures is not None:
            made = encode_clip(self.vae, pictures, self.dtype)
            arrays = {name: t.half().cpu().numpy() for name, t in zip(("latents", "alone"), made, strict=True)}
            arrays |= {"keys": clip.keys, "look": clip.look}
        pose = clip.pose.astype(np.float64)
        arrays["moves"] = relative_pose(pose[:-1], pose[1:])[1].astype(np.float32)
        arrays["pose"] = clip.pose[:: dataset.spec.ticks, PLAN].astype(np.float32)
        return arrays

    def _given(self, dataset: Dataset, clip: Clip, arrays: Arrays) -> tuple[Tensor, ...]:
        """Latents, look, encoded actions and pose of a clip, as `reprojected` takes them, but for N."""
        latents = torch.from_numpy(arrays["latents"]).float()
        split = (len(latents) - 1, -1)
        look = torch.from_numpy(clip.look[1:]).unflatten(0, split)
        rows = torch.from_numpy(encode_rows(clip.keys[1:], clip.look[1:], dataset.spec)).unflatten(0, split)
        return tuple(t.to(self.device) for t in (latents, look, rows, torch.from_numpy(arrays["pose"])))


def encode_dataset(
    vae: VideoVAE,
    data: Path,
    out: Path,
    dtype: torch.dtype | None = None,
    reproject: bool = False,
    parallax: Parallax | None = None,
    workers: int = 1,
    together: int = 1,
) -> None:
    """Encode every clip of a data set; finished clips are kept, so the same command resumes.

    `reproject` makes `ahead` as well; clips that lack it, or have that of another parallax, only have it made.
    Training clips come first. Without a `dtype` it is bf16 where the tokenizer's device has that. Several workers are
    processes of one thread each, for processors; clips `together`, for GPUs, need the memory of as many. UserError when
    `out` holds latents of another tokenizer.
    """
    dataset = Dataset.open(data)
    out.mkdir(parents=True, exist_ok=True)
    name = tokenizer_hash(vae)
    meta_path = out / "meta.json"
    if meta_path.exists() and json.loads(meta_path.read_text())["tokenizer"] != name:
        raise UserError(f"{str(out)!r} holds latents of another tokenizer; remove the folder or choose another.")
    write_atomic(meta_path, json.dumps({"tokenizer": name, "data": dataset.meta}).encode())
    dtype = dtype or half_where_fast(next(vae.parameters()).device.type)
    how = Encoding(vae, data, out, dtype, reproject, parallax, parallax_hash(parallax))
    order = [index for split in ("train", "held_seed", "held_map") for index in dataset.select(split)]
    bar = tqdm(total=len(order), desc="encode clips", unit="clip")
    todo = [index for index in order if not how.done(index)]
    bar.update(len(order) - len(todo))
    if workers > 1 and together <= 1:
        for _ in on_workers(_encode_one, todo, workers, _begin_worker, (how,)):
            bar.update()
        return
    for indices, read in read_groups(how, dataset, todo, together):
        how.clips(dataset, indices, read)
        bar.update(len(indices))


def read_groups(
    how: Encoding, dataset: Dataset, order: Sequence[int], size: int
) -> Iterator[tuple[list[int], list[Read]]]:
    """Clips in groups of at most `size`, each of one length; while one group is used the next is read."""
    groups: list[list[int]] = []
    for index in order:
        alike = groups and dataset.entry(groups[-1][0])["frames"] == dataset.entry(index)["frames"]
        if alike and len(groups[-1]) < size:
            groups[-1].append(index)
        else:
            groups.append([index])
    with ThreadPoolExecutor(min(READERS, size)) as readers:

        def ask(number: int) -> list[Future[Read]]:
            wanted = groups[number] if number < len(groups) else []
            return [readers.submit(how.read, dataset, index) for index in wanted]

        after = ask(0)
        for number, group in enumerate(groups):
            now, after = after, ask(number + 1)
            yield group, [one.result() for one in now]


_worker: list[tuple[Encoding, Dataset]] = []


def _begin_worker(how: Encoding) -> None:
    torch.set_num_threads(1)
    _worker.append((how, Dataset.open(how.data)))


def _encode_one(index: int) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():  # killed: its queue would keep this process busy for long
        os._exit(1)
    how, dataset = _worker[0]
    how.clips(dataset, [index], [how.read(dataset, index)])


def _contents(path: Path) -> tuple[set[str], str]:
    """The names of a file's arrays and the parallax that made `ahead`, without reading the rest; nothing if damaged."""
    try:
        with ARRAYS_LOCK, np.load(path) as stored:
            return set(stored.files), str(stored["by"]) if "by" in stored.files else ""
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return set(), ""


def _arrays(path: Path) -> Arrays:
    """What a file of latents holds; nothing when it is missing or damaged."""
    try:
        with ARRAYS_LOCK, np.load(path) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return {}
