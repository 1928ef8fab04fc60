"""Ranges for int8 of a world's convolutions, measured on walks from the scenes that ship, and kept beside its weights.

Does not know how ranges are measured or used.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from controls.errors import UserError
from generator.checkpoint import load_weights
from generator.model.int8_file import save_ranges
from generator.runtime.select import require
from generator.scene import list_scenes, load_picture, scenes_of


def calibrate_folder(folder: Path, frames: int, threads: int) -> Iterator[str]:
    """Write int8.yaml of the weights in a folder, of walks of so many latent frames; yields what to tell of it.

    UserError when there are no weights, OpenVINO is missing or the walk has no length.
    """
    if frames < 1:
        raise UserError(f"--frames {frames} is no walk; give 1 or more latent frames.")
    require("openvino", "openvino-int8")
    from generator.runtime.openvino import calibrate

    torch.set_num_threads(threads)
    weights = load_weights(folder, ranges=False)
    pictures = [load_picture(scene.picture, weights.config.picture) for scene in scenes_of(folder, list_scenes())]
    ranges = calibrate(weights, threads, pictures, frames)
    for network, rows in ranges.items():
        yield f"{network}: {len(rows)} convolutions in int8"
    yield str(save_ranges(folder, weights.hash, ranges))
