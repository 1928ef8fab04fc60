"""Where a run of one process and one of several part: joining the others, and the resume state.

One process keeps its state in resume.safetensors, several in a folder of shards that resume.json names (parallel.py).
Neither goes on with the other's, and neither begins anew over it: both say what to do.

Does not know any stage's loss.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from controls.errors import UserError
from generator.model.ranks import launched
from generator.training.helpers import load_resume, save_resume

if TYPE_CHECKING:
    from generator.model.dit import DiTConfig
    from generator.training.dit_run import DiTRun, DiTTraining
    from generator.training.parallel import Team

ALONE, SHARED = "resume.safetensors", "resume.json"


def join_team(config: DiTTraining, stage: str, device: torch.device, dit: DiTConfig) -> Team | None:
    """The processes that torchrun started beside this one, if it did; UserError when they do not fit together."""
    if config.context != 1 and config.compile:
        raise UserError(f"context={config.context} is not compiled; give --set compile=false, or --set context=1.")
    if launched() is None:
        if config.context != 1:
            raise UserError(
                f"context={config.context} shares each clip among as many processes, but there is one; start them "
                "with torchrun --nproc-per-node P run.py train ..., or give --set context=1."
            )
        return None
    from generator.training.parallel import open_team

    about = {"stage": stage} | {f"setting {name}": str(value) for name, value in asdict(config).items()}
    return open_team(config.batch, config.context, dit, about, device)


def load_alone(folder: Path) -> dict[str, Any] | None:
    """The resume state of one process; UserError when several have trained here."""
    if (folder / SHARED).exists():
        raise UserError(
            f"{str(folder)!r} holds a run of several processes; go on with torchrun --nproc-per-node 1 (or more)."
        )
    return load_resume(folder / ALONE)


def load_shared(run: DiTRun) -> dict[str, Any] | None:
    """Fill the run's tensors with its state of several processes; what else was kept, or None without one."""
    from generator.training.parallel import begin_states

    assert run.team is not None
    if (run.folder / ALONE).exists():
        raise UserError(f"{str(run.folder)!r} holds a run of one process; go on without torchrun, or in another --run.")
    if not (run.folder / SHARED).exists():
        return None
    begin_states(run.optimisers)
    kept = run.team.load(run.folder, base_state(run))
    if kept is not None:
        run.ema.updates = int(kept["ema.updates"])
    return kept


def base_state(run: DiTRun) -> dict[str, Any]:
    """The tensors that every stage's resume state holds."""
    optimisers = [optimiser.state_dict() for optimiser in run.optimisers]
    return {"model": run.dit.state_dict(), "ema": run.ema.state(), "optimisers": optimisers}


def save_state(run: DiTRun, more: dict[str, Any]) -> None:
    """Write the resume state: what every stage's holds, and `more`."""
    state = base_state(run) | more
    if run.team:
        run.team.save(run.folder, run.step, state)
    else:
        save_resume(run.folder / ALONE, state)
