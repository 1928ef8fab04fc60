"""Stage 3, adversarial: the generator is judged on its own rollouts, segment after segment, against real clips.

Shape key: B batch, F latent frames, C channels, H, W latent size.
One step: all segments of a rollout (segments.py), and for each an update of the discriminator (judging.py) and the
generator's gradient; then one update of the generator. Several batches may make one update. Source: AAPT sections
3.4 and 3.5.

Does not know about worlds, windows or evaluation.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from controls.errors import UserError
from generator.checkpoint import config_from_dict, read_manifest, save_weights
from generator.training.adversarial_settings import AdversarialTraining
from generator.training.dit_run import DiTRun, finish_step, keep, open_run, pick_device, save_interrupted
from generator.training.helpers import Progress, rate_at, save_tensors, set_rate, step_generator
from generator.training.judging import (
    Adversary,
    Pair,
    anchor_loss,
    judge_state,
    maker_loss,
    open_adversary,
    rmsprop,
    update_judge,
)
from generator.training.limits import check_memory, check_settings
from generator.training.parallel_tensors import whole, wholes
from generator.training.segments import Clip, Drawer, Segment, segments
from generator.training.watch import grid_of, motion_of


def train_step(run: DiTRun, config: AdversarialTraining, adversary: Adversary, drawer: Drawer) -> dict[str, float]:
    """Every segment of one rollout: a discriminator update each, then one generator update; returns the figures."""
    for optimiser in run.optimisers:
        optimiser.zero_grad(set_to_none=True)
    with run.gathered():  # once for all segments: the weights stay as they are until the step's end
        totals = rehearse(run, config, adversary, drawer)
    norm = whole(nn.utils.get_total_norm([p.grad for p in run.dit.parameters() if p.grad is not None]))
    if run.step >= config.judge_first:
        for optimiser in run.optimisers:
            optimiser.step()
        run.ema.update(run.dit)
    return run.mean(totals | {"maker_norm": norm.item()})


def rehearse(run: DiTRun, config: AdversarialTraining, adversary: Adversary, drawer: Drawer) -> dict[str, float]:
    """The discriminator's updates and the generator's gradient of one step; returns the figures."""
    generator = step_generator(config.seed, run.step, "loss", run.device.type)
    sums: dict[str, float] = {}
    before: list[Clip | None] = [None] * config.accumulate
    for parts in segments(run, config, drawer):
        shown = [joined(old, segment.rolled) for old, (segment, _) in zip(before, parts, strict=True)]
        pairs = judged_under(run, config, [real for _, real in parts], shown, generator)
        figures = update_judge(run, config, adversary, pairs, generator)
        for old, (segment, _), pair in zip(before, parts, pairs, strict=True):
            for name, value in teach_maker(run, config, adversary, segment, old, pair).items():
                figures[name] = figures.get(name, 0.0) + value / config.accumulate
        for name, value in figures.items():
            sums[name] = sums.get(name, 0.0) + value / config.segments
        before = [segment.rolled.last(config.overlap) for segment, _ in parts]
    return sums


def joined(before: Clip | None, clip: Clip) -> Clip:
    """A clip after the end of the one before it, if there is one."""
    return clip if before is None else before.then(clip)


def judged_under(
    run: DiTRun, config: AdversarialTraining, real: list[Clip], fake: list[Clip], generator: torch.Generator
) -> list[Pair]:
    """The pairs of an update, each clip with a t ~ U(0, 1) and, with `grid_shift`, half a patch or none each way."""
    count = config.batch * config.accumulate
    times = torch.rand(count, generator=generator, device=run.device).split(config.batch)
    shifts: list[Tensor | None] = [None] * len(real)
    if config.grid_shift:
        half = run.dit.config.patch // 2
        steps = torch.randint(0, 2, (count, 2), generator=generator, device=run.device) * half
        shifts = list(steps.split(config.batch))
    drawn = [(t[run.own], None if shift is None else shift[run.own]) for t, shift in zip(times, shifts, strict=True)]
    return [Pair(mine, made, *under) for mine, made, under in zip(real, fake, drawn, strict=True)]


def teach_maker(
    run: DiTRun, config: AdversarialTraining, adversary: Adversary, segment: Segment, before: Clip | None, pair: Pair
) -> dict[str, float]:
    """Add one part's gradient to the generator's; returns its figures."""
    adversary.judge.freeze(True)
    bench = pair.bench(adversary.judge, config.checkpointed)
    with run.autocast():
        with torch.no_grad():
            real_logits = bench(pair.real, checkpointed=False)
        fake = segment.again(run.dit, config.checkpointed)
        loss = maker_loss(real_logits, bench(joined(before, fake)))
    made, real, patch = segment.rolled.frames, pair.real.frames, run.dit.config.patch
    figures = {
        "maker_loss": loss.item(),
        "motion": motion_of(made) / max(motion_of(real), 1e-6),
        "grid": grid_of(made, patch) / max(grid_of(real, patch), 1e-6),
    }
    if config.anchor and before is None:
        anchor = anchor_loss(pair.real, fake)
        figures["anchor"] = anchor.item() * config.segments  # of one segment alone
        loss = loss + config.anchor * anchor
    (loss / (config.segments * config.accumulate)).backward()
    adversary.judge.freeze(False)
    return figures


def open_stage(config: AdversarialTraining, folder: Path) -> tuple[DiTRun, Adversary, Drawer]:
    """Start the run in `folder` or continue it; UserError on settings, files or a memory that do not fit."""
    if not config.start:
        raise UserError("The adversarial stage needs a one-step generator; give stage 2 weights with --start DIR.")
    check_settings(config)
    longest = config.longest
    dit = config_from_dict(read_manifest(Path(config.start))["config"]).dit
    check_memory(longest, replace(dit, window=config.window or dit.window), pick_device(config.device))
    run = open_run(config, folder, "adversarial", lambda settings, dit: rmsprop(dit, settings.lr))
    shortest = min(len(clip["latents"]) for clip in run.clips.clips) - 1
    if longest.segments > 1 and config.frames + config.overlap + 1 > shortest:
        raise UserError(
            f"Segments of {config.frames} latent frames after {config.overlap} and 1 more do not fit clips of "
            f"{shortest}; give --set frames={max(2, shortest - 1 - config.overlap)}."
        )
    drawer = Drawer(run, longest)
    adversary = open_adversary(config, run)
    run.extra = lambda: judge_state(config, adversary)
    return run, adversary, drawer


def save_judge(run: DiTRun, adversary: Adversary, name: str = "discriminator") -> None:
    """Write the discriminator beside every snapshot, for --resume-discriminator-from."""
    tensors = wholes(adversary.judge.state_dict())
    if run.leads:
        save_tensors(run.folder / f"{name}.safetensors", tensors, {"step": run.step})


def keep_for_good(run: DiTRun, adversary: Adversary) -> None:
    """A snapshot and its discriminator under the step's number; what was kept of later steps than this is no part of
    the run that a resume state stands for, and is written over in time.
    """
    notes = {"step": run.step, "seconds": run.budget.spent, "training": asdict(run.config)}
    folder = run.folder / f"snapshot-{run.step:06d}"
    weights = wholes(run.ema.weights)
    if run.leads:
        save_weights(folder, run.world, run.tokenizer, weights, notes, run.parallax)
    save_judge(run, adversary, f"discriminator-{run.step:06d}")


def train(config: AdversarialTraining, folder: Path, quiet: bool = False) -> DiTRun:
    """Post-train `config.start` (one-step weights) until the budget ends; the same command resumes."""
    run, adversary, drawer = open_stage(config, folder)
    bar = Progress("adversarial", quiet or not run.leads)
    try:
        while (progress := run.progress()) < 1.0:
            factor = rate_at(progress, run.step, config.warmup, config.hold)
            set_rate(run.optimisers, factor)
            set_rate(adversary.optimisers, factor)
            figures = train_step(run, config.at(progress), adversary, drawer)
            adversary.watch.look(run.folder, run.step, figures, config)
            finish_step(run, **figures)
            bar.show(progress, step=run.step, gap=figures["gap"], motion=figures["motion"])
            saved = run.saved_at
            keep(run, teacher=False)
            if run.saved_at != saved:
                save_judge(run, adversary)
            if config.keep_every and run.step % config.keep_every == 0:
                keep_for_good(run, adversary)
    except KeyboardInterrupt:
        save_interrupted(run)
        if run.team is None:
            save_judge(run, adversary)
        raise
    keep(run, teacher=False, done=True)
    save_judge(run, adversary)
    bar.close()
    return run
