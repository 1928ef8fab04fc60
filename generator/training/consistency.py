"""Stage 2, consistency: the teacher's path folded into one step, with teacher forcing.

Shape key: B batch, F latent frames, C channels, H, W latent size, S fixed times.
Fixed times, uniform and then shifted, or laid through a learned grid (ours); no guidance; the target network is the
student itself without gradient, not an average. `own_history` is ours: on that share of steps the recycled frames come
from the student's own free rollout of the clip (no gradient, through the KV cache), and the loss is the squared error
to the truth, so that the model meets its own errors before stage 3 exists. Source: AAPT section 3.3.

Does not know about caches, worlds or evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from controls.errors import UserError
from generator.checkpoint import load_weights, read_manifest
from generator.data.latents import Batch
from generator.model.dit import CausalDiT
from generator.model.sampler_file import load_sampler
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
    save_interrupted,
)
from generator.training.helpers import (
    Progress,
    rate_at,
    set_rate,
    step_generator,
    step_rng,
)
from generator.training.parallel_tensors import part_of
from generator.training.perceptual import Lpips


@dataclass(frozen=True)
class ConsistencyTraining(DiTTraining):
    """Settings of stage 2: fixed times, share of one-step noise draws, and of own-history steps.

    `times` is a number (so many, uniform and shifted), a learned grid's file (its own times), or FILE:N (N of them,
    as dense everywhere as the grid). The grid must be one of the weights that the stage begins from.
    `lpips` weighs a perceptual term on own-history steps (0: none), on `lpips_clips` clips of the batch.
    """

    times: str = "32"
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
    own: slice = slice(None),
) -> Tensor:
    """Squared distance between the student's clean frames at t_n and, one teacher step nearer to the data, at t_n+1.

    times (S + 1,) decreasing from 1 to 0; `pure_noise` is the share of clips placed at t = 1, where play happens.
    All that is random is drawn for the whole batch; the loss is that of its `own` clips.
    """
    device, count = batch.target.device, len(batch.target)
    place = torch.randint(len(times) - 1, (count,), generator=generator, device=device)
    first = torch.rand(count, generator=generator, device=device) < pure_noise
    place = torch.where(first, 0, place)
    now, after = times.to(device)[place].float(), times.to(device)[place + 1].float()
    noise = torch.randn(batch.target.shape, generator=generator, device=device)
    x, now, after, recycled = mix(batch.target, noise, now)[own], now[own], after[own], recycled[own]
    given = batch.actions[own], batch.rays[own]
    with torch.no_grad():
        slope = teacher(x, recycled, now, *given)
        gap = (after - now).view(-1, 1, 1, 1, 1)
        nearer = x + gap * slope
        target = clean_from_velocity(nearer, student(nearer, recycled, after, *given), after)
    guess = clean_from_velocity(x, student(x, recycled, now, *given), now)
    return (guess.float() - target.float()).square().mean()


def own_recycled(student: CausalDiT, batch: Batch, seed: int, eye: Eye | None = None) -> Tensor:
    """Recycled frames (B, F, C to 2C + K, H, W) of a free one-step rollout from the first frame, as in play."""
    return rollout_and_history(student, batch.first, batch, seed, eye)[1].to(batch.first)


def own_history_loss(
    student: CausalDiT,
    batch: Batch,
    recycled: Tensor,
    generator: torch.Generator,
    pictures: PictureLoss | None = None,
    own: slice = slice(None),
) -> Tensor:
    """Squared error of one-step frames that follow the student's own frames, against the truth.

    `recycled` is of the batch's `own` clips, and so is the loss.
    """
    t = torch.ones(len(recycled), device=recycled.device)
    noise = torch.randn(batch.target.shape, generator=generator, device=recycled.device)[own]
    made = noise - student(noise, recycled, t, batch.actions[own], batch.rays[own])
    loss = (made.float() - batch.target[own]).square().mean()
    return loss if pictures is None else loss + pictures(made.float(), batch.target[own], generator)


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
        with run.gathered():
            seed = int(choice.integers(2**31)) + run.own.start  # of this process's first clip
            recycled = own_recycled(run.dit, part_of(batch, run.own), seed, eye)
        return "own_history", own_history_loss(run.dit, batch, recycled, generator, pictures, run.own)
    recycled = corrupt_history(batch.recycled, config.history_noise, generator, batch.place_channels)
    loss = consistency_loss(run.dit, teacher, batch, recycled, times, config.pure_noise, generator, run.own)
    return "consistency", loss


def train(config: ConsistencyTraining, folder: Path, quiet: bool = False) -> DiTRun:
    """Distil `config.start` (stage 1 weights) until the budget ends; the same command resumes."""
    if not config.start:
        raise UserError("The consistency stage needs a teacher; give stage 1 weights with --start DIR.")
    run = open_run(config, folder, "consistency")
    if run.team and config.lpips:
        raise UserError("Several processes compare no pictures; give --set lpips=0, or start one process.")
    teacher = open_teacher(run, config)
    times = fixed_times(config.times, run.world.shift, Path(config.start))
    pictures = PictureLoss(run.tokenizer, config.lpips, config.lpips_clips) if config.lpips else None
    bar = Progress("consistency", quiet or not run.leads)
    try:
        while (progress := run.progress()) < 1.0:
            set_rate(run.optimisers, rate_at(progress, run.step, config.warmup, config.hold))
            with run.autocast():
                name, loss = stage_loss(run, config, teacher, times, pictures)
            norm = apply_gradients(run, loss)
            finish_step(run, **{name: loss.item(), "gradient_norm": norm})
            bar.show(progress, step=run.step)
            keep(run, teacher=False)
    except KeyboardInterrupt:
        save_interrupted(run)
        raise
    keep(run, teacher=False, done=True)
    bar.close()
    return run


def fixed_times(text: str, shift: float, start: Path) -> Tensor:
    """The setting `times` as times (S + 1,) from 1 to 0; UserError when it is neither a number nor a fitting grid."""
    name, _, number = text.rpartition(":")
    if not number.isdigit():
        name, number = text, ""  # a file alone: its own times
    if not text or (number and int(number) < 1):
        raise UserError(f"times = {text!r} are none; give a number from 1, a grid's FILE, or FILE:32.")
    if not name:
        return uniform_times(int(number), shift)
    learned = load_sampler(Path(name), read_manifest(start)["hash"])
    return laid_through(learned.sampler.times, int(number or 0))


def laid_through(times: Tensor, count: int) -> Tensor:
    """`count` + 1 times, as many in each interval of a grid (S + 1,) as in every other; 0: the grid itself.

    Linear between the grid's times, so with `count` a multiple of S they are among those returned.
    """
    if not count:
        return times
    places = torch.linspace(0.0, len(times) - 1.0, count + 1, dtype=torch.float64)
    left = places.long().clamp(max=len(times) - 2)
    return torch.lerp(times[left], times[left + 1], places - left)


def open_teacher(run: DiTRun, config: ConsistencyTraining) -> CausalDiT:
    """The network as the run began, which a resumed run is no longer; sharded as the run's is."""
    teacher = CausalDiT(run.dit.config).to(run.device).eval().requires_grad_(False)
    teacher.load_state_dict(load_teacher(config))
    if run.team:
        run.team.shard(teacher)
    return teacher


def load_teacher(config: ConsistencyTraining) -> dict[str, Tensor]:
    """State dict of the stage 1 weights that the run started from."""
    return load_weights(Path(config.start)).dit.state_dict()
