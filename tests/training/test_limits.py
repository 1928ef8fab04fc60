"""Memory of stage 3: the estimate covers what a step really holds, and too little of it is a sentence beforehand."""

import contextlib
import dataclasses
import weakref
from types import SimpleNamespace

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp._fully_shard import _fsdp_param, _fsdp_param_group
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from controls.errors import UserError
from generator.config import PRESETS, build
from generator.data.latents import Batch
from generator.model.discriminator import Discriminator
from generator.model.dit import CausalDiT, DiTConfig
from generator.training import adversarial, limits, parallel
from generator.training.adversarial import train_step
from generator.training.adversarial_settings import AdversarialTraining
from generator.training.ema import Ema
from generator.training.judging import Adversary, rmsprop
from generator.training.limits import Team, estimate_bytes
from generator.training.parallel_tensors import part_of
from generator.training.segments import split
from tests.processes import forks, together

GB = 1e9


class Held(TorchDispatchMode):
    """Counts the bytes of all tensors alive, and the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.alive, self.most = {}, 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        made = operation(*args, **(kwargs or {}))
        for tensor in tree_iter(made):
            if isinstance(tensor, torch.Tensor):
                tensor = getattr(tensor, "_local_tensor", tensor)  # of a sharded one, what is here
                storage = tensor.untyped_storage()
                if storage._cdata not in self.alive:
                    self.alive[storage._cdata] = storage.nbytes()
                    weakref.finalize(storage, self.alive.pop, storage._cdata, None)
        self.most = max(self.most, sum(self.alive.values()))
        return made

    def resized(self, change):
        """FSDP's way of giving a gathered tensor its memory or taking it away, seen as well."""

        def act(tensor):
            change(tensor)
            storage = tensor.untyped_storage()
            if storage._cdata in self.alive:
                self.alive[storage._cdata] = storage.nbytes()

        return act


def held_by_a_step(config, sizes, team=None) -> int:
    """Most bytes of tensors alive in a whole step with a model of these sizes, its weights included."""
    with Held() as held, pytest.MonkeyPatch.context() as patch:
        for name in ("alloc_storage", "free_storage"):
            for module in (_fsdp_param, _fsdp_param_group):
                if hasattr(module, name):
                    patch.setattr(module, name, held.resized(getattr(module, name)))
        dit, judge = CausalDiT(sizes), Discriminator(CausalDiT(sizes))
        for network in (dit, judge) if team else ():
            team.shard(network)
        own = team.own(config.batch) if team else slice(0, config.batch)

        def draw(frames):
            c, number = sizes, config.batch * config.accumulate
            target = torch.randn(number, frames, c.latent_channels, c.height, c.width)
            rays = torch.randn(number, frames, c.ray_channels, c.height, c.width)
            actions = torch.randn(number, frames, c.ticks, c.action_fields)
            parts = split(Batch(target[:, 0], target, actions, rays, actions[..., :2]), config.batch)
            return [part_of(part, own) for part in parts]

        run = SimpleNamespace(
            dit=dit, optimisers=rmsprop(dit, 0.0), ema=Ema(dit, 0.9), step=0, device=torch.device("cpu"),
            tokenizer=None, parallax=None, world=SimpleNamespace(hfov=90.0), autocast=contextlib.nullcontext,
            gathered=(lambda: team.gathered(dit)) if team else contextlib.nullcontext, mean=dict, own=own,
        )  # fmt: skip
        rolled, led = (lambda: draw(config.frames)), (lambda number: draw(config.frames))
        drawer = SimpleNamespace(rolled=rolled, others=lambda use, frames: draw(frames), steering=led)
        train_step(run, config, Adversary(judge, rmsprop(judge, 0.0)), drawer)
    return held.most


SIZES = DiTConfig(4, 4, 32, model_width=32, depth=3, heads=1, window=3, sink=0)


@pytest.mark.parametrize(
    ("changes", "shape"),
    [
        ({}, {}),
        ({"segments": 2, "overlap": 2}, {"sink": 1}),
        ({"checkpointed": False}, {}),
        ({"segments": 2, "overlap": 2, "accumulate": 3}, {}),
        ({"segments": 2, "overlap": 2, "accumulate": 8}, {}),
    ],
    ids=str,
)
def test_the_estimate_is_what_a_step_holds_and_not_twice_as_much(changes, shape):
    config = AdversarialTraining(batch=2, frames=6, bf16=False)
    config, sizes = dataclasses.replace(config, **changes), dataclasses.replace(SIZES, **shape)
    held, estimate = held_by_a_step(config, sizes), estimate_bytes(config, sizes)
    assert held < estimate < 2 * held, f"{estimate / held:.2f} times what was held"


@forks
@pytest.mark.parametrize(
    ("size", "context", "changes"),
    [
        (2, 1, {}),
        (2, 2, {"segments": 2, "overlap": 2, "accumulate": 3}),
        (2, 2, {"checkpointed": False}),
        (4, 2, {}),
    ],
    ids=str,
)
def test_each_of_several_processes_holds_its_part(size, context, changes):
    """Alone each would hold nearly `size` times as much: the estimate for one process would refuse too early."""
    config = dataclasses.replace(AdversarialTraining(batch=4, frames=6, bf16=False, context=context), **changes)
    sizes = dataclasses.replace(SIZES, heads=2)

    def act(meeting):
        ranks = meeting.join()
        mesh = init_device_mesh("cpu", (size,))
        shared = parallel.Team(ranks, mesh, ranks.neighbours(context) if context > 1 else None)
        return held_by_a_step(config, sizes, shared)

    estimate = estimate_bytes(config, sizes, Team(size, context, size, True))
    for held in together(size, act, seconds=600.0):
        assert held < estimate < 2 * held, f"{estimate / held:.2f} times what was held"
    assert estimate < estimate_bytes(config, sizes) / size**0.5


@pytest.fixture
def config(latents, tokenizer_run, world_folder) -> AdversarialTraining:
    """The settings of a run that is to be refused."""
    return AdversarialTraining(
        latents=str(latents), tokenizer=str(tokenizer_run), start=str(world_folder), preset="debug", steps=1,
        batch=64, frames=16, overlap=1, bf16=False, device="cpu",
    )  # fmt: skip


def test_too_little_memory_names_what_to_lower(config, tmp_path, monkeypatch, make_dit):
    dit = make_dit().config
    sizes = [(64, 16), (9, 16), (1, 16), (1, 7)]
    needs = {(b, f): estimate_bytes(dataclasses.replace(config, batch=b, frames=f), dit) for b, f in sizes}
    for free, words in (
        (needs[9, 16], r"--set batch=9\."),
        (needs[1, 16], r"--set batch=1\."),
        (needs[1, 7], r"--set batch=1 --set frames=7\."),
        (1000.0, "smaller preset"),
    ):
        monkeypatch.setattr(limits, "available_bytes", lambda device, free=free: free)
        with pytest.raises(UserError, match=words) as caught:
            adversarial.train(config, tmp_path / "run", quiet=True)
        assert f"need about {needs[64, 16] / GB:.3g} GB" in str(caught.value) and "\n" not in str(caught.value)
        assert f"{free / GB:.3g} GB of cpu memory" in str(caught.value)
    assert not (tmp_path / "run").exists(), "it was refused only after the run had begun"
    for enough in (needs[64, 16], None):
        monkeypatch.setattr(limits, "available_bytes", lambda device, free=enough: free)
        limits.check_memory(config, dit, torch.device("cpu"))


def test_the_estimate_holds_what_is_certain_and_grows_with_what_grows():
    config = AdversarialTraining(batch=5, frames=12, bf16=False)
    dit = build(DiTConfig, PRESETS["pocket"]["dit"], "dit")
    with torch.device("meta"):
        judge = Discriminator(CausalDiT(dit))
    mine, theirs = (sum(p.numel() for p in module.parameters()) for module in (judge.body, judge))
    whole = estimate_bytes(config, dit)
    boundaries = 5 * 12 * dit.tokens * dit.model_width * dit.depth * 4
    assert whole > 16 * mine + 12 * theirs + 5 * boundaries
    assert whole < 3 * GB, "the shipped settings fit a small machine"
    more = estimate_bytes(dataclasses.replace(config, accumulate=4), dit)
    assert whole < more < estimate_bytes(dataclasses.replace(config, batch=20), dit) / 1.5
    for changes in ({"batch": 6}, {"frames": 13}, {"segments": 2}, {"checkpointed": False}):
        assert estimate_bytes(dataclasses.replace(config, **changes), dit) > whole, changes
    big = build(DiTConfig, PRESETS["aapt-8b"]["dit"], "dit")
    assert estimate_bytes(dataclasses.replace(config, batch=1, bf16=True), big) > 28 * 7.5e9


def test_several_processes_are_told_what_each_needs(make_dit, monkeypatch):
    """As torchrun starts them: four processes, two of them on this machine, pairs of which share each clip."""
    for name, value in (("RANK", "3"), ("WORLD_SIZE", "4"), ("LOCAL_WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    dit, config = make_dit().config, AdversarialTraining(batch=16, frames=6, bf16=False, context=2)
    team = limits.team_of(config)
    assert team == Team(4, 2, 2, True) and (team.groups, team.clips(5)) == (2, 3)
    need, less = (estimate_bytes(dataclasses.replace(config, batch=b), dit, team) for b in (16, 10))
    assert less < need < estimate_bytes(config, dit)
    monkeypatch.setattr(limits, "available_bytes", lambda device: 2 * need)
    limits.check_memory(config, dit, torch.device("cpu"))
    monkeypatch.setattr(limits, "available_bytes", lambda device: 2 * less)
    with pytest.raises(UserError, match=r"in each of 4 processes, and .* free for each; give --set batch=10\.") as told:
        limits.check_memory(config, dit, torch.device("cpu"))
    assert f"need about {need / GB:.3g} GB" in str(told.value) and f"{less / GB:.3g} GB of cpu" in str(told.value)
    monkeypatch.setattr(limits, "available_bytes", lambda device: 0.0)
    with pytest.raises(UserError, match="choose a smaller preset"):
        limits.check_memory(config, dit, torch.device("cpu"))


def test_the_memory_of_this_machine_is_told_or_unknown():
    free = limits.available_bytes(torch.device("cpu"))
    assert free is None or 1e7 < free < 1e14
    assert limits.available_bytes(torch.device("meta")) is None
