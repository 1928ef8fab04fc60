"""The decoder learns to show what the generator makes: latents that are guesses, a little soft and a little off.

Shape key: B batch, F latent frames, C channels, H, W latent size, T video frames, Y, X picture size.
The tokenizer's decoder was trained on latents of real pictures. What plays are one-step guesses after guesses; here it
is trained on both, against the real pictures, by L1, LPIPS and patch critics of two sizes. The encoder stays as it is,
so latents and everything learned on them stay good. The transformer may learn with it (`maker`): its guesses are then
judged as pictures, after histories of its own, which two cores afford where stage 3's rollouts are too dear. Ours; the
paper keeps its decoder and judges latents.

Does not know of time steps, solvers or play.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from controls.errors import UserError
from generator.checkpoint import config_from_dict, read_manifest
from generator.data.clips import Dataset
from generator.data.latents import Batch
from generator.model.dit import CausalDiT
from generator.model.ranks import launched
from generator.tokenizer.blocks import LAST
from generator.tokenizer.reproject import Views
from generator.tokenizer.vae import VideoVAE
from generator.training.adaptation import adaptation_loss
from generator.training.critics import Critics, deceiving, update_critics
from generator.training.dit_run import (
    DiTRun,
    DiTTraining,
    finish_step,
    hidden_and_plain,
    keep,
    open_run,
    save_run,
)
from generator.training.ema import Ema
from generator.training.helpers import (
    Optimisers,
    Progress,
    load_optimisers,
    rate_at,
    set_rate,
    split_optimisers,
    step_generator,
    step_rng,
    update,
)
from generator.training.histories import OwnHistories
from generator.training.losses import some_pictures
from generator.training.perceptual import Lpips
from generator.training.refining import RefinerRun, cut, open_refiner, refined
from generator.training.resident import Recorded


@dataclass(frozen=True)
class DecoderTraining(DiTTraining):
    """Settings. `own` is the share of steps on the generator's guesses after histories of its own, up to `rounds` steps
    from the truth, each used about `reuse` times; the others are on latents of real pictures. `crop` is in latent
    cells, at most. `critic` is the critics' share of the gradient at the decoder's last layer, `own_critic` the same
    where latents are guesses (0: none looks); `penalty` weighs how much their logits change when both pictures are
    moved by `sigma` noise, on every `penalty_every`-th step that much more (0: critics may win by as much as they can).
    `maker` and `maker_muon` are the transformer's rates (0: it rests),
    `anchor` the weight of its squared error at t = 1, which is what plays, and `teach` that of its squared error at
    other t, shifted by `shift`: with it the many-step teacher learns on, else it is forgotten. `resident` keeps all
    pictures, decoded, on the device too. `refine` gives the world a refiner of that width, which learns with the
    decoder, as one that is there does, at rates of its own; what is judged after own histories is then what it shows.
    """

    data: str = "runs/data/halls"
    batch: int = 4
    frames: int = 8
    lr: float = 2e-4
    muon: float = 5e-4
    ema: float = 0.99
    own: float = 0.75
    rounds: int = 4
    reuse: int = 4
    crop: tuple[int, int] = (6, 8)
    pictures: int = 12
    l1: float = 1.0
    lpips: float = 0.2
    critic: float = 0.3
    own_critic: float = 0.8
    critic_lr: float = 2e-4
    penalty: float = 0.0
    sigma: float = 0.05
    penalty_every: int = 1
    maker: float = 0.0
    maker_muon: float = 0.0
    anchor: float = 0.5
    teach: float = 0.0
    refine: int = 0
    refine_lr: float = 1e-3
    refine_muon: float = 2e-3


@dataclass
class DecoderRun:
    """A run whose tokenizer and parallax hold the averaged decoder and refiner, and what is trained: `vae`'s decoder,
    the refiner, critics, transformer.
    """

    run: DiTRun
    config: DecoderTraining
    recorded: Recorded
    vae: VideoVAE
    critics: Critics
    ema: Ema
    optimisers: Optimisers
    critic_optimisers: Optimisers
    lpips: Lpips
    histories: OwnHistories
    refining: RefinerRun | None = None

    def average(self) -> None:
        """Give the run the averaged decoder and refiner."""
        self.ema.copy_to(self.run.tokenizer.decoder)
        if self.refining is not None:
            self.refining.average()

    def state(self) -> dict[str, object]:
        """What a resume needs beside the transformer's."""
        optimisers = [o.state_dict() for o in self.optimisers + self.critic_optimisers]
        return (self.refining.state() if self.refining is not None else {}) | {
            "decoder": self.vae.decoder.state_dict(),
            "decoder_ema": self.ema.state(),
            "critics": self.critics.state_dict(),
            "decoder_optimisers": optimisers,
        }


def train(config: DecoderTraining, folder: Path, quiet: bool = False) -> DiTRun:
    """Train the decoder of `config.start` until the budget ends; the same command resumes. Writes a snapshot."""
    made = open_decoder_run(config, folder)
    run, bar = made.run, Progress("decoder", quiet)
    try:
        while (progress := run.budget.progress(run.step)) < 1.0:
            set_rate(made.optimisers + run.optimisers, rate_at(progress, run.step, config.warmup, config.hold))
            finish_step(run, **train_step(made))
            made.average()
            bar.show(progress, step=run.step)
            keep(run, teacher=False)
    except KeyboardInterrupt:
        save_run(run)
        raise
    keep(run, teacher=False, done=True)
    bar.close()
    return run


def open_decoder_run(config: DecoderTraining, folder: Path) -> DecoderRun:
    """Build what a run needs and continue from its resume state; UserError on settings that do not fit."""
    if not config.start:
        raise UserError("The decoder stage shows what a world generates; give the world with --start DIR.")
    if launched() is not None:
        raise UserError("The decoder stage keeps own histories in one process; start it without torchrun.")
    run = open_run(config, folder, "decoder", maker_optimisers)
    if min(config.crop) < 1:
        raise UserError(f"A crop of {config.crop} latent cells is none; give --set crop=6,8 or so.")
    run.dit.requires_grad_(bool(run.optimisers))
    stage = config_from_dict(read_manifest(Path(config.start))["config"]).stage
    run.world = replace(run.world, stage=stage)  # the transformer is still that stage's
    vae = copy.deepcopy(run.tokenizer).to(memory_format=LAST)
    vae.decoder.train().requires_grad_(True)
    torch.backends.cudnn.benchmark = True  # every step has the same shapes
    torch.manual_seed(config.seed)
    critics = Critics().to(run.device, memory_format=LAST)
    data = Dataset.open(config.data)
    if data.meta != run.clips.meta:
        raise UserError(
            f"The latents in {config.latents!r} are not those of {config.data!r}; give both of one data set."
        )
    refining = open_refiner(run, config.refine, config.seed, config.ema)
    named, muon = vae.decoder.named_parameters(), config.muon or None
    recorded = Recorded(data, data.select("train"), run.device, config.resident)
    made = DecoderRun(
        run, config, recorded, vae, critics, Ema(vae.decoder, config.ema),
        split_optimisers(named, config.lr, muon, 0.0, lambda n: "stem" in n or "head" in n)
        + (refining.optimisers(config.refine_lr, config.refine_muon) if refining else []),
        split_optimisers(critics.named_parameters(), config.critic_lr, betas=(0.5, 0.99)),
        Lpips().to(run.device),
        OwnHistories(run, config.rounds, config.reuse, staggered=True, whole=refining is not None),
        refining,
    )  # fmt: skip
    if run.resumed:
        vae.decoder.load_state_dict(run.resumed["decoder"])
        made.ema.load(run.resumed["decoder_ema"])
        if refining is not None:
            refining.load(run.resumed)
        critics.load_state_dict(run.resumed["critics"])
        load_optimisers(made.optimisers + made.critic_optimisers, run.resumed["decoder_optimisers"])
        made.average()
    run.extra = made.state
    return made


def maker_optimisers(config: DecoderTraining, dit: CausalDiT) -> Optimisers:
    """The transformer's; none where it rests."""
    if not config.maker:
        return []
    return hidden_and_plain(replace(config, lr=config.maker, muon=config.maker_muon), dit)


def train_step(made: DecoderRun) -> dict[str, float]:
    """One update of the decoder, of the transformer where it learns too, and of the critics; returns the figures."""
    run, config = made.run, made.config
    choice, generator = step_rng(config.seed, run.step, "choice"), step_generator(config.seed, run.step, "pictures")
    own = choice.random() < config.own
    with run.autocast():
        latents, video, views, errors = draw(made, choice, own)
        shown = made.vae.decode(made.vae.denormalise(latents)).float()
        if made.refining is not None and views is not None:
            shown = refined(made.refining.refiner, shown, views)
        real, fake = some_pictures(video, shown, config.pictures, generator)
        parts = {"l1": (shown - video).abs().mean(), "lpips": made.lpips(fake, real).float().mean()}
        rebuilt = config.l1 * parts["l1"] + config.lpips * parts["lpips"]
        share, loss = config.own_critic if own else config.critic, rebuilt
        if share:
            last = made.vae.decoder.head.conv.weight
            parts["deceit"], loss = deceiving(made.critics, real, fake, rebuilt, last, share)
        for name, error in errors.items():
            parts[name], loss = error, loss + {"error": config.anchor, "teacher": config.teach}[name] * error
    loss.backward()
    parts["gradient"] = nn.utils.clip_grad_norm_(made.vae.decoder.parameters(), config.clip)
    if made.refining is not None and own:
        parts["refiner_gradient"] = nn.utils.clip_grad_norm_(made.refining.refiner.parameters(), config.clip)
    update(made.optimisers)
    made.ema.update(made.vae.decoder)
    if made.refining is not None and own:
        made.refining.ema.update(made.refining.refiner)
    if own and run.optimisers:
        parts["maker_gradient"] = nn.utils.clip_grad_norm_(run.dit.parameters(), config.clip)
        update(run.optimisers)
        run.ema.update(run.dit)
    if share:
        parts |= update_critics(made.critics, made.critic_optimisers, config, run.step, real, fake.detach())
    return {f"own_{name}" if own else name: value.item() for name, value in parts.items()}


def draw(
    made: DecoderRun, choice: np.random.Generator, own: bool
) -> tuple[Tensor, Tensor, Views | None, dict[str, Tensor]]:
    """Crops of latents (B, 1 + F, C, H, W), guessed or true after the first, of their real pictures in [-1, 1], and of
    the views that guesses follow, if a refiner wants them.

    Also, with a gradient, where the transformer learns too, the squared `error` of the guesses, and that of the
    `teacher` at other t.
    """
    run, config, errors, views = made.run, made.config, {}, None
    if own:
        history = made.histories.history(choice)
        batch, recycled = history.batch, history.recycled
        views = history.views if made.refining is not None else None
        noise = torch.randn(batch.target.shape, generator=step_generator(config.seed, run.step, "noise"))
        noise = noise.to(run.device)
        with torch.set_grad_enabled(bool(run.optimisers)):
            t = torch.ones(len(noise), device=run.device)
            later = noise - run.dit(noise, recycled, t, batch.actions, batch.rays).float()
        if run.optimisers:
            errors["error"] = nnf.mse_loss(later, batch.target)
        if run.optimisers and config.teach:
            generator = step_generator(config.seed, run.step, "teacher", run.device.type)
            errors["teacher"] = adaptation_loss(run.dit, batch, run.world.shift, 0.0, generator, recycled)
    else:
        batch = run.draw("true")
        later = batch.target
    latents = torch.cat([batch.first[:, None], later], dim=1)
    video = real_pictures(made, batch, latents.shape[1])
    return *cut(latents, video, config.crop, made.vae.config.space, choice, views), errors


def real_pictures(made: DecoderRun, batch: Batch, count: int) -> Tensor:
    """The recorded pictures (B, 1 + ticks * (count - 1), 3, Y, X) that a batch's first `count` latents stand for."""
    ticks = made.run.clips.ticks
    return torch.stack([made.recorded(i, start * ticks, 1 + ticks * (count - 1)) for i, start in batch.places])
