"""Segments of stage 3: what the generator made, from what it was given, beside the real clips of the comparison.

Shape key: B batch, F latent frames, C channels, H, W latent size.
A rollout runs without gradient, exactly as play does, and keeps what every frame was given. Since the recycled frame
is detached, one block-causal pass over those inputs, behind the cache as it stood before the segment, gives the same
frames again with the gradient that a backward pass through the KV cache would give, one block's activations at a time.
The first segment is paired with the real clip of the same first frame and actions, a lone picture as in play. Later
ones continue from the detached cache under fresh walks of the explorer (data/walks.py) or the actions of other clips,
overlap their predecessor in D's input, and meet other real clips, which begin in mid-video as they do: a lone first
picture on one side alone would tell D which is which. Source: AAPT sections 3.4 and 3.5.

Does not know about discriminators or losses.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor, nn

from controls.action import KEYS, encode_rows
from controls.errors import UserError
from generator.data.latents import Batch, LatentClips
from generator.data.walks import fresh_walk
from generator.model.dit import CausalDiT
from generator.model.kv_cache import Past
from generator.rollout import Conditions, Eye, RolloutState, continue_rollout, frame_noise, open_eye, start
from generator.training.adversarial_settings import AdversarialTraining
from generator.training.dit_run import DiTRun
from generator.training.helpers import step_rng
from generator.training.histories import OwnHistories
from generator.training.parallel_tensors import part_of

LOOK_STILL = 0.05  # degrees a tick under which a head counts as still
STILL_SHARE = 0.75  # of a window's latent frames without key or look: the window is one of standing still


@dataclass
class Clip:
    """What the discriminator judges: frames (B, F, C, H, W), the recycled (B, F, C to 2C + K, H, W), and conditions."""

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


@dataclass
class Segment:
    """One stretch of a rollout, and what is needed to make it again with a gradient; `frames` are as rolled out.

    With `first` (B, C, H, W), the latents before it, the clip that is judged has its own frames as the recycled ones:
    what was recycled is then an earlier guess, and the difference alone would tell.
    """

    noise: Tensor
    recycled: Tensor
    conditions: Conditions
    past: list[Past] | None
    start: int
    frames: Tensor | None = None
    first: Tensor | None = None

    @property
    def rolled(self) -> Clip:
        """The frames as the rollout made them, without gradient."""
        assert self.frames is not None, "this segment was not rolled out"
        return self._clip(self.frames)

    def again(self, dit: nn.Module, checkpointed: bool = True) -> Clip:
        """The frames with their gradient: one block-causal pass over what the rollout was given."""
        given, t = self.conditions, torch.ones(len(self.noise), device=self.noise.device)
        velocity = dit(
            self.noise, self.recycled, t, given.actions, given.rays,
            past=self.past, start=self.start, checkpointed=checkpointed,
        )  # fmt: skip
        return self._clip(self.noise - velocity)

    def _clip(self, frames: Tensor) -> Clip:
        recycled = self.recycled
        if self.first is not None:
            last = torch.cat([self.first[:, None], frames[:, :-1].detach()], dim=1)
            recycled = torch.cat([last, recycled[:, :, frames.shape[2] :]], dim=2)
        return Clip(frames, recycled, self.conditions.actions, self.conditions.rays)


def roll_segment(dit: CausalDiT, state: RolloutState, eye: Eye | None, conditions: Conditions) -> Segment:
    """Continue a rollout by one segment under `conditions`, without gradient, exactly as play does."""
    begin = state.frame_index
    past = state.cache.past(begin) if begin else None
    made, recycled = continue_rollout(dit, state, conditions, eye)
    return Segment(noise_of(state.seed, begin, made), recycled, conditions, past, begin, made)


@torch.no_grad()
def forced_segment(dit: CausalDiT, batch: Batch, seed: int, recycled: Tensor | None = None) -> Segment:
    """The paper's ablation: as a segment, but after the true history; or after another (B, F, C to 2C + K, H, W)."""
    given, first = (batch.recycled, None) if recycled is None else (recycled, batch.first)
    segment = Segment(noise_of(seed, 0, batch.target), given, batch, None, 0, first=first)
    segment.frames = segment.again(dit, checkpointed=False).frames
    return segment


def noise_of(seed: int, begin: int, like: Tensor) -> Tensor:
    """The noise that play draws for latent frames (B, F, C, H, W) from frame_index `begin` on."""
    shape = tuple(like.shape[2:])
    rows = [[frame_noise(seed + b, begin + k, shape) for k in range(like.shape[1])] for b in range(len(like))]
    return torch.stack([torch.stack(row) for row in rows]).to(like)


# --- what is drawn --------------------------------------------------------------------------------------------------
def still_places(clips: LatentClips, frames: int) -> list[tuple[int, int]]:
    """Every (clip, latent start) of a window that mostly stands still, at its beginning and at its end."""
    found = []
    for number, clip in enumerate(clips.clips):
        keys, look = clip["keys"][1:], np.abs(clip["look"][1:]).max(1)
        moved = keys.any(1) | (look > LOOK_STILL)
        idle = ~moved[: len(moved) // clips.ticks * clips.ticks].reshape(-1, clips.ticks).any(1)
        if len(idle) < frames:
            continue
        held = np.convolve(idle, np.ones(frames), "valid")
        found += [(number, int(begin)) for begin in np.flatnonzero(held >= STILL_SHARE * frames - 1e-9)]
    return found


@dataclass(frozen=True)
class Steering:
    """`rollout.Conditions` of no recording: actions (B, F, ticks, P), rays (B, F, R, H, W), look (B, F, ticks, 2)."""

    actions: Tensor
    rays: Tensor
    look: Tensor
    pace: Tensor | None = None

    def part(self, first: int, last: int) -> Steering:
        """Some of the batch."""
        return Steering(self.actions[first:last], self.rays[first:last], self.look[first:last])


class Drawer:
    """What the steps of a run draw; the windows of standing still are looked up once.

    A whole update's clips are drawn at once and then parted, so that `accumulate` changes memory and nothing else.
    UserError when `still` asks for windows that the clips do not hold.
    """

    def __init__(self, run: DiTRun, config: AdversarialTraining) -> None:
        self.run, self.config = run, config
        self.still = still_places(run.clips, config.frames) if config.still else []
        self.histories = [self._own(k) for k in range(config.accumulate if config.rounds else 0)]
        if config.fresh and config.segments > 1 and run.clips.spec.keys != KEYS:
            raise UserError(
                f"The explorer's fresh walks have the keys {', '.join(KEYS)}, those of {config.latents!r} are "
                f"{', '.join(run.clips.spec.keys)}; give --set fresh=false."
            )
        if config.still and not self.still:
            raise UserError(
                f"The latents in {config.latents!r} hold no {config.frames} latent frames of standing still; give "
                "--set still=0, fewer --set frames=..., or collect more."
            )

    def rolled(self) -> list[Batch]:
        """What rollouts begin from and are paired with: lone first pictures, `still` of them of standing still."""
        rng, c = step_rng(self.config.seed, self.run.step, "batch"), self.config
        places = self.run.clips.places(c.batch * c.accumulate, c.frames, rng)
        for number in range(math.ceil(c.still * len(places))):
            places[number] = self.still[int(rng.integers(len(self.still)))]
        return self._parts(self.run.clips.gather(places, c.frames))

    def _own(self, part: int) -> OwnHistories:
        rounds, reuse = self.config.rounds, self.config.reuse
        return OwnHistories(self.run, rounds, reuse, begin=lambda: self.rolled()[part], name=f"guess {part}")

    def guessed(self) -> list[tuple[Batch, Tensor]]:
        """Batches and what is recycled after histories of the student's own, for `rounds`."""
        choice = step_rng(self.config.seed, self.run.step, "choice")
        return [histories.draw(choice) for histories in self.histories]

    def steering(self, number: int) -> list[Conditions]:
        """What leads the rollouts through extension segment `number`."""
        c = self.config
        if not c.fresh:
            return list(self.others(f"actions {number}", c.frames))
        clips, count, spec = self.run.clips, c.batch * c.accumulate, self.run.clips.spec
        rng = step_rng(c.seed, self.run.step, f"walk {number}")
        walks = [fresh_walk(c.frames * spec.ticks, rng) for _ in range(count)]
        keys, look = (np.stack(each) for each in zip(*walks, strict=True))
        rays = clips.camera.ray_map(look, self.run.dit.config.height, self.run.dit.config.width)
        group = (count, c.frames, spec.ticks)
        led = Steering(
            torch.from_numpy(encode_rows(keys, look, spec).reshape(*group, -1)).to(self.run.device),
            torch.from_numpy(rays.reshape(*group[:2], -1, *rays.shape[-2:])).to(self.run.device),
            torch.from_numpy(look.reshape(*group, 2)).to(self.run.device),
        )
        own = self.run.own
        return [led.part(k + own.start, k + own.stop) for k in range(0, count, c.batch)]

    def others(self, use: str, frames: int) -> list[Batch]:
        """Other windows of the data set."""
        c = self.config
        return self._parts(self.run.clips.draw(c.batch * c.accumulate, frames, step_rng(c.seed, self.run.step, use)))

    def _parts(self, batch: Batch) -> list[Batch]:
        if not self.run.dit.config.reproject:  # the same latents serve models that recycle no reprojection
            batch.ahead = batch.pace = None
        return [part_of(part, self.run.own) for part in split(batch.to(self.run.device), self.config.batch)]


def split(batch: Batch, size: int) -> list[Batch]:
    """A batch as several of `size` clips."""
    held = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return [
        Batch(**{name: value if value is None else value[k : k + size] for name, value in held.items()})
        for k in range(0, len(batch.first), size)
    ]


def segments(run: DiTRun, config: AdversarialTraining, drawer: Drawer) -> Iterator[list[tuple[Segment, Clip]]]:
    """The present step's segments in turn: for every part of the update what was rolled out, and the real clip that it
    is compared with (overlap included).
    """
    seed = int(step_rng(config.seed, run.step, "rollout").integers(2**31))
    seeds = [seed + number * config.batch + run.own.start for number in range(config.accumulate)]
    if config.rounds:
        given = drawer.guessed()
        with run.autocast():
            made = [forced_segment(run.dit, b, s, r) for (b, r), s in zip(given, seeds, strict=True)]
        yield [(segment, Clip.real(batch)) for segment, (batch, _) in zip(made, given, strict=True)]
        return
    parts = drawer.rolled()
    if config.forced:
        with run.autocast():
            yield [(forced_segment(run.dit, b, s), Clip.real(b)) for b, s in zip(parts, seeds, strict=True)]
        return
    states = [start(run.dit, batch.first, each) for batch, each in zip(parts, seeds, strict=True)]
    eyes = [open_eye(run.dit, run.tokenizer, run.world.hfov, run.parallax) for _ in parts]
    with run.autocast():
        for eye, batch in zip(eyes, parts, strict=True):
            if eye:
                eye.open(batch.first, batch.pace)
        made = [roll_segment(run.dit, *held) for held in zip(states, eyes, parts, strict=True)]
    yield list(zip(made, map(Clip.real, parts), strict=True))
    length = config.frames + config.overlap
    for number in range(1, config.segments):
        with run.autocast():
            given = zip(states, eyes, drawer.steering(number), strict=True)
            made = [roll_segment(run.dit, *held) for held in given]
        clips = [Clip.real(batch).last(length) for batch in drawer.others(f"real {number}", length + 1)]
        yield list(zip(made, clips, strict=True))
