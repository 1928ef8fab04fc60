"""Training on several processes: every process has a slice of each batch and a shard of every weight (FSDP2).

Shape key: B batch.
A step draws the whole batch, and all that is random in its loss, as one process would, and then takes its own clips;
gradients are averaged. Parameters, gradients, averages and optimiser states are sharded over the processes and are
gathered block by block as a pass reaches them, except in rollouts: those gather the network once, for however many
latent frames (AAPT section 3.5). With `context` P of them share the tokens and heads of the same clips, so that each
keeps a Pth of a long clip's activations; gradients are averaged over them as well (model/share.py says why). Resume
states are safetensors shards written by every process (torch.distributed.checkpoint), read back by the same or another
number of processes.

Does not know any stage's loss, or who starts the processes.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from controls.errors import UserError
from controls.files import write_atomic
from generator.model.dit import CausalDiT, DiTConfig
from generator.model.layers import Block
from generator.model.ranks import Meeting, Ranks, spans
from generator.model.share import Share, share_fault
from generator.training.helpers import Optimisers

STATE = "resume.json"  # names the folder of the newest whole state beside what is no tensor in it


@dataclass
class Team:
    """This process among those that train together."""

    ranks: Ranks
    mesh: DeviceMesh
    context: Ranks | None = None  # those that share this process's clips, when there are several

    @property
    def leads(self) -> bool:
        """Whether this process writes what is written once."""
        return self.ranks.rank == 0

    def own(self, batch: int) -> slice:
        """This process's clips of a batch."""
        each = self.context.size if self.context else 1
        return spans(batch, self.ranks.size // each)[self.ranks.rank // each]

    def mean(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Each figure's mean over the processes."""
        values = torch.tensor(list(figures.values()), dtype=torch.float64)
        dist.all_reduce(values, group=self.ranks.control)
        return dict(zip(figures, (values / self.ranks.size).tolist(), strict=True))

    def lead(self, value: float) -> float:
        """The leading process's number: what hangs on a clock must be one for all."""
        told = torch.tensor([value], dtype=torch.float64)
        self.ranks.tell(told)
        return float(told)

    def shard(self, network: nn.Module) -> None:
        """From now on hold a shard of every parameter, gathered a block at a time, and share clips if others do."""
        for module in list(network.modules()):
            if self.context and isinstance(module, CausalDiT):
                module.spread(Share(self.context, module.config.heads, module.config.tokens))
            if isinstance(module, Block):
                fully_shard(module, mesh=self.mesh)
        fully_shard(network, mesh=self.mesh, reshard_after_forward=True)

    @contextlib.contextmanager
    def gathered(self, network: nn.Module) -> Iterator[None]:
        """The whole network on every process within the block, through passes and gradients alike: gathered once."""
        parts = [module for module in network.modules() if isinstance(module, FSDPModule)]
        for part in parts:
            part.set_reshard_after_forward(False, recurse=False)
            part.set_reshard_after_backward(False, recurse=False)
            part.unshard()
        try:
            yield
        finally:
            for part in parts:
                part.set_reshard_after_forward(True, recurse=False)
                part.set_reshard_after_backward(True, recurse=False)
                part.reshard()

    def save(self, folder: Path, step: int, tree: Mapping[str, Any]) -> None:
        """Write a resume state (nested dicts and lists of tensors and plain values), whole or not at all."""
        tensors, plain = flatten(tree)
        name = f"resume-{step:08d}"
        place = folder / name
        if self.leads:
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
        dist.barrier(group=self.ranks.control)
        dcp.save(tensors, storage_writer=HuggingFaceStorageWriter(str(place), save_distributed=True))
        dist.barrier(group=self.ranks.control)
        if self.leads:
            write_atomic(folder / STATE, json.dumps({"folder": name, "plain": plain}))
            for old in folder.glob("resume-*"):
                if old.name != name:
                    shutil.rmtree(old, ignore_errors=True)

    def load(self, folder: Path, tree: Mapping[str, Any]) -> dict[str, Any] | None:
        """Fill the tensors of a like tree from the newest state; returns what is no tensor in it, None without one.

        UserError when the state is damaged or of another model.
        """
        if not (folder / STATE).exists():
            return None
        try:
            kept = json.loads((folder / STATE).read_text())
            reader = HuggingFaceStorageReader(str(folder / kept["folder"]))
            dcp.load(flatten(tree)[0], storage_reader=reader)
        except (OSError, KeyError, ValueError, RuntimeError, dcp.api.CheckpointException) as error:
            raise UserError(
                f"{str(folder)!r} holds a damaged run or one of another model; choose another folder with --run."
            ) from error
        return dict(kept["plain"])


def flatten(tree: Any, name: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and plain values of nested dicts and lists by their paths; lists of plain values stay whole."""
    if isinstance(tree, Tensor):
        return {name: tree}, {}
    if isinstance(tree, list) and not any(isinstance(value, (Tensor, dict, list)) for value in tree):
        return {}, {name: tree}
    if not isinstance(tree, (Mapping, list, tuple)):
        return {}, {name: tree}
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for key, value in tree.items() if isinstance(tree, Mapping) else enumerate(tree):
        if key != "param_groups":  # rates and the like are those of the present command
            below = flatten(value, f"{name}.{key}" if name else str(key))
            tensors |= below[0]
            plain |= below[1]
    return tensors, plain


def team_fault(size: int, batch: int, context: int, dit: DiTConfig) -> str:
    """Why so many processes cannot train together, or nothing."""
    if context < 1 or size % context:
        fit = [count for count in range(1, size + 1) if size % count == 0]
        return f"context={context} does not divide {size} processes; give --set context={nearest(context, fit)}."
    groups = size // context
    if batch % groups:
        fit = [max(groups, batch // groups * groups)]
        shared = f"{size} processes" + (f" of which {context} share each clip" if context > 1 else "")
        return f"A batch of {batch} clips is not shared evenly by {shared}; give --set batch={fit[0]}."
    if share_fault(dit.heads, dit.tokens, context):
        fit = [
            count for count in range(1, size + 1) if size % count == 0 and not share_fault(dit.heads, dit.tokens, count)
        ]
        return (
            f"context={context} does not divide {dit.heads} attention heads over {dit.tokens} tokens; give --set "
            f"context={nearest(context, fit)}."
        )
    return ""


def nearest(wanted: int, offered: list[int]) -> int:
    """The largest of the offered numbers that is not above the wanted one, or the least."""
    return max((count for count in offered if count <= wanted), default=min(offered))


def open_team(batch: int, context: int, dit: DiTConfig, about: Mapping[str, str], device: torch.device) -> Team:
    """Join the processes that torchrun started; UserError, the same on each, when they or the batch do not fit."""
    meeting = Meeting.arranged()
    meeting.agree("training", about, team_fault(meeting.size, batch, context, dit))
    ranks = meeting.join()
    if device.type == "cuda":
        torch.cuda.set_device(ranks.device)
    mesh = init_device_mesh(device.type, (meeting.size,))
    return Team(ranks, mesh, ranks.neighbours(context) if context > 1 else None)


def begin_states(optimisers: Optimisers) -> None:
    """Give optimisers the states that they make at their first step, so that there is something to load into."""
    for optimiser in optimisers:
        rates = [group["lr"] for group in optimiser.param_groups]
        for group in optimiser.param_groups:
            group["lr"] = 0.0
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate
