"""What the parallax stage learns of a place beside the ego-motion: where pictures were taken, the map, its looks.

Does not know of depth.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as nnf
from torch import Tensor

from generator.data.clips import Dataset
from generator.data.halls.endless import LEVELS, PERIOD
from generator.data.halls.maps import ENDLESS
from generator.data.latents import PLAN
from generator.data.still_map import STILL
from generator.tokenizer.place import Place
from generator.tokenizer.place_map import BELOW
from generator.training.body_learning import find_body, stood_on
from generator.training.depth_losses import soften
from generator.training.helpers import step_generator, step_rng
from generator.training.known_depth import is_known, line_count, still_sizes
from generator.training.place_evening import even_walls
from generator.training.place_faces import face_place
from generator.training.place_light import light_place, tone_place
from generator.training.place_map import map_place
from generator.training.place_mending import mend_place
from generator.training.place_sky import sky_place
from generator.training.windows import to_video

if TYPE_CHECKING:
    from generator.training.parallax import ParallaxRun, ParallaxTraining

SOUGHT = 64  # held-out pictures that are found in the place


def place_sizes(config: ParallaxTraining, data: Dataset) -> dict[str, Any]:
    """`period`, `checkered`, `levels`, `below`, `recall`, `samples`, `lower`, `bodily` and `lines` of the settings, or
    what the recorded world is known to have: our engine draws two rows for each of a picture's, and looks along their
    lower edges.
    """
    meta, own, below = data.meta, not config.period, BELOW
    period, checkered, levels = config.period, config.checkered, 0
    if own and meta["world"] == "halls" and meta.get("size") == ENDLESS:
        period, checkered, levels = PERIOD, True, LEVELS
    elif own and meta.get("size") == STILL:
        stood = np.concatenate([stood_on(data.clip(index).pose)[:, 2] for index in data.select("train")])
        eye = torch.from_numpy(stood[np.isfinite(stood)]).median().item()
        period, levels, below = still_sizes(data, eye)
    levels = levels if config.levels < 0 else config.levels
    sizes = {"period": period, "checkered": checkered, "levels": levels if period else 0, "below": below}
    mapped = bool(sizes["levels"])
    row = math.tan(math.radians(meta["hfov"]) / 2) / meta["width"]
    lower = row / 2 if config.lower < 0 else config.lower
    sizes |= {"recall": config.recall if mapped else 0.0, "samples": config.samples if mapped else 1}
    sizes["lower"] = lower if mapped else 0.0
    sizes["lines"] = line_count(data) if mapped and config.bodily and config.ground and meta.get("size") == STILL else 0
    return {**sizes, "bodily": config.bodily and mapped}


def place_loss(run: ParallaxRun, place: Place, rng: np.random.Generator) -> float:
    """The localiser's squared error on random pictures, whose gradient is left in its parameters."""
    pictures, pose = places(run, "train", run.config.pictures, rng)
    pictures = soften(pictures, run.config.blur, step_generator(run.config.seed, run.step, "soften"))
    loss = nnf.mse_loss(place.localiser(pictures), place.aim(pose))
    loss.backward()
    return float(loss.detach())


def place_figures(run: ParallaxRun, place: Place, rng: np.random.Generator) -> dict[str, float]:
    """How far held-out pictures are found from where they were taken."""
    pictures, pose = places(run, "held_seed" if run.data.select("held_seed") else "train", SOUGHT, rng)
    pitch = torch.rad2deg(run.parallax.perceive(pictures).horizon.float().atan())
    found = place.find(pictures, pitch, run.turn.edge, float(run.parallax.stretch.detach()))
    return place.distances(found, pose)


def make_map(run: ParallaxRun) -> None:
    """Make the place's map, if it is to have one, before the ego-motion learns by it: the depth is done by then."""
    if run.parallax.mapped and not run.config.kept:
        known = is_known(run.data.meta)
        map_place(run.parallax, run.data, run.config.mapped, step_rng(run.config.seed, 0, "map"), known)
        if known and run.config.mend:
            run.metrics.add(run.step, **mend_place(run.parallax.place, run.data))
    if (place := run.parallax.place) is not None:
        if run.parallax.mapped:
            find_looks(run, place)
        if place.body is not None:
            run.metrics.add(run.step, **find_body(run, place))
    run.walks.clear()  # an evaluation at this very step told them of the map before
    run.mapped = True


def find_looks(run: ParallaxRun, place: Place) -> None:
    """Find what the settings ask for of how the blocks and sky of the place's map look."""
    config, stretch = run.config, float(run.parallax.stretch.detach())
    finds = (
        ("skies", config.skies, sky_place),
        ("lights", config.lights, light_place),
        ("faces", config.faces, partial(face_place, most=config.most_faces)),
        ("tones", config.lights, tone_place),
    )
    for name, count, find in finds:
        if count:
            find(place, stretch, run.data, count, step_rng(config.seed, 0, name))
            if name == "faces" and config.even and place.map is not None:  # tones are of what is on them then
                run.metrics.add(run.step, **even_walls(place.map))


def places(run: ParallaxRun, split: str, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Random pictures of a split (n, 3, Y, X) and the poses (n, 5) that they were taken at."""
    clips, ticks = run.data.select(split), run.data.spec.ticks
    pictures, poses = [], []
    for _ in range(count):
        index = clips[int(rng.integers(len(clips)))]
        clip, shown = run.clip(index), run.pictures_of(index)
        frame = int(rng.integers(len(shown)))
        pictures.append(shown[frame])
        poses.append(clip.pose[frame * ticks, PLAN])
    return to_video(np.stack(pictures)).to(run.device), torch.from_numpy(np.stack(poses)).float().to(run.device)
