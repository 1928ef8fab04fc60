"""A parallax on disk, and one that begins from another.

Does not know how it is trained.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from controls.errors import UserError
from generator.checkpoint import MANIFEST, as_loaded, load_weights
from generator.config import build
from generator.tokenizer.parallax import Parallax, ParallaxConfig
from generator.training.helpers import load_tensors

WEIGHTS = "parallax.safetensors"

SIZED = ("faces", "light", "sky")  # parts of a map that hold however much was found


def load_parallax(path: Path | str) -> Parallax:
    """The parallax of a run folder, a weights file or a world, as a world keeps it; UserError when there is none."""
    path = Path(path)
    if (path / MANIFEST).exists():
        found = load_weights(path).parallax
        if found is None:
            raise UserError(f"The world in {str(path)!r} has no parallax; give the folder of a parallax run.")
        return found
    tensors, meta = load_tensors(path / WEIGHTS if path.is_dir() else path)
    if meta.get("kind") != "parallax":
        raise UserError(f"{path} holds no parallax; give the folder of a run of `run.py train parallax`.")
    parallax = Parallax(build(ParallaxConfig, meta["config"], "parallax"))
    parallax.load_state_dict({name: as_loaded(value) for name, value in tensors.items()})
    return parallax.eval()


def begin_with(parallax: Parallax, begin: Parallax, origin: str) -> None:
    """Take over weights; a parallax that knew no place gets used to one. UserError when the rest has other sizes."""
    old, new = begin.config, parallax.config
    given = {
        name: getattr(new, name)
        for name in (
            "agree",
            "period",
            "checkered",
            "levels",
            "recall",
            "samples",
            "lower",
            "below",
            "lines",
            "hidden",
            "bodily",
            "refine",
        )
    }
    if replace(old, **given) != new:
        raise UserError(f"The parallax in {origin!r} has another size; leave --start out.")
    taken, own = begin.state_dict(), parallax.state_dict()
    same = (old.period, old.levels, old.below) == (new.period, new.levels, new.below)
    if (old.hidden, begin.mapped) != (new.hidden, parallax.mapped):  # the ego-motion is told other things
        taken = {name: tensor for name, tensor in taken.items() if not name.startswith("ego.")}
    for name, tensor in own.items():
        if name not in taken:
            taken[name] = tensor
        elif same and name.startswith("place.map.") and (tensor.dim() == 1 or name.split(".")[2] in SIZED):
            continue  # however many blocks, faces and cells there are
        elif taken[name].shape != tensor.shape:
            grown = tensor if name.startswith("place.") else torch.zeros_like(tensor)
            if not name.startswith("place."):
                grown[:, : taken[name].shape[1]] = taken[name]  # what it is told of the place stands last
            taken[name] = grown
    parallax.load_state_dict({name: taken[name] for name in own})
