"""Recorded pictures as a stage asks for them: decoded for each batch, or all of them once, on the training device.

Shape key: T video frames, Y, X picture size.
A batch of long windows is thousands of JPEG pictures, which one processor decodes in seconds and a GPU uses in
milliseconds.

Does not know of models or losses.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from controls.errors import UserError
from generator.data.clips import READERS, Dataset
from generator.data.latents import in_levels, video_tensor

SHARE = 0.6  # of a GPU's free memory that pictures may take


class Recorded:
    """Stretches of clips of a data set, numbered as in `clips`; `resident` keeps all of them decoded on the device.

    UserError when a GPU is too small for that.
    """

    def __init__(self, data: Dataset, clips: Sequence[int], device: torch.device, resident: bool = False) -> None:
        self.data, self.clips, self.device = data, clips, device
        self.kept: list[Tensor] = []  # (T, Y, X, 3) uint8
        if not resident:
            return
        needed = 3 * data.size[0] * data.size[1] * sum(data.entry(index)["frames"] for index in clips)
        if device.type == "cuda" and needed > SHARE * (free := torch.cuda.mem_get_info(device)[0]):
            raise UserError(
                f"The pictures of {len(clips)} clips need {needed / 1e9:.1f} GB, and {free / 1e9:.1f} are free on the "
                "GPU; give --set resident=false, or fewer clips."
            )
        with ThreadPoolExecutor(min(READERS, os.cpu_count() or 1)) as readers:
            self.kept = list(readers.map(self._whole, clips))

    def _whole(self, index: int) -> Tensor:
        return torch.from_numpy(self.data.clip(index).frames()).to(self.device)

    def __call__(self, number: int, start: int, count: int) -> Tensor:
        """Pictures `start` to `start + count` of a clip, (T, 3, Y, X) in [-1, 1]."""
        if not self.kept:
            return video_tensor(self.data.clip(self.clips[number]).frames(start, count), self.device)
        return in_levels(self.kept[number][start : start + count])
