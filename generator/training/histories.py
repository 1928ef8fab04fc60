"""Own histories: what a student recycles when the frames before are its own guesses, without rolling out for long.

Shape key: B batch, F latent frames, C channels, H, W latent size.
All frames of a clip are guessed at once, each from noise after the true frames before it; from the guesses the
recycled channels are made anew, along the recorded path. That is a history one step from the truth; another round
makes it two steps, and so on. Ours: teacher forcing never shows a model its own faults, and rollouts of many frames
show it little else (LOG.md).

Does not know of losses or stages.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generator.data.latents import Batch
from generator.rollout import with_ahead
from generator.tokenizer.reproject import Reprojector, Views, to_picture
from generator.training.dit_run import DiTRun
from generator.training.helpers import step_generator

AT_ONCE, ON_A_GPU = 12, 96  # pictures; bounds memory


@dataclass(frozen=True)
class History:
    """A batch, its recycled frames (B, F, C to 2C + K, H, W), and the pictures that these follow (B, F, 3, Y, X) with
    the last of their views, or all, for models that recycle views.
    """

    batch: Batch
    recycled: Tensor
    pictures: Tensor | None = None
    views: Views | None = None


class OwnHistories:
    """Batches with histories of the student's own, one to `rounds` steps from the truth, each used several times.

    At every `reuse`-th draw the newest history ages by a round, or a new batch begins; the last `kept` are drawn from.
    A run that is stopped continues with other histories than one that is not. `begin` draws new batches in place of
    the run, and `name` tells the noises of several from one another. Of `staggered` ones, clips begin in turn: a batch
    has histories of all ages, and each update fewer clips in common with the last. `whole` ones keep the views of every
    tick, not of the last alone.
    """

    def __init__(
        self,
        run: DiTRun,
        rounds: int,
        reuse: int,
        kept: int = 4,
        begin: Callable[[], Batch] | None = None,
        name: str = "guess",
        staggered: bool = False,
        whole: bool = False,
    ) -> None:
        self.run, self.rounds, self.reuse, self.drawn, self.age = run, max(1, rounds), max(1, reuse), 0, 0
        self.begin, self.name = begin or (lambda: run.draw("own history")), name
        self.staggered, self.whole = staggered, whole
        self.held: deque[History] = deque(maxlen=kept if reuse > 1 else 1)

    def draw(self, choice: np.random.Generator) -> tuple[Batch, Tensor]:
        """A batch and its recycled frames (B, F, C to 2C + K, H, W)."""
        chosen = self.history(choice)
        return chosen.batch, chosen.recycled

    def history(self, choice: np.random.Generator) -> History:
        """One of those that are kept."""
        if self.drawn % self.reuse == 0 or not self.held:
            before = self._before()
            generator = step_generator(self.run.config.seed, self.run.step, self.name, self.run.device.type)
            self.held.append(after_own_guesses(self.run, before, generator, self.whole))
        self.drawn += 1
        return self.held[int(choice.integers(len(self.held)))]

    def _before(self) -> History:
        """The history that the next guesses follow: that of a new batch, or the last one, some of it begun anew."""
        if not self.held or (self.age >= self.rounds and not self.staggered):
            self.age = 1
            return true_history(self.run, self.begin(), self.whole)
        last, self.age = self.held[-1], self.age + 1
        rows = list(range((self.age - 2) % self.rounds, len(last.recycled), self.rounds))
        if not rows or not self.staggered:
            return last
        return replaced(last, true_history(self.run, self.run.draw("own history", count=len(rows)), self.whole), rows)


def replaced(old: Any, new: Any, rows: list[int]) -> Any:
    """A history, or a part of one, with these rows of its clips taken from another, in turn."""
    if isinstance(old, Tensor):
        old = old.clone()
        old[rows] = new
        return old
    if isinstance(old, tuple):
        taken = dict(zip(rows, new, strict=True))
        return tuple(taken.get(i, one) for i, one in enumerate(old))
    if is_dataclass(old):
        return type(old)(*(replaced(getattr(old, f.name), getattr(new, f.name), rows) for f in fields(old)))
    return old


def reprojector(run: DiTRun) -> Reprojector | None:
    """What moves the run's pictures, if its model recycles them."""
    return Reprojector(run.tokenizer, run.world.hfov, run.parallax) if run.dit.config.reproject else None


@torch.no_grad()
def true_history(run: DiTRun, batch: Batch, whole: bool = False) -> History:
    """The batch as it is; its true pictures are decoded and moved, for what is guessed next is composed with them."""
    turn = reprojector(run)
    if turn is None:
        return History(batch, batch.recycled)
    with run.autocast():
        last = torch.cat([batch.first[:, None], batch.target[:, :-1]], dim=1)
        pictures = to_picture(run.tokenizer.decode(run.tokenizer.denormalise(last))[:, :: run.tokenizer.config.time])
        return History(batch, batch.recycled, pictures, foreseen(turn, pictures, batch, whole)[1])


@torch.no_grad()
def after_own_guesses(run: DiTRun, before: History, generator: torch.Generator, whole: bool = False) -> History:
    """The history that the student's one-step guesses after `before` make, shown and recycled as play does it."""
    batch, turn = before.batch, reprojector(run)
    noise = torch.randn(batch.target.shape, generator=generator, device=batch.target.device)
    t = torch.ones(len(noise), device=noise.device)
    with run.autocast():
        velocity = run.dit(noise, before.recycled, t, batch.actions, batch.rays)
    guesses = (noise - velocity.float())[:, :-1]
    last = torch.cat([batch.first[:, None], guesses], dim=1)
    if turn is None or before.pictures is None or before.views is None:
        return History(batch, last)
    with run.autocast():
        video = run.tokenizer.decode(run.tokenizer.denormalise(last))[:, :: run.tokenizer.config.time]
        made, views = to_picture(video[:, 1:]).flatten(0, 1), before.views
        flat = ended(views, slice(0, -1))
        shown = turn.compose(flat, made[:, None]).unflatten(0, (len(last), -1))[:, :, 0]
        pictures = torch.cat([before.pictures[:, :1], shown], dim=1)
        ahead, views = foreseen(turn, pictures, batch, whole)
        if batch.place_channels and batch.ahead is not None:
            ahead = torch.cat([ahead, batch.ahead[:, :, -batch.place_channels :]], dim=2)
        return History(batch, with_ahead(last, ahead), pictures, views)


def foreseen(turn: Reprojector, pictures: Tensor, batch: Batch, whole: bool = False) -> tuple[Tensor, Views]:
    """What lies ahead (B, F, C, H, W) of each picture (B, F, 3, Y, X) on the batch's recorded path.

    And the last of the views that it was encoded from: pictures (B, F, 2, 3, Y, X), the first one being given. Of
    `whole` ones all: (B, F, 1 + ticks, 3, Y, X).
    """
    flat, look = pictures.flatten(0, 1), batch.look.flatten(0, 1)
    moves = pose = path = None
    if turn.parallax is not None:
        assert batch.moves is not None, "latents with a parallax hold the recorded moves"
        moves = batch.moves.flatten(0, 1) / turn.parallax.config.unit
        if turn.parallax.recalls and turn.parallax.place is not None:
            assert batch.pose is not None, "latents of a place hold the recorded poses"
            pose = batch.pose[:, :-1].flatten(0, 1)
            path = turn.parallax.place.path(pose, look, batch.moves.flatten(0, 1))
    ahead, last, inside, known, ticks = [], [], [], [], slice(0 if whole else -1, None)
    at_once = ON_A_GPU if flat.device.type == "cuda" else AT_ONCE
    for k in range(0, len(flat), at_once):
        part = slice(k, k + at_once)
        seen = turn.parallax.perceive(flat[part]) if turn.parallax else None
        if turn.parallax is not None and seen is not None and pose is not None:
            seen = turn.parallax.steady(seen, pose[part])
        views = turn.moved(flat[part], look[part], None if moves is None else moves[part], seen)
        if path is not None:
            views = turn.recalled(views, path[part])
        ahead.append(turn(views.pictures).float())
        refines = turn.parallax is not None and turn.parallax.refiner is not None
        given = views.pictures
        if refines and views.moved is not None:
            given = torch.cat([given[:, :1], views.moved], dim=1)
        last.append(torch.cat([given[:, :1], given[:, 1:][:, ticks]], dim=1))
        inside.append(views.inside[:, ticks])
        if refines and views.known is not None:
            known.append(views.known[:, ticks])
    split = (len(pictures), -1)
    kept = [torch.cat(part).unflatten(0, split) if part else None for part in (last, inside, known)]
    assert kept[0] is not None and kept[1] is not None
    return torch.cat(ahead).unflatten(0, split), Views(kept[0], kept[1], known=kept[2])


def ended(views: Views, frames: slice) -> Views:
    """The views after the last tick of these frames of views (B, F, 1 + ticks, ...), as if B * F were a batch."""
    known = None if views.known is None else views.known[:, frames, -1:].flatten(0, 1)
    pictures, inside = views.pictures[:, frames][:, :, [0, -1]], views.inside[:, frames, -1:]
    return Views(pictures.flatten(0, 1), inside.flatten(0, 1), known=known)
