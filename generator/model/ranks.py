"""The processes that share one network: how they meet, what they agree on, and the few ways in which tensors travel.

Shape key: P ranks (processes), rank 0 leads.
Processes find one another as torchrun arranges it (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT), or through a store that
the first one opens. Before anything heavy happens each tells the others what it has, and all of them stop with the same
sentence when one has a fault or they differ. Every byte that leaves for another rank is counted by its purpose.

Does not know what is shared, networks or who starts the processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import pairwise

import torch
import torch.distributed as dist
from torch import Tensor

from controls.errors import UserError

PATIENCE = 60.0  # seconds within which every rank must have come, or answered
FOREVER = timedelta(days=365)  # a player may pause for as long as they like


def spans(count: int, parts: int) -> list[slice]:
    """`count` things in `parts` runs one after another; sizes differ by one at most, larger ones first."""
    least, more = divmod(count, parts)
    edges = [part * least + min(part, more) for part in range(parts + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]


def size_of(span: slice) -> int:
    """How many things a run holds."""
    return int(span.stop - span.start)


def launched() -> tuple[int, int] | None:
    """(rank, P) when something like torchrun started this process; UserError when what it says makes no sense."""
    told = [os.environ.get(name) for name in ("RANK", "WORLD_SIZE")]
    if told == [None, None]:
        return None
    try:
        rank, size = (int(text or "") for text in told)
        if not 0 <= rank < size:
            raise ValueError(rank)
    except ValueError as error:
        raise UserError(f"RANK={told[0]} of WORLD_SIZE={told[1]} is no process of a group; use torchrun.") from error
    return rank, size


class Meeting:
    """Where the ranks find one another, before they share anything."""

    def __init__(self, rank: int, size: int, store: dist.Store, patience: float = PATIENCE) -> None:
        self.rank, self.size, self.store, self.patience = rank, size, store, patience
        store.set_timeout(timedelta(seconds=patience))

    @classmethod
    def arranged(cls, patience: float = PATIENCE) -> Meeting:
        """The meeting that torchrun arranged; UserError when the others do not come in time."""
        place = launched()
        assert place is not None, "nothing was arranged"
        try:
            store, rank, size = next(dist.rendezvous("env://", timeout=timedelta(seconds=patience)))
        except (RuntimeError, ValueError, OSError) as error:
            raise UserError(
                f"The {place[1]} processes did not find one another within {patience:.0f} s "
                f"({first_line(error)}); start all of them with torchrun."
            ) from error
        return cls(rank, size, store, patience)

    @classmethod
    def hosted(cls, size: int, patience: float = PATIENCE) -> tuple[Meeting, int]:
        """A meeting that this process leads, and the port at which others find it."""
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        return cls(0, size, store, patience), store.port

    def agree(self, topic: str, about: Mapping[str, str], fault: str = "") -> None:
        """Tell the others; UserError with the same sentence on every rank when one has a fault or two differ."""
        mine = json.dumps({"about": dict(about), "fault": fault})
        try:
            self.store.set(f"{topic}/{self.rank}", mine)
            told = [json.loads(self.store.get(f"{topic}/{rank}")) for rank in range(self.size)]
            self._part(topic)
        except (RuntimeError, OSError) as error:
            raise UserError(
                fault
                or f"Not all of the {self.size} processes answered within {self.patience:.0f} s; see what the others "
                "say, and start all of them with the same command."
            ) from error
        if sentence := disagreement([t["about"] for t in told], [t["fault"] for t in told]):
            raise UserError(sentence)

    def _part(self, topic: str) -> None:
        """Nobody leaves before everybody has read: the store lives in one of them."""
        self.store.add(f"{topic}/read", 1)
        end = time.perf_counter() + self.patience
        while self.rank == 0 and self.store.add(f"{topic}/read", 0) < self.size and time.perf_counter() < end:
            time.sleep(0.01)

    def join(self) -> Ranks:
        """Become one of the ranks that can exchange tensors."""
        timeout = timedelta(seconds=10 * self.patience)
        kinds = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        store = dist.PrefixStore("farstep", self.store)
        dist.init_process_group(kinds, store=store, rank=self.rank, world_size=self.size, timeout=timeout)
        return Ranks(self.rank, self.size)


def disagreement(abouts: Sequence[Mapping[str, str]], faults: Sequence[str]) -> str:
    """What keeps the ranks from working together as one sentence, or nothing."""
    for rank, fault in enumerate(faults):
        if fault:
            return fault if all(other == fault for other in faults) else f"Process {rank} stopped: {fault}"
    for name, value in abouts[0].items():
        for rank, about in enumerate(abouts):
            if about.get(name) != value:
                return (
                    f"The processes disagree on the {name}: process 0 has {value!r}, process {rank} has "
                    f"{about.get(name)!r}; start all of them with the same command and the same files."
                )
    return ""


def first_line(error: BaseException) -> str:
    """The gist of an error that may be many lines long."""
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


class Ranks:
    """This process among P, and what it has sent to the others: bytes by purpose.

    They are all that have met, or the `group` of some of them; `rank` counts within it.
    """

    def __init__(self, rank: int, size: int, group: dist.ProcessGroup | None = None) -> None:
        self.rank, self.size, self.group = rank, size, group
        self.sent: dict[str, int] = {}
        self.control = group or dist.new_group(backend="gloo", timeout=FOREVER)

    def neighbours(self, size: int) -> Ranks:
        """The run of `size` ranks that this one is in, which P is a multiple of; all P must ask."""
        assert self.group is None and self.size % size == 0, f"{self.size} ranks in runs of {size}"
        group, _ = dist.new_subgroups(size)
        return Ranks(self.rank % size, size, group)

    @property
    def device(self) -> torch.device:
        """Where this rank computes: its own GPU when there are any."""
        local = int(os.environ.get("LOCAL_RANK", self.rank))
        return torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")

    def _count(self, what: str, values: int, like: Tensor) -> None:
        self.sent[what] = self.sent.get(what, 0) + values * like.element_size()

    def all_to_all(self, flat: Tensor, give: Sequence[int], take: Sequence[int], what: str) -> Tensor:
        """Run `give[r]` of flat (sum give,) goes to rank r; returns what came, `take[r]` from rank r: (sum take,)."""
        made = flat.new_empty(sum(take))
        dist.all_to_all_single(made, flat, list(take), list(give), group=self.group)
        self._count(what, sum(give) - give[self.rank], flat)
        return made

    def gather(self, mine: Tensor, counts: Sequence[int], what: str) -> list[Tensor]:
        """Everyone's tensor on every rank: mine (counts[rank], ...) to (counts[r], ...) for each r."""
        most = max(counts)
        padded = mine.new_zeros(most, *mine.shape[1:])
        padded[: len(mine)] = mine
        made = mine.new_empty(self.size * most, *mine.shape[1:])
        dist.all_gather_into_tensor(made, padded, group=self.group)
        self._count(what, padded.numel() * (self.size - 1), padded)
        return [part[:count] for part, count in zip(made.split(most), counts, strict=True)]

    def trade(self, gives: Mapping[int, Tensor], takes: Mapping[int, Tensor], what: str) -> None:
        """Send a tensor to each rank named in `gives`, and fill those in `takes` with what their ranks send."""
        ways = ((dist.isend, gives), (dist.irecv, takes))
        work = [
            dist.P2POp(way, tensor, group=self.group, group_peer=rank)
            for way, tensors in ways
            for rank, tensor in sorted(tensors.items())
        ]
        for tensor in gives.values():
            self._count(what, tensor.numel(), tensor)
        for request in dist.batch_isend_irecv(work) if work else []:
            request.wait()

    def collect(self, mine: Tensor, shapes: Sequence[Sequence[int]], what: str) -> list[Tensor]:
        """Everyone's tensor on rank 0, in the ranks' order; nothing elsewhere."""
        if self.rank:
            self.trade({0: mine.contiguous()}, {}, what)
            return []
        takes = {rank: mine.new_empty(tuple(shapes[rank])) for rank in range(1, self.size)}
        self.trade({}, takes, what)
        return [mine, *takes.values()]

    def deal(self, parts: Sequence[Tensor], like: Tensor, what: str) -> Tensor:
        """One of rank 0's tensors for each rank; elsewhere `parts` is empty and `like` has the shape of what comes."""
        if self.rank:
            made = torch.empty_like(like, memory_format=torch.contiguous_format)
            self.trade({}, {0: made}, what)
            return made
        self.trade({rank: parts[rank].contiguous() for rank in range(1, self.size)}, {}, what)
        return parts[0]

    def tell(self, words: Tensor) -> None:
        """From rank 0 to all, over the line that waits as long as a player does; a tensor of the processor's."""
        dist.broadcast(words, group=self.control, group_src=0)
        if self.rank == 0:
            self._count("control", words.numel() * (self.size - 1), words)

    def leave(self) -> None:
        """Part from the others."""
        with contextlib.suppress(RuntimeError, AssertionError):
            dist.destroy_process_group()


@contextlib.contextmanager
def counted(ranks: Ranks) -> Iterator[dict[str, int]]:
    """The bytes that this rank sends within the block, by purpose."""
    before, made = dict(ranks.sent), dict[str, int]()
    yield made
    made |= {what: count - before.get(what, 0) for what, count in ranks.sent.items() if count != before.get(what, 0)}
