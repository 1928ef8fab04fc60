"""The quality dial: the many-step teacher behind the backend's interface, in plain torch, beside torch or OpenVINO.

Shape key: C channels, H, W latent size. Batch is always one. The state is computed in float32 whatever the network's
type, so that rounding does not pile up over the calls. Source: LD3 notes section 6.

Does not know how times were learned, or about scenes, players and other backends.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from controls.errors import UserError
from generator.checkpoint import Weights, load_weights
from generator.model import multistep
from generator.model.dit import CausalDiT
from generator.model.sampler_file import expect_sampler, load_sampler
from generator.rollout import frame_noise, with_ahead
from generator.runtime.backend import Backend, Float, State, to_array, to_tensor
from generator.runtime.eager import EagerTransformer
from generator.runtime.select import BACKENDS, EAGER, TYPES, best_backend, best_torch, in_dtype, open_backend
from generator.samplers.sampler import FEWEST, MOST, Sampler, shifted_sampler

MANY_STEP = ("adaptation", "test")  # stages whose networks may be asked at any time
UNLEARNED = ("dpmpp", 2)  # the solver where no grid was learned
EVEN = 1.0  # the shift of times that nobody learned: on our teachers the training shift samples far worse (LOG.md)
BESIDE = (*EAGER, *TYPES["openvino"].values())  # backends whose other networks may work beside the teacher


class MultistepTransformer:
    """`multistep.sample_next` behind the backend's interface."""

    def __init__(self, dit: CausalDiT, sampler: Sampler) -> None:
        self.dit, self.sampler, self.seed = dit, sampler, 0
        self.run: multistep.MultistepState | None = None
        self.recycled = torch.empty(0)

    def reset(self, first: Tensor, seed: int) -> None:
        """See `backend.Transformer.reset`."""
        self.recycled, self.seed = first.float(), seed
        self.run = multistep.begin(self.dit, 1, self.sampler)

    @property
    def frame_index(self) -> int:
        """Latent frames generated since reset."""
        return self.run.frame_index if self.run else 0

    @torch.inference_mode()
    def step(self, actions: Float, rays: Float, ahead: Tensor | None = None) -> Tensor:
        """See `backend.Transformer.step`."""
        assert self.run is not None, "reset comes first"
        noise = frame_noise(self.seed, self.run.frame_index, tuple(self.recycled.shape[1:]))[None]
        given = (torch.from_numpy(actions)[None], torch.from_numpy(rays)[None])
        recycled = with_ahead(self.recycled, ahead)
        self.recycled = multistep.sample_next(self.dit, self.run, self.sampler, noise, recycled, *given)
        return self.recycled.clone()

    def state(self) -> State:
        """See `backend.Transformer.state`."""
        assert self.run is not None, "reset comes first"
        kept = {
            "recycled": self.recycled,
            "keys": torch.stack([cache.keys for cache in self.run.caches]),
            "values": torch.stack([cache.values for cache in self.run.caches]),
            "place": torch.tensor([self.seed, self.run.frame_index]),
        }
        return {name: to_array(tensor) for name, tensor in kept.items()}

    @torch.inference_mode()
    def load(self, state: State) -> None:
        """See `backend.Transformer.load`."""
        weight = self.dit.embed.weight
        keys, values = (to_tensor(state[name], weight) for name in ("keys", "values"))
        run = multistep.begin(self.dit, 1, self.sampler)
        for cache, key, value in zip(run.caches, keys, values, strict=True):
            cache.keys.copy_(key)
            cache.values.copy_(value)
        self.seed, run.frame_index = (int(v) for v in state["place"])
        self.recycled, self.run = to_tensor(state["recycled"], torch.empty(0)), run


def teacher_of(folder: Path) -> tuple[Path, Weights]:
    """The many-step teacher of a weights folder and where it lies: the folder itself, if its stage is one that may be
    asked at any time, or `teacher` inside it. UserError when there is none.
    """
    inner = folder / "teacher"
    found = inner if inner.is_dir() else folder
    weights = load_weights(found)
    if weights.config.stage not in MANY_STEP:
        raise UserError(
            f"The weights at {folder} make a latent frame in one call and have no many-step teacher; play with --nfe 1 "
            f"or give adaptation weights with --weights."
        )
    return found, weights


def load_teacher(folder: Path, nfe: int) -> tuple[Weights, Sampler]:
    """The many-step teacher of a weights folder and its sampler of `nfe` calls: learned, or uniform times.

    Grids lie in the teacher's `times/nfe-N.yaml`. UserError when there is no teacher or its grid is another's.
    """
    if not FEWEST <= nfe <= MOST:
        raise UserError(f"{nfe} network calls per latent frame are not offered; give 1, or {FEWEST} to {MOST}.")
    found, weights = teacher_of(folder)
    return weights, sampler_in(found, weights, nfe)


def sampler_in(folder: Path, weights: Weights, nfe: int) -> Sampler:
    """How `nfe` calls make a latent frame: learned times where the folder has them, else uniform ones."""
    path = folder / "times" / f"nfe-{nfe}.yaml"
    if path.is_file():
        return expect_sampler(load_sampler(path, weights.hash), path, nfe=nfe)
    return shifted_sampler(*UNLEARNED, nfe, EVEN)


def check_beside(name: str) -> None:
    """UserError for backends that are whole: their graphs hold the one call at t = 1."""
    if name in BACKENDS and name not in ("auto", *BESIDE):
        raise UserError(
            f"The backend {name} makes a latent frame in one call; choose --backend {' or '.join(BESIDE)}, or --nfe 1."
        )


def open_multistep(name: str, weights: Weights, threads: int, sampler: Sampler) -> Backend:
    """A backend with the many-step transformer, in torch, in its own one's place; UserError for those that make a frame
    in one call only.
    """
    check_beside(name)
    backend = open_backend(best_backend(weights) if name == "auto" else name, weights, threads)
    if isinstance(backend.transformer, EagerTransformer):
        dit = backend.transformer.dit
    else:
        kind = "torch-fp32" if backend.name.endswith("fp32") else best_torch()
        dit = in_dtype(weights.dit, EAGER[kind])
    return dataclasses.replace(backend, transformer=MultistepTransformer(dit, sampler))


def open_dial(folder: Path, name: str, threads: int, nfe: int) -> tuple[Weights, Backend, str]:
    """What plays a weights folder with `nfe` calls per latent frame: weights, backend and the sampler's label.

    One call is the folder's own network, whose label is empty; more are its teacher (`load_teacher`).
    """
    if nfe == 1:
        weights = load_weights(folder)
        return weights, open_backend(name, weights, threads), ""
    check_beside(name)
    weights, sampler = load_teacher(folder, nfe)
    return weights, open_multistep(name, weights, threads, sampler), sampler.label
