"""The refiner alone learns on: what it is given on the world's own walks, recorded once or more, and what was there.

Shape key: n pictures, Y, X video size, y, x a crop of it.
The decoder stage teaches decoder, transformer and refiner at once and pays for all of them at every step. Here the rest
of the world walks along recorded poses and is kept (refiner_views.py); the refiner, 0.1 M parameters, then learns from
crops of that, twenty times as many a minute, by L1, LPIPS and held-back patch critics. `recordings` new ones on the way
show it what its own choices come to when they are moved again and again. Transformer, decoder and many-step teacher
stay as they are, so learned times stay good, too. Ours.

Does not know of latents, time steps or play.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from controls.errors import UserError
from generator.checkpoint import Weights, load_weights, save_weights
from generator.data.clips import Dataset
from generator.model.sampler_file import load_sampler, save_sampler
from generator.precision import in_half
from generator.tokenizer.camera_rays import check_samples
from generator.tokenizer.refine import Refiner
from generator.training.critics import Critics, deceiving, update_critics
from generator.training.helpers import (
    Budget,
    Optimisers,
    Progress,
    load_optimisers,
    load_resume,
    make_folder,
    pick_device,
    rate_at,
    save_resume,
    set_rate,
    split_optimisers,
    step_rng,
    step_seed,
    update,
)
from generator.training.metrics import Metrics, contact_sheet, draw_metrics
from generator.training.perceptual import Lpips
from generator.training.refiner_views import Views, long_enough, record, split
from generator.training.refining import RefinerRun, open_alone
from generator.training.windows import to_frames

Frames = npt.NDArray[np.uint8]
ALIGNED = 8  # pixels that crops begin at whole numbers of
SMALLEST = 32  # pixels of a crop's side, for the critic of small copies
SHOWN = 6  # pictures of a sheet
JUDGED = 48  # held-out pictures


@dataclass(frozen=True)
class RefinerTraining:
    """Settings. Each of `recordings` walks `walks` clips for `frames` latent frames and keeps `kept` pictures of each;
    they are spread over the run, and `recent` is the share of a batch that the newest of them has. `critic` is the
    critics' share of the gradient at the refiner's last layer (0: none looks); `penalty`, `sigma` and `penalty_every`
    are as in the decoder stage. `crop` is in pixels, rows and columns; `together` walks go at once, for a GPU. With
    `samples` the map's views get so many samples a pixel (0: as the world has them).
    """

    data: str = "runs/data/halls"
    start: str = ""
    minutes: float = 0.0
    steps: int = 0
    walks: int = 120
    held: int = 8
    frames: int = 14
    kept: int = 2
    together: int = 1
    recordings: int = 2
    recent: float = 0.7
    batch: int = 8
    crop: tuple[int, int] = (96, 128)
    samples: int = 0
    lr: float = 5e-4
    muon: float = 1e-3
    warmup: int = 30
    hold: float = 0.5
    ema: float = 0.995
    l1: float = 1.0
    lpips: float = 1.0
    critic: float = 0.5
    critic_lr: float = 2e-4
    penalty: float = 6.0
    sigma: float = 0.05
    penalty_every: int = 2
    seed: int = 0
    device: str = "auto"
    bf16: bool = True
    log_every: int = 20
    snapshot_minutes: float = 4.0


@dataclass
class RefinerStage:
    """One opened run: the world, whose refiner is the averaged one, what learns, and where it stands."""

    config: RefinerTraining
    folder: Path
    weights: Weights
    data: Dataset
    optimisers: Optimisers
    critics: Critics
    critic_optimisers: Optimisers
    lpips: Lpips
    budget: Budget
    metrics: Metrics
    alone: RefinerRun
    step: int = 0
    saved_at: float = 0.0

    def __post_init__(self) -> None:
        self.views: list[Views] = []
        self.clips = long_enough(self.data, "train", self.config.frames)

    @property
    def device(self) -> torch.device:
        """Where it learns."""
        return self.weights.dit.embed.weight.device


def train(config: RefinerTraining, folder: Path, quiet: bool = False) -> Weights:
    """Train the refiner of `config.start` until the budget ends; the same command resumes. Writes a snapshot."""
    run, figures = open_stage(config, folder), {}
    bar = Progress("refiner", quiet)
    try:
        while (progress := run.budget.progress(run.step)) < 1.0:
            while len(run.views) < min(config.recordings, 1 + int(progress * config.recordings)):
                walk(run, len(run.views), bar)
            figures = train_step(run, progress)
            run.step += 1
            if run.step % config.log_every == 0:
                run.metrics.add(run.step, minutes=run.budget.spent / 60, **figures)
            bar.show(progress, step=run.step, **figures)
            if run.budget.spent - run.saved_at > 60 * config.snapshot_minutes:
                save(run)
    except KeyboardInterrupt:
        save(run)
        raise
    bar.close()
    save(run)
    return run.weights


def open_stage(config: RefinerTraining, folder: Path) -> RefinerStage:
    """Build what a run needs and continue from its resume state; UserError on settings that do not fit."""
    weights, refiner = _world(config)
    data, device = Dataset.open(Path(config.data)), pick_device(config.device)
    if data.size != weights.config.picture or data.spec != weights.config.action_spec:
        raise UserError(
            f"The recordings in {config.data!r} have other pictures or keys than the world {config.start!r}; give some "
            "of that world."
        )
    make_folder(folder)
    for part in (weights.tokenizer, weights.dit, weights.parallax):
        assert part is not None
        part.to(device).requires_grad_(False)
    resumed = load_resume(folder / "resume.safetensors")
    if resumed is not None and resumed["start"] != weights.hash:
        raise UserError(f"The run in {str(folder)!r} began from other weights; give those, or another --run.")
    alone = open_alone(refiner, config.ema)
    torch.manual_seed(config.seed)
    critics = Critics().to(device)
    run = RefinerStage(
        config, folder, weights, data, alone.optimisers(config.lr, config.muon), critics,
        split_optimisers(critics.named_parameters(), config.critic_lr, betas=(0.5, 0.99)),
        Lpips().to(device), Budget(config.steps, config.minutes),
        Metrics(folder, resumed["step"] if resumed else 0), alone,
    )  # fmt: skip
    if not run.clips:
        raise UserError(f"No training clip of {config.data!r} has {config.frames} latent frames; lower --set frames.")
    if resumed is not None:
        run.step = int(resumed["step"])
        run.budget.resume(float(resumed["seconds"]))
        run.saved_at = run.budget.spent
        alone.load(resumed)
        alone.average()
        critics.load_state_dict(resumed["critics"])
        load_optimisers(run.optimisers + run.critic_optimisers, resumed["optimisers"])
    return run


def _world(config: RefinerTraining) -> tuple[Weights, Refiner]:
    """The world to start from and its refiner; UserError when there is none that could learn alone."""
    if min(config.walks, config.frames, config.kept, config.batch, config.together, config.recordings) < 1:
        raise UserError("walks, frames, kept, batch, together and recordings are 1 or more; check the settings.")
    if not config.start:
        raise UserError("The refiner stage goes on with the refiner of a world; give the world with --start DIR.")
    weights = load_weights(Path(config.start))
    if weights.parallax is None or weights.parallax.refiner is None or weights.parallax.place is None:
        raise UserError(
            f"The world {config.start!r} is not one place or has no refiner, and here it walks along recorded poses; "
            "give one that the decoder stage has given a refiner (--set refine=48)."
        )
    if config.samples:
        check_samples(config.samples)
        weights.parallax.config = replace(weights.parallax.config, samples=config.samples)
        weights.config = replace(weights.config, parallax=weights.parallax.config)
    ticks, (high, wide) = weights.config.action_spec.ticks, config.crop
    if not 1 <= config.kept <= ticks:
        raise UserError(f"kept = {config.kept} is 1 to {ticks}, the pictures of a latent frame; give such a number.")
    if min(high, wide) < SMALLEST or high % ALIGNED or wide % ALIGNED:
        raise UserError(f"crop = {config.crop} is two multiples of {ALIGNED} from {SMALLEST} on; give such.")
    return weights, weights.parallax.refiner


def walk(run: RefinerStage, number: int, bar: Progress | None = None) -> None:
    """Make or find recording `number` with the world as it is now; the first time also the held-out one."""
    config = run.config
    run.alone.average()
    rng = step_rng(config.seed, number, "walks")
    chosen = rng.choice(run.clips, min(config.walks, len(run.clips)), replace=False).tolist()
    plan = [(run.folder / f"walks-{number}.npy", chosen)]
    if number == 0:
        plan.append((run.folder / "held.npy", held_clips(run)))
    for path, clips in plan:
        if clips and not path.is_file():
            seed = step_seed(config.seed, number, path.stem)
            for done in record(run.weights, run.data, clips, config.frames, config.kept, seed, path, config.together):
                if bar is not None:
                    bar.show(run.budget.progress(run.step), walked=done)
    run.views.append(Views(plan[0][0]))


def held_clips(run: RefinerStage) -> list[int]:
    """Clips that nothing learns from, few; none where the recordings hold none out."""
    found = long_enough(run.data, "held_seed", run.config.frames)
    return found[:: max(1, len(found) // run.config.held)][: run.config.held] if run.config.held > 0 else []


def batch(run: RefinerStage) -> tuple[list[Tensor], Tensor]:
    """Crops for one step: the refiner's inputs (n, 1 or 3, y, x), and the recorded pictures (n, 3, y, x)."""
    config, rng = run.config, step_rng(run.config.seed, run.step, "batch")
    high, wide = run.views[0].kept.shape[-2:]
    crop, found = (min(config.crop[0], high), min(config.crop[1], wide)), []
    for _ in range(config.batch):
        older = len(run.views) > 1 and rng.random() >= config.recent
        views = run.views[int(rng.integers(len(run.views) - 1))] if older else run.views[-1]
        corner = [int(rng.integers((a - c) // ALIGNED + 1)) * ALIGNED for a, c in zip((high, wide), crop, strict=True)]
        rows, columns = (slice(at, at + side) for at, side in zip(corner, crop, strict=True))
        found.append(torch.from_numpy(views.read(int(rng.integers(len(views))), (rows, columns))))
    return split(torch.stack(found).to(run.device))


def train_step(run: RefinerStage, progress: float) -> dict[str, float]:
    """One update of the refiner and of the critics; returns the figures."""
    config = run.config
    set_rate(run.optimisers + run.critic_optimisers, rate_at(progress, run.step, config.warmup, config.hold))
    given, real = batch(run)
    with in_half(run.device.type, config.bf16):
        shown = run.alone.refiner(*given).float()
        parts = {"l1": (shown - real).abs().mean(), "lpips": run.lpips(shown, real).float().mean()}
        loss = rebuilt = config.l1 * parts["l1"] + config.lpips * parts["lpips"]
        if config.critic:
            last = run.alone.refiner.out.weight
            parts["deceit"], loss = deceiving(run.critics, real, shown, rebuilt, last, config.critic)
    loss.backward()
    update(run.optimisers)
    run.alone.ema.update(run.alone.refiner)
    if config.critic:
        parts |= update_critics(run.critics, run.critic_optimisers, config, run.step, real, shown.detach())
    return {name: value.item() for name, value in parts.items()}


@torch.no_grad()
def judge(run: RefinerStage) -> dict[str, float]:
    """LPIPS, L1 and sharpness over real of the averaged refiner on held-out pictures; draws some below real ones."""
    path = run.folder / "held.npy"
    if not path.is_file():
        return {}
    views = Views(path)
    rows: tuple[list[Frames], list[Frames]] = ([], [])
    chosen = np.linspace(0, len(views) - 1, min(JUDGED, len(views))).astype(int)
    sums = {"lpips": 0.0, "l1": 0.0, "edges": 0.0, "real_edges": 0.0}
    for index in chosen:
        picture = torch.from_numpy(views.read(int(index), (slice(None), slice(None))))[None].to(run.device)
        given, real = split(picture)
        shown = run.alone.shown(*given).clamp(-1, 1)
        sums["lpips"] += float(run.lpips(shown, real))
        sums["l1"] += float((shown - real).abs().mean())
        sums["edges"] += float(edges(shown))
        sums["real_edges"] += float(edges(real))
        if len(rows[0]) < SHOWN and index >= len(rows[0]) * len(views) // SHOWN:
            rows[0].append(to_frames(real)[0])
            rows[1].append(to_frames(shown)[0])
    contact_sheet(run.folder / f"held-{run.step:06d}.png", [np.stack(row) for row in rows])
    found = {f"held_{name}": sums[name] / len(chosen) for name in ("lpips", "l1")}
    return found | {"held_sharpness": sums["edges"] / max(sums["real_edges"], 1e-9)}


def carry_times(begun: Path, old: str, folder: Path, new: str) -> None:
    """The learned times of the world that the run began from, for the one that it wrote: what they were learned with,
    transformer and decoder, is the same. UserError when one of them is damaged or the disk refuses.
    """
    for path in sorted((begun / "times").glob("nfe-*.yaml")):
        learned = load_sampler(path, old)
        make_folder(folder / "times")
        save_sampler(folder / "times" / path.name, replace(learned, weights=new))


def edges(pictures: Tensor) -> Tensor:
    """The mean absolute Laplacian of the grey levels of pictures (n, 3, Y, X): a scalar."""
    grey = pictures.mean(1)
    inner = 4 * grey[:, 1:-1, 1:-1] - grey[:, :-2, 1:-1] - grey[:, 2:, 1:-1] - grey[:, 1:-1, :-2] - grey[:, 1:-1, 2:]
    return inner.abs().mean()


def save(run: RefinerStage) -> None:
    """Write the world with the averaged refiner, figures of held-out pictures, and the resume state."""
    run.alone.average()
    weights, optimisers = run.weights, run.optimisers + run.critic_optimisers
    run.metrics.add(run.step, minutes=run.budget.spent / 60, **judge(run))
    draw_metrics(run.folder)
    notes = {"step": run.step, "seconds": run.budget.spent, "training": asdict(run.config)}
    snapshot = run.folder / "snapshot"
    new = save_weights(snapshot, weights.config, weights.tokenizer, weights.dit.state_dict(), notes, weights.parallax)
    carry_times(Path(run.config.start), weights.hash, snapshot, new)
    state = {
        "start": weights.hash, "step": run.step, "seconds": run.budget.spent, "critics": run.critics.state_dict(),
        "optimisers": [o.state_dict() for o in optimisers], **run.alone.state(),
    }  # fmt: skip
    save_resume(run.folder / "resume.safetensors", state)
    run.saved_at = run.budget.spent
