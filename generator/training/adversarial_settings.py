"""The settings of stage 3, which its parts share.

Does not know what any of them does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from generator.training.dit_run import DiTTraining


@dataclass(frozen=True)
class AdversarialTraining(DiTTraining):
    """Settings of stage 3. `frames` is the length of a segment and `overlap` what D sees of the one before.

    `teacher`: stage 1 weights that the discriminator starts from (empty: those of `start`); `discriminator`: a file
    that an earlier run left, to start it from instead. `judge_lr` 0 is the generator's rate. `forced` feeds true
    histories (the paper's ablation). `penalty_every` takes approximate R1 and R2 on every so-manieth step, that much
    stronger; `checkpointed` trades time for memory. Segments after the first follow `fresh` walks of the explorer, or
    else the actions of other clips; `extensions` is a schedule of them in equal parts of the run, as 0,1,5, in place of
    `segments`. `accumulate` batches make one update, so that memory does not limit an update's clips. `centring` weighs
    the squared sum of paired logits, which the relativistic losses leave free to drift.
    `least_motion`, `most_motion` and `most_grid` (shares of the real clips'), and `most_saturated`, end a run that has
    failed (watch.py; 0: never). Every `keep_every` steps a snapshot and its discriminator are kept for good (0: none),
    for the best may not be the last.
    Ours, for small batches: `judge_first` steps train the discriminator alone, `anchor` weighs `anchor_loss` in the
    first segment, `still` is the share of each update's clips that are of standing still, and `grid_shift` moves half
    of the clips by half a patch along each axis before they are judged: a grid of the token size is D's blind spot.
    `rounds` puts histories of the student's own in the place of rollouts (histories.py), up to so many frames from the
    truth and each used `reuse` times: along the recorded path, so that in a place the paired clip stays the answer.
    """

    teacher: str = ""
    discriminator: str = ""
    lr: float = 3e-6
    judge_lr: float = 0.0
    judge_first: int = 0
    anchor: float = 0.0
    accumulate: int = 1
    still: float = 0.0
    grid_shift: bool = False
    centring: float = 0.0
    segments: int = 1
    extensions: tuple[int, ...] = ()
    fresh: bool = True
    overlap: int = 3
    penalty: float = 1000.0
    sigma: float = 0.1
    penalty_every: int = 1
    checkpointed: bool = True
    clip_level: bool = False
    forced: bool = False
    rounds: int = 0
    reuse: int = 4
    least_motion: float = 0.15
    most_motion: float = 4.0
    most_grid: float = 3.0
    most_saturated: float = 0.95
    keep_every: int = 100
    ema: float = 0.995
    history_noise: float = 0.0
    hold: float = 1.0
    warmup: int = 20

    def at(self, progress: float) -> AdversarialTraining:
        """The settings at a progress from 0 to 1 of the run, with as many segments as the schedule then has."""
        if not self.extensions:
            return self
        part = min(int(progress * len(self.extensions)), len(self.extensions) - 1)
        return replace(self, segments=1 + self.extensions[part])

    @property
    def longest(self) -> AdversarialTraining:
        """The settings with as many segments as there ever are."""
        return replace(self, segments=1 + max(self.extensions)) if self.extensions else self
