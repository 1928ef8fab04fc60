"""Stage 0b: train the parallax (how near things are; how keys carry the camera) from recorded walks and their poses.

Shape key: B batch, T ticks of a clip, Y, X picture size, P action fields.
First the depth: one picture of a pair is moved to where the other was taken (the poses are exact) and compared with
it, at three sizes; nearness is what makes them equal, the horizon is told by the recorded pitch, and the stretch of
the engine's pixels is found on the way. Then, with the depth frozen, the ego-motion: recorded moves from keys, look
and hints. A run's folder holds parallax.safetensors (what other stages read), resume.safetensors, metrics.jsonl and
nearness.png. Sources: Zhou et al. 2017 and Godard et al. 2019 for learning depth from warped pictures.

Does not know of latents or transformers.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from controls.camera import relative_pose
from controls.errors import UserError
from generator.config import build, parallax_sizes
from generator.data.clips import Clip, Dataset
from generator.data.halls.depth import STRETCH
from generator.tokenizer.parallax import Parallax, ParallaxConfig, Seen
from generator.tokenizer.reproject import Reprojector
from generator.training.body_learning import stood_on
from generator.training.depth_losses import Pairs, horizon_loss, known_parts, photometric, picture_of, roughness, soften
from generator.training.ego_learning import Walk, ego_motion
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
    save_tensors,
    set_rate,
    split_optimisers,
    step_generator,
    step_rng,
    update,
)
from generator.training.known_depth import KnownDepth, know_depth
from generator.training.metrics import Metrics, contact_sheet, draw_metrics
from generator.training.parallax_files import WEIGHTS, begin_with, load_parallax
from generator.training.place_learning import make_map, place_figures, place_loss, place_sizes
from generator.training.windows import to_frames, to_video

RESUME = "resume.safetensors"
HELD_CLIPS = 512  # compressed clips kept in memory
GAPS = (2, 3, 4, 6, 8)  # video frames between the pictures of a pair
WIDEST = 30.0  # degrees: pairs turned further share too little


@dataclass(frozen=True)
class ParallaxTraining:
    """Settings of one run; `minutes` counts over all starts; `ego_from` is the share of the run given to the depth.

    `known` pictures have their true nearness from the map (worlds of our own), and teach the depth; with 0 pairs do.
    `agree`, `period`, `checkered`, `recall`, `samples` and `lower` (-1: as recorded) are kept (ParallaxConfig); without
    a period the one of the recorded world is taken, if it is known to have one. A place is learned from `pictures` a
    step, and `mapped` pictures make its map of so many `levels` (-1: as many as the recorded world needs; 0: none)
    before the ego-motion learns, by their true depth in worlds of our own, else by what has been learned of it; in
    worlds of our own its holes are closed by what stands there (`mend`), and so many pictures find its sky (`skies`),
    how dim its cells are from afar (`lights`), the `faces` of its blocks (at most `most_faces`; on walls made `even`,
    which takes the grain of walls that have one), and the tones of colours where there is light. With `kept` the map
    and what finds a picture in it stay those of `start`: with `ego_from` 0 the ego-motion alone learns. Where there is
    a map it is `bodily`: laws of motion and a relief (of the true `ground`, in worlds of our own) that are found at
    once; without, a network learns it.
    """

    data: str = "runs/data/halls"
    preset: str = "pocket"
    start: str = ""  # a run folder, weights file or world to begin from
    known: int = 0
    agree: float = 0.7
    period: float = 0.0
    checkered: bool = False
    levels: int = -1
    recall: float = 0.3
    samples: int = 2
    lower: float = -1.0
    mapped: int = 1500
    skies: int = 0
    lights: int = 0
    faces: int = 0
    most_faces: int = 220_000
    kept: bool = False
    bodily: bool = True
    ground: bool = True
    mend: bool = True
    even: bool = True
    pictures: int = 64
    minutes: float = 0.0
    steps: int = 0
    batch: int = 12
    walks: int = 8  # clips per step of the ego-motion
    lr: float = 1e-3
    ego_lr: float = 3e-3
    ego_from: float = 0.7
    smooth: float = 0.02
    blur: float = 0.3  # share of pictures that are softened, as generated ones are
    seed: int = 0
    device: str = "auto"
    log_every: int = 20
    evaluate_every: int = 400
    save_minutes: float = 2.0


@dataclass
class ParallaxRun:
    """One opened run."""

    config: ParallaxTraining
    folder: Path
    device: torch.device
    data: Dataset
    parallax: Parallax
    turn: Reprojector
    optimisers: Optimisers
    budget: Budget
    metrics: Metrics
    step: int = 0
    saved_at: float = 0.0
    mapped: bool = False  # whether the map was made of what this run knows of the depth
    known: KnownDepth | None = None
    held: dict[int, Clip] = field(default_factory=dict)
    walks: dict[int, Walk] = field(default_factory=dict)  # as the ego-motion learns: depth and map are done by then
    small: dict[int, np.ndarray] = field(default_factory=dict)  # the picture that each latent frame begins from

    @property
    def done(self) -> bool:
        """Whether nothing is left to be learned in steps: the map stays, and a body was found at once."""
        return self.mapped and self.config.kept and self.parallax.body is not None

    def clip(self, index: int) -> Clip:
        """A clip, from memory when it is there."""
        if index not in self.held:
            if len(self.held) >= HELD_CLIPS:
                del self.held[next(iter(self.held))]
            self.held[index] = self.data.clip(index)
        return self.held[index]

    def pictures_of(self, index: int) -> np.ndarray:
        """The picture (F, Y, X, 3) that each latent frame of a clip begins from; kept where a place is learned."""
        if index in self.small:
            return self.small[index]
        clip = self.clip(index)
        pictures = np.concatenate([clip.frames(k, 1) for k in range(0, len(clip) - 1, self.data.spec.ticks)])
        if self.parallax.place is not None:
            self.small[index] = pictures
        return pictures

    @torch.no_grad()
    def hints_of(self, index: int) -> Tensor:
        """What a clip's pictures hint at before each latent frame (F, hints), by the depth as it is."""
        return self.parallax.perceive(to_video(self.pictures_of(index)).to(self.device)).hints


def train(config: ParallaxTraining, run_dir: Path | str, stop_after: int | None = None, quiet: bool = False) -> Path:
    """Train until the budget ends; the same command resumes. Returns the weights file.

    `stop_after` leaves early, as if interrupted, once that many steps are done. Ctrl-C saves before it leaves.
    """
    run = open_run(config, Path(run_dir))
    bar, figures = Progress("parallax", quiet), {}
    try:
        while (progress := run.budget.progress(run.step)) < 1.0 and run.step != stop_after:
            if progress >= config.ego_from and not run.mapped:
                make_map(run)
            if run.done:
                break
            figures = depth_step(run, progress) if progress < config.ego_from else ego_step(run, progress)
            run.step += 1
            if run.step % config.log_every == 0:
                run.metrics.add(run.step, minutes=run.budget.spent / 60, **figures)
            bar.show(run.budget.progress(run.step), step=run.step, **figures)
            if run.step % config.evaluate_every == 0:
                evaluate(run)
            if run.budget.spent - run.saved_at > config.save_minutes * 60:
                save_run(run)
    except KeyboardInterrupt:
        save_run(run)
        raise
    bar.close()
    if run.step != stop_after:
        evaluate(run)
    return save_run(run)


def open_run(config: ParallaxTraining, folder: Path) -> ParallaxRun:
    """Build everything a run needs and continue from its resume state; UserError on settings that do not fit."""
    make_folder(folder)
    if not 0.0 <= config.ego_from < 1.0:
        raise UserError(f"ego_from = {config.ego_from} is not from 0 to below 1; it is the depth's share of the run.")
    data = Dataset.open(config.data)
    if not data.select("train"):
        raise UserError(f"The data set {config.data!r} has no training clips; collect more frames.")
    device = pick_device(config.device)
    torch.manual_seed(config.seed)
    sizes = {**parallax_sizes(config.preset), "size": data.size, "action_fields": data.spec.fields}
    begin = load_parallax(config.start) if config.start else None
    sizes |= {"agree": config.agree, "refine": begin.config.refine if begin else 0, **place_sizes(config, data)}
    parallax = Parallax(build(ParallaxConfig, sizes, "parallax")).to(device)
    if config.kept and not config.start:
        raise UserError("kept = true keeps the map of another parallax or world; give that with --start DIR.")
    if begin:
        begin_with(parallax, begin, config.start)
    if config.known:
        parallax.log_stretch.requires_grad_(False).fill_(math.log(STRETCH))
    depth = [*parallax.depth.named_parameters(), ("log_stretch", parallax.log_stretch)]
    optimisers = [
        *split_optimisers(depth, config.lr, None, 1e-4),
        *split_optimisers(parallax.ego.named_parameters() if parallax.ego else [], config.ego_lr, None, 0.0),
        *split_optimisers(parallax.place.named_parameters() if parallax.place else [], config.lr, None, 1e-2),
    ]
    turn = Reprojector(nn.Identity(), data.meta["hfov"], parallax)  # type: ignore[arg-type]  # it encodes nothing here
    run = ParallaxRun(
        config, folder, device, data, parallax, turn, optimisers, Budget(config.steps, config.minutes), Metrics(folder)
    )
    if parallax.place is not None:
        walked = [stood_on(data.clip(index).pose) for index in data.select("train")]
        parallax.place.remember(torch.from_numpy(np.concatenate(walked)).float().to(device))
    if config.known:
        run.known = know_depth(data, "train", config.known, config.seed)
    state = load_resume(folder / RESUME)
    if state is not None:
        resume(run, state)
    return run


def resume(run: ParallaxRun, state: dict[str, Any]) -> None:
    """Continue from a resume state; UserError when it belongs to another size."""
    if build(ParallaxConfig, state["config"], "parallax") != run.parallax.config:
        raise UserError(f"{str(run.folder)!r} holds a run of another size; choose another folder or remove it.")
    run.parallax.load_state_dict(state["parallax"])
    load_optimisers(run.optimisers, state["optimisers"])
    run.step, run.mapped = int(state["step"]), bool(state["mapped"])
    run.budget.resume(float(state["seconds"]))
    run.saved_at = run.budget.spent
    run.metrics = Metrics(run.folder, run.step)


def depth_step(run: ParallaxRun, progress: float) -> dict[str, float]:
    """One update of depth, horizon and stretch; returns the figures of the step."""
    config = run.config
    set_rate(run.optimisers, rate_at(progress / config.ego_from, run.step, hold=0.1))
    if run.known is not None:
        return known_step(run, run.known)
    pairs = draw_pairs(run, "train", config.batch, step_rng(config.seed, run.step, "pairs")).to(run.device)
    seen = run.parallax.perceive(soften(pairs.first, config.blur, step_generator(config.seed, run.step, "soften")))
    parts = {
        "photo": photometric(moved(run, pairs, seen), pairs.second),
        "smooth": roughness(seen.nearness, pairs.first),
        "horizon": horizon_loss(seen.horizon, pairs.pitch),
    }
    loss = parts["photo"] + config.smooth * parts["smooth"] + parts["horizon"]
    loss.backward()
    nn.utils.clip_grad_norm_(run.parallax.parameters(), 1.0)
    update(run.optimisers)
    return {name: value.item() for name, value in parts.items()} | {"stretch": run.parallax.stretch.item()}


def known_step(run: ParallaxRun, known: KnownDepth) -> dict[str, float]:
    """One update of depth and horizon from pictures whose nearness is known; returns the figures of the step."""
    config, rng = run.config, step_rng(run.config.seed, run.step, "known")
    given = known.draw(config.batch, run.parallax.config.unit, rng)
    pictures, near, pitch = (v.to(run.device) for v in given)
    seen = run.parallax.perceive(soften(pictures, config.blur, step_generator(config.seed, run.step, "soften")))
    parts = known_parts(seen, near, pitch)
    (parts["near"] + parts["horizon"]).backward()
    nn.utils.clip_grad_norm_(run.parallax.parameters(), 1.0)
    update(run.optimisers)
    return {name: value.item() for name, value in parts.items()}


def ego_step(run: ParallaxRun, progress: float) -> dict[str, float]:
    """One update of the ego-motion, if a network does that, and of the localiser; returns the figures of the step."""
    config, figures = run.config, {}
    begun = (progress - config.ego_from) / (1 - config.ego_from)
    set_rate(run.optimisers, rate_at(begun, run.step, hold=0.1))
    clips, rng = run.data.select("train"), step_rng(config.seed, run.step, "walks")
    if run.parallax.ego is not None:
        chosen = rng.choice(len(clips), min(config.walks, len(clips)), replace=False)
        made, true = ego_motion(run, [clips[int(i)] for i in chosen], mirrored=run.step % 2 == 1)
        loss = nnf.smooth_l1_loss(8 * made, 8 * true, beta=0.1)  # an eighth of a unit per tick: a brisk walk
        loss.backward()
        nn.utils.clip_grad_norm_(run.parallax.ego.parameters(), 1.0)
        figures = {"ego": loss.item()}
    if run.parallax.place is not None and not config.kept:
        figures["place"] = place_loss(run, run.parallax.place, rng)
    update(run.optimisers)
    return figures


def draw_pairs(run: ParallaxRun, split: str, count: int, rng: np.random.Generator) -> Pairs:
    """Pairs of a split's pictures, mostly such as the camera moved between, in either order of time."""
    clips, found = run.data.select(split) or run.data.select("train"), []
    for attempt in range(100 * count):
        index = clips[int(rng.integers(len(clips)))]
        clip, gap = run.clip(index), int(rng.choice(GAPS))
        place = int(rng.integers(max(1, len(clip) - gap)))
        a, b = (place, place + gap) if rng.random() < 0.7 else (place + gap, place)
        if max(a, b) >= len(clip):
            continue
        look, move = relative_pose(clip.pose[a].astype(np.float64), clip.pose[b].astype(np.float64))
        still = np.linalg.norm(move) < 0.1 * run.parallax.config.unit and rng.random() < 0.9
        if abs(look[0]) > WIDEST or (still and attempt < 50 * count):
            continue
        found.append((clip, a, b, look, move / run.parallax.config.unit))
        if len(found) == count:
            break
    if not found:
        raise UserError(f"The clips of {run.config.data!r} hold no pair of pictures near one another; collect more.")
    first, second = (to_video(np.concatenate([f[0].frames(f[n], 1) for f in found])) for n in (1, 2))
    look, moves = (torch.from_numpy(np.stack([f[n] for f in found])).float()[:, None] for n in (3, 4))
    pitch = torch.tensor([math.radians(f[0].pose[f[1], 4]) for f in found])
    return Pairs(first, second, look, moves, pitch)


def moved(run: ParallaxRun, pairs: Pairs, seen: Seen) -> tuple[Tensor, Tensor]:
    """The first pictures as seen from where the second were taken, and which pixels (B, 1, Y, X) lie within them."""
    turn = pairs.look.double().flatten(0, 1)
    grid = run.turn.walk(turn, run.turn.places(turn, pairs.moves), seen, pairs.first.shape[-2:])
    inside = (grid.abs().amax(-1) < 1).float()[:, None]
    return nnf.grid_sample(pairs.first, grid, padding_mode="border", align_corners=False), inside


@torch.no_grad()
def evaluate(run: ParallaxRun, batches: int = 4) -> dict[str, float]:
    """Bytes of difference on held-out pairs with and without moving, horizon error in degrees, ego-motion's error.

    Ego-motion in map units per latent frame, beside the mean move. Draws nearness.png and the curves.
    """
    config, totals, shown = run.config, np.zeros(3), []
    for number in range(batches):
        rng = step_rng(config.seed, number, "held pairs")
        pairs = draw_pairs(run, "held_seed", config.batch, rng).to(run.device)
        seen = run.parallax.perceive(pairs.first)
        turn = run.turn.views(pairs.first, pairs.look, torch.zeros_like(pairs.moves), seen)[:, 1]
        walked = moved(run, pairs, seen)[0]
        degrees = (seen.horizon.atan() - pairs.pitch).abs().mean() * 180 / math.pi
        errors = [127.5 * (view - pairs.second).abs().mean().item() for view in (walked, turn)]
        totals += np.array([*errors, degrees.item()]) / batches
        if number == 0:
            shown = [pairs.first, pairs.second, walked, picture_of(seen.nearness, pairs.first)]
    clips = (run.data.select("held_seed") or run.data.select("train"))[:16]
    figures = dict(zip(("moved", "turned", "horizon_degrees"), totals.tolist(), strict=True))
    if run.budget.progress(run.step) >= config.ego_from:
        made, true = (m.unflatten(1, (-1, run.data.spec.ticks)).sum(2) for m in ego_motion(run, clips))
        unit = run.parallax.config.unit
        figures["ego_error"] = unit * (made - true)[..., :2].norm(dim=-1).mean().item()
        figures["ego_move"] = unit * true[..., :2].norm(dim=-1).mean().item()
        if run.parallax.place is not None:
            figures |= place_figures(run, run.parallax.place, rng)
    run.metrics.add(run.step, minutes=run.budget.spent / 60, **figures)
    contact_sheet(run.folder / "nearness.png", [to_frames(row[:6]) for row in shown])
    draw_metrics(run.folder)
    return figures


def save_run(run: ParallaxRun) -> Path:
    """Write the weights that others read and the state that a resume needs."""
    path, config = run.folder / WEIGHTS, asdict(run.parallax.config)
    meta = {"kind": "parallax", "config": config, "step": run.step, "training": asdict(run.config)}
    save_tensors(path, run.parallax.state_dict(), meta)
    state: dict[str, Any] = {
        "step": run.step,
        "mapped": run.mapped,
        "seconds": run.budget.spent,
        "config": config,
        "parallax": run.parallax.state_dict(),
        "optimisers": [o.state_dict() for o in run.optimisers],
    }
    save_resume(run.folder / RESUME, state)
    run.saved_at = run.budget.spent
    return path
