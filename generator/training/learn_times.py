"""Learn the times of the many-step teacher with LD3: few calls a frame that land where many calls do.

The student's single latent frames, after real history, are held to the teacher's in decoded pictures (LPIPS) or in
latents. It begins from the best of the hand-made grids by validation (ours; LD3 begins from uniform times). The same
command resumes, and its state lies in the run's folder. Source: LD3 notes sections 1 and 2.

Shape key: M pairs, C channels, H, W latent size, T video frames, Y, X video size.
Does not know about play, caches or other stages.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from controls.errors import UserError
from controls.strict_yaml import did_you_mean
from generator.checkpoint import Weights, load_weights
from generator.data.latents import LatentClips, parallax_hash, tokenizer_hash
from generator.model.sampler_file import LearnedSampler, save_sampler
from generator.samplers.fitted_grids import dmn, gits, on_cut
from generator.samplers.grids import edm_rho, quadratic_time, uniform_log_snr, uniform_time
from generator.samplers.learned_times import Distance, LearnConfig, Learner, Pairs, l1, l2
from generator.samplers.sampler import FLOW, MOST, Sampler, intervals, solver_fault
from generator.samplers.schedule import uniform_times
from generator.samplers.solvers import Solver, dpm_solver_pp, solver_named
from generator.training.dit_run import pick_device
from generator.training.helpers import Budget, Progress, load_tensors, make_folder, save_tensors
from generator.training.perceptual import Lpips
from generator.training.teacher_pairs import Context, Eyes, make_context, make_pairs, solve_targets

DISTANCES = ("lpips", "l1", "l2")
FREE = ("minutes", "out", "run", "device")  # what a resumed command may change


@dataclass(frozen=True)
class TimesTraining:
    """Settings of learn-times; `minutes` of learning over all starts (0: to the end of the rounds)."""

    weights: str
    out: str
    latents: str = "runs/latents/halls"
    run: str = ""
    solver: str = "ipndm"
    order: int = 3
    nfe: int = 4
    distance: str = "lpips"
    minutes: float = 0.0
    pairs: int = 24
    held: int = 12
    history: int = 3
    teacher_steps: int = 32
    soft: bool = True
    decoupled: bool = True
    recompute: bool = False
    fitted: bool = True  # begin from DMN's or GITS's grid too, where those are better
    grid_rounds: int = 2
    both_rounds: int = 3
    batch: int = 1
    rate: float = 5e-3
    offset_rate: float = 1e-3
    seed: int = 0
    device: str = "auto"

    def learning(self) -> LearnConfig:
        """LD3's numbers for latent models (notes section 2)."""
        return LearnConfig(
            steps=intervals(self.solver, self.nfe),
            mode="time",
            soft=self.soft,
            decoupled=self.decoupled,
            grid_rounds=self.grid_rounds,
            both_rounds=self.both_rounds,
            batch=self.batch,
            held_batch=4,
            rate=self.rate,
            offset_rate=self.offset_rate,
            recompute=self.recompute,
            seed=self.seed,
        )


def check(config: TimesTraining) -> None:
    """UserError on settings that make no sense."""
    fault = solver_fault(config.solver, config.order, config.nfe)
    if fault:
        raise UserError(fault)
    if config.nfe > MOST:
        raise UserError(f"{config.nfe} network calls are more than the {MOST} that play offers; give fewer.")
    if config.minutes < 0:
        raise UserError(f"{config.minutes:g} minutes are no time; give more, or 0 to learn to the end.")
    if intervals(config.solver, config.nfe) < 2:
        raise UserError(f"{config.nfe} calls of {config.solver} are one interval, with no time to learn; give more.")
    if config.distance not in DISTANCES:
        raise UserError(f"There is no distance {config.distance!r}{did_you_mean(config.distance, DISTANCES)}.")
    for name, least in (("pairs", 1), ("held", 1), ("history", 1), ("batch", 1), ("teacher_steps", config.nfe + 1)):
        if getattr(config, name) < least:
            raise UserError(f"{name} = {getattr(config, name)} is too few; give at least {least}.")
    if Path(config.out).is_dir():
        raise UserError(f"--out {config.out} is a folder; give the name of a file.")


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
    steps, few = intervals(config.solver, config.nfe), torch.arange(min(4, len(train.noise)))
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
    """One opened run: the learner, its pairs' latents by part (to be saved), and where it stands."""

    config: TimesTraining
    weights: Weights
    learner: Learner
    latents: dict[str, Tensor]
    losses: dict[str, float]  # of the hand-made grids
    budget: Budget
    folder: Path

    @property
    def resume(self) -> Path:
        """The file that the same command goes on from."""
        return self.folder / "resume.safetensors"

    def save(self) -> None:
        """Everything that the run depends on."""
        tensors, numbers = self.learner.state()
        tensors |= {f"latents.{name}": kept for name, kept in self.latents.items()}
        meta = {"settings": settings_of(self.config), "weights": self.weights.hash, "numbers": numbers}
        save_tensors(self.resume, tensors, meta | {"losses": self.losses, "seconds": self.budget.spent})


def settings_of(config: TimesTraining) -> dict[str, Any]:
    """The settings that a resumed run must share."""
    return {name: value for name, value in asdict(config).items() if name not in (*FREE, "weights")}


def run_folder(config: TimesTraining, name: str) -> Path:
    """Where the run's state lies: --run, or a folder named by the weights and the sampler."""
    return Path(config.run or f"runs/times/{name[:8]}-{config.solver}-{config.order}-{config.nfe}-{config.distance}")


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
        made[use] = make_context(clips, weights.dit, count, config.history, config.seed, use)
    return made


def open_times(config: TimesTraining, say: Callable[[str], None]) -> TimesRun:
    """Start a run, or continue the one in its folder. UserError on settings or files that do not fit."""
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
        if kept is None:
            say(f"{use}: {context.count} latent frames in {config.teacher_steps} calls each")
            times = teacher_times(config.teacher_steps)
            latents[use] = solve_targets(weights.dit, context, dpm_solver_pp(2), times)
        else:
            latents[use] = kept[0].pop(f"latents.{use}")
        eyes = Eyes(weights.tokenizer, context.batch) if config.distance == "lpips" else None
        pairs[use] = make_pairs(weights.dit, context, latents[use], eyes)
    return _begin(config, weights, distance, pairs, latents, folder, kept)


def _begin(
    config: TimesTraining,
    weights: Weights,
    distance: Distance,
    pairs: dict[str, Pairs],
    latents: dict[str, Tensor],
    folder: Path,
    kept: tuple[dict[str, Tensor], dict[str, Any]] | None,
) -> TimesRun:
    solver, learning = solver_named(config.solver, config.order), config.learning()
    grids = hand_made(learning.steps, weights.config.shift)
    if kept is None and config.fitted:
        grids |= fitted(config, pairs["train"], solver)

    def learner_from(start: Tensor | None) -> Learner:
        return Learner(learning, FLOW, solver, distance, pairs["train"], pairs["held"], start)

    if kept is None:
        losses = {name: learner_from(times).validate() for name, times in grids.items()}
        learner, seconds = learner_from(grids[min(losses, key=lambda name: losses[name])]), 0.0
    else:
        learner, losses, seconds = learner_from(None), kept[1]["losses"], float(kept[1]["seconds"])
        learner.restore(kept[0], kept[1]["numbers"])
    rounds = config.grid_rounds + (config.both_rounds if config.decoupled else 0)
    budget = Budget(rounds * -(-config.pairs // config.batch), config.minutes)
    budget.resume(seconds)
    return TimesRun(config, weights, learner, latents, losses, budget, folder)


@torch.no_grad()
def unmoved_loss(learner: Learner, grid: tuple[Tensor, Tensor]) -> float:
    """Validation loss of a grid from the noises as they were drawn, which hand-made grids are judged by too."""
    noise = learner.pairs["held"].noise
    parts = torch.arange(len(noise)).split(learner.config.held_batch)
    return float(torch.cat([learner.distances("held", part, noise[part], grid) for part in parts]).mean())


def finish(run: TimesRun) -> LearnedSampler:
    """Write the best grid so far; UserError when the run broke off."""
    learner, config = run.learner, run.config
    times, told = learner.grid(best=True)
    losses = {**run.losses, "learned": unmoved_loss(learner, (times, told))}
    sampler = Sampler(config.solver, config.order, times, told)
    learned = LearnedSampler(run.weights.hash, sampler, config.distance, losses, learner.progress.losses)
    save_sampler(Path(config.out), learned)
    if learner.fault:
        run.resume.unlink(missing_ok=True)
        raise UserError(
            f"{learner.fault}; {config.out} holds the best grid before that, lower --set rate and run again."
        )
    return learned


def train(config: TimesTraining, quiet: bool = False, save_every: int = 5) -> LearnedSampler:
    """Learn until the rounds or the minutes end, and write --out; the same command goes on where it was stopped."""
    run = open_times(config, (lambda text: None) if quiet else print)
    bar, updates = Progress("learn-times", quiet), len(run.learner.progress.losses)
    try:
        while not run.learner.done and run.budget.progress(updates) < 1.0:
            run.learner.advance()
            updates += 1
            at = run.learner.progress
            bar.show(run.budget.progress(updates), loss=at.losses[-1][1], best=at.best)
            if updates % save_every == 0:
                run.save()
    except KeyboardInterrupt:
        run.save()
        raise
    run.save()
    bar.close()
    return finish(run)
