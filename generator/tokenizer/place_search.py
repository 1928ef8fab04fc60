"""Search: where in a place a picture was taken, by looking at the place's map from where it may have been.

Shape key: n poses, Y, X picture size.
The localiser names likely places and headings (place.py); coarse views of the map from those are compared with the
picture, the likeliest are moved about, on the floor and in a jump, and the best is settled by all that the map knows.

Does not know how maps are made or walked.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as nnf
from torch import Tensor

from generator.precision import in_full
from generator.tokenizer.devices import constant

if TYPE_CHECKING:
    from generator.tokenizer.place import Place

HEADINGS = (1, 2, 4)  # waves of the heading: whole turns, halves and quarters
LOOKED = (20, 32)  # rows and columns of the views that a picture is compared with
PLACES, APART, TURNS, KEPT = 24, 48.0, 12, 3  # places and headings that are tried, map units between places
SPREAD, FINER = (16.0, 16.0, 3.0), (1.5, 1.0, 0.5, 0.25)  # map units and degrees about what is kept, in turn finer
SETTLED, NEARBY, CLOSER = (80, 128), (4.0, 4.0, 1.0, 1.0), (1.0, 0.5, 0.25, 0.125)  # the same with all that is known
LIFT, CLEARLY = 24.0, 0.9  # map units of a jump, and how much more alike a view from there must be
AT_ONCE = 64  # views


def look_up(place: Place, picture: Tensor, pitch: Tensor, edge: float, stretch: float | Tensor) -> Tensor:
    """The pose (1, 5) whose view of the map is most like a picture (1, 3, Y, X) of this pitch () in degrees."""
    aim = nnf.adaptive_avg_pool2d(picture.float(), LOOKED)

    def best(poses: Tensor, count: int) -> Tensor:
        return poses[unlikeness(place, aim, poses, edge, stretch).argsort()[:count]]

    def closer(kept: Tensor, spread: tuple[float, ...]) -> Tensor:
        for scale in FINER:
            each = [torch.tensor([-s, 0.0, s] if s else [0.0], device=kept.device) for s in spread]
            steps = torch.cartesian_prod(*each) * scale
            near = (kept[:, None, [0, 1, 2, 4]] + steps).flatten(0, 1)
            stood = place.stood(near[:, :2], near[:, 2], kept[:1, 3].expand(len(near)))
            height = torch.maximum(stood[:, 4], near[:, 3]) if spread[3] else stood[:, 4]
            kept = best(torch.cat([stood[:, :4], height[:, None]], dim=1), KEPT)
        return kept[:1]

    tried = candidates(place, picture, pitch)
    likely, raised = (best(torch.cat([tried[:, :4], tried[:, 4:] + up], dim=1), KEPT) for up in (0.0, LIFT))
    found = torch.cat([closer(likely, (*SPREAD, 0.0)), closer(raised, (*SPREAD, LIFT / 2))])
    found[:, 0:2] = torch.remainder(found[:, 0:2], place.period)
    on_floor, in_air = unlikeness(place, aim, found, edge, stretch)
    return settled(place, picture, torch.where(in_air < CLEARLY * on_floor, found[1:], found[:1]), edge, stretch)


def settled(place: Place, picture: Tensor, pose: Tensor, edge: float, stretch: float | Tensor) -> Tensor:
    """The pose (1, 5) beside this one from which all that the map knows looks like a picture (1, 3, Y, X) most."""
    assert place.map is not None
    aim = nnf.adaptive_avg_pool2d(picture.float(), SETTLED)
    for scale in CLOSER:
        for axes in ((0, 1, 2), (3,)):
            steps = torch.zeros(3 ** len(axes), 5, device=pose.device)
            each = [torch.tensor([0.0, -1.0, 1.0], device=pose.device) * NEARBY[axis] * scale for axis in axes]
            steps[:, list(axes)] = torch.cartesian_prod(*each).view(len(steps), -1)
            tried = pose + steps
            views = place.map.view(tried, edge, stretch, *SETTLED, fine=True)[:, :3]
            pose = tried[(views - aim).abs().mean((1, 2, 3)).argmin()][None]
    return torch.cat([torch.remainder(pose[:, :2], place.period), torch.remainder(pose[:, 2:3], 360.0), pose[:, 3:]], 1)


def candidates(place: Place, picture: Tensor, pitch: Tensor) -> Tensor:
    """Poses (m, 5) that a picture (1, 3, Y, X) may have been taken at: likely places, each with likely headings."""
    said = place.localiser(picture.to(next(place.parameters()))).float()
    split, places = 2 * len(place.numbers), []
    with in_full(said.device.type):
        plan = place.grid()
        score = place.waves(plan) @ said[0, :split]
        for _ in range(PLACES):
            places.append(plan[score.argmax()])
            for same in place.same:
                away = (plan - places[-1] + plan.new_tensor(same) + place.period / 2) % place.period - place.period / 2
                score = score.masked_fill(away.norm(dim=-1) < APART, -math.inf)
        turns = torch.arange(0, 360, 5.0, device=said.device)
        likely = turns[(headings(turns) @ said[0, split:]).argsort(descending=True)[:TURNS]]
    pairs = torch.cartesian_prod(torch.arange(float(PLACES), device=said.device), likely)
    plan = torch.stack(places)[pairs[:, 0].long()]
    return place.stood(plan, pairs[:, 1], pitch.to(said).expand(len(pairs)))


def unlikeness(place: Place, aim: Tensor, poses: Tensor, edge: float, stretch: float | Tensor) -> Tensor:
    """How far views of the map from poses (n, 5) are from a picture (1, 3, *LOOKED), mean levels of -1..1: (n,)."""
    assert place.map is not None
    views = torch.cat([place.map.view(part, edge, stretch, *LOOKED)[:, :3] for part in poses.split(AT_ONCE)])
    return (views - aim).abs().mean((1, 2, 3))


def headings(yaw: Tensor, numbers: tuple[int, ...] = HEADINGS) -> Tensor:
    """Cosines and sines (..., 2 * numbers) of yaw (...) in degrees."""
    phase = torch.deg2rad(yaw)[..., None] * constant(numbers, yaw.device, yaw.dtype)
    return torch.cat([phase.cos(), phase.sin()], dim=-1).float()
