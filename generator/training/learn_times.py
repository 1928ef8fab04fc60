"""Learn the times of the many-step teacher: few calls a frame that land where many calls do (LD3, GS, or one curve).

The student's single latent frames, after real history, are held to the teacher's in decoded pictures (LPIPS) or in
latents. It begins from the best of the hand-made grids by validation (ours; LD3 begins from uniform times). The same
command resumes, and its state lies in the run's folder. Source: LD3 notes sections 1, 2 and 4.

Shape key: M pairs, C channels, H, W latent size, T video frames, Y, X video size.
Does not know about play, caches or other stages.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from controls.errors import UserError
from generator.checkpoint import Weights, load_weights
from generator.data.latents import LatentClips, parallax_hash, tokenizer_hash
from generator.model.sampler_file import LearnedSampler, load_sampler, save_sampler
from generator.samplers.fitted_grids import dmn, gits, on_cut
from generator.samplers.grids import edm_rho, quadratic_time, uniform_log_snr, uniform_time
from generator.samplers.learned_times import Distance, Pairs, l1, l2
from generator.samplers.sampler import FLOW, Sampler, intervals
from generator.samplers.schedule import uniform_times
from generator.samplers.solvers import Solver, dpm_solver_pp, solver_named
from generator.training.helpers import Budget, Progress, load_tensors, make_folder, pick_device, save_tensors
from generator.training.perceptual import Lpips
from generator.training.teacher_pairs import Context, Eyes, make_context, make_pairs, solve_targets
from generator.training.times_methods import (
    CONTROLS,
    Method,
    TimesTraining,
    check,
    held_loss,
    open_method,
    run_folder,
    settings_of,
)

WHOLE = "begun as it is"  # among the losses: another sampler with its own solver and network times


def load_teacher(config: TimesTraining) -> Weights:
    """The teacher's weights; UserError when they were trained to be asked at t = 1 only."""
    weights = load_weights(Path(config.weights))
    if weights.config.stage not in ("adaptation", "test"):
        raise UserError(
            f"The weights in {config.weights!r} are of the stage {weights.config.stage!r}, which makes a frame in one "
            "call; give those of the adaptation stage."
        )
    device = pick_device(config.device)
    weights.dit.to(device).requires_grad_(False)
    weights.tokenizer.to(device).requires_grad_(False)
    return weights


def teacher_times(steps: int) -> Tensor:
    """The target's many times: uniform.

    Ours, measured on the pocket teacher (mean square to 160 steps, latents of variance 1.2): 32 uniform steps are
    within 0.00002, 32 shifted by the training's 24 within 0.044, for they end with one jump from t = 0.44 to the data.
    """
    return uniform_times(steps)


def hand_made(steps: int, shift: float) -> dict[str, Tensor]:
    """Grids that need neither solver nor network, by name."""
    return {
        "uniform": uniform_time(FLOW, steps),
        "shifted": uniform_times(steps, shift),
        "half_shifted": uniform_times(steps, shift**0.5),
        "quadratic": quadratic_time(FLOW, steps),
        "log_snr": on_cut(uniform_log_snr, FLOW, steps),
        "edm": on_cut(edm_rho, FLOW, steps),
    }


def fitted(config: TimesTraining, train: Pairs, solver: Solver) -> dict[str, Tensor]:
    """Grids made for the solver (DMN) and for it and the teacher's own trajectories (GITS, 60 intervals), by name."""
    steps, few = intervals(config.base[0], config.nfe), torch.arange(min(4, len(train.noise)))
    dense = teacher_times(60)
    made = {"gits": gits(FLOW, steps, train.network(few), train.noise[few], dense)}
    if config.solver != "heun":  # which the bound is not made for
        made["dmn"] = on_cut(lambda path, n: dmn(path, n, solver, power=2.0), FLOW, steps)
    return made


class PictureDistance:
    """LPIPS, mean over the video frames of a sample."""

    def __init__(self, device: torch.device) -> None:
        self.lpips = Lpips().to(device)

    def __call__(self, sample: Tensor, target: Tensor) -> Tensor:
        """sample and target (B, T, 3, Y, X) to (B,), on the processor."""
        apart: Tensor = self.lpips(sample.flatten(0, 1).float(), target.flatten(0, 1).float())
        return apart.unflatten(0, sample.shape[:2]).mean(1).cpu()


@dataclass
class TimesRun:
    """One opened run: the way to learn, its pairs and their latents by part (to be saved), and where it stands.

    `losses` are those of the grids that it might begin from; of the curve, means over the numbers of calls.
    """

    config: TimesTraining
    weights: Weights
    method: Method
    distance: Distance
    pairs: dict[str, Pairs]
    latents: dict[str, Tensor]
    losses: dict[str, float]
    budget: Budget
    folder: Path

    @property
    def resume(self) -> Path:
        """The file that the same command goes on from."""
        return self.folder / "resume.safetensors"

    @property
    def updates(self) -> int:
        """Updates so far."""
        return len(self.method.work.losses)

    @property
    def done(self) -> bool:
        """Whether the rounds, the updates or the minutes have come to their end."""
        return self.method.work.done or self.budget.progress(self.updates) >= 1.0

    def judged(self, sampler: Sampler) -> float:
        """Validation loss of a sampler."""
        return held_loss(self.distance, self.pairs["held"], sampler)

    def save(self) -> None:
        """Everything that the run depends on."""
        tensors, numbers = self.method.work.state()
        tensors |= {f"latents.{name}": kept for name, kept in self.latents.items()}
        meta = {"settings": settings_of(self.config), "weights": self.weights.hash, "numbers": numbers}
        save_tensors(self.resume, tensors, meta | {"losses": self.losses, "seconds": self.budget.spent})


def read_resume(path: Path, config: TimesTraining, name: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The state of an earlier start; UserError when it was another run's."""
    if not path.exists():
        return None
    tensors, meta = load_tensors(path)
    mine, theirs = settings_of(config), meta.get("settings", {})
    other = [key for key in mine if theirs.get(key) != mine[key]]
    if meta.get("weights") != name or other:
        what = f"{other[0]} = {theirs.get(other[0])!r}" if other else "other weights"
        raise UserError(
            f"{str(path.parent)!r} holds a run with {what}; choose another folder with --set run=DIR, or remove it."
        )
    return tensors, meta


def check_fit(config: TimesTraining, weights: Weights, clips: LatentClips) -> None:
    """UserError when latents and teacher do not belong together, or the clips are too short."""
    if tokenizer_hash(weights.tokenizer) != clips.tokenizer:
        raise UserError(
            f"The latents in {config.latents!r} were encoded with another tokenizer than that of "
            f"{config.weights!r}; encode the clips again with run.py train latents."
        )
    if weights.dit.config.reproject and {parallax_hash(weights.parallax)} != clips.parallaxes:
        raise UserError(
            f"The latents in {config.latents!r} were encoded with another parallax than that of "
            f"{config.weights!r}; encode the clips again with run.py train latents --parallax DIR."
        )
    shortest = min(len(clip["latents"]) for clip in clips.clips) - 2
    if config.history > shortest:
        raise UserError(f"The clips have {shortest + 1} latent frames; give --set history={shortest} or less.")


def contexts(config: TimesTraining, weights: Weights) -> dict[str, Context]:
    """Windows to learn from (training clips) and to choose by (held-out clips, where there are any)."""
    made, folder = {}, Path(config.latents)
    clips = LatentClips(folder, "train")
    for use, count in (("train", config.pairs), ("held", config.held)):
        if use == "held" and "held_seed" in {clip["split"] for clip in clips.meta["clips"]}:
            clips = LatentClips(folder, "held_seed")
        check_fit(config, weights, clips)
        clips.tell(weights.reprojector())
        made[use] = make_context(clips, weights.dit, count, config.history, config.seed, use)
    return made


def open_times(config: TimesTraining, say: Callable[[str], None], solved: dict[str, Tensor] | None = None) -> TimesRun:
    """Start a run, or continue the one in its folder. UserError on settings or files that do not fit.

    solved: the teacher's latents by part, where another run of the same weights, pairs and seed has them.
    """
    check(config)
    weights = load_teacher(config)
    folder = run_folder(config, weights.hash)
    kept = read_resume(folder / "resume.safetensors", config, weights.hash)
    make_folder(folder)
    device = weights.dit.embed.weight.device
    distance: Distance = (
        PictureDistance(device) if config.distance == "lpips" else {"l1": l1, "l2": l2}[config.distance]
    )
    latents, pairs = {}, {}
    for use, context in contexts(config, weights).items():
        if kept is not None:
            latents[use] = kept[0].pop(f"latents.{use}")
        elif solved is not None:
            latents[use] = solved[use]
        else:
            say(f"{use}: {context.count} latent frames in {config.teacher_steps} calls each")
            times = teacher_times(config.teacher_steps)
            latents[use] = solve_targets(weights.dit, context, dpm_solver_pp(2), times)
        eyes = Eyes(weights.tokenizer, context.batch) if config.distance == "lpips" else None
        pairs[use] = make_pairs(weights.dit, context, latents[use], eyes)
    losses = kept[1]["losses"] if kept else None
    method, losses = begin(config, weights, distance, pairs, losses)
    updates = config.updates
    if config.method == "ld3":
        rounds = config.grid_rounds + (config.both_rounds if config.decoupled else 0)
        updates = rounds * -(-config.pairs // config.batch)
    budget = Budget(updates, config.minutes)
    if kept:
        method.work.restore(kept[0], kept[1]["numbers"])
        budget.resume(float(kept[1]["seconds"]))
    return TimesRun(config, weights, method, distance, pairs, latents, losses, budget, folder)


def begin(
    config: TimesTraining,
    weights: Weights,
    distance: Distance,
    pairs: dict[str, Pairs],
    losses: dict[str, float] | None,
) -> tuple[Method, dict[str, float]]:
    """The way to learn, from the best of the grids by validation, and their losses; known losses are not made again."""
    train, held = pairs["train"], pairs["held"]

    whole: Sampler | None = None

    def method(start: Tensor | None, unit: float = 1.0) -> Method:
        return open_method(config, distance, train, held, start, unit, whole)

    grids: dict[str, Tensor] = {}
    if losses is None:
        grids = candidates(config, weights, train)
        if config.method == "curve":
            tried = {name: method(times).work for name, times in grids.items()}
            losses = {name: work.validate() for name, work in tried.items()}
        else:
            losses = {n: held_loss(distance, held, Sampler(*config.base, t, t)) for n, t in grids.items()}
        if config.method == "gs" and (begun := begun_sampler(config, weights)) and begun.name == "ipndm":
            losses[WHOLE] = held_loss(distance, held, begun)
            if losses[WHOLE] <= min(losses.values()):
                whole = begun
                grids[WHOLE] = begun.times
    best = min(losses, key=lambda name: losses[name])
    unit = losses[best] if config.distance != "lpips" and losses[best] > 0 else 1.0
    return method(grids.get(best), unit), losses


def candidates(config: TimesTraining, weights: Weights, train: Pairs) -> dict[str, Tensor]:
    """Grids to begin from, by name: hand-made, fitted, and the file `begin`; for the curve, of CONTROLS intervals."""
    if config.method == "curve":
        return hand_made(CONTROLS, weights.config.shift)
    steps = intervals(config.base[0], config.nfe)
    grids = hand_made(steps, weights.config.shift)
    if config.fitted:
        grids |= fitted(config, train, solver_named(*config.base))
    if begun := begun_sampler(config, weights):
        grids["begun"] = begun.times
    return grids


def begun_sampler(config: TimesTraining, weights: Weights) -> Sampler | None:
    """What the file `begin` holds, if there is to be one; UserError when it is for another number of intervals."""
    if not config.begin:
        return None
    begun, steps = load_sampler(Path(config.begin), weights.hash).sampler, intervals(config.base[0], config.nfe)
    if len(begun.times) != steps + 1:
        raise UserError(f"The grid {config.begin!r} has {len(begun.times) - 1} intervals, not {steps}.")
    return begun


def finish(run: TimesRun) -> LearnedSampler:
    """Write the best grid so far; UserError when the run broke off."""
    work, config, sampler = run.method.work, run.config, run.method.sampler()
    losses = run.losses
    if config.method == "curve":  # those of the run are means over the numbers of calls
        grids = hand_made(intervals(config.solver, config.nfe), run.weights.config.shift)
        losses = {name: run.judged(Sampler(*config.base, times, times)) for name, times in grids.items()}
    losses = {**losses, "learned": run.judged(sampler)}
    learned = LearnedSampler(run.weights.hash, sampler, config.distance, losses, work.losses)
    save_sampler(Path(config.out), learned)
    if work.fault:
        run.resume.unlink(missing_ok=True)
        raise UserError(f"{work.fault}; {config.out} holds the best grid before that, lower --set rate and run again.")
    return learned


def work(run: TimesRun, quiet: bool, save_every: int, enough: Callable[[], bool]) -> None:
    """Learn until the run is done or `enough` says so; saved at the end and on the way."""
    bar = Progress("learn-times", quiet)
    try:
        while not run.done and not enough():
            run.method.work.advance()
            shown = dict(zip(("loss", "held"), run.method.work.losses[-1], strict=True)) if run.updates else {}
            bar.show(run.budget.progress(run.updates), **shown)
            if run.updates % save_every == 0:
                run.save()
    except KeyboardInterrupt:
        run.save()
        raise
    run.save()
    bar.close()


def train(config: TimesTraining, quiet: bool = False, save_every: int = 5) -> LearnedSampler:
    """Learn until the rounds or the minutes end, and write --out; the same command goes on where it was stopped."""
    run = open_times(config, (lambda text: None) if quiet else print)
    work(run, quiet, save_every, lambda: False)
    return finish(run)
