"""Short windows of a data set's clips, decoded a few per step and used several times with other crops.

Shape key: B batch, T video frames, Y, X picture size. Window number i is a function of (seed, i) alone and step s
draws from a known range of numbers, so a resumed run sees the windows that an uninterrupted one would have.

Does not know of models or losses.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from controls.errors import UserError
from generator.data.clips import Dataset
from generator.training.helpers import step_rng

Pictures = npt.NDArray[np.uint8]


def to_video(frames: Pictures) -> Tensor:
    """uint8 (B) T Y X 3 -> float32 (B) T 3 Y X in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(frames, -1, -3))).float() / 127.5 - 1.0


def to_frames(video: Tensor) -> Pictures:
    """(B) T 3 Y X in [-1, 1] -> uint8 (B) T Y X 3."""
    return ((video.float().clamp(-1, 1) + 1) * 127.5).round().byte().movedim(-3, -1).cpu().numpy()


def read_window(data: Dataset, clips: list[int], frames: int, rng: np.random.Generator) -> Pictures:
    """A random stretch of a random clip, uint8 frames Y X 3."""
    clip = data.clip(clips[int(rng.integers(len(clips)))])
    length = len(clip)
    if length < frames:
        raise UserError(f"A clip has {length} frames, fewer than the {frames} asked for; use shorter windows.")
    return clip.frames(int(rng.integers(length - frames + 1)), frames)


def fixed_windows(data: Dataset, split: str, count: int, frames: int, seed: int) -> Pictures:
    """The same `count` windows of a split every time, uint8 count T Y X 3 (training clips if the split is empty)."""
    clips = data.select(split) or data.select("train")
    return np.stack([read_window(data, clips, frames, step_rng(seed, i, f"fixed {split}")) for i in range(count)])


class WindowPool:
    """A pool of decoded windows of which `fresh` are replaced at every step."""

    def __init__(self, data: Dataset, frames: int, seed: int, size: int = 64, fresh: int = 2) -> None:
        self.data, self.clips = data, data.select("train")
        if not self.clips:
            raise UserError("The data set has no training clips; collect some.")
        self.frames, self.seed, self.size, self.fresh = frames, seed, size, fresh
        self.held: dict[int, Pictures] = {}

    def advance(self, step: int) -> list[Pictures]:
        """The windows of a step, decoding those not yet held."""
        wanted = range(step * self.fresh, step * self.fresh + self.size)
        self.held = {i: window for i, window in self.held.items() if i in wanted}
        for i in wanted:
            if i not in self.held:
                rng = step_rng(self.seed, i, "window")
                self.held[i] = read_window(self.data, self.clips, self.frames, rng)
        return [self.held[i] for i in wanted]

    def batch(self, step: int, count: int, frames: int, crop: tuple[int, int]) -> Tensor:
        """Random crops of random windows, half of them mirrored: B T 3 y x in [-1, 1]."""
        windows, rng, made = self.advance(step), step_rng(self.seed, step, "crop"), []
        order = rng.permutation(np.arange(count) % len(windows)) if count > len(windows) else None
        chosen = order if order is not None else rng.choice(len(windows), count, replace=False)
        for index in chosen:
            window = windows[int(index)]
            high, wide = (min(c, s) for c, s in zip(crop, window.shape[1:3], strict=True))
            first = int(rng.integers(len(window) - frames + 1))
            top, left = (int(rng.integers(s - c + 1)) for s, c in zip(window.shape[1:3], (high, wide), strict=True))
            part = window[first : first + frames, top : top + high, left : left + wide]
            made.append(part[:, :, ::-1] if rng.random() < 0.5 else part)
        return to_video(np.stack(made))
