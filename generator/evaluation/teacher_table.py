"""The study of the teacher's times: hand-made grids, LD3, GS and one curve beside the teacher in many steps.

Shape key: M pairs, T video frames, Y, X video size.
Each sampler makes single latent frames after real history, from noises and clips that nothing was learned from or
chosen by, and its pictures are compared with those of the teacher in 64 steps. A piece (the hand-made grids of one
number of calls, or one learned grid) is written when it is done; the same command goes on, in the midst of a grid too.

Does not know how times are learned or how tables look.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from controls.errors import UserError
from controls.files import write_atomic
from generator.checkpoint import Weights
from generator.data.latents import LatentClips
from generator.model.sampler_file import load_sampler
from generator.samplers.learned_times import Pairs
from generator.samplers.sampler import LEARNED, Sampler, intervals
from generator.samplers.solvers import dpm_solver_pp, solver_named
from generator.training import learn_times
from generator.training.helpers import load_tensors, make_folder, save_tensors
from generator.training.learn_times import PictureDistance, check_fit, contexts, load_teacher, teacher_times
from generator.training.teacher_pairs import Eyes, make_context, make_pairs, solve_targets
from generator.training.times_methods import TimesTraining, check

BASES = (("ipndm", 3), ("dpmpp", 3))  # LD3 and the curve learn for the first; GS corrects the second
Figures = dict[str, dict[str, dict[str, float]]]  # solver -> grid -> measure
Clock = Callable[[], float]


@dataclass(frozen=True)
class TeacherStudy:
    """Settings; `each` minutes at most for each learned grid (0: to its end). Pairs and updates as in learn-times."""

    weights: str
    latents: str = "runs/latents/halls"
    run: str = "runs/times/study"
    calls: tuple[int, ...] = (4, 2, 6, 8, 3, 5, 7, 9, 10)
    judged: int = 16
    target_steps: int = 64
    distance: str = "lpips"
    pairs: int = 24
    held: int = 12
    history: int = 3
    teacher_steps: int = 32
    updates: int = 300
    grid_rounds: int = 2
    both_rounds: int = 3
    each: float = 0.0
    seed: int = 0
    device: str = "auto"

    def learning(self, kind: str, nfe: int) -> TimesTraining:
        """What learn-times is asked for one grid: kind is ld3, gs or curve."""
        solver, order = (LEARNED, 3) if kind == "gs" else (BASES[0][0], min(BASES[0][1], nfe))
        if kind == "curve":
            order = 2  # which serves 2 calls too
        name = kind if kind == "curve" else f"{kind}-{nfe}"
        shared = {key: getattr(self, key) for key in (
            "weights", "latents", "distance", "pairs", "held", "history", "teacher_steps", "updates", "grid_rounds",
            "both_rounds", "seed", "device",
        )}  # fmt: skip
        return TimesTraining(
            **shared, solver=solver, order=order, nfe=nfe, minutes=self.each, curve=kind == "curve",
            begin=str(self.file("ld3", nfe)) if kind == "gs" else "",
            run=str(Path(self.run) / name), out=str(self.file(kind, nfe)),
        )  # fmt: skip

    def file(self, kind: str, nfe: int) -> Path:
        """Where a learned grid lies."""
        return Path(self.run) / f"{kind}-{nfe}.yaml"


class Judge:
    """LPIPS, PSNR and latent distance of a sampler to the teacher in many steps, on windows of their own."""

    def __init__(self, study: TeacherStudy, weights: Weights) -> None:
        clips = LatentClips(Path(study.latents), judged_split(Path(study.latents)))
        check_fit(study.learning("ld3", max(study.calls)), weights, clips)
        clips.tell(weights.reprojector())
        context = make_context(clips, weights.dit, study.judged, study.history, study.seed, "judge")
        path = Path(study.run) / "judge.safetensors"
        about = {"weights": weights.hash, "judged": study.judged, "steps": study.target_steps, "seed": study.seed}
        self.latents = kept_tensors(path, about, lambda: {
            "latents": solve_targets(weights.dit, context, dpm_solver_pp(2), teacher_times(study.target_steps))
        })["latents"]  # fmt: skip
        self.pairs: Pairs = make_pairs(weights.dit, context, self.latents, Eyes(weights.tokenizer, context.batch))
        self.lpips = PictureDistance(weights.dit.embed.weight.device)

    @torch.no_grad()
    def __call__(self, sampler: Sampler) -> dict[str, float]:
        """lpips (mean), psnr (dB, of the pooled squared error), latent (mean square)."""
        sums = {"lpips": 0.0, "square": 0.0, "latent": 0.0}
        count = len(self.latents)
        for index in torch.arange(count).split(4):
            network, noise = self.pairs.network(index), self.pairs.noise[index]
            made = sampler.solver(network, noise, sampler.times, sampler.path, sampler.network_times)
            seen, due = self.pairs.view(made, index), self.pairs.target[index]
            sums["lpips"] += float(self.lpips(seen, due).sum())
            sums["square"] += float((seen.clamp(-1, 1) - due.clamp(-1, 1)).square().flatten(1).mean(1).sum())
            sums["latent"] += float((made - self.latents[index]).square().flatten(1).mean(1).sum())
        return {
            "lpips": sums["lpips"] / count,
            "psnr": 10 * math.log10(4 / max(sums["square"] / count, 1e-12)),
            "latent": sums["latent"] / count,
        }


def judged_split(latents: Path) -> str:
    """Held-out maps where there are any: learn-times chooses by held-out walks."""
    splits = {clip["split"] for clip in LatentClips(latents, "train").meta["clips"]}
    return next((name for name in ("held_map", "held_seed") if name in splits), "train")


def kept_tensors(path: Path, about: dict[str, Any], make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors of a file, or made and written there; UserError when the file is about something else."""
    if path.exists():
        tensors, meta = load_tensors(path)
        if meta.get("about") != about:
            raise UserError(f"{path} was made for other settings; remove it or choose another --set run=DIR.")
        return tensors
    made = make()
    save_tensors(path, made, {"about": about})
    return made


def hand_made(
    study: TeacherStudy, weights: Weights, train: Pairs | None, nfe: int
) -> Iterator[tuple[str, str, Sampler]]:
    """(solver, grid, sampler) of every grid that is not learned; without pairs, of those that are not fitted either."""
    for name, most in BASES:
        order = min(most, nfe)
        config = replace(study.learning("ld3", nfe), solver=name, order=order)
        grids = learn_times.hand_made(intervals(name, nfe), weights.config.shift)
        if train is not None:
            grids |= learn_times.fitted(config, train, solver_named(name, order))
        for grid, times in grids.items():
            yield name, grid, Sampler(name, order, times, times)


def read(path: Path, study: TeacherStudy, weights: str) -> dict[str, Any]:
    """The figures so far; UserError when the file is another study's."""
    about = json.loads(json.dumps({**asdict(study), "weights": weights}))
    if not path.exists():
        return {"settings": about, "figures": {}, "seconds": {}}
    try:
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        same = kept["settings"] == about
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no readable study ({error}); remove it or choose another --out.") from error
    if not same:
        raise UserError(f"{path} holds a study with other settings or weights; remove it or choose another --out.")
    return kept


def check_study(study: TeacherStudy, minutes: float) -> None:
    """UserError on settings that make no sense, before anything is loaded."""
    if minutes < 0 or study.each < 0:
        raise UserError(f"{min(minutes, study.each):g} minutes are no time; give more, or 0 to go to the end.")
    if study.judged < 1 or study.target_steps < 2:
        raise UserError(f"judged = {study.judged} and target_steps = {study.target_steps} start at 1 and 2.")
    if not study.calls:
        raise UserError("The study compares no numbers of calls; give --set calls=4,6, for instance.")
    for nfe in study.calls:
        for kind in ("ld3", "gs", "curve"):
            check(study.learning(kind, nfe))


def due_pieces(study: TeacherStudy, figures: dict[str, Figures]) -> Iterator[tuple[str, int]]:
    """(kind, calls) of the pieces that are missing: of each number of calls in turn, and the curve's last."""
    for kinds in (("hand", "ld3", "gs"), ("curve",)):
        for nfe in study.calls:
            for kind in kinds:
                found = figures.get(str(nfe), {})
                if not (BASES[0][0] in found if kind == "hand" else kind in found):
                    yield kind, nfe


def run(
    study: TeacherStudy, path: Path, minutes: float, say: Callable[[str], None], clock: Clock = time.perf_counter
) -> bool:
    """Do the pieces that are missing until the minutes end (0: to the end); whether all are done now."""
    began = clock()

    def late() -> bool:
        return minutes > 0 and clock() - began > 60 * minutes

    check_study(study, minutes)
    weights = load_teacher(study.learning("ld3", study.calls[0]))
    kept = read(path, study, weights.hash)
    pieces = list(due_pieces(study, kept["figures"]))
    if not pieces:
        return True
    make_folder(Path(study.run))
    judge, solved, train = Judge(study, weights), *learning_pairs(study, weights, say)
    for kind, nfe in pieces:
        if late():
            return False
        figures = kept["figures"].setdefault(str(nfe), {})
        if kind == "hand":
            for solver, grid, sampler in hand_made(study, weights, train, nfe):
                figures.setdefault(solver, {})[grid] = judge(sampler)
        else:
            seconds = learn(study.learning(kind, nfe), solved, late)
            if seconds is None:
                return False
            sampler = load_sampler(study.file(kind, nfe), weights.hash).sampler
            figures[kind] = {kind: judge(sampler)}
            kept["seconds"]["curve" if kind == "curve" else f"{kind}-{nfe}"] = round(seconds, 1)
        write_atomic(path, json.dumps(kept, indent=1) + "\n")
        say(f"{kind} {nfe}: {clock() - began:.0f} s")
    return True


def learning_pairs(
    study: TeacherStudy, weights: Weights, say: Callable[[str], None]
) -> tuple[dict[str, Tensor], Pairs]:
    """The teacher's latents that every grid is learned from and chosen by, made once; and the pairs to fit grids to."""
    config = study.learning("ld3", max(study.calls))
    about = {"weights": weights.hash, "pairs": study.pairs, "held": study.held, "steps": study.teacher_steps}
    windows = contexts(config, weights)

    def make() -> dict[str, Tensor]:
        say(f"the teacher: {study.pairs + study.held} latent frames in {study.teacher_steps} calls each")
        times = teacher_times(study.teacher_steps)
        return {use: solve_targets(weights.dit, made, dpm_solver_pp(2), times) for use, made in windows.items()}

    about |= {"history": study.history, "seed": study.seed}
    solved = kept_tensors(Path(study.run) / "pairs.safetensors", about, make)
    return solved, make_pairs(weights.dit, windows["train"], solved["train"])


def learn(config: TimesTraining, solved: dict[str, Tensor], late: Callable[[], bool]) -> float | None:
    """Go on learning one grid until it is written, and say how many seconds it took; None if time ran out before."""
    opened = learn_times.open_times(config, lambda text: None, solved)
    learn_times.work(opened, True, 5, late)
    if not opened.done:
        return None
    learn_times.finish(opened)
    return opened.budget.spent
