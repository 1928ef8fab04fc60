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

import numpy as np
import torch
from torch import Tensor

from generator.data.latents import Batch
from generator.rollout import with_ahead
from generator.tokenizer.reproject import Reprojector, to_picture
from generator.training.dit_run import DiTRun
from generator.training.helpers import step_generator

AT_ONCE = 12  # pictures; bounds memory


class OwnHistories:
    """Batches with histories of the student's own, one to `rounds` steps from the truth, each used several times.

    At every `reuse`-th draw the newest history ages by a round, or a new batch begins; the last `kept` are drawn from.
    A run that is stopped continues with other histories than one that is not.
    """

    def __init__(self, run: DiTRun, rounds: int, reuse: int, kept: int = 4) -> None:
        self.run, self.rounds, self.reuse, self.drawn, self.age = run, max(1, rounds), max(1, reuse), 0, 0
        self.held: deque[tuple[Batch, Tensor]] = deque(maxlen=kept if reuse > 1 else 1)

    def draw(self, choice: np.random.Generator) -> tuple[Batch, Tensor]:
        """A batch and its recycled frames (B, F, C or 2C, H, W)."""
        if self.drawn % self.reuse == 0 or not self.held:
            fresh = not self.held or self.age >= self.rounds
            batch = self.run.draw("own history") if fresh else self.held[-1][0]
            before = batch.recycled if fresh else self.held[-1][1]
            self.age = 1 if fresh else self.age + 1
            generator = step_generator(self.run.config.seed, self.run.step, "guess", self.run.device.type)
            self.held.append((batch, after_own_guesses(self.run, batch, before, generator)))
        self.drawn += 1
        return self.held[int(choice.integers(len(self.held)))]


@torch.no_grad()
def after_own_guesses(run: DiTRun, batch: Batch, recycled: Tensor, generator: torch.Generator) -> Tensor:
    """The recycled frames (B, F, C or 2C, H, W) that follow the student's one-step guesses after `recycled`."""
    noise = torch.randn(batch.target.shape, generator=generator, device=batch.target.device)
    t = torch.ones(len(noise), device=noise.device)
    with run.autocast():
        velocity = run.dit(noise, recycled, t, batch.actions, batch.rays)
    guesses = (noise - velocity.float())[:, :-1]
    last = torch.cat([batch.first[:, None], guesses], dim=1)
    if not run.dit.config.reproject:
        return last
    turn = Reprojector(run.tokenizer, run.world.hfov, run.parallax)
    with run.autocast():
        video = run.tokenizer.decode(run.tokenizer.denormalise(last))[:, :: run.tokenizer.config.time]
        return with_ahead(last, foreseen(turn, to_picture(video), batch))


def foreseen(turn: Reprojector, pictures: Tensor, batch: Batch) -> Tensor:
    """What lies ahead (B, F, C, H, W) of each picture (B, F, 3, Y, X) on the batch's recorded path."""
    flat, look, made = pictures.flatten(0, 1), batch.look.flatten(0, 1), []
    moves = None
    if turn.parallax is not None:
        assert batch.moves is not None, "latents with a parallax hold the recorded moves"
        moves = batch.moves.flatten(0, 1) / turn.parallax.config.unit
    for k in range(0, len(flat), AT_ONCE):
        part = slice(k, k + AT_ONCE)
        seen = turn.parallax.perceive(flat[part]) if turn.parallax else None
        views = turn.views(flat[part], look[part], None if moves is None else moves[part], seen)
        made.append(turn(views).float())
    return torch.cat(made).unflatten(0, batch.look.shape[:2])
