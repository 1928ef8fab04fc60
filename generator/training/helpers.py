"""What every training stage needs and none should write twice: seeds, rates, optimisers, metrics, atomic files.

A step's randomness derives from (seed, step), so that a run stopped and started again does what an uninterrupted one
does. Files appear complete or not at all.

Does not know of any model, loss or data set.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from controls.errors import UserError
from generator.precision import half_where_fast
from generator.training.parallel_tensors import parted, whole


def step_seed(seed: int, step: int, use: str = "") -> int:
    """A 63-bit seed for one use at one step of one run; nearby steps share nothing."""
    digest = hashlib.blake2b(f"{seed}/{step}/{use}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def step_rng(seed: int, step: int, use: str = "") -> np.random.Generator:
    """A numpy generator for one use at one step."""
    return np.random.default_rng(step_seed(seed, step, use))


def step_generator(seed: int, step: int, use: str = "", device: str = "cpu") -> torch.Generator:
    """A torch generator for one use at one step."""
    return torch.Generator(device).manual_seed(step_seed(seed, step, use))


def rate_at(progress: float, step: int, warmup: int = 50, hold: float = 0.3) -> float:
    """Learning-rate factor: linear warm-up over steps, level until `hold` of the run, then a cosine to 2 %."""
    fall = min(max((progress - hold) / max(1 - hold, 1e-9), 0.0), 1.0)
    return min(1.0, (step + 1) / max(warmup, 1)) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * fall)))


class Muon(torch.optim.Optimizer):
    """Momentum with orthogonalised matrices (Jordan et al. 2024); kernels of convolutions count as O x (I*k*k).

    The update is scaled to the root mean square that AdamW's has, so both take the same kind of learning rate.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        decay: float = 0.0,
    ):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Apply one update from the gradients; matrices of one shape are made orthogonal together, in few launches."""
        assert closure is None, "Muon takes no closure"
        for group in self.param_groups:
            alike: dict[tuple[int, int], list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike.setdefault((parameter.shape[0], parameter[0].numel()), []).append(parameter)
            for shape, parameters in alike.items():
                self._update(parameters, group, 0.2 * max(shape) ** 0.5)

    def _update(self, parameters: list[nn.Parameter], group: dict[str, Any], scale: float) -> None:
        """One update of matrices of one shape."""
        aheads: list[Tensor] = []
        for parameter in parameters:
            state, gradient = self.state[parameter], parameter.grad
            assert gradient is not None
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(parameter)
            state["momentum"].lerp_(gradient, 1 - group["momentum"])
            aheads.append(gradient.lerp(state["momentum"], group["momentum"]))
        turned = orthogonalise(torch.stack([whole(ahead).flatten(1) for ahead in aheads]))
        for parameter, ahead, matrix in zip(parameters, aheads, turned, strict=True):
            update = parted(matrix.view(ahead.shape), ahead)
            parameter.mul_(1 - group["lr"] * group["decay"])
            parameter.add_(update.to(parameter.dtype), alpha=-group["lr"] * scale)


def orthogonalise(matrices: Tensor, rounds: int = 5) -> Tensor:
    """The nearest of each matrix (..., O, I) with singular values about 1, by Newton-Schulz steps in bfloat16 where
    that is fast.
    """
    x = matrices.to(half_where_fast(matrices.device.type))
    tall = x.shape[-2] > x.shape[-1]
    x = (x.mT if tall else x) / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(rounds):
        square = x @ x.mT
        x = 3.4445 * x + (-4.775 * square + 2.0315 * square @ square) @ x
    return x.mT if tall else x


Optimisers = list[torch.optim.Optimizer]


def split_optimisers(
    named: Iterable[tuple[str, nn.Parameter]],
    lr: float,
    muon: float | None = None,
    decay: float = 0.0,
    plain: Callable[[str], bool] = lambda name: False,
    betas: tuple[float, float] = (0.9, 0.99),
) -> Optimisers:
    """Muon (rate `muon`) for hidden matrices, AdamW (rate `lr`) for the rest and for names that `plain` picks.

    Without `muon`, AdamW has everything. Each group remembers its `peak` rate for `set_rate`.
    """
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in named:
        if parameter.requires_grad:
            wanted = muon is not None and parameter.ndim >= 2 and not plain(name)
            (matrices if wanted else others).append(parameter)
    made: Optimisers = []
    if others:
        made.append(torch.optim.AdamW(others, lr=lr, betas=betas, weight_decay=decay, fused=True))
    if matrices and muon is not None:
        made.append(Muon(matrices, lr=muon, decay=decay))
    for optimiser in made:
        for group in optimiser.param_groups:
            group["peak"] = group["lr"]
    return made


def set_rate(optimisers: Optimisers, factor: float) -> None:
    """Set every group's learning rate to `factor` of its peak."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * factor


def update(optimisers: Optimisers) -> None:
    """Apply and clear the gradients."""
    for optimiser in optimisers:
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA when there is one."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def make_folder(folder: Path) -> None:
    """Make a run's folder; UserError when the disk refuses."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"The folder {str(folder)!r} cannot be made ({error.strerror}); choose another.") from error


def save_tensors(path: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Write a safetensors file with JSON `meta`, whole or not at all; UserError when the disk refuses."""
    part = path.with_name(path.name + ".part")
    ready = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(ready, part, metadata={"meta": json.dumps(meta)})
        os.replace(part, path)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise UserError(f"{str(path)!r} cannot be written ({error}); free space or choose another folder.") from error


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote; UserError when the file is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            meta = json.loads((file.metadata() or {}).get("meta", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, meta  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(f"{path} is not a readable weights file ({error}); make it again or restore it.") from error


def pack(tree: Any, tensors: dict[str, Tensor]) -> Any:
    """Nested dicts and lists -> the same as JSON; tensors move to `tensors` and leave their name behind."""
    if isinstance(tree, Tensor):
        name = str(len(tensors))
        tensors[name] = tree.clone()
        return {"@": name}
    if isinstance(tree, dict):
        return {"#": [[key, pack(value, tensors)] for key, value in tree.items()]}
    if isinstance(tree, (list, tuple)):
        return [pack(value, tensors) for value in tree]
    return tree


def unpack(data: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of `pack` (tuples come back as lists)."""
    if isinstance(data, dict):
        return tensors[data["@"]] if "@" in data else {k: unpack(v, tensors) for k, v in data["#"]}
    if isinstance(data, list):
        return [unpack(value, tensors) for value in data]
    return data


def save_resume(path: Path, tree: dict[str, Any]) -> None:
    """Write a resume state (nested dicts of tensors and plain values) without pickle."""
    tensors: dict[str, Tensor] = {}
    layout = pack(tree, tensors)
    save_tensors(path, tensors, {"layout": layout})


def load_resume(path: Path) -> dict[str, Any] | None:
    """Read a resume state; None when there is none yet."""
    if not path.exists():
        return None
    tensors, meta = load_tensors(path)
    return unpack(meta["layout"], tensors)


def load_optimisers(optimisers: Optimisers, states: list[dict[str, Any]]) -> None:
    """Continue optimisers from their `state_dict()`s, with the rates and sizes of the present command."""
    for optimiser, state in zip(optimisers, states, strict=True):
        present = [{k: v for k, v in g.items() if k != "params"} for g in optimiser.param_groups]
        optimiser.load_state_dict(state)
        for group, values in zip(optimiser.param_groups, present, strict=True):
            group.update(values)
        for parameter, kept in optimiser.state.items():
            for name, value in kept.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    kept[name] = torch.empty_like(parameter).copy_(value)  # the parameter's memory layout


class Budget:
    """When a run ends: after `steps`, or after `minutes` of work counted over all its restarts (0: no such limit)."""

    def __init__(self, steps: int, minutes: float, clock: Callable[[], float] = time.perf_counter) -> None:
        if steps <= 0 and minutes <= 0:
            raise UserError(f"A run of {steps} steps and {minutes} minutes has no end; give one of the two.")
        self.steps, self.seconds, self.clock = steps, minutes * 60.0, clock
        self.before, self.since = 0.0, clock()

    def resume(self, seconds: float) -> None:
        """Count seconds of earlier starts too."""
        self.before, self.since = seconds, self.clock()

    @property
    def spent(self) -> float:
        """Seconds of work so far."""
        return self.before + self.clock() - self.since

    def progress(self, step: int) -> float:
        """0 at the beginning, 1 at the end, by whichever limit is nearer."""
        by_steps = step / self.steps if self.steps > 0 else 0.0
        by_time = self.spent / self.seconds if self.seconds > 0 else 0.0
        return min(1.0, max(by_steps, by_time))


class Progress:
    """A progress bar with the time left."""

    def __init__(self, name: str, quiet: bool = False) -> None:
        form = "{desc} {percentage:5.1f}% |{bar}| {elapsed} gone, {remaining} left {postfix}"
        self.bar = tqdm(total=1000, desc=name, bar_format=form, disable=quiet, leave=True)

    def show(self, progress: float, **figures: float | int) -> None:
        """Move to `progress` (0 to 1) and show a few figures."""
        self.bar.set_postfix({k: f"{v:.4g}" for k, v in figures.items()}, refresh=False)
        self.bar.update(max(0, round(progress * 1000) - self.bar.n))

    def close(self) -> None:
        """Leave the bar as it stands."""
        self.bar.close()
