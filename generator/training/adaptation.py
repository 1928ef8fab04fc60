"""Stage 1, adaptation: the diffusion objective, block-causal, with teacher forcing.

Shape key: B batch, F latent frames, C channels, H, W latent size.
The recycled frame is the true previous latent; one t for the whole clip, t ~ U(0, 1) and then shifted; MSE on the
velocity. Here from random weights, as no public base fits our latents. Source: AAPT section 3.3.

Does not know about caches, worlds or evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from controls.errors import UserError
from generator.data.latents import Batch
from generator.model.dit import CausalDiT
from generator.samplers.schedule import mix, shift_time
from generator.training.dit_run import (
    DiTRun,
    DiTTraining,
    corrupt_history,
    finish_step,
    keep,
    open_run,
    save_interrupted,
)
from generator.training.helpers import Progress, rate_at, set_rate, step_generator, step_rng
from generator.training.histories import OwnHistories
from generator.training.parallel_tensors import whole


@dataclass(frozen=True)
class AdaptationTraining(DiTTraining):
    """Settings of stage 1: the share of steps after a history of the model's own, `rounds` steps from the truth at
    most, each used about `reuse` times (histories.py).
    """

    own_history: float = 0.0
    rounds: int = 3
    reuse: int = 4


def adaptation_loss(
    dit: CausalDiT,
    batch: Batch,
    shift: float,
    history_noise: float,
    generator: torch.Generator,
    recycled: Tensor | None = None,
    own: slice = slice(None),
) -> Tensor:
    """Mean squared error on the velocity of every latent frame, after the truth or after `recycled`; a scalar.

    All that is random is drawn for the whole batch; the loss is that of its `own` clips.
    """
    device = batch.target.device
    t = shift_time(torch.rand(len(batch.target), generator=generator, device=device), shift)
    noise = torch.randn(batch.target.shape, generator=generator, device=device)
    if recycled is None:
        recycled = corrupt_history(batch.recycled, history_noise, generator, batch.place_channels)
    noisy, aim = mix(batch.target, noise, t), noise - batch.target
    velocity = dit(noisy[own], recycled[own], t[own], batch.actions[own], batch.rays[own])
    return nnf.mse_loss(velocity.float(), aim[own])


def train(config: AdaptationTraining, folder: Path, quiet: bool = False) -> DiTRun:
    """Train until the budget ends; the same command resumes. Writes snapshot/, resume state, metrics and sheets."""
    run = open_run(config, folder, "adaptation")
    if run.team and config.own_history:
        raise UserError("Several processes keep no own histories; give --set own_history=0, or start one process.")
    forward = torch.compile(run.dit) if config.compile else run.dit
    bar, histories = Progress("adaptation", quiet or not run.leads), OwnHistories(run, config.rounds, config.reuse)
    try:
        while (progress := run.progress()) < 1.0:
            set_rate(run.optimisers, rate_at(progress, run.step, config.warmup, config.hold))
            generator = step_generator(config.seed, run.step, "loss", run.device.type)
            choice = step_rng(config.seed, run.step, "choice")
            own = choice.random() < config.own_history
            batch, recycled = histories.draw(choice) if own else (run.draw(), None)
            with run.autocast():
                given = (run.world.shift, config.history_noise, generator, recycled, run.own)
                loss = adaptation_loss(forward, batch, *given)
            norm = apply_gradients(run, loss)
            finish_step(run, **{"own_history" if own else "loss": loss.item(), "gradient_norm": norm})
            bar.show(progress, step=run.step)
            keep(run, teacher=True)
    except KeyboardInterrupt:
        save_interrupted(run)
        raise
    keep(run, teacher=True, done=True)
    bar.close()
    return run


def apply_gradients(run: DiTRun, loss: Tensor) -> float:
    """One optimiser step and EMA update; returns the gradient norm. UserError when the loss is not finite."""
    for optimiser in run.optimisers:
        optimiser.zero_grad(set_to_none=True)
    loss.backward()
    norm = whole(nn.utils.clip_grad_norm_(run.dit.parameters(), run.config.clip))
    if not torch.isfinite(norm):
        raise UserError(
            f"The loss is not finite at step {run.step}; the last snapshot is kept in {str(run.folder)!r}, "
            "lower the rates with --set lr=... and run again."
        )
    for optimiser in run.optimisers:
        optimiser.step()
    run.ema.update(run.dit)
    return float(norm)
