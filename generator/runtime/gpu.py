"""The GPU runtime: static buffers, captured graphs, and switches for every trick, behind the backend's interface.

Shape key: C channels, H, W latent size, P action fields, R ray channels, Y, X video size. Batch is always one.
Checked against eager on the CPU without graphs and streams, and on an H100 with them: docs/benchmarks.

Does not know about scenes, players or other backends.
"""

from __future__ import annotations

import contextlib
import copy
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from controls.errors import UserError
from controls.strict_yaml import did_you_mean
from generator.checkpoint import Weights
from generator.rollout import frame_noise
from generator.runtime.backend import (
    Backend,
    Float,
    Pixels,
    Reprojection,
    State,
    check_level,
    level_of,
    to_array,
    to_bytes,
    to_tensor,
)
from generator.runtime.build import in_type
from generator.runtime.eager import EagerDecoder, eager_encoder
from generator.runtime.fp8 import check_capability, fp8_linears
from generator.runtime.gpu_attention import kernel
from generator.runtime.gpu_cache import GpuCache
from generator.runtime.gpu_graphs import GraphRunner, capture_for, on_gpu
from generator.runtime.gpu_reprojection import GpuReprojection
from generator.runtime.gpu_step import GpuStep
from generator.tokenizer.reproject import Reprojector

WARM_UPS = 3  # of the reprojection, whose many kernels choose how to run when they first do


@dataclass(frozen=True)
class Switches:
    """Every trick by name, as reports show it. `whole`: step and decode are one graph; `overlap`: the decoder has a
    stream of its own, so that it can work beside the next step; `reproject`: the reprojection has static buffers and,
    with `graph`, graphs as well, else it runs kernel by kernel as on other backends.
    """

    graph: bool = True
    reproject: bool = True
    whole: bool = False
    overlap: bool = True
    pinned: bool = True
    fuse: bool = True
    compiled: bool = False
    attention: str = "sdpa-flash"
    cache: str = "bf16"
    linear: str = "bf16"


CHOICES = {"cache": ("bf16", "fp8"), "linear": ("bf16", "fp8")}


def parse_switches(entries: tuple[str, ...], base: Switches) -> Switches:
    """`graph=off`, `attention=flash-attn-4`, ... on top of others; UserError on an unknown one."""
    values = asdict(base)
    for entry in entries:
        name, _, value = entry.partition("=")
        if name not in values:
            raise UserError(f"--switch {entry!r} is unknown{did_you_mean(name, values)}.")
        if isinstance(values[name], bool):
            if value not in ("on", "off"):
                raise UserError(f"--switch {entry!r}: {name} is on or off.")
            values[name] = value == "on"
            continue
        if name in CHOICES and value not in CHOICES[name]:
            raise UserError(f"--switch {entry!r}: {name} is {' or '.join(CHOICES[name])}.")
        values[name] = value
    made = Switches(**values)
    if made.whole and made.overlap:
        raise UserError(
            "--switch whole=on makes one graph of step and decoder, which then cannot overlap; add overlap=off."
        )
    return made


class GpuDecoder:
    """The streaming decoder on static buffers, on a stream of its own if it is to overlap."""

    def __init__(self, weights: Weights, device: torch.device, switches: Switches, runner: GraphRunner) -> None:
        self.vae = copy.deepcopy(weights.tokenizer).to(device, torch.bfloat16)
        self.eager, self.runner, self.device = EagerDecoder(self.vae), runner, device
        config, like = self.vae.config, next(self.vae.decoder.parameters())
        self.memory = tuple(m.clone() for m in self.eager.memory)
        self.latent = torch.zeros(1, config.latent_channels, *config.latent_size, dtype=like.dtype, device=device)
        self.frames = torch.zeros(config.time, *config.size, 3, dtype=torch.uint8, device=device)
        self.shown = torch.zeros(self.frames.shape, dtype=torch.uint8, pin_memory=switches.pinned and on_gpu(device))
        self.level = torch.zeros(1, device=device)
        self.stream = torch.cuda.Stream(device) if switches.overlap and on_gpu(device) else None
        self.done_for: Tensor | None = None

    @torch.no_grad()
    def body(self) -> None:
        """Decode `latent` into `frames`; the memory moves on in place."""
        video, kept = self.vae.decoder(self.vae.denormalise(self.latent)[:, None], self.memory, False)
        self.frames.copy_(to_bytes(video))
        self.level.copy_(level_of(video))
        for own, made in zip(self.memory, kept, strict=True):
            own.copy_(made)

    def first(self, latent: Tensor) -> Pixels:
        """See `backend.Decoder.first`."""
        self.settle()
        picture = self.eager.first(latent)
        for own, made in zip(self.memory, self.eager.memory, strict=True):
            own.copy_(made)
        return picture

    def launch(self, latent: Tensor) -> None:
        """See `backend.LaunchedDecoder.launch`; nothing where the step's graph has decoded this very latent."""
        if latent is self.done_for:
            self.done_for = None
            return
        self.done_for = None
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream(self.device))
            latent.record_stream(self.stream)  # or the step's stream might reuse its memory too early
        with self.queue():
            self.latent.copy_(latent, non_blocking=True)
            self.runner.run("decode", self.body)

    def fetch(self) -> Pixels:
        """See `backend.LaunchedDecoder.fetch`."""
        with self.queue():
            self.shown.copy_(self.frames, non_blocking=True)
            if on_gpu(self.device):
                torch.cuda.current_stream(self.device).synchronize()
            check_level(float(self.level))
        return self.shown.numpy().copy()

    def next(self, latent: Tensor) -> Pixels:
        """See `backend.Decoder.next`."""
        self.launch(latent)
        return self.fetch()

    def state(self) -> State:
        """See `backend.Decoder.state`."""
        self.settle()
        return {str(number): to_array(tensor) for number, tensor in enumerate(self.memory)}

    def load(self, state: State) -> None:
        """See `backend.Decoder.load`."""
        self.settle()
        for number, own in enumerate(self.memory):
            own.copy_(to_tensor(state[str(number)], own))

    def settle(self) -> None:
        """Wait for what this decoder's stream still does."""
        self.done_for = None
        if self.stream is not None:
            self.stream.synchronize()

    def queue(self) -> contextlib.AbstractContextManager[Any]:
        """Work inside goes to this decoder's stream, if it has one."""
        return torch.cuda.stream(self.stream) if self.stream is not None else contextlib.nullcontext()


class GpuTransformer:
    """The static step, run through its graphs; with `whole` each of them decodes as well."""

    def __init__(
        self, weights: Weights, device: torch.device, switches: Switches, runner: GraphRunner, text: Tensor | None
    ) -> None:
        dit = weights.dit
        if not _fits(weights, device):  # angles stay in float32
            dit = in_type(copy.deepcopy(dit).to(device), torch.bfloat16)
        with torch.no_grad():
            self.prefix = None if text is None else dit.prefill(text.to(device))
        if switches.linear == "fp8":
            dit = copy.deepcopy(dit)
            fp8_linears(dit.blocks)
        length = 0 if self.prefix is None else self.prefix[0][0].shape[2]
        cache = GpuCache(dit.config, length, torch.bfloat16, device, switches.cache == "fp8")
        self.made = GpuStep(dit, cache, kernel(switches.attention), switches.fuse, switches.compiled)
        self.runner, self.seed, self._index = runner, 0, 0
        self.copied = torch.cuda.Event() if on_gpu(device) else None
        self.whole: GpuDecoder | None = None
        inputs = (self.made.noise, self.made.actions, self.made.rays)
        sizes = [tensor.numel() for tensor in inputs]
        self.host = torch.zeros(sum(sizes), pin_memory=switches.pinned and on_gpu(device))
        self.given = torch.zeros(sum(sizes), device=device)
        self.parts = [(part.view_as(own), own) for part, own in zip(self.given.split(sizes), inputs, strict=True)]
        self.windows = [part.view_as(own) for part, own in zip(self.host.split(sizes), inputs, strict=True)]

    def reset(self, first: Tensor, seed: int) -> None:
        """See `backend.Transformer.reset`."""
        self.made.reset(first, self.prefix)
        self.seed, self._index = seed, 0

    @property
    def frame_index(self) -> int:
        """Latent frames generated since reset."""
        return self._index

    def step(self, actions: Float, rays: Float, ahead: Tensor | None = None) -> Tensor:
        """See `backend.Transformer.step`; the latent stays on the device."""
        assert (ahead is not None) == (self.made.ahead is not None), "ahead goes with models that recycle one"
        noise = frame_noise(self.seed, self._index, tuple(self.made.latent.shape[1:]))
        if self.copied is not None:
            self.copied.synchronize()  # the last inputs have left the host's buffer; long since, as a rule
        for window, array in zip(self.windows, (noise, torch.from_numpy(actions), torch.from_numpy(rays)), strict=True):
            window.copy_(array.view_as(window))
        self.given.copy_(self.host, non_blocking=True)
        if self.copied is not None:
            self.copied.record()
        if ahead is not None:
            self.made.ahead.copy_(ahead, non_blocking=True)
        index = self._index
        self.runner.run(("step", self.made.key(index)), lambda: self._body(index))
        self._index += 1
        made = self.made.latent.float().clone()
        if self.whole is not None:
            self.whole.done_for = made
        return made

    def _body(self, index: int) -> None:
        for part, own in self.parts:
            own.copy_(part)
        self.made.run(index)
        if self.whole is not None:
            self.whole.latent.copy_(self.made.latent)
            self.whole.body()

    def state(self) -> State:
        """See `backend.Transformer.state`."""
        kept = {name: to_array(_bits(tensor)) for name, tensor in self.made.cache.tensors().items()}
        place = to_array(torch.tensor([self.seed, self._index]))
        return kept | {"recycled": to_array(self.made.latent), "place": place}

    def load(self, state: State) -> None:
        """See `backend.Transformer.load`."""
        for name, tensor in self.made.cache.tensors().items():
            bits = _bits(tensor)
            bits.copy_(to_tensor(state[name], bits))
        self.made.latent.copy_(to_tensor(state["recycled"], self.made.latent))
        self.seed, self._index = (int(v) for v in state["place"])
        self.made.index.fill_(self._index)


def _bits(tensor: Tensor) -> Tensor:
    """fp8 numbers as the bytes that they are; others as they are."""
    return tensor.view(torch.uint8) if tensor.dtype == torch.float8_e4m3fn else tensor


def _fits(weights: Weights, device: torch.device) -> bool:
    weight = weights.dit.embed.weight
    return weight.device == device and weight.dtype == torch.bfloat16


def open_gpu(
    name: str, weights: Weights, device: torch.device, switches: Switches, text: Tensor | None = None
) -> Backend:
    """The GPU runtime with these switches; UserError where the GPU cannot do what they ask."""
    if on_gpu(device) and "fp8" in (switches.linear, switches.cache):
        check_capability(torch.cuda.get_device_capability(device))
    runners = [GraphRunner(capture_for(device, switches.graph)) for _ in range(2)]  # step and decoder may overlap
    transformer = GpuTransformer(weights, device, switches, runners[0], text)
    decoder = GpuDecoder(weights, device, switches, runners[1])
    if switches.whole:
        transformer.whole = decoder
    turn = weights.reprojector(decoder.vae)
    if turn is not None and turn.parallax is not None:
        turn.parallax = copy.deepcopy(turn.parallax).to(device)
    seen = None if turn is None else _reprojection(turn, weights.config.dit.action_fields, device, switches)
    return Backend(name, transformer, decoder, seen, device, asdict(switches))


def _reprojection(turn: Reprojector, fields: int, device: torch.device, switches: Switches) -> Reprojection:
    if not switches.reproject:
        return Reprojection(turn, eager_encoder(turn))
    runner = GraphRunner(capture_for(device, switches.graph), WARM_UPS)
    return GpuReprojection(turn, fields, switches.pinned, runner)
