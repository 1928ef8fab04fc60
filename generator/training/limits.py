"""What stage 3 refuses before it begins: settings that contradict one another, and memory that is not there.

The estimate counts what grows with the model and the segment; its numbers per token come from the tensors that autograd
keeps. The most bytes of tensors alive in a step were measured at 0.7 to 0.95 of it. What the allocator holds besides is
left out: on the CPU, with glibc, the process took up to twice the estimate. Of several processes it is the need of one:
its own clips, of those its own tokens or heads, its shards of the weights, and the generator that it gathers.

Does not know of losses, data or what a step does.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Protocol

import torch

from controls.errors import UserError
from generator.model.discriminator import Discriminator
from generator.model.dit import CausalDiT, DiTConfig
from generator.model.ranks import launched

KEPT = 60  # bytes per token and width that a pass keeps beside its block boundaries: entry, exit, the judge's heads
INNER = 70  # as much inside one block, its MLP's two hidden layers not counted
TRADED = 36  # as much while queries, keys and values are packed, sent and unpacked for several that share a clip


class Stage3(Protocol):
    """The settings that are looked at; see AdversarialTraining."""

    batch: int
    context: int
    accumulate: int
    still: float
    centring: float
    frames: int
    segments: int
    extensions: tuple[int, ...]
    overlap: int
    sigma: float
    penalty_every: int
    checkpointed: bool
    forced: bool
    rounds: int
    bf16: bool


def check_settings(config: Stage3) -> None:
    """UserError on settings of stage 3 that cannot be meant."""
    for wrong, words in (
        (config.batch < 1, f"batch={config.batch} holds no clip; give --set batch=1 or more"),
        (config.accumulate < 1, f"accumulate={config.accumulate} is no update; give --set accumulate=1 or more"),
        (
            not 0 <= config.still <= 1,
            f"still={config.still} is no share of the clips; give a number from 0 to 1, as --set still=0.1",
        ),
        (
            not config.centring >= 0,
            f"centring={config.centring} would drive the logits apart; give --set centring=0 or more",
        ),
        (config.frames < 2, f"frames={config.frames} is no clip; give --set frames=2 or more"),
        (config.segments < 1, f"segments={config.segments} is no rollout; give --set segments=1 or more"),
        (
            not 0 <= config.overlap < config.frames,
            f"overlap={config.overlap} is not between 0 and the segment's frames={config.frames}; "
            "give a smaller --set overlap=...",
        ),
        (
            not config.sigma > 0,
            f"sigma={config.sigma} is no noise, so R1 and R2 would be nothing; give --set sigma=0.1",
        ),
        (config.penalty_every < 1, f"penalty_every={config.penalty_every} is no step; give --set penalty_every=1"),
        (
            any(count < 0 for count in config.extensions),
            f"extensions={','.join(map(str, config.extensions))} has less than none; give numbers as --set "
            "extensions=0,1,5",
        ),
        (
            bool(config.extensions) and config.segments > 1,
            f"extensions={','.join(map(str, config.extensions))} says how many segments there are, and so does "
            f"segments={config.segments}; give one of them",
        ),
        (
            config.forced and (config.segments > 1 or any(config.extensions)),
            "forced=True follows true clips, which have one segment; give --set segments=1 and no extensions",
        ),
        (config.rounds < 0, f"rounds={config.rounds} is no number of steps; give --set rounds=0 or more"),
        (
            bool(config.rounds) and (config.forced or config.segments > 1 or any(config.extensions)),
            f"rounds={config.rounds} follows recorded paths after own guesses, which have one segment and are not "
            "forced; give --set segments=1, no extensions and --set forced=false",
        ),
        (
            bool(config.rounds) and launched() is not None,
            f"rounds={config.rounds} keeps own histories in one process; start it without torchrun, or give --set "
            "rounds=0",
        ),
    ):
        if wrong:
            raise UserError(f"The setting {words}.")


def available_bytes(device: torch.device) -> float | None:
    """Free memory of a device; None where it cannot be told."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    free = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return 1024.0 * float(free[0]) if free and device.type == "cpu" else None


@dataclasses.dataclass(frozen=True)
class Team:
    """The processes that train together: `size` of them shard the weights, `context` share each clip; `here` of them
    are on this machine. The first numbers are those of one process, which shards nothing.
    """

    size: int = 1
    context: int = 1
    here: int = 1
    sharded: bool = False

    @property
    def groups(self) -> int:
        """How many parts a batch has."""
        return max(self.size // self.context, 1)

    def clips(self, batch: int) -> int:
        """The most clips of a batch that a process has."""
        return -(-batch // self.groups)


ALONE = Team()


def team_of(config: Stage3) -> Team:
    """The processes that torchrun started beside this one, as the settings part the work."""
    found = launched()
    if found is None:
        return ALONE
    here = int(os.environ.get("LOCAL_WORLD_SIZE", str(found[1])))
    return Team(found[1], max(config.context, 1), here, sharded=True)


def own_device(device: torch.device) -> torch.device:
    """The GPU that is this process's own, where several share a machine."""
    local = int(os.environ.get("LOCAL_RANK", "0"))
    return torch.device("cuda", local) if device.type == "cuda" and local < torch.cuda.device_count() else device


def check_memory(config: Stage3, dit: DiTConfig, device: torch.device) -> None:
    """UserError when a step is estimated to need more memory than is free; it says which setting to lower."""
    team = team_of(config)
    need, free = estimate_bytes(config, dit, team), available_bytes(own_device(device))
    if free is not None and device.type == "cpu":
        free /= team.here
    if free is None or need <= free:
        return
    about, left = f"{need / 1e9:.3g} GB", f"{free / 1e9:.3g} GB of {device.type} memory are free"
    if team.size > 1:
        about, left = f"{about} in each of {team.size} processes", f"{left} for each"
    raise UserError(
        f"Segments of {config.frames} latent frames in batches of {config.batch} need about {about}, and {left}; "
        f"{remedy(config, dit, free, team)}."
    )


def remedy(config: Stage3, dit: DiTConfig, free: float, team: Team = ALONE) -> str:
    """What to lower, and how far, so that a step fits: the batch, or the frames as well when one clip is too many."""
    least = config.overlap + 1 if config.segments > 1 else 2
    room, groups = free - weight_bytes(dit, config.bf16, team), team.groups
    fewer = (config.batch - 1) // groups * groups
    sizes = [(batch, config.frames) for batch in range(fewer, 0, -groups)]
    sizes += [(groups, frames) for frames in range(config.frames - 1, least - 1, -1)]
    for batch, frames in sizes:
        smaller = dataclasses.replace(config, batch=batch, frames=frames)  # type: ignore[type-var]
        if step_bytes(smaller, dit, team) <= room:
            return f"give --set batch={batch}" + (f" --set frames={frames}" if frames < config.frames else "")
    return "choose a smaller preset"


def estimate_bytes(config: Stage3, dit: DiTConfig, team: Team = ALONE) -> float:
    """About how many bytes stage 3 needs at its fullest, in one process of a team."""
    return weight_bytes(dit, config.bf16, team) + step_bytes(config, dit, team)


def step_bytes(config: Stage3, dit: DiTConfig, team: Team = ALONE) -> float:
    """What a step holds beside the weights: four passes of the judge or the generator's and one, and a block open."""
    value = 2 if config.bf16 else 4
    length = config.frames + (config.overlap if config.segments > 1 else 0)
    past = dit.window + 1 + dit.sink if config.segments > 1 else 0
    made, judged = pass_bytes(config, dit, config.frames, past, team), pass_bytes(config, dit, length, 0, team)
    slots = dit.window + 1 + dit.sink
    kept = team.clips(config.batch) * slots * dit.tokens * dit.model_width / team.context  # of its own heads
    cache = 2 * 2 * 4 * dit.depth * kept  # and its copy
    width = width_numbers(config, dit, length, team)
    block = 2 * width * (INNER + 2 * dit.mlp_ratio * value) + 2 * score_bytes(config, dit, length, past, team)
    traded = width * TRADED if team.context > 1 else 0
    clips = clip_bytes(config, dit, length, team)
    return config.accumulate * (cache + clips) + max(made + judged, 4 * judged) + block + traded


def clip_bytes(config: Stage3, dit: DiTConfig, length: int, team: Team = ALONE) -> float:
    """One batch's clips, of which nothing is sharded: those drawn for all groups, its own as made and as judged."""
    extended = config.segments > 1
    drawn = config.frames * (2 if extended else 1) + (length + 1 if extended else 0)
    given = dit.latent_channels + dit.ahead_channels + dit.ray_channels
    made = (2 * dit.latent_channels + dit.recycled_channels) * config.frames + dit.recycled_channels * length
    joined = (dit.latent_channels + dit.recycled_channels + dit.ray_channels) * length if extended else 0
    numbers = config.batch * drawn * given + team.clips(config.batch) * (made + joined)
    return 4.0 * dit.height * dit.width * numbers


def weight_bytes(dit: DiTConfig, bf16: bool, team: Team = ALONE) -> float:
    """Both networks' weights, gradients and RMSProp averages, the generator's EMA, and the copies of autocast.

    A sharded generator is gathered besides, and so are a block of either and its gradient as a pass reaches them.
    """
    with torch.device("meta"):
        judge = Discriminator(CausalDiT(dit))
    mine, theirs = (sum(p.numel() for p in module.parameters()) for module in (judge.body, judge))
    gathered = 4.0 * mine + 2 * 2 * 4.0 * theirs / dit.depth if team.sharded else 0.0
    return (16.0 * mine + 12.0 * theirs) / team.size + gathered + (2.0 * (mine + theirs) if bf16 else 0.0)


def width_numbers(config: Stage3, dit: DiTConfig, frames: int, team: Team) -> int:
    """Numbers of the tokens of clips of so many latent frames, as wide as the model, that one process has."""
    return team.clips(config.batch) * frames * -(-dit.tokens // team.context) * dit.model_width


def pass_bytes(config: Stage3, dit: DiTConfig, frames: int, past: int, team: Team = ALONE) -> float:
    """What one pass over a clip keeps for its backward pass: boundaries of blocks, or all that is inside them."""
    value = 2 if config.bf16 else 4
    width = width_numbers(config, dit, frames, team)
    mask = frames * (frames + past) * dit.tokens**2
    if config.checkpointed:
        return width * (KEPT + dit.depth * value) + mask
    inside = width * (INNER + 2 * dit.mlp_ratio * value) + score_bytes(config, dit, frames, past, team)
    return width * KEPT + dit.depth * inside + mask


def score_bytes(config: Stage3, dit: DiTConfig, frames: int, past: int, team: Team = ALONE) -> float:
    """Attention of one block: the mask as numbers and, where sinks widen the keys, every head's scores."""
    pairs = frames * (frames + past) * dit.tokens**2
    wide = dit.sink and frames * config.segments > dit.window + dit.sink + 1
    return 4.0 * pairs * (1 + (team.clips(config.batch) * dit.heads / team.context if wide else 0))
