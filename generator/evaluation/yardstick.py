"""One world by the few figures that a table of worlds needs, all on the same real pictures, starts and actions.

Shape key: T video frames, Y, X video size.
Free rollouts under a visitor's walk, as `drift.stroll` has them: the distance of their first and of their last stretch
to real pictures, and on demand FVD of 16 frames of the same two stretches. Free rollouts of held-out clips under their
own actions: `motion_energy` over real, yaw's slope and correlation. Only the two stretches are looked at, and no more
than one stretch of one rollout is held, so length costs no memory.

Does not know how worlds came about or what a table looks like.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from controls.replay import built_in
from generator.data.clips import Dataset
from generator.evaluation.control import measure_control
from generator.evaluation.drift import Plan, Tally, starting_clips, watch
from generator.evaluation.film_memory import FilmMemory, recorded
from generator.evaluation.frechet import Features, PictureNetwork, Pixels, apart, fit
from generator.evaluation.fvd import I3D, LENGTHS, features
from generator.evaluation.report import motion_energy, stretch_of
from generator.evaluation.walker import Walks, led

Say = Callable[[str], None]
ENDS = ("first", "last")


@dataclasses.dataclass(frozen=True)
class Measure:
    """How much is measured: `frames` video frames of each of `rollouts`, in stretches of `seconds`; `clips` clips."""

    frames: int = 1440
    rollouts: int = 4
    seconds: float = 10.0
    clips: int = 16
    split: str = "held_seed"
    fid: bool = False
    fvd: bool = False

    @property
    def plan(self) -> Plan:
        """The same as drift has it."""
        return Plan(self.frames, self.rollouts, self.seconds)


class Yardstick:
    """The real side, looked at once for all worlds; UserError when there is too little of it.

    What I3D, the slow one, sees of it is kept in the folder `kept` for the next time.
    """

    def __init__(
        self,
        dataset: Dataset,
        measure: Measure,
        network: PictureNetwork,
        i3d: I3D | None = None,
        kept: Path | None = None,
    ) -> None:
        self.dataset, self.measured, self.network, self.i3d = dataset, measure, network, i3d
        ticks, fps = dataset.spec.ticks, dataset.meta["fps"]
        self.stretches, self.latents = measure.plan.cut(fps, ticks)
        self.starts, others = starting_clips(dataset, measure.split, measure.rollouts)
        real, floor = Tally(network), Tally(network)
        for index in others:
            watch(dataset.clip(index).frames(), ticks, real)
        for index in self.starts:
            watch(dataset.clip(index).frames(), ticks, floor)
        self.likeness = real.gaussian()
        self.floor = apart(floor.gaussian(), self.likeness)
        self.films: Features | None = None
        if i3d is not None:
            memory = FilmMemory(kept)
            self.films, own = (self._real_films(memory, name, clips) for name, clips in
                               (("others", others), ("starts", self.starts)))  # fmt: skip
            self.film_floor = apart(fit(own), fit(self.films))

    def _real_films(self, memory: FilmMemory, name: str, clips: Sequence[int]) -> Features:
        """I3D's view (N, 400) of real clips."""
        i3d, data = self.i3d, self.dataset
        assert i3d is not None

        def seen() -> Features:
            return np.concatenate([video_features(data.clip(i).frames()[1:], i3d) for i in clips])

        return memory.recall(f"real-{name}", recorded(data, clips), seen)

    def figures(self, world: Walks, say: Say) -> dict[str, float | None]:
        """What the module's text says, flat; distances under the network's name."""
        found = self._ends(world, say)
        stretches = [stretch_of(self.dataset.clip(index), world.spec.ticks) for index in self._clips()]
        made, energy = [], np.zeros(2)
        for seed, stretch in enumerate(stretches):
            pictures = led(world, stretch.frames[0], *stretch.driven, seed, stretch.stood)
            made.append(stretch.driving(pictures))
            energy += [motion_energy(pictures), motion_energy(stretch.frames)]
            say(f"clip {seed + 1} of {len(stretches)}")
        control = measure_control(made, world.spec, world.camera, world.fps)
        ratio = float(energy[0] / energy[1]) if energy[1] else None
        return found | {"motion_energy": ratio, "yaw.slope": control["yaw.slope"], "yaw.corr": control["yaw.corr"]}

    def _clips(self) -> list[int]:
        return self.dataset.select(self.measured.split)[: self.measured.clips]

    def _ends(self, world: Walks, say: Say) -> dict[str, float | None]:
        tallies = {end: Tally(self.network) for end in ENDS}
        films: dict[str, list[Features]] = {end: [] for end in ENDS}
        every, name = self.network.every, self.network.name
        for seed, index in enumerate(self.starts):
            player, kept = built_in("stroll", world.spec, seed), []
            before = world.reset(self.dataset.clip(index).frames(0, 1)[0], seed)[-1].copy()
            for k in range(1, self.stretches * self.latents + 1):
                frames = world.step(player.next())
                stretch = (k - 1) // self.latents
                end = {0: "first", self.stretches - 1: "last"}.get(stretch)
                if end is not None:
                    tallies[end].add(frames, before, kept=k % every == 0)
                    kept.append(frames)
                    if k % self.latents == 0 and self.i3d is not None:
                        films[end].append(video_features(np.concatenate(kept), self.i3d))
                before = frames[-1].copy()
                if k % self.latents == 0:
                    kept = []
            say(f"walk {seed + 1} of {len(self.starts)}")
        distances = {f"{name}.{end}": apart(tallies[end].gaussian(), self.likeness) for end in ENDS}
        found: dict[str, float | None] = dict(distances)
        found["last_over_first"] = distances[f"{name}.last"] / max(distances[f"{name}.first"], 1e-9)
        found[f"{name}.floor"] = self.floor
        for end in ENDS if self.films is not None else ():
            assert self.films is not None
            found[f"fvd.16.{end}"] = apart(fit(np.concatenate(films[end])), fit(self.films))
            found["fvd.16.floor"] = self.film_floor
        return found


def video_features(frames: Pixels, i3d: I3D) -> Features:
    """I3D's view (N, 400) of a video (T, Y, X, 3) cut into pieces of 16 frames."""
    length = LENGTHS[0]
    count = len(frames) // length
    return features(frames[: count * length].reshape(count, length, *frames.shape[1:]), i3d)
