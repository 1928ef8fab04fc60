"""Stage 3, adversarial: the generator is judged on its own rollouts, segment after segment, against real clips.

Shape key: B batch, F latent frames, C channels, H, W latent size.
A rollout runs without gradient, exactly as play does, and keeps what every frame was given. Since the recycled frame
is detached, one block-causal pass over those inputs, behind the cache as it stood before the segment, gives the same
frames again with the gradient that a backward pass through the KV cache would give, one block's activations at a time.
Losses: relativistic pairs, softplus(D_fake - D_real) for D and the reverse for G; approximate R1 and R2. RMSProp, 1:1.
The first segment is paired with the real clip of the same first frame and actions. Later ones continue from the
detached cache under the actions of other clips, overlap their predecessor in D's input, and meet other real clips,
which begin in mid-video as they do: a lone first picture on one side alone would tell D which is which.
Source: AAPT sections 3.4 and 3.5.

Does not know about worlds, windows or evaluation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from controls.errors import UserError
from generator.checkpoint import config_from_dict, load_weights, read_manifest
from generator.data.latents import Batch
from generator.model.discriminator import Discriminator
from generator.model.dit import CausalDiT
from generator.model.kv_cache import Past
from generator.rollout import Eye, RolloutState, continue_rollout, frame_noise, open_eye, start
from generator.training.dit_run import DiTRun, DiTTraining, finish_step, keep, open_run, pick_device, save_run
from generator.training.helpers import (
    Optimisers,
    Progress,
    load_optimisers,
    load_tensors,
    rate_at,
    save_tensors,
    set_rate,
    step_generator,
    step_rng,
)
from generator.training.limits import check_memory, check_settings

FORETOLD = 0.05  # squared error of the recycled channels at which the anchor has half its weight
WATCHED = 60  # steps over which the motion of rollouts is averaged before it counts as collapsed


@dataclass(frozen=True)
class AdversarialTraining(DiTTraining):
    """Settings of stage 3. `frames` is the length of a segment and `overlap` what D sees of the one before.

    `teacher`: stage 1 weights that the discriminator starts from (empty: those of `start`); `discriminator`: a file
    that an earlier run left, to start it from instead. `judge_lr` 0 is the generator's rate. `forced` feeds true
    histories (the paper's ablation). `penalty_every` takes approximate R1 and R2 on every so-manieth step, that much
    stronger; `checkpointed` trades time for memory. `least_motion` stops the run when rollouts move less than this
    share of the real clips. Ours, for small batches: `judge_first` steps train the discriminator alone, and `anchor`
    weighs `anchor_loss` in the first segment.
    """

    teacher: str = ""
    discriminator: str = ""
    lr: float = 3e-6
    judge_lr: float = 0.0
    judge_first: int = 0
    anchor: float = 0.0
    segments: int = 1
    overlap: int = 3
    penalty: float = 1000.0
    sigma: float = 0.1
    penalty_every: int = 1
    checkpointed: bool = True
    clip_level: bool = False
    forced: bool = False
    least_motion: float = 0.15
    ema: float = 0.995
    history_noise: float = 0.0
    hold: float = 1.0
    warmup: int = 20


@dataclass
class Clip:
    """What the discriminator judges: frames (B, F, C, H, W), what was recycled (B, F, C or 2C, H, W), conditions."""

    frames: Tensor
    recycled: Tensor
    actions: Tensor
    rays: Tensor

    def detached(self) -> Clip:
        """The same without gradient."""
        return Clip(self.frames.detach(), self.recycled.detach(), self.actions, self.rays)

    def last(self, count: int) -> Clip:
        """The last `count` latent frames."""
        return Clip(*(v[:, v.shape[1] - count :] for v in (self.frames, self.recycled, self.actions, self.rays)))

    def then(self, after: Clip) -> Clip:
        """This clip and then another."""
        mine, theirs = ((clip.frames, clip.recycled, clip.actions, clip.rays) for clip in (self, after))
        return Clip(*(torch.cat(pair, dim=1) for pair in zip(mine, theirs, strict=True)))

    @classmethod
    def real(cls, batch: Batch) -> Clip:
        """A clip of the data set."""
        return cls(batch.target, batch.recycled, batch.actions, batch.rays)


def judge_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's relativistic loss from paired logits (B, F)."""
    return nnf.softplus(fake - real).mean()


def maker_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The generator's relativistic loss from paired logits (B, F)."""
    return nnf.softplus(real - fake).mean()


def anchor_loss(real: Clip, fake: Clip) -> Tensor:
    """Squared error to the paired clip, frame by frame the weaker the less the recycled channels foretold (ours).

    A few judged clips say little about standing still and turning, where the answer is known exactly; where one walks,
    squared error would blur what the discriminator sharpens.
    """
    known = real.recycled[:, :, -real.frames.shape[2] :]
    novelty = (known - real.frames).square().mean((2, 3, 4))
    error = (fake.frames.float() - real.frames).square().mean((2, 3, 4))
    return (error * FORETOLD / (FORETOLD + novelty)).mean()


def smoothness(
    judge: nn.Module, clip: Clip, logits: Tensor, t: Tensor, noise: Tensor, sigma: float, checkpointed: bool = False
) -> Tensor:
    """Approximate R1 (real) or R2 (fake): squared change of the logits when the frames are moved by sigma noise."""
    moved = judge(clip.frames + sigma * noise, clip.recycled, t, clip.actions, clip.rays, checkpointed)
    return (logits - moved).square().mean()


@dataclass
class Adversary:
    """The discriminator's side of a run."""

    judge: Discriminator
    optimisers: Optimisers
    motion: deque[float] = field(default_factory=lambda: deque(maxlen=WATCHED))


def rmsprop(network: nn.Module, lr: float) -> Optimisers:
    """RMSProp with alpha 0.9 and nothing else, as the paper has it."""
    chosen = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.RMSprop(chosen, lr=lr, alpha=0.9)
    for group in optimiser.param_groups:
        group["peak"] = lr
    return [optimiser]


def open_adversary(config: AdversarialTraining, run: DiTRun) -> Adversary:
    """The discriminator from stage 1 weights, from an earlier discriminator, or as the run left it."""
    body = CausalDiT(run.dit.config)
    try:
        body.load_state_dict(load_weights(Path(config.teacher or config.start)).dit.state_dict())
    except RuntimeError as error:
        raise UserError(
            f"The stage 1 weights in {config.teacher!r} are of another model than {config.start!r}; give matching ones."
        ) from error
    torch.manual_seed(config.seed)
    judge = Discriminator(body, config.clip_level).to(run.device).train()
    adversary = Adversary(judge, rmsprop(judge, config.judge_lr or config.lr))
    if run.resumed is not None:
        try:
            judge.load_state_dict(run.resumed["judge"])
            load_optimisers(adversary.optimisers, run.resumed["judge_optimisers"])
            adversary.motion.extend(run.resumed["motion"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise UserError(
                f"{str(run.folder)!r} holds a run of another stage or model; choose another folder with --run."
            ) from error
        run.resumed = None  # as large as the discriminator and its averages
    elif config.discriminator:
        load_judge(judge, Path(config.discriminator))
    return adversary


def load_judge(judge: Discriminator, path: Path) -> None:
    """Put an earlier run's discriminator in place; UserError when the file is not one of this model."""
    tensors, _ = load_tensors(path)
    try:
        judge.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(f"{str(path)!r} is no discriminator of this model; choose the file of a like run.") from error


@dataclass
class Segment:
    """One stretch of a rollout, and what is needed to make it again with a gradient."""

    noise: Tensor
    recycled: Tensor
    conditions: Batch
    past: list[Past] | None
    start: int

    def again(self, dit: nn.Module, checkpointed: bool = True) -> Clip:
        """The frames with their gradient: one block-causal pass over what the rollout was given."""
        given, t = self.conditions, torch.ones(len(self.noise), device=self.noise.device)
        velocity = dit(
            self.noise, self.recycled, t, given.actions, given.rays,
            past=self.past, start=self.start, checkpointed=checkpointed,
        )  # fmt: skip
        return Clip(self.noise - velocity, self.recycled, given.actions, given.rays)


def roll_segment(dit: CausalDiT, state: RolloutState, eye: Eye | None, conditions: Batch) -> Segment:
    """Continue a rollout by one segment under `conditions`, without gradient, exactly as play does."""
    begin, frames = state.frame_index, conditions.actions.shape[1]
    past = state.cache.past(begin) if begin else None
    _, recycled = continue_rollout(dit, state, conditions, eye)
    shape = tuple(state.recycled.shape[1:])
    noise = [[frame_noise(state.seed + b, begin + k, shape) for k in range(frames)] for b in range(len(recycled))]
    stacked = torch.stack([torch.stack(row) for row in noise]).to(recycled)
    return Segment(stacked, recycled, conditions, past, begin)


def forced_segment(batch: Batch, seed: int) -> Segment:
    """The paper's ablation: as a segment, but after the true history."""
    shape, frames = tuple(batch.target.shape[2:]), batch.target.shape[1]
    noise = [[frame_noise(seed + b, k, shape) for k in range(frames)] for b in range(len(batch.target))]
    return Segment(torch.stack([torch.stack(row) for row in noise]).to(batch.target), batch.recycled, batch, None, 0)


def segments(run: DiTRun, config: AdversarialTraining) -> Iterator[tuple[Segment, Clip]]:
    """The present step's segments in turn, each with the real clip that it is compared with (overlap included)."""
    batch, seed = run.draw(), int(step_rng(config.seed, run.step, "rollout").integers(2**31))
    if config.forced:
        yield forced_segment(batch, seed), Clip.real(batch)
        return
    eye = open_eye(run.dit, run.tokenizer, run.world.hfov, run.parallax)
    state = start(run.dit, batch.first, seed)
    with run.autocast():
        if eye:
            eye.open(batch.first, batch.pace)
        segment = roll_segment(run.dit, state, eye, batch)
    yield segment, Clip.real(batch)
    for number in range(1, config.segments):
        length = config.frames + config.overlap
        with run.autocast():
            segment = roll_segment(run.dit, state, eye, run.draw(f"actions {number}"))
        yield segment, Clip.real(run.draw(f"real {number}", length + 1)).last(length)


def train_step(run: DiTRun, config: AdversarialTraining, adversary: Adversary) -> dict[str, float]:
    """Every segment of one rollout: a discriminator update each, then one generator update; returns the figures."""
    generator = step_generator(config.seed, run.step, "loss", run.device.type)
    totals: dict[str, float] = {}
    before: Clip | None = None
    for optimiser in run.optimisers:
        optimiser.zero_grad(set_to_none=True)
    for segment, real in segments(run, config):
        with run.autocast():
            fake = segment.again(run.dit, config.checkpointed)
            seen = fake if before is None else before.then(fake)
        t = torch.rand(len(real.frames), generator=generator, device=run.device)
        figures = update_judge(run, config, adversary, real, seen.detached(), t, generator)
        judge = adversary.judge
        judge.freeze(True)
        with run.autocast():
            with torch.no_grad():
                real_logits = judge(real.frames, real.recycled, t, real.actions, real.rays)
            given = (seen.frames, seen.recycled, t, seen.actions, seen.rays)
            loss = maker_loss(real_logits, judge(*given, checkpointed=config.checkpointed))
        figures |= {"maker_loss": loss.item(), "motion": motion_of(fake) / max(motion_of(real), 1e-6)}
        if config.anchor and before is None:
            anchor = anchor_loss(real, fake)
            figures["anchor"] = anchor.item() * config.segments  # of one segment alone
            loss = loss + config.anchor * anchor
        (loss / config.segments).backward()
        judge.freeze(False)
        for name, value in figures.items():
            totals[name] = totals.get(name, 0.0) + value / config.segments
        before = fake.detached().last(config.overlap)
    norm = nn.utils.get_total_norm([p.grad for p in run.dit.parameters() if p.grad is not None])
    if run.step >= config.judge_first:
        for optimiser in run.optimisers:
            optimiser.step()
        run.ema.update(run.dit)
    return totals | {"maker_norm": norm.item()}


def update_judge(
    run: DiTRun,
    config: AdversarialTraining,
    adversary: Adversary,
    real: Clip,
    fake: Clip,
    t: Tensor,
    generator: torch.Generator,
) -> dict[str, float]:
    """One discriminator update on a pair of clips, with the penalties on every `penalty_every`-th step; its figures."""
    judge, both = adversary.judge, {}
    penalties = torch.zeros((), device=t.device)
    with run.autocast():
        for name, clip in (("real", real), ("fake", fake)):
            both[name] = judge(clip.frames, clip.recycled, t, clip.actions, clip.rays, config.checkpointed)
            if (run.step + 1) % config.penalty_every == 0:  # these are also the steps whose figures are written
                noise = torch.randn(clip.frames.shape, generator=generator, device=t.device)
                penalties = penalties + smoothness(judge, clip, both[name], t, noise, config.sigma, config.checkpointed)
        loss = judge_loss(both["real"], both["fake"])
    for optimiser in adversary.optimisers:
        optimiser.zero_grad(set_to_none=True)
    (loss + config.penalty * config.penalty_every * penalties).backward()
    norm = nn.utils.get_total_norm([p.grad for p in judge.parameters() if p.grad is not None])
    for optimiser in adversary.optimisers:
        optimiser.step()
    gap = (both["real"] - both["fake"]).mean()
    saturated = torch.cat([both["real"], both["fake"]]).abs().gt(10).float().mean()
    figures = {"judge_loss": loss, "penalty": penalties, "gap": gap, "saturated": saturated, "judge_norm": norm}
    return {name: value.item() for name, value in figures.items()}


@torch.no_grad()
def motion_of(clip: Clip) -> float:
    """Mean absolute change between successive latent frames."""
    return (clip.frames[:, 1:] - clip.frames[:, :-1]).abs().mean().item()


def watch(run: DiTRun, config: AdversarialTraining, adversary: Adversary, figures: dict[str, float]) -> None:
    """UserError when the run has failed: figures that are not finite, or rollouts that stand still."""
    broken = [name for name, value in figures.items() if not torch.isfinite(torch.tensor(value))]
    if broken:
        raise UserError(
            f"Step {run.step} gave no finite {', '.join(broken)}; the last snapshot is kept in {str(run.folder)!r}, "
            "lower the rates with --set lr=... or begin again with --resume-discriminator-from."
        )
    adversary.motion.append(figures["motion"])
    mean = sum(adversary.motion) / len(adversary.motion)
    if len(adversary.motion) == WATCHED and mean < config.least_motion:
        raise UserError(
            f"Rollouts move {mean:.2f} times as much as real clips over {WATCHED} steps: the world has come to a stop. "
            f"The last snapshot is kept in {str(run.folder)!r}; begin again from an earlier one with "
            "--resume-discriminator-from, or allow it with --set least_motion=0."
        )


def open_stage(config: AdversarialTraining, folder: Path) -> tuple[DiTRun, Adversary]:
    """Start the run in `folder` or continue it; UserError on settings, files or a memory that do not fit."""
    if not config.start:
        raise UserError("The adversarial stage needs a one-step generator; give stage 2 weights with --start DIR.")
    check_settings(config)
    dit = config_from_dict(read_manifest(Path(config.start))["config"]).dit
    check_memory(config, dit, pick_device(config.device))
    run = open_run(config, folder, "adversarial", lambda settings, dit: rmsprop(dit, settings.lr))
    shortest = min(len(clip["latents"]) for clip in run.clips.clips) - 1
    if config.segments > 1 and config.frames + config.overlap + 1 > shortest:
        raise UserError(
            f"Segments of {config.frames} latent frames after {config.overlap} and 1 more do not fit clips of "
            f"{shortest}; give --set frames={max(2, shortest - 1 - config.overlap)}."
        )
    adversary = open_adversary(config, run)
    run.extra = lambda: {
        "judge": adversary.judge.state_dict(),
        "judge_optimisers": [o.state_dict() for o in adversary.optimisers],
        "motion": list(adversary.motion),
    }
    return run, adversary


def save_judge(run: DiTRun, adversary: Adversary) -> None:
    """Write the discriminator beside every snapshot, for --resume-discriminator-from."""
    save_tensors(run.folder / "discriminator.safetensors", adversary.judge.state_dict(), {"step": run.step})


def train(config: AdversarialTraining, folder: Path, quiet: bool = False) -> DiTRun:
    """Post-train `config.start` (one-step weights) until the budget ends; the same command resumes."""
    run, adversary = open_stage(config, folder)
    bar = Progress("adversarial", quiet)
    try:
        while (progress := run.budget.progress(run.step)) < 1.0:
            factor = rate_at(progress, run.step, config.warmup, config.hold)
            set_rate(run.optimisers, factor)
            set_rate(adversary.optimisers, factor)
            figures = train_step(run, config, adversary)
            watch(run, config, adversary, figures)
            finish_step(run, **figures)
            bar.show(progress, step=run.step, gap=figures["gap"], motion=figures["motion"])
            saved = run.saved_at
            keep(run, teacher=False)
            if run.saved_at != saved:
                save_judge(run, adversary)
    except KeyboardInterrupt:
        save_run(run)
        save_judge(run, adversary)
        raise
    keep(run, teacher=False, done=True)
    save_judge(run, adversary)
    bar.close()
    return run
