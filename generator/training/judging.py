"""The discriminator's side of stage 3: relativistic losses, approximate R1 and R2, and its updates.

Shape key: B batch, F latent frames, C channels, H, W latent size.
Losses: relativistic pairs, softplus(D_fake - D_real) for D and the reverse for G. RMSProp. Source: AAPT section 3.4;
the centring of logits after Adversarial Flow Models (arXiv 2511.22475).

Does not know how clips were made.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from controls.errors import UserError
from generator.checkpoint import load_weights
from generator.model.discriminator import Discriminator
from generator.model.dit import CausalDiT
from generator.training.adversarial_settings import AdversarialTraining
from generator.training.dit_run import DiTRun
from generator.training.helpers import Optimisers, load_optimisers, load_tensors
from generator.training.parallel_tensors import whole
from generator.training.segments import Clip
from generator.training.watch import Watch

FORETOLD = 0.05  # squared error of the recycled channels at which the anchor has half its weight
SATURATED = 10.0  # a logit beyond this size teaches almost nothing


def judge_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's relativistic loss from paired logits (B, F)."""
    return nnf.softplus(fake - real).mean()


def maker_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The generator's relativistic loss from paired logits (B, F)."""
    return nnf.softplus(real - fake).mean()


def drift_loss(real: Tensor, fake: Tensor) -> Tensor:
    """How far paired logits (B, F) lie from zero together; their difference, all that teaches, is left alone."""
    return (real + fake).square().mean()


def anchor_loss(real: Clip, fake: Clip) -> Tensor:
    """Squared error to the paired clip, frame by frame the weaker the less the recycled channels foretold (ours).

    A few judged clips say little about standing still and turning, where the answer is known exactly; where one walks,
    squared error would blur what the discriminator sharpens.
    """
    own = real.frames.shape[2]
    views = real.recycled[:, :, own : 2 * own]  # what comes after them is of the place
    known = views if views.shape[2] else real.recycled
    novelty = (known - real.frames).square().mean((2, 3, 4))
    error = (fake.frames.float() - real.frames).square().mean((2, 3, 4))
    return (error * FORETOLD / (FORETOLD + novelty)).mean()


@dataclass
class Bench:
    """A discriminator on one draw of what a pair of clips is judged under: t (B,), and how far each clip is shifted."""

    judge: Discriminator
    t: Tensor
    shift: Tensor | None = None
    checkpointed: bool = False

    def __call__(self, clip: Clip, frames: Tensor | None = None, checkpointed: bool | None = None) -> Tensor:
        """Logits of a clip, or of other `frames` in its place."""
        spare = self.checkpointed if checkpointed is None else checkpointed
        shown = clip.frames if frames is None else frames
        return self.judge(shown, clip.recycled, self.t, clip.actions, clip.rays, spare, self.shift)


def smoothness(bench: Bench, clip: Clip, logits: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """Approximate R1 (real) or R2 (fake): squared change of the logits when the frames are moved by sigma noise."""
    return (logits - bench(clip, clip.frames + sigma * noise)).square().mean()


@dataclass
class Adversary:
    """The discriminator's side of a run, and what is watched of it."""

    judge: Discriminator
    optimisers: Optimisers
    watch: Watch = field(default_factory=Watch)


def rmsprop(network: nn.Module, lr: float) -> Optimisers:
    """RMSProp with alpha 0.9 and nothing else, as the paper has it."""
    chosen = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.RMSprop(chosen, lr=lr, alpha=0.9)
    for group in optimiser.param_groups:
        group["peak"] = lr
    return [optimiser]


def open_adversary(config: AdversarialTraining, run: DiTRun) -> Adversary:
    """The discriminator from stage 1 weights, from an earlier discriminator, or as the run left it.

    A run that goes on with another `discriminator` than it has had takes that one, as the known remedy is: the
    generator stays, and RMSProp's averages and the watch begin anew.
    """
    body = CausalDiT(run.dit.config)
    try:
        body.load_state_dict(load_weights(Path(config.teacher or config.start)).dit.state_dict())
    except RuntimeError as error:
        raise UserError(
            f"The stage 1 weights in {config.teacher!r} are of another model than {config.start!r}; give matching ones."
        ) from error
    torch.manual_seed(config.seed)
    judge = Discriminator(body, config.clip_level).to(run.device).train()
    if run.team:
        return open_shared_adversary(config, run, judge)
    adversary = Adversary(judge, rmsprop(judge, config.judge_lr or config.lr))
    begun, run.resumed = run.resumed, None  # as large as the discriminator and its averages
    if begun is not None and config.discriminator in ("", begun.get("discriminator", "")):
        try:
            judge.load_state_dict(begun["judge"])
            load_optimisers(adversary.optimisers, begun["judge_optimisers"])
            adversary.watch = Watch(begun.get("watched"))
        except (KeyError, RuntimeError, ValueError) as error:
            raise UserError(
                f"{str(run.folder)!r} holds a run of another stage or model; choose another folder with --run."
            ) from error
    elif config.discriminator:
        load_judge(judge, Path(config.discriminator))
    return adversary


def open_shared_adversary(config: AdversarialTraining, run: DiTRun, judge: Discriminator) -> Adversary:
    """As `open_adversary`, with the discriminator sharded over the processes that train together."""
    from generator.training.parallel import begin_states

    assert run.team is not None
    goes_on = run.resumed is not None and config.discriminator in ("", run.resumed.get("discriminator", ""))
    if config.discriminator and not goes_on:
        load_judge(judge, Path(config.discriminator))
    run.team.shard(judge)
    adversary = Adversary(judge, rmsprop(judge, config.judge_lr or config.lr))
    if goes_on and run.resumed is not None:
        begin_states(adversary.optimisers)
        run.team.load(run.folder, judge_state(config, adversary))
        adversary.watch = Watch({name: run.resumed[f"watched.{name}"] for name in adversary.watch.last})
    run.resumed = None
    return adversary


def judge_state(config: AdversarialTraining, adversary: Adversary) -> dict[str, Any]:
    """The discriminator's part of a resume state."""
    return {
        "judge": adversary.judge.state_dict(),
        "judge_optimisers": [optimiser.state_dict() for optimiser in adversary.optimisers],
        "watched": adversary.watch.state(),
        "discriminator": config.discriminator,
    }


def load_judge(judge: Discriminator, path: Path) -> None:
    """Put an earlier run's discriminator in place; UserError when the file is not one of this model."""
    tensors, _ = load_tensors(path)
    try:
        judge.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(f"{str(path)!r} is no discriminator of this model; choose the file of a like run.") from error


@dataclass
class Pair:
    """A generated and a real clip of equal length, and what both are judged under."""

    real: Clip
    fake: Clip
    t: Tensor
    shift: Tensor | None = None

    def bench(self, judge: Discriminator, checkpointed: bool) -> Bench:
        """The discriminator that judges the two."""
        return Bench(judge, self.t, self.shift, checkpointed)


def update_judge(
    run: DiTRun, config: AdversarialTraining, adversary: Adversary, pairs: list[Pair], generator: torch.Generator
) -> dict[str, float]:
    """One discriminator update on all pairs, with the penalties on every `penalty_every`-th step; its figures."""
    judge, totals = adversary.judge, dict.fromkeys(("judge_loss", "penalty", "gap", "saturated"), 0.0)
    penalised = (run.step + 1) % config.penalty_every == 0  # these are also the steps whose figures are written
    noises: dict[str, Tensor] = {}
    for name in ("real", "fake") if penalised else ():
        shape = (config.batch * len(pairs), *pairs[0].real.frames.shape[1:])
        noises[name] = torch.randn(shape, generator=generator, device=generator.device)
    for optimiser in adversary.optimisers:
        optimiser.zero_grad(set_to_none=True)
    for number, pair in enumerate(pairs):
        with run.autocast():
            bench, both = pair.bench(judge, config.checkpointed), {}
            penalties = torch.zeros((), device=pair.t.device)
            for name, clip in (("real", pair.real), ("fake", pair.fake)):
                both[name] = bench(clip)
                if penalised:
                    noise = noises[name].split(config.batch)[number][run.own]
                    penalties = penalties + smoothness(bench, clip, both[name], noise, config.sigma)
            loss = judge_loss(both["real"], both["fake"])
            drift = config.centring * drift_loss(both["real"], both["fake"]) if config.centring else 0.0
        ((loss + drift + config.penalty * config.penalty_every * penalties) / len(pairs)).backward()
        saturated = torch.cat([both["real"], both["fake"]]).abs().gt(SATURATED).float().mean()
        gap = (both["real"] - both["fake"]).mean()
        for name, value in zip(totals, (loss, penalties, gap, saturated), strict=True):
            totals[name] += value.item() / len(pairs)
    norm = whole(nn.utils.get_total_norm([p.grad for p in judge.parameters() if p.grad is not None]))
    for optimiser in adversary.optimisers:
        optimiser.step()
    return totals | {"judge_norm": norm.item()}
