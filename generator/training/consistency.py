"""Stage 2, consistency: the teacher's path folded into one step, with teacher forcing.

Shape key: B batch, F latent frames, C channels, H, W latent size, S fixed times.
Fixed times, uniform and then shifted; no guidance; the target network is the student itself without gradient, not an
average. `own_history` is ours: on that share of steps the recycled frames come from the student's own free rollout of
the clip (no gradient, through the KV cache), and the loss is the squared error to the truth, so that the model meets
its own errors before stage 3 exists. Source: AAPT section 3.3.

Does not know about caches, worlds or evaluation.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from controls.errors import UserError
from generator.data.latents import Batch
from generator.model.dit import CausalDiT
from generator.rollout import Eye, open_eye, rollout_and_history
from generator.samplers.schedule import clean_from_velocity, mix, uniform_times
from generator.tokenizer.vae import VideoVAE
from generator.training.adaptation import apply_gradients
from generator.training.dit_run import (
    DiTRun,
    DiTTraining,
    corrupt_history,
    finish_step,
    keep,
    open_run,
    save_run,
)
from generator.training.helpers import (
    Progress,
    rate_at,
    set_rate,
    step_generator,
    step_rng,
)
from generator.training.perceptual import Lpips


@dataclass(frozen=True)
class ConsistencyTraining(DiTTraining):
    """Settings of stage 2: `times` fixed times, share of one-step noise draws, and of own-history steps.

    `lpips` weighs a perceptual term on own-history steps (0: none), on `lpips_clips` clips of the batch.
    """

    times: int = 32
    lr: float = 1e-5
    muon: float = 2e-5
    pure_noise: float = 0.25
    own_history: float = 0.5
    lpips: float = 0.0
    lpips_clips: int = 2


def consistency_loss(
    student: CausalDiT,
    teacher: CausalDiT,
    batch: Batch,
    recycled: Tensor,
    times: Tensor,
    pure_noise: float,
    generator: torch.Generator,
) -> Tensor:
    """Squared distance between the student's clean frames at t_n and, one teacher step nearer to the data, at t_n+1.

    times (S + 1,) decreasing from 1 to 0; `pure_noise` is the share of clips placed at t = 1, where play happens.
    """
    device, count = batch.target.device, len(batch.target)
    place = torch.randint(len(times) - 1, (count,), generator=generator, device=device)
    first = torch.rand(count, generator=generator, device=device) < pure_noise
    place = torch.where(first, 0, place)
    now, after = times.to(device)[place].float(), times.to(device)[place + 1].float()
    noise = torch.randn(batch.target.shape, generator=generator, device=device)
    x = mix(batch.target, noise, now)
    with torch.no_grad():
        slope = teacher(x, recycled, now, batch.actions, batch.rays)
        gap = (after - now).view(-1, 1, 1, 1, 1)
        nearer = x + gap * slope
        target = clean_from_velocity(nearer, student(nearer, recycled, after, batch.actions, batch.rays), after)
    guess = clean_from_velocity(x, student(x, recycled, now, batch.actions, batch.rays), now)
    return (guess.float() - target.float()).square().mean()


def own_recycled(student: CausalDiT, batch: Batch, seed: int, eye: Eye | None = None) -> Tensor:
    """Recycled frames (B, F, C or 2C, H, W) of a free one-step rollout from the first frame, as in play."""
    return rollout_and_history(student, batch.first, batch, seed, eye)[1].to(batch.first)


def own_history_loss(
    student: CausalDiT, batch: Batch, recycled: Tensor, generator: torch.Generator, pictures: PictureLoss | None = None
) -> Tensor:
    """Squared error of one-step frames that follow the student's own frames, against the truth."""
    t = torch.ones(len(recycled), device=recycled.device)
    noise = torch.randn(batch.target.shape, generator=generator, device=recycled.device)
    made = noise - student(noise, recycled, t, batch.actions, batch.rays)
    loss = (made.float() - batch.target).square().mean()
    return loss if pictures is None else loss + pictures(made.float(), batch.target, generator)


class PictureLoss:
    """LPIPS between decoded pictures of one random latent frame and its truth's, on the first `clips` of a batch.

    The decoder starts one latent frame earlier from an empty memory, for both alike. Ours: squared error alone blurs.
    """

    def __init__(self, tokenizer: VideoVAE, weight: float, clips: int) -> None:
        self.tokenizer, self.weight, self.clips = tokenizer, weight, clips
        self.lpips = Lpips().to(tokenizer.scale.device)

    def __call__(self, made: Tensor, target: Tensor, generator: torch.Generator) -> Tensor:
        """made, target (B, F, C, H, W), normalised; a scalar."""
        k = int(torch.randint(1, made.shape[1], (1,), generator=generator, device=made.device))
        with torch.no_grad():
            real = self._decode(target, k)
        return self.weight * self.lpips(self._decode(made, k).float(), real.float()).mean()

    def _decode(self, latents: Tensor, k: int) -> Tensor:
        pair = self.tokenizer.denormalise(latents[: self.clips, k - 1 : k + 1])
        decoder = self.tokenizer.decoder
        state = decoder.init_state(len(pair), (pair.shape[-2], pair.shape[-1]), pair)
        frames = self.tokenizer.config.time
        return decoder(pair, state, False)[0][:, -frames::2].flatten(0, 1)


def stage_loss(
    run: DiTRun, config: ConsistencyTraining, teacher: CausalDiT, times: Tensor, pictures: PictureLoss | None
) -> tuple[str, Tensor]:
    """The loss of the present step and its name."""
    generator = step_generator(config.seed, run.step, "loss", run.device.type)
    choice = step_rng(config.seed, run.step, "choice")
    batch = run.draw()
    if choice.random() < config.own_history:
        eye = open_eye(run.dit, run.tokenizer, run.world.hfov, run.parallax)
        recycled = own_recycled(run.dit, batch, int(choice.integers(2**31)), eye)
        return "own_history", own_history_loss(run.dit, batch, recycled, generator, pictures)
    recycled = corrupt_history(batch.recycled, config.history_noise, generator)
    loss = consistency_loss(run.dit, teacher, batch, recycled, times, config.pure_noise, generator)
    return "consistency", loss


def train(config: ConsistencyTraining, folder: Path, quiet: bool = False) -> DiTRun:
    """Distil `config.start` (stage 1 weights) until the budget ends; the same command resumes."""
    if not config.start:
        raise UserError("The consistency stage needs a teacher; give stage 1 weights with --start DIR.")
    run = open_run(config, folder, "consistency")
    teacher = copy.deepcopy(run.dit).eval().requires_grad_(False)
    if run.step:  # resumed: the teacher is where the run began, not where it stands
        teacher.load_state_dict(load_teacher(config))
    times = uniform_times(config.times, run.world.shift)
    pictures = PictureLoss(run.tokenizer, config.lpips, config.lpips_clips) if config.lpips else None
    bar = Progress("consistency", quiet)
    try:
        while (progress := run.budget.progress(run.step)) < 1.0:
            set_rate(run.optimisers, rate_at(progress, run.step, config.warmup, config.hold))
            with run.autocast():
                name, loss = stage_loss(run, config, teacher, times, pictures)
            norm = apply_gradients(run, loss)
            finish_step(run, **{name: loss.item(), "gradient_norm": norm})
            bar.show(progress, step=run.step)
            keep(run, teacher=False)
    except KeyboardInterrupt:
        save_run(run)
        raise
    keep(run, teacher=False, done=True)
    bar.close()
    return run


def load_teacher(config: ConsistencyTraining) -> dict[str, Tensor]:
    """State dict of the stage 1 weights that the run started from."""
    from generator.checkpoint import load_weights

    return load_weights(Path(config.start)).dit.state_dict()
