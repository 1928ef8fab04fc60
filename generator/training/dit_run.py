"""What the stages that train a CausalDiT on latents share: the opened run, its snapshots and its contact sheets.

Shape key: B batch, F latent frames, C channels, H, W latent size.

Does not know any stage's loss.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from controls.errors import UserError
from generator.checkpoint import WorldConfig, save_weights
from generator.data.latents import Batch, LatentClips, parallax_hash, tokenizer_hash
from generator.model.dit import CausalDiT
from generator.precision import in_half
from generator.rollout import open_eye, rollout, teacher_rollout
from generator.samplers.sampler import shifted_sampler
from generator.tokenizer.parallax import Parallax
from generator.tokenizer.reproject import Reprojector
from generator.tokenizer.vae import VideoVAE
from generator.training.begin import open_model, open_parallax
from generator.training.ema import Ema
from generator.training.helpers import (
    Budget,
    Optimisers,
    load_optimisers,
    make_folder,
    pick_device,
    split_optimisers,
    step_rng,
)
from generator.training.metrics import Metrics, contact_sheet, draw_metrics
from generator.training.parallel_run import join_team, load_alone, load_shared, save_state
from generator.training.parallel_tensors import wholes

if TYPE_CHECKING:
    from generator.training.parallel import Team

PLAIN = (
    "embed.",
    "out.",
    "carry.",
    "conditioner.",
    "text_in.",
    "offsets",
)  # AdamW; Muon has the blocks' matrices


@dataclass(frozen=True)
class DiTTraining:
    """Settings that every CausalDiT stage has. Rates are peaks; `minutes` counts over all starts of the run.

    `window` (past latent frames that are seen) is the preset's, or that of the weights begun from, unless given.
    `recycle` false takes the recycled frames away from all but the first (the paper's ablation). `resident` keeps all
    latents on the device. Of several processes (torchrun), `context` share each clip's tokens and heads.
    """

    latents: str = "runs/latents/halls"
    tokenizer: str = "runs/tokenizer"
    parallax: str = ""
    start: str = ""
    preset: str = "pocket"
    minutes: float = 0.0
    steps: int = 0
    batch: int = 5
    context: int = 1
    frames: int = 12
    window: int = 0
    recycle: bool = True
    lr: float = 1e-3
    muon: float = 2e-3
    decay: float = 0.01
    hold: float = 0.3
    warmup: int = 100
    ema: float = 0.999
    clip: float = 1.0
    shift: float = 0.0
    history_noise: float = 0.3
    resident: bool = False
    seed: int = 0
    device: str = "auto"
    bf16: bool = True
    compile: bool = False
    log_every: int = 10
    snapshot_minutes: float = 4.0
    sheet_minutes: float = 8.0


@dataclass
class DiTRun:
    """One opened run: networks, optimisers, data, and where it stands."""

    config: DiTTraining
    folder: Path
    device: torch.device
    tokenizer: VideoVAE
    world: WorldConfig
    dit: CausalDiT
    ema: Ema
    optimisers: Optimisers
    clips: LatentClips
    budget: Budget
    metrics: Metrics | None
    parallax: Parallax | None = None
    team: Team | None = None  # the processes that train together, when there are several
    step: int = 0
    saved_at: float = 0.0
    drawn_at: float = 0.0
    resumed: dict[str, Any] | None = None  # what a stage had added to the resume state that the run continues from
    extra: Callable[[], dict[str, Any]] = dict  # what a stage adds to its resume state

    @property
    def own(self) -> slice:
        """This process's clips of a batch."""
        return self.team.own(self.config.batch) if self.team else slice(0, self.config.batch)

    @property
    def leads(self) -> bool:
        """Whether this process writes what is written once."""
        return self.team is None or self.team.leads

    def progress(self) -> float:
        """How much of the budget is spent, 0 to 1, the same number in every process."""
        progress = self.budget.progress(self.step)
        return self.team.lead(progress) if self.team else progress

    def mean(self, figures: dict[str, float]) -> dict[str, float]:
        """Figures of all clips from those of this process's."""
        return self.team.mean(figures) if self.team else figures

    def gathered(self) -> contextlib.AbstractContextManager[None]:
        """The whole network in this process within the block, as rollouts need it."""
        return self.team.gathered(self.dit) if self.team else contextlib.nullcontext()

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """bf16 autocast when the run uses it and the device has it."""
        return in_half(self.device.type, self.config.bf16)

    def draw(self, use: str = "batch", frames: int = 0, count: int = 0) -> Batch:
        """The batch of the present step, of `frames` latent frames and `count` clips (0: the setting's); derives from
        (seed, step).
        """
        c = self.config
        batch = self.clips.draw(count or c.batch, frames or c.frames, step_rng(c.seed, self.step, use))
        if not self.dit.config.reproject:  # the same latents serve models that recycle no reprojection
            batch.ahead = batch.pace = None
        return batch.to(self.device)


def hidden_and_plain(config: DiTTraining, dit: CausalDiT) -> Optimisers:
    """Muon for the blocks' matrices, AdamW for the rest."""
    return split_optimisers(
        dit.named_parameters(),
        config.lr,
        config.muon or None,
        config.decay,
        lambda name: name.startswith(PLAIN) or name.endswith("offsets"),
    )


def open_run(
    config: DiTTraining,
    folder: Path,
    stage: str,
    make_optimisers: Callable[[Any, CausalDiT], Optimisers] = hidden_and_plain,
) -> DiTRun:
    """Start a run, or continue the one in `folder`; UserError on settings or files that do not fit."""
    make_folder(folder)
    device = pick_device(config.device)
    clips = LatentClips(Path(config.latents), "train")
    parallax = open_parallax(config)
    tokenizer, dit, shift = open_model(config, clips, parallax)
    parallax = parallax if dit.config.reproject else None
    check_fit(config, clips, tokenizer, dit, parallax)
    if config.resident:
        clips.reside(device)
    clips.tell(Reprojector(tokenizer, clips.meta["hfov"], parallax) if parallax else None)
    tokenizer, dit = tokenizer.to(device).eval().requires_grad_(False), dit.to(device)
    world = WorldConfig(
        preset=config.preset,
        picture=(clips.meta["width"], clips.meta["height"]),
        hfov=clips.meta["hfov"],
        fps=clips.meta["fps"],
        shift=shift,
        stage=stage,
        world=clips.meta["world"],
        tokenizer=tokenizer.config,
        dit=dit.config,
        action_spec=clips.spec,
        parallax=parallax.config if parallax else None,
    )
    budget, team = Budget(config.steps, config.minutes), join_team(config, stage, device, dit.config)
    if team:
        team.shard(dit)
    run = DiTRun(
        config, folder, device, tokenizer, world, dit, Ema(dit, config.ema), make_optimisers(config, dit), clips,
        budget, Metrics(folder) if team is None or team.leads else None, parallax, team,
    )  # fmt: skip
    _resume(run)
    if run.leads:
        (folder / "training.json").write_text(json.dumps(asdict(config), indent=1))
    return run


def check_fit(
    config: DiTTraining, clips: LatentClips, tokenizer: VideoVAE, dit: CausalDiT, parallax: Parallax | None
) -> None:
    """UserError when latents, tokenizer, parallax, model and window length do not belong together."""
    if tokenizer_hash(tokenizer) != clips.tokenizer:
        origin = config.start or config.tokenizer
        raise UserError(
            f"The latents in {config.latents!r} were encoded with another tokenizer than that of {origin!r}; "
            "encode the clips again with run.py train latents."
        )
    shape, c = clips.clips[0]["latents"].shape, dit.config
    if shape[1:] != (c.latent_channels, c.height, c.width) or clips.spec.fields != c.action_fields:
        raise UserError(
            f"The latents in {config.latents!r} are {shape[1:]} with {clips.spec.fields} action fields, the model is "
            f"{(c.latent_channels, c.height, c.width)} with {c.action_fields}; choose the preset of both."
        )
    if c.reproject and not all("ahead" in clip for clip in clips.clips):
        raise UserError(
            f"The latents in {config.latents!r} hold no reprojected frames, which this model recycles; encode the "
            "clips again with run.py train latents and the same preset."
        )
    if c.reproject and {parallax_hash(parallax)} != clips.parallaxes:
        raise UserError(
            f"The latents in {config.latents!r} were encoded with another parallax than that of "
            f"{config.parallax or config.start!r}; encode the clips again with run.py train latents --parallax DIR."
        )
    shortest = min(len(clip["latents"]) for clip in clips.clips) - 1
    if config.frames > shortest:
        raise UserError(
            f"Windows of {config.frames} latent frames do not fit clips of {shortest}; give --set frames={shortest}."
        )


def _resume(run: DiTRun) -> None:
    state = load_shared(run) if run.team else load_alone(run.folder)
    if state is None:
        return
    try:
        if not run.team:
            run.dit.load_state_dict(state["model"])
            run.ema.load(state["ema"])
            load_optimisers(run.optimisers, state["optimisers"])
    except (RuntimeError, KeyError, ValueError) as error:
        raise UserError(
            f"{str(run.folder)!r} holds a run of another model; choose another folder with --run, or remove it."
        ) from error
    run.step = int(state["step"])
    run.budget.resume(float(state["seconds"]))
    if run.leads:
        run.metrics = Metrics(run.folder, run.step)
    run.resumed = {name: value for name, value in state.items() if name not in ("model", "ema", "optimisers")}


def finish_step(run: DiTRun, **figures: float) -> None:
    """Count the step and, every `log_every`, write its figures."""
    run.step += 1
    figures = run.mean(figures)
    if run.metrics and (run.step % run.config.log_every == 0 or run.step == 1):
        run.metrics.add(run.step, **figures, minutes=run.budget.spent / 60)


def keep(run: DiTRun, teacher: bool, done: bool = False) -> None:
    """Save and draw when their time has come, and at the end; `teacher` draws with several evaluations a frame."""
    now = time.perf_counter()
    if run.team:
        now = run.team.lead(now)
    if run.saved_at == 0.0:
        run.saved_at = run.drawn_at = now
    if done or now - run.saved_at > 60 * run.config.snapshot_minutes:
        save_run(run)
        run.saved_at = now if run.team else time.perf_counter()
    if done or now - run.drawn_at > 60 * run.config.sheet_minutes:
        draw_sheet(run, teacher)
        if run.leads:
            draw_metrics(run.folder)
        run.drawn_at = now if run.team else time.perf_counter()


def save_run(run: DiTRun) -> None:
    """Write the EMA snapshot (a weights folder) and the resume state."""
    notes = {
        "step": run.step,
        "seconds": run.budget.spent,
        "training": asdict(run.config),
    }
    weights = wholes(run.ema.weights)
    if run.leads:
        save_weights(run.folder / "snapshot", run.world, run.tokenizer, weights, notes, run.parallax)
    save_state(run, {"step": run.step, "seconds": run.budget.spent, **run.extra()})


def save_interrupted(run: DiTRun) -> None:
    """Save what a run has when it is stopped; several processes cannot, as each stands somewhere else in its step."""
    if run.team is None:
        save_run(run)


def corrupt_history(recycled: Tensor, level: float, generator: torch.Generator, told: int = 0) -> Tensor:
    """Recycled frames (B, F, C, H, W) with noise of a random strength up to `level` on half of the clips.

    The last `told` channels are of the place and stay as they are.

    Ours: the paper recycles clean frames and leaves robustness to stage 3; GameNGen found noise critical.
    """
    if not level:
        return recycled
    device = recycled.device
    shape = (recycled.shape[0], recycled.shape[1], 1, 1, 1)
    strength = level * torch.rand(shape, generator=generator, device=device)
    chosen = torch.rand((recycled.shape[0], 1, 1, 1, 1), generator=generator, device=device) < 0.5
    noise = torch.randn(recycled.shape, generator=generator, device=device)
    noise[:, :, recycled.shape[2] - told :] = 0
    return recycled + chosen * strength * noise


@torch.no_grad()
def draw_sheet(run: DiTRun, teacher: bool, clips: int = 3, frames: int = 16) -> None:
    """Rollouts of the EMA weights under real actions beside the truth: pairs of rows, real above generated."""
    weights = wholes(run.ema.weights)
    if not run.leads:
        return
    splits = {clip["split"] for clip in run.clips.meta["clips"]}
    held = LatentClips(Path(run.config.latents), "held_seed") if "held_seed" in splits else run.clips
    held.tell(run.clips.turn)
    frames = min(frames, len(held.clips[0]["latents"]) - 1)
    batch = held.gather([(i % len(held.clips), 0) for i in range(clips)], frames).to(run.device)
    model = CausalDiT(run.dit.config).to(run.device).eval()
    model.load_state_dict(weights)
    eye = open_eye(model, run.tokenizer, run.world.hfov, run.parallax)
    if teacher:
        sampler = shifted_sampler("euler", 1, 8, 1.0)
        made = teacher_rollout(model, batch.first, batch, run.config.seed, sampler, eye)
    else:
        made = rollout(model, batch.first, batch, run.config.seed, eye)
    rows = []
    for index in range(clips):
        for latents in (batch.target[index], made[index]):
            rows.append(pictures(run.tokenizer, torch.cat([batch.first[index, None], latents]))[::8])
    contact_sheet(run.folder / f"sheet-{run.step:06d}.png", rows)


@torch.no_grad()
def pictures(tokenizer: VideoVAE, latents: Tensor) -> npt.NDArray[np.uint8]:
    """Normalised latents (1 + F, C, H, W) to uint8 (T, Y, X, 3)."""
    video = tokenizer.decode(tokenizer.denormalise(latents[None]))[0].float()
    return ((video.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
