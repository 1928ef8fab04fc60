"""What the ego-motion learns from: walks as it is told of them, and the moves that were made.

Shape key: T ticks of a walk, P action fields, K keys.

Does not know of depth, or how a place's map is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from controls.action import ActionSpec, encode_rows
from controls.camera import relative_pose
from generator.data.latents import PLAN

if TYPE_CHECKING:
    from generator.training.parallax import ParallaxRun


Walk = tuple[Tensor, Tensor, Tensor]  # encoded actions (T, P), what is told (T, told), moves (T, 3) in map units


def walk_of(run: ParallaxRun, index: int) -> Walk:
    """A clip as the ego-motion learns from it, as many whole latent frames as it has; made once."""
    if index not in run.walks:
        clip, ticks = run.clip(index), run.data.spec.ticks
        stop = (len(clip) - 1) // ticks * ticks
        pose = clip.pose[: stop + 1].astype(np.float64)
        moves = torch.from_numpy(relative_pose(pose[:-1], pose[1:])[1]).float()
        actions = torch.from_numpy(encode_rows(clip.keys[1 : stop + 1], clip.look[1 : stop + 1], run.data.spec))
        where = torch.from_numpy(pose[:-1:ticks][:, PLAN]).float().to(run.device)
        hints = None if run.parallax.mapped else run.hints_of(index)[: stop // ticks]
        told = run.parallax.told(hints, where).detach().repeat_interleave(ticks, 0)
        run.walks[index] = (actions.to(run.device), told, moves.to(run.device))
    return run.walks[index]


def ego_motion(run: ParallaxRun, indices: list[int], mirrored: bool = False) -> tuple[Tensor, Tensor]:
    """Predicted and recorded moves (clips, T, 3) in units, of as many latent frames as every clip has.

    `mirrored` walks are what a mirror shows of them, where a map tells of walls: twice as many to learn from.
    """
    parallax = run.parallax
    if parallax.body is not None:
        return body_motion(run, indices)
    walks = [walk_of(run, i) for i in indices]
    stop = min(len(walk[0]) for walk in walks)
    actions, told, moves = (torch.stack([part[:stop] for part in parts]) for parts in zip(*walks, strict=True))
    if mirrored and parallax.mapped:
        actions, told, moves = in_a_mirror(actions, told, moves, run.data.spec)
    assert parallax.ego is not None, "without a body there is an ego-motion"
    made = parallax.ego(actions, told, actions.new_zeros(len(indices), parallax.config.hidden))[0]
    return made, moves / parallax.config.unit


@torch.no_grad()
def body_motion(run: ParallaxRun, indices: list[int]) -> tuple[Tensor, Tensor]:
    """As `ego_motion`, by a body that is where the recorded walk was before each latent frame."""
    parallax, ticks, found = run.parallax, run.data.spec.ticks, []
    assert parallax.body is not None and parallax.place is not None, "only a body"
    stop = min((len(run.clip(i)) - 1) // ticks for i in indices)
    for index in indices:
        clip = run.clip(index)
        rows = torch.from_numpy(encode_rows(clip.keys[1:], clip.look[1:], run.data.spec)).to(run.device)
        pose = clip.pose.astype(np.float64)
        look, true = (torch.from_numpy(v).float().to(run.device) for v in relative_pose(pose[:-1], pose[1:]))
        pace, made = parallax.no_pace(1).to(run.device), []
        for k in range(0, stop * ticks, ticks):
            here = torch.from_numpy(pose[k : k + 1, PLAN]).float().to(run.device)
            pace = parallax.set_at(pace, here)
            state, now = parallax.hidden(pace), slice(k, k + ticks)
            end, moves, state = parallax.body.walk(parallax.place, here, look[None, now], rows[None, now], state)
            pace = parallax.paced(state, end)
            made.append(moves[0])
        found.append((torch.cat(made), true[: stop * ticks]))
    walked, recorded = (torch.stack(part) / parallax.config.unit for part in zip(*found, strict=True))
    return walked, recorded


def in_a_mirror(actions: Tensor, told: Tensor, moves: Tensor, spec: ActionSpec) -> tuple[Tensor, Tensor, Tensor]:
    """Encoded actions (..., P), walls all around (..., told) and moves (..., 3) with left and right exchanged."""
    keys = [{"left": "right", "right": "left"}.get(key, key) for key in spec.keys]
    order = [*(spec.keys.index(key) for key in keys), len(keys), len(keys) + 1]
    sign = actions.new_ones(actions.shape[-1])
    sign[len(keys)] = -1  # the turn
    around = [0, *range(told.shape[-1] - 1, 0, -1)]
    return actions[..., order] * sign, told[..., around], moves * moves.new_tensor([1.0, -1.0, 1.0])
