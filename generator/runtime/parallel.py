"""One world played by several processes: rank 0 leads, the others do what it does, each on its share.

Shape key: L layers, A heads, S cache slots, N tokens, E head width, C channels, H, W latent size. Batch is always one.
The transformer shares tokens and heads (model/share.py), the decoder tiles (parallel_decoder.py); the reprojection runs
on rank 0 alone. Rank 0 is a backend like any other: before it does something it tells the others to, with what they
need for it. Ranks that were given other weights or settings stop with one sentence before any of them loads a network.
Source: AAPT section 3.5 (Ulysses). Not a speed-up on one processor; the bytes sent are in docs/parallel.md.

Does not know about scenes, players, or how rank 0 came to its actions.
"""

from __future__ import annotations

import contextlib
import copy
import enum
import subprocess
from dataclasses import dataclass, field
from multiprocessing.util import Finalize

import torch
from torch import Tensor

from controls.errors import UserError
from generator import rollout
from generator.checkpoint import Weights
from generator.model.ranks import Meeting, Ranks, launched
from generator.model.share import Share
from generator.runtime.backend import Backend, Float, Pixels, Reprojection, State, to_array, to_tensor
from generator.runtime.eager import EagerTransformer, eager_encoder
from generator.runtime.parallel_decoder import TiledDecoder
from generator.runtime.parallel_load import DTYPES, load, request_fault
from generator.runtime.parallel_start import Request, end_followers, start_followers

GRACE = 5.0  # seconds that followers have to leave


class Order(enum.IntEnum):
    """What rank 0 tells the others to do."""

    STOP = 0
    RESET = 1
    STEP = 2
    FIRST = 3
    NEXT = 4
    SAVE = 5
    LOAD = 6
    SAVE_DECODER = 7
    LOAD_DECODER = 8


@dataclass
class Crew:
    """This rank's part of both networks, and the line on which rank 0 gives orders."""

    weights: Weights
    ranks: Ranks
    transformer: EagerTransformer
    decoder: TiledDecoder
    latent: Tensor = field(default_factory=lambda: torch.empty(0))  # what the last step made, on every rank
    followers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    over: bool = False

    def order(self, what: Order, *numbers: int, tensors: tuple[Tensor, ...] = ()) -> None:
        """Rank 0: tell the others what to do next, with up to two whole numbers and some float tensors."""
        flat = torch.cat([t.detach().cpu().float().flatten() for t in tensors]) if tensors else torch.empty(0)
        head = [int(what), *numbers, *(0,) * (2 - len(numbers)), flat.numel()]
        self.ranks.tell(torch.tensor(head, dtype=torch.int64))
        if flat.numel():
            self.ranks.tell(flat)

    def hear(self) -> tuple[Order, int, int, Tensor]:
        """The others: wait for the next order. UserError when rank 0 has gone."""
        head = torch.zeros(4, dtype=torch.int64)
        try:
            self.ranks.tell(head)
            what, one, two, count = head.tolist()
            flat = torch.empty(count)
            if count:
                self.ranks.tell(flat)
        except RuntimeError as error:
            raise UserError("The process that leads has gone; start all of them again.") from error
        return Order(what), one, two, flat

    # what every rank does, on its share ----------------------------------------------------------------------------
    def step(self, actions: Float, rays: Float, ahead: Tensor | None) -> Tensor:
        """The next latent frame, whole on every rank."""
        self.latent = self.transformer.step(actions, rays, ahead).cpu()
        return self.latent

    def save(self) -> State:
        """The transformer's whole state on rank 0; nothing elsewhere."""
        run = self.transformer.run
        assert run is not None, "reset comes first"
        state = {"recycled": to_array(run.recycled)}
        for name, own in (("keys", run.cache.keys), ("values", run.cache.values)):
            parts = self.ranks.collect(own, [own.shape] * self.ranks.size, "state")
            state[name] = to_array(torch.cat(parts, dim=2)) if parts else to_array(own[:0])
        return state | {"place": to_array(torch.tensor([run.seed, run.frame_index]))}

    @torch.inference_mode()
    def load(self, recycled: Tensor, seed: int, frame_index: int, wholes: tuple[Tensor, ...]) -> None:
        """Continue from a state whose keys and values (L, 1, A, S, N, E) rank 0 has."""
        dit = self.transformer.dit
        run = self.transformer.run = rollout.start(dit, recycled, seed)
        run.frame_index, run.prefix = frame_index, self.transformer.prefix
        for number, own in enumerate((run.cache.keys, run.cache.values)):
            parts = [part.contiguous() for part in wholes[number].chunk(self.ranks.size, dim=2)] if wholes else []
            own.copy_(self.ranks.deal(parts, own, "state"))

    def follow(self) -> None:
        """Do what rank 0 says until it says stop."""
        c = self.weights.config.dit
        frame = (1, c.latent_channels, c.height, c.width)
        while True:
            what, one, two, flat = self.hear()
            match what:
                case Order.STOP:
                    return self.ranks.leave()
                case Order.RESET:
                    self.transformer.reset(flat.view(frame), one)
                case Order.STEP:
                    shapes = (c.ticks, c.action_fields), (c.ray_channels, c.height, c.width)
                    sizes = [c.ticks * c.action_fields, c.ray_channels * c.height * c.width]
                    actions, rays, ahead = flat.split([*sizes, flat.numel() - sum(sizes)])
                    given = (actions.view(shapes[0]).numpy(), rays.view(shapes[1]).numpy())
                    self.step(*given, ahead.view(1, -1, c.height, c.width) if one else None)
                case Order.FIRST:
                    self.decoder.first(flat.view(frame))
                case Order.NEXT:
                    self.decoder.next(flat.view(frame) if one else self.latent)
                case Order.SAVE:
                    self.save()
                case Order.LOAD:
                    self.load(flat.view(frame), one, two, ())
                case Order.SAVE_DECODER:
                    self.decoder.state()
                case Order.LOAD_DECODER:
                    self.decoder.load({})

    def stop(self) -> None:
        """Rank 0: dismiss the others; those that this process started are gone afterwards."""
        if self.over:
            return
        self.over = True
        with contextlib.suppress(RuntimeError):  # they may have gone before
            self.order(Order.STOP)
        self.ranks.leave()
        end_followers(self.followers, GRACE)


class LeadTransformer:
    """Rank 0's transformer behind the backend's interface."""

    def __init__(self, crew: Crew) -> None:
        self.crew = crew

    def reset(self, first: Tensor, seed: int) -> None:
        """See `backend.Transformer.reset`."""
        self.crew.order(Order.RESET, seed, tensors=(first,))
        self.crew.transformer.reset(first, seed)

    @property
    def frame_index(self) -> int:
        """Latent frames generated since reset."""
        return self.crew.transformer.frame_index

    def step(self, actions: Float, rays: Float, ahead: Tensor | None = None) -> Tensor:
        """See `backend.Transformer.step`."""
        given = (torch.from_numpy(actions), torch.from_numpy(rays))
        self.crew.order(Order.STEP, int(ahead is not None), tensors=given if ahead is None else (*given, ahead))
        return self.crew.step(actions, rays, ahead)

    def state(self) -> State:
        """See `backend.Transformer.state`; the same as that of one process."""
        self.crew.order(Order.SAVE)
        return self.crew.save()

    def load(self, state: State) -> None:
        """See `backend.Transformer.load`."""
        dit, c = self.crew.transformer.dit, self.crew.weights.config.dit
        like, width = dit.embed.weight, c.model_width // c.heads
        wholes = tuple(to_tensor(state[name], like) for name in ("keys", "values"))
        recycled = to_tensor(state["recycled"], like).view(1, c.latent_channels, c.height, c.width)
        seed, frame_index = (int(v) for v in state["place"])
        for whole in wholes:  # checked before anybody is told: a fault here must not leave the others waiting
            if whole.shape != (c.depth, 1, c.heads, c.sink + c.window + 1, c.tokens, width):
                raise ValueError(f"its keys are {tuple(whole.shape)}")
        self.crew.order(Order.LOAD, seed, frame_index, tensors=(recycled,))
        self.crew.load(recycled, seed, frame_index, wholes)


class LeadDecoder:
    """Rank 0's decoder behind the backend's interface."""

    def __init__(self, crew: Crew) -> None:
        self.crew = crew

    def first(self, latent: Tensor) -> Pixels:
        """See `backend.Decoder.first`."""
        self.crew.order(Order.FIRST, tensors=(latent,))
        return self.crew.decoder.first(latent)

    def next(self, latent: Tensor) -> Pixels:
        """See `backend.Decoder.next`; what the last step made every rank has already."""
        other = latent is not self.crew.latent
        self.crew.order(Order.NEXT, int(other), tensors=(latent,) if other else ())
        return self.crew.decoder.next(latent)

    def state(self) -> State:
        """See `backend.Decoder.state`; the same as that of one process."""
        self.crew.order(Order.SAVE_DECODER)
        return self.crew.decoder.state()

    def load(self, state: State) -> None:
        """See `backend.Decoder.load`."""
        decoder = self.crew.decoder
        if [state[str(n)].shape for n in range(len(decoder.shapes))] != decoder.shapes:
            raise ValueError("its memory is of another decoder")
        self.crew.order(Order.LOAD_DECODER)
        decoder.load(state)


def assemble(meeting: Meeting, request: Request) -> Crew:
    """Agree, load and share; UserError with the same sentence on every rank when that is not possible."""
    fault, about = "", {}
    try:
        fault, about = request_fault(request, meeting.size)
    except UserError as error:
        fault = str(error)
    meeting.agree("request", about, fault)
    weights = None
    try:
        weights = load(request)
    except UserError as error:
        fault = str(error)
    meeting.agree("weights", {}, fault)
    assert weights is not None, "what could not be loaded has been said"
    torch.set_num_threads(request.threads)
    ranks = meeting.join()
    if ranks.device.type == "cuda":
        torch.cuda.set_device(ranks.device)
    dit, dtype = weights.dit, DTYPES[request.dtype_name]
    dit.spread(Share(ranks, dit.config.heads, dit.config.tokens))
    # the weights keep theirs in float32 for first pictures, as every backend does
    decoder = TiledDecoder(copy.deepcopy(weights.tokenizer).to(ranks.device, dtype), ranks)
    text = None if request.text is None else request.text.to(dit.embed.weight)
    return Crew(weights, ranks, EagerTransformer(dit, text), decoder)


def open_parallel(request: Request) -> tuple[Weights, Backend]:
    """Rank 0's side of a world on several processes: those that torchrun started, or ones that are started here."""
    if launched() is not None:
        crew = assemble(Meeting.arranged(), request)
    else:
        meeting, port = Meeting.hosted(request.parallel)
        followers = start_followers(request, port)
        try:
            crew = assemble(meeting, request)
        except BaseException:
            end_followers(followers, 0.0)
            raise
        crew.followers = followers
    Finalize(None, crew.stop, exitpriority=20)  # also at the end of the generator's process
    return crew.weights, lead(crew, request.dtype_name)


def lead(crew: Crew, name: str) -> Backend:
    """The backend that rank 0 plays through."""
    turn = crew.weights.reprojector(copy.deepcopy(crew.weights.tokenizer).to(DTYPES[name]))
    seen = Reprojection(turn, eager_encoder(turn)) if turn else None
    named = f"{name}-x{crew.ranks.size}"
    return Backend(named, LeadTransformer(crew), LeadDecoder(crew), seen, crew.ranks.device)


def follow(request: Request) -> None:
    """The whole life of a process that does not lead. UserError when it cannot begin, or is left alone."""
    assemble(Meeting.arranged(), request).follow()
